"""Training on bags: which ones train and which ones judge, decoded once."""

from functools import partial
import os
from pathlib import Path

from mta_perception.bags.scene_bag import BagError, SceneBag, find_bags
from mta_training.data import scene_cache
from mta_training.data.scene_arrays import every_step, load_scene
from mta_training.evaluation.torch_frames import evaluate_learner, held_out_scene
from mta_training.losses.described_objects import corrupted
from mta_training.process_group import run_processes
from mta_training.training import loop


def split_bags(directory, held_out_names=None, held_out_directory=None):
    """(training bags, held-out bags) below a directory.

    Held out are the bags of another directory, or those named, or else those whose split ends in
    'val'.  Raises BagError for a name that is not there and where nothing is left to train on.
    """
    bags = find_bags(directory)
    if held_out_directory is not None:
        held_out = find_bags(held_out_directory)
        both = {bag.resolve() for bag in bags} & {bag.resolve() for bag in held_out}
        if both:
            raise BagError(
                f'{sorted(both)[0]} is among the training bags and the held-out ones; '
                'keep them apart.'
            )
        return bags, held_out
    names = {bag.name for bag in bags}
    unknown = sorted(set(held_out_names or ()) - names)
    if unknown:
        raise BagError(
            f'{directory} has no bag {", ".join(unknown)}; it has {", ".join(sorted(names)[:10])}.'
        )
    held_out = [
        bag
        for bag in bags
        if (bag.name in held_out_names if held_out_names else SceneBag(bag).split.endswith('val'))
    ]
    training = [bag for bag in bags if bag not in held_out]
    if not training:
        raise BagError(
            f'{directory}: all {len(bags)} bags are held out, none is left to train on.'
        )
    return training, held_out


def train_on_bags(
    bags, held_out, out, recipe, *, cache, resume=False, processes=1, threads=0, text_cache=None
):
    """Train on bag directories into `out`, judged on the bags `held_out` (may be empty).

    Decoded images go to `cache`, 2 MB a frame at nano size; bags already there are not decoded
    again.  processes: started here; 1 where `accelerate launch` has started this one.
    """
    image, workers = recipe.model.image, os.cpu_count() or 1
    caches = scene_cache.cache_scenes(bags, cache, image, workers)
    held_out_caches = scene_cache.cache_scenes(held_out, cache, image, workers)
    run_processes(
        processes,
        _member,
        caches,
        list(zip(held_out_caches, held_out)),
        Path(out),
        recipe,
        resume,
        threads,
        text_cache,
    )


def _member(caches, held_out, out, recipe, resume, threads, text_cache):
    scenes = [every_step(load_scene(path)) for path in caches]
    captions = corrupted(
        [scene.captions for scene in scenes],
        recipe.captions.missing,
        recipe.captions.wrong,
        recipe.seed,
    )
    scenes = [scene._replace(captions=said) for scene, said in zip(scenes, captions)]
    judged = [held_out_scene(load_scene(path), bag) for path, bag in held_out]
    evaluate = partial(evaluate_learner, frames=recipe.evaluate_frames)
    loop.run(
        scenes,
        judged,
        out,
        recipe,
        resume=resume,
        evaluate=evaluate,
        threads=threads,
        text_cache=text_cache,
    )

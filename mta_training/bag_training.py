"""Training on bags: which ones train and which ones judge, decoded once, one process a core."""

from pathlib import Path

from mta_perception.bag import BagError, SceneBag
from mta_perception.model.config import MtaConfig
from mta_training import dataset, train
from mta_training.team import run_team
from mta_training.validation import HeldOut, evaluate_model


def split_bags(directory, held_out_names=None):
    """(training bags, held-out bags) below a directory.

    Held out are the bags named, or else those whose split ends in 'val'.  Raises BagError for a
    name that is not there and where nothing is left to train on.
    """
    bags = dataset.find_bags(directory)
    names = {bag.name for bag in bags}
    unknown = sorted(set(held_out_names or ()) - names)
    if unknown:
        raise BagError(f'{directory} has no bag {", ".join(unknown)}; it has '
                       f'{", ".join(sorted(names)[:10])}.')
    held_out = [bag for bag in bags if (bag.name in held_out_names if held_out_names
                                        else SceneBag(bag).split.endswith('val'))]
    training = [bag for bag in bags if bag not in held_out]
    if not training:
        raise BagError(f'{directory}: all {len(bags)} bags are held out, none is left to train '
                       'on.')
    return training, held_out


def train_on_bags(bags, held_out, out, config, *, cache, model_config=None, resume=False):
    """Train on bag directories into `out`, judged on the bags `held_out` (may be empty).

    Decoded images go to `cache`, 2 MB a frame at nano size; bags already there are not decoded
    again.
    """
    model_config = model_config or MtaConfig.nano()
    workers = max(config.processes, config.threads)
    caches = dataset.cache_scenes(bags, cache, model_config.image, workers)
    held_out_caches = dataset.cache_scenes(held_out, cache, model_config.image, workers)
    run_team(config.processes, _member, caches, list(zip(held_out_caches, held_out)), Path(out),
             config, model_config, resume)


def _member(team, caches, held_out, out, config, model_config, resume):
    scenes = [dataset.load_scene(path) for path in caches]
    judged = [HeldOut(dataset.load_scene(path), SceneBag(bag).samples) for path, bag in held_out]
    train.run(scenes, judged, out, config, model_config, resume, evaluate_model, team=team)

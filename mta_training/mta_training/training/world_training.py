"""Training on the simulated world itself: no bag, no dataset, no disk full of pictures.

Nothing of bags, datasets and metrics is imported unless there are bags to judge on.
"""

from functools import partial
from pathlib import Path
import shutil

from mta_perception.directory_lock import sole_writer
from mta_training.training import loop
from mta_training.training.world import WORLD, World


def train_on_world(val_bags, out, recipe, *, resume=False, threads=0, workers=0):
    """Train on `recipe.world` into `out`; returns the last evaluation.

    val_bags  directory of bags to judge on, None = none
    workers   processes that draw; 0 = one less than there are cores
    """
    out = Path(out)
    held_out, evaluate = [], None
    if val_bags is not None:
        held_out, evaluate = _judges(val_bags, recipe)
    with sole_writer(out, then='go on with --resume'):
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(f'{WORLD}*'):  # drawn for a run that was killed
            shutil.rmtree(left)
        with World(recipe.world, recipe.model.image, workers, out) as world:
            return loop.run(
                world, held_out, out, recipe, resume=resume, evaluate=evaluate, threads=threads
            )


def _judges(val_bags, recipe):
    from mta_perception.bags.scene_bag import find_bags
    from mta_training.data.scene_cache import read_scene
    from mta_training.evaluation.torch_frames import evaluate_learner, held_out_scene

    image = recipe.model.image
    held_out = [held_out_scene(read_scene(bag, image), bag) for bag in find_bags(val_bags)]
    return held_out, partial(evaluate_learner, frames=recipe.evaluate_frames)

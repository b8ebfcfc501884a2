"""What the tests of training share: small recipes, toy scenes, runs in processes of their own."""

import json
from pathlib import Path
import sys

from toy_scenes import toy_scene

from mta_training.runs.recipe import Recipe
from mta_training.training import loop


def small_recipe(**changes):
    """The smoke recipe without alignments; `changes` as Recipe.changed."""
    recipe = Recipe.smoke().changed(
        {
            'alignment': {'bla': 'off', 'dca': 'off'},
            'language': {'pretrain_steps': 10},
            'schedule': {'steps': 8},
            'gradient_norms_every': 0,
        }
    )
    return recipe.changed(changes)


def toy_scenes(count=3, frames=4, objects=8):
    config = small_recipe().model
    return [toy_scene(config, frames=frames, objects=objects, seed=seed) for seed in range(count)]


def silent(line):
    """For log lines nobody reads."""


def run_from_file(path):
    """Train as a JSON file says; for processes of their own."""
    values = json.loads(Path(path).read_text())
    loop.run(
        toy_scenes(),
        [],
        values['out'],
        Recipe.from_dict(values['recipe']),
        resume=values['resume'],
        threads=1,
        say=silent,
        text_cache=values.get('text_cache'),
    )


if __name__ == '__main__':
    run_from_file(sys.argv[1])

"""Paths that a command is given, looked at before it imports torch, which takes many seconds."""

from pathlib import Path

RECIPE_FILES = ('.yaml', '.yml')


def check_paths(bags=(), runs=(), starts=(), models=(), config=None):
    """Refuse what cannot be right; an entry may be None.  Raises ValueError, FileNotFoundError.

    bags    directories of bags, or bags
    runs    (run directory, 'last', 'best' or None for either)
    starts  run directories, or those of `import-bevformer`
    models  model directories
    config  name of a recipe, or a YAML file
    """
    if any(bags):
        from mta_perception.bags.scene_bag import find_bags

        for directory in filter(None, bags):
            find_bags(directory)
    for run, which in runs:
        names = (f'{which}.pt',) if which else ('last.pt', 'best.pt')
        _has_one(run, names, 'a run directory written by `mta-train train --out`')
    for start in starts:
        expected = 'a run directory of `mta-train train`, or one of `mta-train import-bevformer`'
        _has_one(start, ('last.pt', 'card.yaml'), expected)
    for model in models:
        _has_one(model, ('manifest.yaml',), 'a model directory written by `mta-train export`')
    if config is not None and Path(config).suffix in RECIPE_FILES and not Path(config).is_file():
        raise FileNotFoundError(f'{config} does not exist; expected a recipe (docs/training.md).')


def _has_one(directory, names, expected):
    if directory is not None and not any((directory / name).is_file() for name in names):
        raise FileNotFoundError(
            f'{directory} holds no {" or ".join(names)}; expected {expected}.'
            f'{"" if directory.exists() else " It does not exist."}'
        )

"""Where launch, params, rviz and models lie: in a checkout, or in the share directory."""

import os
from pathlib import Path
import sys

PACKAGE = 'mta_perception'


def share_directories():
    """Directories that may hold params/, models/ and so on, best first; all of them exist."""
    named = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    prefixes = [Path(prefix) for prefix in named if prefix]
    candidates = [
        Path(__file__).resolve().parents[1],
        *(prefix / 'share' / PACKAGE for prefix in [*prefixes, Path(sys.prefix)]),
    ]
    return [path for path in candidates if (path / 'params').is_dir()]


def share_file(*parts):
    """Path of a shipped file such as ('params', 'perception.yaml').  Raises FileNotFoundError."""
    directories = share_directories()
    for directory in directories:
        path = directory.joinpath(*parts)
        if path.exists():
            return path
    looked = ', '.join(str(directory) for directory in directories) or 'no share directory'
    raise FileNotFoundError(f'{"/".join(parts)} is not in {looked}. Install the package again.')


def model_directory(model):
    """Directory of a model given by its path, or by its name under models/.

    Raises FileNotFoundError with the names there are.
    """
    given = Path(model).expanduser()
    if (given / 'manifest.yaml').is_file():
        return given
    names = set()
    for directory in share_directories():
        candidate = directory / 'models' / model
        if (candidate / 'manifest.yaml').is_file():
            return candidate
        names.update(path.parent.name for path in (directory / 'models').glob('*/manifest.yaml'))
    raise FileNotFoundError(
        f'no model "{model}": neither a directory with a manifest.yaml nor one of the models '
        f'that came with this program ({", ".join(sorted(names)) or "there are none"}). Name one '
        'of those, or export one with `mta-train export`.'
    )

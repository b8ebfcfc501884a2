"""Where launch, params, rviz and models lie, in a checkout or the share directory; the cache."""

import os
from pathlib import Path
import sys

PACKAGE = 'mta_perception'


def share_directories() -> list[Path]:
    """Directories that may hold params/, models/ and so on, best first; all of them exist."""
    named = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    prefixes = [Path(prefix) for prefix in named if prefix]
    candidates = [
        Path(__file__).resolve().parents[1],
        *(prefix / 'share' / PACKAGE for prefix in [*prefixes, Path(sys.prefix)]),
    ]
    return [path for path in candidates if (path / 'params').is_dir()]


def cache_directory(*parts: str) -> Path:
    """A folder below $MTA_CACHE or ~/.cache/mta_perception, made if need be.

    Raises OSError that names MTA_CACHE where it cannot be made or written to.
    """
    user_cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    cache = Path(os.environ.get('MTA_CACHE') or Path(user_cache) / PACKAGE)
    folder = cache.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError('not writable')
    except OSError as error:
        raise OSError(
            f'the cache {folder} cannot be used ({error.strerror or error}): set MTA_CACHE to a '
            'folder that can be written to, e.g. MTA_CACHE=/var/tmp/mta_cache.'
        ) from error
    return folder


def share_file(*parts: str) -> Path:
    """Path of a shipped file such as ('params', 'perception.yaml').  Raises FileNotFoundError."""
    directories = share_directories()
    for directory in directories:
        path = directory.joinpath(*parts)
        if path.exists():
            return path
    looked = ', '.join(str(directory) for directory in directories) or 'no share directory'
    raise FileNotFoundError(f'{"/".join(parts)} is not in {looked}. Install the package again.')


def model_directory(model: str | Path) -> Path:
    """Directory of a model given by its path, or by its name under models/.

    Raises FileNotFoundError with the names there are.
    """
    given = Path(model).expanduser()
    if (given / 'manifest.yaml').is_file():
        return given
    names: set[str] = set()
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

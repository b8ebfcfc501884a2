"""Which files a bag is made of: a rosbag2 directory, or one .mcap or .db3 alone.

What metadata.yaml names is looked at before anything is opened: it may come from elsewhere.
"""

from pathlib import Path
import shlex

from mta_perception.foreign_text import shown
from mta_perception.plain_yaml import YamlError, read_yaml

METADATA = 'metadata.yaml'
STORAGE = ('.mcap', '.db3')
LONGEST_NAME = 255  # bytes, of a file on the file systems there are


class BagError(ValueError):
    """No bag that can be read; the message says what is wrong and what to do."""


def partial_bag(out: str | Path) -> Path:
    """Where a recorder writes the bag `out`, whose data file is named after the last folder."""
    out = Path(out)
    return out.with_name(f'{out.name}.partial') / out.name


def rescue_command(path: Path) -> str:
    """What to type to get what is whole of a damaged bag."""
    name = path.with_name(f'{path.name.removesuffix(path.suffix)}-rescued')
    return f'mta rescue {shlex.quote(str(path))} --out {shlex.quote(str(name))}'


def storage_files(directory: Path) -> list[Path]:
    """The .mcap and .db3 files in a directory, in the order in which they were written."""
    found = [path for path in directory.iterdir() if path.suffix in STORAGE and path.is_file()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(storage_files(path))
    return path.suffix in STORAGE and path.is_file()


def bag_storage(path: Path) -> Path:
    """What rosbags' Reader is to open: the directory, or the one file with the messages.

    Raises BagError for what is no bag.
    """
    if path.is_dir():
        if (path / METADATA).is_file():
            _check_metadata(path)
            return path
        files = storage_files(path)
        if len(files) == 1:
            return files[0]
        if files:
            raise BagError(
                f'{path} has {len(files)} files of messages and no {METADATA}, which says their '
                f'order. Run `{rescue_command(path)}`, or `ros2 bag reindex`.'
            )
        raise BagError(
            f'{path} is no rosbag2 directory: {METADATA} is missing. Give a bag as `mta-train '
            'convert` or `ros2 bag record` writes it, or one .mcap.'
        )
    if not path.exists():
        raise BagError(
            f'{path} does not exist. Give the directory of a bag as `mta-train convert` writes it.'
        )
    if not path.is_file() or path.suffix not in STORAGE:
        raise BagError(f'{path} is no bag: expected a directory with {METADATA}, a .mcap or .db3.')
    return path


def _check_metadata(path: Path) -> None:
    """Raise BagError unless the files that metadata.yaml names are different ordinary files."""
    try:
        content = read_yaml(path / METADATA)
    except YamlError as error:
        raise BagError(f'{error} Run `{rescue_command(path)}`.') from None
    try:
        names = content['rosbag2_bagfile_information']['relative_file_paths']
    except (KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BagError(
            f'{path / METADATA}: relative_file_paths is {shown(names)}, expected the names of '
            f'files. Run `{rescue_command(path)}`.'
        )
    bare = [Path(name).name for name in names]
    twice = sorted({name for name in bare if bare.count(name) > 1})
    if twice:
        raise BagError(f'{path / METADATA} names {twice[0]} more than once.')
    for name in bare:
        if len(name.encode(errors='replace')) > LONGEST_NAME:
            raise BagError(
                f'{path / METADATA}: a file called {shown(name)} has a name of {len(name)} '
                f'characters, expected at most {LONGEST_NAME}. Run `{rescue_command(path)}`.'
            )
        if (path / name).exists() and not (path / name).is_file():
            raise BagError(f'{path / name} is a folder, pipe or device, expected messages.')

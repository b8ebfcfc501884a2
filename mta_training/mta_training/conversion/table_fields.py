"""What each field of the nuScenes tables may hold, and names that stay below their folder.

A dataset may come from anywhere: whatever is written in its tables becomes a path, a matrix or a
stamp only after it was held against this.
"""

from collections.abc import Callable
import json
import math
from pathlib import Path, PurePosixPath
import re
from typing import NamedTuple

from mta_perception.foreign_text import shown

MOST_M = 1e8  # farther away is nothing that drives
MOST_PIXELS = 1 << 16
LAST_US = 1 << 52  # a stamp after the year 2100 is none in microseconds
MOST_MB = 64  # of an image or a small file
_FOLDER = re.compile(r'[^\x00-\x1f\x7f/\\]{1,120}')


class DatasetError(ValueError):
    """The dataset is not complete; the message names the file and what to do."""


class Kind(NamedTuple):
    """What a field may hold."""

    expected: str  # in words
    fits: Callable[[object], bool]
    optional: bool = False


def is_number(value, least=-MOST_M, most=MOST_M):
    """Whether a value of JSON is a finite number in a range."""
    return type(value) in (int, float) and least <= value <= most


def _numbers(count, least=-MOST_M, most=MOST_M):
    def fits(value):
        return (
            type(value) is list
            and len(value) == count
            and all(is_number(one, least, most) for one in value)
        )

    return fits


def is_rotation(value):
    """Whether a value is a quaternion of length 1."""
    return _numbers(4, -2.0, 2.0)(value) and abs(math.hypot(*value) - 1.0) < 0.01


def _is_intrinsic(value):
    if value == []:  # of a lidar
        return True
    return (
        type(value) is list
        and len(value) == 3
        and all(map(_numbers(3, -1e6, 1e6), value))
        and value[0][0] > 0
        and value[1][1] > 0
        and value[2] == [0, 0, 1]
    )


def is_folder_name(value):
    """Whether a text names a file or folder and nothing above or inside another."""
    return (
        type(value) is str and _FOLDER.fullmatch(value) is not None and not value.startswith('.')
    )


def _is_path(value):
    if type(value) is not str or not 0 < len(value) < 1000 or '\0' in value:
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and '..' not in path.parts


def _is_text(value):
    return type(value) is str and len(value) < 100_000


def _whole(least, most):
    return lambda value: type(value) is int and least <= value <= most


TOKEN = Kind('a token', lambda value: type(value) is str and 0 < len(value) <= 200)
NEIGHBOUR = Kind("a token or ''", lambda value: type(value) is str and len(value) <= 200)
MAYBE_TOKEN = NEIGHBOUR._replace(optional=True)
TEXT = Kind('a text', _is_text)
NAME = Kind("a name that can be a folder's, without / and leading dot", is_folder_name)
FILE = Kind("a path below the dataset's root", _is_path)
PLACE = Kind(f'three finite numbers [m], none above {MOST_M:g}', _numbers(3))
ROTATION = Kind('a quaternion w, x, y, z of length 1', is_rotation)
SIZE = Kind('width, length, height above 0 and below 1000 m', _numbers(3, 1e-6, 1e3))
INTRINSIC = Kind('[] or a camera matrix with focal lengths above 0', _is_intrinsic)
STAMP = Kind('whole microseconds', _whole(0, LAST_US))
PIXELS = Kind(f'whole pixels, at most {MOST_PIXELS}', _whole(0, MOST_PIXELS))
COUNT = Kind('a whole number', _whole(-1, 1 << 40))
TRUTH = Kind('true or false', lambda value: type(value) is bool)
TOKENS = Kind(
    'a list of tokens',
    lambda value: type(value) is list and len(value) < 100 and all(map(TOKEN.fits, value)),
)
# Table -> the fields that conversion reads.  A dataset lacking one of these tables is not whole.
TABLES = {
    'attribute': {'name': TEXT},
    'calibrated_sensor': {
        'sensor_token': TOKEN,
        'translation': PLACE,
        'rotation': ROTATION,
        'camera_intrinsic': INTRINSIC,
    },
    'category': {'name': TEXT},
    'ego_pose': {'timestamp': STAMP, 'translation': PLACE, 'rotation': ROTATION},
    'instance': {'category_token': TOKEN},
    'log': {'location': TEXT},
    'map': {'filename': FILE},
    'sample': {'timestamp': STAMP, 'scene_token': TOKEN, 'prev': NEIGHBOUR, 'next': NEIGHBOUR},
    'sample_annotation': {
        'sample_token': TOKEN,
        'instance_token': TOKEN,
        'attribute_tokens': TOKENS,
        'translation': PLACE,
        'size': SIZE,
        'rotation': ROTATION,
        'visibility_token': MAYBE_TOKEN,
        'num_lidar_pts': COUNT,
        'num_radar_pts': COUNT,
        'prev': NEIGHBOUR,
        'next': NEIGHBOUR,
    },
    'sample_data': {
        'sample_token': TOKEN,
        'ego_pose_token': TOKEN,
        'calibrated_sensor_token': TOKEN,
        'filename': FILE,
        'width': PIXELS,
        'height': PIXELS,
        'timestamp': STAMP,
        'is_key_frame': TRUTH,
    },
    'scene': {
        'name': NAME,
        'description': TEXT,
        'log_token': TOKEN,
        'first_sample_token': TOKEN,
    },
    'sensor': {'channel': TEXT, 'modality': TEXT},
    'visibility': {'level': TEXT},
}

# Of a message of `can_bus/<scene>_pose.json`.
CAN_BUS = {
    'utime': STAMP,
    'orientation': ROTATION,
    'rotation_rate': PLACE,
    'accel': PLACE,
}


def check_row(path, number, row, kinds):
    """Raise DatasetError where row `number` of the table in `path` lacks a field or one does not
    fit; kinds: field -> Kind."""
    if not isinstance(row, dict) or not TOKEN.fits(row.get('token')):
        raise DatasetError(f'{path}: row {number} has no token. Unpack the metadata again.')
    for field, kind in kinds.items():
        if field not in row:
            if kind.optional:
                continue
            raise DatasetError(
                f'{path}: row {number} (token {row["token"]}) has no field '
                f'{field!r}, which nuScenes v1.0 has. Unpack the metadata '
                'again.'
            )
        if not kind.fits(row[field]):
            raise DatasetError(
                f'{path}: row {number} (token {shown(row["token"])}): {field} is '
                f'{shown(row[field])}, expected {kind.expected}. Unpack the metadata again.'
            )


def below(root, name, told, follow_links=False):
    """Path of a file that a table names; DatasetError where it leads out of `root`, by a link too.

    told          which table, token and field named it, for the message
    follow_links  links may lead out: somebody vouches for the dataset
    """
    path = Path(root) / name
    if not follow_links and not path.resolve().is_relative_to(Path(root).resolve()):
        raise DatasetError(
            f'{told}: {path} leads to {path.resolve()}, outside the dataset; expected a path '
            'below its root. Put the files there, or allow the links that you made yourself with '
            '--follow-links.'
        )
    return path


def small_json(path):
    """Content of a JSON file of a bounded size.  Raises DatasetError."""
    try:
        if not path.is_file():
            raise DatasetError(f'{path} is no file.')
        with open(path, 'rb') as file:
            content = file.read((MOST_MB << 20) + 1)
        if len(content) > MOST_MB << 20:
            raise DatasetError(f'{path} has more than {MOST_MB} MB.')
        return json.loads(content.decode('utf-8'))
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror or error}.') from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        reason = ' '.join(str(error).split())[:200]
        raise DatasetError(f'{path} is no JSON ({reason}); write it again or remove it.') from None

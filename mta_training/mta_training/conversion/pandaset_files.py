"""PandaSet's files, read with every value held against what it may be.

Whatever lies in a sequence may come from anywhere: see `table_fields`.  Cuboids come as pickles,
which can run code: they are not opened here, see `cuboids_of`.
"""

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mta_perception.foreign_text import first_line, shown
from mta_perception.geometry import rigid_from_quaternion, rigid_from_yaw
from mta_training.conversion.table_fields import (
    MOST_M,
    MOST_MB,
    TEXT,
    TOKEN,
    DatasetError,
    Kind,
    is_number,
)

CATEGORIES = {
    'Car': 'vehicle.car',
    'Pickup Truck': 'vehicle.truck',
    'Medium-sized Truck': 'vehicle.truck',
    'Semi-truck': 'vehicle.truck',
    'Bus': 'vehicle.bus.rigid',
    'Towed Object': 'vehicle.trailer',
    'Motorcycle': 'vehicle.motorcycle',
    'Motorized Scooter': 'vehicle.motorcycle',
    'Bicycle': 'vehicle.bicycle',
    'Other Vehicle - Construction Vehicle': 'vehicle.construction',
    'Pedestrian': 'human.pedestrian.adult',
    'Pedestrian with Object': 'human.pedestrian.adult',
    'Cones': 'movable_object.trafficcone',
    'Road Barriers': 'movable_object.barrier',
    'Construction Signs': 'movable_object.barrier',
}
_MOTION = {
    'Moving': 'vehicle.moving',
    'Stopped': 'vehicle.stopped',
    'Parked': 'vehicle.parked',
}
_BEHAVIOUR = {
    'Walking': 'pedestrian.moving',
    'Standing': 'pedestrian.standing',
    'Sitting': 'pedestrian.sitting_lying_down',
    'Lying': 'pedestrian.sitting_lying_down',
}


LAST_S = 4_102_444_800.0  # a stamp after the year 2100 is none in seconds


def _between(least, most, words):
    return Kind(words, lambda value: is_number(value, least, most))


_PLACE = _between(-MOST_M, MOST_M, 'a finite number of metres')
_TURN = _between(-2.0, 2.0, 'a part of a quaternion')
_SIDE = _between(1e-6, 1e3, 'metres above 0 and below 1000')
_FOCAL = _between(1e-3, 1e6, 'pixels above 0')
_PIXEL = _between(-1e6, 1e6, 'pixels')
_POINTS = Kind(
    'whole numbers or null',
    lambda value: (
        value is None
        or (
            type(value) is list
            and len(value) < 100
            and all(one is None or (type(one) is int and 0 <= one < 1 << 32) for one in value)
        )
    ),
    optional=True,
)
_CUBOID = {
    'uuid': TOKEN,
    'label': TEXT,
    'yaw': _between(-1e3, 1e3, 'radians'),
    **{f'position.{axis}': _PLACE for axis in 'xyz'},
    **{f'dimensions.{axis}': _SIDE for axis in 'xyz'},
    'lidar_points': _POINTS,
}
_LENS = {'fx': _FOCAL, 'fy': _FOCAL, 'cx': _PIXEL, 'cy': _PIXEL}


class Cuboid(NamedTuple):
    """One object in one frame."""

    track: str  # the same for all frames, whichever lidar saw it
    category: str
    attribute: str  # nuScenes attribute, '' for none
    rider: object  # True, False; None for what cannot have one
    world_from_box: np.ndarray  # (4, 4), x = front
    size: tuple  # length, width, height [m]
    lidar_points: int


def inside(root, path):
    """`path`, a regular file of bounded size below `root`, links included; else DatasetError."""
    path = Path(path)
    if not path.resolve().is_relative_to(Path(root).resolve()):
        raise DatasetError(
            f'{path} leads to {path.resolve()}, outside {root}. Put the file there.'
        )
    if not path.is_file():
        what = 'is a folder, pipe or device' if path.exists() else 'is missing'
        raise DatasetError(f'{path} {what}; expected a file of PandaSet.')
    if path.stat().st_size > MOST_MB << 20:
        raise DatasetError(f'{path} has more than {MOST_MB} MB, which no file of PandaSet has.')
    return path


def read_json(path, root=None):
    """Contents of a JSON file, plain or gzip; DatasetError names the file."""
    path = inside(root or path.parent, path)
    most = MOST_MB << 20
    try:
        with gzip.open(path) if path.suffix == '.gz' else path.open('rb') as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f'it unpacks to more than {MOST_MB} MB')
        return json.loads(data)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DatasetError(f'{path} cannot be read as JSON: {first_line(error)}.') from error


def _entries(path, root):
    entries = read_json(path, root)
    if type(entries) is not list:
        raise DatasetError(f'{path} is {shown(entries)}, expected a list.')
    return entries


def _check(path, number, entry, kinds):
    """DatasetError where an entry of a file lacks a field, or one does not fit."""
    if type(entry) is not dict:
        raise DatasetError(f'{path}: entry {number} is {shown(entry)}, expected names and values.')
    for field, kind in kinds.items():
        if field not in entry and kind.optional:
            continue
        if field not in entry or not kind.fits(entry[field]):
            came = shown(entry[field]) if field in entry else 'missing'
            raise DatasetError(
                f'{path}: entry {number}: {field} is {came}, expected {kind.expected}.'
            )


def poses_of(path, root=None):
    """(n, 4, 4) world_from_sensor of PandaSet's {position, heading}."""
    poses = []
    for number, entry in enumerate(_entries(path, root)):
        _check(path, number, entry, dict.fromkeys(('position', 'heading'), _ANY))
        place, turn = entry['position'], entry['heading']
        _check(path, number, place, dict.fromkeys('xyz', _PLACE))
        _check(path, number, turn, dict.fromkeys('xyzw', _TURN))
        try:
            pose = rigid_from_quaternion(
                [turn[axis] for axis in 'xyzw'], [place[axis] for axis in 'xyz']
            )
        except ValueError as error:
            raise DatasetError(f'{path}: entry {number}: {first_line(error)}.') from None
        poses.append(pose)
    return np.array(poses).reshape(-1, 4, 4)


_ANY = Kind('names and values', lambda value: type(value) is dict)


def microseconds(path, root=None):
    """(n,) int64 stamps of a file of Unix seconds, which must grow."""
    stamps = _entries(path, root)
    if not stamps or not all(is_number(one, 0.0, LAST_S) for one in stamps):
        raise DatasetError(f'{path}: expected a list of Unix seconds, it is {shown(stamps)}.')
    found = np.round(np.array(stamps, dtype=np.float64) * 1e6).astype(np.int64)
    if not (np.diff(found) > 0).all():
        raise DatasetError(f'{path}: its stamps do not grow. Download the sequence again.')
    return found


def intrinsics_of(path, root=None):
    """(3, 3) camera matrix as nested lists."""
    lens = read_json(path, root)
    _check(path, 0, lens, _LENS)
    return [[lens['fx'], 0.0, lens['cx']], [0.0, lens['fy'], lens['cy']], [0.0, 0.0, 1.0]]


def cuboids_of(folder, frame, root=None):
    """track -> Cuboid of a frame, one an object; DatasetError where only a pickle is there."""
    path = folder / f'{frame:02d}.json.gz'
    if not path.is_file() and (folder / f'{frame:02d}.pkl.gz').is_file():
        raise DatasetError(
            f'{folder} holds pickles, and reading a pickle can run code. Where you trust them, '
            'turn them into JSON once: python -c "import glob, gzip, pandas; '
            "[gzip.open(p[:-7] + '.json.gz', 'wt').write(pandas.read_pickle(p)"
            f".to_json(orient='records')) for p in glob.glob('{folder}/*.pkl.gz')]\""
        )
    entries = _entries(path, root)
    for number, entry in enumerate(entries):
        _check(path, number, entry, _CUBOID)
    by_id = {entry['uuid']: entry for entry in entries}
    found = {}
    for entry in entries:
        category = CATEGORIES.get(entry['label'])
        sibling = _sibling(entry, by_id)
        # The forward lidar's cuboid of what the other one has, too, is the same object again.
        if category is None or (sibling is not None and entry.get('cuboids.sensor_id') == 1):
            continue
        found[entry['uuid']] = _cuboid(entry, category)
    return found


def _sibling(entry, by_id):
    """The cuboid that another lidar has of an object, None where none is in the frame."""
    name = entry.get('cuboids.sibling_id')
    if type(name) is not str or len(name) < 8 or name == entry['uuid']:
        return None
    # One published name has lost its last two digits.
    return by_id.get(name) or next((e for u, e in by_id.items() if u.startswith(name)), None)


def _cuboid(entry, category):
    yaw = float(entry['yaw']) + np.pi / 2  # 0 looks along +y
    place = [float(entry[f'position.{axis}']) for axis in 'xyz']
    width, length, height = (float(entry[f'dimensions.{axis}']) for axis in 'xyz')
    points = entry.get('lidar_points')
    known = [count for count in points or () if count is not None]
    if entry.get('attributes.pedestrian_age') == 'Child' and 'pedestrian' in category:
        category = 'human.pedestrian.child'
    rider, attribute = None, ''
    if category in ('vehicle.motorcycle', 'vehicle.bicycle'):
        rider = entry.get('attributes.rider_status') == 'With Rider'
        attribute = 'cycle.with_rider' if rider else 'cycle.without_rider'
    elif category.startswith('vehicle'):
        attribute = _MOTION.get(str(entry.get('attributes.object_motion')), '')
    elif category.startswith('human'):
        attribute = _BEHAVIOUR.get(str(entry.get('attributes.pedestrian_behavior')), '')
    return Cuboid(
        entry['uuid'],
        category,
        attribute,
        rider,
        rigid_from_yaw(yaw, place),
        (length, width, height),
        # Without counts an object counts as seen: who labelled it saw it.
        sum(known) if known else 1,
    )

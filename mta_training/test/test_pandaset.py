"""PandaSet's layout into nuScenes' format: a small sequence written here, and the real one."""

import gzip
import json
import os
from pathlib import Path
import re
import shutil

import cv2
import numpy as np
import pytest

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CLASSES
from mta_perception.geometry import (
    invert_rigid,
    quaternion_from_rigid,
    rigid,
    rigid_from_yaw,
    yaw_from_rigid,
)
from mta_training.conversion.convert import convert
from mta_training.conversion.pandaset import CAMERAS, EGO_FROM_BODY, import_pandaset
from mta_training.conversion.pandaset_files import cuboids_of
from mta_training.conversion.table_fields import DatasetError

SHARED = Path(os.environ.get('MTA_SHARED', Path(__file__).resolve().parents[3] / 'shared'))
REAL = SHARED / 'data' / 'pandaset_002'
START, FRAMES, SPEED = 1_557_539_956.5, 11, 4.0
real = pytest.mark.skipif(not REAL.is_dir(), reason='no real drive in ../shared')


def pose_entry(world_from_sensor):
    x, y, z, w = quaternion_from_rigid(world_from_sensor).tolist()
    place = world_from_sensor[:3, 3].tolist()
    return {
        'position': dict(zip('xyz', place)),
        'heading': {'w': w, 'x': x, 'y': y, 'z': z},
    }


def cuboid(uuid, label, xy, **more):
    return {
        'uuid': uuid,
        'label': label,
        'yaw': 0.0,  # along +y of the world
        'position.x': xy[0],
        'position.y': xy[1],
        'position.z': 0.8,
        'dimensions.x': 1.9,
        'dimensions.y': 4.5,
        'dimensions.z': 1.6,
        'cuboids.sibling_id': '-',
        'cuboids.sensor_id': -1,
        **more,
    }


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == '.gz' else text)


def world_from_ego(seconds):
    """The car drives along +y of the world."""
    return rigid_from_yaw(np.pi / 2, (0.0, SPEED * seconds, 0.0))


def write_sequence(folder):
    """A drive of a second: one car ahead that keeps its distance, one parked, seen twice."""
    times = np.arange(FRAMES) * 0.1
    write(folder / 'lidar' / 'timestamps.json', (START + times).tolist())
    bodies = [pose_entry(world_from_ego(t) @ EGO_FROM_BODY) for t in times]
    write(folder / 'lidar' / 'poses.json', bodies)
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    picture = cv2.imencode('.jpg', np.full((90, 160, 3), 99, np.uint8))[1].tobytes()
    for number, name in enumerate(CAMERAS.values()):
        camera = folder / 'camera' / f'{name}_camera'
        fired = times - 0.01 * (number + 1)
        mount = rigid_from_yaw(number * 1.0, (0.5, 0.1 * number, 1.9)) @ rigid(optical, [0, 0, 0])
        write(camera / 'timestamps.json', (START + fired).tolist())
        write(camera / 'poses.json', [pose_entry(world_from_ego(t) @ mount) for t in fired])
        write(camera / 'intrinsics.json', {'fx': 80.0, 'fy': 81.0, 'cx': 79.5, 'cy': 44.5})
        for frame in range(FRAMES):
            (camera / f'{frame:02d}.jpg').write_bytes(picture)
    for frame, t in enumerate(times):
        moving = {'attributes.object_motion': 'Moving', 'lidar_points': [5, None]}
        parked = {'attributes.object_motion': 'Parked', 'cuboids.sensor_id': 0}
        write(
            folder / 'annotations' / 'cuboids' / f'{frame:02d}.json.gz',
            [
                cuboid('aaaaaaaa-1', 'Car', (0.0, SPEED * t + 12.0), **moving),
                cuboid(
                    'bbbbbbbb-1',
                    'Car',
                    (5.0, 3.0),
                    **{**parked, 'cuboids.sibling_id': 'cccccccc-1'},
                ),
                cuboid(
                    'cccccccc-1',
                    'Car',
                    (5.1, 3.0),
                    **{**parked, 'cuboids.sensor_id': 1, 'cuboids.sibling_id': 'bbbbbbbb'},
                ),
                cuboid('dddddddd-1', 'Pylons of another planet', (1.0, 1.0)),
            ],
        )
    return folder


@pytest.fixture(scope='module')
def sequence(tmp_path_factory):
    return write_sequence(tmp_path_factory.mktemp('pandaset') / '007')


def bag_of(folder, out):
    names = import_pandaset(folder, out / 'set')
    (bag,) = convert(out / 'set', out / 'bags', workers=1, progress=False)
    return names, SceneBag(bag)


def test_a_sequence_becomes_a_bag_with_the_same_world(sequence, tmp_path):
    names, bag = bag_of(sequence, tmp_path)
    assert names == ['pandaset-007'] == [bag.name]
    assert len(bag.samples) == 3 and len(bag.cameras) == 6
    for number, sample in enumerate(bag.samples):
        assert sample.stamp_ns == round((START + 0.5 * number) * 1e6) * 1000
        np.testing.assert_allclose(sample.world_from_ego, world_from_ego(0.5 * number), atol=1e-6)
        assert [CLASSES[label] for label in sample.labels] == ['car', 'car']
        ahead, parked = sample.boxes[np.argsort(-sample.boxes[:, 0])]
        np.testing.assert_allclose(ahead[:6], [12.0, 0.0, 0.8, 4.5, 1.9, 1.6], atol=1e-6)
        np.testing.assert_allclose(ahead[6:], [0.0, 1.0, SPEED, 0.0], atol=1e-5)
        np.testing.assert_allclose(parked[1], -5.0, atol=1e-6)
        assert set(sample.attributes) == {'vehicle.moving', 'vehicle.parked'}
        assert sorted(sample.num_lidar_pts) == [1, 5]
    sentences = sorted(bag.samples[1].captions)
    assert sentences[0].startswith(
        'car about 12 meters away in the front of the ego car is moving'
    )
    assert 'is parked' in sentences[1]


def test_cameras_are_where_their_poses_say(sequence, tmp_path):
    _, bag = bag_of(sequence, tmp_path)
    for number, camera in enumerate(CAMERAS):
        mount = bag.calibrations[camera].ego_from_camera
        np.testing.assert_allclose(mount[:3, 3], [0.5, 0.1 * number, 1.9], atol=1e-6)
        np.testing.assert_allclose(mount[:3, 2], rigid_from_yaw(number * 1.0)[:3, 0], atol=1e-6)
        stamps = bag.image_stamps(camera)
        assert len(stamps) == FRAMES
        first = bag.world_from_ego_at(int(stamps[0]))  # before the lidar's first pose
        expected = world_from_ego(-0.01 * (number + 1))
        np.testing.assert_allclose(first, expected, atol=1e-4)


def test_pickles_are_not_opened(sequence, tmp_path):
    folder = tmp_path / '008'
    shutil.copytree(sequence, folder)
    cuboids = folder / 'annotations' / 'cuboids'
    (cuboids / '00.json.gz').unlink()
    (cuboids / '00.pkl.gz').write_bytes(b'anything')
    with pytest.raises(DatasetError, match='reading a pickle can run code'):
        import_pandaset(folder, tmp_path / 'set')


@pytest.mark.parametrize(
    'lost, words',
    [
        ('lidar/poses.json', 'lidar/poses.json is missing'),
        ('camera/back_camera/03.jpg', '03.jpg is missing'),
        ('annotations/cuboids/05.json.gz', '05.json.gz is missing'),
    ],
)
def test_what_is_missing_is_named(sequence, tmp_path, lost, words):
    folder = tmp_path / '009'
    shutil.copytree(sequence, folder)
    (folder / lost).unlink()
    with pytest.raises(DatasetError, match=words):
        import_pandaset(folder, tmp_path / 'set')
    with pytest.raises(DatasetError, match='is no PandaSet sequence'):
        import_pandaset(tmp_path / 'set', tmp_path / 'other')


def set_value(path, change):
    packed = path.suffix == '.gz'
    content = path.read_bytes()
    value = json.loads(gzip.decompress(content) if packed else content)
    path.unlink()
    write(path, change(value))


CUBOIDS = 'annotations/cuboids/03.json.gz'


@pytest.mark.parametrize(
    'file, change, words',
    [
        ('lidar/poses.json', lambda rows: [7, *rows[1:]], 'entry 0 is 7, expected names'),
        ('lidar/poses.json', lambda rows: rows[:3], '3 poses and'),
        ('lidar/poses.json', lambda rows: [{'position': {}, 'heading': {}}], 'x is missing'),
        (
            'lidar/poses.json',
            lambda rows: [{**row, 'heading': dict.fromkeys('xyzw', 0.0)} for row in rows],
            'is not a rotation',
        ),
        ('lidar/timestamps.json', lambda stamps: {'a': 1}, 'expected a list'),
        ('lidar/timestamps.json', lambda stamps: stamps[::-1], 'do not grow'),
        ('lidar/timestamps.json', lambda stamps: [1e300, *stamps[1:]], 'Unix seconds'),
        ('camera/front_camera/intrinsics.json', lambda lens: {**lens, 'fx': 'x'}, "fx is 'x'"),
        ('camera/front_camera/intrinsics.json', lambda lens: {}, 'fx is missing'),
        ('camera/front_camera/poses.json', lambda rows: rows[:2], '2 poses, 11 timestamps'),
        (CUBOIDS, lambda rows: [{**rows[0], 'yaw': [1]}], 'yaw is [1]'),
        (CUBOIDS, lambda rows: [{**rows[0], 'dimensions.x': -1.0}], 'dimensions.x is -1.0'),
        (CUBOIDS, lambda rows: [{**rows[0], 'position.z': float('nan')}], 'position.z is nan'),
        (CUBOIDS, lambda rows: [{**rows[0], 'lidar_points': ['x']}], 'lidar_points'),
        (CUBOIDS, lambda rows: [{'label': 'Car'}], 'uuid is missing'),
        (CUBOIDS, lambda rows: 'x', 'expected a list'),
    ],
)
def test_values_that_cannot_be_are_named(sequence, tmp_path, file, change, words):
    folder = tmp_path / '009'
    shutil.copytree(sequence, folder)
    set_value(folder / file, change)
    with pytest.raises(DatasetError, match=re.escape(words)) as caught:
        import_pandaset(folder, tmp_path / 'set')
    assert Path(file).name in str(caught.value) or 'lidar' in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_elsewhere_pipes_and_bombs_are_not_read(sequence, tmp_path):
    folder = tmp_path / '009'
    shutil.copytree(sequence, folder)
    poses, outside = folder / 'lidar' / 'poses.json', tmp_path / 'outside.json'
    poses.rename(outside)
    poses.symlink_to(outside)
    with pytest.raises(DatasetError, match='outside'):
        import_pandaset(folder, tmp_path / 'set')
    poses.unlink()
    os.mkfifo(poses)
    with pytest.raises(DatasetError, match='pipe'):
        import_pandaset(folder, tmp_path / 'set')
    poses.unlink()
    shutil.copyfile(outside, poses)
    bomb = gzip.compress(b' ' * (65 << 20))
    (folder / 'annotations' / 'cuboids' / '03.json.gz').write_bytes(bomb)
    with pytest.raises(DatasetError, match='unpacks to more than 64 MB'):
        import_pandaset(folder, tmp_path / 'set')


@real
def test_the_real_drive_is_whole_and_smooth(tmp_path):
    """One object a cuboid, as many as its notes count; the car's own motion without a step."""
    objects = [cuboids_of(REAL / 'annotations' / 'cuboids', frame) for frame in range(80)]
    tracks = {track for frame in objects for track in frame}
    assert 90 <= len(tracks) <= 110  # 98 objects by its notes, some of two lidars' names
    _, bag = bag_of(REAL, tmp_path)
    assert len(bag.samples) == 16
    stamps, poses = bag.ego_poses
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    speeds = steps[1:] / np.maximum(np.diff(stamps)[1:] / 1e9, 1e-3)
    assert np.quantile(speeds, 0.99) < 7.0  # it drove at up to 5.3 m/s
    lean = [np.degrees(np.arccos(sample.world_from_ego[2, 2])) for sample in bag.samples]
    assert 1.0 < np.mean(lean) < 3.0  # the road leans two degrees
    for sample in bag.samples:
        level = sample.levelled()
        assert (
            abs(yaw_from_rigid(level.world_from_ego @ invert_rigid(sample.world_from_ego))) < 0.01
        )
        moving = np.hypot(*sample.boxes[:, 8:10].T)
        assert np.nanmax(moving) < 25.0

"""Our reading of the tables against the official devkit's, and what damage is called."""

from contextlib import contextmanager
import json
import shutil

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from pyquaternion import Quaternion
import pytest
from tiny_dataset import ONCE, VERSION

from mta_training.conversion import table_index
from mta_training.conversion.nuscenes_scene import (
    DETECTION_CLASS,
    NuScenesScene,
    rebuilt_caption,
    rigid_from_record,
    split_of,
)
from mta_training.conversion.table_fields import DatasetError
from mta_training.conversion.table_index import (
    TableIndex,
    build_index,
    find_version,
    stream_items,
    stream_rows,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


@pytest.fixture(scope='module')
def devkit(dataset):
    return NuScenes(VERSION, str(dataset), verbose=False)


@contextmanager
def opened(dataset, folder):
    """The dataset's scenes; their index lies in `folder`."""
    build_index(dataset, VERSION, folder / 'index.sqlite', rebuilt_caption)
    index = TableIndex(folder / 'index.sqlite')
    yield [NuScenesScene(index, dataset, VERSION, row) for row in index.rows('scene')]
    index.close()


@pytest.fixture(scope='module')
def scenes(dataset, tmp_path_factory):
    with opened(dataset, tmp_path_factory.mktemp('index')) as them:
        yield them


def test_boxes_in_the_ego_frame_are_the_devkits(devkit, scenes):
    compared = 0
    for scene in scenes:
        for sample in scene.samples:
            lidar = devkit.get(
                'sample_data', devkit.get('sample', sample['token'])['data']['LIDAR_TOP']
            )
            pose = devkit.get('ego_pose', lidar['ego_pose_token'])
            for annotation in scene.annotations(sample):
                box = devkit.get_box(annotation.annotation_token)
                box.translate(-np.array(pose['translation']))
                box.rotate(Quaternion(pose['rotation']).inverse)
                front = box.orientation.rotate([1.0, 0.0, 0.0])
                np.testing.assert_allclose(annotation.box[:3], box.center, atol=1e-8)
                np.testing.assert_allclose(annotation.box[3:6], box.wlh[[1, 0, 2]])
                np.testing.assert_allclose(
                    annotation.box[6:8], [front[1], front[0]] / np.hypot(*front[:2]), atol=1e-9
                )
                np.testing.assert_allclose(
                    annotation.ego_from_box[:3, :3], box.orientation.rotation_matrix, atol=1e-9
                )
                compared += 1
    assert compared == sum(len(sample['anns']) for sample in devkit.sample)


def test_velocities_are_the_devkits(devkit, scenes):
    unknown = 0
    for scene in scenes:
        for row in scene.annotation_rows.values():
            want = devkit.box_velocity(row['token'])[:2]
            np.testing.assert_allclose(scene.velocity(row), want, atol=1e-9)
            unknown += bool(np.isnan(want).any())
    assert unknown == len(scenes)  # the object seen once in each


@pytest.mark.parametrize('gap_us, known', [(2_999_000, True), (3_000_001, False)])
def test_velocity_over_a_long_gap_is_unknown(dataset, scenes, tmp_path, gap_us, known):
    rows = scenes[0].annotation_rows
    row = next(row for row in rows.values() if row['prev'] and row['next'])
    before, after = (rows[row[side]]['sample_token'] for side in ('prev', 'next'))
    shutil.copytree(dataset / VERSION, tmp_path / VERSION)
    table = tmp_path / VERSION / 'sample.json'
    samples = {sample['token']: sample for sample in json.loads(table.read_text())}
    samples[after]['timestamp'] = samples[before]['timestamp'] + gap_us
    table.write_text(json.dumps(list(samples.values())))
    with opened(tmp_path, tmp_path) as (scene, *_):
        assert np.isfinite(scene.velocity(row)).all() == known


def test_velocity_turns_with_the_ego(scenes):
    for annotation in scenes[0].annotations(scenes[0].samples[1]):
        world = annotation.world_velocity
        if annotation.annotation_token.endswith(f'object-{ONCE}-0'):
            continue
        pose = scenes[0].reference_pose(scenes[0].samples[1])
        want = (pose[:3, :3].T @ [*world, 0.0])[:2]
        np.testing.assert_allclose(annotation.box[8:10], want, atol=1e-12)


def test_classes_are_the_devkits(dataset):
    from nuscenes.eval.detection import utils

    assert utils.__file__
    categories = set(DETECTION_CLASS) | {
        row['name'] for row, _ in stream_rows(dataset / VERSION / 'category.json')
    }
    categories |= {
        'human.pedestrian.wheelchair',
        'vehicle.emergency.police',
        'movable_object.debris',
        'human.pedestrian.stroller',
    }
    for category in categories:
        assert DETECTION_CLASS.get(category) == category_to_detection_name(category)


def test_poses_and_reference_pose(devkit, scenes):
    stamps, poses = scenes[0].ego_poses()
    assert (np.diff(stamps) > 0).all()
    lookup = {row['timestamp'] * 1000: row for row in devkit.ego_pose}
    for stamp, pose in zip(stamps[::7], poses[::7]):
        want = Quaternion(lookup[int(stamp)]['rotation']).transformation_matrix
        np.testing.assert_allclose(pose[:3, :3], want[:3, :3], atol=1e-9)
        np.testing.assert_allclose(pose[:3, 3], lookup[int(stamp)]['translation'])
    sample = scenes[0].samples[2]
    lidar = devkit.get('sample_data', devkit.sample[2]['data']['LIDAR_TOP'])
    want = rigid_from_record(devkit.get('ego_pose', lidar['ego_pose_token']))
    np.testing.assert_array_equal(scenes[0].reference_pose(sample), want)


def test_caption_is_rebuilt_from_its_parts():
    entry = {
        'attribute_caption': {'attribute_caption': 'traffic cone'},
        'depth_caption': {'depth': 7.2, 'depth_caption': 'near'},
        'localization_caption': {'localization_caption': 'in the back left of the ego car'},
        'motion_caption': {'motion_caption': 'not moving'},
        'map_caption': {'map_caption': 'in the walkway'},
        'relation_caption': 'none',
    }
    assert rebuilt_caption(entry) == (
        'traffic cone about 7 meters away in the back left of the ego car is not moving '
        'in the walkway'
    )
    entry['map_caption'] = {'map_caption': 'none'}
    entry['motion_caption'] = None
    assert rebuilt_caption(entry) == (
        'traffic cone about 7 meters away in the back left of the ego car'
    )
    assert rebuilt_caption({**entry, 'final_caption': 'A cone.'}) == 'A cone.'
    assert rebuilt_caption({}) == ''


@pytest.mark.parametrize(
    ('version', 'name', 'want'),
    [
        ('v1.0-mini', 'scene-0061', 'mini_train'),
        ('v1.0-mini', 'scene-0103', 'mini_val'),
        ('v1.0-trainval', 'scene-0001', 'train'),
        ('v1.0-trainval', 'scene-0003', 'val'),
        ('v1.0-mini', 'my-scene', ''),
    ],
)
def test_split_without_a_file_is_the_official_one(tmp_path, version, name, want):
    assert split_of(tmp_path, version, name) == want


def test_split_of_a_file_is_the_smallest(dataset):
    assert split_of(dataset, VERSION, 'scene-0001') == 'tiny_all'
    assert split_of(dataset, VERSION, 'scene-0002') == 'tiny_val'
    assert split_of(dataset, VERSION, 'scene-0061') == ''


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROWS, max_size=5), indent=st.sampled_from([None, 0, 2]), chunk=st.integers(1, 40)
)
def test_streaming_reads_what_json_reads(tmp_path_factory, rows, indent, chunk):
    path = tmp_path_factory.mktemp('json') / 'table.json'
    path.write_text(json.dumps(rows, indent=indent), encoding='utf-8')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_index, '_CHUNK', chunk)
        got = list(stream_rows(path))
    assert [row for row, _ in got] == rows
    assert [json.loads(text) for _, text in got] == rows


@settings(max_examples=30, deadline=None)
@given(items=st.dictionaries(st.text(max_size=6), ROWS, max_size=5), chunk=st.integers(1, 40))
def test_streaming_an_object(tmp_path_factory, items, chunk):
    path = tmp_path_factory.mktemp('json') / 'captions.json'
    path.write_text(json.dumps(items), encoding='utf-8')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_index, '_CHUNK', chunk)
        assert dict(stream_items(path)) == items


@pytest.mark.parametrize(
    'text',
    ['', '[', '{}', '[{"token": "a"}', '[{"token": "a"} {}]', '[{"token": ]', '[{"token": "a"},'],
)
def test_damaged_json_is_named(tmp_path, text):
    path = tmp_path / 'sample.json'
    path.write_text(text)
    with pytest.raises(DatasetError, match='sample.json is damaged'):
        list(stream_rows(path))


def test_version_is_found_or_asked_for(dataset, tmp_path):
    assert find_version(dataset) == VERSION
    with pytest.raises(DatasetError, match='is no nuScenes dataset'):
        find_version(tmp_path)
    with pytest.raises(DatasetError, match='does not exist'):
        find_version(tmp_path / 'nowhere')
    for name in ('v1.0-mini', 'v1.0-trainval'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'scene.json').write_text('[]')
    with pytest.raises(DatasetError, match=r'v1.0-mini, v1.0-trainval.*--version'):
        find_version(tmp_path)

"""SceneBag: what it reads back, and what it says about what is no bag of ours."""

import json
import shutil

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from tiny_dataset import KEYFRAMES, OFFSETS_US, SIZE, START_US, write_dataset

from mta_perception.bags import typestore as typestore_module
from mta_perception.bags.scene_bag import BagError, SceneBag
from mta_perception.bags.typestore import message, typestore
from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.geometry import invert_rigid
from mta_training.conversion.convert import convert

BEGIN_NS = (START_US + 100_000_000) * 1000  # first keyframe of scene-0001


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp('dataset'), scenes=1)
    return convert(root, tmp_path_factory.mktemp('bags'), workers=1, progress=False)[0]


@pytest.fixture
def copy(bag, tmp_path):
    return shutil.copytree(bag, tmp_path / bag.name)


def write_bag(path, contents):
    """A bag with (topic, type, stamp, message) contents."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, name, stamp, content in contents:
            connection = writer.add_connection(topic, name, typestore=typestore())
            if content is not None:
                writer.write(connection, stamp, typestore().serialize_cdr(content, name))
    return path


def text(value):
    return message('std_msgs/msg/String', data=value)


def test_facts_of_the_scene(bag):
    scene = SceneBag(bag)
    assert (scene.name, scene.split) == ('scene-0001', 'tiny_val')
    assert scene.description == 'Night, scene-0001, turn left'
    assert scene.cameras == CAMERAS
    assert scene.message_count == sum(c.msgcount for c in scene.topics.values())


def test_calibrations(bag):
    calibrations = SceneBag(bag).calibrations
    assert tuple(calibrations) == CAMERAS
    front = calibrations['cam_front']
    assert (front.width, front.height) == SIZE
    np.testing.assert_array_equal(front.intrinsics, [[250, 0, 160.5], [0, 250, 91], [0, 0, 1]])
    np.testing.assert_allclose(front.ego_from_camera[:3, 3], [1.2, 0.3, 1.5])
    # The front camera looks along +x of the car, its image's y axis down.
    np.testing.assert_allclose(front.ego_from_camera[:3, 2], [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(front.ego_from_camera[:3, 1], [0, 0, -1], atol=1e-9)
    left = calibrations['cam_front_left'].ego_from_camera[:3, 2]
    assert left[1] > 0.5  # +y is left


def test_ego_poses_are_rigid_and_in_order(bag):
    stamps, poses = SceneBag(bag).ego_poses
    assert stamps.dtype == np.int64 and (np.diff(stamps) > 0).all()
    assert poses.shape == (len(stamps), 4, 4)
    turns = poses[:, :3, :3]
    np.testing.assert_allclose(
        turns @ np.swapaxes(turns, 1, 2), np.tile(np.eye(3), (len(stamps), 1, 1)), atol=1e-12
    )
    ahead = (invert_rigid(poses[0]) @ poses[-1])[:3, 3]
    assert ahead[0] > 4 and ahead[1] > 0  # it drove on and turned left


def test_images_by_camera_and_time(bag):
    scene = SceneBag(bag)
    stamps = scene.image_stamps('cam_back')
    images = list(scene.images('cam_back'))
    assert [image.stamp_ns for image in images] == stamps.tolist()
    assert {image.camera for image in images} == {'cam_back'}
    assert all(
        bytes(image.data[:2]) == b'\xff\xd8' and image.encoding == 'jpeg' for image in images
    )
    part = list(scene.images(('cam_back', 'cam_front'), int(stamps[3]), int(stamps[6])))
    assert [image.stamp_ns for image in part if image.camera == 'cam_back'] == stamps[3:6].tolist()
    assert all(stamps[3] <= image.stamp_ns < stamps[6] for image in part)
    every = [(image.stamp_ns, image.camera) for image in scene.images()]
    assert [stamp for stamp, _ in every] == sorted(stamp for stamp, _ in every)
    assert {camera for _, camera in every} == set(CAMERAS)


def test_samples(bag):
    scene = SceneBag(bag)
    assert [sample.stamp_ns for sample in scene.samples] == [
        BEGIN_NS + 500_000_000 * k for k in range(KEYFRAMES)
    ]
    for sample in scene.samples:
        count = len(sample.labels)
        assert sample.boxes.shape == (count, 10) and sample.ego_from_box.shape == (count, 4, 4)
        assert sample.boxes.dtype == np.float64 and sample.labels.dtype == np.int64
        for column in (
            sample.instances,
            sample.annotations,
            sample.captions,
            sample.visibility,
            sample.attributes,
            sample.num_lidar_pts,
            sample.num_radar_pts,
        ):
            assert len(column) == count
        assert len(sample.annotated) == count + 2  # the animal and the rack
        np.testing.assert_allclose(np.hypot(sample.boxes[:, 6], sample.boxes[:, 7]), 1)
        assert sample.image_stamps == {
            camera: sample.stamp_ns + OFFSETS_US[camera] * 1000 for camera in CAMERAS
        }
        stamps, poses = scene.ego_poses
        np.testing.assert_allclose(
            poses[np.searchsorted(stamps, sample.stamp_ns)], sample.world_from_ego, atol=1e-9
        )
    first = scene.samples[0]
    assert CLASSES[first.labels[0]] == 'car' and first.attributes[0] == 'vehicle.moving'
    # Sizes are length, width, height here and width, length, height in the tables.
    np.testing.assert_array_equal(first.boxes[0, 3:6], [4.6, 1.9, 1.6])
    np.testing.assert_allclose(first.boxes[0, :2], [15, 3], atol=0.05)
    assert np.isnan(first.boxes[CLASSES.index('barrier') == first.labels, 8:]).all()


def test_detection_array_has_the_hash_of_every_ros_machine():
    assert typestore().hash_rihs01('vision_msgs/msg/Detection3DArray') == (
        'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'
    )


def test_definitions_come_from_the_source_tree_where_nothing_is_installed(monkeypatch, tmp_path):
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    monkeypatch.setattr(typestore_module.sys, 'prefix', str(tmp_path))
    typestore.cache_clear()
    try:
        store = typestore()
        assert 'mta_msgs/msg/ObjectCaptionArray' in store.types
        assert store.hash_rihs01('vision_msgs/msg/Detection3DArray').endswith('e018')
        monkeypatch.setattr(typestore_module, '_SOURCE_DIRECTORY', {'mta_msgs': tmp_path})
        typestore.cache_clear()
        with pytest.raises(FileNotFoundError, match='mta_msgs.*make env'):
            typestore()
    finally:
        typestore.cache_clear()


def test_folder_that_is_no_bag(tmp_path):
    with pytest.raises(BagError, match='metadata.yaml is missing'):
        SceneBag(tmp_path)
    with pytest.raises(BagError, match='nowhere does not exist'):
        SceneBag(tmp_path / 'nowhere')


@pytest.mark.parametrize(
    'content', [b'', b'{', b'no bag', b'rosbag2_bagfile_information: 3', b'\xff\xfe\x00']
)
def test_damaged_metadata(copy, content):
    (copy / 'metadata.yaml').write_bytes(content)
    with pytest.raises(BagError, match='metadata.yaml.*`mta rescue'):
        SceneBag(copy)


@pytest.mark.parametrize('share', [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file(copy, share):
    (file,) = copy.glob('*.mcap')
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BagError, match=copy.name):
        scene = SceneBag(copy)
        list(scene.images())


def test_missing_file(copy):
    next(copy.glob('*.mcap')).unlink()
    with pytest.raises(BagError, match='cannot be read'):
        SceneBag(copy)


def test_bytes_flipped_inside_raise_nothing_else(copy):
    (file,) = copy.glob('*.mcap')
    whole = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(8):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 200):
            damaged[at] ^= 0xFF
        file.write_bytes(damaged)
        try:
            scene = SceneBag(copy)
            list(scene.images())
            scene.samples, scene.calibrations, scene.ego_poses  # noqa: B018
        except BagError as error:
            assert copy.name in str(error)


def test_empty_bag(tmp_path):
    path = write_bag(tmp_path / 'empty', [('/nuscenes/sample', 'std_msgs/msg/String', 0, None)])
    with pytest.raises(BagError, match='holds no messages'):
        SceneBag(path)


def test_bag_without_our_topics_names_those_it_has(tmp_path):
    scene = SceneBag(
        write_bag(tmp_path / 'other', [('/chatter', 'std_msgs/msg/String', 5, text('hello'))])
    )
    for name in ('samples', 'ego_poses', 'calibrations', 'name'):
        with pytest.raises(BagError, match='has no topic .* it has /chatter'):
            getattr(scene, name)
    with pytest.raises(BagError, match='has no topic /cam_front/image_raw/compressed'):
        list(scene.images('cam_front'))
    assert scene.cameras == () and list(scene.images()) == []
    assert [(topic, stamp, content.data) for topic, stamp, content in scene.messages()] == [
        ('/chatter', 5, 'hello')
    ]


@pytest.mark.parametrize('content', ['', 'no json', '{}', '[]', json.dumps({'stamp_ns': 3})])
def test_sample_message_of_another_kind(tmp_path, content):
    scene = SceneBag(
        write_bag(
            tmp_path / 'odd', [('/nuscenes/sample', 'std_msgs/msg/String', 5, text(content))]
        )
    )
    with pytest.raises(BagError, match='/nuscenes/sample'):
        scene.samples  # noqa: B018
    with pytest.raises(BagError, match='/nuscenes/sample'):
        scene.name  # noqa: B018

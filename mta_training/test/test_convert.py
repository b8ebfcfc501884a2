"""Converting and reading back: bytes, stamps, numbers; damaged input; killed conversions."""

import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.loaders import load_gt_of_sample_tokens
from nuscenes.eval.detection.data_classes import DetectionBox
import pytest
from rosbags.rosbag2 import Reader
from tiny_dataset import SIZE, VERSION, write_dataset
import yaml

from mta_perception.bags.scene_bag import SceneBag, image_topic
from mta_perception.bags.typestore import message, time_message, typestore
from mta_perception.contract import CAMERAS, nuscenes_channel, optical_frame
from mta_perception.geometry import rigid_from_yaw
from mta_training.conversion import messages
from mta_training.conversion.convert import convert, lost_images
from mta_training.conversion.table_fields import TABLES, DatasetError
from mta_training.evaluation.nuscenes_metrics import ground_truth_boxes

TOPICS = {
    '/tf_static': 'tf2_msgs/msg/TFMessage',
    '/tf': 'tf2_msgs/msg/TFMessage',
    '/odom': 'nav_msgs/msg/Odometry',
    '/imu': 'sensor_msgs/msg/Imu',
    '/ground_truth/detections': 'vision_msgs/msg/Detection3DArray',
    '/ground_truth/captions': 'mta_msgs/msg/ObjectCaptionArray',
    '/nuscenes/sample': 'std_msgs/msg/String',
    **{f'/{camera}/image_raw/compressed': 'sensor_msgs/msg/CompressedImage' for camera in CAMERAS},
    **{f'/{camera}/camera_info': 'sensor_msgs/msg/CameraInfo' for camera in CAMERAS},
}


@pytest.fixture
def copy(dataset, tmp_path):
    """A dataset of this test's own, to be damaged."""
    return shutil.copytree(dataset, tmp_path / 'copy')


@pytest.fixture
def tables(dataset, tmp_path):
    """The same with tables of this test's own, for damage that stays away from the images."""
    root = shutil.copytree(dataset, tmp_path / 'tables', copy_function=os.link)
    shutil.rmtree(root / VERSION)
    shutil.copytree(dataset / VERSION, root / VERSION)
    return root


def table(root, name):
    return json.loads((root / VERSION / f'{name}.json').read_text())


def rewrite(root, name, rows):
    (root / VERSION / f'{name}.json').write_text(json.dumps(rows))


def whole_bags(folder):
    return sorted(path.parent.name for path in Path(folder).glob('*/metadata.yaml'))


def test_topics_types_and_qos_are_the_agreed_ones(bags):
    metadata = yaml.safe_load((bags[0] / 'metadata.yaml').read_text())[
        'rosbag2_bagfile_information'
    ]
    assert metadata['version'] == 9 and metadata['storage_identifier'] == 'mcap'
    entries = [topic['topic_metadata'] for topic in metadata['topics_with_message_count']]
    assert {entry['name']: entry['type'] for entry in entries} == TOPICS
    for entry in entries:
        (profile,) = entry['offered_qos_profiles']
        latched = entry['name'] == '/tf_static'
        assert profile['durability'] == ('transient_local' if latched else 'volatile')
        assert profile['reliability'] == 'reliable' and profile['history'] == 'keep_last'
    assert {path.name for path in bags[0].iterdir()} == {'metadata.yaml', 'scene-0001.mcap'}


def test_images_are_the_files_byte_for_byte(dataset, bags):
    wanted = {}
    for row in table(dataset, 'sample_data'):
        if row['fileformat'] == 'jpg' and row['filename'].split('/')[2].startswith('scene-0001'):
            camera = row['filename'].split('/')[1].lower()
            wanted[camera, row['timestamp'] * 1000] = (dataset / row['filename']).read_bytes()
    got, before = {}, 0
    for topic, stamp, image in SceneBag(bags[0]).messages(map(image_topic, CAMERAS)):
        camera = topic.split('/')[1]
        assert image.format == 'jpeg' and image.header.frame_id == optical_frame(camera)
        assert image.header.stamp.sec * 10**9 + image.header.stamp.nanosec == stamp >= before
        got[camera, stamp], before = bytes(image.data), stamp
    assert got == wanted
    assert len(wanted) > 6 * len(table(dataset, 'sample')) / 2, 'sweeps are missing'


def test_every_image_has_its_camera_info_before_it(dataset, bags):
    known, images = {}, 0
    topics = [f'/{camera}/camera_info' for camera in CAMERAS] + [*map(image_topic, CAMERAS)]
    for topic, stamp, content in SceneBag(bags[0]).messages(topics):
        camera = topic.split('/')[1]
        if topic.endswith('camera_info'):
            assert content.header.frame_id == optical_frame(camera)
            assert (content.width, content.height) == SIZE
            np.testing.assert_array_equal(content.k, [250.0, 0, 160.5, 0, 250.0, 91.0, 0, 0, 1])
            np.testing.assert_array_equal(
                content.p, [250.0, 0, 160.5, 0, 0, 250.0, 91.0, 0, 0, 0, 1, 0]
            )
            np.testing.assert_array_equal(content.r, np.eye(3).flatten())
            known[camera] = stamp
        else:
            assert known[camera] == stamp
            images += 1
    assert images > 100


def test_poses_are_all_there_once_and_in_order(dataset, bags):
    scene = SceneBag(bags[0])
    rows = {
        row['timestamp'] * 1000: row
        for row in table(dataset, 'ego_pose')
        if row['token'].startswith('scene-0001')
    }
    for topic in ('/odom', '/tf'):
        stamps = [stamp for _, stamp, _ in scene.messages([topic])]
        assert stamps == sorted(rows)
    for _, stamp, tree in scene.messages(['/tf']):
        (entry,) = tree.transforms
        assert (entry.header.frame_id, entry.child_frame_id) == ('map', 'base_link')
        xyz, turn = entry.transform.translation, entry.transform.rotation
        assert [xyz.x, xyz.y, xyz.z] == rows[stamp]['translation']
        want = np.array(rows[stamp]['rotation'])
        np.testing.assert_allclose(
            [turn.w, turn.x, turn.y, turn.z], want * np.sign(want[0]), atol=1e-12
        )


def test_messages_are_in_time_order(bags):
    stamps = [stamp for _, _, stamp, _ in SceneBag(bags[0]).raw()]
    assert stamps == sorted(stamps)


def test_packed_messages_equal_serialised_ones():
    rng = np.random.default_rng(0)
    ego = messages.EgoMessages()
    for stamp in (0, 1_600_000_000_123_456_789):
        pose = rigid_from_yaw(rng.uniform(-3, 3), rng.uniform(-500, 500, 3))
        twist = rng.uniform(-9, 9, 6)
        tree, odometry = (
            typestore().deserialize_cdr(cdr, name)
            for cdr, name in zip(
                ego.at(stamp, pose, twist), ('tf2_msgs/msg/TFMessage', 'nav_msgs/msg/Odometry')
            )
        )
        entry = tree.transforms[0]
        assert entry.header.stamp == odometry.header.stamp == time_message(stamp)
        assert (odometry.header.frame_id, odometry.child_frame_id) == ('map', 'base_link')
        at, turn = odometry.pose.pose.position, odometry.pose.pose.orientation
        assert (entry.transform.translation.x, entry.transform.rotation) == (at.x, turn)
        np.testing.assert_allclose([at.x, at.y, at.z], pose[:3, 3])
        linear, angular = odometry.twist.twist.linear, odometry.twist.twist.angular
        np.testing.assert_array_equal(
            [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z], twist
        )
        assert not odometry.pose.covariance.any() and not odometry.twist.covariance.any()


@pytest.mark.parametrize('frame', ['', 'a', 'ab', 'abc', 'abcd', 'cam_front_optical'])
@pytest.mark.parametrize('size', [0, 1, 7, 64])
def test_packed_image_equals_the_serialised_one(frame, size):
    jpeg, stamp = bytes(range(size)), 1_533_000_000_000_000_001
    want = messages.serialised(
        message(
            'sensor_msgs/msg/CompressedImage',
            format='jpeg',
            data=np.frombuffer(jpeg, np.uint8),
            header=message('std_msgs/msg/Header', stamp=time_message(stamp), frame_id=frame),
        )
    )
    assert messages.compressed_image(stamp, frame, jpeg) == want


def test_twist_is_speed_and_turn_rate_in_the_ego_frame():
    speed, turn = 7.0, 0.4
    seconds = np.arange(0, 2, 0.01)
    poses = np.array(
        [
            rigid_from_yaw(
                1.0 + turn * t,
                (speed / turn * np.sin(1.0 + turn * t), -speed / turn * np.cos(1.0 + turn * t), 0),
            )
            for t in seconds
        ]
    )
    twists = messages.twists((seconds * 1e9).astype(np.int64), poses)
    np.testing.assert_allclose(twists[6:-6, 0], speed, rtol=1e-3)
    np.testing.assert_allclose(twists[6:-6, [1, 2, 3, 4]], 0, atol=1e-6)
    np.testing.assert_allclose(twists[:, 5], turn, rtol=1e-3)
    assert not messages.twists(np.array([5]), poses[:1]).any()


def test_imu_is_the_can_bus_between_the_poses(dataset, bags):
    scene = SceneBag(bags[0])
    rows = {
        row['utime'] * 1000: row
        for row in json.loads((dataset / 'can_bus' / 'scene-0001_pose.json').read_text())
    }
    got = {stamp: imu for _, stamp, imu in scene.messages(['/imu'])}
    assert set(got) == {stamp for stamp in rows if scene.start_ns <= stamp <= scene.end_ns}
    stamp, imu = next(iter(got.items()))
    assert imu.angular_velocity.z == rows[stamp]['rotation_rate'][2]
    assert imu.linear_acceleration.z == 9.8 and imu.orientation.w == 1.0


def test_static_tree_has_every_sensor(bags):
    """Again with each sample, for a replay that begins in the middle."""
    scene = SceneBag(bags[0])
    copies = {stamp: tree for _, stamp, tree in scene.messages(['/tf_static'])}
    assert set(copies) == {scene.start_ns, *(sample.stamp_ns for sample in scene.samples)}
    tree = copies[scene.start_ns]
    assert all(copy == tree for copy in copies.values())
    assert {entry.child_frame_id for entry in tree.transforms} == {
        *map(optical_frame, CAMERAS),
        'lidar_top',
    }
    assert {entry.header.frame_id for entry in tree.transforms} == {'base_link'}


def test_exported_ground_truth_is_the_official_one(dataset, bags):
    devkit = NuScenes(VERSION, str(dataset), verbose=False)
    samples = {sample.token: sample for bag in bags for sample in SceneBag(bag).samples}
    assert set(samples) == {row['token'] for row in devkit.sample}
    official = load_gt_of_sample_tokens(devkit, list(samples), DetectionBox)
    compared = 0
    for token, sample in samples.items():
        ours = ground_truth_boxes(sample)
        assert len(ours) == len(official[token])
        for got, want in zip(ours, official[token]):
            for field in ('translation', 'size', 'rotation', 'velocity'):
                np.testing.assert_allclose(getattr(got, field), getattr(want, field), atol=1e-6)
            for field in ('detection_name', 'attribute_name', 'num_pts', 'sample_token'):
                assert getattr(got, field) == getattr(want, field)
            compared += 1
    assert compared > 80


def test_detections_and_captions_say_the_same_as_the_samples(bags):
    scene = SceneBag(bags[0])
    arrays = [content for _, _, content in scene.messages(['/ground_truth/detections'])]
    told = [content for _, _, content in scene.messages(['/ground_truth/captions'])]
    for sample, detections, captions in zip(scene.samples, arrays, told):
        assert detections.header.frame_id == captions.header.frame_id == 'base_link'
        assert detections.header.stamp == captions.header.stamp == time_message(sample.stamp_ns)
        assert [one.id for one in detections.detections] == sample.instances
        for row, one in enumerate(detections.detections):
            at, size = one.bbox.center.position, one.bbox.size
            np.testing.assert_allclose(
                [at.x, at.y, at.z, size.x, size.y, size.z], sample.boxes[row, :6], atol=1e-12
            )
            assert one.results[0].hypothesis.score == 1.0
        with_words = [row for row, text in enumerate(sample.captions) if text]
        assert [one.caption for one in captions.captions] == [
            sample.captions[row] for row in with_words
        ]
        for one, row in zip(captions.captions, with_words):
            assert one.detection_id == sample.instances[row]
            np.testing.assert_allclose(
                [one.velocity.x, one.velocity.y], np.nan_to_num(sample.boxes[row, 8:10])
            )


def test_nothing_annotated_is_lost(dataset, bags):
    rows = {row['token']: row for row in table(dataset, 'sample_annotation')}
    kept = [
        entry for bag in bags for sample in SceneBag(bag).samples for entry in sample.annotated
    ]
    assert {entry['annotation_token'] for entry in kept} == set(rows)
    for entry in kept:
        row = rows[entry['annotation_token']]
        assert entry['global']['translation'] == row['translation']
        assert entry['visibility_token'] == row['visibility_token']
        assert entry['num_lidar_pts'] == row['num_lidar_pts']
    assert {entry['category'] for entry in kept if not entry['class_name']} == {
        'animal',
        'static_object.bicycle_rack',
    }


def test_optional_files_may_be_absent(tmp_path):
    root = write_dataset(tmp_path / 'plain', scenes=1, sweeps=False, captions=False, can_bus=False)
    (bag,) = convert(root, tmp_path / 'bags', workers=1, progress=False)
    scene = SceneBag(bag)
    assert '/imu' not in scene.topics
    assert not any(any(sample.captions) for sample in scene.samples)
    assert len(scene.image_stamps('cam_back')) == len(scene.samples)


def test_processes_and_order_make_no_difference(dataset, bags, tmp_path):
    parallel = convert(dataset, tmp_path / 'bags', workers=2, progress=False)
    for ours, other in zip(bags, parallel):
        assert (ours / f'{ours.name}.mcap').read_bytes() == (
            other / f'{other.name}.mcap'
        ).read_bytes()


def test_second_run_keeps_what_is_there(dataset, tmp_path):
    convert(dataset, tmp_path, scenes=['scene-0002'], workers=1, progress=False)
    before = (tmp_path / 'scene-0002' / 'metadata.yaml').stat().st_mtime_ns
    convert(dataset, tmp_path, workers=1, progress=False)
    assert whole_bags(tmp_path) == ['scene-0001', 'scene-0002']
    assert (tmp_path / 'scene-0002' / 'metadata.yaml').stat().st_mtime_ns == before


def test_bag_of_another_dataset_is_not_taken_for_ours(dataset, tables, tmp_path):
    out = tmp_path / 'bags'
    convert(dataset, out, workers=1, progress=False)
    scenes = table(tables, 'scene')
    for row in scenes:
        row['token'] += '-other'
    rewrite(tables, 'scene', scenes)
    with pytest.raises(DatasetError, match='scene-0001 is there already'):
        convert(tables, out, workers=1, progress=False)


def test_foreign_folder_is_not_touched(dataset, tmp_path):
    (tmp_path / 'scene-0001').mkdir()
    (tmp_path / 'scene-0001' / 'thesis.txt').write_text('mine')
    with pytest.raises(DatasetError, match='scene-0001 is there already'):
        convert(dataset, tmp_path, workers=1, progress=False)
    assert (tmp_path / 'scene-0001' / 'thesis.txt').read_text() == 'mine'


def hear_interrupts():
    # What a shell starts in the background ignores Ctrl-C, and so do its children: these tests.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stopped_conversion(dataset, out):
    """A conversion in one process that stands still in its second scene."""
    command = [sys.executable, '-m', 'mta_training.commands.cli', 'convert', str(dataset)]
    for _ in range(5):  # a busy machine may look too late
        process = subprocess.Popen(
            [*command, '--out', str(out), '--workers', '1'],
            stdout=subprocess.DEVNULL,
            preexec_fn=hear_interrupts,
        )
        while process.poll() is None:
            if list(out.glob('.partial-scene-0002')):
                process.send_signal(signal.SIGSTOP)
                if list(out.glob('.partial-scene-0002')):
                    return process
                process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
        shutil.rmtree(out)
    raise AssertionError('the conversion ended before it could be stopped')


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_killed_conversion_leaves_nothing_that_looks_whole(copy, tmp_path, number):
    out = tmp_path / 'bags'
    process = stopped_conversion(copy, out)
    deadline = time.monotonic() + 60
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is not None, 'goes on although it was killed'
    assert whole_bags(out) == ['scene-0001']
    leftovers = list(out.glob('.partial-*')) and list(out.glob('.index*'))
    assert bool(leftovers) == (number == signal.SIGKILL)
    convert(copy, out, workers=1, progress=False)
    assert sorted(path.name for path in out.iterdir()) == ['scene-0001', 'scene-0002']
    assert len(SceneBag(out / 'scene-0002').samples) == 4


def damage_missing(image):
    image.unlink()


def damage_truncated(image):
    image.write_bytes(image.read_bytes()[:-40])


def damage_folder(image):
    image.unlink()
    image.mkdir()


def damage_fifo(image):
    image.unlink()
    os.mkfifo(image)  # reading it would block for good


def damage_other_size(image):
    import cv2

    cv2.imwrite(str(image), np.zeros((90, 160, 3), np.uint8))


def damage_no_jpeg(image):
    image.write_bytes(b'\x89PNG' + bytes(100))


@pytest.mark.parametrize(
    ('damage', 'words', 'workers'),
    [
        (damage_missing, 'missing', 1),
        (damage_truncated, 'no whole JPEG', 1),
        (damage_other_size, '160x90 pixels', 1),
        (damage_no_jpeg, 'no whole JPEG', 1),
        (damage_missing, 'missing', 2),
    ],
)
def test_damaged_image_is_named_and_can_be_mended(copy, tmp_path, damage, words, workers):
    row = [row for row in table(copy, 'sample_data') if row['fileformat'] == 'jpg'][30]
    image = copy / row['filename']
    jpeg = image.read_bytes()
    damage(image)
    with pytest.raises(DatasetError, match=words) as caught:
        convert(copy, tmp_path / 'bags', workers=workers, progress=False, strict=True)
    assert image.name in str(caught.value)
    assert 'scene-0001' not in whole_bags(tmp_path / 'bags')
    assert not list((tmp_path / 'bags').glob('.*')), 'leftovers'
    image.write_bytes(jpeg)
    convert(copy, tmp_path / 'bags', workers=workers, progress=False)
    assert whole_bags(tmp_path / 'bags') == ['scene-0001', 'scene-0002']


@pytest.mark.parametrize('damage', [damage_missing, damage_truncated, damage_folder, damage_fifo])
@pytest.mark.parametrize('keyframe', [True, False])
def test_conversion_goes_on_without_a_lost_image_and_counts_it(copy, tmp_path, damage, keyframe):
    rows = [row for row in table(copy, 'sample_data') if row['fileformat'] == 'jpg']
    row = [row for row in rows if row['is_key_frame'] == keyframe][10]
    damage(copy / row['filename'])
    said = []
    bags = convert(copy, tmp_path / 'bags', workers=1, progress=False, say=said.append)
    assert [bag.name for bag in bags] == ['scene-0001', 'scene-0002']
    assert lost_images(bags[0])[:2] == (1, len(rows) // 2) and not lost_images(bags[1]).images
    assert len(said) == 1 and f'1 of {len(rows) // 2} images' in said[0]
    assert Path(row['filename']).name in said[0]
    bag, stamp = SceneBag(bags[0]), row['timestamp'] * 1000
    images = [(image.camera, image.stamp_ns) for image in bag.images()]
    assert len(images) == len(rows) // 2 - 1
    # A key frame does not promise an image that is not there.
    promised = [pair for sample in bag.samples for pair in sample.image_stamps.items()]
    assert set(promised) <= set(images) and len(promised) == 6 * len(bag.samples) - keyframe
    assert all(len(sample.labels) for sample in bag.samples)
    # Said again by a run that finds the bags; --strict refuses them.
    convert(copy, tmp_path / 'bags', workers=1, progress=False, say=said.append)
    assert said[1] == said[0]
    with pytest.raises(DatasetError, match='1 of .* images of 1 scenes are lost'):
        convert(copy, tmp_path / 'bags', workers=1, progress=False, strict=True)
    assert stamp not in [s for camera, s in images if nuscenes_channel(camera) in row['filename']]


def test_key_frames_only_make_bags_of_key_frames(copy, tmp_path):
    shutil.rmtree(copy / 'sweeps')
    said = []
    for bag in convert(copy, tmp_path / 'bags', workers=1, progress=False, say=said.append):
        scene = SceneBag(bag)
        for camera in CAMERAS:
            stamps = [sample.image_stamps[camera] for sample in scene.samples]
            assert sorted(stamps) == scene.image_stamps(camera).tolist()
    assert len(said) == 1 and 'of 2 scenes are lost' in said[0]


def test_of_a_partial_download_the_scenes_that_are_there_are_converted(copy, tmp_path):
    second = {
        sample['token']
        for sample in table(copy, 'sample')
        if sample['scene_token'] == table(copy, 'scene')[1]['token']
    }
    for row in table(copy, 'sample_data'):
        if row['sample_token'] in second:
            (copy / row['filename']).unlink(missing_ok=True)
    said = []
    bags = convert(copy, tmp_path / 'bags', workers=1, progress=False, say=said.append)
    assert [bag.name for bag in bags] == ['scene-0001'] == whole_bags(tmp_path / 'bags')
    assert said == ['1 of 2 scenes have no bag, because no image of them is there: scene-0002']
    assert not list((tmp_path / 'bags').glob('.*')), 'leftovers'
    with pytest.raises(DatasetError, match='is missing, but the tables name it'):
        convert(copy, tmp_path / 'bags', workers=1, progress=False, strict=True)
    for folder in ('samples', 'sweeps'):
        shutil.rmtree(copy / folder)
    with pytest.raises(DatasetError, match='none of the images of 2 scenes'):
        convert(copy, tmp_path / 'none', workers=1, progress=False)


@pytest.mark.parametrize('name', sorted(TABLES))
def test_missing_table_is_named(tables, tmp_path, name):
    (tables / VERSION / f'{name}.json').unlink()
    with pytest.raises(DatasetError, match=f'{name}.json' if name != 'scene' else 'scene'):
        convert(tables, tmp_path / 'bags', workers=1, progress=False)
    assert not whole_bags(tmp_path / 'bags')


def test_missing_field_and_dangling_token_are_named(tables, tmp_path):
    rows = table(tables, 'ego_pose')
    rewrite(tables, 'ego_pose', rows[:-1])
    with pytest.raises(DatasetError, match=f'ego_pose has no token {rows[-1]["token"]!r}'):
        convert(tables, tmp_path / 'bags', workers=1, progress=False)
    for row in rows:
        del row['rotation']
    rewrite(tables, 'ego_pose', rows)
    with pytest.raises(DatasetError, match=r"ego_pose.json: row 1 .* no field 'rotation'"):
        convert(tables, tmp_path / 'bags', workers=1, progress=False)
    rewrite(tables, 'ego_pose', [])
    rewrite(tables, 'scene', [])
    with pytest.raises(DatasetError, match='lists no scenes'):
        convert(tables, tmp_path / 'bags', workers=1, progress=False)


def test_token_that_occurs_twice_is_refused(tables, tmp_path):
    rows = table(tables, 'sample_annotation')
    rewrite(tables, 'sample_annotation', [*rows, rows[3]])
    with pytest.raises(DatasetError, match='twice'):
        convert(tables, tmp_path / 'bags', workers=1, progress=False)


def test_calibration_that_changes_within_a_scene_is_refused(tables, tmp_path):
    calibrations, data = table(tables, 'calibrated_sensor'), table(tables, 'sample_data')
    moved = {**calibrations[0], 'token': 'moved', 'translation': [1.3, 0.3, 1.5]}
    rewrite(tables, 'calibrated_sensor', [*calibrations, moved])
    later = [row for row in data if row['calibrated_sensor_token'] == calibrations[0]['token']]
    later[-1]['calibrated_sensor_token'] = 'moved'
    rewrite(tables, 'sample_data', data)
    channel = nuscenes_channel(CAMERAS[0])
    with pytest.raises(DatasetError, match=f'calibration or image size of {channel} changes'):
        convert(tables, tmp_path / 'bags', workers=1, progress=False)


def test_unknown_scene_is_named(dataset, tmp_path):
    with pytest.raises(DatasetError, match='scene-0009 is not in .*scene-0001, scene-0002'):
        convert(dataset, tmp_path, scenes=['scene-0009'], workers=1, progress=False)


def test_types_have_the_hash_of_every_ros_machine(bags):
    with Reader(bags[0]) as reader:
        digests = {c.topic: c.digest for c in reader.connections}
    assert digests['/ground_truth/detections'] == (
        'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'
    )

"""Messages to arrays and back, transform trees, markers, counting: no process, no DDS."""

import os
from pathlib import Path
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import rigs
import yaml

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from geometry_msgs.msg import Transform
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import Marker

from mta_perception.commands.processes import free_domain
from mta_perception.config import EgoMotionConfig, PipelineConfig, SyncConfig
from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.detections import Detections
from mta_perception.drawing.overlay import DrawnObject
from mta_perception.frames import CameraCalibration
from mta_perception.geometry import (
    box_corners,
    invert_rigid,
    quaternion_from_rigid,
    rigid_from_quaternion,
    rigid_from_yaw,
    transform,
)
from mta_perception.lens import Lens, lens_of
from mta_perception.pipeline.calibrations import Rig
from mta_perception.pipeline.camera_geometry import place_faults
from mta_perception.pipeline.images import decode
from mta_perception.pipeline.transform_tree import TransformTree
from mta_perception.reasons import Code, Reason, Refused
from mta_perception.ros import conversions, parameters
from mta_perception.ros.markers import Markers
from mta_perception.sentences import Said
from mta_perception.workers.caption_book import CaptionBook, rows_to_caption
from mta_perception.workers.newest_worker import NewestWorker
from mta_perception.workers.tally import MOST_KEYS, Durations, Guard, Rate, Refusal, Tally

REPOSITORY = Path(__file__).resolve().parents[1]


def random_rigid(rng):
    return rigid_from_quaternion(rng.normal(size=4), rng.uniform(-5, 5, 3))


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.zeros((count, 10))
    boxes[:, :3] = rng.uniform(-40, 40, (count, 3))
    boxes[:, 3:6] = rng.uniform(0.5, 8, (count, 3))
    yaw = rng.uniform(-np.pi, np.pi, count)
    boxes[:, 6], boxes[:, 7] = np.sin(yaw), np.cos(yaw)
    boxes[:, 8:] = rng.uniform(-5, 5, (count, 2))
    return boxes


@pytest.mark.parametrize('stamp', [0, 1, 999_999_999, 1_532_402_927_612_460_000])
def test_stamps_there_and_back(stamp):
    assert conversions.stamp_ns(conversions.time_message(stamp)) == stamp


def test_detections_message_has_the_corners_of_the_boxes():
    """Centre, size and orientation of the message alone give the same eight corners."""
    boxes = random_boxes(20)
    message = conversions.detections_message(
        7, 'base_link', boxes, ['car'] * 20, np.linspace(0.9, 0.1, 20), map(str, range(20))
    )
    corners = box_corners(boxes)
    signs = box_corners(np.array([[0, 0, 0, 2, 2, 2, 0, 1.0]]))[0]  # (8, 3) of -1, 1
    for detection, expected in zip(message.detections, corners):
        p, q = detection.bbox.center.position, detection.bbox.center.orientation
        size = detection.bbox.size
        base_from_box = rigid_from_quaternion((q.x, q.y, q.z, q.w), (p.x, p.y, p.z))
        local = signs * np.array([size.x, size.y, size.z]) / 2
        np.testing.assert_allclose(transform(base_from_box, local), expected, atol=1e-9)


def test_caption_lines_are_nearest_first():
    boxes = random_boxes(5, seed=2)
    objects = [
        DrawnObject(box, 'car', 0.5, str(k), f'sentence {k}') for k, box in enumerate(boxes)
    ]
    lines = conversions.caption_lines(objects).splitlines()
    order = np.argsort(np.hypot(boxes[:, 0], boxes[:, 1]))
    assert [line.split(': ')[1] for line in lines] == [f'sentence {k}' for k in order]
    entries = [(str(k), 'car', 0.5, f'sentence {k}', 0.7, box) for k, box in enumerate(boxes)]
    message = conversions.captions_message(5, 'base_link', entries)
    assert message.captions[3].velocity.y == pytest.approx(boxes[3, 9])


def test_raw_image_with_padded_rows_is_a_view_of_the_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (4, 6, 3), dtype=np.uint8)
    padded = np.zeros((4, 32), np.uint8)
    padded[:, :18] = pixels.reshape(4, 18)
    message = Image(height=4, width=6, encoding='rgb8', step=32, data=padded.tobytes())
    image = conversions.image_from_raw('cam_front', message)
    np.testing.assert_array_equal(decode(image), pixels)
    assert np.shares_memory(image.data, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    'message',
    [
        Image(height=4, width=6, encoding='32FC1', step=24, data=bytes(96)),
        Image(height=4, width=6, encoding='rgb16', step=18, data=bytes(72)),
        Image(height=4, width=6, encoding='rgb8', step=18, data=bytes(71)),
        Image(height=4, width=6, encoding='rgb8', step=17, data=bytes(72)),
        Image(height=0, width=6, encoding='rgb8', step=18, data=b''),
    ],
)
def test_raw_images_that_cannot_be_are_refused(message):
    with pytest.raises(ValueError, match='expected|size'):
        conversions.image_from_raw('cam_front', message)


@pytest.mark.parametrize('data', [b'', b'\xff', b'GIF89a' + bytes(50)])
def test_compressed_images_of_other_formats_are_refused(data):
    with pytest.raises(ValueError, match='JPEG or PNG'):
        conversions.image_from_compressed('cam_front', CompressedImage(format='jpeg', data=data))


def camera_info(**change):
    message = CameraInfo(width=640, height=360, distortion_model='plumb_bob')
    message.k = [500.0, 0.0, 320.0, 0.0, 500.0, 180.0, 0.0, 0.0, 1.0]
    for name, value in change.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    'change', [{'width': 0}, {'k': [0.0] * 9}, {'k': [500.0, 0, np.nan, 0, 500.0, 2, 0, 0, 1.0]}]
)
def test_camera_info_that_cannot_be_is_refused(change):
    assert lens_of(camera_info(), rectified=False).distortion is None
    with pytest.raises(Refused, match='camera_info') as caught:
        lens_of(camera_info(**change), rectified=False)
    assert caught.value.reason.code is Code.IMPOSSIBLE_CALIBRATION


@pytest.mark.parametrize(
    'topic, rectified',
    [
        ('/cam_front/image_raw/compressed', False),
        ('/front/image_rect', True),
        ('/front/image_rect/compressed', True),
        ('/front/image_rect_color/compressed', True),
        ('/front/image_rect_mono', True),
        ('/front/rectified/image', True),
        ('/rect/front/image_raw', True),
        ('/front/image_rectangle', False),
        ('/direct/front/image_color', False),
        ('/front/image_unrectified', False),
    ],
)
def test_rectified_topics_are_known_by_their_name(topic, rectified):
    assert conversions.shows_rectified(topic) == rectified


def test_transform_message_that_is_no_rotation_is_refused():
    message = Transform()
    message.rotation.w = 0.0
    with pytest.raises(Refused, match='rotation') as caught:
        conversions.rigid_from_transform(message)
    assert caught.value.reason.code is Code.POSE_NOT_RIGID


# -- transform tree and rig


def test_tree_finds_the_product_along_any_way():
    rng = np.random.default_rng(1)
    tree = TransformTree()
    world_from = {'world': np.eye(4)}
    for number in range(12):
        parent = sorted(world_from)[rng.integers(len(world_from))]
        parent_from_child = random_rigid(rng)
        assert tree.set(parent, f'f{number}', parent_from_child, static=True)
        world_from[f'f{number}'] = world_from[parent] @ parent_from_child
    for target in world_from:
        for source in world_from:
            expected = invert_rigid(world_from[target]) @ world_from[source]
            np.testing.assert_allclose(tree.lookup(target, source), expected, atol=1e-9)
    assert tree.lookup('world', 'elsewhere') is None


def test_tree_survives_rings_and_tells_changes():
    tree = TransformTree()
    tree.set('a', 'b', np.eye(4), static=True)
    tree.set('b', 'a', np.eye(4), static=True)  # nonsense of a second publisher
    assert tree.lookup('c', 'a') is None
    assert not tree.set('a', 'b', np.eye(4), static=True)
    assert tree.set('a', 'b', rigid_from_yaw(0.1), static=True)
    with pytest.raises(ValueError, match='different'):
        tree.set('a', 'a', np.eye(4), static=True)


def test_moving_link_is_the_lowest_on_the_way():
    tree = TransformTree()
    tree.set('map', 'odom', np.eye(4), static=False)
    tree.set('odom', 'footprint', np.eye(4), static=False)
    tree.set('footprint', 'base_link', np.eye(4), static=True)
    assert tree.moving_child_below('map', 'base_link') == 'footprint'
    assert tree.moving_child_below('odom', 'base_link') == 'footprint'
    assert tree.moving_child_below('elsewhere', 'lidar') is None


OPTICAL = rigs.ego_from_camera(17.0, (1, 2, 3))


def moved(metres):
    return rigid_from_yaw(0.0, (metres, 0, 0)) @ OPTICAL


def pinhole(focal):
    return Lens(np.diag([focal, focal, 1.0]), 640, 360, None, None, False)


def test_rig_says_what_is_missing_and_counts_changes():
    rig = Rig('base_link')
    assert rig.missing['cam_front'].code is Code.NO_IMAGE_YET
    rig.set_frame('cam_front', 'lens')
    assert rig.missing['cam_front'].code is Code.NO_CAMERA_INFO
    rig.set_lens('cam_front', pinhole(1.0))
    assert rig.missing['cam_front'] == Reason(Code.NO_TRANSFORM, 'from lens to base_link')
    rig.set_transform('base_link', 'lens', OPTICAL, static=True)
    before = rig.calibrations
    np.testing.assert_allclose(before['cam_front'].ego_from_camera, OPTICAL)
    assert 'cam_front' not in rig.missing and rig.changes['cam_front'] == 0
    assert not rig.set_lens('cam_front', pinhole(1.0))
    assert rig.set_lens('cam_front', pinhole(2.0))
    assert rig.changes['cam_front'] == 1
    assert before['cam_front'].intrinsics[0, 0] == 1.0  # a reader keeps what it has


def test_rounding_of_a_mounting_is_no_change_but_many_roundings_are():
    rig = Rig('base_link')
    rig.set_frame('cam_front', 'lens')
    rig.set_lens('cam_front', pinhole(1.0))
    rig.set_transform('base_link', 'lens', OPTICAL, static=True)
    before = rig.calibrations['cam_front']
    rig.set_transform('base_link', 'lens', moved(4e-7), static=True)
    assert not rig.set_lens('cam_front', pinhole(1 + 4e-7))
    assert rig.changes['cam_front'] == 0 and rig.calibrations['cam_front'] is before
    for step in range(2, 5):
        rig.set_transform('base_link', 'lens', moved(step * 4e-7), static=True)
    assert rig.changes['cam_front'] == 1


def complete_rig(frames=None, slots=None):
    """A Rig that knows all six cameras; slots: camera -> whose mounting it has."""
    rig = Rig('base_link')
    for camera in CAMERAS:
        azimuth = rigs.AZIMUTH_DEG[(slots or {}).get(camera, camera)]
        rig.set_transform(
            'base_link', f'{camera}_optical', rigs.ego_from_camera(azimuth, (0, 0, 2)), static=True
        )
        rig.set_frame(camera, (frames or {}).get(camera, f'{camera}_optical'))
        rig.set_lens(camera, pinhole(500.0))
    return rig


@pytest.mark.parametrize('pitch_deg', [-30, 0, 30])
@pytest.mark.parametrize('yaw_deg', range(-180, 180, 45))
def test_a_body_frame_is_refused_and_an_optical_one_is_not(yaw_deg, pitch_deg):
    turn = rigid_from_quaternion(
        (0, np.sin(np.radians(pitch_deg) / 2), 0, np.cos(np.radians(pitch_deg) / 2)), (0, 0, 0)
    )
    body = rigid_from_yaw(np.radians(yaw_deg), (1, 0, 2)) @ turn
    optical = body @ rigs.ego_from_camera(0.0, (0, 0, 0))
    for mounting, code in ((body, Code.BODY_FRAME), (optical, None)):
        rig = complete_rig({'cam_front': 'lens'})
        rig.set_transform('base_link', 'lens', mounting, static=True)
        reason = rig.missing.get('cam_front')
        assert (reason and reason.code) == code
        if code:
            assert '"lens"' in reason.detail and 'roll -90, pitch 0, yaw -90' in reason.detail
            assert 'cam_front' not in rig.calibrations


def test_the_mend_of_a_body_frame_is_one():
    """The transform that the sentence asks for, as static_transform_publisher takes it."""
    half = np.pi / 4
    roll = rigid_from_quaternion((-np.sin(half), 0, 0, np.cos(half)), (0, 0, 0))
    body_from_optical = rigid_from_yaw(-np.pi / 2) @ roll
    np.testing.assert_allclose(body_from_optical, rigs.ego_from_camera(0.0, (0, 0, 0)), atol=1e-9)


def test_an_optical_frame_that_is_there_is_named():
    body = rigid_from_yaw(0.3, (1, 0, 2))
    rig = complete_rig({'cam_front': 'body'})
    rig.set_transform('base_link', 'body', body, static=True)
    rig.set_transform('body', 'lens', rigs.ego_from_camera(0.0, (0.01, 0, 0)), static=True)
    rig.set_frame('cam_front', 'elsewhere')
    rig.set_frame('cam_front', 'body')
    assert 'Give the images the frame_id "lens"' in rig.missing['cam_front'].detail


@pytest.mark.parametrize('turn_deg', [-90, 90, 180])
def test_a_base_frame_that_is_turned_is_named(turn_deg):
    turn = rigid_from_yaw(np.radians(turn_deg))
    calibrations = {
        camera: calibration._replace(ego_from_camera=turn @ calibration.ego_from_camera)
        for camera, calibration in complete_rig().calibrations.items()
    }
    faults = place_faults(calibrations)
    assert set(faults) == set(CAMERAS)
    assert all('base_frame' in words for words in faults.values())


def test_cameras_in_their_place_are_not_named():
    assert complete_rig().out_of_place == {}


@pytest.mark.parametrize('one', CAMERAS)
@pytest.mark.parametrize('other', CAMERAS)
def test_two_cameras_in_each_others_place_are_named_with_the_mend(one, other):
    rig = complete_rig(slots={one: other, other: one})
    assert set(rig.out_of_place) == ({one, other} if one != other else set())
    if one != other:
        reason = rig.out_of_place[one]
        assert reason.code is Code.OUT_OF_PLACE and f'in the place of {other}' in reason.detail
    assert set(rig.calibrations) == set(CAMERAS)  # they are used


def test_a_whole_order_that_is_shifted_is_named():
    shifted = dict(zip(CAMERAS, (*CAMERAS[1:], CAMERAS[0])))
    assert set(complete_rig(slots=shifted).out_of_place) == set(CAMERAS)


@given(st.lists(st.floats(-20, 20), min_size=6, max_size=6))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_rigs_that_look_a_little_elsewhere_are_in_place(off_deg):
    calibrations = {
        camera: CameraCalibration(
            np.eye(3), 640, 360, rigs.ego_from_camera(rigs.AZIMUTH_DEG[camera] + off, (0, 0, 2))
        )
        for camera, off in zip(CAMERAS, off_deg)
    }
    assert place_faults(calibrations) == {}


def test_a_camera_info_that_is_refused_is_the_reason_until_a_good_one_comes():
    rig = Rig('base_link')
    rig.set_frame('cam_front', 'lens')
    rig.refuse_lens('cam_front', Reason(Code.UNKNOWN_DISTORTION, 'omni'))
    assert rig.missing['cam_front'] == Reason(Code.UNKNOWN_DISTORTION, 'omni')
    rig.set_transform('base_link', 'lens', OPTICAL, static=True)
    rig.set_lens('cam_front', pinhole(500.0))
    assert 'cam_front' in rig.calibrations
    rig.refuse_lens('cam_front', Reason(Code.UNKNOWN_DISTORTION, 'omni'))
    assert 'cam_front' in rig.calibrations  # the good one stays


# -- markers


def drawn(track_id, speed=0.0, caption='words', x=10.0, name='car'):
    box = np.array([x, 2, 1, 4, 2, 1.5, np.sin(0.4), np.cos(0.4), speed, 0.0])
    return DrawnObject(box, name, 0.8, str(track_id), caption)


def test_stale_markers_are_deleted_and_only_those():
    markers = Markers()
    markers.message(1, 'base_link', [drawn(1, speed=3.0), drawn(2)])
    message = markers.message(2, 'base_link', [drawn(2), drawn(3)])
    deleted = {
        (marker.ns, marker.id) for marker in message.markers if marker.action == Marker.DELETE
    }
    assert deleted == {(name, 1) for name in ('boxes', 'heading', 'captions', 'velocity')}
    assert not [
        marker
        for marker in markers.message(3, 'base_link', [drawn(2), drawn(3)]).markers
        if marker.action == Marker.DELETE
    ]


def test_markers_show_heading_speed_and_words():
    message = Markers().message(1, 'base_link', [drawn(1, speed=3.0, caption='a red car')])
    by_kind = {marker.ns: marker for marker in message.markers}
    start, end = by_kind['heading'].points
    assert np.arctan2(end.y - start.y, end.x - start.x) == pytest.approx(0.4)
    tail, tip = by_kind['velocity'].points
    assert (tip.x - tail.x, tip.y - tail.y) == pytest.approx((3.0, 0.0))
    assert 'a red car' in by_kind['captions'].text
    assert (by_kind['boxes'].scale.x, by_kind['boxes'].scale.y) == (4.0, 2.0)
    assert 'velocity' not in {
        marker.ns for marker in Markers().message(1, 'base_link', [drawn(1)]).markers
    }


def test_the_first_markers_clear_the_screen_and_all_of_them_end_by_themselves():
    """What a killed node left is removed by the next one; what this one leaves goes by itself."""
    markers = Markers()
    first = markers.message(1, 'base_link', [drawn(1)]).markers
    assert first[0].action == Marker.DELETEALL
    second = markers.message(2, 'base_link', [drawn(1)]).markers
    assert all(marker.action == Marker.ADD for marker in second)
    assert all(0 < marker.lifetime.sec <= 5 for marker in first[1:] + second)
    assert [marker.action for marker in markers.forget().markers] == [Marker.DELETEALL]
    again = markers.message(3, 'base_link', [drawn(1)]).markers
    assert again[0].action == Marker.DELETEALL


def test_words_are_wrapped_above_the_box_and_only_for_the_nearest():
    long = 'red car about 12 meters away in the front left of the ego car is parked behind a truck'
    objects = [drawn(k, x=10.0 + k, caption=long) for k in range(6)]
    objects += [drawn(9, x=1.0, name='traffic_cone'), drawn(8, x=1.0, name='barrier')]
    message = Markers().message(1, 'base_link', objects, 3)
    words = {marker.id: marker for marker in message.markers if marker.ns == 'captions'}
    assert set(words) == {0, 1, 2}
    lines = words[0].text.splitlines()
    assert max(map(len, lines)) <= 26 and ' '.join(lines) == f'#0 {long}'
    top = objects[0].box[2] + objects[0].box[5] / 2
    lowest = words[0].pose.position.z - len(lines) * words[0].scale.z / 2
    assert top < lowest < top + 1.0


# -- captions: whose turn


def test_the_due_come_first_of_these_the_nearest_and_fastest_changing():
    now = 10_500_000_000
    boxes = np.zeros((7, 10), np.float32)
    boxes[:, 0] = [30, 10, 20, 5, 1, 28, 3]
    boxes[5, 8] = -25.0  # comes towards us: it is soon nearer than b, and its words age fastest
    names = ['car', 'car', 'car', 'car', 'car', 'car', 'traffic_cone']
    found = Detections(
        boxes,
        np.array([CLASSES.index(name) for name in names]),
        np.array([0.9, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9], np.float32),
        np.arange(7),
    )
    tracks = ['a', 'b', 'c', 'd', 'unsure', 'coming', 'cone']
    book = CaptionBook(max_age_s=3.0)
    assert book.put('c', Said('words of its own', 10_000_000_000, 'car', (20.0, 0.0)), boxes[2])
    assert book.put('d', Said('words of its own', 1_000_000_000, 'car', (5.0, 0.0)), boxes[3])
    lie = 'red car about 90 meters away in the front of the ego car is parked'
    assert not book.put('a', Said(lie, 10_400_000_000, 'car', (30.0, 0.0)), boxes[0])
    rows = [tracks[row] for row in rows_to_caption(found, tracks, book, now, 9)]
    assert rows == ['coming', 'd', 'b', 'unsure', 'cone', 'a']
    assert [tracks[row] for row in rows_to_caption(found, tracks, book, now, 2)] == rows[:2]
    # We drive at 10 m/s: c will have moved by too much in a second, so it is made anew in time.
    rows = [tracks[row] for row in rows_to_caption(found, tracks, book, now, 9, (10.0, 0.0))]
    assert rows[-1] == 'c' and len(rows) == 7


# -- counting and workers


def test_tally_speaks_at_once_then_rarely_and_stays_bounded():
    now, said = [0.0], []
    tally = Tally(said.append, clock=lambda: now[0])
    for _ in range(5):
        tally.count('lost', 'the third camera')
    assert said == ['lost: the third camera']
    now[0] = 11.0
    tally.count('lost')
    assert said[-1] == 'lost (number 6)' and tally.counts() == {'lost': 6}
    assert tally.latest(5.0).key == 'lost'
    now[0] = 30.0
    assert tally.latest(5.0) is None
    for number in range(1000):
        tally.count(f'reason {number}', quiet=True)
    assert len(tally.counts()) <= MOST_KEYS + 1 and tally.total() == 1006


def test_tally_counts_reasons_by_code_whatever_their_detail():
    said = []
    tally = Tally(said.append)
    for metres in (5, 7):
        tally.count_reason(Reason(Code.POSE_JUMPED, f'by {metres} m'))
    tally.count_reason(Reason(Code.POSE_JUMPED), source='odometry')
    assert tally.counts() == {
        Code.POSE_JUMPED: 2,
        Refusal('odometry', Code.POSE_JUMPED): 1,
    }
    assert said == ['pose jumped: by 5 m', 'odometry: pose jumped']


def test_guard_keeps_the_traceback_and_goes_on():
    said = []
    guard = Guard(said.append)

    def broken(number):
        return 1 // number

    assert guard('division', broken)(0) is None and guard('division', broken)(1) == 1
    assert guard.errors.counts() == {'division: ZeroDivisionError': 1}
    assert 'in broken' in said[0]
    assert str(guard.errors.latest(5.0)).endswith('by zero')


def test_durations_and_rate():
    durations = Durations()
    for value in range(1, 102):
        durations.add({'decode': float(value)})
    assert durations.percentiles()['decode'] == pytest.approx((51.0, 91.0, 101.0))
    now = [0.0]
    rate = Rate(window_s=5.0, clock=lambda: now[0])
    assert rate.age_s() is None
    for _ in range(20):
        now[0] += 0.5
        rate.tick()
    assert rate.hz() == pytest.approx(2.0, abs=0.3) and rate.total == 20
    now[0] += 60.0
    assert rate.hz() == 0.0 and rate.age_s() == 60.0


def test_newest_worker_overtakes_and_limits_its_rate():
    done, release = [], threading.Event()

    def work(item):
        done.append((item, time.monotonic()))
        release.wait(5.0)

    worker = NewestWorker('test', work, max_rate_hz=20.0)
    worker.start()
    worker.offer(0)
    while not done:
        time.sleep(0.001)
    for item in range(1, 50):
        worker.offer(item)
    release.set()
    while len(done) < 2:
        time.sleep(0.001)
    assert worker.stop()
    assert [item for item, _ in done] == [0, 49] and worker.overtaken == 48
    assert done[1][1] - done[0][1] >= 0.049


def test_a_worker_stands_back_alone():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen = []
    for nice in (0, 3):
        worker = NewestWorker('test', lambda _: seen.append(niceness()), nice=nice)
        worker.start()
        worker.offer(0)
        while len(seen) < (2 if nice else 1):
            time.sleep(0.001)
        assert worker.stop()
    assert seen == [niceness(), min(19, niceness() + 3)]


# -- parameters


def test_what_the_node_reads_from_its_defaults_is_what_the_configurations_say():
    defaults = parameters.Parameters(**{spec.name: spec.default for spec in parameters.SPECS})
    assert parameters.sync_config(defaults) == SyncConfig()
    assert parameters.ego_motion_config(defaults) == EgoMotionConfig()
    assert parameters.pipeline_config(defaults) == PipelineConfig()


def test_parameter_file_shows_every_default_with_its_meaning():
    text = (REPOSITORY / 'params' / 'perception.yaml').read_text(encoding='utf-8')
    shown = yaml.safe_load(text)['/**/mta_perception']['ros__parameters']
    assert shown == {spec.name: spec.default for spec in parameters.SPECS}
    comments = ' '.join(
        ' '.join(
            line.strip('# ') for line in text.splitlines() if line.strip().startswith('#')
        ).split()
    )
    for spec in parameters.SPECS:
        assert spec.description.split('. ')[0].rstrip('.') in comments, spec.name


@pytest.fixture
def node_with():
    """Function that makes a node with the declared parameters, some of them given."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain())
    nodes = []

    def make(**given):
        overrides = [rclpy.Parameter(name, value=value) for name, value in given.items()]
        nodes.append(rclpy.create_node('reader', context=context, parameter_overrides=overrides))
        parameters.declare(nodes[-1])
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_slashes_before_frames_and_behind_cameras_are_left_away(node_with):
    cameras = [f'/{camera}/' for camera in CAMERAS]
    read = parameters.read(node_with(base_frame='/base_link', odom_frame='//map', cameras=cameras))
    assert (read.base_frame, read.odom_frame) == ('base_link', 'map')
    assert read.cameras == tuple(f'/{camera}' for camera in CAMERAS)  # topics may be absolute
    cameras[0], cameras[1] = cameras[1], cameras[0]
    with pytest.raises(ValueError, match='out of place'):
        parameters.read(node_with(cameras=cameras))
    with pytest.raises(ValueError, match='base_frame is empty'):
        parameters.read(node_with(base_frame='/'))


@pytest.mark.parametrize(
    'names, words',
    [
        (CAMERAS[:5], 'has 5 names, 5 of them different'),
        ((*CAMERAS, 'spare'), 'has 7 names'),
        ((*CAMERAS[:5], CAMERAS[0]), 'has 6 names, 5 of them different'),
        ((CAMERAS[1], CAMERAS[0], *CAMERAS[2:]), f'has {CAMERAS[1]}, {CAMERAS[0]} out of place'),
        (('left', CAMERAS[0], *CAMERAS[2:]), f'has {CAMERAS[0]} out of place'),
    ],
)
def test_wrong_cameras_are_refused(node_with, names, words):
    with pytest.raises(ValueError, match=f'parameter cameras {words}'):
        parameters.read(node_with(cameras=list(names)))


@pytest.mark.parametrize('names', [list('fedcba'), ['bonnet', *CAMERAS[1:]]])
def test_own_camera_names_are_taken_in_the_order_they_are_given(node_with, names):
    read = parameters.read(node_with(cameras=names, min_cameras=4))
    assert read.cameras == tuple(names)
    assert read.min_cameras == 4 and read.max_wait_s == SyncConfig.max_wait_s


def test_quaternion_of_a_box_is_about_z_only():
    box = random_boxes(1, seed=5)[0]
    message = conversions.detections_message(0, 'base_link', [box], [CLASSES[0]], [1.0], ['1'])
    q = message.detections[0].bbox.center.orientation
    expected = quaternion_from_rigid(rigid_from_yaw(np.arctan2(box[6], box[7])))
    np.testing.assert_allclose(np.abs([q.x, q.y, q.z, q.w]), np.abs(expected), atol=1e-12)

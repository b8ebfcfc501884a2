"""Numbers of a recorded run, against slow and obvious computations."""

import numpy as np
import pytest

from mta_perception.bags.recording import (
    RecordedDetections,
    Recording,
    boxes_moved_to,
    with_track_velocities,
)
from mta_perception.commands.summary import (
    _frame_accounts,
    _stages,
    latencies_ms,
    machine,
    percentiles,
    rate_hz,
)
from mta_perception.geometry import box_corners, invert_rigid, rigid_from_yaw, transform

SECOND = 1_000_000_000


def message(stamp_ns, arrival_ns=0, boxes=()):
    return RecordedDetections(
        stamp_ns,
        arrival_ns,
        np.reshape(boxes, (-1, 10)),
        ['car'] * len(boxes),
        np.full(len(boxes), 0.5),
        [str(k) for k in range(len(boxes))],
    )


def recording(detections, image_arrivals=None):
    return Recording(detections, [], image_arrivals or {}, [])


def world_from_ego_at(stamp_ns):
    """A car that turns at 0.3 rad/s while it drives 8 m/s."""
    t = stamp_ns / SECOND
    yaw, radius = 0.3 * t, 8.0 / 0.3
    return rigid_from_yaw(yaw, (radius * np.sin(yaw), radius * (1 - np.cos(yaw)), 0.2))


def test_latency_is_from_the_last_image_of_the_set_to_its_detections():
    arrivals = {100: 5_000_000, 200: 15_000_000}
    run = recording(
        [message(100, 45_000_000), message(200, 35_000_000), message(300, 99_000_000)], arrivals
    )
    assert latencies_ms(run) == [40.0, 20.0]  # no image arrival was seen for the third


def test_percentiles_of_nothing_are_none():
    assert percentiles([]) == {'p50': None, 'p90': None, 'max': None}
    assert percentiles([1.0, 2.0, 30.0]) == {'p50': 2.0, 'p90': 24.4, 'max': 30.0}


def test_the_nodes_stamps_are_read_by_stage_and_words_beside_them_left_alone():
    said = {'boxes_p50_ms': '80.126', 'boxes_max_ms': '99.000', 'image_stamps': 'of /clock'}
    said['received_after_stamp_p90_ms'] = '3.000'
    assert _stages({'latency': said}, 'latency') == {
        'boxes': {'p50': 80.13, 'max': 99.0},
        'received_after_stamp': {'p90': 3.0},
    }
    assert _stages({}, 'latency') == {}  # a bag of an older version


def test_rate_counts_intervals_not_messages():
    assert rate_hz([0, SECOND // 2, SECOND]) == 2.0
    assert rate_hz([7]) is None and rate_hz([]) is None


@pytest.mark.parametrize('dt', [-0.25, 0.0, 0.13])
def test_moved_boxes_keep_standing_things_where_they_stand_in_the_world(dt):
    rng = np.random.default_rng(3)
    boxes = np.zeros((5, 10))
    boxes[:, :3] = rng.uniform(-30, 30, (5, 3))
    boxes[:, 3:6] = rng.uniform(1, 5, (5, 3))
    yaw = rng.uniform(-3, 3, 5)
    boxes[:, 6], boxes[:, 7] = np.sin(yaw), np.cos(yaw)
    now, then = 2 * SECOND, int((2 + dt) * SECOND)
    moved = boxes_moved_to(boxes, now, then, world_from_ego_at)
    np.testing.assert_allclose(
        transform(world_from_ego_at(then), box_corners(moved)),
        transform(world_from_ego_at(now), box_corners(boxes)),
        atol=1e-9,
    )


def test_moved_boxes_go_on_at_their_velocity():
    now, then = SECOND, int(1.2 * SECOND)
    velocity_world = np.array([3.0, -2.0, 0.0])
    ego_from_world = invert_rigid(world_from_ego_at(now))
    velocity = ego_from_world[:3, :3] @ velocity_world
    box = np.array([[10.0, 4.0, 0.8, 4, 2, 1.5, 0, 1, velocity[0], velocity[1]]])
    moved = boxes_moved_to(box, now, then, world_from_ego_at)
    start = transform(world_from_ego_at(now), box[0, :3])
    end = transform(world_from_ego_at(then), moved[0, :3])
    np.testing.assert_allclose(end - start, 0.2 * velocity_world, atol=1e-9)
    turned = world_from_ego_at(then)[:2, :2] @ moved[0, 8:10]
    np.testing.assert_allclose(turned, velocity_world[:2], atol=1e-9)


def test_unknown_velocity_counts_as_standing():
    box = np.array([[10.0, 4.0, 0.8, 4, 2, 1.5, 0, 1, np.nan, np.nan]])
    moved = boxes_moved_to(box, 0, SECOND // 10, lambda stamp: np.eye(4))
    np.testing.assert_allclose(moved[0, :8], box[0, :8])


def test_machine_names_its_parts():
    found = machine()
    assert found['cores'] >= 1 and found['memory_gb'] > 0.1 and found['cpu']
    assert found['packages']['numpy'] == np.__version__


def test_track_velocities_are_those_of_the_world_not_of_the_car():
    """A car at constant velocity, seen from a turning one at 5 Hz, without noise."""
    velocity, start = np.array([4.0, -1.0, 0.0]), np.array([20.0, 5.0, 1.0])
    messages = []
    for step in range(10):
        stamp = step * SECOND // 5
        place = transform(invert_rigid(world_from_ego_at(stamp)), start + velocity * step / 5)
        box = np.concatenate([place, [4, 2, 1.5, 0, 1, np.nan, np.nan]])
        messages.append(message(stamp, boxes=[box]))
    filled = with_track_velocities(messages[::-1], world_from_ego_at)
    assert [one.stamp_ns for one in filled] == [one.stamp_ns for one in messages]
    assert np.isnan(filled[0].boxes[0, 8:]).all()
    for one in filled[1:]:
        turned = world_from_ego_at(one.stamp_ns)[:2, :2] @ one.boxes[0, 8:]
        np.testing.assert_allclose(turned, velocity[:2], atol=1e-6)
    assert np.isnan(messages[-1].boxes[0, 8:]).all()  # the recording itself is left alone


def test_frames_in_are_all_accounted_for():
    books = {
        'frames': {
            'frames_in': '240',
            'processed': '150',
            'rate_hz': '7.500',
            'dropped': '88',
            'dropped/overtaken by a newer frame': '80',
            'dropped/no odometry': '8',
            'sync/sets': '240',
            'sync/incomplete sets': '0',
        }
    }
    accounts = _frame_accounts(books)
    assert accounts == {
        'frames_in': 240,
        'frames_processed': 150,
        'dropped': {'overtaken by a newer frame': 80, 'no odometry': 8},
        'unexplained': 2,
        'synchroniser': {'sets': 240},
    }

"""Ids stay with objects: moving, turning, crossing, flickering, changing their class."""

import numpy as np
import pytest

from mta_perception.config import TrackingConfig
from mta_perception.contract import CLASSES
from mta_perception.detections import CaptionInputs, Detections, told_track
from mta_perception.geometry import invert_rigid, rigid_from_yaw, transform_boxes
from mta_perception.pipeline.duplicates import distinct
from mta_perception.pipeline.tracking import Tracker

SECOND = 1_000_000_000
START = 1_532_402_927 * SECOND
CAR, TRUCK, PEDESTRIAN, CONE = (
    CLASSES.index(name) for name in ('car', 'truck', 'pedestrian', 'traffic_cone')
)


def _detections(world_from_ego, objects):
    """Detections of (x, y, vx, vy, label) in the world, seen from the ego frame."""
    boxes = np.zeros((len(objects), 10))
    boxes[:, 3:6], boxes[:, 7] = (4.0, 2.0, 1.5), 1.0
    for box, (x, y, vx, vy, _) in zip(boxes, objects):
        box[:2], box[8:] = (x, y), (vx, vy)
    boxes = transform_boxes(invert_rigid(world_from_ego), boxes).astype(np.float32)
    count = len(objects)
    return Detections(
        boxes,
        np.array([item[4] for item in objects], np.int64),
        np.linspace(0.9, 0.3, count).astype(np.float32),
        np.arange(count),
    )


def _ego(seconds):
    return rigid_from_yaw(0.5 * seconds, (10.0 * seconds, 0.0, 0.0))


def _moved(objects, seconds):
    return [(x + vx * seconds, y + vy * seconds, vx, vy, label) for x, y, vx, vy, label in objects]


def _stamp(seconds):
    return START + round(seconds * SECOND)


@pytest.mark.parametrize('step_s', [1 / 12, 0.16, 0.5])
def test_ids_stay_while_everything_moves_and_order_changes(step_s):
    objects = [
        (20, 4, 15, 0, CAR),
        (30, 4, 14, 0, TRUCK),
        (20, -4, -15, 0, CAR),
        (12, 6, 0, 1.4, PEDESTRIAN),
        (12, 7.2, 0, -1.4, PEDESTRIAN),
        (8, -3, 0, 0, CONE),
    ]
    tracker, rng = Tracker(TrackingConfig()), np.random.default_rng(0)
    first = None
    for seconds in np.arange(0, 3, step_s):
        noisy = [
            (x + rng.normal(0, 0.15), y + rng.normal(0, 0.15), vx, vy, label)
            for x, y, vx, vy, label in _moved(objects, seconds)
        ]
        order = rng.permutation(len(noisy))
        ids = tracker.update(
            _stamp(seconds), _ego(seconds), _detections(_ego(seconds), [noisy[i] for i in order])
        )
        by_object = {int(i): identifier for i, identifier in zip(order, ids)}
        first = first or by_object
        if step_s < 0.5:  # pedestrians half a second apart may be taken for each other
            assert by_object == first
        else:
            assert all(by_object[i] == first[i] for i in (0, 1, 2, 5))
    assert len(set(first.values())) == len(objects)


def test_a_flickering_object_keeps_its_id_and_a_lost_one_does_not():
    tracker, car = Tracker(TrackingConfig(max_coast_s=1.0)), [(20, 0, 10, 0, CAR)]
    seen = []
    for seconds in (0.0, 0.1, 0.2, 0.9, 1.0, 2.5):
        for between in np.arange(seconds - 0.3, seconds, 0.1):
            if seconds in (0.9, 2.5):
                tracker.update(_stamp(between), np.eye(4), _detections(np.eye(4), []))
        seen += tracker.update(
            _stamp(seconds), np.eye(4), _detections(np.eye(4), _moved(car, seconds))
        )
    assert len(set(seen[:5])) == 1 and seen[5] != seen[0]


def test_classes_that_look_alike_may_change_others_not():
    tracker = Tracker(TrackingConfig())

    def at(seconds, label):
        return tracker.update(
            _stamp(seconds), np.eye(4), _detections(np.eye(4), [(20, 0, 0, 0, label)])
        )[0]

    assert at(0.0, CAR) == at(0.1, TRUCK) == at(0.2, CAR)
    assert at(0.3, PEDESTRIAN) != at(0.4, CAR)


def test_the_like_class_wins_between_equally_near_ones():
    tracker = Tracker(TrackingConfig())
    car, truck = tracker.update(
        _stamp(0), np.eye(4), _detections(np.eye(4), [(20, 0, 0, 0, CAR), (20, 1, 0, 0, TRUCK)])
    )
    ids = tracker.update(
        _stamp(0.1),
        np.eye(4),
        _detections(np.eye(4), [(20, 0.5, 0, 0, TRUCK), (20, 0.45, 0, 0, CAR)]),
    )
    assert ids == [truck, car]


def test_ids_are_never_used_again():
    tracker, seen = Tracker(TrackingConfig()), []
    objects = _detections(np.eye(4), [(20, 0, 0, 0, CAR), (10, 0, 0, 0, CONE)])
    for seconds in (0.0, 0.1, 10.0, 1.0):  # then a gap, then a clock jump
        ids = tracker.update(_stamp(seconds), np.eye(4), objects)
        assert all(isinstance(identifier, str) for identifier in ids)
        seen.append(tuple(ids))
    tracker.reset()
    seen.append(tuple(tracker.update(_stamp(1.1), np.eye(4), objects)))
    assert seen[0] == seen[1]
    assert len({identifier for ids in seen[1:] for identifier in ids}) == 8


def test_trails_are_where_the_objects_were_in_the_world():
    tracker, car = Tracker(TrackingConfig(trail_s=1.0)), [(20, 4, 15, 0, CAR)]
    for seconds in np.arange(0, 3.01, 0.1):
        ids = tracker.update(
            _stamp(seconds), _ego(seconds), _detections(_ego(seconds), _moved(car, seconds))
        )
    trail = tracker.trails()[ids[0]]
    assert trail.shape == (11, 2)
    np.testing.assert_allclose(trail[:, 0], 20 + 15 * np.arange(2.0, 3.01, 0.1), atol=1e-3)
    np.testing.assert_allclose(trail[:, 1], 4, atol=1e-3)
    tracker.update(_stamp(3.1), _ego(3.1), _detections(_ego(3.1), []))
    assert tracker.trails() == {}


def test_velocity_that_is_not_finite_does_no_harm():
    tracker = Tracker(TrackingConfig())
    objects = [(20, 0, np.nan, np.nan, CAR)]
    first = tracker.update(_stamp(0), np.eye(4), _detections(np.eye(4), objects))
    assert tracker.update(_stamp(0.1), np.eye(4), _detections(np.eye(4), objects)) == first


@pytest.mark.parametrize('most, known', [(30, True), (20, False)])
def test_beyond_the_bound_on_memory_the_longest_unseen_are_forgotten(most, known):
    tracker = Tracker(TrackingConfig(max_tracks=most))

    def see(seconds, row):
        objects = [(x, row, 0, 0, CONE) for x in range(-45, 50, 10)]
        return tracker.update(_stamp(seconds), np.eye(4), _detections(np.eye(4), objects))

    first, newest = see(0.0, -30), [see(0.1 * row, 10 * row) for row in (1, 2)][-1]
    assert (see(0.3, -30) == first) == known
    assert see(0.4, 20) == newest


def test_a_track_keeps_its_class_until_another_has_the_better_evidence():
    tracker, said = Tracker(TrackingConfig()), []
    for step, label in enumerate([CAR, CAR, CAR, TRUCK, CAR, TRUCK, *[TRUCK] * 12]):
        found = _detections(np.eye(4), [(20, 0, 0, 0, label)])
        tracker.update(_stamp(step / 10), np.eye(4), found)
        said.append(int(tracker.settled(np.eye(4), found).labels[0]))
    assert said[:8] == [CAR] * 8 and said[-1] == TRUCK
    assert sum(before != after for before, after in zip(said, said[1:])) == 1


@pytest.mark.parametrize('speed', [0.0, 9.8])
def test_velocity_of_a_blind_model_comes_from_the_way_of_the_track(speed):
    """A model that believes that everything stands is corrected, in the turning ego frame too."""
    tracker, rng = Tracker(TrackingConfig()), np.random.default_rng(3)
    for seconds in np.arange(0, 2, 0.2):
        world_from_ego = _ego(seconds)
        x = 25 + speed * seconds + rng.normal(0, 0.1)
        found = _detections(world_from_ego, [(x, 4 + rng.normal(0, 0.1), 0, 0, CAR)])
        tracker.update(_stamp(seconds), world_from_ego, found)
    settled = tracker.settled(world_from_ego, found)
    velocity = world_from_ego[:2, :2] @ settled.boxes[0, 8:]
    assert velocity == pytest.approx([speed, 0.0], abs=1.0)
    np.testing.assert_array_equal(settled.boxes[:, :8], found.boxes[:, :8])
    if speed == 0:
        assert np.hypot(*velocity) < 1e-6, 'noise makes nothing move'


def test_of_boxes_on_one_object_the_best_stays_and_neighbours_stay():
    objects = [
        (20, 0, 0, 0, CAR),
        (20.6, 0.3, 0, 0, TRUCK),  # the same car, under another name
        (20, 2.2, 0, 0, CAR),  # parked beside it
        (20, 0, 0, 0, PEDESTRIAN),  # in front of the car: of another kind
        (30, 0, 0, 0, CAR),
    ]
    found = _detections(np.eye(4), objects)
    kept = distinct(found)
    assert list(kept.queries) == [0, 2, 3, 4]
    np.testing.assert_array_equal(kept.boxes, found.boxes[[0, 2, 3, 4]])
    assert len(distinct(_detections(np.eye(4), [])).boxes) == 0


def test_the_captioner_is_told_the_class_of_the_track():
    logits = np.array([[3.0, 1.0, -2.0], [0.0, 5.0, 1.0]], np.float32)
    inputs = CaptionInputs(np.zeros((2, 4)), np.zeros((2, 10)), logits, np.zeros(1))
    boxes = np.zeros((2, 10))
    boxes[:, 8:] = (3.0, -1.0), (np.nan, 2.0)
    settled = Detections(boxes, np.array([1, 1]), np.ones(2), np.arange(2))
    told = told_track(inputs, settled)
    np.testing.assert_array_equal(told.class_logits, [[1.0, 3.0, -2.0], [0.0, 5.0, 1.0]])
    # Of a velocity that is not known, the detector's.
    np.testing.assert_array_equal(told.boxes[:, 8:], [[3.0, -1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(inputs.class_logits, logits)
    assert not inputs.boxes.any()

"""Matching: rotated IoU against a grid, strict pairs that no model cheats, TOD3Cap's oddities."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from nuscenes.eval.common.utils import scale_iou as devkit_scale_iou
from nuscenes.eval.detection.data_classes import DetectionBox
import pytest

from mta_perception.geometry import rigid_from_yaw, transform_boxes
from mta_training.evaluation.caption_matching import (
    IGNORED,
    DescribedObjects,
    Pair,
    rotated_iou,
    scale_iou,
    strict_pairs,
    tod3cap_pairs,
)

CAR, TRUCK, PEDESTRIAN, CONE = 0, 1, 8, 9


def box(x, y, z=0.0, size=(4.0, 2.0, 1.5), yaw=0.0):
    return [x, y, z, *size, np.sin(yaw), np.cos(yaw), 0.0, 0.0]


def described(boxes, labels, captions, scores=None):
    return DescribedObjects(
        np.array(boxes, dtype=float).reshape(-1, 10),
        np.array(labels, dtype=int),
        np.linspace(0.9, 0.5, len(labels)) if scores is None else np.array(scores),
        list(captions),
    )


_near, _side = st.floats(-4.0, 4.0), st.floats(0.3, 8.0)
_angle = st.floats(-np.pi, np.pi)
boxes_strategy = st.builds(
    lambda x, y, z, sides, yaw: np.array(box(x, y, z, sides, yaw)),
    _near,
    _near,
    st.floats(-1.0, 1.0),
    st.tuples(_side, _side, _side),
    _angle,
)


def inside(points, one):
    """(n,) which points (n, 3) lie in a box."""
    yaw = np.arctan2(one[6], one[7])
    local = (points - one[:3]) @ rigid_from_yaw(yaw)[:3, :3]
    return (np.abs(local) <= one[3:6] / 2).all(axis=1)


@given(boxes_strategy, boxes_strategy)
@settings(max_examples=60, deadline=None)
def test_iou_is_symmetric_and_a_share(a, b):
    iou = rotated_iou([a], [b])[0, 0]
    assert -1e-9 <= iou <= 1.0 + 1e-9
    assert iou == pytest.approx(rotated_iou([b], [a])[0, 0], abs=1e-9)
    assert rotated_iou([a], [a])[0, 0] == pytest.approx(1.0, abs=1e-9)


@given(boxes_strategy, boxes_strategy, _angle, st.floats(-30, 30), st.floats(-30, 30))
@settings(max_examples=60, deadline=None)
def test_iou_does_not_change_when_the_car_moves(a, b, yaw, x, y):
    before = rotated_iou([a], [b])
    moved = transform_boxes(rigid_from_yaw(yaw, (x, y, 1.0)), np.array([a, b]))
    np.testing.assert_allclose(rotated_iou(moved[:1], moved[1:]), before, atol=1e-8)


@given(boxes_strategy, boxes_strategy)
@settings(max_examples=25, deadline=None)
def test_iou_is_that_of_counted_points(a, b):
    axis = (np.arange(41) + 0.5) / 41 * 2 - 1  # centres of 41 cells in -1..1
    local = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    yaw = np.arctan2(a[6], a[7])
    points = (local * a[3:6] / 2) @ rigid_from_yaw(yaw)[:3, :3].T + a[:3]
    common = inside(points, b).mean() * a[3:6].prod()
    want = common / (a[3:6].prod() + b[3:6].prod() - common)
    assert rotated_iou([a], [b])[0, 0] == pytest.approx(want, abs=0.06)


def test_iou_of_known_boxes():
    a = box(0, 0)
    assert rotated_iou([a], [box(2, 0)])[0, 0] == pytest.approx(1 / 3)
    assert rotated_iou([a], [box(0, 0, 0.75)])[0, 0] == pytest.approx(1 / 3)
    assert rotated_iou([a], [box(0, 0, 1.6)])[0, 0] == 0.0
    assert rotated_iou([a], [box(0, 0, yaw=np.pi / 2)])[0, 0] == pytest.approx(1 / 3)
    assert rotated_iou(np.zeros((0, 10)), [a, a]).shape == (0, 2)


@given(boxes_strategy, boxes_strategy)
@settings(max_examples=30, deadline=None)
def test_scale_iou_is_the_devkits(a, b):
    want = devkit_scale_iou(*(DetectionBox(size=tuple(one[[4, 3, 5]])) for one in (a, b)))
    assert scale_iou([a], [b])[0, 0] == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize('limits', [{'iou': 0.5}, {'within_m': 2.0}])
def test_ground_truth_finds_itself(limits):
    truth = described([box(10, 0), box(12, 0), box(10, 8, yaw=1.0)], [CAR, CAR, TRUCK], 'abc')
    shuffled = DescribedObjects(*(np.array(column)[[2, 0, 1]] for column in truth))
    assert strict_pairs(truth, shuffled, **limits) == [
        Pair('a', 'a', 0, 1, True),
        Pair('b', 'b', 1, 2, True),
        Pair('c', 'c', 2, 0, True),
    ]


def test_strict_needs_class_place_and_heading():
    truth = described([box(10, 0)], [CAR], ['a'])
    for boxes, label in (
        ([box(10, 0)], TRUCK),
        ([box(12.5, 0)], CAR),
        ([box(10, 0, yaw=np.pi / 2)], CAR),
    ):
        pairs = strict_pairs(truth, described(boxes, [label], ['x']), iou=0.5)
        assert pairs == [Pair('a', '', 0, -1, False)]
    turned = described([box(10, 0, yaw=np.pi / 2)], [CAR], ['x'])
    assert strict_pairs(truth, turned, within_m=2.0)[0].kept


def test_thresholds_are_exclusive():
    truth = described([box(10, 0)], [CAR], ['a'])
    third, two = described([box(12, 0)], [CAR], ['x']), described([box(12, 0)], [CAR], ['x'])
    iou = float(rotated_iou(truth.boxes, third.boxes)[0, 0])
    assert not strict_pairs(truth, third, iou=iou)[0].kept
    assert strict_pairs(truth, third, iou=iou - 1e-9)[0].kept
    assert not strict_pairs(truth, two, within_m=2.0)[0].kept


def test_best_score_wins_and_takes_one_object_only():
    truth = described([box(10, 0)], [CAR], ['a'])
    twice = described([box(10, 0), box(10.5, 0)], [CAR, CAR], ['x', 'y'], scores=[0.3, 0.9])
    assert strict_pairs(truth, twice, iou=0.25) == [Pair('a', 'y', 0, 1, True)]


def test_objects_without_caption_are_taken_but_do_not_count():
    truth = described([box(10, 0), box(11, 0)], [CAR, CAR], ['', 'b'])
    said = described([box(10, 0)], [CAR], ['x'])
    assert strict_pairs(truth, said, within_m=2.0) == [Pair('b', '', 1, -1, False)]


def test_range_of_the_class_holds_on_both_sides():
    truth = described([box(49, 0), box(51, 0), box(35, 0)], [CAR, CAR, CONE], 'abc')
    said = described([box(50.5, 0), box(35, 0)], [CAR, CONE], 'xy')
    assert strict_pairs(truth, said, within_m=2.0) == [Pair('a', '', 0, -1, False)]
    assert tod3cap_pairs(truth, said, 0.25) == []


def test_one_threshold_is_needed():
    nothing = described([], [], [])
    for limits in ({}, {'iou': 0.5, 'within_m': 2.0}):
        with pytest.raises(ValueError, match='give one of'):
            strict_pairs(nothing, nothing, **limits)


def test_tod3cap_matches_far_away_whatever_class_and_heading():
    truth = described([box(10, 0), box(5, 5, size=(0.5, 0.5, 1.7))], [CAR, PEDESTRIAN], 'ab')
    said = described([box(-30, 20, size=(4.0, 2.0, 1.5), yaw=1.0)], [TRUCK], ['x'])
    assert tod3cap_pairs(truth, said, 0.5) == [Pair('a', 'x', 0, 0, True)]
    assert not strict_pairs(truth, said, iou=0.25)[0].kept


def test_tod3cap_counts_predictions_and_shares_objects():
    truth = described([box(10, 0), box(-20, 3, size=(9.0, 3.0, 3.0))], [CAR, TRUCK], 'ab')
    said = described(
        [box(10, 0), box(20, 0), box(0, 9, size=(0.4, 0.4, 0.9))], [CAR, CAR, CONE], 'xyz'
    )
    pairs = tod3cap_pairs(truth, said, 0.5)
    assert [pair.truth for pair in pairs] == [0, 0, 0]  # one object serves all; N = 3
    assert [pair.kept for pair in pairs] == [True, True, False]
    assert len(strict_pairs(truth, said, iou=0.5)) == 2  # N = ground truths


def test_tod3cap_has_a_reference_for_objects_without_caption():
    truth = described([box(10, 0)], [CAR], [''])
    said = described([box(10, 0)], [CAR], ['x'])
    assert tod3cap_pairs(truth, said, 0.5) == [Pair(IGNORED, 'x', 0, 0, True)]
    assert strict_pairs(truth, said, iou=0.5) == []


def test_tod3cap_in_a_frame_without_objects_keeps_nothing():
    pairs = tod3cap_pairs(described([], [], []), described([box(10, 0)], [CAR], ['x']), 0.25)
    assert pairs == [Pair('', 'x', -1, 0, False)]

"""Sentences for the moment at which they are read: where objects will be, and how far ahead."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.contract import BoxCode
from mta_perception.geometry import invert_rigid, rigid_from_yaw, transform_boxes
from mta_perception.workers.look_ahead import MOST_S, LookAhead, boxes_ahead

SECOND = 1_000_000_000


def box(x, y, vx=0.0, vy=0.0, yaw=0.3):
    found = np.zeros((1, BoxCode.WIDTH), np.float32)
    found[0] = [x, y, 0.5, 4.0, 2.0, 1.5, np.sin(yaw), np.cos(yaw), vx, vy]
    return found


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    *[st.floats(-40, 40)] * 2,
    *[st.floats(-12, 12)] * 2,
    st.floats(0, 15),
    st.floats(-0.6, 0.6),
    st.floats(0, 1),
)
def test_boxes_are_where_the_motion_of_both_takes_them(x, y, vx, vy, speed, turn, seconds):
    """Against the exact way: the car on its arc, the object straight on in the world."""
    now = box(x, y, vx, vy)
    steps = 200
    later = np.eye(4)
    for _ in range(steps):
        later = later @ rigid_from_yaw(turn * seconds / steps, (speed * seconds / steps, 0.0, 0.0))
    there = now.astype(np.float64)
    there[:, :2] += seconds * there[:, BoxCode.VELOCITY]
    expected = transform_boxes(invert_rigid(later), there)
    found = boxes_ahead(now, seconds, (speed, 0.0), turn)
    # The car's arc is taken as its chord at the heading of now.
    slack = 0.02 + 0.5 * speed * abs(turn) * seconds**2 + 0.02 * speed * (turn * seconds) ** 2
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=slack)
    np.testing.assert_allclose(found[:, 2:], expected[:, 2:], atol=1e-3)


def test_nothing_ahead_changes_nothing_and_an_unknown_velocity_is_none():
    now = np.concatenate([box(10, 2, 3, 0), box(5, 5, np.nan, np.nan)])
    np.testing.assert_array_equal(boxes_ahead(now, 0.0, (8.0, 0.0), 0.3), now)
    later = boxes_ahead(now, 0.5, (8.0, 0.0))
    np.testing.assert_allclose(later[:, 0], [7.5, 1.0], atol=1e-5)


def feed(ahead, period_s, writing_s, count=40):
    for k in range(count):
        ahead.published(round(k * period_s * SECOND), k * period_s + 5.0)
        ahead.told(round(k * period_s * SECOND), k * period_s + 5.0 + writing_s)


@pytest.mark.parametrize(
    'period_s, writing_s, expected_s', [(0.25, 0.1, 0.25), (0.25, 0.3, 0.5), (0.08, 0.2, 0.24)]
)
def test_it_is_learnt_in_whole_frames(period_s, writing_s, expected_s):
    ahead = LookAhead()
    assert ahead.seconds() == 0.0
    feed(ahead, period_s, writing_s)
    assert ahead.seconds() == pytest.approx(expected_s, abs=1e-6)


def test_pauses_jumps_and_slow_machines_stay_within_bounds():
    ahead = LookAhead()
    feed(ahead, 0.25, 0.3)
    ahead.published(3600 * SECOND, 100.0)
    ahead.published(1 * SECOND, 101.0)
    ahead.told(77, 101.0)
    assert ahead.seconds() == pytest.approx(0.5, abs=1e-6)
    feed(ahead, 0.4, 1.7)
    assert ahead.seconds() == MOST_S
    assert LookAhead(0.0).seconds() == 0.0 and LookAhead(0.3).seconds() == 0.3

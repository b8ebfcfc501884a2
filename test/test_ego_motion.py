"""Poses at any stamp, and nothing where none is known."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.config import EgoMotionConfig
from mta_perception.geometry import quaternion_from_rigid, rigid_from_yaw
from mta_perception.pipeline.ego_motion import EgoMotion, EgoMotionError
from mta_perception.reasons import Code, Reason

SECOND = 1_000_000_000
START = 1_532_402_927 * SECOND


def _on_a_circle(seconds, speed=10.0, radius=20.0):
    """world_from_ego of a car turning left at constant speed."""
    angle = speed * seconds / radius
    return rigid_from_yaw(angle, (radius * np.sin(angle), radius * (1 - np.cos(angle)), 0.0))


def _driven(rate_hz=50, seconds=3.0, **config):
    ego = EgoMotion(EgoMotionConfig(**config))
    for index in range(int(rate_hz * seconds) + 1):
        at = index / rate_hz
        assert ego.add(START + round(at * SECOND), _on_a_circle(at)) is None
    return ego


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.floats(0.0, 3.1))
def test_any_stamp_of_a_turning_drive(seconds):
    ego = _driven()
    np.testing.assert_allclose(
        ego.world_from_ego(START + round(seconds * SECOND)), _on_a_circle(seconds), atol=0.06
    )


def test_known_stamps_are_exact_and_not_shared():
    ego = _driven()
    pose = ego.world_from_ego(START + SECOND)
    np.testing.assert_array_equal(pose, _on_a_circle(1.0))
    pose[:] = 0
    np.testing.assert_array_equal(ego.world_from_ego(START + SECOND), _on_a_circle(1.0))


@pytest.mark.parametrize(
    'stamp_ns, code',
    [
        (START + 3 * SECOND + 310_000_000, Code.ODOMETRY_TOO_OLD),
        (START - 310_000_000, Code.STAMP_BEFORE_ODOMETRY),
    ],
)
def test_far_outside_is_refused(stamp_ns, code):
    with pytest.raises(EgoMotionError, match='0.310 s away') as caught:
        _driven().world_from_ego(stamp_ns)
    assert caught.value.reason.code is code


def test_shortly_before_the_first_pose_the_car_came_from_behind():
    pose = _driven().world_from_ego(START - 50_000_000)
    np.testing.assert_allclose(pose, _on_a_circle(-0.05), atol=0.06)


def test_no_odometry():
    with pytest.raises(EgoMotionError) as caught:
        EgoMotion().world_from_ego(START)
    assert caught.value.reason.code is Code.NO_ODOMETRY


def test_a_single_pose_holds_for_a_moment():
    ego = EgoMotion()
    ego.add(START, _on_a_circle(1.0))
    np.testing.assert_array_equal(ego.world_from_ego(START + 50_000_000), _on_a_circle(1.0))
    with pytest.raises(EgoMotionError):
        ego.world_from_ego(START + 350_000_000)


def test_no_interpolation_over_a_gap():
    ego = EgoMotion()
    ego.add(START, _on_a_circle(0.0))
    ego.add(START + 2 * SECOND, _on_a_circle(2.0))
    with pytest.raises(EgoMotionError) as caught:
        ego.world_from_ego(START + SECOND)
    assert caught.value.reason.code is Code.GAP_IN_ODOMETRY


@pytest.mark.parametrize(
    'pose, code',
    [
        (np.full((4, 4), np.nan), Code.POSE_NOT_FINITE),
        (np.eye(3), Code.POSE_NOT_FINITE),
        (np.diag([2.0, 1, 1, 1]), Code.POSE_NOT_RIGID),
        (np.diag([-1.0, 1, 1, 1]), Code.POSE_NOT_RIGID),
    ],
)
def test_impossible_poses_are_refused_and_counted(pose, code):
    ego = _driven()
    assert ego.add(START + 4 * SECOND, pose).code is code
    assert ego.refused == {code: 1}
    assert ego.newest_stamp_ns == START + 3 * SECOND


@pytest.mark.parametrize(
    'translation, quaternion, code',
    [
        ((0, 0, 0), (0, 0, 0, 0), Code.QUATERNION_LENGTH),
        ((0, 0, 0), (0, 0, 0.5, 0.5), Code.QUATERNION_LENGTH),
        ((0, np.nan, 0), (0, 0, 0, 1), Code.POSE_NOT_FINITE),
        ((0, 0, 0), (0, 0, np.inf, 1), Code.POSE_NOT_FINITE),
    ],
)
def test_impossible_messages_are_refused(translation, quaternion, code):
    ego = EgoMotion()
    assert ego.add_quaternion(START, translation, quaternion).code is code
    assert ego.refused == {code: 1} and ego.newest_stamp_ns is None


def test_a_message_gives_the_same_pose():
    ego, pose = EgoMotion(), _on_a_circle(1.2)
    assert ego.add_quaternion(START, pose[:3, 3], quaternion_from_rigid(pose)) is None
    np.testing.assert_allclose(ego.world_from_ego(START), pose, atol=1e-12)


def test_duplicates_and_swapped_messages_change_nothing():
    ego = _driven()
    assert ego.add(START + 3 * SECOND, _on_a_circle(9.0)) == Reason(Code.DUPLICATE_STAMP)
    swapped = ego.add(START + 3 * SECOND - 30_000_000, _on_a_circle(9.0))
    assert swapped == Reason(Code.STAMP_OUT_OF_ORDER, 'by 0.030 s')
    assert ego.resets == 0
    np.testing.assert_array_equal(ego.world_from_ego(START + 3 * SECOND), _on_a_circle(3.0))


def test_a_bag_loop_starts_anew():
    ego = _driven()
    assert ego.add(START, _on_a_circle(0.0)) == Reason(Code.STAMP_OUT_OF_ORDER, 'by 3.00 s')
    for index in range(1, 9):
        ego.add(START + index * 20_000_000, _on_a_circle(index * 0.02))
    assert ego.resets == 1
    assert ego.last_reset[1] == Reason(Code.ODOMETRY_CLOCK_JUMPED_BACK, 'by 3.00 s')
    with pytest.raises(EgoMotionError):
        ego.world_from_ego(START + 2 * SECOND)
    # None of what came while it was not sure is lost.
    np.testing.assert_allclose(ego.world_from_ego(START), _on_a_circle(0.0), atol=0.01)


@pytest.mark.parametrize('seconds', [3600.0, 11.0, -0.4, -100.0])
def test_a_single_pose_of_another_time_is_dropped_by_name(seconds):
    """An hour ahead, or late by more than swapped messages are."""
    ego = _driven()
    strange = START + round((3.02 + seconds) * SECOND)
    codes = (Code.CLOCK_JUMPED_FORWARD, Code.STAMP_OUT_OF_ORDER)
    for index in range(3):
        at = 3.04 + index * 0.02
        assert ego.add(strange + index, _on_a_circle(at)).code is codes[seconds < 0]
        assert ego.add(START + round(at * SECOND), _on_a_circle(at)) is None
    assert ego.resets == 0
    np.testing.assert_allclose(
        ego.world_from_ego(START + round(3.07 * SECOND)), _on_a_circle(3.07), atol=0.02
    )


@pytest.mark.parametrize('seconds', [3600.0, -100.0, -1.5])
@pytest.mark.parametrize('hz', [5, 50])
def test_a_clock_that_jumped_for_good_starts_anew_also_after_a_stray_pose(seconds, hz):
    ego = _driven()
    ego.add(START + 7200 * SECOND, _on_a_circle(3.0))
    ego.add(START - 7200 * SECOND, _on_a_circle(3.0))
    for index in range(1, hz + 1):
        at = 3.0 + index / hz
        ego.add(START + round((at + seconds) * SECOND), _on_a_circle(at))
    assert ego.resets == 1
    now = START + round((3.6 + seconds) * SECOND)
    np.testing.assert_allclose(ego.world_from_ego(now), _on_a_circle(3.6), atol=0.05)


def test_odometry_that_paused_goes_on():
    ego = _driven()
    for index in range(20):
        at = 63.0 + index * 0.02
        ego.add(START + round(at * SECOND), _on_a_circle(at))
    assert ego.resets == 1
    now = START + round(63.2 * SECOND)
    np.testing.assert_allclose(ego.world_from_ego(now), _on_a_circle(63.2), atol=0.02)


def test_a_loop_shorter_than_a_swap_is_found_too():
    ego = EgoMotion()
    for _ in range(3):
        for index in range(10):
            ego.add(START + index * 15_000_000, _on_a_circle(index * 0.015))
    assert ego.resets == 2


def elsewhere(seconds, kind):
    """A pose that does not fit the drive."""
    pose = _on_a_circle(seconds)
    if kind == 'turned':
        pose[:3, :3] = pose[:3, :3] @ rigid_from_yaw(np.pi)[:3, :3]
    elif kind == 'upside down':
        pose[:3, :3] = pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    else:
        pose[0, 3] += 12.0
    return pose


KINDS = ['moved', 'turned', 'upside down']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('count', [1, 2])
def test_a_single_bad_pose_is_dropped_by_name(kind, count):
    ego = _driven()
    for index in range(count):
        at = 3.02 + 0.02 * index
        reason = ego.add(START + round(at * SECOND), elsewhere(at, kind))
        assert reason.code is Code.POSE_JUMPED and reason.detail.startswith('by ')
    at = 3.02 + 0.02 * count
    assert ego.add(START + round(at * SECOND), _on_a_circle(at)) is None
    assert ego.resets == 0 and ego.refused == {Code.POSE_JUMPED: count}
    between = START + round((at - 0.01) * SECOND)
    np.testing.assert_allclose(ego.world_from_ego(between), _on_a_circle(at - 0.01), atol=0.02)


@pytest.mark.parametrize('metres', [1e308, -1e300, 1e9])
def test_poses_at_the_end_of_the_world_are_never_taken(metres):
    ego = _driven()
    for index in range(1, 50):
        pose = _on_a_circle(3.0)
        pose[index % 3, 3] = metres
        assert ego.add(START + 3 * SECOND + index * 20_000_000, pose).code is Code.POSE_NOT_FINITE
    assert ego.resets == 0 and ego.refused == {Code.POSE_NOT_FINITE: 49}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(-15, 60), st.sampled_from(['fine', *KINDS, 'huge'])),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_comes_stamps_stay_in_order_and_answers_are_poses(steps):
    """Messages swapped, sent twice, elsewhere for a moment or for good."""
    ego, at_ms = _driven(seconds=0.5), 500
    for step_ms, kind in steps:
        at_ms += step_ms
        seconds = at_ms / 1000
        pose = _on_a_circle(seconds) if kind == 'fine' else elsewhere(seconds, kind)
        pose[0, 3] += 1e308 if kind == 'huge' else 0.0
        ego.add(START + at_ms * 1_000_000, pose)
        newest = ego.newest_stamp_ns
        assert newest == max(ego._stamps) and ego._stamps == sorted(set(ego._stamps))
        found = ego.world_from_ego(newest)
        assert np.isfinite(found).all() and abs(np.linalg.det(found[:3, :3]) - 1.0) < 1e-6


@pytest.mark.parametrize('kind', ['moved', 'turned', 'upside down'])
@pytest.mark.parametrize('hz', [10, 50, 200])
def test_a_lasting_jump_starts_anew(kind, hz):
    ego = _driven()
    for index in range(1, hz):
        at = 3.0 + index / hz
        ego.add(START + round(at * SECOND), elsewhere(at, kind))
    assert ego.resets == 1 and ego.reset_counts == {Code.POSE_JUMPED: 1}
    assert ego.refused[Code.POSE_JUMPED] <= max(2, 0.16 * hz)
    now = START + round(3.5 * SECOND)
    np.testing.assert_allclose(ego.world_from_ego(now), elsewhere(3.5, kind), atol=0.05)
    with pytest.raises(EgoMotionError):
        ego.world_from_ego(START + 2 * SECOND)


def test_a_small_correction_is_no_jump():
    ego = _driven()
    corrected = _on_a_circle(3.02)
    corrected[1, 3] += 0.2
    ego.add(START + 3 * SECOND + 20_000_000, corrected)
    assert ego.resets == 0


def test_poses_older_than_what_is_kept_are_gone():
    ego = EgoMotion(EgoMotionConfig(keep_s=1.0))
    for index in range(5000):
        ego.add(START + index * 5_000_000, np.eye(4))
    newest = START + 4999 * 5_000_000
    ego.world_from_ego(newest - 990_000_000)
    for seconds in (2.0, 20.0):  # forgotten some at a time
        with pytest.raises(EgoMotionError) as refused:
            ego.world_from_ego(newest - int(seconds * SECOND))
        assert refused.value.reason.code is Code.STAMP_BEFORE_ODOMETRY


def test_waiting_ends_when_the_pose_comes():
    ego = EgoMotion()
    assert not ego.wait_for(START, 0.01)
    timer = threading.Timer(0.05, ego.add, (START, np.eye(4)))
    timer.start()
    assert ego.wait_for(START + 290_000_000, 5.0)
    timer.join()
    assert not ego.wait_for(START + 310_000_000, 0.01)


def test_reading_while_writing():
    ego, failures = _driven(), []

    def read():
        for _ in range(300):
            try:
                ego.world_from_ego(START + 2 * SECOND)
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for index in range(1, 200):
        ego.add(START + 3 * SECOND + index * 10_000_000, _on_a_circle(3 + index / 100))
    for reader in readers:
        reader.join()
    assert not failures

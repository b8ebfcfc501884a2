"""The memory against a slow obvious version, and what makes it forget."""

import numpy as np
import pytest

from mta_perception.config import MemoryConfig
from mta_perception.geometry import invert_rigid, rigid_from_yaw, transform
from mta_perception.pipeline.bev_memory import BevMemory
from mta_perception.reasons import Code, Reason

SECOND = 1_000_000_000
START = 1_532_402_927 * SECOND


class _ObviousMemory:
    """Keeps everything and looks through all of it."""

    def __init__(self, config):
        self.config, self.all = config, []

    def step(self, stamp_ns, pose, bev):
        if self.all:
            gap = (stamp_ns - self.all[-1][0]) / SECOND
            moved = np.linalg.norm(pose[:3, 3] - self.all[-1][1][:3, 3])
            if (
                not 0 < gap <= self.config.max_gap_s
                or moved > self.config.max_speed_m_s * gap + 0.5
            ):
                self.all = []
        ages = [
            ((stamp_ns - stamp) / SECOND, pose_then, bev_then)
            for stamp, pose_then, bev_then in self.all
        ]
        ages = [entry for entry in ages if entry[0] >= self.config.min_age_s]
        self.all.append((stamp_ns, pose, bev))
        return min(ages, key=lambda entry: abs(entry[0] - self.config.step_s), default=None)


def _pose(seconds):
    return rigid_from_yaw(0.2 * seconds, (8.0 * seconds, np.sin(seconds), 0.0))


def _bev(value):
    return np.full((1, 2, 2), value, np.float32)


def _drive(memory, times, pose=_pose):
    """Recall and store at each time [s] -> list of History."""
    histories = []
    for seconds in times:
        stamp_ns = START + round(seconds * SECOND)
        histories.append(memory.recall(stamp_ns, pose(seconds)))
        memory.store(stamp_ns, pose(seconds), _bev(seconds))
    return histories


@pytest.mark.parametrize('rate_hz', [2, 5, 6, 10, 12, 30])
def test_history_is_a_training_step_old(rate_hz):
    times = np.arange(0, 4, 1 / rate_hz)
    memory = BevMemory(MemoryConfig(step_s=0.5))
    for seconds, history in zip(times, _drive(memory, times)):
        if seconds < 0.25:
            assert not history.valid and history.bev is None
        if seconds >= 0.5:
            assert abs(history.age_s - 0.5) <= 0.5 / rate_hz + 1e-6
            assert history.bev[0, 0, 0] == pytest.approx(seconds - history.age_s, abs=1e-5)
    assert memory.state.length <= 0.5 * rate_hz + 2


@pytest.mark.parametrize('seed', range(20))
def test_equals_the_obvious_version(seed):
    """Random rates, pauses, loops and pose jumps."""
    rng = np.random.default_rng(seed)
    config = MemoryConfig(step_s=0.5, max_gap_s=1.0, min_age_s=0.2)
    memory, obvious = BevMemory(config), _ObviousMemory(config)
    stamp_ns, offset = START, 0.0
    for index in range(200):
        stamp_ns += int((rng.choice([0.03, 0.08, 0.1, 0.3, 0.6]) + rng.uniform(0, 0.01)) * SECOND)
        event = rng.random()
        if event < 0.02:
            stamp_ns += 2 * SECOND
        elif event < 0.04:
            stamp_ns -= int(rng.uniform(0.5, 3) * SECOND)
        elif event < 0.06:
            offset += 100.0
        seconds = (stamp_ns - START) / SECOND
        pose = _pose(seconds)
        pose[0, 3] += offset
        expected = obvious.step(stamp_ns, pose, index)
        history = memory.recall(stamp_ns, pose)
        assert history.valid == (expected is not None)
        if expected is not None:
            assert history.bev[0, 0, 0] == expected[2]
            assert history.age_s == pytest.approx(expected[0])
            np.testing.assert_allclose(
                history.ego_prev_from_ego_now, invert_rigid(expected[1]) @ pose, atol=1e-9
            )
        memory.store(stamp_ns, pose, _bev(index))


def test_a_standing_object_stays_where_it_is():
    memory = BevMemory(MemoryConfig())
    *_, history = _drive(memory, [0.0, 0.5])
    object_world = np.array([20.0, 5.0, 0.0])
    object_now = transform(invert_rigid(_pose(0.5)), object_world)
    object_then = transform(invert_rigid(_pose(0.0)), object_world)
    np.testing.assert_allclose(transform(history.ego_prev_from_ego_now, object_now), object_then)


@pytest.mark.parametrize(
    'times, reason',
    [
        (
            [0.0, 0.5, 1.0, 2.5],
            Reason(Code.GAP_BETWEEN_FRAMES, '1.50 s, more than history_max_gap_s=1.2'),
        ),
        ([0.0, 0.5, 1.0, 0.2], Reason(Code.CLOCK_JUMPED_BACK, 'by 0.80 s')),
        ([0.0, 0.5, 1.0, 1.0], Reason(Code.CLOCK_JUMPED_BACK, 'by 0.00 s')),
    ],
)
def test_what_belongs_to_another_drive_is_forgotten(times, reason):
    memory = BevMemory(MemoryConfig())
    assert not _drive(memory, times)[-1].valid
    state = memory.state
    assert (state.length, state.resets, state.valid) == (1, 1, False)
    assert state.last_reason == reason
    assert state.last_reset_ns == START + round(times[-1] * SECOND)


def test_a_pose_jump_is_forgotten():
    memory = BevMemory(MemoryConfig())
    _drive(memory, [0.0, 0.5])
    history = memory.recall(START + SECOND, rigid_from_yaw(0.0, (500.0, 0.0, 0.0)))
    assert not history.valid and memory.state.last_reason.code is Code.POSE_JUMPED
    assert memory.state.last_reason.detail.startswith('by 49')


def test_reset_counts_only_where_something_was_forgotten():
    memory = BevMemory(MemoryConfig())
    asked = Reason(Code.RESET_REQUESTED)
    memory.reset(asked)
    assert memory.state.resets == 0
    _drive(memory, [0.0, 0.5])
    memory.reset(asked, START)
    assert (memory.state.resets, memory.state.last_reason, memory.state.length) == (
        1,
        asked,
        0,
    )
    np.testing.assert_array_equal(memory.recall(START, np.eye(4)).ego_prev_from_ego_now, np.eye(4))


def test_storing_without_recalling_first_is_refused():
    memory = BevMemory(MemoryConfig())
    _drive(memory, [0.0, 0.5])
    with pytest.raises(ValueError, match='call recall'):
        memory.store(START, np.eye(4), _bev(0))


@pytest.mark.parametrize(
    'values, message',
    [
        ({'step_s': 0.0}, 'step_s=0.0'),
        ({'max_gap_s': 0.3}, 'max_gap_s=0.3 is below step_s'),
        ({'min_age_s': 0.6}, 'min_age_s'),
        ({'max_speed_m_s': float('nan')}, 'max_speed_m_s=nan'),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**values)

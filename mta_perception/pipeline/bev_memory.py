"""The BEV the network saw half a second ago, and where the car was then.

The network was trained with frames `step_s` apart, the node runs faster: every frame's BEV is
remembered for a while, and each frame gets the one whose age is nearest to `step_s`.  The memory
starts absent, never random.
"""

from typing import NamedTuple, Optional

import numpy as np

from mta_perception.config import MemoryConfig
from mta_perception.detections import Floats
from mta_perception.geometry import Array, invert_rigid
from mta_perception.pipeline.pose_jump import pose_jump
from mta_perception.reasons import Code, Reason


class History(NamedTuple):
    """What the detector gets of the past."""

    bev: Optional[Floats]  # (C, Y, X) in the ego frame of then; None: absent
    valid: bool
    ego_prev_from_ego_now: Array  # (4, 4); identity where absent
    age_s: float  # 0.0 where absent


class MemoryState(NamedTuple):
    """For ~/history and diagnostics."""

    length: int  # remembered frames
    age_s: float  # age of the frame recalled last, 0.0 where there was none
    valid: bool  # the last recall found one
    resets: int
    last_reset_ns: int  # stamp of the frame at which the memory was last dropped, 0 = never
    last_reason: Optional[Reason]  # of that reset


class _Remembered(NamedTuple):
    stamp_ns: int
    world_from_ego: Array
    bev: Floats


ABSENT = History(None, False, np.eye(4), 0.0)


class BevMemory:
    """Recall, then store, once per frame.  One thread at a time."""

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config
        self._frames: list[_Remembered] = []  # oldest first
        self._recalled = ABSENT
        self._resets, self._last_reset_ns = 0, 0
        self._last_reason: Reason | None = None

    @property
    def state(self) -> MemoryState:
        """As it is now."""
        return MemoryState(
            len(self._frames),
            self._recalled.age_s,
            self._recalled.valid,
            self._resets,
            self._last_reset_ns,
            self._last_reason,
        )

    def recall(self, stamp_ns: int, world_from_ego: Array) -> History:
        """What is remembered for the frame at `stamp_ns` [ns] and pose (4, 4).

        Drops the memory first where the past does not belong to this frame: clock jump, gap, pose
        jump.
        """
        reason = self._why_not_ours(stamp_ns, world_from_ego)
        if reason is not None:
            self.reset(reason, stamp_ns)
        self._recalled = self._nearest(stamp_ns, world_from_ego)
        return self._recalled

    def store(self, stamp_ns: int, world_from_ego: Array, bev: Floats) -> None:
        """Remember this frame's BEV (C, Y, X); `bev` is kept, not copied."""
        if self._frames and stamp_ns <= self._frames[-1].stamp_ns:
            raise ValueError(
                f'stamp {stamp_ns} ns is not after the remembered '
                f'{self._frames[-1].stamp_ns} ns: call recall for this frame first.'
            )
        self._frames.append(_Remembered(stamp_ns, np.array(world_from_ego), bev))
        # Of the frames that are a step old or older only the newest can ever be nearest again.
        old = sum(stamp_ns - frame.stamp_ns >= self.config.step_s * 1e9 for frame in self._frames)
        del self._frames[: max(0, old - 1)]

    def reset(self, reason: Reason, stamp_ns: int = 0) -> None:
        """Forget everything; a reset of an empty memory is not counted."""
        self._recalled = ABSENT
        if not self._frames:
            return
        self._frames.clear()
        self._resets += 1
        self._last_reset_ns, self._last_reason = stamp_ns, reason

    def _why_not_ours(self, stamp_ns: int, world_from_ego: Array) -> Reason | None:
        """Why what is remembered is of another drive, or None."""
        if not self._frames:
            return None
        newest = self._frames[-1]
        seconds = (stamp_ns - newest.stamp_ns) / 1e9
        if seconds <= 0:
            return Reason(Code.CLOCK_JUMPED_BACK, f'by {abs(seconds):.2f} s')
        if seconds > self.config.max_gap_s:
            return Reason(
                Code.GAP_BETWEEN_FRAMES,
                f'{seconds:.2f} s, more than history_max_gap_s={self.config.max_gap_s:g}',
            )
        jump = pose_jump(
            newest.world_from_ego,
            world_from_ego,
            seconds,
            self.config.max_speed_m_s,
            self.config.max_turn_rad_s,
        )
        return Reason(Code.POSE_JUMPED, jump) if jump else None

    def _nearest(self, stamp_ns: int, world_from_ego: Array) -> History:
        step_ns = self.config.step_s * 1e9
        # A frame a few milliseconds old shows no motion, and the network would take it for
        # standstill over a whole step: absent, which it was trained with, is better.
        old_enough = [
            frame
            for frame in self._frames
            if stamp_ns - frame.stamp_ns >= self.config.min_age_s * 1e9
        ]
        if not old_enough:
            return ABSENT
        frame = min(old_enough, key=lambda one: abs(stamp_ns - one.stamp_ns - step_ns))
        return History(
            frame.bev,
            True,
            invert_rigid(frame.world_from_ego) @ world_from_ego,
            (stamp_ns - frame.stamp_ns) / 1e9,
        )

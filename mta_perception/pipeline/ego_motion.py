"""Where the car was at any stamp, from odometry that comes in its own rhythm.

A pose is world_from_ego, (4, 4); `world` is whatever frame the odometry keeps for one drive.
Between two poses it is interpolated, shortly outside them extrapolated, and beyond that refused:
an image placed by a guess would be remembered by the network as a fact.
"""

from bisect import bisect_right
from collections import Counter
import threading
import time

import numpy as np
from numpy.typing import ArrayLike

from mta_perception.config import EgoMotionConfig
from mta_perception.geometry import Array, interpolate_rigid, rigid_from_quaternion
from mta_perception.pipeline.clock_words import clock_words
from mta_perception.pipeline.pose_jump import pose_jump
from mta_perception.reasons import Code, Reason, Refused

_TWIST_BASE_NS = 50_000_000  # poses closer than this give a noisy twist
_SWAP_NS = 200_000_000  # a step back below this is two messages swapped, above it a jump
_FAR_NS = 10_000_000_000  # a stamp this far ahead is another clock, or nonsense
_MOST_SWAPS = 5  # ... unless it goes on
_MOST_POSES = 10_000
_MOST_M = 1e8  # farther from its origin is no odometry; UTM's are below 1e7


class EgoMotionError(Refused):
    """No pose for a stamp: NO_ODOMETRY, ODOMETRY_TOO_OLD, STAMP_BEFORE_ODOMETRY or
    GAP_IN_ODOMETRY."""


class EgoMotion:
    """Poses in, pose at a stamp out.  Thread-safe; memory is bounded.

    `resets` grows whenever the past stopped being comparable with the present (clock jump, pose
    jump), and `last_reset` is then (stamp_ns, Reason).
    """

    def __init__(self, config: EgoMotionConfig | None = None) -> None:
        self.config = config or EgoMotionConfig()
        self.refused: Counter[Code] = Counter()  # poses
        self.reset_counts: Counter[Code] = Counter()  # resets
        self.resets = 0
        self.last_reset: tuple[int, Reason] | None = None
        self._changed = threading.Condition()
        self._stamps: list[int] = []  # ascending [ns]
        self._poses: list[Array] = []  # world_from_ego, row for row
        self._swaps = 0
        self._others: list[tuple[int, Array]] = []  # poses that fit each other, not those known
        self._first_jump = Reason(Code.POSE_JUMPED)  # from those known to these

    def add_quaternion(
        self,
        stamp_ns: int,
        translation: ArrayLike,
        quaternion_xyzw: ArrayLike,
        child_from_ego: Array | None = None,
    ) -> Reason | None:
        """As `add`, from a message's translation [m] and quaternion; refuses one not of length 1.

        child_from_ego  (4, 4) where the message is of another frame of the car
        """
        quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
        length = np.linalg.norm(quaternion)
        if not np.isfinite(quaternion).all() or not np.isfinite(translation).all():
            return self.refuse(Code.POSE_NOT_FINITE)
        if abs(length - 1.0) > 0.01:
            return self.refuse(Code.QUATERNION_LENGTH, f'its length is {length:.3f}')
        pose = rigid_from_quaternion(quaternion, translation)
        return self.add(stamp_ns, pose if child_from_ego is None else pose @ child_from_ego)

    def add(self, stamp_ns: int, world_from_ego: ArrayLike) -> Reason | None:
        """Take a pose (4, 4) at a stamp.  Returns None, or why it was refused."""
        pose, stamp_ns = np.array(world_from_ego, dtype=np.float64), int(stamp_ns)
        fault = _fault(pose)
        if fault is not None:
            return self.refuse(fault)
        with self._changed:
            back_ns = self._stamps[-1] - stamp_ns if self._stamps else -1
            if back_ns == 0:
                return self.refuse(Code.DUPLICATE_STAMP)
            self._swaps = self._swaps + 1 if back_ns > 0 else 0
            if 0 < back_ns <= _SWAP_NS and self._swaps <= _MOST_SWAPS:
                return self.refuse(Code.STAMP_OUT_OF_ORDER, f'by {back_ns / 1e9:.3f} s')
            jump = self._jump(stamp_ns, pose)
            if jump is not None and not self._lasts(stamp_ns, pose, jump):
                late = jump.code is Code.ODOMETRY_CLOCK_JUMPED_BACK
                return self.refuse(Code.STAMP_OUT_OF_ORDER if late else jump.code, jump.detail)
            if jump is not None:
                others, jump = self._others, self._first_jump if self._others else jump
                self._reset(stamp_ns, jump)
                for other_ns, other in others[:-1]:
                    self._stamps.append(other_ns)
                    self._poses.append(other)
            self._others = []
            self._stamps.append(stamp_ns)
            self._poses.append(pose)
            self._forget(stamp_ns)
            self._changed.notify_all()
        return None

    def _lasts(self, stamp_ns: int, pose: Array, jump: Reason) -> bool:
        """Whether poses that do not fit those known agree with each other for long enough: one
        alone is a bad message or a late one, more are another drive."""
        ahead_ns = stamp_ns - self._others[-1][0] if self._others else _FAR_NS
        if -_SWAP_NS <= ahead_ns <= 0 and self._swaps <= _MOST_SWAPS:
            return False  # sent twice, or swapped with the one before
        if 0 < ahead_ns < _FAR_NS and not self._apart(*self._others[-1], stamp_ns, pose):
            self._others.append((stamp_ns, pose))
        else:
            self._others, self._first_jump = [(stamp_ns, pose)], jump
        if self._swaps > _MOST_SWAPS:  # a bag may be shorter than the time a jump has to last
            return True
        first_ns = self._others[0][0]
        return len(self._others) > 1 and stamp_ns - first_ns >= self.config.lasting_s * 1e9

    def _apart(self, before_ns: int, before: Array, stamp_ns: int, pose: Array) -> str:
        seconds = max(0.0, (stamp_ns - before_ns) / 1e9)
        speed, turn = self.config.max_speed_m_s, self.config.max_turn_rad_s
        return pose_jump(before, pose, seconds, speed, turn)

    def world_from_ego(self, stamp_ns: int) -> Array:
        """(4, 4) at the stamp [ns].  Raises EgoMotionError."""
        stamp_ns = int(stamp_ns)
        with self._changed:
            stamps = self._stamps
            if not stamps:
                raise EgoMotionError(
                    Code.NO_ODOMETRY,
                    'no pose has come yet. Check the odometry '
                    'topic, or the odom_frame to base_frame transform.',
                )
            place = bisect_right(stamps, stamp_ns)
            if place and stamps[place - 1] == stamp_ns:
                return np.array(self._poses[place - 1])
            limit_ns = self.config.max_extrapolation_s * 1e9
            if place == len(stamps):
                return self._extrapolate(
                    stamp_ns, stamp_ns - stamps[-1], limit_ns, Code.ODOMETRY_TOO_OLD, -1
                )
            if place == 0:
                return self._extrapolate(
                    stamp_ns, stamps[0] - stamp_ns, limit_ns, Code.STAMP_BEFORE_ODOMETRY, 0
                )
            before, after = stamps[place - 1], stamps[place]
            if after - before > self.config.max_gap_s * 1e9:
                raise EgoMotionError(
                    Code.GAP_IN_ODOMETRY,
                    f'no pose for {(after - before) / 1e9:.2f} s around the '
                    f'stamp, expected one every {self.config.max_gap_s:g} s at least.',
                )
            fraction = (stamp_ns - before) / (after - before)
            return interpolate_rigid(self._poses[place - 1], self._poses[place], fraction)

    def wait_for(self, stamp_ns: int, timeout_s: float) -> bool:
        """Block until the stamp is not ahead of what can be answered; False when it still is.

        Images and odometry race each other: without a short wait, odometry published just after
        the images would always be one message late.
        """
        reach_ns = int(self.config.max_extrapolation_s * 1e9)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._stamps or self._stamps[-1] + reach_ns < stamp_ns:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    @property
    def newest_stamp_ns(self) -> int | None:
        """Stamp of the newest pose, or None."""
        with self._changed:
            return self._stamps[-1] if self._stamps else None

    @property
    def newest_place(self) -> Array | None:
        """(3,) of the car in the odometry's world, by the newest pose; None without one."""
        with self._changed:
            return np.array(self._poses[-1][:3, 3]) if self._poses else None

    def reset(self, reason: Reason) -> None:
        """Forget all poses."""
        with self._changed:
            self._reset(self._stamps[-1] if self._stamps else 0, reason)

    def refuse(self, code: Code, detail: str = '') -> Reason:
        """Count a pose that cannot be used."""
        with self._changed:
            self.refused[code] += 1
        return Reason(code, detail)

    def _reset(self, stamp_ns: int, reason: Reason) -> None:
        self._stamps.clear()
        self._poses.clear()
        self._swaps = 0
        self._others = []
        self.resets += 1
        self.reset_counts[reason.code] += 1
        self.last_reset = stamp_ns, reason

    def _jump(self, stamp_ns: int, pose: Array) -> Reason | None:
        """Why the poses known are of another drive than this one, or None."""
        if not self._stamps:
            return None
        seconds = (stamp_ns - self._stamps[-1]) / 1e9
        if seconds < 0:
            return Reason(Code.ODOMETRY_CLOCK_JUMPED_BACK, f'by {-seconds:.2f} s')
        if seconds * 1e9 > _FAR_NS:
            return Reason(Code.CLOCK_JUMPED_FORWARD, f'by {seconds:.2f} s')
        apart = self._apart(self._stamps[-1], self._poses[-1], stamp_ns, pose)
        if not apart and self._others and self._is_nearer_to_others(stamp_ns, pose):
            # With the time that passes a jump becomes a way that a car could have driven.
            apart = 'like the poses before'
        return Reason(Code.POSE_JUMPED, apart) if apart else None

    def _is_nearer_to_others(self, stamp_ns: int, pose: Array) -> bool:
        other_ns, other = self._others[-1]
        if self._first_jump.code is not Code.POSE_JUMPED:
            return False  # of another time, not of another place
        if self._apart(other_ns, other, stamp_ns, pose):
            return False
        to_other, to_known = (
            np.linalg.norm(pose[:3, 3] - one[:3, 3]) for one in (other, self._poses[-1])
        )
        return bool(to_other < to_known)

    def _forget(self, stamp_ns: int) -> None:
        # In chunks: deleting from the front of a list each time would move everything each time.
        oldest = bisect_right(self._stamps, stamp_ns - int(self.config.keep_s * 1e9))
        oldest = max(oldest, len(self._stamps) - _MOST_POSES)
        if oldest > 64:
            del self._stamps[:oldest], self._poses[:oldest]

    def _extrapolate(
        self, stamp_ns: int, beyond_ns: int, limit_ns: float, code: Code, end: int
    ) -> Array:
        """Pose outside the known stamps, `end` 0 or -1 being the nearest known one."""
        if beyond_ns > limit_ns:
            clocks = clock_words(stamp_ns, self._stamps[-1]) or 'check the rate of the odometry'
            raise EgoMotionError(
                code,
                f'the nearest pose is {beyond_ns / 1e9:.3f} s away, at most '
                f'{limit_ns / 1e9:g} s are extrapolated. '
                f'{clocks[0].upper()}{clocks[1:]}.',
            )
        stamps, near = self._stamps, self._stamps[end]
        others = range(len(stamps) - 2, -1, -1) if end else range(1, len(stamps))
        other = next((i for i in others if abs(stamps[i] - near) >= _TWIST_BASE_NS), None)
        if other is None or abs(stamps[other] - near) > self.config.max_gap_s * 1e9:
            return np.array(self._poses[end])  # no twist known: the car is taken as standing
        fraction = (stamp_ns - stamps[other]) / (near - stamps[other])
        return interpolate_rigid(self._poses[other], self._poses[end], fraction)


def _fault(pose: Array) -> Code | None:
    """Why `pose` is no rigid transform, or None."""
    if pose.shape != (4, 4) or not (np.abs(pose) < _MOST_M).all():  # NaN too
        return Code.POSE_NOT_FINITE
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        return Code.POSE_NOT_RIGID
    return None

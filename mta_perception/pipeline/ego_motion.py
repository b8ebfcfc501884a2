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

from mta_perception.config import EgoMotionConfig
from mta_perception.geometry import interpolate_rigid, rigid_from_quaternion
from mta_perception.pipeline.pose_jump import jump_m

_TWIST_BASE_NS = 50_000_000  # poses closer than this give a noisy twist
_SWAP_NS = 200_000_000  # a step back below this is two messages swapped, above it a jump
_MOST_SWAPS = 5  # ... unless it goes on
_MOST_POSES = 10_000


class EgoMotionError(ValueError):
    """No pose for a stamp; `reason` is 'no odometry', 'odometry too old', 'stamp before odometry'
    or 'gap in odometry'."""

    def __init__(self, reason, detail):
        super().__init__(f'{reason}: {detail}')
        self.reason = reason


class EgoMotion:
    """Poses in, pose at a stamp out.  Thread-safe; memory is bounded.

    `counts` has one entry a reason; `resets` grows whenever the past stopped being comparable with
    the present (clock jump, pose jump), and `last_reset` is then (stamp_ns, reason).
    """

    def __init__(self, config=None):
        self.config = config or EgoMotionConfig()
        self.counts = Counter()
        self.resets = 0
        self.last_reset = None
        self._changed = threading.Condition()
        self._stamps = []  # ascending [ns]
        self._poses = []  # world_from_ego, row for row
        self._swaps = 0

    def add_quaternion(self, stamp_ns, translation, quaternion_xyzw):
        """As `add`, from a message's translation [m] and quaternion; refuses one not of length
        1."""
        quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
        length = np.linalg.norm(quaternion)
        if np.isfinite(quaternion).all() and abs(length - 1.0) > 0.01:
            return self._refuse('quaternion is not of length 1')
        if not np.isfinite(quaternion).all() or not np.isfinite(translation).all():
            return self._refuse('pose is not finite')
        return self.add(stamp_ns, rigid_from_quaternion(quaternion, translation))

    def add(self, stamp_ns, world_from_ego):
        """Take a pose (4, 4) at a stamp.  Returns None, or the reason (str) why it was refused."""
        pose = np.array(world_from_ego, dtype=np.float64)
        reason = _invalid(pose)
        if reason:
            return self._refuse(reason)
        stamp_ns = int(stamp_ns)
        with self._changed:
            reason = self._out_of_order(stamp_ns)
            if reason:
                self.counts[reason] += 1
                return reason
            self._check_jump(stamp_ns, pose)
            self._stamps.append(stamp_ns)
            self._poses.append(pose)
            self.counts['poses'] += 1
            self._forget(stamp_ns)
            self._changed.notify_all()
        return None

    def world_from_ego(self, stamp_ns):
        """(4, 4) at the stamp [ns].  Raises EgoMotionError."""
        stamp_ns = int(stamp_ns)
        with self._changed:
            stamps = self._stamps
            if not stamps:
                raise EgoMotionError(
                    'no odometry',
                    'no pose has come yet. Check the odometry '
                    'topic, or the odom_frame to base_frame transform.',
                )
            place = bisect_right(stamps, stamp_ns)
            if place and stamps[place - 1] == stamp_ns:
                return self._poses[place - 1].copy()
            limit_ns = self.config.max_extrapolation_s * 1e9
            if place == len(stamps):
                return self._extrapolate(
                    stamp_ns, stamp_ns - stamps[-1], limit_ns, 'odometry too old', -1
                )
            if place == 0:
                return self._extrapolate(
                    stamp_ns, stamps[0] - stamp_ns, limit_ns, 'stamp before odometry', 0
                )
            before, after = stamps[place - 1], stamps[place]
            if after - before > self.config.max_gap_s * 1e9:
                raise EgoMotionError(
                    'gap in odometry',
                    f'no pose for {(after - before) / 1e9:.2f} s around the '
                    f'stamp, expected one every {self.config.max_gap_s:g} s at least.',
                )
            fraction = (stamp_ns - before) / (after - before)
            return interpolate_rigid(self._poses[place - 1], self._poses[place], fraction)

    def wait_for(self, stamp_ns, timeout_s):
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
    def newest_stamp_ns(self):
        """Stamp of the newest pose, or None."""
        with self._changed:
            return self._stamps[-1] if self._stamps else None

    def reset(self, reason):
        """Forget all poses."""
        with self._changed:
            self._reset(self._stamps[-1] if self._stamps else 0, reason)

    def _refuse(self, reason):
        with self._changed:
            self.counts[reason] += 1
        return reason

    def _reset(self, stamp_ns, reason):
        self._stamps.clear()
        self._poses.clear()
        self._swaps = 0
        self.resets += 1
        self.last_reset = stamp_ns, reason

    def _out_of_order(self, stamp_ns):
        """Reason to refuse a stamp that is not newer than the newest; a jump back clears
        instead."""
        if not self._stamps or stamp_ns > self._stamps[-1]:
            self._swaps = 0
            return None
        back_ns = self._stamps[-1] - stamp_ns
        if back_ns == 0:
            return 'duplicate stamp'
        self._swaps += 1
        if back_ns <= _SWAP_NS and self._swaps <= _MOST_SWAPS:
            return 'stamp out of order'
        self.counts['clock jump'] += 1
        self._reset(stamp_ns, f'odometry clock jumped back by {back_ns / 1e9:.2f} s')
        return None

    def _check_jump(self, stamp_ns, pose):
        if not self._stamps:
            return
        seconds = (stamp_ns - self._stamps[-1]) / 1e9
        metres = jump_m(self._poses[-1], pose, seconds, self.config.max_speed_m_s)
        if metres is not None:
            self.counts['pose jump'] += 1
            self._reset(stamp_ns, f'pose jumped by {metres:.1f} m within {seconds:.3f} s')

    def _forget(self, stamp_ns):
        # In chunks: deleting from the front of a list each time would move everything each time.
        oldest = bisect_right(self._stamps, stamp_ns - int(self.config.keep_s * 1e9))
        oldest = max(oldest, len(self._stamps) - _MOST_POSES)
        if oldest > 64:
            del self._stamps[:oldest], self._poses[:oldest]

    def _extrapolate(self, stamp_ns, beyond_ns, limit_ns, reason, end):
        """Pose outside the known stamps, `end` 0 or -1 being the nearest known one."""
        if beyond_ns > limit_ns:
            raise EgoMotionError(
                reason,
                f'the nearest pose is {beyond_ns / 1e9:.3f} s away, at most '
                f'{limit_ns / 1e9:g} s are extrapolated. Check rate and clock of the odometry.',
            )
        stamps, near = self._stamps, self._stamps[end]
        others = range(len(stamps) - 2, -1, -1) if end else range(1, len(stamps))
        other = next((i for i in others if abs(stamps[i] - near) >= _TWIST_BASE_NS), None)
        if other is None or abs(stamps[other] - near) > self.config.max_gap_s * 1e9:
            return self._poses[end].copy()  # no twist known: the car is taken as standing
        fraction = (stamp_ns - stamps[other]) / (near - stamps[other])
        return interpolate_rigid(self._poses[other], self._poses[end], fraction)


def _invalid(pose):
    """Reason why `pose` is no rigid transform, or None."""
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        return 'pose is not finite'
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        return 'pose is not a rotation and a translation'
    return None

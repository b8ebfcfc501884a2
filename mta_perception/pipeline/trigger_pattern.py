"""When in a round each camera fires, learnt from its image stamps.

Cameras of a rig fire in a fixed pattern: all at once, or one after the other as a lidar sweeps
past them.  The pattern says which images belong together even where the rounds are no regular
clock (nuScenes' cameras fire every 50 or 100 ms).  Every camera has an offset to a *leader*; a
stamp less its camera's offset is the round time, equal for all images of a round.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_RATE_RATIO = 1.5  # a camera this much slower or faster than the others sets no pace
_HYSTERESIS = 0.8  # another leader must make rounds this much shorter
_TOLERANCE = 0.4  # of the shorter pauses between rounds: jitter beyond it tears rounds apart
_SAME_NS = 2_000_000  # scatter that differs by less is the same

Stamps = NDArray[np.int64]  # of one camera's images, ascending [ns]


class TriggerPattern(NamedTuple):
    """All times in nanoseconds."""

    leader: str
    offsets_ns: dict[str, float]  # camera -> stamp minus that of the leader in the same round
    periods_ns: dict[str, float]  # camera -> median time between its images
    pace_ns: float  # median time between rounds
    tolerance_ns: float  # images this close in round time are of one round

    @property
    def spread_ns(self) -> float:
        """From the first to the last camera of a round that fires in every round."""
        steady = [
            offset
            for camera, offset in self.offsets_ns.items()
            if self.sets_pace(camera) and not self.is_slow(camera)
        ]
        return max(steady) - min(steady) if steady else 0.0

    def longer_than(self, seconds: float) -> str:
        """What is to be said where a round takes longer than a set may: '' where it does not."""
        if self.spread_ns <= seconds * 1e9:
            return ''
        return (
            f'; the cameras of this rig fire within {self.spread_ns / 1e9:.3f} s of each '
            f'{self.pace_ns / 1e9:.3f} s: raise it'
        )

    def round_ns(self, camera: str, stamp_ns: float) -> float:
        """Round time of an image."""
        return stamp_ns - self.offsets_ns[camera]

    def sets_pace(self, camera: str) -> bool:
        """False for cameras much faster than the rounds: their images open no round."""
        return self.periods_ns[camera] * _RATE_RATIO >= self.pace_ns

    def is_slow(self, camera: str) -> bool:
        """True for cameras that are not part of every round."""
        return self.periods_ns[camera] > _RATE_RATIO * self.pace_ns


def learn_pattern(
    stamps_ns: Mapping[str, Sequence[int]], previous: TriggerPattern | None = None
) -> TriggerPattern | None:
    """From the ascending stamps of each camera; None where they do not show a pattern yet.

    What the stamps do not show is as in `previous`.  Of all cameras that one leads to which the
    others lie nearest and steadiest: the rounds are then split at the longest pauses.
    """
    stamps = {camera: np.array(values) for camera, values in stamps_ns.items() if len(values)}
    periods = {
        camera: float(np.median(np.diff(values)))
        for camera, values in stamps.items()
        if len(values) > 1
    }
    if not periods:
        return previous
    # The upper median: three cameras at 30 Hz and three at 10 Hz make whole sets at 10 Hz.
    pace = sorted(periods.values())[len(periods) // 2]
    core = [
        camera
        for camera, period in periods.items()
        if pace / _RATE_RATIO <= period <= pace * _RATE_RATIO
    ]
    best: tuple[float, str, dict[str, float]] | None = None  # cost, leader, offsets
    for leader in core:
        offsets, scatter = _offsets(stamps, leader, pace, previous)
        if not set(core) <= set(offsets):
            continue
        among_core = [offsets[camera] for camera in core]
        cost = max(among_core) - min(among_core) + 2 * max(scatter.get(one, 0.0) for one in core)
        if previous is not None and leader == previous.leader:
            cost *= _HYSTERESIS
        if best is None or cost < best[0]:
            best = cost, leader, offsets
    if best is None:
        return previous
    _, leader, offsets = best
    middle = float(np.median([offsets[camera] for camera in core]))
    for camera in stamps:
        if camera not in offsets or periods.get(camera, pace) * _RATE_RATIO < pace:
            offsets[camera] = middle  # too fast to have a place in the round
    known = {**(previous.periods_ns if previous else {}), **periods}
    gaps = np.concatenate([np.diff(stamps[camera]) for camera in core])
    # Below the median, because rounds may be of two lengths; not the least, which is jitter.
    return TriggerPattern(
        leader,
        offsets,
        {camera: known.get(camera, pace) for camera in offsets},
        pace,
        _TOLERANCE * float(np.percentile(gaps, 25)),
    )


def _offsets(
    stamps: Mapping[str, Stamps], leader: str, pace: float, previous: TriggerPattern | None
) -> tuple[dict[str, float], dict[str, float]]:
    """camera -> offset to the leader, camera -> mean deviation from it."""
    offsets: dict[str, float] = {}
    scatter: dict[str, float] = {}
    if previous is not None and leader in previous.offsets_ns:
        offsets = {
            camera: offset - previous.offsets_ns[leader]
            for camera, offset in previous.offsets_ns.items()
        }
    for camera, values in stamps.items():
        found = _offset(values, stamps[leader], pace)
        if found is not None:
            offsets[camera], scatter[camera] = found
    return offsets, scatter


def _offset(stamps: Stamps, leader_stamps: Stamps, pace: float) -> tuple[float, float] | None:
    """(median, mean deviation) of the time from the leader's image in the same round, or None.

    The leader's image before is of the same round where the leader is the first to fire; the
    nearest one is where both fire together.  Which of the two holds is what scatters less.
    """
    before = np.searchsorted(leader_stamps, stamps, side='right') - 1
    # After the leader's last image its next one, still to come, may be the right one.
    closed = (before >= 0) & (before < len(leader_stamps) - 1)
    nearest = np.abs(stamps[:, None] - leader_stamps[None]).argmin(axis=1)
    near = stamps - leader_stamps[nearest]
    between = (stamps >= leader_stamps[0]) & (stamps <= leader_stamps[-1])
    best: tuple[float, float] | None = None
    for samples in (
        near[between | (np.abs(near) <= pace / 2)],
        (stamps - leader_stamps[before])[closed],
    ):
        if not len(samples):
            continue
        median = float(np.median(samples))
        deviation = float(np.abs(samples - median).mean())
        if best is None or deviation < best[1] - _SAME_NS:
            best = median, deviation
    return best

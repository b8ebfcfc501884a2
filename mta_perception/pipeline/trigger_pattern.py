"""When in a round each camera fires, learnt from its image stamps.

Cameras of a rig fire in a fixed pattern: all at once, or one after the other as a lidar sweeps
past them.  The pattern says which images belong together even where the rounds are no regular
clock (nuScenes' cameras fire every 50 or 100 ms).  Every camera has an offset to a *leader*; a
stamp less its camera's offset is the round time, equal for all images of a round.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median, quantiles
from typing import NamedTuple

_RATE_RATIO = 1.5  # a camera this much slower or faster than the others sets no pace
_HYSTERESIS = 0.8  # another leader must make rounds this much shorter
_TOLERANCE = 0.4  # of the shorter pauses between rounds: jitter beyond it tears rounds apart
_SAME_NS = 2_000_000  # scatter that differs by less is the same

Stamps = list[int]  # of one camera's images, ascending [ns]; eight are too few for numpy's calls


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
    stamps = {camera: list(values) for camera, values in stamps_ns.items() if len(values)}
    pauses = {
        camera: [later - earlier for earlier, later in pairwise(values)]
        for camera, values in stamps.items()
        if len(values) > 1
    }
    periods = {camera: float(median(values)) for camera, values in pauses.items()}
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
    middle = float(median(offsets[camera] for camera in core))
    for camera in stamps:
        if camera not in offsets or periods.get(camera, pace) * _RATE_RATIO < pace:
            offsets[camera] = middle  # too fast to have a place in the round
    known = {**(previous.periods_ns if previous else {}), **periods}
    gaps = [pause for camera in core for pause in pauses[camera]]
    # Below the median, because rounds may be of two lengths; not the least, which is jitter.
    return TriggerPattern(
        leader,
        offsets,
        {camera: known.get(camera, pace) for camera in offsets},
        pace,
        _TOLERANCE * _first_quartile(gaps),
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
    near: list[int] = []
    after: list[int] = []  # the leader's image before
    for stamp in stamps:
        index = bisect_right(leader_stamps, stamp) - 1
        # After the leader's last image its next one, still to come, may be the right one.
        if 0 <= index < len(leader_stamps) - 1:
            after.append(stamp - leader_stamps[index])
        candidates = leader_stamps[max(index, 0) : index + 2]
        nearest = min((stamp - one for one in candidates), key=abs)
        between = leader_stamps[0] <= stamp <= leader_stamps[-1]
        if between or abs(nearest) <= pace / 2:
            near.append(nearest)
    best: tuple[float, float] | None = None
    for samples in (near, after):
        if not samples:
            continue
        middle = float(median(samples))
        deviation = sum(abs(one - middle) for one in samples) / len(samples)
        if best is None or deviation < best[1] - _SAME_NS:
            best = middle, deviation
    return best


def _first_quartile(values: Sequence[int]) -> float:
    """Interpolated between neighbours."""
    return float(quantiles(values, n=4, method='inclusive')[0] if len(values) > 1 else values[0])

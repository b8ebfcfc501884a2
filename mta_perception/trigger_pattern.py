"""When in a round each camera fires, learnt from its image stamps.

Cameras of a rig fire in a fixed pattern: all at once, or one after the other as a lidar sweeps past them.  The
pattern says which images belong together even where the rounds are no regular clock (nuScenes' cameras fire
every 50 or 100 ms).  With `leader` the camera that fires first, after the longest pause, every other camera
has an offset to it; a stamp less its camera's offset is the *round time*, equal for all images of a round.
"""

from typing import NamedTuple

import numpy as np

_RATE_RATIO = 1.5            # a camera this much slower or faster than the others sets no pace
_HYSTERESIS = 0.8            # another leader must make rounds this much shorter


class TriggerPattern(NamedTuple):
    """All times in nanoseconds."""

    leader: str
    offsets_ns: dict         # camera -> stamp minus that of the leader in the same round
    periods_ns: dict         # camera -> median time between its images
    pace_ns: float           # median time between rounds
    tolerance_ns: float      # images this close in round time are of one round

    def round_ns(self, camera, stamp_ns):
        """Round time of an image."""
        return stamp_ns - self.offsets_ns[camera]

    def sets_pace(self, camera):
        """False for cameras much faster than the rounds: their images open no round."""
        return self.periods_ns[camera] * _RATE_RATIO >= self.pace_ns

    def is_slow(self, camera):
        """True for cameras that are not part of every round."""
        return self.periods_ns[camera] > _RATE_RATIO * self.pace_ns


def learn_pattern(stamps_ns, previous=None):
    """TriggerPattern from {camera: ascending stamps}, or None where they do not show one yet.

    Cameras with fewer than two stamps are left out.  `previous` is kept as far as it still fits.
    """
    stamps = {camera: np.array(values) for camera, values in stamps_ns.items() if len(values) > 1}
    if not stamps:
        return None
    periods = {camera: float(np.median(np.diff(values))) for camera, values in stamps.items()}
    # The upper median: three cameras at 30 Hz and three at 10 Hz make whole sets at 10 Hz.
    pace = sorted(periods.values())[len(periods) // 2]
    core = [camera for camera in stamps
            if pace / _RATE_RATIO <= periods[camera] <= pace * _RATE_RATIO]
    # Cameras that fire together come in either order: this much before the leader is still its round.
    early = pace / 8
    best = None
    for leader in core:
        offsets = {camera: _offset(values, stamps[leader], early)
                   for camera, values in stamps.items()}
        among_core = [offsets[camera] for camera in core]
        if None in among_core:
            continue
        length = max(among_core) - min(among_core)
        if previous is not None and leader == previous.leader:
            length *= _HYSTERESIS
        if best is None or length < best[0]:
            best = length, leader, offsets
    if best is None:
        return None
    _, leader, offsets = best
    middle = float(np.median([offsets[camera] for camera in core]))
    for camera, period in periods.items():
        if offsets[camera] is None or period * _RATE_RATIO < pace:
            offsets[camera] = middle
    gaps = np.concatenate([np.diff(stamps[camera]) for camera in core])
    # Below the median, because rounds may be of two lengths; not the least, which is jitter.
    return TriggerPattern(leader, offsets, periods, pace, 0.5 * float(np.percentile(gaps, 25)))


def _offset(stamps, leader_stamps, early):
    """Median time from the leader's image to this camera's in the same round; None: never together."""
    rounds = np.searchsorted(leader_stamps, stamps + early, side='right') - 1
    known, closed = rounds >= 0, (rounds >= 0) & (rounds < len(leader_stamps) - 1)
    if not known.any():
        return None
    if not closed.any():     # in the round that is still open, only the first image surely belongs to it
        closed = np.arange(len(stamps)) == np.flatnonzero(known)[0]
    return float(np.median(stamps[closed] - leader_stamps[rounds[closed]]))

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
_TOLERANCE = 0.4             # of the shorter pauses between rounds; jitter beyond it tears rounds apart


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

    Cameras without two stamps, and what the stamps do not show, are as in `previous`.
    """
    stamps = {camera: np.array(values) for camera, values in stamps_ns.items() if len(values) > 1}
    if not stamps:
        return previous
    periods = {camera: float(np.median(np.diff(values))) for camera, values in stamps.items()}
    # The upper median: three cameras at 30 Hz and three at 10 Hz make whole sets at 10 Hz.
    pace = sorted(periods.values())[len(periods) // 2]
    core = [camera for camera in stamps
            if pace / _RATE_RATIO <= periods[camera] <= pace * _RATE_RATIO]
    best = None
    for leader in core:
        offsets = _offsets(stamps, leader, pace, previous)
        among_core = [offsets.get(camera) for camera in core]
        if None in among_core:
            continue
        length = max(among_core) - min(among_core)
        if previous is not None and leader == previous.leader:
            length *= _HYSTERESIS
        if best is None or length < best[0]:
            best = length, leader, offsets
    if best is None:
        return previous
    _, leader, offsets = best
    middle = float(np.median([offsets[camera] for camera in core]))
    for camera, period in periods.items():
        if camera not in offsets or period * _RATE_RATIO < pace:
            offsets[camera] = middle
    if previous is not None:
        periods = {**previous.periods_ns, **periods}
    gaps = np.concatenate([np.diff(stamps[camera]) for camera in core])
    # Below the median, because rounds may be of two lengths; not the least, which is jitter.
    return TriggerPattern(leader, offsets, {camera: periods[camera] for camera in offsets}, pace,
                          _TOLERANCE * float(np.percentile(gaps, 25)))


def _offsets(stamps, leader, pace, previous):
    """camera -> median time from the leader's image to this camera's in the same round."""
    offsets = {}
    if previous is not None and leader in previous.offsets_ns:
        offsets = {camera: offset - previous.offsets_ns[leader]
                   for camera, offset in previous.offsets_ns.items()}
    for camera, values in stamps.items():
        # Cameras that fire together come in either order: a little before the leader is its round.
        rounds = np.searchsorted(stamps[leader], values + pace / 8, side='right') - 1
        # In the round that is still open the leader's next image may be the one it belongs to.
        closed = (rounds >= 0) & (rounds < len(stamps[leader]) - 1)
        if not closed.any() and camera not in offsets:
            closed = np.arange(len(values)) == np.argmax(rounds >= 0)
            closed &= rounds >= 0
        if closed.any():
            offsets[camera] = float(np.median(values[closed] - stamps[leader][rounds[closed]]))
    return offsets

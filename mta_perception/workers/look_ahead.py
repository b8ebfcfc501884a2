"""Sentences are made for the moment at which they will be read.

While a sentence is written, the car drives on: at 10 m/s a thing 10 m ahead is out of the
tolerance of its own sentence after a sixth of a second.  So the captioner is told where objects
will be when the words can first stand beside their boxes.  That moment is learnt: whole frames,
because words come onto the screen with a frame.
"""

import math
import threading

import numpy as np
from numpy.typing import ArrayLike

from mta_perception.contract import BoxCode
from mta_perception.detections import Floats

MOST_S = 1.0  # farther ahead nothing is known of what drives
_SHARE = 0.2  # of a new measurement in what is learnt
_KEPT = 20  # frames


class LookAhead:
    """How far ahead of their frame sentences are shown [s].  Thread-safe."""

    def __init__(self, fixed_s: float = -1.0) -> None:
        """fixed_s: not learnt but given; -1: learnt."""
        self._fixed_s = fixed_s
        self._lock = threading.Lock()
        self._published: dict[int, float] = {}  # stamp [ns] -> when it went out [s]
        self._period_s: float | None = None  # between the stamps of frames
        self._writing_s: float | None = None  # from a frame's going out to its sentences'

    def published(self, stamp_ns: int, now_s: float) -> None:
        """A frame goes out.  now_s: steady clock."""
        with self._lock:
            before = next(reversed(self._published), None)
            if before is not None:
                self._period_s = _learnt(self._period_s, (stamp_ns - before) / 1e9)
            self._published[stamp_ns] = now_s
            while len(self._published) > _KEPT:
                del self._published[next(iter(self._published))]

    def told(self, stamp_ns: int, now_s: float) -> None:
        """The sentences of a frame are written."""
        with self._lock:
            began_s = self._published.get(stamp_ns)
            if began_s is not None:
                self._writing_s = _learnt(self._writing_s, now_s - began_s)

    def seconds(self) -> float:
        """From a frame's stamp to the first frame that its sentences can stand in."""
        if self._fixed_s >= 0:
            return min(self._fixed_s, MOST_S)
        with self._lock:
            period_s, writing_s = self._period_s, self._writing_s
        if not period_s or writing_s is None:
            return 0.0
        return min(MOST_S, period_s * max(1, math.ceil(writing_s / period_s)))


def _learnt(known: float | None, new: float) -> float | None:
    if not 0.0 < new < 2 * MOST_S:  # a jump of the clock, or a pause
        return known
    return new if known is None else known + _SHARE * (new - known)


def boxes_ahead(
    boxes: Floats, seconds: float, ego_velocity: ArrayLike, ego_turn_rad_s: float = 0.0
) -> Floats:
    """(K, 10) boxes of the ego frame as they will be in the ego frame `seconds` later.

    What moves goes on as it does, and so does the car: ego_velocity (2,) m/s in the ego frame,
    ego_turn_rad_s about z.  A velocity that is not known (NaN) counts as none.
    """
    ahead = np.array(boxes, np.float32)
    moved = np.nan_to_num(ahead[:, BoxCode.VELOCITY]) - np.asarray(ego_velocity, np.float32)
    ahead[:, :2] += seconds * moved
    angle = -seconds * ego_turn_rad_s
    turn = np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], np.float32
    )
    ahead[:, :2] = ahead[:, :2] @ turn.T
    ahead[:, BoxCode.VELOCITY] = ahead[:, BoxCode.VELOCITY] @ turn.T
    # (cos, sin) turn like any direction; the code has the sine first.
    directions = ahead[:, BoxCode.HEADING][:, ::-1] @ turn.T
    ahead[:, BoxCode.HEADING] = directions[:, ::-1]
    return ahead

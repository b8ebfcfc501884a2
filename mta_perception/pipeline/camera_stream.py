"""What one camera has sent: images that wait for their round, and whether more are expected.

Part of `camera_sync`, which decides over all cameras together.  Stamps are image time, `now_ns` is
receive time, both in nanoseconds, and the two are never compared.
"""

from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mta_perception.config import SyncConfig
from mta_perception.frames import CameraImage
from mta_perception.reasons import Code, Reason

WINDOW = 8  # images per camera that the trigger pattern is learnt from
FEW = 3  # images with one stamp: from then on it is said
_AGAIN_NS = 950_000_000  # receive time; a clock of whole seconds has moved on by then
_NEWEST = 20  # images of which those that came again are counted
_REPEAT_NS = 100_000_000  # the same stamp again within this receive time: sent twice


class CameraStatus(NamedTuple):
    """One camera as the synchroniser saw it, for diagnostics."""

    images: int  # accepted since the start
    rate_hz: float  # by its stamps; 0.0 while unknown
    age_s: float  # receive time since its newest image; inf when none came
    alive: bool
    dropped: dict[Code, int]  # images
    repeated: float  # part of its newest images that came again, 0..1


class Received(NamedTuple):
    """An image and when it came, receive time [ns]."""

    image: CameraImage
    arrival_ns: int


Round = dict[str, Received]  # camera -> its image of one round of the rig


class CameraStream:
    """What is known of one camera."""

    def __init__(self, config: SyncConfig) -> None:
        self.config = config
        self.pending: list[Received] = []  # stamps ascending
        self.suspects: list[Received] = []  # of another timeline
        self.stamps: deque[int] = deque(maxlen=WINDOW)  # accepted
        self.last_arrival_ns: int | None = None  # of any image, accepted or not
        self.dropped: Counter[Code] = Counter()  # images
        self.missed = 0  # rounds in a row that waited for it in vain
        self.off_by_s = 0.0  # of the newest suspect
        self.standing = 0  # images in a row whose stamp was that of the one before
        self._repeats: deque[bool] = deque(maxlen=_NEWEST)
        self._images = self._still_ns = 0
        self._heard_ns = 0  # receive time of the newest image, accepted or not
        self._arrivals: deque[int] = deque(maxlen=WINDOW)  # of the accepted

    def clear(self) -> None:
        """Forget the timeline, keep the statistics."""
        self.pending.clear()
        self.suspects.clear()
        self.stamps.clear()
        self._arrivals.clear()

    def accept(self, received: Received) -> None:
        """Count an image that is on the timeline of the others."""
        self._images += 1
        self.stamps.append(received.image.stamp_ns)
        self._arrivals.append(received.arrival_ns)
        self.missed = 0

    def is_repeat(self, received: Received) -> bool:
        """Whether the image accepted last was sent twice; counts them."""
        repeat = (
            bool(self.stamps)
            and received.image.stamp_ns == self.stamps[-1]
            and received.arrival_ns - self._arrivals[-1] < _REPEAT_NS
        )
        self._repeats.append(repeat)
        return repeat

    def stands_still(self, received: Received) -> bool:
        """Whether an image has the stamp of the one before, or none; counts them.

        After a pause it is a bag of one frame that begins again.
        """
        stamp_ns = received.image.stamp_ns
        still = stamp_ns == 0 or bool(
            self.stamps
            and stamp_ns == self.stamps[-1]
            and received.arrival_ns - self._heard_ns < _AGAIN_NS
        )
        self._heard_ns = received.arrival_ns
        self.standing = self.standing + 1 if still else 0
        self._still_ns = stamp_ns
        return still

    def stamp_fault(self) -> Reason | None:
        """What is wrong with the clock that stamps this camera's images; None where it moves."""
        if self.standing < FEW:
            return None
        seconds = self._still_ns / 1e9
        what = 'no stamp (0)' if not seconds else f'the stamp {seconds:.3f}'
        if seconds and not self._still_ns % 1_000_000_000:
            what += ', in whole seconds'
        return Reason(
            Code.STAMP_STANDS,
            f'{self.standing} images in a row have {what}; one image per stamp is used. Let the '
            'driver stamp each image with the moment it was taken, with nanoseconds.',
        )

    def is_speaking(self, now_ns: int) -> bool:
        """Whether it sent any image, accepted or not, within the silence that is ordinary."""
        recent_ns = now_ns - self.silence_ns()
        return self.last_arrival_ns is not None and self.last_arrival_ns >= recent_ns

    def suspects_near(self, stamp_ns: int, now_ns: int) -> list[Received]:
        """Its suspects that came lately and agree with another camera's stamp on the time."""
        recent_ns = now_ns - self.silence_ns()
        return [
            suspect
            for suspect in self.suspects
            if suspect.arrival_ns >= recent_ns
            and abs(suspect.image.stamp_ns - stamp_ns) <= self.config.jump_s * 1e9
        ]

    def is_expected(self, now_ns: int, started_ns: int) -> bool:
        """Whether to wait for images of this camera; started_ns: since when it could send any.

        Counted in rounds missed and not in seconds alone: when all cameras pause, none of them is
        dead.
        """
        since_ns = self._arrivals[-1] if self._arrivals else started_ns
        return (
            self.missed < self.config.dead_after_periods
            or now_ns - since_ns < self.config.dead_after_s * 1e9
        )

    def silence_ns(self) -> float:
        """Receive time without an image that is no longer ordinary."""
        silence = self.config.dead_after_s * 1e9
        if len(self._arrivals) > 1:
            pause = float(np.median(np.diff(self._arrivals)))
            silence = max(silence, self.config.dead_after_periods * pause)
        return silence

    def why_missing(self, now_ns: int) -> Reason:
        """Why a set goes out without an image of this camera."""
        if self.suspects:
            return Reason(Code.CLOCK_OFF, f'{self.off_by_s:+.1f} s from the other cameras')
        if self.last_arrival_ns is None:
            return Reason(Code.NO_IMAGE_YET)
        return Reason(Code.NO_IMAGE, f'for {(now_ns - self.last_arrival_ns) / 1e9:.1f} s')

    def status(self, now_ns: int, started_ns: int) -> CameraStatus:
        """As seen at now_ns; started_ns as in `is_expected`."""
        rate_hz, age_s = 0.0, float('inf')
        if len(self.stamps) > 1:
            rate_hz = 1e9 * (len(self.stamps) - 1) / (self.stamps[-1] - self.stamps[0])
        if self.last_arrival_ns is not None:
            age_s = (now_ns - self.last_arrival_ns) / 1e9
        alive = age_s * 1e9 < self.silence_ns() and self.is_expected(now_ns, started_ns)
        repeated = sum(self._repeats) / _NEWEST
        return CameraStatus(self._images, rate_hz, age_s, alive, dict(self.dropped), repeated)


def increasing(received: Iterable[Received]) -> list[Received]:
    """Images without those whose stamp is not newer than the camera's one before."""
    newest: dict[str, int] = {}
    result = []
    for one in received:
        camera, stamp_ns = one.image.camera, one.image.stamp_ns
        if stamp_ns > newest.get(camera, -1):
            newest[camera] = stamp_ns
            result.append(one)
    return result


def within(members: Round, spread_ns: float) -> Round:
    """The largest part of a round whose stamps lie within `spread_ns`; the newest of equal
    ones."""
    best: Round = {}
    for end in sorted(one.image.stamp_ns for one in members.values()):
        part = {
            name: one
            for name, one in members.items()
            if end - spread_ns <= one.image.stamp_ns <= end
        }
        if len(part) >= len(best):
            best = part
    return best

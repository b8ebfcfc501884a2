"""When a frame passed each stage, in milliseconds after its last image was received.

Durations are of the steady clock alone, so that neither use_sim_time nor a replay at another rate
changes them.  Image stamps count where they are of this machine's clock; where they are not, that
is said, and what would need them is left out.  Thread-safe, no ROS.
"""

import threading
from typing import NamedTuple

from mta_perception.frames import FrameSet
from mta_perception.workers.tally import Durations

MOST_AGE_S = 5.0  # stamps that lie farther back are of another clock, or of a recording
OF_STAMPS = ('received_after_stamp', 'boxes_after_stamp')
_KEPT = 20  # frames whose sentences may still come
SIM_TIME = 'of /clock (use_sim_time), which runs as the replay does: not measured against'
SAME = 'of the clock of this machine'


class Moments(NamedTuple):
    """Steady clock [s] at which a frame passed a stage."""

    received: float  # the last of its images
    complete: float  # the synchroniser gave the set
    decoded: float  # all images have the model's size
    inferred: float  # the detector is done
    boxes: float  # ~/detections is out


def received_s(frames: FrameSet, otherwise: float) -> float:
    """When the last image of a set was received, steady clock."""
    newest = max((image.received_ns for image in frames.images.values()), default=0)
    return newest / 1e9 if newest else otherwise


class Latency:
    """Moments in, milliseconds of the newest frames out."""

    def __init__(self) -> None:
        self.durations = Durations()
        self.stamps = 'nothing measured yet'  # of which clock the image stamps are
        self._lock = threading.Lock()
        self._received: dict[int, float] = {}  # stamp [ns] -> steady clock [s]

    def frame(
        self, stamp_ns: int, moments: Moments, steady_minus_wall_s: float, is_sim_time: bool
    ) -> dict[str, float]:
        """Milliseconds of one frame: stage -> after its last image was received.

        stamp_ns: reference stamp.  steady_minus_wall_s: between the clocks of this machine.
        """
        received = moments.received
        spans = {
            stage: 1e3 * (moment - received)
            for stage, moment in moments._asdict().items()
            if stage != 'received'
        }
        taken_s = stamp_ns / 1e9 + steady_minus_wall_s  # by the steady clock, if it is the same
        stamps = clock_of_stamps(received - taken_s, is_sim_time)
        if stamps == SAME:
            spans['received_after_stamp'] = 1e3 * (received - taken_s)
            spans['boxes_after_stamp'] = 1e3 * (moments.boxes - taken_s)
        elif self.stamps == SAME:
            self.durations.forget(OF_STAMPS)
        self.stamps = stamps
        self.durations.add(spans)
        with self._lock:
            self._received[stamp_ns] = received
            while len(self._received) > _KEPT:
                del self._received[next(iter(self._received))]
        return spans

    def sentences(self, stamp_ns: int, now_s: float) -> dict[str, float]:
        """The sentences of a frame are out; {} where that frame is long past."""
        with self._lock:
            received = self._received.get(stamp_ns)
        if received is None:
            return {}
        spans = {'sentences': 1e3 * (now_s - received)}
        self.durations.add(spans)
        return spans

    def values(self) -> dict[str, float | str]:
        """What /diagnostics and ~/latency say: p50, p90 and max of each stage."""
        values: dict[str, float | str] = {'image_stamps': self.stamps}
        for stage, (p50, p90, most) in self.durations.percentiles().items():
            values |= {
                f'{stage}_p50_ms': p50,
                f'{stage}_p90_ms': p90,
                f'{stage}_max_ms': most,
            }
        return values


def clock_of_stamps(age_s: float, is_sim_time: bool) -> str:
    """Of which clock image stamps are, in words; SAME where ages can be measured against them.

    age_s: how old an image was as it was received, if its clock is ours.  An offset that leaves
    images neither older than MOST_AGE_S nor younger than now shows nowhere.
    """
    if is_sim_time:
        return SIM_TIME
    if age_s < 0:
        return f'{-age_s:.3f} s ahead of the clock of this machine: not measured against'
    if age_s > MOST_AGE_S:
        return (
            f'{age_s:.0f} s behind the clock of this machine (a recording, or another clock): '
            'not measured against'
        )
    return SAME

"""Which objects get a sentence next, and the sentences already said.  No ROS.

A sentence is due where a word of it would be wrong now, or its track is new (sentences.py).
"""

from collections.abc import Sequence
import threading

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import SURE_SCORE, Detections
from mta_perception.geometry import Array
from mta_perception.sentences import MAX_AGE_S, Box, Said, claims_of, contradictions, fits, shown

AHEAD_S = 1.0  # a sentence that will be wrong so soon is made anew where a pass has room for it
RETRY_S = 1.0  # an object whose last sentence was wrong at once lets others go first for so long
ROADWORK = ('barrier', 'traffic_cone')  # stand in long rows and interest nobody: they come last


class CaptionBook:
    """The newest sentence of each track.  Thread-safe."""

    def __init__(self, max_age_s: float = MAX_AGE_S) -> None:
        """max_age_s: of sentences whose words are not our grammar's."""
        self.max_age_s = max_age_s
        self._lock = threading.Lock()
        self._said: dict[str, Said] = {}  # by track id
        self._failed: dict[str, int] = {}  # track id -> stamp [ns] of a sentence that was no use

    def put(self, track_id: str, said: Said, box: Box) -> bool:
        """Take a sentence; False where it contradicts its own box, and is not to be told."""
        wrong = contradictions(claims_of(said.text), said.class_name, box)
        with self._lock:
            if wrong or not said.text:
                self._failed[track_id] = said.stamp_ns
                return False
            self._said[track_id] = said
            self._failed.pop(track_id, None)
        return True

    def text(self, track_id: str, class_name: str, box: Box, stamp_ns: int) -> str:
        """What may stand beside the track's box now: its sentence, or the short form."""
        with self._lock:
            said = self._said.get(track_id)
        return shown(said, class_name, box, stamp_ns, self.max_age_s)

    def is_due(self, track_id: str, class_name: str, box: Box, stamp_ns: int) -> bool:
        """The track has no sentence that fits."""
        with self._lock:
            said = self._said.get(track_id)
        return said is None or not fits(said, class_name, box, stamp_ns, self.max_age_s)

    def failed_lately(self, track_id: str, stamp_ns: int) -> bool:
        """Its last sentence was wrong as soon as it was made, less than RETRY_S ago."""
        with self._lock:
            failed_ns = self._failed.get(track_id)
        return failed_ns is not None and 0 <= stamp_ns - failed_ns < RETRY_S * 1e9

    def keep_only(self, track_ids: Sequence[str]) -> None:
        """Forget tracks that are not seen now, but not at the first frame that misses them."""
        with self._lock:
            for known in (self._said, self._failed):
                if len(known) > 2 * len(track_ids) + 50:
                    for track_id in set(known).difference(track_ids):
                        del known[track_id]

    def clear(self) -> None:
        with self._lock:
            self._said.clear()
            self._failed.clear()


def rows_to_caption(
    detections: Detections,
    track_ids: Sequence[str],
    book: CaptionBook,
    stamp_ns: int,
    most: int,
    ego_velocity: ArrayLike = (0.0, 0.0),
) -> NDArray[np.intp]:
    """Up to `most` rows whose sentences are due, and then those whose will be within AHEAD_S.

    Of the due ones the nearest and fastest-changing first, unsure objects, roadwork and those
    that just failed after the others.  ego_velocity: (2,) m/s in the ego frame: what stands moves
    the other way.
    """
    count = len(track_ids)
    if not count:
        return np.zeros(0, np.intp)
    boxes = np.asarray(detections.boxes, dtype=np.float64)
    names = [CLASSES[label] for label in detections.labels]
    passing: Array = np.nan_to_num(boxes[:, BoxCode.VELOCITY]) - np.asarray(ego_velocity)
    ahead = boxes.copy()
    ahead[:, :2] += AHEAD_S * passing
    due = np.zeros(count, dtype=bool)
    soon, failed = due.copy(), due.copy()
    for row, (track_id, name) in enumerate(zip(track_ids, names)):
        due[row] = book.is_due(track_id, name, boxes[row], stamp_ns)
        soon[row] = due[row] or book.is_due(
            track_id, name, ahead[row], stamp_ns + int(AHEAD_S * 1e9)
        )
        failed[row] = book.failed_lately(track_id, stamp_ns)
    distance = np.linalg.norm(boxes[:, :2], axis=1)
    urgency: Array = distance - AHEAD_S * np.linalg.norm(passing, axis=1)
    last = (np.asarray(detections.scores) < SURE_SCORE) | np.isin(names, ROADWORK)
    order: NDArray[np.intp] = np.lexsort((urgency, last, failed, ~due))
    chosen: NDArray[np.intp] = order[soon[order]][:most]
    return chosen

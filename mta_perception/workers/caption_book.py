"""Which objects get a sentence next, and the sentences already said.  No ROS."""

from collections.abc import Sequence
import threading

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_perception.detections import SURE_SCORE

STALE_S = 2.0  # a sentence this old may have become wrong: the object's turn comes again


class CaptionBook:
    """The newest caption of each track.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._captions: dict[str, tuple[str, int]] = {}  # track id -> text, stamp [ns]

    def put(self, track_id: str, text: str, stamp_ns: int) -> None:
        with self._lock:
            self._captions[track_id] = text, stamp_ns

    def text(self, track_id: str) -> str:
        """The track's caption, '' where it has none."""
        with self._lock:
            return self._captions.get(track_id, ('', 0))[0]

    def is_fresh(self, track_id: str, stamp_ns: int) -> bool:
        """The track has a caption younger than STALE_S at `stamp_ns`."""
        with self._lock:
            known = self._captions.get(track_id)
        return known is not None and 0 <= stamp_ns - known[1] < STALE_S * 1e9

    def keep_only(self, track_ids: Sequence[str]) -> None:
        """Forget tracks that are not seen now, but not at the first frame that misses them."""
        with self._lock:
            if len(self._captions) > 2 * len(track_ids) + 50:
                self._captions = {
                    track_id: self._captions[track_id]
                    for track_id in track_ids
                    if track_id in self._captions
                }

    def clear(self) -> None:
        with self._lock:
            self._captions.clear()


def rows_to_caption(
    boxes: ArrayLike,
    scores: ArrayLike,
    track_ids: Sequence[str],
    book: CaptionBook,
    stamp_ns: int,
    most: int,
) -> NDArray[np.intp]:
    """Up to `most` rows of boxes (K, 10) and scores (K,).

    Those without a fresh caption first, of these the sure ones, of these the nearest.
    """
    distance = np.linalg.norm(np.asarray(boxes)[:, :2], axis=1)
    fresh = np.array([book.is_fresh(track_id, stamp_ns) for track_id in track_ids], dtype=bool)
    order: NDArray[np.intp] = np.lexsort((distance, np.asarray(scores) < SURE_SCORE, fresh))
    return order[:most]

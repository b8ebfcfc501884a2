"""One box for one object: detections that cover a better one of their kind are dropped.

The detector has no suppression of its own (each query speaks for itself), and below its best
boxes it repeats them.  Evaluation takes all of them; people and planners get one.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from mta_perception.contract import BoxCode
from mta_perception.detections import Detections, Floats
from mta_perception.geometry import Array
from mta_perception.pipeline.tracking import KIND_OF_LABEL

MOST_COVERED = 0.5  # of the smaller one's footprint, by a better box of the same kind


def distinct(detections: Detections) -> Detections:
    """The detections, best first, without those that cover one before them."""
    boxes = detections.boxes
    kinds = KIND_OF_LABEL[detections.labels]
    reach: Array = np.linalg.norm(boxes[:, BoxCode.SIZE][:, :2].astype(np.float64), axis=1) / 2
    kept: list[int] = []
    for row in range(len(boxes)):
        near = [
            other
            for other in kept
            if kinds[other] == kinds[row]
            and np.hypot(*(boxes[other, :2] - boxes[row, :2])) < reach[other] + reach[row]
        ]
        if all(covered_share(boxes[other], boxes[row]) <= MOST_COVERED for other in near):
            kept.append(row)
    rows: NDArray[np.int64] = np.array(kept, dtype=np.int64)
    return Detections(
        boxes[rows], detections.labels[rows], detections.scores[rows], detections.queries[rows]
    )


def covered_share(box_a: Floats, box_b: Floats) -> float:
    """Common ground of two boxes (10,), as a share of the smaller one's."""
    smaller = min(float(box[3] * box[4]) for box in (box_a, box_b))
    if smaller <= 0:
        return 0.0
    _, corners = cv2.rotatedRectangleIntersection(_footprint(box_a), _footprint(box_b))
    if corners is None or len(corners) < 3:
        return 0.0
    return float(cv2.contourArea(cv2.convexHull(corners))) / smaller


def _footprint(box: Floats) -> tuple[tuple[float, float], tuple[float, float], float]:
    """OpenCV's rotated rectangle: centre, size, angle in degrees."""
    x, y, _, length, width, _, sin, cos = (float(value) for value in box[:8])
    return (x, y), (length, width), float(np.degrees(np.arctan2(sin, cos)))

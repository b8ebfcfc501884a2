"""Which predicted caption answers which true one: the `strict` and the `tod3cap` protocol.

in   DescribedObjects of one frame, ground truth and predictions, ego frame
out  Pair list of that frame; caption_metrics scores the pairs of all frames together

strict    N = ground truths.  Same class, one to one, by true rotated 3D IoU or by the distance of
          centres (Scan2Cap's m@kIoU: who was not found counts 0).
tod3cap   N = predictions.  What the released evaluator of TOD3Cap does, oddities included; they
          are listed at `tod3cap_pairs` and in docs/evaluation.md.
Both drop boxes of either side beyond the nuScenes range of their class first.
"""

from typing import NamedTuple

import numpy as np
import shapely

from mta_perception.contract import CLASS_RANGE_M, CLASSES, BoxCode
from mta_perception.geometry import box_corners

STRICT_IOUS = (0.25, 0.5)
MATCH_M = 2.0  # nuScenes' matching distance of the true-positive errors
IGNORED = 'The object is ignored.'  # TOD3Cap's reference for an object without a caption
_RANGES_M = np.array([CLASS_RANGE_M[name] for name in CLASSES])


class DescribedObjects(NamedTuple):
    """Objects of one frame with their captions."""

    boxes: np.ndarray  # (n, 10) contract.BoxCode, ego frame
    labels: np.ndarray  # (n,) int
    scores: np.ndarray  # (n,) float; ones for ground truth
    captions: list  # n strings, '' = none


class Pair(NamedTuple):
    """A true caption and what was said about the object, with the rows both come from."""

    reference: str
    candidate: str  # '' where nothing was found (strict) or said
    truth: int  # row of the ground truth; -1: no ground truth in the frame (tod3cap)
    predicted: int  # row of the predictions; -1: the object was not found (strict)
    kept: bool  # the pair passed the threshold


def rotated_iou(boxes_a, boxes_b):
    """3D IoU (n, m) of upright boxes (n, 10) and (m, 10): polygons from above times heights."""
    a, b = (
        np.asarray(boxes, dtype=np.float64).reshape(-1, BoxCode.WIDTH)
        for boxes in (boxes_a, boxes_b)
    )
    low = np.maximum((a[:, 2] - a[:, 5] / 2)[:, None], b[:, 2] - b[:, 5] / 2)
    high = np.minimum((a[:, 2] + a[:, 5] / 2)[:, None], b[:, 2] + b[:, 5] / 2)
    overlap = np.maximum(high - low, 0.0) * _ground_overlap(a, b)  # (n, m) m^3
    volumes = a[:, BoxCode.SIZE].prod(axis=1)[:, None] + b[:, BoxCode.SIZE].prod(axis=1)
    return overlap / (volumes - overlap)


def _ground_overlap(a, b):
    """(n, m) common area [m^2] of the outlines seen from above."""
    area = np.zeros((len(a), len(b)))
    reach = (np.hypot(a[:, 3], a[:, 4])[:, None] + np.hypot(b[:, 3], b[:, 4])) / 2
    rows, columns = np.nonzero(_distances(a, b) < reach)
    if len(rows):
        # Front left, front right, rear right, rear left of the upper face.
        outlines_a, outlines_b = (
            shapely.polygons(box_corners(boxes)[:, [0, 1, 5, 4], :2]) for boxes in (a, b)
        )
        area[rows, columns] = shapely.area(
            shapely.intersection(outlines_a[rows], outlines_b[columns])
        )
    return area


def _distances(a, b):
    """(n, m) distances [m] of centres seen from above."""
    return np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])


def scale_iou(boxes_a, boxes_b):
    """(n, m) the devkit's `scale_iou`: IoU as if centres and headings were the same."""
    sizes_a, sizes_b = (
        np.asarray(boxes, dtype=np.float64).reshape(-1, BoxCode.WIDTH)[:, BoxCode.SIZE]
        for boxes in (boxes_a, boxes_b)
    )
    common = np.minimum(sizes_a[:, None], sizes_b[None]).prod(axis=-1)
    return common / (sizes_a.prod(axis=1)[:, None] + sizes_b.prod(axis=1) - common)


def in_range(described):
    """(n,) bool: nearer than the nuScenes evaluation range of its class."""
    boxes = np.asarray(described.boxes).reshape(-1, BoxCode.WIDTH)
    return np.hypot(boxes[:, 0], boxes[:, 1]) < _RANGES_M[np.asarray(described.labels, dtype=int)]


def strict_pairs(truth, predicted, *, iou=None, within_m=None):
    """Pairs of one frame: each ground truth in range that has a caption, once; see `found_by`."""
    found = found_by(truth, predicted, iou=iou, within_m=within_m)
    return [
        Pair(
            truth.captions[i],
            predicted.captions[found[i]] if i in found else '',
            i,
            found.get(i, -1),
            i in found,
        )
        for i in map(int, np.flatnonzero(in_range(truth)))
        if truth.captions[i]
    ]


def found_by(truth, predicted, *, iou=None, within_m=None):
    """{row of a ground truth in range: row of the prediction that found it} of one frame.

    iou       threshold of the rotated 3D IoU, which must be above it; or
    within_m  threshold of the distance of centres on the ground [m], which must be below it

    Predictions choose, best score first, the best free object of their class.  They may also take
    one without a caption: otherwise they would slide to a neighbour.
    """
    if (iou is None) == (within_m is None):
        raise ValueError('give one of iou and within_m, the threshold of the matching.')
    truth_rows, rows = np.flatnonzero(in_range(truth)), np.flatnonzero(in_range(predicted))
    boxes = np.asarray(truth.boxes)[truth_rows]
    candidates = np.asarray(predicted.boxes)[rows]
    if iou is not None:
        closeness, least = rotated_iou(candidates, boxes), iou
    else:
        closeness, least = -_distances(candidates, boxes), -within_m
    labels = np.asarray(truth.labels)[truth_rows]
    free, found = np.ones(len(truth_rows), dtype=bool), {}
    scores = np.asarray(predicted.scores, dtype=np.float64)[rows]
    for row in np.argsort(-scores, kind='stable'):
        fits = free & (labels == predicted.labels[rows[row]]) & (closeness[row] > least)
        if not fits.any():
            continue
        best = int(np.argmax(np.where(fits, closeness[row], -np.inf)))
        free[best] = False
        found[int(truth_rows[best])] = int(rows[row])
    return found


def tod3cap_pairs(truth, predicted, iou):
    """Pairs of one frame as TOD3Cap's released evaluator makes them: each prediction, once.

    * the overlap is `scale_iou`: no distance, no heading, no class is looked at;
    * the partner is the ground truth of the whole frame with the highest such value;
    * many predictions may have the same partner; ground truths nobody chose do not count;
    * a ground truth without a caption has the reference 'The object is ignored.'
    """
    truth_rows, rows = np.flatnonzero(in_range(truth)), np.flatnonzero(in_range(predicted))
    if not len(truth_rows):
        return [Pair('', predicted.captions[row], -1, int(row), False) for row in rows]
    overlap = scale_iou(np.asarray(predicted.boxes)[rows], np.asarray(truth.boxes)[truth_rows])
    pairs = []
    for row, values in zip(map(int, rows), overlap):
        best = int(values.argmax())
        partner = int(truth_rows[best])
        pairs.append(
            Pair(
                truth.captions[partner] or IGNORED,
                predicted.captions[row],
                partner,
                row,
                bool(values[best] > iou),
            )
        )
    return pairs

"""Metrics of answers that show where: boxes, bird's-eye masks, tracks.

Boxes are (10,) contract.BoxCode; overlaps are those of rotated rectangles from above (BEV).  A
question about what is not there is right when nothing is shown, and is judged by `none` alone.
Values are shares or means; None where there is nothing to judge.
"""

from typing import NamedTuple

import numpy as np
import shapely

from mta_perception.geometry import box_corners

CENTRES_M = (0.5, 1.0, 2.0, 4.0)
IOUS = (0.25, 0.5)
_STEPS = 21  # overlap thresholds of the success curve, as LaSOT has them
_NEAR = np.linspace(0.0, 0.5, 51)  # thresholds of the normalised precision, ditto
_BOUNDARY = 0.008  # of the diagonal: the tolerance of F, as DAVIS has it


class GroundedAnswer(NamedTuple):
    """What was shown for one question that boxes answer, and the truth."""

    box: object  # (10,), None = nothing shown
    pointed: int  # query that the pointer chose, -1 = none
    boxes: np.ndarray  # (n, 10) of the meant objects; any of them is right; n = 0: there is none
    queries: tuple  # queries matched to a meant object; () where the detector found none of them


class MaskAnswer(NamedTuple):
    """A bird's-eye mask and the true one."""

    mask: np.ndarray  # (Y, X) bool; empty = nothing shown
    true: np.ndarray  # (Y, X) bool; empty: there is no such object
    name: str  # class of what is meant


class MaskTrack(NamedTuple):
    """Masks of one object over time."""

    masks: np.ndarray  # (T, Y, X) bool
    true: np.ndarray  # (T, Y, X) bool


class TrackAnswer(NamedTuple):
    """One object followed over T frames."""

    boxes: np.ndarray  # (T, 10)
    shown: np.ndarray  # (T,) bool
    true: np.ndarray  # (T, 10)
    visible: np.ndarray  # (T,) bool: the object is seen


def bev_iou(boxes_a, boxes_b):
    """(n, m) overlaps from above of boxes (n, 10) and (m, 10)."""
    a, b = (_polygons(boxes) for boxes in (boxes_a, boxes_b))
    shared = shapely.area(shapely.intersection(a[:, None], b[None]))
    return shared / np.maximum(shapely.area(a)[:, None] + shapely.area(b)[None] - shared, 1e-9)


def _polygons(boxes):
    boxes = np.array(boxes, np.float64).reshape(-1, 10)
    boxes[:, 3:6] = np.maximum(boxes[:, 3:6], 1e-3)  # a model may say a length below zero
    return shapely.polygons(box_corners(boxes)[:, [0, 1, 5, 4], :2])


def grounding_scores(answers):
    """Dict of a list of GroundedAnswers.

    `acc_<d>m` and `iou_<x>` are of all questions about something that is there; `acc_2m_found`
    and `pointer` of those whose object the detector found; `none` of the others.
    """
    there = [one for one in answers if len(one.boxes)]
    absent = [one for one in answers if not len(one.boxes)]
    off = np.array([_nearest(one) for one in there])
    overlap = np.array([_overlap(one) for one in there])
    found = np.array([len(one.queries) > 0 for one in there], bool)
    pointed = [one.pointed in one.queries for one in there if one.queries]
    return {
        'questions': len(there),
        'found': int(found.sum()),
        'absent': len(absent),
        **{f'acc_{metres:g}m': _mean(off <= metres) for metres in CENTRES_M},
        **{f'iou_{least:g}': _mean(overlap >= least) for least in IOUS},
        'acc_2m_found': _mean(off[found] <= 2.0),
        'pointer': _mean(pointed),
        'shown': _mean([one.box is not None for one in there]),
        'none': _mean([one.box is None for one in absent]),
    }


def _nearest(answer):
    """Metres on the ground from the box shown to the nearest of the meant; infinite for none."""
    if answer.box is None:
        return np.inf
    off = np.asarray(answer.boxes)[:, :2] - np.asarray(answer.box)[:2]
    return float(np.hypot(off[:, 0], off[:, 1]).min())


def _overlap(answer):
    return 0.0 if answer.box is None else float(bev_iou(answer.box, answer.boxes).max())


def mask_scores(answers):
    """Dict of a list of MaskAnswers: `iou` (mean over questions), `ciou` (all intersections by
    all unions), `iou_<class>`, `none`."""
    there = [one for one in answers if one.true.any()]
    absent = [one for one in answers if not one.true.any()]
    shared = np.array([np.logical_and(one.mask, one.true).sum() for one in there], float)
    union = np.array([np.logical_or(one.mask, one.true).sum() for one in there], float)
    iou = shared / union if there else np.zeros(0)
    names = np.array([one.name for one in there])
    return {
        'questions': len(there),
        'absent': len(absent),
        'iou': _mean(iou),
        'ciou': float(shared.sum() / union.sum()) if there else None,
        **{f'iou_{name}': _mean(iou[names == name]) for name in sorted(set(names.tolist()))},
        'none': _mean([not one.mask.any() for one in absent]),
    }


def mask_track_scores(answers):
    """Dict of a list of MaskTracks: region overlap `J`, boundary `F` and their mean `J&F`, as
    DAVIS (Perazzi et al., 2016): means over the frames of each, then over all."""
    region = [np.mean([_mask_iou(*pair) for pair in zip(*one)]) for one in answers]
    boundary = [np.mean([boundary_f(*pair) for pair in zip(*one)]) for one in answers]
    j, f = _mean(region), _mean(boundary)
    return {'tracks': len(answers), 'J': j, 'F': f, 'J&F': (j + f) / 2 if answers else None}


def _mask_iou(mask, true):
    union = np.logical_or(mask, true).sum()
    return 1.0 if not union else float(np.logical_and(mask, true).sum() / union)


def boundary_f(mask, true):
    """F measure of the boundaries of two masks (Y, X), matched within 0.8 % of the diagonal."""
    edges = _boundary(mask), _boundary(true)
    counts = [int(edge.sum()) for edge in edges]
    if not all(counts):
        return float(not any(counts))
    radius = int(np.ceil(_BOUNDARY * np.hypot(*np.shape(mask))))
    precision = (edges[0] & _thickened(edges[1], radius)).sum() / counts[0]
    recall = (edges[1] & _thickened(edges[0], radius)).sum() / counts[1]
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def _boundary(mask):
    """Pixels that differ from the next one right, below, or right below (DAVIS' seg2bmap)."""
    mask = np.asarray(mask, bool)
    padded = np.pad(mask, ((0, 1), (0, 1)), mode='edge')
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def _thickened(edge, radius):
    from scipy.ndimage import binary_dilation

    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return binary_dilation(edge, y**2 + x**2 <= radius**2)


def track_scores(answers):
    """Dict of a list of TrackAnswers.

    Over the frames in which the object is seen, then over the tracks: `success` (area under the
    share of frames whose overlap is above a threshold, 0 to 1; LaSOT), `normalised_precision`
    (area under the share of frames whose centre is off by less than 0 to 0.5 of the object's
    length and width; TrackingNet), `overlap`, and `sr_0.5`, `sr_0.75` (GOT-10k).  `absent`: of
    the frames in which it is not seen, those in which nothing is shown; `none` of the tracks of
    what is nowhere.
    """
    there = [one for one in answers if one.visible.any()]
    nowhere = [one for one in answers if not one.visible.any()]
    overlaps = [_overlaps(one) for one in there]
    offs = [_relative_off(one) for one in there]
    hidden = [~one.shown[~one.visible] for one in there]
    steps = np.linspace(0.0, 1.0, _STEPS)
    return {
        'tracks': len(there),
        'success': _mean([np.mean(one[:, None] > steps) for one in overlaps]),
        'normalised_precision': _mean([np.mean(one[:, None] <= _NEAR) for one in offs]),
        'overlap': _mean([one.mean() for one in overlaps]),
        'sr_0.5': _mean([np.mean(one > 0.5) for one in overlaps]),
        'sr_0.75': _mean([np.mean(one > 0.75) for one in overlaps]),
        'absent': _mean(np.concatenate(hidden)) if hidden else None,
        'none': _mean([not one.shown.any() for one in nowhere]),
    }


def _overlaps(answer):
    """(V,) overlap in each frame in which the object is seen; 0 where nothing is shown."""
    return np.array(
        [
            bev_iou(answer.boxes[k], answer.true[k])[0, 0] if answer.shown[k] else 0.0
            for k in np.flatnonzero(answer.visible)
        ]
    )


def _relative_off(answer):
    """(V,) distance of the centres in lengths along and widths across the true box."""
    off = np.asarray(answer.boxes, np.float64)[:, :2] - np.asarray(answer.true)[:, :2]
    sin, cos = answer.true[:, 6], answer.true[:, 7]
    along = (cos * off[:, 0] + sin * off[:, 1]) / answer.true[:, 3]
    across = (-sin * off[:, 0] + cos * off[:, 1]) / answer.true[:, 4]
    return np.where(answer.shown, np.hypot(along, across), np.inf)[answer.visible]


def _mean(values):
    values = np.asarray(values, np.float64)
    return float(values.mean()) if values.size else None

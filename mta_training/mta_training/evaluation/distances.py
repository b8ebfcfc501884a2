"""Near and far: of what is published, how much is found, right and truly described, by distance.

A ring is that of the true object for recall and sentences, of the box for precision.
"""

import numpy as np

from mta_training.evaluation.caption_matching import MATCH_M, found_by, in_range, strict_pairs
from mta_training.evaluation.hallucination import hallucinations

RINGS_M = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0), (30.0, 50.0))
_TOLD = ('any', 'wrong_motion', 'colour_accuracy', 'distance_accuracy')


def by_distance(truth, said):
    """List of a dict for each of RINGS_M and, last, for all distances.

    truth, said  DescribedObjects of each frame, said being those above the published threshold

    Each has `from_m`, `to_m`, `objects`, `recall`, `boxes`, `precision` (of one class, centres
    within 2 m) and, of the found ones that have a true sentence, the shares `any`, `wrong_motion`
    (hallucination.py), `colour_accuracy`, `distance_accuracy`; None where there is nothing.
    """
    found = [found_by(*pair, within_m=MATCH_M) for pair in zip(truth, said)]
    pairs = [strict_pairs(*pair, within_m=MATCH_M) for pair in zip(truth, said)]
    return [_ring(truth, said, found, pairs, *ring) for ring in (*RINGS_M, (0.0, RINGS_M[-1][1]))]


def _ring(truth, said, found, pairs, from_m, to_m):
    objects = [_within(one, from_m, to_m) for one in truth]
    boxes = [_within(one, from_m, to_m) for one in said]
    hits = [np.isin(rows, list(one)) for rows, one in zip(objects, found)]
    right = [np.isin(rows, list(one.values())) for rows, one in zip(boxes, found)]
    told = hallucinations(
        truth,
        [
            [pair for pair in frame if pair.truth in rows]
            for frame, rows in zip(pairs, map(set, objects))
        ],
    )
    return {
        'from_m': from_m,
        'to_m': to_m,
        'objects': sum(map(len, objects)),
        'recall': _share(hits),
        'boxes': sum(map(len, boxes)),
        'precision': _share(right),
        **{name: told[name] for name in _TOLD},
    }


def _within(described, from_m, to_m):
    """Rows of the objects in a ring, and in the range of their class."""
    boxes = np.asarray(described.boxes).reshape(-1, 10)
    metres = np.hypot(boxes[:, 0], boxes[:, 1])
    return np.flatnonzero((metres >= from_m) & (metres < to_m) & in_range(described))


def _share(parts):
    whole = np.concatenate([np.zeros(0, bool), *parts])
    return float(whole.mean()) if len(whole) else None

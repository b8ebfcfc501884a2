"""Scores as probabilities, and the one above which boxes are published.

A detector trained with a focal loss ranks well and is too modest.  On drives that nobody trained
on, every box is right (its class, and within 2 m of an object no better box has claimed) or not;
a logistic curve of two numbers a class, drawn towards that of all classes where there is little to
learn from, turns its logit into how often such boxes were right (Platt 1999).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from mta_perception.contract import CLASS_RANGE_M, CLASSES
from mta_perception.detections import UNCALIBRATED, Calibration, decode

RIGHT_WITHIN_M = 2.0
_LEAST_SCORE, _MOST = 0.01, 300
_PRIOR = 10.0  # how many boxes the curve of all classes counts for, in each


class Judged(NamedTuple):
    """Boxes of all judged frames, and the objects there were."""

    logits: np.ndarray  # (n,) of the boxes' own classes, uncalibrated
    labels: np.ndarray  # (n,)
    right: np.ndarray  # (n,) bool
    objects: np.ndarray  # (K,) number of objects a class, within the range of its class


class Published(NamedTuple):
    """What is published, and how good that is; precision and recall as RIGHT_WITHIN_M says."""

    threshold: float
    precision: float
    recall: float
    by_class: dict  # name -> (precision, recall); classes that were not seen are left out


def judge(outputs, boxes, labels):
    """(logits, labels, right, objects) of one frame: DetectorOutputs, true boxes (n, 10), (n,)."""
    found = decode(outputs, _LEAST_SCORE, _MOST)
    reach = np.array([CLASS_RANGE_M[name] for name in CLASSES])
    near = np.hypot(*found.boxes[:, :2].T) < reach[found.labels]
    kept = np.hypot(*boxes[:, :2].T) < reach[labels]
    true, classes = boxes[kept], labels[kept]
    free = np.ones(len(true), bool)
    right = np.zeros(len(near), bool)
    for row in np.flatnonzero(near):  # best first
        distance = np.hypot(*(true[:, :2] - found.boxes[row, :2]).T)
        possible = free & (classes == found.labels[row]) & (distance < RIGHT_WITHIN_M)
        if possible.any():
            free[np.where(possible, distance, np.inf).argmin()] = False
            right[row] = True
    logits = outputs.class_logits[found.queries, found.labels].astype(np.float64)
    counts = np.bincount(classes, minlength=len(CLASSES))
    return logits[near], found.labels[near], right[near], counts


def judged(frames):
    """Judged of an iterable of what `judge` returns."""
    logits, labels, right, counts = zip(*frames)
    return Judged(
        np.concatenate(logits), np.concatenate(labels), np.concatenate(right), sum(counts)
    )


def fit(boxes):
    """Calibration of Judged boxes; UNCALIBRATED where none or all are right."""
    if not boxes.right.any() or boxes.right.all():
        return UNCALIBRATED
    every = _curve(boxes.logits, boxes.right, np.array([1.0, 0.0]), 0.0)
    curves = [
        _curve(boxes.logits[own], boxes.right[own], every, _PRIOR) if own.any() else every
        for own in (boxes.labels == label for label in range(len(CLASSES)))
    ]
    slopes, offsets = np.array(curves).T
    return Calibration(slopes, offsets)


def _curve(logits, right, middle, prior):
    """(slope, offset) of the likeliest logistic curve, `prior` boxes' worth near `middle`."""

    def cost(curve):
        z = curve[0] * logits + curve[1]
        return float(
            (np.logaddexp(0.0, z) - right * z).sum() + prior * ((curve - middle) ** 2).sum()
        )

    found = minimize(cost, middle, method='L-BFGS-B', bounds=[(0.1, 10.0), (-10.0, 10.0)])
    return found.x


def publish(boxes, calibration):
    """Published: the threshold with the best F1 over all boxes, and what it gives."""
    scores = calibration.scores(boxes.logits, boxes.labels)
    order = np.argsort(-scores, kind='stable')
    found = np.cumsum(boxes.right[order])
    f1 = 2.0 * found / (np.arange(1, len(order) + 1) + boxes.objects.sum())
    threshold = float(scores[order[f1.argmax()]])
    shown = scores >= threshold
    by_class = {}
    for label, name in enumerate(CLASSES):
        if boxes.objects[label]:
            own = shown & (boxes.labels == label)
            hits = boxes.right[own].sum()
            by_class[name] = (
                float(hits / own.sum()) if own.any() else 0.0,
                float(hits / boxes.objects[label]),
            )
    hits = boxes.right[shown].sum()
    return Published(
        threshold, float(hits / shown.sum()), float(hits / boxes.objects.sum()), by_class
    )


def reliability(boxes, calibration, bins=10):
    """Rows (mean score, share that was right, number) of boxes by score, empty bins left out."""
    scores = calibration.scores(boxes.logits, boxes.labels)
    place = np.minimum((scores * bins).astype(int), bins - 1)
    return [
        (float(scores[own].mean()), float(boxes.right[own].mean()), int(own.sum()))
        for own in (place == bin_ for bin_ in range(bins))
        if own.any()
    ]

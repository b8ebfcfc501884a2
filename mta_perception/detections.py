"""What flows out of the detector, and how the raw network output becomes it."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.geometry import Array

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# Objects above this are drawn, and described first.  Those below are published all the same: who
# weighs scores (a planner, the mAP) finds more with them than without.
SURE_SCORE = 0.35


class Past(Protocol):
    """What a detector reads of the past: pipeline.bev_memory.History."""

    @property
    def bev(self) -> Any:
        """(C, Y, X) as the engine returned it, numpy or torch; None where not valid."""

    @property
    def valid(self) -> bool: ...

    @property
    def ego_prev_from_ego_now(self) -> Array: ...


class DetectorOutputs(NamedTuple):
    """Raw outputs of the detector graph, batch 1 squeezed away."""

    class_logits: Floats  # (Q, K) float32, K = len(contract.CLASSES)
    boxes: Floats  # (Q, 10) float32, contract.BoxCode, ego frame at reference stamp
    object_features: Floats  # (Q, F) float32, what the captioner reads
    bev: Floats  # (C, Y, X) float32, cell [iy, ix]: ix grows with +x, iy with +y


class Detections(NamedTuple):
    """Decoded objects, best first."""

    boxes: Floats  # (K, 10) float32, contract.BoxCode, ego frame
    labels: Rows  # (K,) int64, index into contract.CLASSES
    scores: Floats  # (K,) float32 in [0, 1], descending
    queries: Rows  # (K,) int64, row of DetectorOutputs each came from


class CaptionInputs(NamedTuple):
    """What the captioner is told about K objects of one frame."""

    object_features: Floats  # (K, F) float32
    boxes: Floats  # (K, 10) float32, contract.BoxCode
    class_logits: Floats  # (K, 10) float32
    bev: Floats  # (C, Y, X) float32, shared by the objects

    def take(self, rows: Rows | NDArray[np.bool_]) -> 'CaptionInputs':
        """The same of the objects `rows` (indices or mask)."""
        return CaptionInputs(
            self.object_features[rows], self.boxes[rows], self.class_logits[rows], self.bev
        )


def caption_inputs(outputs: DetectorOutputs, detections: Detections) -> CaptionInputs:
    """Of decoded detections, row for row."""
    rows = detections.queries
    return CaptionInputs(
        outputs.object_features[rows], detections.boxes, outputs.class_logits[rows], outputs.bev
    )


def told_track(inputs: CaptionInputs, detections: Detections) -> CaptionInputs:
    """The captioner is told class and velocity of the tracks, as they are published beside its
    sentences: the best logit changes places.  Of a velocity that is not known, the detector's."""
    labels, logits = detections.labels, inputs.class_logits.copy()
    rows, best = np.arange(len(labels)), inputs.class_logits.argmax(axis=1)
    logits[rows, best] = inputs.class_logits[rows, labels]
    logits[rows, labels] = inputs.class_logits[rows, best]
    boxes, velocity = inputs.boxes.copy(), detections.boxes[:, BoxCode.VELOCITY]
    known = np.isfinite(velocity).all(axis=1)
    boxes[known, BoxCode.VELOCITY] = velocity[known]
    return inputs._replace(class_logits=logits, boxes=boxes)


class Calibration(NamedTuple):
    """What makes probabilities of logits: a logistic curve a class."""

    slopes: Array  # (K,)
    offsets: Array  # (K,)

    def scores(self, logits: Array, labels: Rows) -> Array:
        """(n,) probabilities of logits (n,) of the classes `labels` (n,)."""
        exponent: Array = self.slopes[labels] * logits + self.offsets[labels]
        probability: Array = 1.0 / (1.0 + np.exp(-exponent))
        return probability


UNCALIBRATED = Calibration(np.ones(len(CLASSES)), np.zeros(len(CLASSES)))


def decode(
    outputs: DetectorOutputs,
    score_threshold: float,
    max_detections: int,
    calibration: Calibration = UNCALIBRATED,
) -> Detections:
    """Best class per query, above the threshold, best first: no NMS (BEVFormer's NMSFreeCoder with
    one label a query, so that one object has one caption).  The class is the one with the highest
    logit, its score what the calibration makes of that."""
    logits = outputs.class_logits.astype(np.float64)
    labels = logits.argmax(axis=1)
    best = calibration.scores(logits[np.arange(len(logits)), labels], labels)
    finite = np.isfinite(outputs.boxes).all(axis=1) & np.isfinite(best)
    order = np.argsort(-best, kind='stable')
    order = order[(best[order] >= score_threshold) & finite[order]][:max_detections]
    return Detections(
        outputs.boxes[order],
        labels[order].astype(np.int64),
        best[order].astype(np.float32),
        order.astype(np.int64),
    )

"""Scores as probabilities: a known curve is found again, and the threshold is the best one."""

import numpy as np
import pytest

pytest.importorskip('torch')

from mta_perception.contract import CLASSES
from mta_perception.detections import UNCALIBRATED, DetectorOutputs, decode
from mta_training.export.score_calibration import (
    Judged,
    fit,
    judge,
    judged,
    publish,
    reliability,
)


def drawn(slope=2.0, offset=0.5, count=4000, seed=0, classes=(0, 8)):
    """Boxes that are right as often as a logistic curve says; the rest of the objects missed."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.0, 1.5, count)
    right = rng.random(count) < 1.0 / (1.0 + np.exp(-(slope * logits + offset)))
    labels = rng.choice(classes, count)
    objects = np.bincount(labels[right], minlength=len(CLASSES)) + 50
    return Judged(logits, labels, right, objects)


def test_a_known_curve_is_found_again():
    curves = fit(drawn())
    np.testing.assert_allclose(curves.slopes[[0, 8]], 2.0, atol=0.25)
    np.testing.assert_allclose(curves.offsets[[0, 8]], 0.5, atol=0.25)


def test_a_class_that_nobody_saw_gets_the_curve_of_all():
    curves = fit(drawn())
    assert curves.slopes[3] == pytest.approx(curves.slopes[4])
    assert abs(curves.slopes[3] - curves.slopes[0]) < 0.3


def test_calibrated_scores_are_how_often_boxes_are_right():
    boxes, fresh = drawn(seed=1), drawn(seed=2)
    for score, right, number in reliability(fresh, fit(boxes)):
        assert right == pytest.approx(score, abs=0.03 + 2.0 / number**0.5)


def test_no_other_threshold_has_a_better_f1():
    boxes = drawn()
    curves = fit(boxes)
    best = publish(boxes, curves)
    scores = curves.scores(boxes.logits, boxes.labels)

    def f1(threshold):
        shown = scores >= threshold
        return 2.0 * boxes.right[shown].sum() / (shown.sum() + boxes.objects.sum())

    assert all(f1(other) <= f1(best.threshold) + 1e-9 for other in np.linspace(0.02, 0.98, 97))
    hits = boxes.right[scores >= best.threshold].sum()
    assert best.recall == pytest.approx(hits / boxes.objects.sum())


def test_nothing_right_leaves_scores_alone():
    boxes = drawn()
    assert fit(boxes._replace(right=np.zeros_like(boxes.right))) is UNCALIBRATED


def outputs(boxes, logits):
    """DetectorOutputs of boxes (n, 10) whose best class is car."""
    scores = np.full((len(boxes), len(CLASSES)), -9.0, np.float32)
    scores[:, 0] = logits
    return DetectorOutputs(scores, boxes.astype(np.float32), boxes, np.zeros((1, 2, 2)))


def test_one_object_makes_one_box_right_and_far_ones_do_not_count():
    boxes = np.zeros((4, 10))
    boxes[:, 0] = 10.0, 10.5, 20.0, 60.0  # two on one car, one on nothing, one out of range
    boxes[:, 7] = 1.0
    true, labels = boxes[[0, 3]], np.array([0, 0])
    logits, _, right, objects = judge(outputs(boxes, [2.0, 1.0, 3.0, 4.0]), true, labels)
    assert sorted(zip(logits.tolist(), right.tolist())) == [
        (1.0, False),
        (2.0, True),
        (3.0, False),
    ]
    assert objects.tolist() == [1] + [0] * 9
    assert judged([(logits, np.zeros(3, int), right, objects)] * 2).objects[0] == 2


def test_decoding_keeps_the_class_and_scores_by_its_curve():
    boxes = np.zeros((1, 10))
    curves = UNCALIBRATED._replace(offsets=np.full(len(CLASSES), 1.5))
    found = decode(outputs(boxes, [-1.5]), 0.4, 9, curves)
    assert found.labels.tolist() == [0] and found.scores[0] == pytest.approx(0.5)
    assert not len(decode(outputs(boxes, [-1.5]), 0.4, 9).scores)

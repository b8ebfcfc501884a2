"""Codes there and back, matching and losses against loops."""

from itertools import permutations
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from small_bevformer import small_config

from mta_perception.contract import BoxCode
from mta_perception.model.bevformer import Output
from mta_perception.model.bevformer.network import BEVFormer
from mta_training.losses.bevformer import Targets, detection_loss
from mta_training.losses.bevformer_codes import LIDAR_FROM_EGO, in_range, lidar_codes
from mta_training.losses.nano import assign

WEIGHTS = torch.tensor([1.0] * 8 + [0.2] * 2)


def some_boxes(count, seed=0):
    """Boxes (count, 10) in the ego frame."""
    rng = np.random.default_rng(seed)
    yaw = rng.uniform(-np.pi, np.pi, count)
    return np.column_stack(
        [
            rng.uniform(-40, 40, (count, 2)),
            rng.uniform(0, 2, count),
            rng.uniform(0.4, 9, (count, 3)),
            np.sin(yaw),
            np.cos(yaw),
            rng.uniform(-9, 9, (count, 2)),
        ]
    )


def some_targets(count, seed=0):
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 10, count))
    return Targets(torch.from_numpy(lidar_codes(some_boxes(count, seed))), labels)


def some_output(targets, queries=7, layers=3, seed=0):
    """An Output whose codes are near the targets, in another order in each layer."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, len(targets), queries, 10, generator=generator)
    codes = torch.randn(layers, len(targets), queries, 10, generator=generator) * 3.0
    for layer in range(layers):
        for index, frame in enumerate(targets):
            order = torch.randperm(queries, generator=generator)[: len(frame.codes)]
            codes[layer, index, order] += frame.codes[: len(order)]
    return Output(None, logits.requires_grad_(), codes.requires_grad_(), None, None)


def test_code_of_a_car_ahead():
    """Ten metres before the lidar, heading left: in mmdet3d's old convention by hand."""
    car = np.array([[10.94, 0.0, 1.84, 4.6, 1.9, 1.6, 1.0, 0.0, 0.0, 3.0]])
    code = lidar_codes(car)[0]
    psi = math.pi  # leftwards = -x of the lidar, whose x is right
    t = -psi - math.pi / 2.0
    np.testing.assert_allclose(
        code,
        [
            0.0,
            10.0,
            math.log(1.9),
            math.log(4.6),
            0.0,
            math.log(1.6),
            math.sin(t),
            math.cos(t),
            -3.0,
            0.0,
        ],
        atol=1e-6,
    )


def test_network_decodes_what_codes_say():
    """BEVFormer.decode gives the box that was encoded: bottom, w, l, h, old yaw."""
    boxes = some_boxes(1, seed=3)
    codes = torch.from_numpy(lidar_codes(boxes)).view(1, 1, 1, 10)
    logits = torch.full((1, 1, 1, 10), -9.0)
    logits[..., 4] = 9.0
    model = torch.nn.Module()
    model.config = small_config()
    found = BEVFormer.decode(model, Output(None, logits, codes, None, None))[0]
    assert int(found.labels[0]) == 4
    x, y, bottom, width, length, height, yaw = found.boxes[0, :7].tolist()
    place = (LIDAR_FROM_EGO @ [*boxes[0, :3], 1.0])[:3]
    np.testing.assert_allclose([x, y, bottom + height / 2], place, atol=1e-4)
    np.testing.assert_allclose([length, width, height], boxes[0, BoxCode.SIZE], rtol=1e-5)
    psi = math.atan2(boxes[0, 6], boxes[0, 7]) + math.pi / 2.0  # lidar x is ego -y
    assert math.cos(psi - (-yaw - math.pi / 2.0)) == pytest.approx(1.0, abs=1e-6)


def test_unknown_velocity_is_learned_as_standing():
    boxes = some_boxes(2)
    boxes[0, BoxCode.VELOCITY] = np.nan
    codes = lidar_codes(boxes)
    assert np.isfinite(codes).all() and (codes[0, 8:] == 0).all() and (codes[1, 8:] != 0).all()


def test_range_is_that_of_the_lidar_frame():
    boxes = np.zeros((4, 10))
    boxes[:, 3:6], boxes[:, 7] = 1.0, 1.0
    boxes[:, 0] = 52.0, -51.0, 0.0, 0.0  # the lidar is 0.94 m ahead of the ego's origin
    boxes[:, 1] = 0.0, 0.0, 51.0, 51.3
    assert in_range(boxes, small_config()).tolist() == [True, False, True, False]


def slow_cost(logits, code, label, goal):
    p = 1.0 / (1.0 + math.exp(-float(logits[label])))
    focal = -math.log(p + 1e-12) * 0.25 * (1 - p) ** 2 + math.log(1 - p + 1e-12) * 0.75 * p**2
    return 2.0 * focal + 0.25 * sum(abs(float(a) - float(b)) for a, b in zip(code[:8], goal[:8]))


@pytest.mark.parametrize('queries, objects', [(6, 3), (3, 5), (4, 4)])
def test_matching_is_the_cheapest_of_all(queries, objects):
    frame = some_targets(objects, seed=1)
    output = some_output([frame], queries, layers=1)
    logits, codes = output.class_logits[0, 0].detach(), output.box_codes[0, 0].detach()
    cost = [
        [
            slow_cost(logits[q], codes[q], int(frame.labels[n]), frame.codes[n])
            for n in range(objects)
        ]
        for q in range(queries)
    ]
    few = min(queries, objects)
    if queries >= objects:
        best = min(
            sum(cost[q][n] for n, q in enumerate(chosen))
            for chosen in permutations(range(queries), few)
        )
    else:
        best = min(
            sum(cost[q][n] for q, n in enumerate(chosen))
            for chosen in permutations(range(objects), few)
        )
    found, chosen = assign(logits, codes, frame.labels, frame.codes)
    assert len(set(found)) == len(set(chosen)) == few
    assert sum(cost[q][n] for q, n in zip(found, chosen)) == pytest.approx(best, abs=1e-4)


def slow_losses(output, targets):
    """Loops over layers, samples, queries, classes, columns."""
    scores, boxes = [], []
    for logits, codes in zip(output.class_logits.tolist(), output.box_codes.tolist()):
        focal = distance = positives = 0.0
        for index, frame in enumerate(targets):
            pairs = dict(
                zip(
                    *(
                        side.tolist()
                        for side in assign(
                            torch.tensor(logits[index]),
                            torch.tensor(codes[index]),
                            frame.labels,
                            frame.codes,
                        )
                    )
                )
            )
            positives += len(pairs)
            for query, row in enumerate(logits[index]):
                label = int(frame.labels[pairs[query]]) if query in pairs else 10
                for number, logit in enumerate(row):
                    p = 1.0 / (1.0 + math.exp(-logit))
                    focal += (
                        -0.25 * (1 - p) ** 2 * math.log(p)
                        if number == label
                        else -0.75 * p**2 * math.log(1 - p)
                    )
                if query in pairs:
                    goal = frame.codes[pairs[query]].tolist()
                    if all(math.isfinite(value) for value in goal):
                        distance += sum(
                            abs(a - b) * weight
                            for a, b, weight in zip(
                                codes[index][query], goal, [1.0] * 8 + [0.2] * 2
                            )
                        )
        scores.append(2.0 * focal / max(positives, 1.0))
        boxes.append(0.25 * distance / max(positives, 1.0))
    return scores, boxes


def test_losses_equal_loops():
    targets = [some_targets(4, 0), some_targets(2, 1), some_targets(0, 2), some_targets(9, 3)]
    output = some_output(targets)
    loss = detection_loss(output, targets, WEIGHTS)
    scores, boxes = slow_losses(output, targets)
    np.testing.assert_allclose(loss.scores.tolist(), scores, rtol=1e-5)
    np.testing.assert_allclose(loss.boxes.tolist(), boxes, rtol=1e-5)
    assert float(loss.total.detach()) == pytest.approx(sum(scores) + sum(boxes), rel=1e-5)
    loss.total.backward()
    touched = output.box_codes.grad.abs().sum(-1) > 0
    assert touched.sum((1, 2)).tolist() == [4 + 2 + 0 + 7] * 3  # every layer, matched alone
    assert (output.class_logits.grad != 0).all()


def test_rows_that_are_not_finite_teach_no_box_but_count():
    targets = [some_targets(4)]
    targets[0].codes[1, 8] = float('nan')
    output = some_output(targets)
    loss = detection_loss(output, targets, WEIGHTS)
    scores, boxes = slow_losses(output, targets)
    np.testing.assert_allclose(loss.boxes.tolist(), boxes, rtol=1e-5)
    np.testing.assert_allclose(loss.scores.tolist(), scores, rtol=1e-5)
    loss.total.backward()
    assert torch.isfinite(output.box_codes.grad).all()
    assert (output.box_codes.grad.abs().sum(-1) > 0).sum((1, 2)).tolist() == [3] * 3


def test_frames_without_objects_divide_by_one():
    output = some_output([some_targets(0)])
    loss = detection_loss(output, [some_targets(0)], WEIGHTS)
    assert float(loss.boxes.detach().sum()) == 0.0 and float(loss.scores.detach().min()) > 1.0


def test_positives_are_averaged_over_processes():
    targets = [some_targets(4)]
    output = some_output(targets)
    alone = detection_loss(output, targets, WEIGHTS)
    together = detection_loss(output, targets, WEIGHTS, average=lambda count: count / 2.0)
    assert float(together.total.detach()) == pytest.approx(2.0 * float(alone.total.detach()))


def test_losses_that_are_not_finite_become_numbers():
    targets = [some_targets(3)]
    output = some_output(targets)
    with torch.no_grad():
        output.class_logits[1, 0, 2, 5] = float('nan')
        output.box_codes[2].fill_(float('inf'))
    loss = detection_loss(output, targets, WEIGHTS)
    assert torch.isfinite(loss.total) and float(loss.scores[1].detach()) == 0.0

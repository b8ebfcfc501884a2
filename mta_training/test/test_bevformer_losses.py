"""Codes there and back, matching and losses against loops, light and squares against loops."""

from itertools import permutations
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')

import cv2
from small_bevformer import small_config

from mta_perception.contract import BoxCode
from mta_perception.model.bevformer import Output
from mta_perception.model.bevformer.network import BEVFormer
from mta_training.bevformer.augmentation import GridMask, distort, distort_cameras
from mta_training.losses.bevformer import Targets, detection_loss
from mta_training.losses.bevformer_codes import LIDAR_FROM_EGO, ego_boxes, in_range, lidar_codes
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


def test_codes_there_and_back():
    boxes = some_boxes(20)
    np.testing.assert_allclose(ego_boxes(lidar_codes(boxes)), boxes, atol=2e-5)


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


def slow_mask(height, width, spacing, stripe, row, column):
    """As published: zeros drawn into 1.5 x the image, its middle cut out, turned over."""
    tall, wide = int(1.5 * height), int(1.5 * width)
    canvas = np.ones((tall, wide))
    for i in range(tall // spacing):
        for y in range(spacing * i + row, min(spacing * i + row + stripe, tall)):
            canvas[y] = 0
    for i in range(wide // spacing):
        for x in range(spacing * i + column, min(spacing * i + column + stripe, wide)):
            canvas[:, x] = 0
    top, left = (tall - height) // 2, (wide - width) // 2
    return 1 - canvas[top : top + height, left : left + width]


class Dice:
    """A generator that keeps what it gave."""

    def __init__(self, seed):
        self.rng, self.given = np.random.default_rng(seed), []

    def random(self):
        return 0.0

    def integers(self, *limits):
        self.given.append(int(self.rng.integers(*limits)))
        return self.given[-1]


@pytest.mark.parametrize('seed', range(20))
def test_grid_mask_equals_drawing(seed):
    dice = Dice(seed)
    mask = GridMask().draw(48, 81, dice)
    spacing, row, column = dice.given
    stripe = min(max(int(spacing * 0.5 + 0.5), 1), spacing - 1)
    np.testing.assert_array_equal(mask, slow_mask(48, 81, spacing, stripe, row, column))


def test_grid_mask_keeps_three_quarters_seven_times_in_ten():
    rng = np.random.default_rng(0)
    masks = [GridMask().draw(96, 160, rng) for _ in range(1500)]
    drawn = [mask for mask in masks if mask is not None]
    assert len(drawn) / len(masks) == pytest.approx(0.7, abs=0.04)
    assert np.mean([mask.mean() for mask in drawn]) == pytest.approx(0.75, abs=0.05)
    assert {float(value) for mask in drawn for value in np.unique(mask)} == {0.0, 1.0}


def slow_distort(image, dice):
    """One pixel at a time, with the numbers in the order `distort` draws them."""
    height, width, _ = image.shape
    image = image.astype(np.float64)
    if dice.random() < 0.5:
        image = image + dice.uniform(-32.0, 32.0)
    first = dice.random() < 0.5
    if first and dice.random() < 0.5:
        image = image * dice.uniform(0.5, 1.5)
    saturation = dice.uniform(0.5, 1.5) if dice.random() < 0.5 else 1.0
    hue = dice.uniform(-18.0, 18.0) if dice.random() < 0.5 else 0.0
    for v in range(height):
        for u in range(width):
            image[v, u] = _shift_colour(*image[v, u], saturation, hue)
    if not first and dice.random() < 0.5:
        image = image * dice.uniform(0.5, 1.5)
    if dice.random() < 0.5:
        image = image[..., dice.permutation(3)]
    return image


def _shift_colour(blue, green, red, saturation, turn):
    value, low = max(blue, green, red), min(blue, green, red)
    span = value - low
    if span == 0:
        hue = 0.0
    elif value == red:
        hue = 60.0 * (green - blue) / span
    elif value == green:
        hue = 120.0 + 60.0 * (blue - red) / span
    else:
        hue = 240.0 + 60.0 * (red - green) / span
    share = span / abs(value) * saturation if value else 0.0
    sector = ((hue + turn) % 360.0) / 60.0
    whole, part = int(sector), sector - int(sector)
    p, q, t = (value * (1 - share * x) for x in (1.0, part, 1.0 - part))
    red, green, blue = [
        (value, t, p),
        (q, value, p),
        (p, value, t),
        (p, q, value),
        (t, p, value),
        (value, p, q),
    ][whole % 6]
    return blue, green, red


@pytest.mark.parametrize('seed', range(16))
def test_distortion_equals_pixel_by_pixel(seed):
    image = np.random.default_rng(100 + seed).uniform(40, 250, (5, 6, 3)).astype(np.float32)
    before = image.copy()
    got = distort(image, np.random.default_rng(seed))
    np.testing.assert_allclose(got, slow_distort(image, np.random.default_rng(seed)), atol=0.05)
    np.testing.assert_array_equal(image, before)


def test_each_distortion_comes_half_of_the_time():
    grey = np.full((2, 2, 3), 100.0, np.float32)
    rng = np.random.default_rng(0)
    results = [distort(grey, rng)[0, 0, 0] for _ in range(1200)]
    untouched = np.mean(np.abs(np.array(results) - 100.0) < 1e-3)
    assert untouched == pytest.approx(0.25, abs=0.04)  # neither brightness nor contrast
    assert 34.0 <= min(results) < 46.0 and 180.0 < max(results) <= 198.0


def test_cameras_differ_and_colours_keep_their_place():
    rng = np.random.default_rng(5)
    images = np.tile(np.array([200, 90, 30], np.uint8), (6, 4, 4, 1))
    lit = distort_cameras(images, rng)
    assert lit.dtype == np.float32 and lit.shape == images.shape
    assert len({round(float(camera[0, 0, 1]), 3) for camera in lit}) > 3

    class Never:
        def random(self):
            return 1.0

    np.testing.assert_allclose(distort_cameras(images, Never()), images, atol=1e-3)
    assert cv2.cvtColor(images[0], cv2.COLOR_RGB2BGR)[0, 0, 0] == 30

"""Losses against slow obvious versions, and their minima where they belong."""

from itertools import permutations

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mta_perception.contract import CLASSES
from mta_perception.model.config import BevConfig
from mta_perception.model.grid import metres_to_cells
from mta_perception.model.nano.detection_decoder import DecoderOutputs, codes_from_boxes
from mta_training.data.targets import Targets
from mta_training.losses.nano import (
    code_loss,
    dense_targets,
    detection_loss,
    heat_loss,
    match,
)

BEV = BevConfig(cells=20, channels=8, heads=2)


def targets(count, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.zeros((count, 10), np.float32)
    boxes[:, :2] = rng.uniform(-45, 45, (count, 2))
    boxes[:, 3:6] = rng.uniform(0.5, 5, (count, 3))
    yaw = rng.uniform(-3, 3, count)
    boxes[:, 6], boxes[:, 7] = np.sin(yaw), np.cos(yaw)
    return Targets(torch.tensor(boxes), torch.tensor(rng.integers(0, 10, count)))


def perfect_stages(frames, noise=0.0):
    """Stages whose queries are the objects, surely, and whose dense maps are the targets."""
    generator = torch.Generator().manual_seed(0)
    dense = [dense_targets(frame, BEV) for frame in frames]
    heat = torch.stack([part[0] for part in dense])
    codes = torch.stack([part[1] for part in dense])
    queries = 12
    logits = torch.full((2, len(frames), queries, 10), -9.0)
    layer_codes = torch.zeros(2, len(frames), queries, 10)
    for index, frame in enumerate(frames):
        count = len(frame.labels)
        logits[:, index, torch.arange(count), frame.labels] = 9.0
        layer_codes[:, index, :count] = codes_from_boxes(frame.boxes)
    layer_codes += noise * torch.randn(layer_codes.shape, generator=generator)
    return DecoderOutputs(
        torch.where(heat > 0.999, 9.0, -9.0), codes, logits, layer_codes, None, None
    )


def test_dense_targets_stand_where_the_objects_are():
    frame = targets(8)
    heat, codes, weights = dense_targets(frame, BEV)
    for box, label in zip(frame.boxes, frame.labels):
        ix, iy = metres_to_cells(box[:2], BEV).round().int().tolist()
        assert heat[label, iy, ix] == 1.0 and weights[iy, ix] == 1.0
    assert int((heat > 0.999).sum()) <= 8
    assert set(np.round(weights.unique().tolist(), 6)) == {0.0, 0.3, 1.0}
    assert torch.isfinite(codes).all()


def test_objects_outside_the_grid_are_no_dense_targets():
    frame = targets(1)
    frame.boxes[0, 0] = 60.0
    heat, _, weights = dense_targets(frame, BEV)
    assert heat.sum() == 0 and weights.sum() == 0


def test_heat_loss_is_least_at_the_target():
    heat, _, _ = dense_targets(targets(5), BEV)
    right = heat_loss(torch.where(heat > 0.999, 8.0, -8.0), heat)
    assert right < 0.01
    missed = torch.where(heat > 0.999, 8.0, -8.0)
    peak = torch.nonzero(heat > 0.999)[0]
    missed[tuple(peak)] = -8.0
    invented = torch.where(heat > 0.999, 8.0, -8.0)
    invented[3, 0, 0] = 8.0
    assert heat_loss(missed, heat) > 1.0 and heat_loss(invented, heat) > 1.0


def test_unknown_velocity_costs_nothing_and_gives_no_nan():
    goal = torch.zeros(1, 10)
    goal[0, 8:] = float('nan')
    codes = torch.ones(1, 10, requires_grad=True)
    loss = code_loss(codes, goal).sum()
    loss.backward()
    assert float(loss.detach()) == 8.0
    assert torch.isfinite(codes.grad).all() and (codes.grad[0, 8:] == 0).all()


def test_match_is_the_cheapest_assignment():
    generator = torch.Generator().manual_seed(1)
    frame = targets(3, seed=1)
    logits = torch.randn(5, 10, generator=generator)
    codes = codes_from_boxes(frame.boxes)[torch.tensor([2, 0, 1, 1, 0])]
    codes = codes + torch.randn(5, 10, generator=generator)

    def cost(query, thing):
        p = torch.sigmoid(logits[query, frame.labels[thing]])
        focal = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
        distance = (codes[query] - codes_from_boxes(frame.boxes)[thing])[:8].abs().sum()
        return float(2.0 * focal + 0.25 * distance)

    queries, objects = match(logits, codes, frame)
    got = sum(cost(q, o) for q, o in zip(queries, objects))
    best = min(
        sum(cost(q, o) for o, q in enumerate(chosen)) for chosen in permutations(range(5), 3)
    )
    assert got == pytest.approx(best, abs=1e-4)


def test_perfect_result_costs_almost_nothing_and_noise_more():
    frames = [targets(6, 2), targets(3, 3)]
    perfect = detection_loss(perfect_stages(frames), frames, BEV)
    noisy = detection_loss(perfect_stages(frames, noise=0.5), frames, BEV)
    assert float(perfect.total) < 0.05
    assert float(noisy.total) > float(perfect.total) + 0.5
    for (queries, objects), frame in zip(perfect.matches, frames):
        np.testing.assert_array_equal(np.sort(objects), np.arange(len(frame.labels)))
        np.testing.assert_array_equal(queries, objects)


def test_frames_without_objects_are_fine():
    empty = Targets(torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64))
    loss = detection_loss(perfect_stages([empty]), [empty], BEV)
    assert torch.isfinite(loss.total) and len(loss.matches[0][0]) == 0


def test_class_order_is_the_contracts():
    heat, _, _ = dense_targets(targets(4), BEV)
    assert len(heat) == len(CLASSES) == 10

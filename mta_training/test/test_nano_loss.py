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
from mta_training.losses.dense_targets import bev_targets, pad_objects
from mta_training.losses.nano import (
    detection_loss,
    heat_loss,
    match,
    velocity_loss,
)

SMALL = ('barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone')
BEV = BevConfig(cells=20, channels=8, heads=2)


def targets(count, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.zeros((count, 10), np.float32)
    boxes[:, :2] = rng.uniform(-45, 45, (count, 2))
    boxes[:, 3:6] = rng.uniform(0.5, 5, (count, 3))
    yaw = rng.uniform(-3, 3, count)
    boxes[:, 6], boxes[:, 7] = np.sin(yaw), np.cos(yaw)
    return Targets(torch.tensor(boxes), torch.tensor(rng.integers(0, 10, count)))


def dense_targets(frame, bev):
    """Heat, codes and weights of one frame."""
    return (part[0] for part in bev_targets(pad_objects([frame], 'cpu'), bev))


def perfect_stages(frames, noise=0.0):
    """Stages whose queries are the objects, surely, and whose dense maps are the targets."""
    generator = torch.Generator().manual_seed(0)
    heat, codes, _ = bev_targets(pad_objects(frames, 'cpu'), BEV)
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


def test_dense_targets_are_those_of_a_loop_over_cells():
    """Against the obvious version, for a batch of unequal frames."""
    frames = [targets(30, 5), targets(0), targets(7, 6)]
    heat, codes, weights = bev_targets(pad_objects(frames, 'cpu'), BEV)
    for number, frame in enumerate(frames):
        places = metres_to_cells(frame.boxes[:, :2], BEV)
        internal = codes_from_boxes(frame.boxes)
        for iy in range(BEV.cells):
            for ix in range(BEV.cells):
                near = [
                    (float((places[k] - torch.tensor([ix, iy])).square().sum()), k)
                    for k in range(len(places))
                    if (places[k].round() - torch.tensor([ix, iy])).abs().max() <= 1
                ]
                if near:
                    k = min(near)[1]
                    own = places[k].round().tolist() == [ix, iy]
                    assert weights[number, iy, ix] == pytest.approx(1.0 if own else 0.3)
                    torch.testing.assert_close(codes[number, :, iy, ix], internal[k])
                else:
                    assert weights[number, iy, ix] == 0.0
        for label in range(10):
            wanted = torch.zeros(BEV.cells, BEV.cells)
            for k in torch.nonzero(frame.labels == label).flatten().tolist():
                x, y = places[k].tolist()
                ix, iy = places[k].round().int().tolist()
                sigma = 0.55 if CLASSES[label] in SMALL else 0.9
                for row in range(max(iy - 3, 0), min(iy + 4, BEV.cells)):
                    for column in range(max(ix - 3, 0), min(ix + 4, BEV.cells)):
                        square = (column - x) ** 2 + (row - y) ** 2
                        value = np.exp(-square / (2 * sigma * sigma))
                        wanted[row, column] = max(float(wanted[row, column]), value)
                wanted[iy, ix] = 1.0
            torch.testing.assert_close(heat[number, label], wanted, atol=1e-5, rtol=1e-4)


def test_unknown_velocity_costs_nothing_and_gives_no_nan():
    goal = torch.tensor([[float('nan'), 1.0], [3.0, 0.0]])
    velocities = torch.ones(2, 2, requires_grad=True)
    loss = velocity_loss(velocities, goal, torch.ones(2))
    loss.backward()
    assert torch.isfinite(velocities.grad).all() and (velocities.grad[0] == 0).all()


def test_believing_that_everything_stands_is_not_the_best_guess_of_a_mostly_standing_world():
    """One of ten moves at 8 m/s: the same guess for all costs less away from zero, where the
    median, and so a plain L1 loss, has it at zero."""
    goals = torch.zeros(10, 2)
    goals[0, 0] = 8.0
    costs = {}
    for guess in (0.0, 1.0, 2.0):
        believed = torch.zeros(10, 2)
        believed[:, 0] = guess
        costs[guess] = float(velocity_loss(believed, goals, torch.ones(10)))
    assert costs[1.0] < costs[0.0]


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

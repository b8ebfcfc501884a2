"""Detection losses: a dense centre heatmap with boxes, and set prediction for every decoder layer.

The dense part is what makes a small model learn in minutes (CenterPoint, Yin et al., CVPR 2021);
the set loss is DETR's Hungarian matching with BEVFormer's costs and weights.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
import torch
from torch.nn import functional

from mta_perception.contract import CLASSES
from mta_perception.model.grid import metres_to_cells
from mta_perception.model.nano.detection_decoder import codes_from_boxes
from mta_training.process_group import ProcessGroup

_ALONE = ProcessGroup.alone()

# Per column of the internal code: metres, log sizes, sin, cos, m/s.
CODE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3, 0.3)
_SMALL = ('barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone')
_SIGMA_CELLS = {name: 0.55 if name in _SMALL else 0.9 for name in CLASSES}


class NanoLoss(NamedTuple):
    """Weighted sum, its parts for the log, and who was matched in the last layer."""

    total: torch.Tensor
    parts: dict  # name -> float
    matches: list  # per frame (queries (m,), objects (m,)) int64 arrays


def dense_targets(targets, bev):
    """Heat (K, Y, X), codes (10, Y, X) and their weights (Y, X) of one frame.

    Heat is a Gaussian with 1.0 at the cell of each centre; codes are given there (weight 1) and in
    the eight cells around (weight 0.3), those of the nearest object.
    """
    cells = bev.cells
    heat = torch.zeros(len(CLASSES), cells, cells)
    codes, weights = torch.zeros(10, cells, cells), torch.zeros(cells, cells)
    object_codes = codes_from_boxes(targets.boxes)
    places = metres_to_cells(targets.boxes[:, :2], bev)
    nearest = torch.full((cells, cells), float('inf'))
    for place, code, label in zip(places, object_codes, targets.labels.tolist()):
        ix, iy = (int(value) for value in place.round())
        if not (0 <= ix < cells and 0 <= iy < cells):
            continue
        rows = slice(max(iy - 3, 0), min(iy + 4, cells))
        columns = slice(max(ix - 3, 0), min(ix + 4, cells))
        y, x = torch.arange(cells)[rows, None], torch.arange(cells)[None, columns]
        square = (x - place[0]).square() + (y - place[1]).square()
        sigma = _SIGMA_CELLS[CLASSES[label]]
        patch = torch.exp(-square / (2.0 * sigma * sigma))
        heat[label, rows, columns] = torch.maximum(heat[label, rows, columns], patch)
        heat[label, iy, ix] = 1.0
        near = ((x - ix).abs() <= 1) & ((y - iy).abs() <= 1) & (square < nearest[rows, columns])
        nearest[rows, columns] = torch.where(near, square, nearest[rows, columns])
        codes[:, rows, columns] = torch.where(near, code[:, None, None], codes[:, rows, columns])
        weight = torch.where((x == ix) & (y == iy), 1.0, 0.3)
        weights[rows, columns] = torch.where(near, weight, weights[rows, columns])
    return heat, codes, weights


def heat_loss(logits, heat):
    """Penalty-reduced focal loss (CornerNet), summed; the caller divides by heat_positives."""
    p = logits.sigmoid()
    positive = heat > 0.999
    log_p, log_not = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    loss = torch.where(
        positive, (1.0 - p).square() * log_p, (1.0 - heat) ** 4 * p.square() * log_not
    )
    return -loss.sum()


def heat_positives(heat):
    """Number of peaks of a heatmap."""
    return int((heat > 0.999).sum())


def focal_loss(logits, goals):
    """Sigmoid focal loss, alpha 0.25, gamma 2, summed (Lin et al. 2017)."""
    p = logits.sigmoid()
    cross = functional.binary_cross_entropy_with_logits(logits, goals, reduction='none')
    miss = torch.where(goals > 0.5, 1.0 - p, p)
    alpha = torch.where(goals > 0.5, 0.25, 0.75)
    return (alpha * miss.square() * cross).sum()


def code_loss(codes, goals):
    """L1 (..., 10) weighted by column; unknown (NaN) goals count nothing."""
    known = torch.isfinite(goals)
    weight = torch.tensor(CODE_WEIGHTS, device=codes.device) * known
    return (codes - torch.where(known, goals, 0.0)).abs() * weight


def match(logits, codes, targets):
    """Hungarian assignment of one frame: (queries (m,), objects (m,)), m = min(Q, n)."""
    return assign(logits, codes, targets.labels, codes_from_boxes(targets.boxes))


def assign(logits, codes, labels, goals):
    """The cheapest pairs of queries (Q, K), (Q, 10) and objects (n,), (n, 10): two index arrays.

    Cost: 2 x focal + 0.25 x L1 over all but the velocity, as BEVFormer.
    """
    if not len(labels):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    p = logits.detach().sigmoid()[:, labels.to(logits.device)]  # (Q, n)
    positive = -(p + 1e-12).log() * 0.25 * (1.0 - p).square()
    negative = -(1.0 - p + 1e-12).log() * 0.75 * p.square()
    distance = torch.cdist(codes.detach()[:, :8], goals.to(codes.device)[:, :8], p=1)
    cost = 2.0 * (positive - negative) + 0.25 * distance
    # A broken network must show as a NaN loss with a clear error, not as a crash in the matcher.
    cost = torch.nan_to_num(cost, nan=1e4, posinf=1e4, neginf=-1e4)
    return linear_sum_assignment(cost.cpu().numpy())


def detection_loss(stages, targets, bev, processes=_ALONE):
    """All detection losses of a batch: `stages` of DetectionDecoder, a Targets per frame.

    Sums are divided by counts over all processes.
    """
    device = stages.heat_logits.device
    dense = [dense_targets(frame, bev) for frame in targets]
    heat, codes, weights = (torch.stack(parts) for parts in zip(*dense))
    peaks, weight, objects = processes.divisors(
        [heat_positives(heat), weights.sum(), sum(len(frame.labels) for frame in targets)]
    )
    heat, codes, weights = heat.to(device), codes.to(device), weights.to(device)
    loss_heat = heat_loss(stages.heat_logits, heat) / peaks
    dense_error = code_loss(stages.dense_codes.permute(0, 2, 3, 1), codes.permute(0, 2, 3, 1))
    loss_dense = (dense_error.sum(-1) * weights).sum() / weight
    loss_score = loss_box = 0.0
    matches = []
    for logits, layer_codes in zip(stages.layer_logits, stages.layer_codes):
        matches = [match(*frame) for frame in zip(logits, layer_codes, targets)]
        goals = torch.zeros_like(logits)
        for index, ((queries, chosen), frame) in enumerate(zip(matches, targets)):
            goals[index, queries, frame.labels[chosen]] = 1.0
            error = code_loss(
                layer_codes[index, queries], codes_from_boxes(frame.boxes[chosen]).to(device)
            )
            loss_box = loss_box + error.sum() / objects
        loss_score = loss_score + focal_loss(logits, goals) / objects
    total = loss_heat + 0.25 * loss_dense + 2.0 * loss_score + 0.25 * loss_box
    parts = {
        name: float(torch.as_tensor(value).detach())
        for name, value in (
            ('heat', loss_heat),
            ('dense', loss_dense),
            ('score', loss_score),
            ('box', loss_box),
        )
    }
    return NanoLoss(total, parts, matches)

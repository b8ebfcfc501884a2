"""Detection losses: a dense centre heatmap with boxes, and set prediction for every decoder layer.

The dense part is what makes a small model learn in minutes (CenterPoint, Yin et al., CVPR 2021);
the set loss is DETR's Hungarian matching with BEVFormer's costs and weights.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
import torch
from torch.nn import functional

from mta_perception.model.nano.detection_decoder import codes_from_boxes
from mta_training.losses.dense_targets import bev_targets, pad_objects
from mta_training.process_group import ProcessGroup

_ALONE = ProcessGroup.alone()

# Per column of the internal code: metres, log sizes, sin, cos; the velocity has a term of its own.
CODE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
MOVING_MPS = 0.5  # what moves counts, all together, as much as what stands
VELOCITY_WEIGHT = 3.0


class NanoLoss(NamedTuple):
    """Weighted sum, its parts for the log, and who was matched in the last layer."""

    total: torch.Tensor
    parts: dict  # name -> float
    matches: list  # per frame (queries (m,), objects (m,)) int64 arrays


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
    """L1 (..., 8) of all but the velocity, weighted by column."""
    weight = torch.tensor(CODE_WEIGHTS, device=codes.device)
    return (codes[..., :8] - goals[..., :8]).abs() * weight


def velocity_loss(velocities, goals, weights, processes=_ALONE):
    """Huber loss between velocities (n, 2) on a logarithmic scale of speed, weighted by (n,).

    Most objects stand, and the least absolute error of a median is zero: with L1 alone every
    object was believed to stand.  So those that move and those that stand count alike, whatever
    their number.  Unknown (NaN) goals count nothing.
    """
    known = torch.isfinite(goals).all(-1)
    goals = torch.where(known.unsqueeze(-1), goals, 0.0)
    moving = goals.norm(dim=-1) > MOVING_MPS
    error = functional.smooth_l1_loss(
        _log_speed(velocities), _log_speed(goals), beta=0.3, reduction='none'
    ).sum(-1)
    shares = [weights * group for group in (known & moving, known & ~moving)]
    counts = processes.divisors([share.sum() for share in shares])
    return 0.5 * sum((error * share).sum() / count for share, count in zip(shares, counts))


def _log_speed(velocity):
    """The same direction, log(1 + speed) long."""
    speed = (velocity.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    return velocity * torch.log1p(speed) / speed


def match(logits, codes, targets):
    """Hungarian assignment of one frame: (queries (m,), objects (m,)), m = min(Q, n)."""
    return assign(logits, codes, targets.labels, codes_from_boxes(targets.boxes))


def assign(logits, codes, labels, goals):
    """The cheapest pairs of queries (Q, K), (Q, 10) and objects (n,), (n, 10): index arrays."""
    if not len(labels):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cost = matching_cost(logits, codes, labels.to(logits.device), goals.to(codes.device))
    return linear_sum_assignment(cost.cpu().numpy())


def matching_cost(logits, codes, labels, goals):
    """Cost (..., Q, n) of queries (..., Q, K), (..., Q, 10) for objects (..., n), (..., n, 10).

    2 x focal + 0.25 x L1 over all but the velocity, as BEVFormer.
    """
    index = labels.unsqueeze(-2).expand(*logits.shape[:-1], labels.shape[-1])
    p = logits.detach().sigmoid().gather(-1, index)
    positive = -(p + 1e-12).log() * 0.25 * (1.0 - p).square()
    negative = -(1.0 - p + 1e-12).log() * 0.75 * p.square()
    distance = torch.cdist(codes.detach()[..., :8], goals[..., :8], p=1)
    cost = 2.0 * (positive - negative) + 0.25 * distance
    # A broken network must show as a NaN loss with a clear error, not as a crash in the matcher.
    return torch.nan_to_num(cost, nan=1e4, posinf=1e4, neginf=-1e4)


def match_layers(stages, objects):
    """[layer][frame] -> (queries (m,), objects (m,)) of a batch of dense_targets.Objects.

    All costs in one go: one by one, a GPU waits for the CPU at every frame and layer.
    """
    layers = len(stages.layer_logits)
    costs = matching_cost(
        stages.layer_logits,
        stages.layer_codes,
        objects.labels.expand(layers, -1, -1),
        codes_from_boxes(objects.boxes).expand(layers, -1, -1, -1),
    ).cpu()
    counts = objects.real.sum(1).tolist()
    return [
        [
            linear_sum_assignment(cost[:, :count].numpy())
            if count
            else (np.zeros(0, np.int64), np.zeros(0, np.int64))
            for cost, count in zip(frames, counts)
        ]
        for frames in costs
    ]


def detection_loss(stages, targets, bev, processes=_ALONE):
    """All detection losses of a batch: `stages` of DetectionDecoder, a Targets per frame.

    Sums are divided by counts over all processes.
    """
    device = stages.heat_logits.device
    padded = pad_objects(targets, device)
    dense = bev_targets(padded, bev)
    peaks, weight, objects = processes.divisors(
        [
            heat_positives(dense.heat),
            dense.weights.sum(),
            sum(len(frame.labels) for frame in targets),
        ]
    )
    loss_heat = heat_loss(stages.heat_logits, dense.heat) / peaks
    told, goals = (
        codes.permute(0, 2, 3, 1)[dense.weights > 0] for codes in (stages.dense_codes, dense.codes)
    )
    weights = dense.weights[dense.weights > 0]
    loss_dense = (code_loss(told, goals).sum(-1) * weights).sum() / weight
    loss_velocity = velocity_loss(told[:, 8:], goals[:, 8:], weights, processes)
    true_codes = codes_from_boxes(padded.boxes)
    loss_score = loss_box = 0.0
    layers = match_layers(stages, padded)
    for logits, layer_codes, matches in zip(stages.layer_logits, stages.layer_codes, layers):
        frame, queries, chosen = _pairs(matches, device)
        goals = torch.zeros_like(logits)
        goals[frame, queries, padded.labels[frame, chosen]] = 1.0
        told, true = layer_codes[frame, queries], true_codes[frame, chosen]
        loss_box = loss_box + code_loss(told, true).sum() / objects
        loss_velocity = loss_velocity + velocity_loss(
            told[:, 8:], true[:, 8:], torch.ones(len(told), device=device), processes
        )
        loss_score = loss_score + focal_loss(logits, goals) / objects
    total = (
        loss_heat
        + 0.25 * loss_dense
        + 2.0 * loss_score
        + 0.25 * loss_box
        + 0.25 * VELOCITY_WEIGHT * loss_velocity
    )
    parts = {
        name: float(torch.as_tensor(value).detach())
        for name, value in (
            ('heat', loss_heat),
            ('dense', loss_dense),
            ('score', loss_score),
            ('box', loss_box),
            ('velocity', loss_velocity),
        )
    }
    return NanoLoss(total, parts, layers[-1])


def _pairs(matches, device):
    """Frame, query and object of every matched pair of a batch, (p,) each."""
    counts = [len(queries) for queries, _ in matches]
    frames = np.repeat(np.arange(len(matches)), counts)
    queries, objects = (np.concatenate(part) for part in zip(*matches))
    return (
        torch.from_numpy(part.astype(np.int64)).to(device) for part in (frames, queries, objects)
    )

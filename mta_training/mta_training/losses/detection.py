"""What a detector's result costs, whichever detector it is.

nano       dense heatmap and boxes, Hungarian matching of each layer, perspective head
BEVFormer  the published set loss (mta_training/mta_training/losses/bevformer.py)
"""

from typing import NamedTuple

import numpy as np
import torch

from mta_training.losses.bevformer import Targets
from mta_training.losses.bevformer import detection_loss as published_loss
from mta_training.losses.bevformer_codes import in_range, lidar_codes
from mta_training.losses.nano import detection_loss
from mta_training.losses.perspective import perspective_loss


class Judged(NamedTuple):
    """Losses of a batch and who was matched."""

    terms: dict  # name -> tensor, unweighted but for the perspective head's share
    log: dict  # name -> float
    matches: list  # per frame (queries (m,), objects (m,)) of the last decoder layer


def judge(model, perspective, result, batch, perspective_weight, team, bf16=True):
    """Judged of a detector's result on a samples.Batch; perspective: head or None."""
    if model.config.detector != 'nano':
        return _published(model.detector.network, result, batch, team)
    with torch.autocast(result.bev.device.type, torch.bfloat16, enabled=bf16):
        aside = perspective_loss(
            perspective,
            result.image_features,
            batch,
            model.config.image,
            model.config.backbone.stride,
            team,
        )
    detection = detection_loss(result.stages, batch.targets, model.config.bev, team)
    return Judged(
        {'detection': detection.total, 'perspective': perspective_weight * aside},
        {
            **detection.parts,
            'detection': float(detection.total.detach()),
            'perspective': float(aside.detach()),
        },
        detection.matches,
    )


def _published(network, result, batch, team):
    device = result.bev.device
    targets, kept = [], []
    for frame in batch.targets:
        boxes = frame.boxes.numpy()
        inside = np.flatnonzero(in_range(boxes, network.config))
        codes = torch.from_numpy(lidar_codes(boxes[inside]))
        targets.append(Targets(codes.to(device), frame.labels[inside].to(device)))
        kept.append(inside)
    loss = published_loss(
        result.output, targets, network.code_weights, lambda count: team.counts([count])[0]
    )
    matches = [
        (queries, inside[objects]) for (queries, objects), inside in zip(loss.matches, kept)
    ]
    return Judged(
        {'detection': loss.total},
        {
            name: float(value.detach())
            for name, value in (
                ('detection', loss.total),
                ('score', loss.scores[-1]),
                ('box', loss.boxes[-1]),
            )
        },
        matches,
    )

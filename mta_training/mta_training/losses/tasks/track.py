"""Loss of the track head: that of a region at each valid frame, and of the links between frames.

Of two neighbouring frames in which the object was found, its own detections belong together, and
no other one of the earlier frame does.
"""

from typing import NamedTuple

import torch
from torch.nn import functional

from mta_perception.model.tasks.region import RegionOutputs
from mta_training.losses.tasks.region import RegionTargets, region_loss
from mta_training.losses.tasks.task_loss import TaskLoss, mean_of


class TrackTargets(NamedTuple):
    """Where the followed object is."""

    # (N, T, Q + 1) bool: the queries that found it in each frame.  A visible object that no query
    # found has none: the pointer is not taught there.
    pointed: torch.Tensor
    boxes: torch.Tensor  # (N, T, 10) true box where it is visible, ego frame of now
    visible: torch.Tensor  # (N, T) bool
    frame_mask: torch.Tensor  # (N, T) bool, False: there is no such frame


def track_loss(outputs, targets, config, weights=None):
    """TrackOutputs, TrackTargets -> TaskLoss; frames that are not there count nothing.

    Of a drive's memory an object is seen in a fifth of the frames: those in which it is not must
    not outvote them.
    """
    visible = targets.visible & targets.frame_mask
    hidden = targets.frame_mask & ~targets.visible
    found = targets.pointed[..., :-1] & visible.unsqueeze(-1)
    pointed = torch.cat([found, hidden.unsqueeze(-1)], dim=-1)  # (N, T, Q + 1)
    loss = region_loss(
        RegionOutputs(*(x.flatten(0, 1) for x in outputs[:4])),
        RegionTargets(pointed.flatten(0, 1), targets.boxes.flatten(0, 1), visible.flatten(0, 1)),
        config,
        weights,
        balanced=True,
    )
    if outputs.links is None:
        return loss
    linked = link_loss(outputs.links, found)
    return TaskLoss(loss.total + linked, {**loss.parts, 'links': float(linked.detach())})


def link_loss(links, found):
    """Balanced BCE of TrackOutputs.links (N, T, Q, Q); found (N, T, Q) bool: the object's own."""
    both = found[:, :-1].any(-1) & found[:, 1:].any(-1)  # (N, T - 1)
    rows = both[..., None, None] & found[:, 1:].unsqueeze(2).expand_as(links[:, :-1])
    right = found[:, :-1].unsqueeze(3).expand_as(rows)
    surprise = functional.binary_cross_entropy_with_logits(
        links[:, :-1], right.to(links.dtype), reduction='none'
    )
    return (mean_of(surprise, rows & right) + mean_of(surprise, rows & ~right)) / 2.0

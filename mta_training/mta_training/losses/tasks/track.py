"""Loss of the track head: that of a region at each valid frame."""

from typing import NamedTuple

import torch

from mta_perception.model.tasks.region import RegionOutputs
from mta_training.losses.tasks.region import RegionTargets, region_loss


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
    return region_loss(
        RegionOutputs(*(x.flatten(0, 1) for x in outputs)),
        RegionTargets(pointed.flatten(0, 1), targets.boxes.flatten(0, 1), visible.flatten(0, 1)),
        config,
        weights,
        balanced=True,
    )

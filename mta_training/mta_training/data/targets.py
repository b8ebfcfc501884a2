"""What a frame holds: the true boxes that losses compare with."""

from typing import NamedTuple

import torch


class Targets(NamedTuple):
    """The objects of one frame."""

    boxes: torch.Tensor  # (n, 10) float32 contract.BoxCode, ego frame; NaN velocity = unknown
    labels: torch.Tensor  # (n,) int64

"""Boxes as numbers of order one, and a box as a word that a language model can be given.

A network's numbers (..., 10): centre over 51.2, 51.2 and 5 m, log of the sizes in metres, sin and
cos, velocity over 10 m/s; contract.BoxCode is metres and m/s.
"""

import torch
from torch import nn

from mta_perception.contract import BoxCode
from mta_perception.model.qformer import CODE_SCALE

_LARGEST_LOG_M = 4.0  # 55 m: nothing on a road is longer, and exp stays finite


def numbers_from_boxes(boxes):
    """BoxCode (..., 10) -> numbers of order one (..., 10)."""
    sizes = boxes[..., BoxCode.SIZE].clamp(min=0.02).log()
    codes = torch.cat([boxes[..., :3], sizes, boxes[..., 6:]], dim=-1)
    return codes / codes.new_tensor(CODE_SCALE)


def boxes_from_numbers(numbers):
    """The way back; sin and cos become a unit vector."""
    numbers = numbers.float()  # under autocast: bfloat16 knows 50 m to a quarter of a metre
    codes = numbers * numbers.new_tensor(CODE_SCALE)
    sizes = codes[..., BoxCode.SIZE].clamp(-_LARGEST_LOG_M, _LARGEST_LOG_M).exp()
    heading = codes[..., BoxCode.HEADING]
    # Not normalised by a plain division: a heading of zero must not become NaN.
    heading = heading / (heading.square().sum(-1, keepdim=True) + 1e-8).sqrt()
    return torch.cat([codes[..., :3], sizes, heading, codes[..., BoxCode.VELOCITY]], dim=-1)


class LocationEncoder(nn.Module):
    """A box as one soft word: the input slot of a box prompt (TPO's loc_encoder)."""

    def __init__(self, width, hidden=None):
        super().__init__()
        hidden = hidden or width
        self.layers = nn.Sequential(
            nn.Linear(BoxCode.WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def forward(self, boxes):
        """(N, 10) -> (N, D)."""
        return self.layers(numbers_from_boxes(boxes))

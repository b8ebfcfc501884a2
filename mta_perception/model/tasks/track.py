"""Track head: the referred object at each frame of the memory.

in   e             (N, T, D)       hidden state at the task token of each frame, oldest first
     objects       (N, T, Q, F)
     boxes         (N, T, Q, 10)   BoxCode in the level ego frame of now, the newest frame
     class_logits  (N, T, Q, K)
     frame_mask    (N, T)          bool, True = there is such a frame
out  pointer       (N, T, Q + 1)   logits, the last = not seen in this frame
     code          (N, T, 10)      BoxCode; zeros where there is no frame

The head of a region at each frame.  TPO's release decodes each frame's token by itself (`layers`
of 0, and `box` direct); here the tokens of all frames attend to each other first, so that a frame
in which the language model was unsure has its neighbours' word.
"""

from typing import NamedTuple

import torch
from torch import nn

from mta_perception.model.tasks.layers import MASKED, EncoderLayer, sine
from mta_perception.model.tasks.region import RegionHead


class TrackOutputs(NamedTuple):
    """As RegionOutputs, for each frame."""

    pointer: torch.Tensor  # (N, T, Q + 1)
    code: torch.Tensor  # (N, T, 10)
    direct: torch.Tensor  # (N, T, 10)
    mended: torch.Tensor  # (N, T, Q, 10)


class TrackHead(nn.Module):
    """Tokens of the frames, told of each other, and a region head for each."""

    def __init__(self, width, object_width, config):
        super().__init__()
        if width % config.heads or width % 2:
            raise ValueError(
                f'track.heads={config.heads} does not divide the width {width} of the task '
                'token; choose a divisor of it.'
            )
        self.config = config
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.heads, 2 * width, 0.0) for _ in range(config.layers)
        )
        self.region = RegionHead(width, object_width, config)

    def forward(self, e, objects, boxes, class_logits, frame_mask):
        """See the head of this file -> TrackOutputs."""
        count, frames, width = e.shape
        if len(self.layers):
            # How many valid frames before now: padding anywhere changes nothing.
            ages = frame_mask.sum(1, keepdim=True) - frame_mask.cumsum(1)  # (N, T)
            position = sine(ages / 64.0, width).to(e.dtype)
            for layer in self.layers:
                e = layer(e, position, frame_mask)
        flat = self.region(
            e.flatten(0, 1), objects.flatten(0, 1), boxes.flatten(0, 1), class_logits.flatten(0, 1)
        )
        pointer, code, direct, mended = (x.unflatten(0, (count, frames)) for x in flat)
        there = frame_mask.unsqueeze(-1)
        none = torch.zeros_like(pointer)
        none[..., :-1] = MASKED
        return TrackOutputs(
            torch.where(there, pointer, none), code * there, direct * there, mended
        )

"""Track head: the referred object at each frame of the memory.

in   e             (N, T, D)       hidden state at the task token of each frame, oldest first
     objects       (N, T, Q, F)
     boxes         (N, T, Q, 10)   BoxCode in the level ego frame of now, the newest frame
     class_logits  (N, T, Q, K)
     frame_mask    (N, T)          bool, True = there is such a frame
out  pointer       (N, T, Q + 1)   logits, the last = not seen in this frame
     code          (N, T, 10)      BoxCode; zeros where there is no frame

The head of a region at each frame.  TPO's release decodes each frame's token by itself (`layers`
of 0, `associate` False, and `box` direct); here the tokens of all frames attend to each other
first, so that a frame in which the language model was unsure has its neighbours' word.

With `associate` frames are told what was pointed at in the frame after them, from now backwards:
p_t(k) ~ exp(<W e_t, W' o_tk>) sum_j p_t+1(j) A_t(k, j), the forward pass of a hidden Markov model.
Its transitions A are how alike two objects of neighbouring frames are; `none` is one more state.
The language model has to know the object now, not anew in every frame.
"""

from typing import NamedTuple, Optional

import torch
from torch import nn

from mta_perception.contract import BoxCode
from mta_perception.model.tasks.layers import MASKED, EncoderLayer, mlp, sine
from mta_perception.model.tasks.region import RegionHead, pointed_box


class TrackOutputs(NamedTuple):
    """As RegionOutputs, for each frame."""

    pointer: torch.Tensor  # (N, T, Q + 1)
    code: torch.Tensor  # (N, T, 10)
    direct: torch.Tensor  # (N, T, 10)
    mended: torch.Tensor  # (N, T, Q, 10)
    # (N, T, Q, Q) logits: object k of frame t is object j of the frame after it
    links: Optional[torch.Tensor] = None


class Links(nn.Module):
    """How alike objects of neighbouring frames are, and what is pointed at by way of that."""

    NEAR_M = 5.0  # a car at 36 km/h goes so far between two key frames

    def __init__(self, object_width, memory):
        super().__init__()
        self.memory = memory
        self.appearance = nn.Sequential(nn.LayerNorm(object_width), nn.Linear(object_width, 32))
        self.alike = mlp(6, 16, 1)
        with torch.no_grad():
            self.alike[-1].weight.zero_()
        # The object is not seen any more; it is still not seen; it is seen again as this one.
        self.turns = nn.Parameter(torch.tensor([-2.0, 2.0, -4.0]))

    def forward(self, objects, boxes, class_logits):
        """As the head's -> logits (N, T, Q, Q); of the newest frame they mean nothing."""
        frames = boxes.shape[1]
        after = (torch.arange(frames, device=boxes.device) + 1).clamp(max=frames - 1)
        centres, sizes = boxes[..., :2], boxes[..., BoxCode.SIZE].clamp(min=0.02).log()
        apart = centres.unsqueeze(3) - centres[:, after].unsqueeze(2)  # (N, T, Q, Q, 2)
        apart = (apart.square().sum(-1) + 1e-4).sqrt() / self.NEAR_M
        grown = (sizes.unsqueeze(3) - sizes[:, after].unsqueeze(2)).abs()[..., :2]
        seen, classes = self.appearance(objects), class_logits.softmax(-1)
        seen = seen @ seen[:, after].transpose(-1, -2) * seen.shape[-1] ** -0.5
        classes = classes @ classes[:, after].transpose(-1, -2)
        known = torch.stack([apart, apart.log(), seen, classes], dim=-1)
        logits = self.alike(torch.cat([known, grown], dim=-1)).squeeze(-1)
        return logits + 2.0 - 4.0 * apart

    def follow(self, pointer, links):
        """Logits of each frame by itself (N, T, Q + 1) -> with those of the frames after it."""
        frames, memory = pointer.shape[1], self.memory
        # A fixed number of steps: frames before the first are that one again.
        place = torch.arange(memory, device=pointer.device) + (frames - memory)
        place = place.clamp(min=0)
        alone, links = pointer[:, place], links[:, place].sigmoid()
        lost, hidden, back = self.turns.sigmoid()
        found = [alone[:, -1]]
        for step in range(memory - 2, -1, -1):
            p = found[-1].softmax(-1)
            here, none = p[:, :-1], p[:, -1:]
            seen = (links[:, step] @ here.unsqueeze(-1)).squeeze(-1) + none * back  # (N, Q)
            unseen = here.sum(-1, keepdim=True) * lost + none * hidden
            told = torch.cat([seen, unseen], dim=-1)
            found.append(alone[:, step] + (told + 1e-6).log())
        followed = torch.stack(found[::-1], dim=1)  # (N, memory, Q + 1)
        back = torch.arange(frames, device=pointer.device) + (memory - frames)
        return followed[:, back.clamp(min=0)]


class TrackHead(nn.Module):
    """Tokens of the frames, told of each other, and a region head for each."""

    def __init__(self, width, object_width, config, memory=41):
        """memory: the most frames."""
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
        self.links = Links(object_width, memory) if config.associate else None

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
        links = None
        if self.links is not None:
            links = self.links(objects, boxes, class_logits)
            pointer = self.links.follow(pointer, links)
            if self.config.box == 'pointed':
                code = pointed_box(pointer, mended)
        there = frame_mask.unsqueeze(-1)
        none = torch.zeros_like(pointer)
        none[..., :-1] = MASKED
        return TrackOutputs(
            torch.where(there, pointer, none), code * there, direct * there, mended, links
        )

"""Mask head: which cells of the bird's-eye view the answer covers.

in   e             (N, D)          hidden state of the language model at the task token <mask>
     bev           (N, C, Y, X)    the frame's BEV, cell [iy, ix]
     objects       (N, Q, F)       the detector's features
     boxes         (N, Q, 10)      contract.BoxCode, level ego frame
     class_logits  (N, Q, K)
out  masks         (N, M, 4Y, 4X)  logits, four times as fine (0.512 m for 50 cells), same axes
     iou           (N, M)          of the M guesses, the highest is to be taken
     present       (N,)            logit: there is something to show
     pointer       (N, Q + 1)      logits of the objects that are meant, the last = none of them

SAM2's mask decoder (arXiv 2408.00714): object token, IoU token, M mask tokens and the prompts go
both ways with the image, twice; masks are products of an MLP of each mask token with the enlarged
image.  TPO (arXiv 2412.19326) puts one linear layer on the task token where SAM2 encodes points
and boxes.  Left out: high-resolution skips, since a BEV has no finer map below it, and the sigmoid
of the IoU head: while all masks are still wrong it goes to zero and stays there for long.  `dot`
is the simple form: one MLP of e is the filter.

With `objects` the head points at the detector's objects, as that of a region does, and the decoder
mends their footprints: a token that has to say where something is, to half a metre, by itself
learns slowly (docs/tpo.md).  In training it mends those of the objects that are meant: else it
learns to wipe out what the pointer shows before that is right.
"""

from typing import NamedTuple, Optional

import torch
from torch import nn

from mta_perception.model.tasks.layers import (
    Attention,
    ChannelNorm,
    Feedforward,
    enlarge,
    mlp,
    sine,
)
from mta_perception.model.tasks.region import Pointer

_MOST_POINTED = 16  # of the objects whose footprints are drawn
_SURE = 4.0  # logit of a cell within a footprint, and less that outside, before training
_SOFT = 0.25  # cells over which the edge of a footprint rises


class MaskOutputs(NamedTuple):
    """What the mask head says."""

    masks: torch.Tensor  # (N, M, 4Y, 4X) logits
    iou: torch.Tensor  # (N, M) what it believes of its masks, about 0..1
    present: torch.Tensor  # (N,) logit
    pointer: Optional[torch.Tensor] = None  # (N, Q + 1) logits, the last = none

    def best(self):
        """The guess that the IoU head prefers (N, 4Y, 4X)."""
        chosen = self.iou.argmax(-1)[:, None, None, None]
        return self.masks.gather(1, chosen.expand(-1, 1, *self.masks.shape[2:])).squeeze(1)


def map_positions(height, width, channels, device):
    """Sine positions of the cells of a map (1, Y * X, channels): half from y, half from x."""
    line_y = (torch.arange(height, device=device) + 0.5) / height
    line_x = (torch.arange(width, device=device) + 0.5) / width
    along_y = sine(line_y, channels // 2)[:, None].expand(-1, width, -1)
    along_x = sine(line_x, channels // 2)[None].expand(height, -1, -1)
    return torch.cat([along_y, along_x], dim=-1).flatten(0, 1).unsqueeze(0)


def covered(boxes, shares, cells, half_extent_m):
    """How much of the footprints lies on each cell of a map: (N, cells, cells) in 0..1.

    boxes (N, P, 10) BoxCode; shares (N, P) in 0..1, how much each is meant.  Where footprints lie
    on each other the one that is meant most counts.  None is thinner than a cell.
    """
    side = 2.0 * half_extent_m / cells
    line = (torch.arange(cells, device=boxes.device) + 0.5) * side - half_extent_m
    x = line - boxes[..., 0, None, None]  # (N, P, 1, cells)
    y = line[:, None] - boxes[..., 1, None, None]  # (N, P, cells, 1)
    sin, cos = boxes[..., 6, None, None], boxes[..., 7, None, None]
    halves = boxes[..., 3:5, None, None].clamp(min=side) / 2.0
    along = halves[:, :, 0] - (x * cos + y * sin).abs()
    across = halves[:, :, 1] - (y * cos - x * sin).abs()
    within = (torch.minimum(along, across) / (_SOFT * side)).sigmoid()  # (N, P, cells, cells)
    return (within * shares[..., None, None]).amax(1)


class TwoWayLayer(nn.Module):
    """Tokens among themselves, tokens read the image, MLP, the image reads the tokens."""

    def __init__(self, config, first):
        super().__init__()
        width, heads = config.width, config.heads
        self.first = first
        self.own = Attention(width, heads)
        self.read = Attention(width, heads, inner=width // 2)
        self.feedforward = Feedforward(width, config.feedforward, activation=nn.ReLU)
        self.told = Attention(width, heads, inner=width // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(self, tokens, image, token_position, image_position):
        """tokens (N, P, W), image (N, S, W), their positions -> both."""
        if self.first:  # tokens are their own positions then: not added twice
            tokens = self.norms[0](self.own(tokens, tokens, tokens))
        else:
            placed = tokens + token_position
            tokens = self.norms[0](tokens + self.own(placed, placed, tokens))
        placed, cells = tokens + token_position, image + image_position
        tokens = self.norms[1](tokens + self.read(placed, cells, image))
        tokens = self.norms[2](tokens + self.feedforward(tokens))
        placed = tokens + token_position
        return tokens, self.norms[3](image + self.told(cells, placed, tokens))


class TwoWayDecoder(nn.Module):
    """Prompts (N, P, W) and image (N, W, Y, X) -> tokens (N, 2 + M, W), image as it was told."""

    def __init__(self, config):
        super().__init__()
        width, self.masks = config.width, config.masks
        self.tokens = nn.Parameter(torch.randn(2 + config.masks, width) * 0.1)
        self.no_mask = nn.Parameter(torch.zeros(width))  # SAM2's dense prompt of no mask
        self.layers = nn.ModuleList(
            TwoWayLayer(config, first=index == 0) for index in range(config.layers)
        )
        self.final = Attention(width, config.heads, inner=width // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, prompts, image):
        """See the class."""
        height, width = image.shape[-2:]
        own = self.tokens.expand(prompts.shape[0], -1, -1)
        position = torch.cat([own, prompts], dim=1)
        cells = image.flatten(2).transpose(1, 2) + self.no_mask
        cell_position = map_positions(height, width, image.shape[1], image.device)
        tokens = position
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, position, cell_position)
        read = self.final(tokens + position, cells + cell_position, cells)
        tokens = self.norm(tokens + read)[:, : 2 + self.masks]
        return tokens, cells.transpose(1, 2).unflatten(-1, (height, width))


class MaskHead(nn.Module):
    """Mask adapter, decoder, enlarged image, and the heads on its tokens."""

    def __init__(self, width, channels, object_width, config, half_extent_m=51.2):
        super().__init__()
        self.config, size, self.half_extent_m = config, config.width, half_extent_m
        if config.objects:
            self.pointer = Pointer(width, object_width, config)
            self.sure = nn.Parameter(torch.tensor(_SURE))
        self.image = nn.Sequential(nn.Conv2d(channels, size, 1), ChannelNorm(size))
        self.enlarge = enlarge(size, size)
        if config.kind == 'two_way':
            self.adapter = nn.Linear(width, config.prompts * size)
            self.decoder = TwoWayDecoder(config)
            inside = size
        else:
            inside = width
        guesses = config.masks if config.kind == 'two_way' else 1
        self.filters = nn.ModuleList(mlp(inside, size, size, size // 8) for _ in range(guesses))
        self.iou = mlp(inside, size, size, guesses)
        self.present = mlp(inside, size, size, 1)

    def forward(self, e, bev, objects, boxes, class_logits, meant=None):
        """See the head of this file -> MaskOutputs.

        meant: (N, Q) bool, the objects that are meant, in training; None: those pointed at
        """
        image = self.image(bev)  # (N, W, Y, X)
        if self.config.kind == 'two_way':
            prompts = self.adapter(e).unflatten(-1, (self.config.prompts, -1))  # (N, P, W)
            tokens, image = self.decoder(prompts, image)
            seen, judged, mask_tokens = tokens[:, 0], tokens[:, 1], tokens[:, 2:].unbind(1)
        else:
            seen = judged = e
            mask_tokens = [e]
        fine = self.enlarge(image)  # (N, W / 8, 4Y, 4X)
        filters = [make(token) for make, token in zip(self.filters, mask_tokens)]
        masks = torch.stack(filters, dim=1) @ fine.flatten(2)  # (N, M, 16 Y X)
        masks, pointer = masks.unflatten(-1, fine.shape[-2:]), None
        if self.config.objects:
            pointer, _ = self.pointer(e, objects, boxes, class_logits)
            masks = masks + self._footprints(pointer, boxes, fine.shape[-1], meant).unsqueeze(1)
        return MaskOutputs(masks, self.iou(judged), self.present(seen).squeeze(-1), pointer)

    def _footprints(self, pointer, boxes, cells, meant):
        """Logits (N, 4Y, 4X) of the objects that are pointed at; the likeliest is always shown,
        others by how likely they are beside it."""
        likely = (pointer[:, :-1] - pointer[:, :-1].amax(-1, keepdim=True)).exp()
        if meant is not None:
            likely = meant.to(likely.dtype)
        shares, chosen = likely.topk(min(_MOST_POINTED, boxes.shape[1]))
        boxes = boxes.gather(1, chosen.unsqueeze(-1).expand(-1, -1, boxes.shape[-1]))
        cover = covered(boxes, shares, cells, self.half_extent_m)
        return self.sure * (2.0 * cover - 1.0)

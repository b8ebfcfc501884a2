"""Deformable attention as one weighted sum over rows of a table.

A query reads a few places of a map; each place is four cells with bilinear weights.  Four cells
times places times levels, all with one weight each, is an embedding bag: a third of the time of
`grid_sample` on a CPU and no copy of the map per query.  reference.py has the slow obvious
versions that tests and benchmarks compare with.

Positions are in cells, x then y, centre of cell i at i, zero outside (grid_sample's
align_corners=False with zeros).  Everything about positions is float32 or better, whatever
autocast says: bfloat16 cannot tell cells apart.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Levels(NamedTuple):
    """Sizes of the maps that stand one after the other in a sequence of tokens."""

    sizes: tuple[tuple[int, int], ...]     # (height, width) a level

    @property
    def tokens(self):
        """Length of the sequence."""
        return sum(height * width for height, width in self.sizes)

    def widths_heights(self, like):
        """(L, 2) width and height of each level."""
        return torch.tensor([(width, height) for height, width in self.sizes], dtype=like.dtype,
                            device=like.device)

    def starts(self, device):
        """(L,) first token of each level."""
        counts = [height * width for height, width in self.sizes]
        return torch.tensor([sum(counts[:level]) for level in range(len(counts))], device=device)


def deformable(value, maps, xy, weights, levels):
    """Weighted samples (P, heads * D) of maps, head by head.

    value    (M, S, heads, D)         tokens of M maps, levels one after the other
    maps     (P,) int64               which map a query reads
    xy       (P, heads, L, K, 2)      cells of the level
    weights  (P, heads, L, K)
    """
    count, tokens, heads, width = value.shape
    queries = xy.shape[0]
    cell, share = _corners(xy, weights.to(xy.dtype), levels)        # (P, heads, L, K, 4)
    head = torch.arange(heads, device=xy.device, dtype=torch.int32).view(heads, 1, 1, 1)
    first = (maps.int() * tokens).view(-1, 1, 1, 1, 1)
    row = (first + cell) * heads + head.unsqueeze(0)
    mixed = weighted_rows(
        value.to(share.dtype).reshape(count * tokens * heads, width),
        row.view(queries * heads, -1).long(),                       # int32 takes a slow path
        share.view(queries * heads, -1))
    return mixed.view(queries, heads * width)


def weighted_rows(table, row, share, gather=None):
    """table (R, D), row (n, k), share (n, k) -> (n, D).

    gather: copy the rows and sum them, as in an exported graph; ONNX knows embedding bags only as
    a loop over bags.
    """
    if torch.compiler.is_exporting() if gather is None else gather:
        return (functional.embedding(row, table) * share.unsqueeze(-1)).sum(1)
    return functional.embedding_bag(row, table, per_sample_weights=share, mode='sum')


def _corners(xy, weights, levels):
    """The four cells around positions (..., L, K, 2): token (..., 4) int32 and share (..., 4).

    Coordinate by coordinate: a last axis of two or four makes every operation slow.
    """
    size = levels.widths_heights(xy)                                # (L, 2)
    wide, high = size[:, :1], size[:, 1:]
    x_cell, x_share = _neighbours(xy[..., 0], wide)
    y_cell, y_share = _neighbours(xy[..., 1], high)
    start = levels.starts(xy.device).int().view(-1, 1)
    rows = [start + cell * wide.int() for cell in y_cell]
    token = torch.stack([row + column for row in rows for column in x_cell], -1)
    y_share = [part * weights for part in y_share]
    return token, torch.stack([low * side for low in y_share for side in x_share], -1)


def _neighbours(place, size):
    """The two cells beside a coordinate, int32 and inside, and their shares, 0 outside."""
    low = place.floor()
    upper = place - low
    last = size - 1
    cells = [low.clamp(min=0).minimum(last).int(), (low + 1).clamp(min=0).minimum(last).int()]
    shares = [(1.0 - upper) * ((low >= 0) & (low <= last)),
              upper * ((low >= -1) & (low < last))]
    return cells, shares


def ring_bias(heads, slots, points):
    """Start of the offsets (heads, slots, points, 2): a direction a head, point k is k+1 away."""
    angle = torch.arange(heads) * (2.0 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    reach = torch.arange(1, points + 1).view(1, 1, points, 1)
    return (direction.view(heads, 1, 1, 2) * reach).expand(heads, slots, points, 2)


class SamplingHead(nn.Module):
    """From queries to what they look at: offsets [cells] and attention weights.

    The rows of both layers are ordered head, slot, point as in the published weights; `slots` are
    levels of the map, or the two maps of temporal attention.
    """

    def __init__(self, in_channels, heads, slots, points):
        super().__init__()
        self.shape = heads, slots, points
        self.offsets = nn.Linear(in_channels, heads * slots * points * 2)
        self.weights = nn.Linear(in_channels, heads * slots * points)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(ring_bias(heads, slots, points).flatten())

    def forward(self, query):
        """(..., C) -> offsets (..., heads, slots, points, 2) and logits, alike without the 2."""
        offsets = self.offsets(query).unflatten(-1, (*self.shape, 2))
        logits = self.weights(query).unflatten(-1, self.shape)
        return at_least_float32(offsets), at_least_float32(logits)


def at_least_float32(x):
    """bfloat16 and float16 -> float32; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def xavier(layer):
    """Linear layer with Xavier-uniform weights and no bias at the start."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

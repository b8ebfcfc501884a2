"""Deformable attention as weighted sums over rows of a table.

A query reads a few places of a map; each place is four cells with bilinear weights.  On a CPU
this is one compiled loop (fused.py).  Elsewhere, and in graphs, of each of the four cells over all
places and levels one embedding bag is made, without a copy of the map per query; maps then stand
in a frame of zeros, so that what lies outside needs no case of its own.  reference.py has the slow
obvious versions that tests and benchmarks compare with.

Positions are in cells, x and y apart, centre of cell i at i, zero outside (grid_sample's
align_corners=False with zeros).  Everything about positions is float32 or better, whatever
autocast says: bfloat16 cannot tell cells apart.  No operation has a last axis of two or four: on a
CPU such ones take several times as long.
"""

from functools import partial, reduce
import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mta_perception.model.bevformer.fused import can_be_fused, sampled
from mta_perception.model.bevformer.layers import Kept, Linear, multiply

_BEFORE, _AROUND = 1, 3  # rows or columns of zeros before a map, and in all


class Levels(NamedTuple):
    """Sizes of the maps that stand one after the other in a sequence of tokens."""

    sizes: tuple[tuple[int, int], ...]  # (height, width) a level

    @property
    def tokens(self):
        """Length of the sequence."""
        return sum(self.lengths)

    @property
    def lengths(self):
        """Tokens of each level."""
        return [height * width for height, width in self.sizes]

    @property
    def framed_lengths(self):
        """Tokens of each level with its frame of zeros."""
        return [(height + _AROUND) * (width + _AROUND) for height, width in self.sizes]

    def widths_heights(self, like):
        """(L, 2) width and height of each level."""
        return torch.tensor(
            [(width, height) for height, width in self.sizes], dtype=like.dtype, device=like.device
        )


class Pairs(NamedTuple):
    """Who reads which map, and around where.  P pairs of a query and a map; those of one query
    stand together."""

    maps: torch.Tensor  # (P,) int64
    queries: torch.Tensor  # (P,) int64
    shares: torch.Tensor  # (P,) part of the query's answer that comes from this pair
    cells: torch.Tensor  # (P, L, Z, 2) x, y in cells of the level; place k is around k % Z


def one_map_each(cells, share=1.0):
    """Pairs of queries (B, n) with the map of their own sample; cells (B, n, L, Z, 2)."""
    batch, count = cells.shape[:2]
    queries = torch.arange(batch * count, device=cells.device)
    return Pairs(
        queries // count, queries, cells.new_full((batch * count,), share), cells.flatten(0, 1)
    )


def deformable(value, pairs, x, y, weights, levels):
    """Weighted samples (Q, heads * D) of maps, head by head.

    value    [(M, S, heads, D)]         tokens of M maps, level by level
    pairs    Pairs
    x, y     (Q, heads, L, K)           how far from the pair's cells, in cells of the level
    weights  (Q, heads, L, K)
    """
    weights = weights.to(x.dtype)
    how = sampled if can_be_fused(x) else bagged
    return how([part.to(x.dtype) for part in value], pairs, x, y, weights, levels)


def bagged(value, pairs, x, y, weights, levels):
    """As `deformable`, by embedding bags."""
    heads, width = value[0].shape[2:]
    count = pairs.maps.shape[0]  # len() would fix it in an exported graph
    table = _framed(value, levels)
    around = pairs.cells.repeat(1, 1, x.shape[3] // pairs.cells.shape[2], 1).unsqueeze(1)
    queries = x.shape[0]
    x, y, weights = (part[pairs.queries] for part in (x, y, weights))
    x, y = (x + around[..., 0]).flatten(1), (y + around[..., 1]).flatten(1)
    row, share = _corners(x, y, weights.flatten(1), levels, heads)
    row = row + (pairs.maps * (table.shape[0] // value[0].shape[0])).view(-1, 1)
    pitch = _per_place([columns + _AROUND for _, columns in levels.sizes], heads, row)
    mixed = sum(
        weighted_rows(
            table.view(-1, width), corner.view(count * heads, -1), part.view(count * heads, -1)
        )
        for corner, part in zip(
            (row, row + heads, row + pitch * heads, row + (pitch + 1) * heads), share
        )
    )
    answer = mixed.view(count, heads * width) * pairs.shares.unsqueeze(-1)
    return answer.new_zeros(queries, heads * width).index_add(0, pairs.queries, answer)


def weighted_rows(table, row, share, gather=None):
    """table (R, D), row (n, k), share (n, k) -> (n, D).

    gather: copy the rows and sum them, as in an exported graph; ONNX knows embedding bags only as
    a loop over bags.
    """
    if torch.compiler.is_exporting() if gather is None else gather:
        return (functional.embedding(row, table) * share.unsqueeze(-1)).sum(1)
    return functional.embedding_bag(row, table, per_sample_weights=share, mode='sum')


def _framed(value, levels):
    """[(M, S, heads, D)] -> (M * S framed * heads, D), each level in its frame of zeros."""
    framed = []
    for tokens, (height, width) in zip(value, levels.sizes):
        image = tokens.unflatten(1, (height, width))
        edges = _BEFORE, _AROUND - _BEFORE
        framed.append(functional.pad(image, (0, 0, 0, 0, *edges, *edges)).flatten(1, 2))
    joined = torch.cat(framed, 1) if len(framed) > 1 else framed[0]
    return joined.flatten(0, 2)


def _corners(x, y, weights, levels, heads):
    """Rows of the first of the four cells around (P, n) places in map 0, and the four shares.

    What lies farther out than a cell is moved into the frame.
    """
    width = _per_place([columns for _, columns in levels.sizes], heads, x)
    height = _per_place([rows for rows, _ in levels.sizes], heads, x)
    pitch = width + _AROUND
    lengths = levels.framed_lengths
    start = _per_place([sum(lengths[:level]) for level in range(len(lengths))], heads, x)
    head = torch.arange(heads, device=x.device).repeat_interleave(x.shape[1] // heads)
    x, y = x.clamp(min=-1.0).minimum(width), y.clamp(min=-1.0).minimum(height)
    left, top = x.floor(), y.floor()
    # Exact: no map has 2**24 rows.
    row = torch.addcmul((start + _BEFORE * (pitch + 1)) * heads + head, top, pitch * heads)
    row = torch.add(row, left, alpha=heads).long()
    right, low = x - left, y - top
    lower = low * weights
    upper = weights - lower
    upper_right, lower_right = right * upper, right * lower
    return row, (upper - upper_right, upper_right, lower - lower_right, lower_right)


def _per_place(numbers, heads, like):
    """(n,) a number a level -> a number a place, ordered head, level, point."""
    points = like.shape[1] // (heads * len(numbers))
    numbers = torch.tensor(numbers, dtype=like.dtype, device=like.device)
    return numbers.repeat_interleave(points).repeat(heads)


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

    def __init__(self, in_channels, heads, slots, points, parts=1):
        """parts: how many pieces of in_channels / parts a query comes in."""
        super().__init__()
        self.shape = heads, slots, points
        self.offsets = Linear(in_channels, heads * slots * points * 2)
        self.weights = Linear(in_channels, heads * slots * points)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(ring_bias(heads, slots, points).flatten())
        places = torch.arange(heads * slots * points)
        by_point = places.view(heads, -1).T.flatten() + 2 * len(places)
        self.kept = nn.ModuleList(Kept() for _ in range(parts))
        self.register_buffer(
            'order', torch.cat([2 * places, 2 * places + 1, by_point]), persistent=False
        )

    def forward(self, *query, each_slot=False):
        """Pieces (Q, C / parts) -> offsets x, y and weights, (Q, heads, slots, points) each.

        The weights of a head sum to one, or to one in each slot.
        """
        heads, slots, points = self.shape
        layers = self.offsets, self.weights
        tensors = [layer.weight for layer in layers] + [layer.bias for layer in layers]
        x, y, logits = reduce(
            torch.add,
            (
                at_least_float32(
                    multiply(part, tensors, partial(self._joined, tensors, index), kept)
                )
                for index, (part, kept) in enumerate(zip(query, self.kept))
            ),
        ).chunk(3, -1)
        groups = (slots, points) if each_slot else (1, slots * points)
        weights = logits.unflatten(1, (*groups, heads)).softmax(2).flatten(1, 2)
        return (
            x.unflatten(1, self.shape),
            y.unflatten(1, self.shape),
            weights.unflatten(1, (slots, points)).movedim(-1, 1),
        )

    def _joined(self, tensors, index):
        """Weight and bias of one product for both layers; its columns come as they are needed.

        Of the weight what a piece of the query is multiplied with; the first brings the bias.
        """
        weight = torch.cat(tensors[:2])[self.order].chunk(len(self.kept), 1)[index]
        return weight, None if index else torch.cat(tensors[2:])[self.order]


def at_least_float32(x):
    """bfloat16 and float16 -> float32; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def xavier(layer):
    """Linear layer with Xavier-uniform weights and no bias at the start."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

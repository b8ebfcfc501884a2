"""Object queries: look at each other, at the bird's-eye view, and move (Deformable DETR).

A box code is cx, cy [m], log w, log l, cz [m], log h, sin, cos of the yaw, vx, vy [m/s] in the
lidar frame; the yaw is that of mmdet3d before 1.0, see `BEVFormer.decode`.
"""

from collections import OrderedDict
import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mta_perception.model.bevformer.attention import (
    Levels,
    SamplingHead,
    at_least_float32,
    deformable,
    one_map_each,
    xavier,
)
from mta_perception.model.bevformer.encoder import feedforward
from mta_perception.model.bevformer.layers import Dropout, Kept, Linear, multiply

CODE_SIZE = 10


class Decoded(NamedTuple):
    """All layers of the decoder."""

    class_logits: torch.Tensor  # (layers, B, queries, classes)
    box_codes: torch.Tensor  # (layers, B, queries, 10)
    queries: torch.Tensor  # (layers, B, queries, C)
    references: torch.Tensor  # (layers + 1, B, queries, 3) 0 to 1 over the range; [0] = start


class CrossAttention(nn.Module):
    """A query reads the bird's-eye view around its reference."""

    def __init__(self, config):
        super().__init__()
        channels, self.heads = config.channels, config.heads
        self.sampling = SamplingHead(channels, config.heads, 1, config.decoder_points)
        self.value = xavier(Linear(channels, channels))
        self.output = xavier(Linear(channels, channels))
        self.dropout = Dropout(config.dropout)

    def forward(self, query, bev, reference, grid):
        """query (B, n, C), bev (B, Q, C), reference (B, n, 2) 0 to 1 -> (B, n, C)."""
        batch, count, channels = query.shape
        x, y, weights = self.sampling(query.flatten(0, 1))
        cells = reference * grid.widths_heights(reference) - 0.5
        value = self.value(bev).unflatten(-1, (self.heads, -1))
        answer = deformable([value], one_map_each(cells[:, :, None, None]), x, y, weights, grid)
        return self.dropout(self.output(answer.view(batch, count, channels).to(query.dtype)))


class SelfAttention(nn.Module):
    """Queries look at each other; names and start of nn.MultiheadAttention, which takes longer:
    it turns its inputs round and asks for query and key apart."""

    def __init__(self, config):
        super().__init__()
        channels, self.heads = config.channels, config.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = Linear(channels, channels)
        self.dropout = Dropout(config.dropout)
        self.asking, self.showing = Kept(), Kept()
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, placed, query):
        """placed (B, n, C) tells who looks at whom, query (B, n, C) what they see."""
        split = 2 * query.shape[-1]
        tensors = [self.in_proj_weight, self.in_proj_bias]
        asked = multiply(placed, tensors, lambda: [part[:split] for part in tensors], self.asking)
        shown = multiply(query, tensors, lambda: [part[split:] for part in tensors], self.showing)
        mixed = self._mix(
            *(
                part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for part in (*asked.chunk(2, -1), shown)
            )
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _mix(self, query, key, value):
        if not (
            self.training
            and self.dropout.p
            and query.device.type == 'cpu'
            and query.dtype == torch.float32
        ):
            return functional.scaled_dot_product_attention(
                query, key, value, dropout_p=self.dropout.p if self.training else 0.0
            )
        # What the library does there, with our dropout.
        scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
        return self.dropout(scores.softmax(-1)) @ value


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward, a norm after each."""

    def __init__(self, config):
        super().__init__()
        self.attention = SelfAttention(config)
        self.dropout = Dropout(config.dropout)
        self.cross = CrossAttention(config)
        self.feedforward = feedforward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(3))

    def among(self, query, position):
        """What queries (B, n, C) at positions (n, C) are after a look at each other."""
        mixed = self.attention(query + position, query)
        return self.norms[0](query + self.dropout(mixed))

    def forward(self, query, position, bev, reference, grid):
        """Queries (B, n, C) that looked at each other, position (n, C) -> (B, n, C)."""
        query = self.norms[1](query + self.cross(query + position, bev, reference, grid))
        return self.norms[2](query + self.feedforward(query))


class DetectionDecoder(nn.Module):
    """Learned queries, refined layer by layer; each layer says what it would answer."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        channels, layers = config.channels, config.decoder_layers
        self.embedding = nn.Parameter(torch.randn(config.queries, 2 * channels))
        self.start = nn.Linear(channels, 3)
        nn.init.xavier_uniform_(self.start.weight)
        nn.init.zeros_(self.start.bias)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(layers))
        self.scores = nn.ModuleList(_score_branch(channels, config.classes) for _ in range(layers))
        self.boxes = nn.ModuleList(_box_branch(channels) for _ in range(layers))
        self.grid = Levels(((config.bev_cells, config.bev_cells),))
        self.kept = Kept()

    def forward(self, bev):
        """bev (B, Q, C) -> Decoded."""
        position, query = self.embedding.chunk(2, -1)
        reference = at_least_float32(self.start(position)).sigmoid().expand(len(bev), -1, -1)
        logits, steps, states, places, references = [], [], [], [], [reference]
        for index, layer in enumerate(self.layers):
            query = (
                layer.among(query, position) if index else self._first(query, position, len(bev))
            )
            query = layer(query, position, bev, reference[..., :2], self.grid)
            score, box = self.scores[index], self.boxes[index]
            logits.append(at_least_float32(score(query)))
            step = _in_float32(box, query)
            place = (inverse_sigmoid(reference) + step[..., [0, 1, 4]]).sigmoid()
            steps.append(step)
            places.append(place)
            states.append(query)
            reference = place.detach()
            references.append(reference)
        codes = self.code(torch.stack(steps), torch.stack(places))
        return Decoded(torch.stack(logits), codes, torch.stack(states), torch.stack(references))

    def _first(self, query, position, batch):
        """Queries (B, n, C) after their first look at each other: made of weights alone."""
        layer = self.layers[0]
        tensors = [self.embedding, *layer.attention.parameters(), *layer.norms[0].parameters()]
        if self.training or not self.kept.may(tensors):
            return layer.among(query.expand(batch, -1, -1), position)
        return self.kept.get(tensors, lambda: layer.among(query[None], position)).expand(
            batch, -1, -1
        )

    def code(self, step, place):
        """Box codes (..., 10) from a branch's answer (..., 10) and a place (..., 3), 0 to 1."""
        low = place.new_tensor(self.config.range_m[:3])
        high = place.new_tensor(self.config.range_m[3:])
        metres = place * (high - low) + low
        return torch.cat([metres[..., :2], step[..., 2:4], metres[..., 2:3], step[..., 5:]], -1)


def inverse_sigmoid(x, edge=1e-5):
    """log(x / (1 - x)), both clamped away from zero as the published code does."""
    x = x.clamp(0.0, 1.0)
    return (x.clamp(min=edge) / (1.0 - x).clamp(min=edge)).log()


def _in_float32(branch, query):
    # bfloat16 rounds 0.2 m at 51 m.
    with torch.autocast(query.device.type, enabled=False):
        return branch(at_least_float32(query))


def _score_branch(channels, classes):
    last = Linear(channels, classes)
    nn.init.constant_(last.bias, -math.log(99.0))  # starts at 1 %
    return nn.Sequential(
        Linear(channels, channels),
        nn.LayerNorm(channels),
        nn.ReLU(inplace=True),
        Linear(channels, channels),
        nn.LayerNorm(channels),
        nn.ReLU(inplace=True),
        last,
    )


def _box_branch(channels):
    return nn.Sequential(
        OrderedDict(
            [
                ('0', Linear(channels, channels, relu=True)),
                ('2', Linear(channels, channels, relu=True)),
                ('4', Linear(channels, CODE_SIZE)),
            ]
        )
    )

"""BEV encoder: cells ask their own past, then the cameras that see them (BEVFormer section 3).

Each layer: temporal self-attention, spatial cross-attention, feed-forward, a norm after each.
Shapes: B samples, N cameras, Q = cells x cells in rows from behind to ahead (lidar frame), C
channels, S tokens of a camera over all levels.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mta_perception.model.bevformer.attention import (
    Levels,
    Pairs,
    SamplingHead,
    deformable,
    one_map_each,
    xavier,
)
from mta_perception.model.bevformer.history import align
from mta_perception.model.bevformer.layers import Dropout, Linear
from mta_perception.model.bevformer.visibility import Visibility


class Surroundings(NamedTuple):
    """What is the same for all layers."""

    position: torch.Tensor  # (Q, C) what tells cells apart
    grid: Levels  # of the past and the present map
    reference: torch.Tensor  # (B, 2, Q, 2) cells of both maps
    levels: Levels  # of the cameras' tokens
    tokens: torch.Tensor  # (B, N, S, C)
    visibility: Visibility


class TemporalSelfAttention(nn.Module):
    """A cell reads two maps, the past and the present, and takes the mean of the two."""

    def __init__(self, config):
        super().__init__()
        channels, self.heads = config.channels, config.heads
        self.sampling = SamplingHead(
            2 * channels, config.heads, 2, config.temporal_points, parts=2
        )
        self.value = xavier(Linear(channels, channels))
        self.output = xavier(Linear(channels, channels))
        self.dropout = Dropout(config.dropout)

    def forward(self, query, past, present, around):
        """query, past, present (B, Q, C) -> (B, Q, C)."""
        batch, count, channels = query.shape
        x, y, weights = self.sampling(
            past.to(query.dtype).flatten(0, 1),
            (query + around.position).flatten(0, 1),
            each_slot=True,
        )
        # Both maps of a sample stand one after the other, like two levels of one map.
        value = [self.value(part).unflatten(-1, (self.heads, -1)) for part in (past, present)]
        cells = around.reference.transpose(1, 2).unsqueeze(3)  # (B, Q, 2, 1, 2)
        answer = deformable(value, one_map_each(cells, 0.5), x, y, weights, around.grid)
        return self.dropout(self.output(answer.view(batch, count, channels).to(query.dtype)))


class SpatialCrossAttention(nn.Module):
    """A cell reads the cameras that see it, around where its pillar's heights appear."""

    def __init__(self, config):
        super().__init__()
        channels, self.heads = config.channels, config.heads
        self.sampling = SamplingHead(
            channels, config.heads, config.backbone.levels, config.spatial_points
        )
        self.value = xavier(Linear(channels, channels))
        self.output = xavier(Linear(channels, channels))
        self.dropout = Dropout(config.dropout)

    def forward(self, query, around):
        """query (B, Q, C) -> (B, Q, C)."""
        batch, count, channels = query.shape
        seen, levels = around.visibility, around.levels
        x, y, weights = self.sampling(query.flatten(0, 1))
        value = self.value(around.tokens).flatten(0, 1).unflatten(-1, (self.heads, -1))
        pairs = Pairs(seen.camera, seen.cell, seen.share, pillar_cells(seen.pair_uv, levels))
        answer = deformable(value.split(levels.lengths, 1), pairs, x, y, weights, levels)
        return self.dropout(self.output(answer.view(batch, count, channels).to(query.dtype)))


def pillar_cells(uv, levels):
    """(..., Z, 2) parts of the image -> cells (..., L, Z, 2)."""
    return uv.unsqueeze(-3) * levels.widths_heights(uv)[:, None] - 0.5


class EncoderLayer(nn.Module):
    """Past, cameras, feed-forward."""

    def __init__(self, config):
        super().__init__()
        channels = config.channels
        self.temporal = TemporalSelfAttention(config)
        self.spatial = SpatialCrossAttention(config)
        self.feedforward = feedforward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(self, query, past, present, around):
        """query, past, present (B, Q, C) -> (B, Q, C)."""
        query = self.norms[0](query + self.temporal(query, past, present, around))
        query = self.norms[1](query + self.spatial(query, around))
        return self.norms[2](query + self.feedforward(query))


def feedforward(config):
    """Two linear layers with dropout after each."""
    # Numbered as in the published network, where 1 is ReLU.
    return nn.Sequential(
        OrderedDict(
            [
                ('0', Linear(config.channels, config.feedforward, relu=True)),
                ('2', Dropout(config.dropout)),
                ('3', Linear(config.feedforward, config.channels)),
                ('4', Dropout(config.dropout)),
            ]
        )
    )


class BevEncoder(nn.Module):
    """Learned cells, told how the car moves, refined by a few layers."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        channels, cells = config.channels, config.bev_cells
        self.embedding = nn.Parameter(torch.randn(cells * cells, channels))
        self.rows = nn.Parameter(torch.rand(cells, channels // 2))
        self.columns = nn.Parameter(torch.rand(cells, channels // 2))
        self.level_embedding = nn.Parameter(torch.randn(config.level_rows, channels))
        self.camera_embedding = nn.Parameter(torch.randn(config.cameras, channels))
        self.can_bus = nn.Sequential(
            nn.Linear(18, channels // 2),
            nn.ReLU(),
            nn.Linear(channels // 2, channels),
            nn.ReLU(),
            nn.LayerNorm(channels),
        )
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.grid = Levels(((cells, cells),) * 2)  # past and present
        line = torch.arange(cells, dtype=torch.float32)
        y, x = torch.meshgrid(line, line, indexing='ij')
        self.register_buffer('reference', torch.stack([x, y], -1).flatten(0, 1), persistent=False)

    def position(self):
        """(Q, C): what tells cells apart, column half first."""
        cells = self.config.bev_cells
        return torch.cat(
            [
                self.columns.unsqueeze(0).expand(cells, -1, -1),
                self.rows.unsqueeze(1).expand(-1, cells, -1),
            ],
            -1,
        ).flatten(0, 1)

    def tokens(self, features):
        """List of (B, N, C, h, w) -> (B, N, S, C) and Levels."""
        parts = [
            feature.flatten(3).transpose(2, 3) + self.level_embedding[level]
            for level, feature in enumerate(features)
        ]
        levels = Levels(tuple(tuple(feature.shape[-2:]) for feature in features))
        return torch.cat(parts, 2) + self.camera_embedding[:, None], levels

    def forward(self, features, visibility, can_bus, history):
        """List of (B, N, C, h, w), Visibility, can_bus (B, 18), History or None -> (B, Q, C)."""
        tokens, levels = self.tokens(features)
        batch = tokens.shape[0]
        # The vector is computed with in its own precision and enters the network in the network's.
        told = self.can_bus(can_bus.to(self.embedding.dtype))
        query = self.embedding + told.unsqueeze(1)  # (B, Q, C)
        past, reference = self._past(query, can_bus, history, batch)
        around = Surroundings(self.position(), self.grid, reference, levels, tokens, visibility)
        first = query
        for layer in self.layers:
            arguments = (query, *self._maps(past, history, first, query), around)
            if self.config.checkpointing and self.training:
                query = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                query = layer(*arguments)
        return query

    def _past(self, query, can_bus, history, batch):
        """Aligned history (B, Q, C) or None, and references (B, 2, Q, 2) into past and present."""
        reference = self.reference.expand(batch, 2, -1, -1)
        if history is None:
            return None, reference
        past, shift = align(history, can_bus, self.config)
        shift = shift * history.valid.unsqueeze(-1) * self.config.bev_cells
        both = self.config.quirks.shift_both_references
        moves = torch.stack([shift, shift if both else torch.zeros_like(shift)], 1)
        return past.to(query.dtype).contiguous(), (reference + moves.unsqueeze(2)).float()

    def _maps(self, past, history, first, query):
        """Past and present (B, Q, C) of one layer; without a past, the present twice."""
        if past is None:
            return query, query
        valid = history.valid.view(-1, 1, 1)
        present = query
        if self.config.quirks.initial_query_beside_history:
            present = torch.where(valid, first, query)
        return torch.where(valid, past, query), present

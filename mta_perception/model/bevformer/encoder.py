"""BEV encoder: cells ask their own past, then the cameras that see them (BEVFormer section 3).

Each layer: temporal self-attention, spatial cross-attention, feed-forward, a norm after each.
Shapes: B samples, N cameras, Q = cells x cells in rows from behind to ahead (lidar frame), C
channels, S tokens of a camera over all levels.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mta_perception.model.bevformer.attention import Levels, SamplingHead, deformable, xavier
from mta_perception.model.bevformer.history import align


class TemporalSelfAttention(nn.Module):
    """A cell reads two maps, the past and the present, and takes the mean of the two."""

    def __init__(self, config):
        super().__init__()
        channels, self.heads = config.channels, config.heads
        self.sampling = SamplingHead(2 * channels, config.heads, 2, config.temporal_points)
        self.value = xavier(nn.Linear(channels, channels))
        self.output = xavier(nn.Linear(channels, channels))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, query, position, maps, reference, levels):
        """query (B, Q, C), maps (B, 2, Q, C) past first, reference (B, 2, Q, 2) cells."""
        batch, count, channels = query.shape
        asked = torch.cat([maps[:, 0].to(query.dtype), query + position], -1)
        offsets, logits = self.sampling(asked)                      # (B, Q, H, 2, K, 2)
        weights = logits.softmax(-1) / 2.0                          # the mean of both maps
        xy = reference.transpose(1, 2)[:, :, None, :, None] + offsets
        # Both maps of a sample stand one after the other, like two levels of one map.
        value = self.value(maps).view(batch, 2 * count, self.heads, -1)
        sample = torch.arange(batch, device=query.device).repeat_interleave(count)
        answer = deformable(value, sample, xy.flatten(0, 1), weights.flatten(0, 1), levels)
        return self.dropout(self.output(answer.view(batch, count, channels).to(query.dtype)))


class SpatialCrossAttention(nn.Module):
    """A cell reads the cameras that see it, around where its pillar's heights appear."""

    def __init__(self, config):
        super().__init__()
        channels, self.heads = config.channels, config.heads
        self.heights = config.pillar_points
        self.sampling = SamplingHead(channels, config.heads, config.backbone.levels,
                                     config.spatial_points)
        self.value = xavier(nn.Linear(channels, channels))
        self.output = xavier(nn.Linear(channels, channels))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, query, tokens, visibility, levels):
        """query (B, Q, C), tokens (B, N, S, C) -> (B, Q, C)."""
        batch, count, channels = query.shape
        offsets, logits = self.sampling(query.flatten(0, 1))        # (BQ, H, L, K, 2)
        weights = logits.flatten(2).softmax(-1).view_as(logits)
        value = self.value(tokens).flatten(0, 1).unflatten(-1, (self.heads, -1))
        xy = (self.places(visibility.pair_uv, levels).unsqueeze(1)
              + offsets[visibility.cell])
        answer = deformable(value, visibility.camera, xy, weights[visibility.cell], levels)
        total = torch.zeros(batch * count, channels, dtype=answer.dtype, device=answer.device)
        total = total.index_add(0, visibility.cell, answer * visibility.share)
        return self.dropout(self.output(total.view(batch, count, channels).to(query.dtype)))

    def places(self, uv, levels):
        """(..., Z, 2) parts of the image -> cells (..., L, K, 2); point k is at height k % Z."""
        size = levels.widths_heights(uv)[:, None]                   # (L, 1, 2)
        repeat = self.sampling.shape[2] // self.heights
        cells = uv.unsqueeze(-3) * size - 0.5                       # (..., L, Z, 2)
        return cells.repeat(*[1] * (cells.ndim - 2), repeat, 1)


class EncoderLayer(nn.Module):
    """Past, cameras, feed-forward."""

    def __init__(self, config):
        super().__init__()
        channels = config.channels
        self.temporal = TemporalSelfAttention(config)
        self.spatial = SpatialCrossAttention(config)
        self.feedforward = feedforward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(self, query, position, maps, reference, grid, tokens, visibility, levels):
        """query (B, Q, C) -> (B, Q, C); the rest as in the two attentions."""
        query = self.norms[0](query + self.temporal(query, position, maps, reference, grid))
        query = self.norms[1](query + self.spatial(query, tokens, visibility, levels))
        return self.norms[2](query + self.feedforward(query))


def feedforward(config):
    """Two linear layers with dropout after each."""
    return nn.Sequential(
        nn.Linear(config.channels, config.feedforward), nn.ReLU(), nn.Dropout(config.dropout),
        nn.Linear(config.feedforward, config.channels), nn.Dropout(config.dropout))


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
            nn.Linear(18, channels // 2), nn.ReLU(), nn.Linear(channels // 2, channels), nn.ReLU(),
            nn.LayerNorm(channels))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.grid = Levels(((cells, cells),) * 2)            # past and present
        line = torch.arange(cells, dtype=torch.float32)
        y, x = torch.meshgrid(line, line, indexing='ij')
        self.register_buffer('reference', torch.stack([x, y], -1).flatten(0, 1), persistent=False)

    def position(self):
        """(Q, C): what tells cells apart, column half first."""
        cells = self.config.bev_cells
        return torch.cat([self.columns.unsqueeze(0).expand(cells, -1, -1),
                          self.rows.unsqueeze(1).expand(-1, cells, -1)], -1).flatten(0, 1)

    def tokens(self, features):
        """List of (B, N, C, h, w) -> (B, N, S, C) and Levels."""
        parts = [feature.flatten(3).transpose(2, 3) + self.level_embedding[level]
                 for level, feature in enumerate(features)]
        levels = Levels(tuple(tuple(feature.shape[-2:]) for feature in features))
        return torch.cat(parts, 2) + self.camera_embedding[:, None], levels

    def forward(self, features, visibility, can_bus, history):
        """List of (B, N, C, h, w), Visibility, can_bus (B, 18), History or None -> (B, Q, C)."""
        tokens, levels = self.tokens(features)
        batch = tokens.shape[0]
        # The vector is computed with in its own precision and enters the network in the network's.
        told = self.can_bus(can_bus.to(self.embedding.dtype))
        query = self.embedding + told.unsqueeze(1)                  # (B, Q, C)
        position = self.position()
        past, reference = self._past(query, can_bus, history, batch)
        first = query
        for layer in self.layers:
            maps = self._maps(past, history, first, query)
            arguments = (query, position, maps, reference, self.grid, tokens, visibility, levels)
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
        return past.to(query.dtype), (reference + moves.unsqueeze(2)).float()

    def _maps(self, past, history, first, query):
        """(B, 2, Q, C) past and present of one layer; without a past, the present twice."""
        if past is None:
            return torch.stack([query, query], 1)
        valid = history.valid.view(-1, 1, 1)
        present = query
        if self.config.quirks.initial_query_beside_history:
            present = torch.where(valid, first, query)
        return torch.stack([torch.where(valid, past, query), present], 1)

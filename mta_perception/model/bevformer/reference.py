"""The same attention written the slow ways, with the same weights: for tests and benchmarks.

`published`: each frame finds the visible cells of each camera, copies their queries into padded
batches and samples with grid_sample, as the published code does on a CPU.  `dense`: every cell
asks every camera, and what it could not see is thrown away.
"""

import copy

import torch
from torch.nn import functional

from mta_perception.model.bevformer.decoder import CrossAttention
from mta_perception.model.bevformer.encoder import SpatialCrossAttention, TemporalSelfAttention


def slow_copy(model, form):
    """A copy of a BEVFormer whose attention is `form`, 'published' or 'dense'."""
    spatial = {'published': PublishedSpatial, 'dense': DenseSpatial}[form]
    model = copy.deepcopy(model)
    for layer in model.encoder.layers:
        layer.temporal = _as(GridTemporal, layer.temporal, model.config)
        layer.spatial = _as(spatial, layer.spatial, model.config)
    for layer in model.decoder.layers:
        layer.cross = _as(GridCross, layer.cross, model.config)
    return model


def _as(kind, module, config):
    other = kind(config).to(next(module.parameters()))
    other.load_state_dict(module.state_dict())
    return other.train(module.training)


def sample_maps(value, xy, weights, levels):
    """grid_sample level by level: each query reads the map of its own batch row.

    value (M, S, heads, D), xy (M, P, heads, L, K, 2) cells, weights (M, P, heads, L, K)
    -> (M, P, heads * D)
    """
    count, _, heads, width = value.shape
    total, start = 0.0, 0
    for level, (rows, columns) in enumerate(levels.sizes):
        tokens = value[:, start:start + rows * columns]
        start += rows * columns
        image = tokens.permute(0, 2, 3, 1).reshape(count * heads, width, rows, columns)
        size = torch.tensor([columns, rows], dtype=xy.dtype, device=xy.device)
        grid = 2.0 * (xy[:, :, :, level] + 0.5) / size - 1.0        # (M, P, heads, K, 2)
        samples = functional.grid_sample(
            image, grid.transpose(1, 2).flatten(0, 1), mode='bilinear', padding_mode='zeros',
            align_corners=False)                                    # (M heads, D, P, K)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1).unsqueeze(1)
        total = total + (samples * share).sum(-1)                   # (M heads, D, P)
    return total.view(count, heads * width, -1).transpose(1, 2)


class GridTemporal(TemporalSelfAttention):
    """Two maps, two grid_samples, the mean."""

    def forward(self, query, position, maps, reference, levels):
        """As TemporalSelfAttention."""
        batch, count, channels = query.shape
        offsets, logits = self.sampling(torch.cat([maps[:, 0], query + position], -1))
        xy = reference.transpose(1, 2)[:, :, None, :, None] + offsets
        value = self.value(maps).flatten(0, 1).unflatten(-1, (self.heads, -1))
        one = type(levels)(levels.sizes[:1])
        answer = sample_maps(value, xy.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).unsqueeze(3),
                             logits.softmax(-1).permute(0, 3, 1, 2, 4).flatten(0, 1).unsqueeze(3),
                             one)
        mean = answer.view(batch, 2, count, channels).mean(1)
        return self.dropout(self.output(mean))


class GridCross(CrossAttention):
    """One map, one grid_sample."""

    def forward(self, query, bev, reference, grid):
        """As CrossAttention."""
        offsets, logits = self.sampling(query)
        one = type(grid)(grid.sizes[:1])
        cells = reference * one.widths_heights(reference) - 0.5
        value = self.value(bev).unflatten(-1, (self.heads, -1))
        answer = sample_maps(value, cells[:, :, None, None, None] + offsets, logits.softmax(-1),
                             one)
        return self.dropout(self.output(answer))


class DenseSpatial(SpatialCrossAttention):
    """Every cell asks every camera."""

    def forward(self, query, tokens, visibility, levels):
        """As SpatialCrossAttention."""
        batch, cameras = tokens.shape[:2]
        offsets, logits = self.sampling(query)
        weights = logits.flatten(3).softmax(-1).view_as(logits)
        xy = self.places(visibility.uv, levels).unsqueeze(3) + offsets.unsqueeze(1)
        value = self.value(tokens).flatten(0, 1).unflatten(-1, (self.heads, -1))
        answer = sample_maps(
            value, xy.flatten(0, 1),
            weights.unsqueeze(1).expand(-1, cameras, *[-1] * 4).flatten(0, 1), levels)
        seen = visibility.mask.any(-1).unsqueeze(-1)                # (B, N, Q, 1)
        total = (answer.unflatten(0, (batch, cameras)) * seen).sum(1)
        return self.dropout(self.output(total / seen.sum(1).clamp(min=1)))


class PublishedSpatial(SpatialCrossAttention):
    """Each camera gets a padded copy of the queries it sees."""

    def forward(self, query, tokens, visibility, levels):
        """As SpatialCrossAttention."""
        batch, cameras = tokens.shape[:2]
        seen = visibility.mask.any(-1)
        found = [[seen[b, n].nonzero().squeeze(-1) for n in range(cameras)] for b in range(batch)]
        longest = max(len(cells) for row in found for cells in row)
        asked = query.new_zeros(batch, cameras, longest, query.shape[-1])
        uv = query.new_zeros(batch, cameras, longest, self.heights, 2)
        for b, row in enumerate(found):
            for n, cells in enumerate(row):
                asked[b, n, :len(cells)] = query[b, cells]
                uv[b, n, :len(cells)] = visibility.uv[b, n, cells].to(uv)
        offsets, logits = self.sampling(asked.flatten(0, 1))
        weights = logits.flatten(3).softmax(-1).view_as(logits)
        xy = self.places(uv.flatten(0, 1), levels).unsqueeze(2) + offsets
        value = self.value(tokens).flatten(0, 1).unflatten(-1, (self.heads, -1))
        answer = sample_maps(value, xy, weights, levels).unflatten(0, (batch, cameras))
        total = torch.zeros_like(query)
        for b, row in enumerate(found):
            for n, cells in enumerate(row):
                total[b, cells] += answer[b, n, :len(cells)]
        count = seen.sum(1).clamp(min=1).unsqueeze(-1)
        return self.dropout(self.output(total / count))

"""The same attention written the slow ways, with the same weights: for tests and benchmarks.

`published`: each frame finds the visible cells of each camera, copies their queries into padded
batches and samples with grid_sample, and the boxes are asked for twice, as the published code
does on a CPU.  `dense`: every cell asks every camera, and what it could not see is thrown away.
"""

import copy

import torch
from torch import nn
from torch.nn import functional

from mta_perception.model.bevformer.decoder import (
    CrossAttention,
    DetectionDecoder,
    inverse_sigmoid,
)
from mta_perception.model.bevformer.encoder import (
    SpatialCrossAttention,
    TemporalSelfAttention,
    pillar_cells,
)
from mta_perception.model.bevformer.layers import Dropout, Linear
from mta_perception.model.bevformer.visibility import Visibility, pillars


def slow_copy(model, form):
    """A copy of a BEVFormer whose attention is `form`, 'published' or 'dense'."""
    spatial = {'published': PublishedSpatial, 'dense': DenseSpatial}[form]
    model = copy.deepcopy(model)
    model.backbone.to(memory_format=torch.contiguous_format)  # the usual layout of maps
    model.neck.to(memory_format=torch.contiguous_format)
    decoder = {'published': PublishedDecoder, 'dense': SlowDecoder}[form]
    model.decoder = _as(decoder, model.decoder, model.config)
    for layer in model.encoder.layers:
        layer.temporal = _as(GridTemporal, layer.temporal, model.config)
        layer.spatial = _as(spatial, layer.spatial, model.config)
    for layer in model.decoder.layers:
        layer.cross = _as(GridCross, layer.cross, model.config)
        layer.attention = _as(LibraryAttention, layer.attention, model.config)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (Linear, Dropout)):
                setattr(module, name, _library_layer(child).train(model.training))
    return model


def _library_layer(layer):
    if isinstance(layer, Dropout):
        return nn.Dropout(layer.p)
    other = nn.Linear(layer.in_features, layer.out_features)
    other.weight, other.bias = layer.weight, layer.bias
    return nn.Sequential(other, nn.ReLU(inplace=True)) if layer.relu else other


def _as(kind, module, config):
    other = kind(config).to(next(module.parameters()))
    other.load_state_dict(module.state_dict())
    return other.train(module.training)


def sampling_of(head, query):
    """Offsets (..., heads, slots, points, 2) and logits of a SamplingHead, alike but for the 2."""
    return (
        head.offsets(query).unflatten(-1, (*head.shape, 2)),
        head.weights(query).unflatten(-1, head.shape),
    )


def sample_maps(value, xy, weights, levels):
    """grid_sample level by level: each query reads the map of its own batch row.

    value (M, S, heads, D), xy (M, P, heads, L, K, 2) cells, weights (M, P, heads, L, K)
    -> (M, P, heads * D)
    """
    count, _, heads, width = value.shape
    total, start = 0.0, 0
    for level, (rows, columns) in enumerate(levels.sizes):
        tokens = value[:, start : start + rows * columns]
        start += rows * columns
        image = tokens.permute(0, 2, 3, 1).reshape(count * heads, width, rows, columns)
        size = torch.tensor([columns, rows], dtype=xy.dtype, device=xy.device)
        grid = 2.0 * (xy[:, :, :, level] + 0.5) / size - 1.0  # (M, P, heads, K, 2)
        samples = functional.grid_sample(
            image,
            grid.transpose(1, 2).flatten(0, 1),
            mode='bilinear',
            padding_mode='zeros',
            align_corners=False,
        )  # (M heads, D, P, K)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1).unsqueeze(1)
        total = total + (samples * share).sum(-1)  # (M heads, D, P)
    return total.view(count, heads * width, -1).transpose(1, 2)


class GridTemporal(TemporalSelfAttention):
    """Two maps, two grid_samples, the mean."""

    def forward(self, query, past, present, around):
        """As TemporalSelfAttention."""
        batch, count, channels = query.shape
        maps = torch.stack([past, present], 1)
        asked = torch.cat([past, query + around.position], -1)
        offsets, logits = sampling_of(self.sampling, asked)
        xy = around.reference.transpose(1, 2)[:, :, None, :, None] + offsets
        value = self.value(maps).flatten(0, 1).unflatten(-1, (self.heads, -1))
        one = type(around.grid)(around.grid.sizes[:1])
        answer = sample_maps(
            value,
            xy.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).unsqueeze(3),
            logits.softmax(-1).permute(0, 3, 1, 2, 4).flatten(0, 1).unsqueeze(3),
            one,
        )
        mean = answer.view(batch, 2, count, channels).mean(1)
        return self.dropout(self.output(mean))


class LibraryAttention(nn.MultiheadAttention):
    """The library's attention between queries."""

    def __init__(self, config):
        super().__init__(config.channels, config.heads, config.dropout, batch_first=True)

    def forward(self, placed, query):
        """As SelfAttention."""
        return super().forward(placed, placed, query, need_weights=False)[0]


class SlowDecoder(DetectionDecoder):
    """Keeps nothing from frame to frame."""

    def _first(self, query, position, batch):
        return self.layers[0].among(query.expand(batch, -1, -1), position)


class PublishedDecoder(SlowDecoder):
    """The boxes of each layer are asked for twice: to move the references, then by the head."""

    def forward(self, bev):
        """As DetectionDecoder."""
        decoded = super().forward(bev)
        codes = []
        for box, state, reference in zip(self.boxes, decoded.queries, decoded.references):
            step = box(state)
            place = (inverse_sigmoid(reference) + step[..., [0, 1, 4]]).sigmoid()
            codes.append(self.code(step, place))
        return decoded._replace(box_codes=torch.stack(codes))


class GridCross(CrossAttention):
    """One map, one grid_sample."""

    def forward(self, query, bev, reference, grid):
        """As CrossAttention."""
        offsets, logits = sampling_of(self.sampling, query)
        one = type(grid)(grid.sizes[:1])
        cells = reference * one.widths_heights(reference) - 0.5
        value = self.value(bev).unflatten(-1, (self.heads, -1))
        answer = sample_maps(
            value, cells[:, :, None, None, None] + offsets, logits.softmax(-1), one
        )
        return self.dropout(self.output(answer))


class GridSpatial(SpatialCrossAttention):
    """What the two slow forms share."""

    def places(self, uv, levels):
        """(..., Z, 2) parts of the image -> cells (..., L, K, 2); point k is at height k % Z."""
        cells = pillar_cells(uv, levels)
        repeat = self.sampling.shape[2] // cells.shape[-2]
        return cells.repeat(*[1] * (cells.ndim - 2), repeat, 1)


class DenseSpatial(GridSpatial):
    """Every cell asks every camera."""

    def forward(self, query, around):
        """As SpatialCrossAttention."""
        tokens, visibility, levels = around.tokens, around.visibility, around.levels
        batch, cameras = tokens.shape[:2]
        offsets, logits = sampling_of(self.sampling, query)
        weights = logits.flatten(3).softmax(-1).view_as(logits)
        cells = self.places(visibility.uv, levels)
        xy = cells.unsqueeze(3) + offsets.unsqueeze(1)
        value = self.value(tokens).flatten(0, 1).unflatten(-1, (self.heads, -1))
        answer = sample_maps(
            value,
            xy.flatten(0, 1),
            weights.unsqueeze(1).expand(-1, cameras, *[-1] * 4).flatten(0, 1),
            levels,
        )
        seen = visibility.mask.any(-1).unsqueeze(-1)  # (B, N, Q, 1)
        total = (answer.unflatten(0, (batch, cameras)) * seen).sum(1)
        return self.dropout(self.output(total / seen.sum(1).clamp(min=1)))


class PublishedSpatial(GridSpatial):
    """Each camera gets a padded copy of the queries it sees."""

    def forward(self, query, around):
        """As SpatialCrossAttention."""
        tokens, visibility, levels = around.tokens, around.visibility, around.levels
        batch, cameras = tokens.shape[:2]
        seen = visibility.mask.any(-1)
        found = [[seen[b, n].nonzero().squeeze(-1) for n in range(cameras)] for b in range(batch)]
        longest = max(len(cells) for row in found for cells in row)
        asked = query.new_zeros(batch, cameras, longest, query.shape[-1])
        uv = query.new_zeros(batch, cameras, longest, *visibility.uv.shape[-2:])
        for b, row in enumerate(found):
            for n, cells in enumerate(row):
                asked[b, n, : len(cells)] = query[b, cells]
                uv[b, n, : len(cells)] = visibility.uv[b, n, cells].to(uv)
        offsets, logits = sampling_of(self.sampling, asked.flatten(0, 1))
        weights = logits.flatten(3).softmax(-1).view_as(logits)
        xy = self.places(uv.flatten(0, 1), levels).unsqueeze(2) + offsets
        value = self.value(tokens).flatten(0, 1).unflatten(-1, (self.heads, -1))
        answer = sample_maps(value, xy, weights, levels).unflatten(0, (batch, cameras))
        total = torch.zeros_like(query)
        for b, row in enumerate(found):
            for n, cells in enumerate(row):
                total[b, cells] += answer[b, n, : len(cells)]
        count = seen.sum(1).clamp(min=1).unsqueeze(-1)
        return self.dropout(self.output(total / count))


def published_visibility(config, image_from_lidar):
    """As find_visibility, computed as the published code does in each frame: every point with a
    copy of its camera's matrix."""
    batch, cameras = image_from_lidar.shape[:2]
    points = pillars(config).to(image_from_lidar.device)
    heights, cells = points.shape[:2]
    points = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    points = points.view(heights, 1, 1, cells, 4, 1).repeat(1, batch, cameras, 1, 1, 1)
    matrices = (
        image_from_lidar.float()
        .view(1, batch, cameras, 1, 4, 4)
        .repeat(heights, 1, 1, cells, 1, 1)
    )
    seen = torch.matmul(matrices, points).squeeze(-1)
    depth = seen[..., 2:3]
    uv = seen[..., :2] / depth.clamp(min=1e-5)
    uv = uv / uv.new_tensor([config.image.width, config.image.height])
    height = (
        config.image.height
        if config.quirks.padding_counts_as_image
        else config.image.content_height
    )
    lowest = uv.new_tensor([1.0, height / config.image.height])
    mask = (depth[..., 0] > 1e-5) & ((uv > 0) & (uv < lowest)).all(-1)
    return Visibility(mask.permute(1, 2, 3, 0), uv.permute(1, 2, 3, 0, 4), *[None] * 4)

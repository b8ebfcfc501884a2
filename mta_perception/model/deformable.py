"""Deformable attention: a query reads a map at a few points it chooses itself.

Maps are (B, C, h, w); positions are in *cells of the map*, x then y, centre of cell i at i, and
outside the map everything is zero.  Attention weights are softmaxed over the points of a head.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def sample_map(value, xy):
    """Bilinear samples (B, C, ...) of a map (B, C, h, w) at cell coordinates xy (B, ..., 2)."""
    grid = _normalised(xy, value).flatten(1, -2).unsqueeze(2)  # (B, P, 1, 2)
    samples = _sample(value, grid)  # (B, C, P, 1)
    return samples.reshape(*value.shape[:2], *xy.shape[1:-1])


def attend(value, xy, weights):
    """Weighted samples of a map, head by head.

    value    (B, heads * D, h, w)
    xy       (B, Q, heads, P, 2)  cell coordinates
    weights  (B, Q, heads, P)
    returns  (B, Q, heads * D)
    """
    batch, queries, heads, points = weights.shape
    per_head = value.reshape(batch * heads, -1, *value.shape[-2:])
    # Queries innermost: multiplying and adding up then run over long rows.
    grid = _normalised(xy, value).permute(0, 2, 3, 1, 4)
    grid = grid.reshape(batch * heads, points, queries, 2)
    weights = weights.permute(0, 2, 3, 1).reshape(batch * heads, 1, points, queries)
    mixed = (_sample(per_head, grid) * weights.float()).sum(2)  # (BH, D, Q)
    return mixed.reshape(batch, -1, queries).transpose(1, 2)


def _normalised(xy, value):
    """Cell coordinates (B, ..., 2) -> grid_sample's, -1 to 1 over the map `value`."""
    height, width = value.shape[-2:]
    # align_corners=False: cell i has its centre at (2 i + 1) / size - 1.
    scale = torch.tensor([2.0 / width, 2.0 / height], device=xy.device)
    shift = torch.tensor([1.0 / width - 1.0, 1.0 / height - 1.0], device=xy.device)
    # onnxruntime broadcasts over an innermost axis of two eight times slower than over a long one.
    rows = xy.float().flatten(2) if xy.ndim > 3 else xy.float()
    pairs = rows.shape[-1] // 2
    return (rows * scale.repeat(pairs) + shift.repeat(pairs)).view(xy.shape)


def _sample(value, grid):
    return functional.grid_sample(
        value.float(), grid, mode='bilinear', padding_mode='zeros', align_corners=False
    )


class DeformableAttention(nn.Module):
    """Attention of B x Q queries to one map around a reference cell each (Zhu et al. 2021)."""

    def __init__(self, channels, heads, points):
        super().__init__()
        self.heads, self.points = heads, points
        self.value = nn.Linear(channels, channels)
        self.offsets = nn.Linear(channels, heads * points * 2)
        self.weights = nn.Linear(channels, heads * points)
        self.output = nn.Linear(channels, channels)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(ring_offsets(heads, points).flatten())

    def forward(self, query, value, reference):
        """query (B, Q, C), value (B, C, h, w), reference (B, Q, 2) in cells -> (B, Q, C)."""
        batch, queries, _ = query.shape
        shape = batch, queries, self.heads, self.points
        xy = reference[:, :, None, None] + self.offsets(query).view(*shape, 2).float()
        weights = self.weights(query).view(shape).float().softmax(-1)
        value = project_map(self.value, value)
        return self.output(attend(value, xy, weights))


def project_map(linear, value):
    """A linear layer applied to the channels of a map (B, C, h, w)."""
    return linear(value.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, value.shape[-2:])


def ring_offsets(heads, points):
    """Start offsets (heads, points, 2): each head looks its own way, point p is p cells away."""
    angle = torch.arange(heads) * (2.0 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    # The first point stays on the reference: a layer starts as a look at its own place.
    return direction[:, None] * torch.arange(points)[None, :, None]

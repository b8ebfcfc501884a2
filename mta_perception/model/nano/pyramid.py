"""One feature map of a backbone's four, and what it says of depth.

in   levels    maps (N, C_i, H / s, W / s), s = 4, 8, 16, 32
out  features  (N, C, H / stride, W / stride)
     depth     (N, D, H / stride, W / stride) logits over bins of depth, where there are bins

Depth is told as if every camera had nano's usual focal length: a picture shows how large things
are in pixels, and how far that is depends on the lens (`focal_lengths`).
"""

import math

import torch
from torch import nn
from torch.nn import functional

NEAREST_M, FARTHEST_M = 1.5, 90.0  # of the bins' middles, at the usual focal length
USUAL_FOCAL = 1266.0 / 1600.0  # of the image's width: nuScenes' front camera


class SeparableBlock(nn.Module):
    """Depthwise 3x3, pointwise, around a shortcut: cheap layers for features that are frozen."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, x):
        """(N, C, h, w) -> the same shape."""
        return functional.relu(x + self.layers(x))


class Pyramid(nn.Module):
    """Top-down sum of a backbone's levels from stride 32 to `stride`, then `refine` blocks."""

    def __init__(self, widths, out_channels, stride, refine=0, depth_bins=0):
        super().__init__()
        self.first_level = {8: 1, 16: 2, 32: 3}[stride]
        self.lateral = nn.ModuleList(
            nn.Conv2d(width, out_channels, 1) for width in widths[self.first_level :]
        )
        self.refine = nn.Sequential(*[SeparableBlock(out_channels) for _ in range(refine)])
        self.depth = nn.Conv2d(out_channels, depth_bins, 1) if depth_bins else None

    def forward(self, levels):
        """(features, depth logits or None)."""
        levels = levels[self.first_level :]
        fused = self.lateral[-1](levels[-1])
        for level, lateral in zip(levels[-2::-1], list(self.lateral)[-2::-1]):
            coarse = functional.interpolate(fused, scale_factor=2.0, mode='nearest')
            fused = lateral(level) + coarse
        features = self.refine(fused)
        return features, None if self.depth is None else self.depth(features)


def focal_lengths(image_from_ego):
    """(..., 3, 4) pixels from metres -> (...) focal length along the rows [px].

    The third row of K [R | t] is the optical axis, of length 1, and what the first has across
    it is f times a unit vector.  0 where a camera is missing (all zeros).
    """
    first, axis = image_from_ego[..., 0, :3], image_from_ego[..., 2, :3]
    along = (first * axis).sum(-1, keepdim=True)
    return (first - along * axis).square().sum(-1).sqrt()


def bin_positions(depth, focal, image_width, bins):
    """Depths [m] (...) seen with focal lengths [px] (...) -> place among the bins, 0 to bins - 1.

    Fractions lie between two bins, which share such a depth; beyond the ends it is clipped.
    """
    usual = depth * (USUAL_FOCAL * image_width) / focal.clamp(min=1.0)
    share = (usual.clamp(min=1e-3).log() - math.log(NEAREST_M)) / math.log(FARTHEST_M / NEAREST_M)
    return (share * (bins - 1)).clamp(0.0, bins - 1.0)


def share_of_bins(position, bins):
    """Places (...) among the bins -> (..., bins): how much of it is each bin's; sums to 1."""
    middle = torch.arange(bins, device=position.device, dtype=position.dtype)
    return (1.0 - (position.unsqueeze(-1) - middle).abs()).clamp(min=0.0)

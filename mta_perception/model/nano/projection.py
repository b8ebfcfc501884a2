"""Where points of the ego frame lie in the image features, for all cameras at once.

The six feature maps (B, N, C, h, w) are stacked into one *tall map* (B, C, N (h + 1), w), one row
of zeros below each camera, so that a query reads only the cameras that see it: sampling all six
for every BEV cell would read about five times as much (see docs/architecture.md).
"""

from typing import NamedTuple

import torch
from torch.nn import functional

MIN_DEPTH_M = 0.1


class Projection(NamedTuple):
    """Points (B, ..., 3) of the ego frame seen by N cameras."""

    xy: torch.Tensor  # (B, N, ..., 2) feature cells, centre of cell i at i
    depth: torch.Tensor  # (B, N, ...) metres along the optical axis
    visible: torch.Tensor  # (B, N, ...) bool: in front, inside the image, camera present


class Views(NamedTuple):
    """For every query the K cameras that see it best."""

    camera: torch.Tensor  # (B, Q, K) int64
    valid: torch.Tensor  # (B, Q, K) float, 1 where that camera sees any of the query's points
    xy: torch.Tensor  # (B, Q, K, Z, 2) feature cells within that camera's map
    depth: torch.Tensor  # (B, Q, K, Z) metres


def tall_map(features):
    """(B, N, C, h, w) -> (B, C, N (h + 1), w) with a row of zeros below each camera."""
    padded = functional.pad(features, (0, 0, 0, 1))
    return padded.transpose(1, 2).flatten(2, 3)


def project_points(points, image_from_ego, camera_mask, image_size, stride):
    """Project ego points (B, P, Z, 3) [m] through image_from_ego (B, N, 3, 4) -> Projection.

    image_size is (width, height) in pixels of the model-size image; a masked camera sees nothing.
    """
    present = camera_mask > 0.5
    image_from_ego = torch.where(present[:, :, None, None], image_from_ego, 0.0).float()
    rotation, shift = image_from_ego[..., :3], image_from_ego[..., 3]
    batch, count, layers = points.shape[:3]
    projected = points.flatten(1, 2).float().unsqueeze(1) @ rotation.transpose(-1, -2)
    projected = (projected + shift[:, :, None]).unflatten(2, (count, layers))  # (B, N, P, Z, 3)
    depth = projected[..., 2]
    pixels = projected[..., :2] / depth.clamp(min=MIN_DEPTH_M).unsqueeze(-1)
    u, v = pixels.unbind(-1)
    visible = (
        (depth > MIN_DEPTH_M)
        & (u > -0.5)
        & (u < image_size[0] - 0.5)
        & (v > -0.5)
        & (v < image_size[1] - 0.5)
        & present[:, :, None, None]
    )
    limit = 4.0 * max(image_size)  # far outside is outside: keeps float32 exact
    xy = (pixels.clamp(-limit, limit) + 0.5) / stride - 0.5
    return Projection(xy, depth, visible)


def best_views(projection, cameras_per_query):
    """Pick for each query the cameras that see most of its points; ties to the lower index."""
    seen = projection.visible.float().sum(-1).transpose(1, 2)  # (B, P, N)
    order = 1e-3 * torch.arange(seen.shape[-1], device=seen.device)
    camera = (seen - order).topk(cameras_per_query, dim=-1).indices  # (B, P, K)
    valid = (seen.gather(-1, camera) > 0).float()
    layers = projection.depth.shape[-1]
    index = camera.unsqueeze(-1).expand(*camera.shape, layers)  # (B, P, K, Z)
    depth = projection.depth.permute(0, 2, 1, 3).gather(2, index)
    xy = projection.xy.permute(0, 2, 1, 3, 4).gather(
        2, index.unsqueeze(-1).expand(*index.shape, 2)
    )
    return Views(camera, valid, xy, depth)


def tall_xy(camera, xy, feature_height):
    """Coordinates in the tall map of per-camera xy (..., 2); camera broadcasts to (...)."""
    # Rows -1 and h are zeros: clamping there keeps a reading inside its own camera.
    row = xy[..., 1].clamp(-1.0, float(feature_height)) + camera * (feature_height + 1.0)
    return torch.stack([xy[..., 0], row], dim=-1)

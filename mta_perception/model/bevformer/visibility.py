"""Which camera sees which cell where: fixed for a calibration, so made once and kept.

A cell of the bird's-eye view is a pillar with a few heights; of the 6 x 2500 (camera, cell) pairs
of a nuScenes car fewer than 2900 are visible, and attention runs over those alone.
"""

from typing import NamedTuple

import torch


class Visibility(NamedTuple):
    """Everything spatial attention needs of a calibration.  P pairs, sorted by sample and cell."""

    mask: torch.Tensor  # (B, N, Q, Z) bool, the point is in front of and inside the camera
    uv: torch.Tensor  # (B, N, Q, Z, 2) its place in the padded image, 0 to 1
    cell: torch.Tensor  # (P,) int64, sample * Q + cell
    camera: torch.Tensor  # (P,) int64, sample * N + camera
    pair_uv: torch.Tensor  # (P, Z, 2) uv of the pairs
    share: torch.Tensor  # (P,) 1 / number of cameras that see the cell


def pillars(config):
    """(Z, Q, 3) metres in the lidar frame; cell q = row * cells + column, column along x."""
    low, high = torch.tensor(config.range_m[:3]), torch.tensor(config.range_m[3:])
    depth = float(high[2] - low[2])
    heights = torch.linspace(0.5, depth - 0.5, config.pillar_points) / depth
    line = torch.linspace(0.5, config.bev_cells - 0.5, config.bev_cells) / config.bev_cells
    z, y, x = torch.meshgrid(heights, line, line, indexing='ij')
    points = torch.stack([x, y, z], -1).flatten(1, 2)
    return points * (high - low) + low


@torch.no_grad()
def find_visibility(config, image_from_lidar, camera_mask=None):
    """Visibility of a calibration (B, N, 4, 4); camera_mask (B, N), 0 = the camera is not there.

    In float32 whatever the rest computes in, as the published code (model_facts 1.4).
    """
    points = pillars(config).to(image_from_lidar.device)
    points = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    with torch.autocast(points.device.type, enabled=False):
        seen = torch.einsum('bnij,zqj->bnqzi', image_from_lidar.float(), points)
    depth = seen[..., 2:3]
    height = (
        config.image.height
        if config.quirks.padding_counts_as_image
        else config.image.content_height
    )
    uv = seen[..., :2] / depth.clamp(min=1e-5)
    limits = torch.tensor([config.image.width, height], device=uv.device)
    inside = (uv > 0) & (uv < limits)
    mask = (depth[..., 0] > 1e-5) & inside.all(-1)
    uv = uv / torch.tensor([config.image.width, config.image.height], device=uv.device)
    if camera_mask is not None:
        mask = mask & (camera_mask > 0.5)[:, :, None, None]
    batch, cameras, cells = mask.shape[:3]
    sample, cell, camera = mask.any(-1).transpose(1, 2).nonzero(as_tuple=True)
    seen_by = mask.any(-1).sum(1).clamp(min=1)  # (B, Q)
    return Visibility(
        mask,
        uv,
        sample * cells + cell,
        sample * cameras + camera,
        uv[sample, camera, cell],
        1.0 / seen_by[sample, cell],
    )

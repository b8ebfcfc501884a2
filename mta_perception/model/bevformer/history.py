"""The bird's-eye view of the frame before, moved to where things are now.

Frames: lidar, x right, y forward.  can_bus is the vector of 18 numbers of the published code, as
the head sees it: [0:3] global displacement since the frame before, [3:7] ego quaternion, [7:10]
acceleration, [10:13] rotation rate, [13:16] velocity, [16] ego yaw [rad], [17] yaw since the frame
before [degrees].
"""

import math
from typing import NamedTuple

import torch
from torch.nn import functional

_PIVOT = 100.0 - 0.5  # the published pivot, in cells; (cells - 1) / 2 is right


class History(NamedTuple):
    """What the frame before left."""

    bev: torch.Tensor  # (B, Q, C)
    valid: torch.Tensor  # (B,) bool, False = this sample has none


def relative_can_bus(now, before, raw_degrees=False):
    """can_bus of a frame (18,) as the head sees it, from two absolute ones; `before` may be None.

    raw_degrees: published; a turn over north is then nearly 360 degrees.
    """
    vector = now.clone()
    if before is None:
        vector[:3], vector[17] = 0.0, 0.0
        return vector
    vector[:3] = now[:3] - before[:3]
    turned = now[17] - before[17]
    vector[17] = turned if raw_degrees else torch.remainder(turned + 180.0, 360.0) - 180.0
    return vector


def displacement(can_bus):
    """(B, 2) metres right and forward that the car moved, in today's lidar frame.

    Computed in the precision of can_bus; give float64 for the published digits.
    """
    x, y = can_bus[:, 0], can_bus[:, 1]
    cos, sin = can_bus[:, 16].cos(), can_bus[:, 16].sin()
    return torch.stack([sin * x - cos * y, cos * x + sin * y], -1)


def align(history, can_bus, config):
    """History in today's frame, and how far references into it move.

    -> bev (B, Q, C), shift (B, 2) in parts of the grid.  Exact: one bilinear rigid warp and no
    shift.  As published (`nearest_history`): turned by nearest cell, and the shift is left to the
    reference points of temporal attention.
    """
    can_bus = can_bus.double()
    shift = displacement(can_bus) / (config.cell_m * config.bev_cells)
    degrees = can_bus[:, 17]
    cells = config.bev_cells
    if config.quirks.nearest_history:
        pivot = _PIVOT if config.quirks.rotate_about_pixel_100 else (cells - 1) / 2.0
        return _turn_nearest(history.bev, degrees, cells, pivot), shift
    return _warp(history.bev, degrees, shift, cells), torch.zeros_like(shift)


def _source_cells(degrees, cells, pivot):
    """(B, rows, columns, 2): column and row each cell was at, before a turn about a pivot."""
    angle = degrees * (math.pi / 180.0)
    line = torch.arange(cells, device=degrees.device, dtype=torch.float64) - pivot
    row, column = torch.meshgrid(line, line, indexing='ij')
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    return torch.stack([cos * column - sin * row, sin * column + cos * row], -1) + pivot


def _turn_nearest(bev, degrees, cells, pivot):
    source = _source_cells(degrees, cells, pivot).round().long()
    inside = ((source >= 0) & (source < cells)).all(-1).flatten(1)
    token = source[..., 1].clamp(0, cells - 1) * cells + source[..., 0].clamp(0, cells - 1)
    taken = bev.gather(1, token.flatten(1).unsqueeze(-1).expand_as(bev))
    return taken * inside.unsqueeze(-1)


def _warp(bev, degrees, shift, cells):
    # A point that stands still was, seen from the frame before, ahead of where it is now.
    pivot = (cells - 1) / 2.0
    source = _source_cells(degrees, cells, pivot)
    angle = degrees * (math.pi / 180.0)
    cos, sin = angle.cos(), angle.sin()
    x, y = shift[:, 0] * cells, shift[:, 1] * cells  # in today's frame
    moved = torch.stack([cos * x - sin * y, sin * x + cos * y], -1)  # in the frame before
    grid = (2.0 * (source + moved[:, None, None]) + 1.0) / cells - 1.0
    image = bev.transpose(1, 2).unflatten(2, (cells, cells)).float()
    turned = functional.grid_sample(image, grid.float(), align_corners=False)
    return turned.flatten(2).transpose(1, 2).to(bev.dtype)

"""The bird's-eye view as a grid around the car, and how a network is told places on it.

A BEV is (C, Y, X): cell [iy, ix] with ix growing forward (+x) and iy to the left (+y) of the ego
frame; positions in cells have the centre of cell i at i.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BevGrid:
    """`cells` x `cells` over +-`half_extent_m` metres, `channels` numbers each."""

    half_extent_m: float = 51.2
    cells: int = 50
    channels: int = 128

    @property
    def cell_m(self) -> float:
        """Edge of a cell [m]."""
        return 2.0 * self.half_extent_m / self.cells

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, Y, X) of a BEV."""
        return self.channels, self.cells, self.cells


def cell_centres(grid: BevGrid) -> torch.Tensor:
    """(Y * X, 2) metres: x, y of the cell centres in the ego frame, row-major [iy, ix]."""
    line = (torch.arange(grid.cells) + 0.5) * grid.cell_m - grid.half_extent_m
    y, x = torch.meshgrid(line, line, indexing='ij')
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def metres_to_cells(xy: torch.Tensor, grid: BevGrid) -> torch.Tensor:
    """Cell coordinates of metres in the ego frame (..., 2)."""
    return (xy + grid.half_extent_m) / grid.cell_m - 0.5


def fourier(values: torch.Tensor, frequencies: int) -> torch.Tensor:
    """sin and cos of pi 2^k values (..., D) -> (..., D * 2 * frequencies)."""
    scale = torch.pi * 2.0 ** torch.arange(frequencies, device=values.device)
    angle = (values.unsqueeze(-1) * scale).flatten(-2)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)

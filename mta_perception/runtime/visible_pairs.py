"""Which camera sees which cell where, for graphs that are given it: BEVFormer's.

The same as `model/bevformer/visibility.py`, which needs torch, in numpy and for one sample.  A
cell is a pillar with a few heights; attention runs over the (camera, cell) pairs that see it.
Made anew only when a projection changes: while the car stands, or its cameras fire at one moment,
that is once a calibration.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mta_perception.detections import Floats
from mta_perception.geometry import Array
from mta_perception.runtime.manifest import BevSpec, ImageSpec, PairsSpec

Tables = dict[str, NDArray[Any]]
_NEAREST = 1e-5  # of a depth [m]
_FEWEST = 2  # pairs that a graph wants at least


class VisiblePairs:
    """The four tables `pair_*` of the graph (docs/architecture.md), kept while nothing changes."""

    def __init__(self, spec: PairsSpec, image: ImageSpec, bev: BevSpec) -> None:
        self._spec, self._image = spec, image
        self._pillars = pillars(spec, bev.cells)  # (Z, Q, 4)
        self._known: tuple[bytes, Tables] | None = None

    def tables(self, image_from_ego: Floats, camera_mask: Floats) -> Tables:
        """pair_cell, pair_camera (P,) int64, pair_uv (P, Z, 2), pair_share (P,) float32.

        image_from_ego (6, 3, 4), pixels of the model's image; camera_mask (6,), 1 = present.
        """
        key = image_from_ego.tobytes() + camera_mask.tobytes()
        if self._known is None or self._known[0] != key:
            self._known = key, self._made(image_from_ego, camera_mask)
        return self._known[1]

    def _made(self, image_from_ego: Floats, camera_mask: Floats) -> Tables:
        image_from_lidar = (image_from_ego.astype(np.float64) @ ego_from_lidar(self._spec)).astype(
            np.float32
        )
        seen = np.einsum('nij,zqj->nqzi', image_from_lidar, self._pillars)  # (N, Q, Z, 3)
        depth = seen[..., 2]
        uv = seen[..., :2] / np.maximum(depth, np.float32(_NEAREST))[..., None]
        limits = np.array([self._image.width, self._spec.content_height], np.float32)
        mask = (depth > _NEAREST) & ((uv > 0) & (uv < limits)).all(-1)  # (N, Q, Z)
        mask &= (camera_mask > 0.5)[:, None, None]
        pairs = mask.any(-1)  # (N, Q)
        cell, camera = np.nonzero(pairs.T)
        uv /= np.array([self._image.width, self._image.height], np.float32)
        seen_by = np.maximum(pairs.sum(0), 1)
        tables: Tables = {
            'pair_cell': cell.astype(np.int64),
            'pair_camera': camera.astype(np.int64),
            'pair_uv': uv[camera, cell].astype(np.float32),
            'pair_share': (1.0 / seen_by[cell]).astype(np.float32),
        }
        return tables if len(cell) >= _FEWEST else _padded(tables)


def _padded(tables: Tables) -> Tables:
    """With pairs that count for nothing: no camera may see any cell."""
    return {
        name: np.concatenate([table, np.zeros((_FEWEST, *table.shape[1:]), table.dtype)])
        for name, table in tables.items()
    }


def pillars(spec: PairsSpec, cells: int) -> Floats:
    """(Z, Q, 4) points in the lidar frame; cell q = row * cells + column, column along x."""
    low, high = np.array(spec.range_m[:3], np.float32), np.array(spec.range_m[3:], np.float32)
    depth = np.float32(high[2] - low[2])
    heights = np.linspace(0.5, depth - 0.5, spec.pillar_points, dtype=np.float32) / depth
    line = np.linspace(0.5, cells - 0.5, cells, dtype=np.float32) / np.float32(cells)
    z, y, x = np.meshgrid(heights, line, line, indexing='ij')
    points = np.ones((spec.pillar_points, cells * cells, 4), np.float32)
    points[..., :3] = np.stack([x, y, z], -1).reshape(*points.shape[:2], 3) * (high - low) + low
    return points


def ego_from_lidar(spec: PairsSpec) -> Array:
    """(4, 4): nuScenes' lidar frame, x right, y forward, in the ego frame, x forward, y left."""
    pose = np.eye(4)
    pose[:3, :3] = [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    pose[:3, 3] = spec.lidar_in_ego_m
    return pose


def surround_view(image: ImageSpec) -> Floats:
    """image_from_ego (6, 3, 4) of a plausible rig in contract order, for when there is no car."""
    focal = 1266.0 * image.scale
    intrinsics = np.array([[focal, 0, image.width / 2], [0, focal, image.height / 2], [0, 0, 1]])
    optical = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    matrices = []
    for degrees in (0, -55, 55, 180, 110, -110):
        yaw = np.radians(degrees)
        ego = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        rotation = optical @ ego
        matrices.append(intrinsics @ np.c_[rotation, -rotation @ [1.0, 0.0, 1.5]])
    return np.stack(matrices).astype(np.float32)

"""Do upright boxes overlap on the ground?  Separating axes, vectorised.

A footprint is a row (x, y, yaw, length, width), metres and radians, world frame.
"""

import numpy as np


def _half_axes(boxes):
    c, s = np.cos(boxes[..., 2]), np.sin(boxes[..., 2])
    along = np.stack([c, s], axis=-1) * boxes[..., 3:4] / 2
    across = np.stack([-s, c], axis=-1) * boxes[..., 4:5] / 2
    return along, across


def overlap(a, b, margin=0.0):
    """Booleans (...): do footprints a (..., 5) and b (..., 5) come closer than `margin` metres?

    Exact for margin 0; otherwise the gap is measured along the boxes' own axes.
    """
    a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    axes_a, axes_b = _half_axes(a), _half_axes(b)
    between = b[..., :2] - a[..., :2]
    result = np.ones(a.shape[:-1], dtype=bool)
    for axis in (*axes_a, *axes_b):
        unit = axis / np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-9)
        reach = sum(np.abs((half * unit).sum(-1)) for half in (*axes_a, *axes_b))
        result &= np.abs((between * unit).sum(-1)) < reach + margin
    return result


def corners(footprint):
    """(..., 4, 2) corners, counter-clockwise, of footprints (..., 5)."""
    footprint = np.asarray(footprint, dtype=np.float64)
    along, across = _half_axes(footprint)
    centre = footprint[..., :2]
    return np.stack(
        [
            centre - along - across,
            centre + along - across,
            centre + along + across,
            centre - along + across,
        ],
        axis=-2,
    )

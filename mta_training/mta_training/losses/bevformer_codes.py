"""Boxes as the network says them: lidar frame, log sizes, the yaw of mmdet3d before 1.0.

Ours (contract.BoxCode): ego frame, geometric centre, l, w, h, sin and cos of the yaw psi.
Theirs (decoder.py): cx, cy, log w, log l, cz, log h, sin t, cos t, vx, vy with t = -psi - pi / 2.
"""

import numpy as np

from mta_perception.contract import BoxCode
from mta_perception.geometry import invert_rigid, rigid_from_yaw, transform_boxes
from mta_perception.model.bevformer.detector import LIDAR_IN_EGO_M

# nuScenes' lidar: x right, y forward, on the roof.  For data that does not say where its lidar is.
LIDAR_FROM_EGO = invert_rigid(rigid_from_yaw(-np.pi / 2.0, LIDAR_IN_EGO_M))
_SMALLEST_M = 0.02


def lidar_codes(boxes, lidar_from_ego=LIDAR_FROM_EGO):
    """Boxes (n, 10) in the ego frame -> codes (n, 10) float32; unknown (NaN) velocities become 0.

    A velocity that is not known is learned as standing still, as the published code does.
    """
    boxes = transform_boxes(lidar_from_ego, boxes)
    length, width, height = np.log(np.maximum(boxes[:, BoxCode.SIZE], _SMALLEST_M)).T
    x, y, z = boxes[:, BoxCode.CENTER].T
    sin, cos = boxes[:, BoxCode.HEADING].T
    velocity = np.nan_to_num(boxes[:, BoxCode.VELOCITY], nan=0.0)
    # sin(-psi - pi / 2) = -cos psi, cos(-psi - pi / 2) = -sin psi: turning back is the same.
    return np.column_stack([x, y, width, length, z, height, -cos, -sin, velocity]).astype(
        np.float32
    )


def in_range(boxes, config, lidar_from_ego=LIDAR_FROM_EGO):
    """(n,) bool: the box stands inside the bird's-eye view, edges excluded."""
    centres = transform_boxes(lidar_from_ego, boxes)[:, :2]
    low, high = np.array(config.range_m[:2]), np.array(config.range_m[3:5])
    return ((centres > low) & (centres < high)).all(1)

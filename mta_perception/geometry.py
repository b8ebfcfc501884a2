"""Rigid transforms, pinhole projection and box corners: numpy, float64, no state.

A transform is a (4, 4) matrix named `target_from_source`; a quaternion is ROS order x, y, z, w
(nuScenes' order w, x, y, z is turned around where it enters, in
`mta_training.conversion.nuscenes_scene`).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_perception.contract import BoxCode

Array = NDArray[np.float64]
# Pairs of corners of `box_corners`; the first four edges are the front face.
BOX_EDGES = np.array(
    [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 0],
        [4, 5],
        [5, 6],
        [6, 7],
        [7, 4],
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
    ]
)


def rigid(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """(4, 4) from a (3, 3) rotation and a (3,) translation in metres."""
    target_from_source = np.eye(4)
    target_from_source[:3, :3] = rotation
    target_from_source[:3, 3] = translation
    return target_from_source


def rigid_from_quaternion(quaternion_xyzw: ArrayLike, translation: ArrayLike) -> Array:
    """(4, 4) from a quaternion x, y, z, w (normalised here) and a translation in metres.

    Raises ValueError where the quaternion is not finite or has no length.
    """
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    length = np.linalg.norm(quaternion)
    if not np.isfinite(length) or length < 1e-6:
        raise ValueError(
            f'quaternion (x, y, z, w) = {quaternion.tolist()} is not a rotation; '
            'expected finite values of length 1.'
        )
    x, y, z, w = quaternion / length
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return rigid(rotation, translation)


def rigid_from_yaw(yaw: float, xyz: ArrayLike = (0.0, 0.0, 0.0)) -> Array:
    """(4, 4) rotation about z by `yaw` radians, then translation `xyz` in metres."""
    c, s = np.cos(yaw), np.sin(yaw)
    return rigid(np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]), xyz)


def quaternion_from_rigid(target_from_source: ArrayLike) -> Array:
    """(4,) quaternion x, y, z, w with w >= 0 of the rotation part."""
    r = np.asarray(target_from_source, dtype=np.float64)[:3, :3]
    # Largest of the four squared components first: stable for every rotation (Shepperd 1978).
    squares = np.array(
        [
            1 + r[0, 0] - r[1, 1] - r[2, 2],
            1 - r[0, 0] + r[1, 1] - r[2, 2],
            1 - r[0, 0] - r[1, 1] + r[2, 2],
            1 + np.trace(r),
        ]
    )
    xy, xz, yz = r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1]
    wx, wy, wz = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    quaternion = np.array(
        [
            [squares[0], xy, xz, wx],
            [xy, squares[1], yz, wy],
            [xz, yz, squares[2], wz],
            [wx, wy, wz, squares[3]],
        ][int(np.argmax(squares))]
    )
    quaternion /= np.linalg.norm(quaternion)
    return quaternion if quaternion[3] >= 0 else -quaternion


def yaw_from_rigid(target_from_source: Array) -> float:
    """Yaw in radians of the source's x axis, seen in the target frame."""
    return float(np.arctan2(target_from_source[1, 0], target_from_source[0, 0]))


def level_pose(world_from_ego: Array) -> Array:
    """world_from_level: the same place and heading, z up along the world's.

    The bird's-eye view lies level in a world whose z axis is gravity's: a road that leans two
    degrees under the car puts what stands 30 m aside a metre too high or too low in the car's own
    frame.
    """
    return rigid_from_yaw(yaw_from_rigid(world_from_ego), world_from_ego[:3, 3])


def invert_rigid(target_from_source: ArrayLike) -> Array:
    """(..., 4, 4) source_from_target."""
    matrix = np.asarray(target_from_source, dtype=np.float64)
    rotation_t = np.swapaxes(matrix[..., :3, :3], -1, -2)
    inverse = np.zeros_like(matrix)
    inverse[..., :3, :3] = rotation_t
    inverse[..., :3, 3] = -(rotation_t @ matrix[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def transform(target_from_source: ArrayLike, points_source: ArrayLike) -> NDArray[Any]:
    """Points (..., 3) in metres, moved from the source into the target frame."""
    matrix = np.asarray(target_from_source)
    points_target: NDArray[Any] = np.asarray(points_source) @ matrix[:3, :3].T + matrix[:3, 3]
    return points_target


def interpolate_rigid(world_from_a: Array, world_from_b: Array, fraction: float) -> Array:
    """Pose between a (fraction 0) and b (fraction 1): linear translation, slerp rotation."""
    qa, qb = quaternion_from_rigid(world_from_a), quaternion_from_rigid(world_from_b)
    dot = float(qa @ qb)
    if dot < 0:
        qb, dot = -qb, -dot
    angle = np.arccos(min(dot, 1.0))
    if angle < 1e-6:
        quaternion = (1 - fraction) * qa + fraction * qb
    else:
        quaternion = (
            np.sin((1 - fraction) * angle) * qa + np.sin(fraction * angle) * qb
        ) / np.sin(angle)
    xyz = (1 - fraction) * world_from_a[:3, 3] + fraction * world_from_b[:3, 3]
    return rigid_from_quaternion(quaternion, xyz)


def pose_at(stamps_ns: NDArray[np.int64], world_from_ego: Array, stamp_ns: int) -> Array:
    """(4, 4) pose at a stamp, between the two poses (n, 4, 4) around it; the nearest one outside.

    stamps_ns: (n,) ascending, n at least 1.
    """
    after = int(np.searchsorted(stamps_ns, stamp_ns))
    if after in (0, len(stamps_ns)):
        outside: Array = world_from_ego[min(after, len(stamps_ns) - 1)]
        return outside
    span = int(stamps_ns[after]) - int(stamps_ns[after - 1])
    fraction = (int(stamp_ns) - int(stamps_ns[after - 1])) / span
    return interpolate_rigid(world_from_ego[after - 1], world_from_ego[after], fraction)


def project(image_from_source: Array, points_source: ArrayLike) -> tuple[Array, Array]:
    """Pixels (..., 2) and depth (...) of points (..., 3) through a (3, 4) projection matrix.

    Depth is along the optical axis in metres; pixels of points at or behind the camera
    (depth <= 0) are NaN.
    """
    points = np.asarray(points_source, dtype=np.float64)
    homogeneous = points @ image_from_source[:, :3].T + image_from_source[:, 3]
    depth = homogeneous[..., 2]
    safe = np.where(depth > 1e-6, depth, np.nan)
    return homogeneous[..., :2] / safe[..., None], depth


def box_corners(boxes: ArrayLike) -> Array:
    """Corners (K, 8, 3) in the boxes' frame of (K, >=8) boxes in contract.BoxCode columns.

    Order: front face left-top, right-top, right-bottom, left-bottom, then the rear face likewise,
    where front is +length.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, np.shape(boxes)[-1])
    unit = (
        np.array(
            [
                [1, 1, 1],
                [1, -1, 1],
                [1, -1, -1],
                [1, 1, -1],
                [-1, 1, 1],
                [-1, -1, 1],
                [-1, -1, -1],
                [-1, 1, -1],
            ]
        )
        / 2.0
    )
    local = unit[None] * boxes[:, None, BoxCode.SIZE]
    yaw = np.arctan2(boxes[:, 6], boxes[:, 7])
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    rotated = np.stack(
        [
            c * local[..., 0] - s * local[..., 1],
            s * local[..., 0] + c * local[..., 1],
            local[..., 2],
        ],
        axis=-1,
    )
    corners: Array = rotated + boxes[:, None, BoxCode.CENTER]
    return corners


def transform_boxes(target_from_source: ArrayLike, boxes: ArrayLike) -> Array:
    """(K, 10) boxes moved into another frame; heading and velocity turn with its yaw."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, BoxCode.WIDTH)
    rotation = np.asarray(target_from_source)[:2, :2]
    boxes[:, BoxCode.CENTER] = transform(target_from_source, boxes[:, BoxCode.CENTER])
    cos_sin = boxes[:, [7, 6]] @ rotation.T
    boxes[:, 6], boxes[:, 7] = cos_sin[:, 1], cos_sin[:, 0]
    boxes[:, BoxCode.VELOCITY] = boxes[:, BoxCode.VELOCITY] @ rotation.T
    return boxes

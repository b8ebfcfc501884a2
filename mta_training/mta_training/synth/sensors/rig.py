"""The sensors on the ego car: nuScenes-like, each scene's car put together a little
differently.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraCalibration
from mta_perception.geometry import rigid

FULL_WIDTH, FULL_HEIGHT = 1600, 900

# A camera fires when the lidar sweeps past its middle; microseconds before the lidar's stamp.
TRIGGER_US = {
    'cam_front_left': -43_000,
    'cam_front': -35_000,
    'cam_front_right': -28_000,
    'cam_back_right': -20_000,
    'cam_back': -10_000,
    'cam_back_left': -500,
}


class Mount(NamedTuple):
    """Where a camera sits and looks: ego frame, metres, degrees; focal length in full-size
    pixels.
    """

    xyz: tuple
    yaw: float
    focal: float


MOUNTS = {
    'cam_front': Mount((1.70, 0.00, 1.51), 0.0, 1266.0),
    'cam_front_right': Mount((1.55, -0.49, 1.50), -56.0, 1261.0),
    'cam_front_left': Mount((1.52, 0.49, 1.51), 56.0, 1271.0),
    'cam_back': Mount((0.03, 0.00, 1.58), 180.0, 809.0),
    'cam_back_left': Mount((1.04, 0.48, 1.59), 108.5, 1257.0),
    'cam_back_right': Mount((1.01, -0.48, 1.56), -110.5, 1260.0),
}

# z forward, x right, y down -> x forward, y left, z up
_EGO_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class Rig(NamedTuple):
    """All sensors of one car."""

    cameras: dict  # contract camera -> CameraCalibration
    ego_from_lidar: np.ndarray
    exposures: dict  # contract camera -> factor


def _turn(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    i, j = [k for k in range(3) if k != axis]
    matrix = np.eye(3)
    sign = -1.0 if axis == 1 else 1.0
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s * sign, s * sign, c
    return matrix


def _camera(rng, mount, lift, width, height):
    yaw, pitch, roll = np.deg2rad([mount.yaw, 0.0, 0.0] + rng.normal(0.0, [0.7, 0.6, 0.3]))
    rotation = _turn(2, yaw) @ _turn(1, pitch) @ _turn(0, roll) @ _EGO_FROM_OPTICAL
    xyz = np.array(mount.xyz) + rng.normal(0.0, 0.02, 3) + [0.0, 0.0, lift]
    scale = width / FULL_WIDTH
    focal = mount.focal * (1 + rng.normal(0.0, 0.006)) * scale
    # Half a pixel: pixel centres are at whole numbers, so a smaller image is not just a multiple.
    cx = (816.0 + rng.normal(0.0, 8.0) + 0.5) * scale - 0.5
    cy = (491.0 + rng.normal(0.0, 8.0) + 0.5) * scale - 0.5
    intrinsics = np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
    return CameraCalibration(intrinsics, width, height, rigid(rotation, xyz))


def build_rig(rng, width=FULL_WIDTH, height=FULL_HEIGHT):
    """A random car; images of another size see the same field of view (height = width * 9 /
    16).
    """
    lift = float(rng.normal(0.0, 0.06))
    gain = float(rng.uniform(0.9, 1.1))
    cameras = {camera: _camera(rng, MOUNTS[camera], lift, width, height) for camera in CAMERAS}
    exposures = {camera: gain * float(rng.uniform(0.92, 1.08)) for camera in CAMERAS}
    # nuScenes' lidar axes: x right, y forward.
    lidar = rigid(
        _turn(2, np.deg2rad(-90.0 + rng.normal(0.0, 0.3))),
        np.array([0.94, 0.0, 1.84 + lift]) + rng.normal(0.0, 0.01, 3),
    )
    return Rig(cameras, lidar, exposures)

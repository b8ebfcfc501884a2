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

# PandaSet's rig (sequence 002's calibration): longer in front, wide everywhere else, higher up.
_WIDE = 776.0
PANDASET_MOUNTS = {
    'cam_front': Mount((0.85, 0.00, 2.13), 0.0, 1641.0),
    'cam_front_right': Mount((1.48, -0.60, 1.92), -57.8, _WIDE),
    'cam_front_left': Mount((1.51, 0.64, 1.85), 57.8, _WIDE),
    'cam_back': Mount((-0.26, -0.03, 1.97), 180.0, _WIDE),
    'cam_back_left': Mount((0.54, 0.53, 1.90), 91.6, _WIDE),
    'cam_back_right': Mount((0.59, -0.70, 1.87), -88.6, _WIDE),
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


def _mounts(rng):
    """Mounts of a car in the street: nuScenes' rig, PandaSet's, or one that nobody built."""
    kind = rng.choice(['nuscenes', 'pandaset', 'any'], p=[0.4, 0.3, 0.3])
    if kind == 'nuscenes':
        return MOUNTS
    if kind == 'pandaset':
        return PANDASET_MOUNTS
    up, side, corner = rng.uniform(1.2, 2.2), rng.uniform(95.0, 125.0), rng.uniform(40.0, 65.0)
    # Horizontal fields of view of 50 to 110 degrees.
    front, aside, back = 800.0 / np.tan(np.deg2rad(rng.uniform(50.0, 110.0, 3)) / 2)
    reach = rng.uniform(0.6, 1.9)
    return {
        'cam_front': Mount((reach, 0.0, up), 0.0, front),
        'cam_front_right': Mount((reach - 0.1, -0.5, up), -corner, aside),
        'cam_front_left': Mount((reach - 0.1, 0.5, up), corner, aside),
        'cam_back': Mount((rng.uniform(-0.9, 0.2), 0.0, up), 180.0, back),
        'cam_back_left': Mount((reach - 0.6, 0.5, up), side, aside),
        'cam_back_right': Mount((reach - 0.6, -0.5, up), -side, aside),
    }


def _camera(rng, mount, lift, width, height, aim=(0.7, 0.6, 0.3), off_centre=(16.0, 41.0)):
    """aim: spread of yaw, pitch and roll [degrees]; off_centre: of the image's middle, full-size
    pixels."""
    yaw, pitch, roll = np.deg2rad([mount.yaw, 0.0, 0.0] + rng.normal(0.0, aim))
    rotation = _turn(2, yaw) @ _turn(1, pitch) @ _turn(0, roll) @ _EGO_FROM_OPTICAL
    xyz = np.array(mount.xyz) + rng.normal(0.0, 0.02, 3) + [0.0, 0.0, lift]
    scale = width / FULL_WIDTH
    focal = mount.focal * (1 + rng.normal(0.0, 0.006)) * scale
    # Half a pixel: pixel centres are at whole numbers, so a smaller image is not just a multiple.
    cx = (800.0 + off_centre[0] + rng.normal(0.0, 8.0) + 0.5) * scale - 0.5
    cy = (450.0 + off_centre[1] + rng.normal(0.0, 8.0) + 0.5) * scale - 0.5
    intrinsics = np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
    return CameraCalibration(intrinsics, width, height, rigid(rotation, xyz))


def build_rig(rng, width=FULL_WIDTH, height=FULL_HEIGHT, street=False):
    """A random car; images of another size see the same field of view (height = width * 9 /
    16).  street: any rig, aimed and exposed less evenly.
    """
    lift = float(rng.normal(0.0, 0.06))
    gain = float(rng.uniform(0.9, 1.1))
    if street:
        mounts, middle = _mounts(rng), rng.normal(0.0, [20.0, 40.0], (len(CAMERAS), 2))
        lift, uneven = float(rng.normal(0.0, 0.1)), (0.7, 1.45)
        aims = {camera: ((2.0, 1.3, 0.5), tuple(middle[k])) for k, camera in enumerate(CAMERAS)}
    else:
        mounts, aims, uneven = MOUNTS, dict.fromkeys(CAMERAS, ()), (0.92, 1.08)
    cameras = {
        camera: _camera(rng, mounts[camera], lift, width, height, *aims[camera])
        for camera in CAMERAS
    }
    exposures = {camera: gain * float(rng.uniform(*uneven)) for camera in CAMERAS}
    # nuScenes' lidar axes: x right, y forward.
    lidar = rigid(
        _turn(2, np.deg2rad(-90.0 + rng.normal(0.0, 0.3))),
        np.array([0.94, 0.0, 1.84 + lift]) + rng.normal(0.0, 0.01, 3),
    )
    return Rig(cameras, lidar, exposures)

"""Six pinhole cameras all around a car: the rig that the tests look through.

Ego axes: x forward, y left, z up; optical axes: x right, y down, z forward; metres.  A camera of
azimuth 0 looks forward, of 90 degrees to the left.  Cameras are in the order of contract.CAMERAS.
"""

import numpy as np

from mta_perception.contract import CAMERAS
from mta_perception.geometry import invert_rigid, rigid, rigid_from_yaw

AZIMUTH_DEG = dict(zip(CAMERAS, (0, -55, 55, 180, 110, -110)))
OPTICAL_AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # of azimuth 0, as ego columns


def pinhole(focal, width, height):
    """(3, 3) intrinsics; the optical axis meets the middle of the image [px]."""
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def ego_from_camera(azimuth_deg, xyz):
    """(4, 4) of a level camera at `xyz`."""
    return rigid_from_yaw(np.radians(azimuth_deg), xyz) @ rigid(OPTICAL_AXES, (0, 0, 0))


def image_from_ego(intrinsics, azimuth_deg, xyz):
    """(3, 4) projection of that camera."""
    return intrinsics @ invert_rigid(ego_from_camera(azimuth_deg, xyz))[:3]

"""Where the ego frame lies in the model's images: calibration, resize and the car's own motion in
one matrix."""

from typing import NamedTuple, Optional

import numpy as np

from mta_perception.frames import CameraCalibration
from mta_perception.geometry import invert_rigid
from mta_perception.pipeline.images import ModelImagePlan, plan_for


class CameraGeometry(NamedTuple):
    """What one calibration means for the model; constant while the calibration is."""

    calibration: CameraCalibration
    plan: Optional[ModelImagePlan]  # None where the calibration cannot be used
    image_from_ego: Optional[np.ndarray]  # (3, 4) model pixels, ego at the image's own stamp
    fault: str  # why it cannot be used, '' where it can


def camera_geometry(calibration, image_spec):
    """CameraGeometry for a manifest's ImageSpec; a calibration that cannot be true becomes a
    fault."""
    fault = calibration_fault(calibration)
    if fault:
        return CameraGeometry(calibration, None, None, fault)
    plan = plan_for(image_spec, calibration.width, calibration.height)
    camera_from_ego = invert_rigid(calibration.ego_from_camera)
    image_from_ego = plan.model_from_image @ calibration.intrinsics @ camera_from_ego[:3]
    return CameraGeometry(calibration, plan, image_from_ego, '')


def calibration_fault(calibration):
    """Why a CameraCalibration cannot be true, or ''."""
    intrinsics = np.asarray(calibration.intrinsics)
    ego_from_camera = np.asarray(calibration.ego_from_camera)
    if intrinsics.shape != (3, 3) or ego_from_camera.shape != (4, 4):
        return (
            f'calibration has shapes {intrinsics.shape} and {ego_from_camera.shape}, expected '
            '(3, 3) and (4, 4)'
        )
    if not np.isfinite(intrinsics).all() or not np.isfinite(ego_from_camera).all():
        return 'calibration is not finite'
    if calibration.width < 1 or calibration.height < 1:
        return f'calibration is of a {calibration.width}x{calibration.height} image'
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        return (
            f'focal lengths are {intrinsics[0, 0]:g} and {intrinsics[1, 1]:g} px, expected '
            'positive ones: the camera is not calibrated'
        )
    if not np.allclose(intrinsics[2], (0.0, 0.0, 1.0), atol=1e-6):
        return f'last row of the intrinsics is {intrinsics[2].tolist()}, expected [0, 0, 1]'
    rotation = ego_from_camera[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        return 'mounting is not a rotation and a translation'
    return ''


def same_calibration(one, other):
    """Whether two CameraCalibrations say the same."""
    return one is other or (
        (one.width, one.height) == (other.width, other.height)
        and np.array_equal(one.intrinsics, other.intrinsics)
        and np.array_equal(one.ego_from_camera, other.ego_from_camera)
    )

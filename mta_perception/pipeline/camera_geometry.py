"""Where the ego frame lies in the model's images: calibration, resize and the car's own motion in
one matrix."""

from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import ArrayLike

from mta_perception.frames import CameraCalibration
from mta_perception.geometry import Array, invert_rigid
from mta_perception.pipeline.images import ImageSize, ModelImagePlan, plan_for
from mta_perception.reasons import Code, Reason

_SAME_WITHIN = 1e-6  # pixels, metres, parts of a rotation: what messages lose on their way

# Intrinsics (3, 3) in pixels; width and height of the full-size image.
Lens = tuple[Array, int, int]


class CameraGeometry(NamedTuple):
    """What one calibration means for the model; constant while the calibration is."""

    calibration: CameraCalibration
    plan: Optional[ModelImagePlan]  # None where the calibration cannot be used
    image_from_camera: Optional[Array]  # (3, 3) model pixels
    camera_from_ego: Optional[Array]  # (4, 4), ego at the image's own stamp
    fault: Optional[Reason]  # why it cannot be used, None where it can

    def image_from_ego(self, world_from_ego_at_image: Array, world_from_ego: Array) -> Array:
        """(3, 4) model pixels of points in `world_from_ego`'s ego frame, the car having been at
        `world_from_ego_at_image` when the image was taken.  Not where there is a fault."""
        assert self.image_from_camera is not None and self.camera_from_ego is not None
        ego_at_image_from_ego = invert_rigid(world_from_ego_at_image) @ world_from_ego
        camera_from_ego: Array = self.camera_from_ego @ ego_at_image_from_ego
        return self.image_from_camera @ camera_from_ego[:3]


def camera_geometry(calibration: CameraCalibration, image_spec: ImageSize) -> CameraGeometry:
    """CameraGeometry for a manifest's ImageSpec; a calibration that cannot be true becomes a
    fault."""
    fault = calibration_fault(calibration)
    if fault:
        reason = Reason(Code.IMPOSSIBLE_CALIBRATION, fault)
        return CameraGeometry(calibration, None, None, None, reason)
    plan = plan_for(image_spec, calibration.width, calibration.height)
    return CameraGeometry(
        calibration,
        plan,
        plan.model_from_image @ calibration.intrinsics,
        invert_rigid(calibration.ego_from_camera),
        None,
    )


def calibration_fault(calibration: CameraCalibration) -> str:
    """What cannot be true of a CameraCalibration, for people, or ''."""
    intrinsics = np.asarray(calibration.intrinsics)
    ego_from_camera = np.asarray(calibration.ego_from_camera)
    if intrinsics.shape != (3, 3) or ego_from_camera.shape != (4, 4):
        return f'shapes {intrinsics.shape} and {ego_from_camera.shape}, expected (3, 3) and (4, 4)'
    if not np.isfinite(intrinsics).all() or not np.isfinite(ego_from_camera).all():
        return 'not finite'
    if calibration.width < 1 or calibration.height < 1:
        return f'of a {calibration.width}x{calibration.height} image'
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


def same_lens(one: Lens, other: Lens) -> bool:
    """Whether two (intrinsics, width, height) say the same."""
    return one[1:] == other[1:] and _close(one[0], other[0])


def same_calibration(one: CameraCalibration, other: CameraCalibration) -> bool:
    """Whether two CameraCalibrations say the same, but for what rounding does to them.

    A static transform that is published anew, or computed along a chain of others, comes with
    other last digits; that is no reason to forget what was remembered.
    """
    return one is other or (
        same_lens(one[:3], other[:3]) and _close(one.ego_from_camera, other.ego_from_camera)
    )


def _close(a: ArrayLike, b: ArrayLike) -> bool:
    return np.shape(a) == np.shape(b) and np.allclose(
        a, b, rtol=0, atol=_SAME_WITHIN, equal_nan=True
    )

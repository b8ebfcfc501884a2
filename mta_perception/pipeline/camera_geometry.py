"""Where the ego frame lies in the model's images: calibration, resize and the car's own motion in
one matrix."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import ArrayLike

from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraCalibration
from mta_perception.geometry import Array, invert_rigid
from mta_perception.lens import Lens
from mta_perception.pipeline.images import (
    ImageSize,
    ModelImagePlan,
    ModelImageReader,
    plan_for,
)
from mta_perception.reasons import Code, Reason

# What a camera may have, in parts of its longer side: fisheyes begin at a fifth, long lenses end
# at twenty; the middle of a region's sensor may lie outside the region.
LEAST_FOCAL, MOST_FOCAL, MOST_CENTRE = 0.05, 100.0, 2.0
MOST_MOUNT_M = 100.0
_SAME_WITHIN = 1e-6  # pixels, metres, parts of a rotation: what messages lose on their way

# Where the cameras of the training data look: 0 forward, 90 left.
CAMERA_AZIMUTH_DEG = dict(zip(CAMERAS, (0.0, -55.0, 55.0, 180.0, 110.0, -110.0)))
_FAR_OFF_DEG = 80.0  # from the azimuth of its place
_MUCH_BETTER_DEG = 60.0  # another order, over all cameras
_MOST_OF_THEM, _AGREE_DEG, _TURNED_DEG = 4, 15.0, 40.0  # cameras that are turned all alike
_BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_VERTICAL = np.sin(np.radians(50.0))  # of the optical axis; cameras of cars look at most so far up


class CameraGeometry(NamedTuple):
    """What one calibration means for the model; constant while the calibration is."""

    calibration: CameraCalibration
    plan: Optional[ModelImagePlan]  # None where the calibration cannot be used
    reader: Optional[ModelImageReader]  # of this camera's images; remembers what they are like
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
        return CameraGeometry(
            calibration, None, None, None, None, Reason(Code.IMPOSSIBLE_CALIBRATION, fault)
        )
    fault = body_frame_fault(calibration.ego_from_camera)
    if fault:
        return CameraGeometry(calibration, None, None, None, None, Reason(Code.BODY_FRAME, fault))
    plan = plan_for(image_spec, calibration.width, calibration.height)
    return CameraGeometry(
        calibration,
        plan,
        ModelImageReader(plan, calibration.intrinsics, calibration.distortion, calibration.sensor),
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
    size = max(*(calibration.sensor or ()), calibration.width, calibration.height)
    fault = _implausible(intrinsics, size)
    if fault:
        return fault
    if np.abs(ego_from_camera[:3, 3]).max() > MOST_MOUNT_M:
        return f'mounted {np.abs(ego_from_camera[:3, 3]).max():g} m from base_link'
    rotation = ego_from_camera[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        return 'mounting is not a rotation and a translation'
    return ''


def _implausible(intrinsics: Array, size: int) -> str:
    """What no camera has whose sensor's longer side is `size` pixels, or ''."""
    focal = intrinsics[[0, 1], [0, 1]]
    least, most = LEAST_FOCAL * size, MOST_FOCAL * size
    if focal.min() < least or focal.max() > most:
        return (
            f'focal lengths are {focal[0]:g} and {focal[1]:g} px, which no camera of {size} px '
            f'has (expected {least:g} to {most:g})'
        )
    if np.abs(intrinsics[:2, 2]).max() > MOST_CENTRE * size or abs(intrinsics[0, 1]) > size:
        return (
            f'the principal point is ({intrinsics[0, 2]:g}, {intrinsics[1, 2]:g}) px, which no '
            f'camera of {size} px has'
        )
    return ''


def is_optical_of(body_from_frame: Array) -> bool:
    """Whether a frame is the optical one of a camera's body frame, as REP 103 has it."""
    turned = np.abs(body_from_frame[:3, :3] - _BODY_FROM_OPTICAL).max() < 0.05
    return bool(turned and np.abs(body_from_frame[:3, 3]).max() < 0.3)


def body_frame_fault(
    ego_from_camera: Array, frame: str = '', optical_frames: Sequence[str] = ()
) -> str:
    """Why a camera's frame cannot be its optical one, for people, or ''.

    An optical frame has z along the view, x to the right and y down; a body frame (REP 103) x
    along the view and z up, so that taken for an optical one it looks at the sky.
    optical_frames: frames that are there and could be meant.
    """
    x_up, _, z_up = ego_from_camera[2, :3]
    if abs(z_up) < _VERTICAL or abs(x_up) > _VERTICAL:
        return ''
    name = f'"{frame}"' if frame else 'of the images'
    mend = (
        f'Give the images the frame_id "{optical_frames[0]}", which is that'
        if optical_frames
        else 'Publish a static transform from it to an optical frame with roll -90, pitch 0, '
        'yaw -90 degrees (x right, y down, z forward), and give the images that frame_id'
    )
    return (
        f'the frame {name} looks {"up" if z_up > 0 else "down"} along its z axis and '
        f'{_direction(azimuth_deg(ego_from_camera[:, 0]))} along x: it is the body of the camera, '
        f'not its optical frame. {mend}'
    )


def place_faults(calibrations: Mapping[str, CameraCalibration]) -> dict[str, str]:
    """camera -> what contradicts its place among the cameras of the model, for people.

    Decided over all of them: where another order fits much better, those that it moves; and each
    one that looks far away from where the model's looks.
    """
    azimuths = {
        camera: azimuth_deg(calibration.ego_from_camera[:, 2])
        for camera, calibration in calibrations.items()
        if not body_frame_fault(calibration.ego_from_camera)
    }
    turned = _all_turned_deg(azimuths)
    if turned:
        words = (
            f'all cameras look about {abs(turned):.0f} degrees to the '
            f'{"left" if turned > 0 else "right"} of where they should: the x axis of the '
            'parameter base_frame does not point forward, or all transforms to it are turned'
        )
        return dict.fromkeys(azimuths, words)
    cameras = list(azimuths)
    off = np.array(
        [
            [_apart(azimuths[camera], CAMERA_AZIMUTH_DEG[place]) for place in cameras]
            for camera in cameras
        ]
    ).reshape(len(cameras), len(cameras))
    rows = np.arange(len(cameras))
    best = min(permutations(range(len(cameras))), key=lambda order: off[rows, list(order)].sum())
    gain = off.trace() - off[rows, list(best)].sum()
    faults = {}
    for row, camera in enumerate(cameras):
        moved = gain > _MUCH_BETTER_DEG and best[row] != row
        if moved or off[row, row] > _FAR_OFF_DEG:
            better = cameras[best[row]] if moved else _nearest_place(azimuths[camera])
            faults[camera] = (
                f'it looks {_direction(azimuths[camera])}, the place is for one that looks '
                f'{_direction(CAMERA_AZIMUTH_DEG[camera])}: name it in the parameter cameras in '
                f'the place of {better}, or mend the transform of its frame'
            )
    return faults


def _all_turned_deg(azimuths: Mapping[str, float]) -> float:
    """By how much all cameras look elsewhere than their places do; 0 where they do not agree."""
    if len(azimuths) < _MOST_OF_THEM:
        return 0.0
    turns = np.radians(
        [azimuth - CAMERA_AZIMUTH_DEG[camera] for camera, azimuth in azimuths.items()]
    )
    mean = np.exp(1j * turns).mean()
    agree = np.abs(np.angle(np.exp(1j * turns) * np.conj(mean))).max() < np.radians(_AGREE_DEG)
    turned = float(np.degrees(np.angle(mean)))
    return turned if agree and abs(turned) > _TURNED_DEG else 0.0


def azimuth_deg(axis: Array) -> float:
    """Of an axis (3,) or (4,) in the ego frame: 0 forward, 90 left."""
    return float(np.degrees(np.arctan2(axis[1], axis[0])))


def _apart(one_deg: float, other_deg: float) -> float:
    return abs((one_deg - other_deg + 180.0) % 360.0 - 180.0)


def _nearest_place(azimuth: float) -> str:
    return min(CAMERA_AZIMUTH_DEG, key=lambda place: _apart(azimuth, CAMERA_AZIMUTH_DEG[place]))


def _direction(azimuth: float) -> str:
    side = 'left' if azimuth > 0 else 'right'
    if abs(azimuth) < 10:
        return 'forward'
    if abs(azimuth) > 170:
        return 'backward'
    return f'{abs(azimuth):.0f} degrees to the {side}'


def same_lens(one: Lens, other: Lens) -> bool:
    """Whether two Lenses say the same, but for rounding."""
    return one._replace(intrinsics=other.intrinsics) == other and _close(
        one.intrinsics, other.intrinsics
    )


def same_calibration(one: CameraCalibration, other: CameraCalibration) -> bool:
    """Whether two CameraCalibrations say the same, but for what rounding does to them.

    A static transform that is published anew, or computed along a chain of others, comes with
    other last digits; that is no reason to forget what was remembered.
    """
    return one is other or (
        one._replace(intrinsics=other.intrinsics, ego_from_camera=other.ego_from_camera) == other
        and _close(one.intrinsics, other.intrinsics)
        and _close(one.ego_from_camera, other.ego_from_camera)
    )


def _close(a: ArrayLike, b: ArrayLike) -> bool:
    return np.shape(a) == np.shape(b) and np.allclose(
        a, b, rtol=0, atol=_SAME_WITHIN, equal_nan=True
    )

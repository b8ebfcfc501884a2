"""What flows from the cameras into the pipeline: calibrations, images, one frame set a step."""

from typing import NamedTuple

import numpy as np


class CameraCalibration(NamedTuple):
    """One camera as the car carries it; constant while it drives."""

    intrinsics: np.ndarray  # (3, 3) pixels of the full-size image
    width: int  # full-size image [px]
    height: int
    ego_from_camera: np.ndarray  # (4, 4), camera = optical frame


class CameraImage(NamedTuple):
    """One image as it came: encoded bytes (jpeg, png) or raw pixels."""

    camera: str
    stamp_ns: int
    data: object  # bytes-like for jpeg/png; (H, W) or (H, W, C) uint8 for raw
    encoding: str  # 'jpeg' | 'png' | a sensor_msgs/Image encoding such as 'bgr8'


class FrameSet(NamedTuple):
    """The images that belong together: what one step of the pipeline sees."""

    stamp_ns: int  # reference stamp = stamp of the newest image in the set
    images: dict  # camera -> CameraImage, only those present
    missing: dict  # camera -> Reason, the rest of the contract's cameras

"""What flows from the cameras into the pipeline: calibrations, images, one frame set a step."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mta_perception.geometry import Array
from mta_perception.reasons import Reason

Pixels = NDArray[np.uint8]


class CameraCalibration(NamedTuple):
    """One camera as the car carries it; constant while it drives."""

    intrinsics: Array  # (3, 3) pixels of the full-size image
    width: int  # full-size image [px]
    height: int
    ego_from_camera: Array  # (4, 4), camera = optical frame


class CameraImage(NamedTuple):
    """One image as it came: encoded bytes (jpeg, png) or raw pixels."""

    camera: str
    stamp_ns: int
    data: bytes | memoryview | Pixels  # of a jpeg or png; (H, W) or (H, W, C) for raw
    encoding: str  # 'jpeg' | 'png' | a sensor_msgs/Image encoding such as 'bgr8'


class FrameSet(NamedTuple):
    """The images that belong together: what one step of the pipeline sees."""

    stamp_ns: int  # reference stamp = stamp of the newest image in the set
    images: dict[str, CameraImage]  # by camera, only those present
    missing: dict[str, Reason]  # by camera, the rest of the contract's

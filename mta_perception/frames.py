"""What flows from the cameras into the pipeline: calibrations, images, one frame set a step."""

from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from mta_perception.geometry import Array
from mta_perception.reasons import Reason, Refused

Pixels = NDArray[np.uint8]
RawPixels = NDArray[np.uint8] | NDArray[np.uint16]
Size = tuple[int, int]  # width, height [px]


class ImageError(Refused):
    """An image cannot be used; `reason` says why."""


class Distortion(NamedTuple):
    """What a lens does to the pinhole; OpenCV's coefficients in OpenCV's order."""

    model: str  # 'plumb_bob' | 'rational_polynomial' | 'equidistant'
    coefficients: tuple[float, ...]


class CameraCalibration(NamedTuple):
    """One camera as the car carries it; constant while it drives."""

    intrinsics: Array  # (3, 3) pixels of the full-size image
    width: int  # full-size image [px]
    height: int
    ego_from_camera: Array  # (4, 4), camera = optical frame
    distortion: Optional[Distortion] = None  # None: the images are those of a pinhole
    # Where width x height is a region of the sensor: the whole sensor.
    sensor: Optional[Size] = None


class CameraImage(NamedTuple):
    """One image as it came: encoded bytes (jpeg, png) or raw pixels."""

    camera: str
    stamp_ns: int
    data: bytes | memoryview | RawPixels  # of a jpeg or png; (H, W) or (H, W, C) for raw
    encoding: str  # 'jpeg' | 'png' | a sensor_msgs/Image encoding such as 'bgr8'
    mosaic: str = ''  # of a grey jpeg or png that is a Bayer mosaic: its first four pixels, 'rggb'
    received_ns: int = 0  # steady clock of the node; 0 for images out of a file


class FrameSet(NamedTuple):
    """The images that belong together: what one step of the pipeline sees."""

    stamp_ns: int  # reference stamp = stamp of the newest image in the set
    images: dict[str, CameraImage]  # by camera, only those present
    missing: dict[str, Reason]  # by camera, the rest of the contract's

"""SKELETON images.py — signatures fixed, bodies being written."""
from typing import NamedTuple

import numpy as np


class ImageError(ValueError):
    """An image cannot be used; str(error) is the reason."""


def compressed_encoding(data, declared=''):
    """'jpeg' or 'png' of a CompressedImage's bytes by their magic; ImageError for anything else.
    declared is the message's format string, for the error text."""


def raw_pixels(data, width, height, step, encoding):
    """sensor_msgs/Image fields -> (H, W), (H, W, C) or nv12 (H * 3 / 2, W) uint8 view, row padding cut.
    data: bytes-like / array.array / ndarray.  Raises ImageError."""


def decode(image):
    """CameraImage -> (H, W, 3) uint8 RGB, writable.  Raises ImageError(reason)."""


class ModelImagePlan(NamedTuple):
    """How a camera's full-size image becomes the model's: resized, then padded bottom/right with zeros."""
    source: tuple                 # (width, height) of the calibration [px]
    scaled: tuple                 # (width, height) after the resize
    size: tuple                   # (width, height) of the model's image
    model_from_image: np.ndarray  # (3, 3) model pixels from full-size pixels, pixel centre i at i


def plan_for(spec, width, height):
    """ModelImagePlan of a width x height camera for a manifest's ImageSpec(width, height, scale)."""


def model_image(image, plan, out):
    """Decode, resize and pad a CameraImage into out (H, W, 3) uint8 RGB.  Raises ImageError."""

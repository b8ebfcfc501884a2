"""Taking a lens's distortion out of its images: look-up maps, made once per calibration.

The rectified image is that of a pinhole with the same intrinsics.  The maps lead from the model's
small image straight to the camera's (already reduced) one, so that rectifying replaces the last
resize instead of coming on top of it.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mta_perception.frames import Distortion, Pixels, Size
from mta_perception.geometry import Array

_OUTSIDE = -100.0  # a pixel that no image has
_STEPS = 2000  # along the radius


class RectificationMaps(NamedTuple):
    """OpenCV's fixed-point maps for `cv2.remap`."""

    whole: NDArray[Any]
    fractions: NDArray[Any]

    def rectify(self, bgr: Pixels) -> Pixels:
        """(h, w, 3) of the model's image; black where the lens saw nothing."""
        return np.asarray(
            cv2.remap(
                bgr,
                self.whole,
                self.fractions,
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(0, 0, 0),
            ),
            np.uint8,
        )


def rectification_maps(
    intrinsics: Array,
    distortion: Distortion,
    source: Size,
    model_from_image: Array,
    size: Size,
    reduced: Size,
) -> RectificationMaps:
    """Maps from `size` pixels of the model's image to an image of `reduced` pixels.

    intrinsics: (3, 3) of images of `source` pixels; model_from_image: (3, 3) of the same.
    """
    pinhole = np.array(intrinsics, dtype=np.float64)
    pinhole[0, 1] = 0.0  # OpenCV's lens knows no skew
    model_from_camera = model_from_image @ pinhole
    coefficients = np.array(distortion.coefficients)
    if distortion.model == 'equidistant':
        x, y = cv2.fisheye.initUndistortRectifyMap(
            pinhole, coefficients, np.eye(3), model_from_camera, size, cv2.CV_32FC1
        )
    else:
        x, y = cv2.initUndistortRectifyMap(
            pinhole, coefficients, np.eye(3), model_from_camera, size, cv2.CV_32FC1
        )
    beyond = ~_within_lens(distortion, model_from_camera, size)
    x = _reduced(x, source[0], reduced[0], beyond)
    y = _reduced(y, source[1], reduced[1], beyond)
    whole, fractions = cv2.convertMaps(x, y, cv2.CV_16SC2)
    return RectificationMaps(whole, fractions)


def _reduced(
    places: NDArray[Any], source: int, reduced: int, beyond: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Columns (or rows) of the whole image as those of the reduced one; 16 bits must hold them."""
    places = (places + 0.5) * (reduced / source) - 0.5
    places = np.where(beyond, _OUTSIDE, np.nan_to_num(places, nan=_OUTSIDE))
    return np.clip(places, _OUTSIDE, 30000.0).astype(np.float32)


def _within_lens(
    distortion: Distortion, model_from_camera: Array, size: Size
) -> NDArray[np.bool_]:
    """(h, w) bool: pixels up to the radius at which the lens's polynomial turns back.

    Beyond it a polynomial fitted to the image alone leads back into the image and would show a
    part of it a second time.
    """
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(model_from_camera).T
    radius = np.hypot(rays[..., 0], rays[..., 1])
    steps = np.linspace(0.0, radius.max(), _STEPS)
    distorted = _distorted_radius(distortion, steps)
    turns = np.flatnonzero(~(np.diff(distorted) > 0))
    return np.asarray(radius <= (steps[turns[0]] if len(turns) else np.inf))


def _distorted_radius(distortion: Distortion, radius: Array) -> Array:
    """Radial part of the model: distance from the axis in the image plane at depth 1."""
    if distortion.model == 'equidistant':
        angle = np.arctan(radius)
        powers = np.stack([angle ** (2 * n) for n in range(1, 5)], axis=-1)
        return np.asarray(angle * (1 + powers @ np.array(distortion.coefficients)))
    k1, k2, _, _, k3, k4, k5, k6 = (*distortion.coefficients, *[0.0] * 4)[:8]
    r2 = radius**2
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.asarray(
            radius * (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        )

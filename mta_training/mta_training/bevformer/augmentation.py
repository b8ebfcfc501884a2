"""Images made harder: squares cut out of the present frame, light and colours changed in all.

No image is mirrored, turned or cropped: the published recipe has no geometric augmentation.
"""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class GridMask:
    """Squares of a regular grid set to zero (Chen et al. 2020) with the published settings.

    What is kept is the union of horizontal and vertical stripes, about three quarters.
    """

    probability: float = 0.7
    ratio: float = 0.5  # width of a stripe by their spacing

    def draw(self, height, width, rng):
        """(height, width) float32 of ones and zeros, or None: this step shows whole images."""
        if rng.random() >= self.probability:
            return None
        spacing = int(rng.integers(2, height))
        stripe = min(max(int(spacing * self.ratio + 0.5), 1), spacing - 1)
        rows = _striped(height, spacing, stripe, int(rng.integers(spacing)))
        columns = _striped(width, spacing, stripe, int(rng.integers(spacing)))
        return (rows[:, None] | columns[None]).astype(np.float32)


def _striped(size, spacing, stripe, start):
    # The published grid is 1.5 times as large and cut to its middle; it may end before the image.
    whole = int(1.5 * size)
    place = np.arange(size) + (whole - size) // 2 - start
    return (place >= 0) & (place % spacing < stripe) & (place // spacing < whole // spacing)


def distort(image, rng):
    """Brightness, contrast, saturation, hue and order of channels at random, each one time in two.

    image  (H, W, 3) float32 BGR, 0 to 255; the result may leave that range and is a new array
    """
    image = image.copy()
    if rng.random() < 0.5:
        image += np.float32(rng.uniform(-32.0, 32.0))
    contrast_first = rng.random() < 0.5
    if contrast_first:
        image = _contrast(image, rng)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)  # float32: hue in degrees
    if rng.random() < 0.5:
        hsv[..., 1] *= np.float32(rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        hsv[..., 0] = (hsv[..., 0] + np.float32(rng.uniform(-18.0, 18.0))) % 360.0
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not contrast_first:
        image = _contrast(image, rng)
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    return image


def _contrast(image, rng):
    return image * np.float32(rng.uniform(0.5, 1.5)) if rng.random() < 0.5 else image


def distort_cameras(images, rng):
    """(N, H, W, 3) uint8 RGB -> float32 RGB, every camera distorted by itself."""
    return np.stack(
        [distort(image[..., ::-1].astype(np.float32), rng)[..., ::-1] for image in images]
    )

"""Training images made harder, as a recipe's `augmentation` says.

nano relights each camera mildly and takes one away now and then.  BEVFormer distorts light and
colours of every camera of every frame of a queue (the photometric distortion of SSD) and cuts
squares out of the last one (GridMask); its images are distorted before they are resized, ours,
which are decoded once, after it.  No image is turned or cropped, and none mirrored by itself:
whole scenes are, where a recipe wants it (`mirror`, data/mirror.py); the published one does not.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from mta_perception.model.camera_image import RGB_MEAN

_STRIPE = 0.5  # width of GridMask's stripes by their spacing, as published


@dataclass(frozen=True)
class Augmentation:
    """What happens to the images of a frame; the defaults are nano's."""

    __pydantic_config__ = {'extra': 'forbid'}
    relight: bool = True  # contrast, brightness and a slight tint, each camera by itself
    dead_cameras: float = 0.15  # share of the frames in which one camera gives no image
    photometric: bool = False  # BEVFormer's: brightness, contrast, saturation, hue, channels
    grid_mask: float = 0.0  # share of the frames with squares cut out; BEVFormer 0.7
    mirror: bool = False  # every other walk through a scene with left and right exchanged

    def __post_init__(self):
        for name in ('dead_cameras', 'grid_mask'):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f'augmentation.{name}={getattr(self, name)}; expected a share, 0 to 1.'
                )

    @property
    def of_history(self):
        """The same for the frames of a queue before the last: they are seen whole."""
        return replace(self, grid_mask=0.0)


def augment(images, camera_mask, rng, augmentation):
    """(images, camera_mask) of one frame made harder; what came stays as it is.

    images       (N, H, W, 3) uint8 RGB; the result may be float32 and leave 0 to 255
    camera_mask  (N,) float32, 0 = no image
    """
    if augmentation.dead_cameras and rng.random() < augmentation.dead_cameras:
        camera_mask = camera_mask.copy()
        camera_mask[rng.integers(len(camera_mask))] = 0.0
    if augmentation.relight:
        images = np.stack([_relight(image, rng) for image in images])
    if augmentation.photometric:
        images = distort_cameras(images, rng)
    if augmentation.grid_mask and rng.random() < augmentation.grid_mask:
        kept = grid_mask(*images.shape[1:3], rng)
        # The mean of all images becomes 0 when the network normalises, as in the published code.
        images = np.where(kept[..., None], images, np.float32(RGB_MEAN))
    return images, camera_mask


def _relight(image, rng):
    """Contrast, brightness and a slight tint; mild, because captions name colours."""
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.96, 1.04, 3)
    values = np.arange(256)[:, None]
    table = np.clip((values - 110) * gain + 110 + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table[:, None])


def grid_mask(height, width, rng):
    """(height, width) bool, False in the squares of a regular grid (Chen et al. 2020).

    What is kept is the union of horizontal and vertical stripes, about three quarters.
    """
    spacing = int(rng.integers(2, height))
    stripe = min(max(int(spacing * _STRIPE + 0.5), 1), spacing - 1)
    rows = _striped(height, spacing, stripe, int(rng.integers(spacing)))
    columns = _striped(width, spacing, stripe, int(rng.integers(spacing)))
    return rows[:, None] | columns[None]


def _striped(size, spacing, stripe, start):
    # The published grid is 1.5 times as large and cut to its middle; it may end before the image.
    whole = int(1.5 * size)
    place = np.arange(size) + (whole - size) // 2 - start
    return (place >= 0) & (place % spacing < stripe) & (place // spacing < whole // spacing)


def distort_cameras(images, rng):
    """(N, H, W, 3) uint8 RGB -> float32 RGB, every camera distorted by itself."""
    return np.stack(
        [distort(image[..., ::-1].astype(np.float32), rng)[..., ::-1] for image in images]
    )


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

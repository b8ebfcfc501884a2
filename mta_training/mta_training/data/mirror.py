"""A frame with left and right exchanged: another street, where one drives on the other side.

Boxes, cameras, motion and captions are exchanged with the images, so that all still fit.
"""

import re
from typing import NamedTuple

import numpy as np

from mta_perception.contract import CAMERAS

_SWAPPED = {'left': 'right', 'right': 'left'}
_SIDE = re.compile(r'\b(left|right)\b')
_TWIN = {name: re.sub('left|right', lambda side: _SWAPPED[side[0]], name) for name in CAMERAS}
# The camera of an unmirrored frame whose image stands in each slot of a mirrored one.
MIRRORED_CAMERAS = [CAMERAS.index(_TWIN[name]) for name in CAMERAS]
_ASIDE = np.array([1.0, -1.0, 1.0, 1.0])  # y to -y, in the ego frame
_BOX = np.array([1, -1, 1, 1, 1, 1, -1, 1, 1, -1], np.float32)  # contract.BoxCode: y, sin, vy


class View(NamedTuple):
    """What is seen at one frame, and what there is; captions fit the boxes."""

    images: np.ndarray  # (6, H, W, 3)
    camera_mask: np.ndarray  # (6,) float32
    image_from_ego: np.ndarray  # (6, 3, 4) float32
    boxes: np.ndarray  # (n, 10) float32 contract.BoxCode, ego frame
    captions: list  # n strings


def mirrored(view):
    """The View in a mirror; mirrored twice it is the same again."""
    width = view.images.shape[2]
    flip = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    matrices = flip @ view.image_from_ego[MIRRORED_CAMERAS] * _ASIDE
    return View(
        np.ascontiguousarray(view.images[MIRRORED_CAMERAS, :, ::-1]),
        view.camera_mask[MIRRORED_CAMERAS],
        matrices.astype(np.float32),
        view.boxes * _BOX,
        [_SIDE.sub(lambda side: _SWAPPED[side[0]], text) for text in view.captions],
    )


def mirrored_motion(ego_from_other):
    """A rigid transform (4, 4) between two ego frames, both mirrored."""
    return _ASIDE[:, None] * ego_from_other * _ASIDE

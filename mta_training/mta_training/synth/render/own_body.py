"""The car's own body at the lower edge of a picture: a bonnet, a roof, a boot.

Most rigs see some of it, painted and glossy; a network that never did takes it for cars.
"""

from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.contract import CAMERAS

SHARE = 0.4  # of the scenes in which any camera sees the body
_EDGE = 0.12  # of its height that fades into what lies behind: it is out of focus


class OwnBody(NamedTuple):
    """What one camera sees of the body, a hump at the lower edge; shares of the picture."""

    height: float
    middle: float  # column of its top
    width: float  # half of it, where the hump meets the edge; more than 1 = seen whole
    paint: np.ndarray  # (3,) RGB, 0 to 255
    gloss: float  # share of the picture above that it mirrors

    def __call__(self, image):
        """(H, W, 3) uint8 -> the same with the body in front."""
        height, width = image.shape[:2]
        columns = (np.arange(width) + 0.5) / width
        hump = self.height * np.clip(1.0 - ((columns - self.middle) / self.width) ** 2, 0, None)
        above = (height - 0.5 - np.arange(height))[:, None] / height  # of the lower edge
        cover = np.clip((hump - above) / (_EDGE * self.height), 0.0, 1.0)[..., None]
        first = int(height * (1.0 - self.height))
        mirrored = cv2.GaussianBlur(image[max(0, 2 * first - height) : first][::-1], (0, 0), 2.0)
        body = np.broadcast_to(self.paint * image.mean() / 110.0, image.shape).copy()
        rows = min(len(mirrored), height - first)
        body[first : first + rows] += self.gloss * (mirrored[:rows] - body[first : first + rows])
        return np.clip(image + cover * (body - image), 0, 255).astype(np.uint8)


def own_bodies(rng):
    """camera -> OwnBody of a rig, {} where none sees the body."""
    if rng.random() >= SHARE:
        return {}
    paint = rng.uniform(15, 230) * np.exp(rng.normal(0.0, 0.06, 3))
    bodies = {}
    for camera in CAMERAS:
        if rng.random() < (0.6 if camera in ('cam_front', 'cam_back') else 0.25):
            bodies[camera] = OwnBody(
                float(rng.uniform(0.05, 0.24)),
                float(rng.uniform(0.35, 0.65)),
                float(rng.uniform(0.45, 1.6)),
                np.clip(paint, 0, 255),
                float(rng.uniform(0.15, 0.6)),
            )
    return bodies

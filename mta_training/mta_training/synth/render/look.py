"""What a camera's processing makes of a picture: tone, colour, sharpness, JPEG.

Real cameras do not agree with each other, and none renders as ours does: cars are greyer, shadows
are lifted, edges are sharpened or soft.
"""

from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.contract import CAMERAS
from mta_training.synth.render.own_body import OwnBody, own_bodies

_GREY = np.array([0.299, 0.587, 0.114])


class Look(NamedTuple):
    """One camera's processing over a scene."""

    colour: np.ndarray  # (3, 3) mixes R, G, B: saturation and white balance
    tone: np.ndarray  # (256,) uint8: gamma, contrast, lifted blacks
    sharpness: float  # > 0 sharpened, < 0 blurred by so many pixels
    quality: int  # of JPEG
    body: OwnBody | None = None  # what it sees of its own car

    def __call__(self, image):
        """(H, W, 3) uint8 RGB -> the same, processed, packed as JPEG and unpacked."""
        encoded = cv2.imencode(
            '.jpg', self.processed(image), [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        )[1]
        return cv2.imdecode(encoded, cv2.IMREAD_COLOR)

    def processed(self, image):
        """The same without JPEG."""
        if self.body is not None:
            image = self.body(image)
        image = cv2.LUT(cv2.transform(image, self.colour), self.tone)
        if self.sharpness:
            soft = cv2.GaussianBlur(image, (0, 0), max(abs(self.sharpness), 0.3))
            image = soft if self.sharpness < 0 else cv2.addWeighted(image, 1.5, soft, -0.5, 0.0)
        return image


def scene_looks(seed, scenario):
    """camera -> Look of a scene of the street, {} in the level world, whose cameras are all alike.

    seed  of the world
    """
    if not scenario.weather.street:
        return {}
    looks = random_looks(np.random.default_rng([seed, 7, scenario.index]), len(CAMERAS))
    bodies = own_bodies(np.random.default_rng([seed, 8, scenario.index]))
    return {camera: look._replace(body=bodies.get(camera)) for camera, look in zip(CAMERAS, looks)}


def random_looks(rng, cameras):
    """A Look for each of so many cameras, alike but not the same."""
    saturation, gamma = rng.uniform(0.35, 1.1), np.exp(rng.normal(0.0, 0.18))
    contrast, lift = rng.uniform(0.75, 1.15), rng.uniform(0.0, 28.0)
    warm, quality = rng.normal(0.0, 0.06), int(rng.integers(60, 96))
    sharpness = float(rng.choice([0.0, 0.6, -0.5, -0.8], p=[0.35, 0.3, 0.2, 0.15]))
    looks = []
    for _ in range(cameras):
        balance = np.diag([1.0 + warm, 1.0, 1.0 - warm] * np.exp(rng.normal(0.0, 0.02, 3)))
        mix = saturation * np.eye(3) + (1.0 - saturation) * _GREY
        values = (np.arange(256) / 255.0) ** (gamma * np.exp(rng.normal(0.0, 0.05)))
        values = lift + (255.0 - lift) * ((values - 0.45) * contrast + 0.45)
        tone = np.clip(values, 0, 255).astype(np.uint8)
        looks.append(Look((balance @ mix).astype(np.float32), tone, sharpness, quality))
    return looks

"""Halos around lamps and vehicle lights at night."""

import numpy as np

from mta_training.synth.render.surround import has_lights_on

FARTHEST_M = 150.0
MAX_REACH_PX = 140


def add_glow(image, nearness, street_lights, objects, camera_from_world, intrinsics):
    """Brighten `image` (H, W, 3) uint8 in place around lights that are in view and not hidden.

    street_lights  (G, 6) world x, y, z and r, g, b
    """
    lights = [(light[:3], light[3:], 0.5) for light in street_lights]
    for state in objects:
        if has_lights_on(state) or state.braking:
            lights.extend(_lights_of(state))
    for place, colour, size in lights:
        x, y, z = camera_from_world[:3, :3] @ np.asarray(place) + camera_from_world[:3, 3]
        if not 1.0 < z < FARTHEST_M:
            continue
        u, v, _ = intrinsics @ (x / z, y / z, 1.0)
        if not (0 <= u < image.shape[1] and 0 <= v < image.shape[0]):
            continue
        if nearness[int(v), int(u)] <= 1.0 / max(z - 0.6, 0.3):
            _blend_halo(image, u, v, max(size * intrinsics[0, 0] / z, 3.0), np.asarray(colour))


def _lights_of(state):
    """(place, colour, halo radius in metres) of a vehicle's lights."""
    length, width, height = state.size
    z = min(0.7, 0.45 * height)
    ends = (
        (length / 2 + 0.05, (1.0, 0.95, 0.85), 0.55),
        (-length / 2 - 0.05, (1.0, 0.06, 0.04), 0.42 if state.braking else 0.2),
    )
    matrix = np.asarray(state.world_from_object)
    for side in (-0.4, 0.4):
        for x, colour, size in ends:
            yield matrix[:3, :3] @ (x, side * width, z) + matrix[:3, 3], colour, size


def _blend_halo(image, u, v, radius, colour):
    reach = int(min(radius * 1.5, MAX_REACH_PX)) + 1
    x0, x1 = max(int(u) - reach, 0), min(int(u) + reach + 1, image.shape[1])
    y0, y1 = max(int(v) - reach, 0), min(int(v) + reach + 1, image.shape[0])
    dx, dy = (np.arange(x0, x1) - u) / radius, (np.arange(y0, y1) - v) / radius
    squared = dy[:, None] ** 2 + dx**2
    fall = 0.55 * np.exp(-4.0 * squared) + 0.30 / (1.0 + 40.0 * squared)
    share = np.clip((np.clip(1.0 - squared / 2.25, 0, 1) * fall)[..., None] * colour, 0, 1)
    patch = image[y0:y1, x0:x1].astype(np.float32)
    image[y0:y1, x0:x1] = 255.0 - (255.0 - patch) * (1.0 - share)

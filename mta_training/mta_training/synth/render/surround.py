"""Light on the ground around a camera: shadows of what moves, contact darkening, headlights."""

import cv2
import numpy as np

from mta_training.synth.render.backdrop import Surround
from mta_training.synth.render.ground import SHADE_CELL_M

CELL_M, SIZE = 0.12, 768  # at full detail
SUBPIXEL_BITS = 4
VEHICLES = ('car', 'truck', 'bus', 'trailer', 'construction_vehicle', 'motorcycle')


def has_lights_on(state):
    """Whether an object drives with its lights on (at night)."""
    return state.class_name in VEHICLES and np.hypot(*state.velocity) > 0.2


def surround_of(place, forward, objects, ground, to_sun, night, headlights, detail=1.0):
    """The `Surround` of a camera at `place` (3,) that looks along `forward` (2,), world axes."""
    cell, size = CELL_M / detail, round(SIZE * detail)
    extent = cell * size
    length = max(float(np.hypot(*forward)), 1e-6)
    origin = place[:2] + np.asarray(forward) / length * 0.42 * extent - extent / 2
    sun = np.full((size, size), 255, np.uint8)
    sky = sun.copy()
    per_metre = -to_sun[:2] / max(float(to_sun[2]), 0.12)
    for state in objects:
        if np.abs(state.world_from_object[:2, 3] - origin - extent / 2).max() > extent / 2 + 12.0:
            continue
        base = _footprint(state)
        if not night:
            ends = np.concatenate([base, base + per_metre * state.size[2] * 0.94]).astype(
                np.float32
            )
            _fill(sun, cv2.convexHull(ends)[:, 0], origin, cell, 15)
        elif has_lights_on(state):
            _add_beam(sun, state, origin, cell)
        _fill(sky, base, origin, cell, 70 if state.class_name in VEHICLES else 150)
    sun = cv2.GaussianBlur(sun, (_odd(5 * detail),) * 2, 0)
    if not night:
        sun = cv2.multiply(sun, _fixed_shade(ground, origin, cell, size), scale=1 / 255.0)
    soft = cv2.blur(sky, (_odd(7 * detail),) * 2)
    return Surround(cv2.merge([sun, soft]), origin, cell, headlights)


def _odd(texels):
    return 2 * round((texels - 1) / 2) + 1


def _footprint(state):
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * np.asarray(state.size[:2]) * 0.48
    matrix = np.asarray(state.world_from_object)
    return half @ matrix[:2, :2].T + matrix[:2, 3]


def _fill(image, points, origin, cell, value):
    pixels = np.round((points - origin) / cell * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillConvexPoly(image, pixels, value, cv2.LINE_8, SUBPIXEL_BITS)


def _fixed_shade(ground, origin, cell, size):
    """The shadows of what stands, on the grid of a `Surround`."""
    scale = cell / SHADE_CELL_M
    shift = (origin - ground.origin) / SHADE_CELL_M
    return cv2.warpAffine(
        ground.shade,
        np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=255,
    )


def _add_beam(image, state, origin, cell):
    """What a vehicle's headlights take from 255 on the road before it."""
    matrix = np.asarray(state.world_from_object)
    nose, half = state.size[0] / 2, state.size[1] / 2
    for value, reach, spread in ((215, 13.0, 2.6), (170, 8.0, 1.8)):
        ends = np.array(
            [
                (nose, half * 0.8),
                (nose + reach, half + spread),
                (nose + reach, -half - spread),
                (nose, -half * 0.8),
            ]
        )
        _fill(image, ends @ matrix[:2, :2].T + matrix[:2, 3], origin, cell, value)

"""The ground as textures fixed in the world: surfaces, paint, and the light that falls on it.

Level 0 is a map of palette indices (`cell` metres a pixel); paint on asphalt has an index per step
of coverage, so that its edges stay smooth.  The coarser levels hold linear RGB averaged from it.
"""

from typing import NamedTuple

import cv2
import numpy as np

CELL_M = 0.05
MAX_TEXELS = 48e6  # of level 0; larger worlds get larger cells
SHADE_CELL_M = 0.25
LEVELS = 7  # coarser levels: 2, 4, ... 128 cells
PAINT_STEPS = 16
NOISE_MASK = 255  # noise textures have a power of two texels a side
(GRASS, ASPHALT, WALKWAY, CARPARK, KERB, GUTTER, PATCH_DARK, PATCH_LIGHT, MANHOLE, JOINT) = range(
    10
)
WHITE_0, YELLOW_0 = 16, 32
SUBPIXEL_BITS = 4


class Ground(NamedTuple):
    """Textures of a world's ground; [iy, ix] grows with y and x from `origin`."""

    origin: np.ndarray  # (2,) float64 world metres of the middle of texel (0, 0)
    cell: float  # metres a texel of level 0
    surface: np.ndarray  # (H, W) uint8 palette index
    palette: np.ndarray  # (48, 3) float32 linear RGB
    coarse: (
        np.ndarray
    )  # (N,) uint8: the coarse levels (H_k, W_k, 3) one after the other, RGB * 510
    shapes: np.ndarray  # (LEVELS, 3) int64: where each starts in `coarse`, H_k, W_k
    shade: np.ndarray  # (h, w) uint8, day: share of the sun that arrives; night: lamp light
    grain: np.ndarray  # (256, 256) uint8 tiling fine noise, 128 = neutral
    blotch: np.ndarray  # (256, 256) uint8 tiling coarse noise, 128 = neutral


def _palette(seed, wet):
    rng = np.random.default_rng(seed + 3)
    palette = np.zeros((48, 3))
    asphalt = rng.uniform(0.085, 0.135) * np.array([1.0, 1.0, 1.02])
    palette[GRASS] = np.array([0.085, 0.125, 0.035]) * rng.uniform(0.8, 1.2)
    palette[ASPHALT] = asphalt
    palette[WALKWAY] = rng.uniform(0.24, 0.34) * np.array([1.0, 0.97, 0.92])
    palette[CARPARK] = asphalt * rng.uniform(0.85, 1.25)
    palette[KERB] = 0.42 * np.array([1.0, 0.99, 0.96])
    palette[GUTTER] = asphalt * 0.72
    palette[PATCH_DARK], palette[PATCH_LIGHT] = asphalt * 0.80, asphalt * 1.12
    palette[MANHOLE], palette[JOINT] = asphalt * 0.5, asphalt * 0.62
    for step in range(PAINT_STEPS):
        share = step / (PAINT_STEPS - 1)
        palette[WHITE_0 + step] = asphalt * (1 - share) + share * np.array([0.66, 0.66, 0.63])
        palette[YELLOW_0 + step] = asphalt * (1 - share) + share * np.array([0.62, 0.42, 0.06])
    if wet:
        palette *= np.where(np.arange(48) >= 16, 0.72, 0.58)[:, None]
    return palette.astype(np.float32)


class _Canvas:
    """Fills world polygons into a raster with sub-pixel corners."""

    def __init__(self, world, cell):
        x_min, y_min, x_max, y_max = world.extent
        self.cell = cell
        self.origin = np.array([x_min, y_min])
        self.shape = (
            int(np.ceil((y_max - y_min) / cell)) + 1,
            int(np.ceil((x_max - x_min) / cell)) + 1,
        )

    def corners(self, points):
        scaled = (np.asarray(points, dtype=np.float64)[:, :2] - self.origin) / self.cell
        return np.round(np.clip(scaled, -3e4, 6e4) * (1 << SUBPIXEL_BITS)).astype(np.int32)

    def blank(self):
        return np.zeros(self.shape, np.uint8)

    def fill(self, image, polygons, value):
        for polygon in polygons:
            cv2.fillPoly(image, [self.corners(polygon)], value, cv2.LINE_8, SUBPIXEL_BITS)

    def odd(self, metres):
        """The odd number of texels nearest to a width."""
        return 2 * int(round((metres / self.cell - 1) / 2)) + 1


def _dashes(points, dash):
    """Pieces (n, 2) of a polyline that are painted."""
    painted, gap = dash
    if painted <= 0.0:
        return [points]
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.r_[0.0, np.cumsum(steps)]
    pieces = []
    for start in np.arange(0.0, along[-1], painted + gap):
        end = min(start + painted, along[-1])
        inner = along[(along > start) & (along < end)]
        at = np.r_[start, inner, end]
        pieces.append(np.stack([np.interp(at, along, points[:, k]) for k in (0, 1)], 1))
    return pieces


def _ribbon(points, width):
    """Polygon (2n, 2) around a polyline."""
    points = np.asarray(points, dtype=np.float64)
    step = np.gradient(points, axis=0)
    length = np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    left = np.stack([-step[:, 1], step[:, 0]], 1) / length * width / 2
    return np.concatenate([points + left, (points - left)[::-1]])


def _painted_polygons(markings, colour):
    polygons = []
    for marking in markings:
        if marking.colour != colour:
            continue
        if marking.width <= 0.0:
            polygons.append(marking.points)
            continue
        points = np.asarray(marking.points, dtype=np.float64)
        polygons.extend(
            _ribbon(piece, marking.width)
            for piece in _dashes(points, marking.dash)
            if len(piece) > 1
        )
    return polygons


def _repairs(rng, canvas, surface):
    """Patches, sealed joints and manholes on the asphalt."""
    marks = canvas.blank()
    height, width = canvas.shape
    area = height * width * canvas.cell**2
    for _ in range(int(area / 90)):
        centre = rng.uniform(0, (width, height)) * canvas.cell + canvas.origin
        angle, kind = rng.uniform(0, np.pi), rng.random()
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        if kind < 0.35:
            half = rng.uniform((0.4, 0.3), (2.0, 0.9))
            corners = [
                centre + a * half[0] * along + b * half[1] * across
                for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))
            ]
            canvas.fill(
                marks, [np.array(corners)], PATCH_DARK if rng.random() < 0.6 else PATCH_LIGHT
            )
        elif kind < 0.85:
            points = centre + np.cumsum(
                np.outer(rng.uniform(0.2, 0.9, 9), along)
                + np.outer(rng.normal(0, 0.22, 9), across),
                axis=0,
            )
            canvas.fill(marks, [_ribbon(points, 0.07)], JOINT)
        else:
            angles = np.linspace(0, 2 * np.pi, 17)[:-1]
            canvas.fill(marks, [centre + 0.33 * np.c_[np.cos(angles), np.sin(angles)]], MANHOLE)
    np.copyto(surface, marks, where=(surface == ASPHALT) & (marks > 0))


def _surface(world, weather, canvas):
    rng = np.random.default_rng(weather.seed + 11)
    surface, road = canvas.blank(), canvas.blank()
    canvas.fill(surface, world.walkway, WALKWAY)
    canvas.fill(road, world.drivable_area, 1)
    canvas.fill(road, world.intersection, 1)
    wide = cv2.dilate(road, np.ones((canvas.odd(0.45),) * 2, np.uint8))
    np.copyto(surface, np.uint8(KERB), where=(wide > 0) & (surface == WALKWAY))
    parking = canvas.blank()
    canvas.fill(parking, world.carpark_area, 1)
    road |= parking
    np.copyto(surface, np.uint8(ASPHALT) + parking * np.uint8(CARPARK - ASPHALT), where=road > 0)
    narrow = cv2.erode(road, np.ones((canvas.odd(0.6),) * 2, np.uint8))
    np.copyto(surface, np.uint8(GUTTER), where=narrow < road)
    _repairs(rng, canvas, surface)
    for colour, first in (('white', WHITE_0), ('yellow', YELLOW_0)):
        paint = canvas.blank()
        canvas.fill(paint, _painted_polygons(world.markings, colour), 255)
        # A blurred edge, made steeper: smooth between texels but not soft.
        steps = cv2.convertScaleAbs(cv2.subtract(cv2.blur(paint, (3, 3)), 48), alpha=1.6) // 17
        np.copyto(surface, steps + np.uint8(first), where=steps > 0)
    return surface


def _levels(surface, palette):
    """`coarse` and `shapes` of a `Ground`: averaged linear RGB at 2, 4, ... cells a texel."""
    tables = [np.clip(palette[:, k] * 510.0 + 0.5, 0, 255).astype(np.uint8) for k in range(3)]
    full = np.zeros(256, np.uint8)
    channels = []
    for table in tables:
        full[: len(table)] = table
        half = cv2.resize(
            cv2.LUT(surface, full), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
        )
        channels.append(half)
    levels = [np.ascontiguousarray(np.stack(channels, -1))]
    while len(levels) < LEVELS:
        last = levels[-1]
        size = max(last.shape[1] // 2, 1), max(last.shape[0] // 2, 1)
        levels.append(cv2.resize(last, size, interpolation=cv2.INTER_AREA))
    starts = np.cumsum([0] + [level.size for level in levels[:-1]])
    shapes = np.array(
        [(start, *level.shape[:2]) for start, level in zip(starts, levels)], np.int64
    )
    return np.concatenate([level.ravel() for level in levels]), shapes


def _tiling_noise(rng, size, power):
    frequency = np.fft.fftfreq(size) * size
    radius = np.maximum(np.hypot(*np.meshgrid(frequency, frequency)), 1.0)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) / radius**power).real
    return np.clip(128 + 40 * (field - field.mean()) / field.std(), 0, 255).astype(np.uint8)


def _sun_share(world, to_sun, canvas):
    """Where buildings, trees and poles keep the sun off the ground."""
    shade = np.full(canvas.shape, 255, np.uint8)
    per_metre = -to_sun[:2] / max(float(to_sun[2]), 0.1)
    for building in world.buildings:
        base = np.asarray(building.footprint)[:, :2]
        shifted = base + per_metre * building.height
        hull = cv2.convexHull(np.concatenate([base, shifted]).astype(np.float32))[:, 0]
        canvas.fill(shade, [hull], 0)
    for pole in world.poles:
        foot = np.asarray(pole.xy)
        if pole.kind in ('tree', 'bush'):
            middle = foot + per_metre * pole.height * (0.68 if pole.kind == 'tree' else 0.5)
            radius = pole.height * (0.26 if pole.kind == 'tree' else 0.5)
            angles = np.linspace(0, 2 * np.pi, 17)[:-1]
            ripple = 1.0 + 0.18 * np.sin(angles * 5 + pole.style)
            circle = middle + (radius * ripple)[:, None] * np.c_[np.cos(angles), np.sin(angles)]
            stretch = np.outer((circle - middle) @ per_metre, per_metre) * 0.3
            canvas.fill(shade, [circle + stretch], 40)
        canvas.fill(
            shade, [_ribbon(np.stack([foot, foot + per_metre * pole.height * 0.7]), 0.3)], 60
        )
    for building in world.buildings:  # contact darkening along the walls
        canvas.fill(shade, [building.footprint], 0)
    return cv2.GaussianBlur(shade, (0, 0), 0.9)


def _lamp_share(world, canvas):
    """Pools of light under the street lamps."""
    light = np.zeros(canvas.shape, np.float32)
    reach = 17.0
    for pole in world.poles:
        if pole.kind != 'lamp':
            continue
        head = np.asarray(pole.xy) + 1.6 * np.array([np.cos(pole.yaw), np.sin(pole.yaw)])
        ix, iy = ((head - canvas.origin) / canvas.cell).astype(int)
        k = int(reach / canvas.cell)
        x0, x1 = max(ix - k, 0), min(ix + k + 1, canvas.shape[1])
        y0, y1 = max(iy - k, 0), min(iy + k + 1, canvas.shape[0])
        if x0 >= x1 or y0 >= y1:
            continue
        dx = np.arange(x0, x1) * canvas.cell + canvas.origin[0] - head[0]
        dy = np.arange(y0, y1) * canvas.cell + canvas.origin[1] - head[1]
        squared = dy[:, None] ** 2 + dx**2
        fall = pole.height**3 / (pole.height**2 + squared) ** 1.5
        light[y0:y1, x0:x1] += fall * np.clip(1.0 - squared / reach**2, 0.0, 1.0)
    return np.clip(light * 200.0, 0, 255).astype(np.uint8)


def make_ground(world, weather, to_sun, detail=1.0):
    """The `Ground` of a world under a weather; its texels are CELL_M / detail wide."""
    rng = np.random.default_rng(weather.seed + 7)
    x_min, y_min, x_max, y_max = world.extent
    texels = MAX_TEXELS * detail**2
    cell = max(CELL_M / detail, float(np.sqrt((x_max - x_min) * (y_max - y_min) / texels)))
    canvas = _Canvas(world, cell)
    surface = _surface(world, weather, canvas)
    palette = _palette(weather.seed, weather.rain)
    coarse = _Canvas(world, SHADE_CELL_M)
    shade = _lamp_share(world, coarse) if weather.night else _sun_share(world, to_sun, coarse)
    return Ground(
        canvas.origin,
        cell,
        surface,
        palette,
        *_levels(surface, palette),
        shade,
        _tiling_noise(rng, NOISE_MASK + 1, 0.15),
        _tiling_noise(rng, NOISE_MASK + 1, 1.3),
    )

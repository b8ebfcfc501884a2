"""Compiled pass over an image that fills in ground and sky where nothing stands, and haze.

The ground pixel is where the pixel's ray meets z = 0; its colour is averaged along the view
direction over what the pixel covers, so that the road stays calm in the distance.
"""

from typing import NamedTuple

from numba import njit
import numpy as np

from mta_training.synth.render.ground import GRASS, KERB, NOISE_MASK, SHADE_CELL_M, WALKWAY
from mta_training.synth.render.light import HORIZON, LAMP, SKY, SUN, TO_SUN, ZENITH
from mta_training.synth.render.raster import COMPILED, INLINED, headlight

FAR_M = 420.0
TAPS = 4


class Sky(NamedTuple):
    """What is behind everything, for a whole scene."""

    clouds: np.ndarray  # (S, S) float32 tiling, S a power of two
    skyline: np.ndarray  # (A,) float32 height of the far town over the horizon, by azimuth
    cover: float  # 0 = blue sky, 1 = covered


class Air(NamedTuple):
    """State of the weather, for a whole scene."""

    haze: float  # 1 / metres
    wet: float  # 0 = dry road, 1 = wet
    night: bool


class Surround(NamedTuple):
    """Light on the ground around the camera."""

    local: np.ndarray  # (M, M, 2) uint8 shares: sun (at night 255 - headlights), sky
    origin: np.ndarray  # (2,) world metres of texel [0, 0]
    cell: float  # metres a texel
    headlights: np.ndarray  # (5,) see raster.Lighting


class Rays(NamedTuple):
    """Where the pixels of a camera look."""

    place: np.ndarray  # (3,) of the camera, world
    first: np.ndarray  # (3,) world direction of pixel (0, 0), 1 along the optical axis
    along_u: np.ndarray  # (3,) change per column
    along_v: np.ndarray  # (3,) change per row
    pixel_angle: float  # [rad]


@njit(**INLINED)
def _bilinear(image, x, y):
    """Value of a uint8 image at a fractional texel, clamped to its border."""
    height, width = image.shape
    x = min(max(x, 0.0), width - 1.001)
    y = min(max(y, 0.0), height - 1.001)
    ix, iy = int(x), int(y)
    fx, fy = x - ix, y - iy
    return (image[iy, ix] * (1 - fx) + image[iy, ix + 1] * fx) * (1 - fy) + (
        image[iy + 1, ix] * (1 - fx) + image[iy + 1, ix + 1] * fx
    ) * fy


@njit(**INLINED)
def _near_albedo(surface, palette, x, y):
    """r, g, b from level 0 at texel (x, y), smooth between texels, and its palette index."""
    height, width = surface.shape
    x = min(max(x, 0.0), width - 1.001)
    y = min(max(y, 0.0), height - 1.001)
    ix, iy = int(x), int(y)
    a, b, c, d = surface[iy, ix], surface[iy, ix + 1], surface[iy + 1, ix], surface[iy + 1, ix + 1]
    if a == b and a == c and a == d:
        return palette[a, 0], palette[a, 1], palette[a, 2], int(a)
    fx, fy = x - ix, y - iy
    p, q, r, s = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    return (
        palette[a, 0] * p + palette[b, 0] * q + palette[c, 0] * r + palette[d, 0] * s,
        palette[a, 1] * p + palette[b, 1] * q + palette[c, 1] * r + palette[d, 1] * s,
        palette[a, 2] * p + palette[b, 2] * q + palette[c, 2] * r + palette[d, 2] * s,
        int(a),
    )


@njit(**INLINED)
def _far_albedo(coarse, shape, scale, x, y):
    """r, g, b (times 510) of a coarse level at texel (x, y) of level 0."""
    height, width = shape[1], shape[2]
    x = min(max((x + 0.5) * scale - 0.5, 0.0), width - 1.001)
    y = min(max((y + 0.5) * scale - 0.5, 0.0), height - 1.001)
    ix, iy = int(x), int(y)
    fx, fy = x - ix, y - iy
    p, q, r, s = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    i = shape[0] + 3 * (iy * width + ix)
    j = i + 3 * width
    return (
        coarse[i] * p + coarse[i + 3] * q + coarse[j] * r + coarse[j + 3] * s,
        coarse[i + 1] * p + coarse[i + 4] * q + coarse[j + 1] * r + coarse[j + 4] * s,
        coarse[i + 2] * p + coarse[i + 5] * q + coarse[j + 2] * r + coarse[j + 5] * s,
    )


@njit(**INLINED)
def _albedo(surface, palette, coarse, shapes, cell, x, y, across, along, dx, dy):
    """r, g, b, palette index (-1 = unknown) of the ground that a pixel at (x, y) covers [m]."""
    height, width = surface.shape
    ix, iy = x / cell, y / cell
    if ix < -2 or iy < -2 or ix > width + 1 or iy > height + 1:
        return palette[GRASS, 0], palette[GRASS, 1], palette[GRASS, 2], -1
    if along < 1.5 * cell:
        return _near_albedo(surface, palette, ix, iy)
    step = along / TAPS
    size = max(across, step) / cell
    n = 0
    while size > 1.5 and n < shapes.shape[0]:
        size *= 0.5
        n += 1
    r, g, b, kind = 0.0, 0.0, 0.0, -1
    stride = step / cell
    if n == 0:
        for t in range(TAPS):
            shift = (t - 0.5 * (TAPS - 1)) * stride
            tr, tg, tb, kind = _near_albedo(surface, palette, ix + shift * dx, iy + shift * dy)
            r, g, b = r + tr, g + tg, b + tb
        return r / TAPS, g / TAPS, b / TAPS, kind
    scale = 1.0 / (1 << n)
    for t in range(TAPS):
        shift = (t - 0.5 * (TAPS - 1)) * stride
        tr, tg, tb = _far_albedo(coarse, shapes[n - 1], scale, ix + shift * dx, iy + shift * dy)
        r, g, b = r + tr, g + tg, b + tb
    return r / (510.0 * TAPS), g / (510.0 * TAPS), b / (510.0 * TAPS), -1


@njit(**INLINED)
def _relief(grain, blotch, kind, x, y, along):
    """What stains of metres and stones of centimetres multiply the albedo with."""
    if along > 3.0:
        return 1.0
    relief = 1.0 + 0.0028 * (blotch[int(y * 1.7) & NOISE_MASK, int(x * 1.7) & NOISE_MASK] - 128.0)
    if along > 0.30:
        return relief
    fade = 1.0 - along / 0.30
    relief *= 1.0 + fade * (
        0.0026 * (blotch[int(y * 9.0) & NOISE_MASK, int(x * 9.0) & NOISE_MASK] - 128.0)
        + 0.0036 * (grain[int(y * 70.0) & NOISE_MASK, int(x * 70.0) & NOISE_MASK] - 128.0)
    )
    if kind == GRASS:
        relief *= 1.0 + fade * 0.006 * (
            grain[int(y * 23.0) & NOISE_MASK, int(x * 31.0) & NOISE_MASK] - 128.0
        )
    elif kind == WALKWAY or kind == KERB:
        a, b = (x + y) * 0.884, (x - y) * 0.884
        if a - np.floor(a) < 0.035 or b - np.floor(b) < 0.035:
            relief *= 1.0 - 0.35 * fade
    return relief


@njit(**INLINED)
def _ground_shares(local, shade, night, mx, my, sx, sy):
    """Shares of sun, sky, lamp, others' headlights at texels of the local and the fixed map."""
    if mx > 1 and my > 1 and mx < local.shape[1] - 2 and my < local.shape[0] - 2:
        px, py = int(mx), int(my)
        fx, fy = mx - px, my - py
        p, q, r, s = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
        sun = (
            local[py, px, 0] * p
            + local[py, px + 1, 0] * q
            + local[py + 1, px, 0] * r
            + local[py + 1, px + 1, 0] * s
        ) / 255.0
        sky = (
            local[py, px, 1] * p
            + local[py, px + 1, 1] * q
            + local[py + 1, px, 1] * r
            + local[py + 1, px + 1, 1] * s
        ) / 255.0
        if night:
            return 0.0, sky, 1.28 * sky * _bilinear(shade, sx, sy) / 255.0, 0.5 * (1.0 - sun)
        return sun, sky, 0.0, 0.0
    fixed = _bilinear(shade, sx, sy) / 255.0
    if night:
        return 0.0, 1.0, 1.28 * fixed, 0.0
    return fixed, 1.0, 0.0, 0.0


@njit(**INLINED)
def _sky_light(env, sky, night, dx, dy, dz, out):
    """Light from the sky or the far town in a unit direction, into out (3,)."""
    clouds, skyline, cover = sky
    t = 1.0 - (1.0 - min(dz * 1.25, 1.0)) ** 3
    for c in range(3):
        out[c] = env[HORIZON, c] + (env[ZENITH, c] - env[HORIZON, c]) * t
    if dz > 0.02:
        scale = 34.0 / (dz + 0.12)
        size = clouds.shape[0]
        px, py = dx * scale + size * 8, dy * scale + size * 8
        ix, iy = int(px), int(py)
        fx, fy = px - ix, py - iy
        mask = size - 1
        value = (
            clouds[iy & mask, ix & mask] * (1 - fx) + clouds[iy & mask, (ix + 1) & mask] * fx
        ) * (1 - fy) + (
            clouds[(iy + 1) & mask, ix & mask] * (1 - fx)
            + clouds[(iy + 1) & mask, (ix + 1) & mask] * fx
        ) * fy
        if cover > 0.95:
            for c in range(3):
                out[c] *= 0.72 + 0.5 * value
        elif not night:
            share = min(max((value - (0.78 - 0.5 * cover)) * 4.0, 0.0), 1.0) * min(dz * 6.0, 1.0)
            shade = 0.86 + 0.3 * (1.0 - value)
            for c in range(3):
                out[c] += share * 0.85 * (0.96 * shade - out[c])
    if cover < 0.95 and not night:
        facing = max(dx * env[TO_SUN, 0] + dy * env[TO_SUN, 1] + dz * env[TO_SUN, 2], 0.0)
        glow = facing**8
        glow = 0.10 * glow + 0.5 * glow**12
        if facing > 0.9993:
            glow += 8.0
        for c in range(3):
            out[c] += glow * env[SUN, c]
    flat = np.sqrt(dx * dx + dy * dy)
    if dz < 0.075 * flat:
        size = len(skyline)
        k = int((np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * size)
        if dz < skyline[k % size] * flat:
            tone = 0.42 + 0.14 * ((k // 7) % 5) / 5.0
            for c in range(3):
                out[c] = env[HORIZON, c] * (tone + 0.06 * c)


@njit(**INLINED)
def _mirrored(light, foot, v, u, rough, sky, c):
    """What a wet road shows of channel c at pixel (u, v): things above it, smeared, or the sky."""
    row = 2 * foot - v
    if foot < 0 or row < 1:
        return sky
    side = min(max(u + int(rough * 4.0), 0), light.shape[1] - 1)
    stretch = (v - foot) // 6 + 1  # ripples smear along the view
    above, below = max(row - stretch, 0), min(row + stretch, foot)
    return min((light[above, side, c] + light[row, u, c] + light[below, side, c]) / 3.0, 2.5)


@njit(**INLINED)
def _on_the_road(lamps, x, y):
    """Light of the ego's headlights on the ground, which they meet at a grazing angle."""
    reach = np.sqrt((x - lamps[0]) ** 2 + (y - lamps[1]) ** 2) + 0.5
    return headlight(x, y, 0.0, lamps) * (0.25 + 3.0 / (reach + 3.0))


@njit(**INLINED)
def _wet(grain, blotch, env, light, foot, u, v, x, y, up, r, g, b):
    """r, g, b of a wet road that mirrors; up is the sine of the view's angle to the ground."""
    if g > 1.22 * r:  # grass
        return r, g, b
    ripple = (blotch[int(y * 1.1) & NOISE_MASK, int(x * 1.1) & NOISE_MASK] - 128.0) / 128.0
    rough = (grain[int(y * 19.0) & NOISE_MASK, int(x * 19.0) & NOISE_MASK] - 128.0) / 128.0
    share = (0.025 + 0.42 * (1.0 - up) ** 6) * min(
        max(0.55 + 1.1 * ripple + 0.2 * rough, 0.10), 1.0
    )
    keep, t = 1.0 - 0.5 * share, min(up * 1.5, 1.0)
    red = env[HORIZON, 0] + (env[ZENITH, 0] - env[HORIZON, 0]) * t
    green = env[HORIZON, 1] + (env[ZENITH, 1] - env[HORIZON, 1]) * t
    blue = env[HORIZON, 2] + (env[ZENITH, 2] - env[HORIZON, 2]) * t
    return (
        r * keep + share * _mirrored(light, foot, v, u, rough, red, 0),
        g * keep + share * _mirrored(light, foot, v, u, rough, green, 1),
        b * keep + share * _mirrored(light, foot, v, u, rough, blue, 2),
    )


@njit(**INLINED)
def _behind_haze(light, v, u, env, depth, r, g, b):
    """Write r, g, b faded towards the horizon's colour; depth is distance times haze."""
    clear = 1.0 / (1.0 + depth + 0.5 * depth * depth)
    light[v, u, 0] = r * clear + env[HORIZON, 0] * (1.0 - clear)
    light[v, u, 1] = g * clear + env[HORIZON, 1] * (1.0 - clear)
    light[v, u, 2] = b * clear + env[HORIZON, 2] * (1.0 - clear)


@njit(**INLINED)
def _as_before(light, nearness, v, u, upright):
    """Copy a pixel of the sky from beside or above it: the sky is smooth, a quarter of its pixels
    will do.  False where neither is sky."""
    if u & 1 and nearness[v, u - 1] == 0.0:
        for c in range(3):
            light[v, u, c] = light[v, u - 1, c]
        return True
    if v & 1 and upright and nearness[v - 1, u] == 0.0:
        for c in range(3):
            light[v, u, c] = light[v - 1, u, c]
        return True
    return False


@njit(**COMPILED)
def fill_background(nearness, light, rays, ground, surround, sky, air, env):
    """Ground and sky where nothing was drawn, haze over everything; completes `light`."""
    height, width = nearness.shape
    place, first, along_u, along_v, pixel_angle = rays
    haze, wet, night = air
    # Taken out once: reaching into tuples of arrays in the loop would count references for every
    # pixel, which doubles the time.
    surface, palette, shade = ground.surface, ground.palette, ground.shade
    coarse, shapes, cell = ground.coarse, ground.shapes, ground.cell
    grain, blotch = ground.grain, ground.blotch
    origin_x, origin_y = ground.origin[0], ground.origin[1]
    local, local_cell, lamps = surround.local, surround.cell, surround.headlights
    to_local_x, to_local_y = origin_x - surround.origin[0], origin_y - surround.origin[1]
    foot = np.full(width, -1, np.int32)  # last row of each column that shows a thing
    upright = along_v[2] < 0.0
    for v in range(height):
        for u in range(width):
            w = nearness[v, u]
            if w > 0.0:
                foot[u] = v
                r, g, b = light[v, u, 0], light[v, u, 1], light[v, u, 2]
                _behind_haze(light, v, u, env, haze / w, r, g, b)
                continue
            dx = first[0] + u * along_u[0] + v * along_v[0]
            dy = first[1] + u * along_u[1] + v * along_v[1]
            dz = first[2] + u * along_u[2] + v * along_v[2]
            far = -place[2] / min(dz, -1e-5)
            inverse = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
            if dz >= -1e-5 or far >= FAR_M:
                if not _as_before(light, nearness, v, u, upright):
                    up = max(dz * inverse, 0.0)
                    _sky_light(env, sky, night, dx * inverse, dy * inverse, up, light[v, u])
                continue
            x, y = place[0] + far * dx - origin_x, place[1] + far * dy - origin_y
            across, up = far / inverse * pixel_angle, -dz * inverse
            along = across / max(up, 1e-3)
            level = 1.0 / np.sqrt(dx * dx + dy * dy + 1e-12)
            ahead_x, ahead_y = dx * level, dy * level
            r, g, b, kind = _albedo(
                surface, palette, coarse, shapes, cell, x, y, across, along, ahead_x, ahead_y
            )
            relief = _relief(grain, blotch, kind, x + 100.0, y + 100.0, along)
            local_x, local_y = (x + to_local_x) / local_cell, (y + to_local_y) / local_cell
            shade_x, shade_y = x / SHADE_CELL_M, y / SHADE_CELL_M
            sun, sky_share, lamp, glow = _ground_shares(
                local, shade, night, local_x, local_y, shade_x, shade_y
            )
            if night and lamps[4] > 0.0:
                glow += _on_the_road(lamps, x + origin_x, y + origin_y) * sky_share
            sun *= env[TO_SUN, 2]
            r *= relief * (
                env[SKY, 0] * sky_share + env[SUN, 0] * sun + env[LAMP, 0] * lamp + glow
            )
            g *= relief * (
                env[SKY, 1] * sky_share + env[SUN, 1] * sun + env[LAMP, 1] * lamp + glow
            )
            b *= relief * (
                env[SKY, 2] * sky_share + env[SUN, 2] * sun + env[LAMP, 2] * lamp + glow
            )
            if wet > 0.0:
                r, g, b = _wet(grain, blotch, env, light, foot[u], u, v, x, y, up, r, g, b)
            _behind_haze(light, v, u, env, far * haze, r, g, b)

"""Compiled last passes over an image: ground and sky where nothing stands, haze, lens, sensor.

The ground pixel is where the pixel's ray meets z = 0; its colour is averaged along the view direction
over what the pixel covers, so that the road stays calm in the distance.
"""

from numba import njit
import numpy as np

from mta_training.synth.ground import GRASS, KERB, NOISE_MASK, SHADE_CELL_M, WALKWAY
from mta_training.synth.raster import headlight

FAR_M = 420.0
TAPS = 4
# float32 throughout `expose`: one float64 constant would halve its speed.
ZERO, ONE, TOP = np.float32(0), np.float32(1), np.float32(255)
A, B, C, D, E = (np.float32(k) for k in (2.51, 0.03, 2.43, 0.59, 0.14))
S1, S2, S3, S4 = (np.float32(255 * k) for k in (0.662002687, 0.684122060, 0.323583601, 0.0225411470))
VIGNETTE = np.float32(0.16)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _bilinear(image, x, y):
    """Value of a uint8 image at a fractional texel, clamped to its border."""
    height, width = image.shape
    x = min(max(x, 0.0), width - 1.001)
    y = min(max(y, 0.0), height - 1.001)
    ix, iy = int(x), int(y)
    fx, fy = x - ix, y - iy
    return ((image[iy, ix] * (1 - fx) + image[iy, ix + 1] * fx) * (1 - fy)
            + (image[iy + 1, ix] * (1 - fx) + image[iy + 1, ix + 1] * fx) * fy)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
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
    return (palette[a, 0] * p + palette[b, 0] * q + palette[c, 0] * r + palette[d, 0] * s,
            palette[a, 1] * p + palette[b, 1] * q + palette[c, 1] * r + palette[d, 1] * s,
            palette[a, 2] * p + palette[b, 2] * q + palette[c, 2] * r + palette[d, 2] * s, int(a))


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
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
    return (coarse[i] * p + coarse[i + 3] * q + coarse[j] * r + coarse[j + 3] * s,
            coarse[i + 1] * p + coarse[i + 4] * q + coarse[j + 1] * r + coarse[j + 4] * s,
            coarse[i + 2] * p + coarse[i + 5] * q + coarse[j + 2] * r + coarse[j + 5] * s)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _albedo(surface, palette, coarse, shapes, cell, ix, iy, across, along, dx, dy):
    """r, g, b, palette index (-1 = unknown) of what a pixel covers: across x along metres, along (dx, dy)."""
    height, width = surface.shape
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


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _relief(grain, blotch, kind, x, y, along):
    """What stains of metres and stones of centimetres multiply the albedo with."""
    if along > 3.0:
        return 1.0
    relief = 1.0 + 0.0028 * (blotch[int(y * 1.7) & NOISE_MASK, int(x * 1.7) & NOISE_MASK] - 128.0)
    if along > 0.30:
        return relief
    fade = 1.0 - along / 0.30
    relief *= 1.0 + fade * (0.0026 * (blotch[int(y * 9.0) & NOISE_MASK, int(x * 9.0) & NOISE_MASK] - 128.0)
                            + 0.0036 * (grain[int(y * 70.0) & NOISE_MASK, int(x * 70.0) & NOISE_MASK] - 128.0))
    if kind == GRASS:
        relief *= 1.0 + fade * 0.006 * (grain[int(y * 23.0) & NOISE_MASK, int(x * 31.0) & NOISE_MASK] - 128.0)
    elif kind == WALKWAY or kind == KERB:
        a, b = (x + y) * 0.884, (x - y) * 0.884
        if a - np.floor(a) < 0.035 or b - np.floor(b) < 0.035:
            relief *= 1.0 - 0.35 * fade
    return relief


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _ground_shares(local, shade, night, mx, my, sx, sy):
    """Shares of sun, sky, lamp and others' headlights at texels of the local and the fixed light map."""
    if mx > 1 and my > 1 and mx < local.shape[1] - 2 and my < local.shape[0] - 2:
        px, py = int(mx), int(my)
        fx, fy = mx - px, my - py
        p, q, r, s = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
        sun = (local[py, px, 0] * p + local[py, px + 1, 0] * q + local[py + 1, px, 0] * r
               + local[py + 1, px + 1, 0] * s) / 255.0
        sky = (local[py, px, 1] * p + local[py, px + 1, 1] * q + local[py + 1, px, 1] * r
               + local[py + 1, px + 1, 1] * s) / 255.0
        if night:
            return 0.0, sky, sky * _bilinear(shade, sx, sy) / 255.0, 1.0 - sun
        return sun, sky, 0.0, 0.0
    fixed = _bilinear(shade, sx, sy) / 255.0
    if night:
        return 0.0, 1.0, fixed, 0.0
    return fixed, 1.0, 0.0, 0.0


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _sky_light(env, clouds, skyline, cover, dx, dy, dz, out):
    """Light from the sky or the far town in a unit direction, into out (3,)."""
    t = 1.0 - (1.0 - min(dz * 1.25, 1.0)) ** 3
    for c in range(3):
        out[c] = env[5, c] + (env[4, c] - env[5, c]) * t
    night = env[7, 0]
    if dz > 0.02:
        scale = 34.0 / (dz + 0.12)
        size = clouds.shape[0]
        px, py = dx * scale + size * 8, dy * scale + size * 8
        ix, iy = int(px), int(py)
        fx, fy = px - ix, py - iy
        mask = size - 1
        value = ((clouds[iy & mask, ix & mask] * (1 - fx) + clouds[iy & mask, (ix + 1) & mask] * fx) * (1 - fy)
                 + (clouds[(iy + 1) & mask, ix & mask] * (1 - fx)
                    + clouds[(iy + 1) & mask, (ix + 1) & mask] * fx) * fy)
        if cover > 0.95:
            for c in range(3):
                out[c] *= 0.72 + 0.5 * value
        elif night < 0.5:
            share = min(max((value - (0.78 - 0.5 * cover)) * 4.0, 0.0), 1.0) * min(dz * 6.0, 1.0)
            shade = 0.86 + 0.3 * (1.0 - value)
            for c in range(3):
                out[c] += share * 0.85 * (0.96 * shade - out[c])
    if cover < 0.95 and night < 0.5:
        facing = max(dx * env[0, 0] + dy * env[0, 1] + dz * env[0, 2], 0.0)
        glow = facing ** 8
        glow = 0.10 * glow + 0.5 * glow ** 12
        if facing > 0.9993:
            glow += 8.0
        for c in range(3):
            out[c] += glow * env[1, c]
    flat = np.sqrt(dx * dx + dy * dy)
    if dz < 0.075 * flat:
        size = len(skyline)
        k = int((np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * size)
        if dz < skyline[k % size] * flat:
            tone = 0.42 + 0.14 * ((k // 7) % 5) / 5.0
            for c in range(3):
                out[c] = env[5, c] * (tone + 0.06 * c)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def _mirrored(light, foot, v, u, rough, sky, c):
    """What a wet road shows of channel c at pixel (u, v): things above it, smeared, or the sky."""
    row = 2 * foot - v
    if foot < 0 or row < 1:
        return sky
    side = min(max(u + int(rough * 4.0), 0), light.shape[1] - 1)
    stretch = (v - foot) // 6 + 1                               # ripples smear along the view
    above, below = max(row - stretch, 0), min(row + stretch, foot)
    return min((light[above, side, c] + light[row, u, c] + light[below, side, c]) / 3.0, 2.5)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def fill_background(nearness, light, rays, eye, pixel_angle, ground, env, haze, cover, clouds, skyline,
                    local, local_origin, local_cell, lamps, wet):
    """Ground and sky where nothing was drawn, haze over everything; completes `light`.

    rays (3, 3): world direction of pixel (0, 0) and its steps along u and v; pixel_angle [rad]
    local (M, M, 2) uint8: share of the sun and of the sky around the camera
    """
    height, width = nearness.shape
    # Unpacked once: reaching into the tuple in the loop would count references for every pixel.
    surface, palette, coarse, shapes, cell = (ground.surface, ground.palette, ground.coarse, ground.shapes,
                                              ground.cell)
    shade, grain, blotch, origin_x, origin_y = (ground.shade, ground.grain, ground.blotch, ground.origin[0],
                                                ground.origin[1])
    night = env[7, 0] > 0.5
    horizon = env[5, 0], env[5, 1], env[5, 2]
    foot = np.full(width, -1, np.int32)          # last row of each column that shows a thing
    upright = rays[2, 2] < 0.0
    for v in range(height):
        for u in range(width):
            w = nearness[v, u]
            if w > 0.0:
                foot[u] = v
                depth = haze / w
                clear = 1.0 / (1.0 + depth + 0.5 * depth * depth)
                for c in range(3):
                    light[v, u, c] = light[v, u, c] * clear + horizon[c] * (1.0 - clear)
                continue
            dx = rays[0, 0] + u * rays[1, 0] + v * rays[2, 0]
            dy = rays[0, 1] + u * rays[1, 1] + v * rays[2, 1]
            dz = rays[0, 2] + u * rays[1, 2] + v * rays[2, 2]
            far = -eye[2] / min(dz, -1e-5)
            if dz > -1e-5 or far > FAR_M:
                # The sky is smooth: a quarter of its pixels will do.
                if u & 1 and nearness[v, u - 1] == 0.0:
                    for c in range(3):
                        light[v, u, c] = light[v, u - 1, c]
                elif v & 1 and upright and nearness[v - 1, u] == 0.0:
                    for c in range(3):
                        light[v, u, c] = light[v - 1, u, c]
                else:
                    inverse = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
                    _sky_light(env, clouds, skyline, cover, dx * inverse, dy * inverse, max(dz * inverse, 0.0),
                               light[v, u])
                continue
            inverse = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
            x, y = eye[0] + far * dx - origin_x, eye[1] + far * dy - origin_y
            across = far / inverse * pixel_angle
            up = -dz * inverse
            along = across / max(up, 1e-3)
            level = 1.0 / np.sqrt(dx * dx + dy * dy + 1e-12)
            r, g, b, kind = _albedo(surface, palette, coarse, shapes, cell, x / cell, y / cell, across, along,
                                    dx * level, dy * level)
            relief = _relief(grain, blotch, kind, x + 100.0, y + 100.0, along)
            sun, sky, lamp, glow = _ground_shares(
                local, shade, night, (x + origin_x - local_origin[0]) / local_cell,
                (y + origin_y - local_origin[1]) / local_cell, x / SHADE_CELL_M, y / SHADE_CELL_M)
            if night:
                if lamps[4] > 0.0:
                    # The road is lit at a grazing angle.
                    px, py = x + origin_x, y + origin_y
                    reach = np.sqrt((px - lamps[0]) ** 2 + (py - lamps[1]) ** 2) + 0.5
                    glow = 0.5 * glow + headlight(px, py, 0.0, lamps) * (0.25 + 3.0 / (reach + 3.0)) * sky
                else:
                    glow *= 0.5
            sun *= env[0, 2]
            red = r * relief * (env[2, 0] * sky + env[1, 0] * sun + env[6, 0] * lamp * 1.28 + glow)
            green = g * relief * (env[2, 1] * sky + env[1, 1] * sun + env[6, 1] * lamp * 1.28 + glow)
            blue = b * relief * (env[2, 2] * sky + env[1, 2] * sun + env[6, 2] * lamp * 1.28 + glow)
            if wet > 0.0 and g < 1.22 * r:                        # not on grass
                ripple = (blotch[int(y * 1.1) & NOISE_MASK, int(x * 1.1) & NOISE_MASK] - 128.0) / 128.0
                rough = (grain[int(y * 19.0) & NOISE_MASK, int(x * 19.0) & NOISE_MASK] - 128.0) / 128.0
                share = 0.025 + 0.42 * (1.0 - up) ** 6
                share *= min(max(0.55 + 1.1 * ripple + 0.2 * rough, 0.10), 1.0)
                keep, height_in_sky = 1.0 - 0.5 * share, min(up * 1.5, 1.0)
                red = red * keep + share * _mirrored(
                    light, foot[u], v, u, rough, env[5, 0] + (env[4, 0] - env[5, 0]) * height_in_sky, 0)
                green = green * keep + share * _mirrored(
                    light, foot[u], v, u, rough, env[5, 1] + (env[4, 1] - env[5, 1]) * height_in_sky, 1)
                blue = blue * keep + share * _mirrored(
                    light, foot[u], v, u, rough, env[5, 2] + (env[4, 2] - env[5, 2]) * height_in_sky, 2)
            depth = far * haze
            clear = 1.0 / (1.0 + depth + 0.5 * depth * depth)
            light[v, u, 0] = red * clear + horizon[0] * (1.0 - clear)
            light[v, u, 1] = green * clear + horizon[1] * (1.0 - clear)
            light[v, u, 2] = blue * clear + horizon[2] * (1.0 - clear)


@njit(cache=True, fastmath=True, nogil=True, error_model='numpy')
def expose(light, image, gain, falloff, noise, noise_row):
    """Light to bytes: lens falloff, film-like shoulder, sRGB, sensor noise.

    light (H, 3 W) float32, image (H, 3 W) uint8; falloff (3 W,) float32, row and column alike;
    noise_row (H,) start in the noise table.  Written so that it compiles to vector instructions.
    """
    height, width = light.shape
    for v in range(height):
        dy = np.float32((v - 0.5 * height) / (0.5 * width / 3))
        lens_v = gain * (ONE - VIGNETTE * dy * dy)
        start = noise_row[v]
        for i in range(width):
            x = light[v, i] * (lens_v - falloff[i] * gain)
            # Narkowicz's fit of the ACES curve, then a root series for the sRGB curve.
            d = x * (A * x + B) / (x * (C * x + D) + E)
            d = min(max(d, ZERO), ONE)
            s1 = np.sqrt(d)
            s2 = np.sqrt(s1)
            s3 = np.sqrt(s2)
            shown = S1 * s1 + S2 * s2 - S3 * s3 - S4 * d + noise[start + i]
            image[v, i] = np.uint8(min(max(shown, ZERO), TOP))

"""Textures of walls with windows and of clumps of leaves."""

import numpy as np

FACADES = 8
TILE = 64
WALL_COLOURS = (
    (0.46, 0.30, 0.22),
    (0.55, 0.50, 0.42),
    (0.36, 0.20, 0.15),
    (0.60, 0.58, 0.54),
    (0.42, 0.44, 0.46),
    (0.58, 0.46, 0.30),
    (0.30, 0.34, 0.38),
    (0.50, 0.40, 0.34),
)
# Above the ground floor's windows, by style.
SIGN_COLOURS = (
    (0.25, 0.05, 0.05),
    (0.05, 0.12, 0.25),
    (0.06, 0.2, 0.1),
    (0.3, 0.3, 0.3),
    (0.1, 0.1, 0.12),
    (0.35, 0.25, 0.1),
    (0.12, 0.12, 0.14),
    (0.3, 0.1, 0.2),
)
# Texels low, high, left, right of a window, by style.
UPPER_WINDOWS = (
    (18, 46, 20, 44),
    (16, 50, 14, 50),
    (18, 48, 24, 42),
    (14, 54, 4, 60),
    (10, 56, 2, 62),
    (16, 48, 18, 46),
    (4, 58, 3, 61),
    (18, 48, 16, 48),
)
GROUND_WINDOWS = (
    (4, 46, 6, 58),
    (4, 48, 8, 56),
    (6, 44, 12, 52),
    (2, 52, 3, 61),
    (2, 54, 2, 62),
    (4, 44, 22, 44),
    (2, 56, 2, 62),
    (4, 46, 6, 58),
)


def facade_textures(seed, street=False):
    """(2 * FACADES, 64, 64, 4) float32 wall albedo, pane share; ground and upper floor of each.

    street  half of the styles are made up anew: other colours, windows, doors, blank walls
    """
    rng = np.random.default_rng(seed + 53)
    tiles = np.zeros((2 * FACADES, TILE, TILE, 4), np.float32)
    for style in range(FACADES):
        if street and style % 2:
            tiles[2 * style : 2 * style + 2] = _made_up(rng)
            continue
        colour = np.array(WALL_COLOURS[style]) * rng.uniform(0.8, 1.15)
        for upper in (0, 1):
            tiles[2 * style + upper] = _facade_tile(rng, colour, style, upper)
    return tiles


def _facade_tile(rng, colour, style, upper):
    """Rows grow with height, columns along the wall."""
    tile = np.zeros((TILE, TILE, 4))
    tile[..., :3] = colour * (1.0 + 0.05 * rng.standard_normal((TILE, TILE, 1)))
    if style in (0, 2):  # brick courses
        tile[::4, :, :3] *= 0.86
    tile[60:, :, :3] *= 0.72  # string course
    tile[58:60, :, :3] *= 1.12
    if not upper:
        tile[..., :3] *= 0.82
        tile[50:56, 2:62, :3] = np.array(SIGN_COLOURS[style])
    low, high, left, right = (UPPER_WINDOWS if upper else GROUND_WINDOWS)[style]
    tile[max(low - 2, 0) : high + 2, max(left - 2, 0) : right + 2, :3] = (
        0.52,
        0.51,
        0.49,
    )  # frame
    sky = np.linspace(0.07, 0.22, high - low)[:, None, None]
    tile[low:high, left:right, :3] = sky * np.array([0.8, 0.92, 1.0])
    tile[low:high, left:right, 3] = 1.0
    middle = (left + right) // 2
    tile[low:high, middle - 1 : middle + 1] = (0.45, 0.45, 0.44, 0.0)
    if upper and style in (0, 2, 5, 7):
        bar = low + (high - low) * 2 // 3
        tile[bar : bar + 2, left:right] = (0.45, 0.45, 0.44, 0.0)
    if upper:
        tile[max(low - 4, 0) : max(low - 2, 0), left - 2 : right + 2, :3] = (
            colour * 0.45
        )  # sill's shadow
    return tile


def _made_up(rng):
    """(2, 64, 64, 4) ground and upper floor of a house that looks like no other."""
    tiles = np.zeros((2, TILE, TILE, 4))
    grey = rng.uniform(0.12, 0.7)
    colour = np.clip(grey * (1.0 + rng.normal(0, 0.12, 3)), 0.03, 0.8)
    tiles[..., :3] = colour * (1.0 + 0.06 * rng.standard_normal((2, TILE, TILE, 1)))
    stripes = int(rng.choice([0, 4, 6, 8]))
    if stripes:  # cladding or brick courses
        axis = tiles[:, ::stripes] if rng.random() < 0.6 else tiles[:, :, ::stripes]
        axis[..., :3] *= rng.uniform(0.75, 1.2)
    for floor in (0, 1):
        kind = rng.choice(
            ['windows', 'blank', 'door', 'shop'] if not floor else ['windows', 'blank']
        )
        if kind == 'blank':
            continue
        low, high = int(rng.integers(2, 22)), int(rng.integers(38, 60))
        left, right = int(rng.integers(3, 22)), int(rng.integers(42, 61))
        if kind == 'door':  # roller door: horizontal slats
            left, right, low = 3, 61, 0
            door = np.clip(rng.uniform(0.1, 0.7) * (1 + rng.normal(0, 0.1, 3)), 0.02, 0.8)
            tiles[floor, low:high, left:right, :3] = door
            tiles[floor, low:high:4, left:right, :3] = door * 0.7
            continue
        tiles[floor, max(low - 2, 0) : high + 2, left - 2 : right + 2, :3] = colour * rng.uniform(
            0.4, 1.6
        )
        sky = np.linspace(rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.35), high - low)
        tiles[floor, low:high, left:right, :3] = sky[:, None, None] * np.array([0.85, 0.93, 1.0])
        tiles[floor, low:high, left:right, 3] = 1.0
        for bar in rng.integers(left + 2, right - 2, int(rng.integers(0, 4))):
            tiles[floor, low:high, bar : bar + 2] = (*colour * 0.8, 0.0)
        if kind == 'shop':
            sign = rng.uniform(0.03, 0.6, 3)
            tiles[floor, min(high + 2, 58) : 62, 2:62, :3] = sign
            # Letters, so to speak.
            for letter in range(6, 56, int(rng.integers(4, 9))):
                tiles[floor, 58:61, letter : letter + 2, :3] = 1.0 - sign
    return tiles


def leaf_texture(seed, size=128):
    """(size, size, 2) float32 brightness and coverage of a clump of leaves; row 0 is its top."""
    rng = np.random.default_rng(seed + 61)
    texture = np.zeros((size, size, 2), np.float32)
    count = 900
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count)) * 0.46
    x, y = 0.5 + reach * np.cos(angle), 0.5 + reach * np.sin(angle)
    rows, columns = np.mgrid[:size, :size] / size
    for k in np.argsort(-y):  # upper leaves cover lower ones
        spread, tilt = rng.uniform(0.014, 0.034), rng.uniform(0, np.pi)
        r0, r1 = max(int((y[k] - 0.05) * size), 0), min(int((y[k] + 0.05) * size) + 1, size)
        c0, c1 = max(int((x[k] - 0.05) * size), 0), min(int((x[k] + 0.05) * size) + 1, size)
        dy, dx = rows[r0:r1, c0:c1] - y[k], columns[r0:r1, c0:c1] - x[k]
        a, b = dx * np.cos(tilt) + dy * np.sin(tilt), -dx * np.sin(tilt) + dy * np.cos(tilt)
        inside = (a / spread) ** 2 + (b / (spread * 0.55)) ** 2 < 1.0
        shade = 1.15 - 0.85 * y[k] + rng.normal(0, 0.13) - 0.25 * (x[k] - 0.5)
        texture[r0:r1, c0:c1, 0][inside] = max(shade, 0.12)
        texture[r0:r1, c0:c1, 1][inside] = 1.0
    return texture

"""How a camera turns light into bytes."""

from numba import njit
import numpy as np

from mta_training.synth.render.raster import COMPILED

# float32 throughout `expose`: one float64 constant would halve its speed.
ZERO, ONE, TOP = np.float32(0), np.float32(1), np.float32(255)
A, B, C, D, E = (np.float32(k) for k in (2.51, 0.03, 2.43, 0.59, 0.14))
S1, S2, S3, S4 = (
    np.float32(255 * k) for k in (0.662002687, 0.684122060, 0.323583601, 0.0225411470)
)
VIGNETTE = np.float32(0.16)


@njit(**COMPILED)
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

"""Light and weather: sun, sky, haze, and how a camera turns light into bytes."""

from typing import NamedTuple

import numpy as np

# Rows of the matrix that the compiled shaders read.
TO_SUN, SUN, SKY, BOUNCE, ZENITH, HORIZON, LAMP = range(7)
NOISE_SIZE = 1 << 17  # length of the noise table, many image rows


class Light(NamedTuple):
    """What every shader needs to know; colours are (3,) linear RGB."""

    to_sun: np.ndarray  # (3,) unit, world axes
    sun: np.ndarray  # (3,) light on a surface that faces the sun
    sky: np.ndarray  # (3,) ambient light from above
    bounce: np.ndarray  # (3,) ambient light from below
    zenith: np.ndarray  # (3,) colour of the sky overhead
    horizon: np.ndarray  # (3,) colour of the sky at the horizon, and of haze
    clouds: float  # 0 = blue sky, 1 = covered
    haze: float  # 1 / metres
    wet: float  # 0 = dry road, 1 = wet
    night: float  # 0 or 1
    lamp: np.ndarray  # (3,) light under a street lamp
    gain: float  # camera gain at exposure 1

    def matrix(self):
        """(7, 3) float64 rows TO_SUN ... LAMP."""
        return np.stack(
            [self.to_sun, self.sun, self.sky, self.bounce, self.zenith, self.horizon, self.lamp]
        ).astype(np.float64)


def light_of(weather):
    """The `Light` of a scene."""
    rng = np.random.default_rng(weather.seed + 17)
    azimuth, elevation = weather.sun_azimuth, float(np.clip(weather.sun_elevation, 0.12, 1.5))
    to_sun = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    low = float(np.exp(-elevation / 0.28))  # how red a low sun is
    sun = np.array([2.45, 2.3 - 0.55 * low, 2.05 - 1.2 * low]) * (0.45 + 0.55 * np.sin(elevation))
    sky, bounce = np.array([0.46, 0.54, 0.68]), np.array([0.26, 0.25, 0.22])
    zenith, horizon = np.array([0.20, 0.40, 0.82]), np.array([0.74, 0.84, 0.96])
    clouds, haze, wet, gain = float(rng.uniform(0.15, 0.6)), 1 / 700.0, 0.0, 0.74
    if weather.street:
        # A sky that is seldom postcard blue, and air that is seldom clear.
        grey = float(rng.uniform(0.0, 0.75))
        zenith = zenith + (np.array([0.62, 0.66, 0.72]) - zenith) * grey
        horizon = horizon + (np.array([0.88, 0.88, 0.87]) - horizon) * grey
        haze = 1 / float(np.exp(rng.uniform(np.log(160.0), np.log(900.0))))
        sky, gain = sky * float(rng.uniform(0.75, 1.4)), gain * float(rng.uniform(0.8, 1.35))
    lamp = np.zeros(3)
    if weather.overcast or weather.rain:
        clouds, haze = 1.0, 1 / 450.0
        sun, sky = sun * 0.14, np.array([0.86, 0.90, 0.96])
        bounce = np.array([0.40, 0.40, 0.40])
        zenith, horizon, gain = np.array([0.62, 0.66, 0.72]), np.array([0.84, 0.87, 0.90]), 0.92
    if weather.rain:
        sun, sky, bounce = sun * 0.2, sky * 0.8, bounce * 0.7
        zenith, horizon = zenith * 0.72, horizon * 0.74
        haze, wet, gain = 1 / 170.0, 1.0, 1.05
    if weather.night:
        sun, sky, bounce = (
            np.zeros(3),
            np.array([0.030, 0.030, 0.036]),
            np.array([0.026, 0.022, 0.018]),
        )
        zenith, horizon = np.array([0.004, 0.005, 0.010]), np.array([0.022, 0.020, 0.022])
        lamp, gain = np.array([0.55, 0.40, 0.22]), 2.6
        haze = 1 / 500.0 if not weather.rain else 1 / 220.0
    return Light(
        to_sun,
        sun,
        sky,
        bounce,
        zenith,
        horizon,
        clouds,
        haze,
        wet,
        float(weather.night),
        lamp,
        gain,
    )


def noise_table(seed, night, rain):
    """(NOISE_SIZE,) float32 sensor noise in display units."""
    sigma = 5.5 if night else (2.2 if rain else 1.6)
    return (np.random.default_rng(seed + 5).standard_normal(NOISE_SIZE) * sigma).astype(np.float32)


def cloud_texture(seed, size=256):
    """(size, size) float32 in 0..1, tiling: layered smooth noise."""
    rng = np.random.default_rng(seed + 29)
    frequency = np.fft.fftfreq(size) * size
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    radius[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) / radius**1.6
    spectrum[0, 0] = 0.0
    total = np.fft.ifft2(spectrum).real
    total = (total - total.mean()) / total.std()
    return np.clip(0.5 + 0.22 * total, 0.0, 1.0).astype(np.float32)


def skyline_texture(seed, size=2048):
    """(size,) float32: how high the far town stands over the horizon (tangent), by azimuth."""
    rng = np.random.default_rng(seed + 41)
    heights = np.zeros(size)
    at = 0
    while at < size:
        width = int(rng.integers(6, 34))
        if rng.random() < 0.55:
            heights[at : at + width] = rng.uniform(0.012, 0.055)
        else:
            count = len(heights[at : at + width])
            heights[at : at + width] = rng.uniform(0.012, 0.03) * (0.8 + 0.2 * rng.random(count))
        at += width
    return heights.astype(np.float32)

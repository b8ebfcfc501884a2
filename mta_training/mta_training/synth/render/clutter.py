"""What stands on walkways and is no object of any class, though it looks a little like one.

Each builder makes a solid in metres around the origin, front towards +x (the road); materials
are rows of `SHADES`.
"""

import numpy as np

from mta_training.synth.meshes.solids import SolidBuilder

# Albedos; which of them a thing has follows from its style.
SHADES = np.array(
    [
        (0.08, 0.08, 0.09),
        (0.30, 0.30, 0.31),
        (0.55, 0.54, 0.50),
        (0.10, 0.16, 0.10),
        (0.05, 0.10, 0.28),
        (0.35, 0.06, 0.05),
        (0.40, 0.30, 0.18),
        (0.62, 0.60, 0.55),
    ]
)


def clutter_solid(kind, style):
    """(SolidBuilder, height [m], reach [m]) of one of scene.CLUTTER."""
    rng = np.random.default_rng(style)
    shade, other = (int(k) for k in rng.integers(0, len(SHADES), 2))
    builder = SolidBuilder()
    if kind == 'bin':
        height, width = rng.uniform(0.8, 1.3), rng.uniform(0.4, 0.9)
        builder.box((-0.35, -width / 2, 0.05), (0.35, width / 2, height), shade, (1.1, 1.1))
        builder.box((-0.4, -width / 2 - 0.03, height), (0.4, width / 2 + 0.03, height + 0.08), 0)
    elif kind == 'bollard':
        height = rng.uniform(0.6, 1.1)
        builder.cylinder((0, 0, 0), (0, 0, height), rng.uniform(0.05, 0.14), shade, 8)
    elif kind == 'parasol':
        height, reach = rng.uniform(2.2, 2.8), rng.uniform(1.0, 1.7)
        builder.cylinder((0, 0, 0), (0, 0, height), 0.04, 1, 6)
        builder.cylinder((0, 0, height - 0.5), (0, 0, height), reach, shade, 8, end_radius=0.05)
        builder.box((-0.5, -0.5, 0.68), (0.5, 0.5, 0.74), other)
        for y in (-0.75, 0.75):
            builder.box((-0.22, y - 0.22, 0.0), (0.22, y + 0.22, 0.45), other)
        return builder, height, reach
    elif kind == 'box':
        height, width = rng.uniform(1.0, 1.7), rng.uniform(0.6, 1.6)
        builder.box((-0.3, -width / 2, 0.0), (0.3, width / 2, height), shade)
    elif kind == 'meter':
        height = rng.uniform(1.2, 1.7)
        builder.cylinder((0, 0, 0), (0, 0, height - 0.35), 0.05, 1, 6)
        builder.box((-0.12, -0.15, height - 0.4), (0.12, 0.15, height), shade)
    elif kind == 'planter':
        height, width = rng.uniform(0.4, 0.8), rng.uniform(0.8, 2.4)
        builder.box((-0.4, -width / 2, 0.0), (0.4, width / 2, height), shade)
        for y in np.linspace(-width / 3, width / 3, 3):
            builder.ellipsoid((0, y, height + 0.2), (0.35, 0.35, 0.35), 3, 7, 4)
    elif kind == 'container':
        length, width, height = rng.uniform(3.0, 9.0), rng.uniform(1.8, 2.5), rng.uniform(1.4, 2.8)
        builder.box((-width / 2, -length / 2, 0.1), (width / 2, length / 2, height), shade)
        for y in np.arange(-length / 2 + 0.4, length / 2, 0.8):
            builder.box((-width / 2 - 0.04, y, 0.2), (width / 2 + 0.04, y + 0.1, height), other)
        return builder, height, length / 2
    else:  # billboard
        height, width = rng.uniform(2.5, 4.5), rng.uniform(1.2, 3.5)
        builder.box(
            (-0.05, -width / 2, height - rng.uniform(1.2, 2.2)), (0.1, width / 2, height), 0
        )
        for _ in range(4):  # what is on it
            y, z = rng.uniform(-width / 2, width / 2 - 0.4), height - rng.uniform(0.4, 1.1)
            builder.box((0.1, y, z), (0.13, y + 0.4, z + 0.3), int(rng.integers(len(SHADES))))
        builder.cylinder((0, 0, 0), (0, 0, height - 0.5), 0.08, 1, 8)
        return builder, height, width / 2
    return builder, height, 1.2

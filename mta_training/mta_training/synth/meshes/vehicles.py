"""Meshes of cars and buses and the parts all vehicles share, in metres, x forward."""

import numpy as np

from mta_training.synth.meshes.solids import SolidBuilder

# Palette rows; `palette.palette_of` gives each its colour.
(
    BODY,
    GLASS,
    TYRE,
    HUB,
    DARK,
    HEADLIGHT,
    TAILLIGHT,
    METAL,
    PLATE,
    SECOND,
    SKIN,
    HAIR,
    TROUSERS,
    SHOES,
    WHITE,
    INDICATOR,
) = range(16)

# Stations from nose to tail: x; z under, belt, top; half width at the belt, at the top
SEDAN = (
    (2.35, 0.34, 0.58, 0.64, 0.66, 0.56),
    (2.22, 0.24, 0.70, 0.76, 0.82, 0.72),
    (1.15, 0.20, 0.86, 0.95, 0.91, 0.80),
    (0.98, 0.20, 0.90, 0.98, 0.92, 0.78),
    (0.25, 0.20, 0.93, 1.40, 0.92, 0.62),
    (-0.33, 0.20, 0.94, 1.45, 0.92, 0.61),
    (-0.43, 0.20, 0.94, 1.45, 0.92, 0.61),
    (-1.10, 0.20, 0.95, 1.41, 0.92, 0.60),
    (-1.72, 0.22, 0.97, 1.06, 0.91, 0.74),
    (-2.25, 0.26, 0.95, 1.03, 0.87, 0.73),
    (-2.35, 0.36, 0.88, 0.96, 0.82, 0.68),
)
HATCH = (
    (2.05, 0.34, 0.60, 0.66, 0.66, 0.54),
    (1.93, 0.24, 0.72, 0.78, 0.82, 0.70),
    (1.05, 0.20, 0.88, 0.98, 0.88, 0.76),
    (0.90, 0.20, 0.92, 1.01, 0.89, 0.74),
    (0.22, 0.20, 0.95, 1.44, 0.89, 0.62),
    (-0.30, 0.20, 0.96, 1.50, 0.89, 0.61),
    (-0.40, 0.20, 0.96, 1.50, 0.89, 0.61),
    (-1.30, 0.20, 0.99, 1.46, 0.89, 0.60),
    (-1.88, 0.22, 1.0, 1.10, 0.86, 0.70),
    (-1.98, 0.26, 0.94, 1.02, 0.85, 0.70),
    (-2.05, 0.36, 0.86, 0.93, 0.80, 0.66),
)
SUV = (
    (2.30, 0.42, 0.72, 0.82, 0.74, 0.64),
    (2.20, 0.32, 0.88, 0.98, 0.88, 0.78),
    (1.20, 0.28, 1.06, 1.16, 0.95, 0.84),
    (1.05, 0.28, 1.09, 1.19, 0.96, 0.82),
    (0.45, 0.28, 1.11, 1.68, 0.96, 0.72),
    (-0.25, 0.28, 1.12, 1.74, 0.96, 0.72),
    (-0.36, 0.28, 1.12, 1.74, 0.96, 0.72),
    (-1.75, 0.28, 1.13, 1.70, 0.96, 0.70),
    (-2.15, 0.30, 1.12, 1.26, 0.94, 0.78),
    (-2.22, 0.32, 1.06, 1.16, 0.92, 0.78),
    (-2.30, 0.44, 0.98, 1.07, 0.87, 0.72),
)
VAN = (
    (2.55, 0.40, 0.74, 0.84, 0.80, 0.70),
    (2.45, 0.30, 0.92, 1.02, 0.92, 0.82),
    (2.00, 0.26, 1.08, 1.18, 0.97, 0.88),
    (1.90, 0.26, 1.10, 1.22, 0.98, 0.88),
    (1.15, 0.26, 1.12, 1.90, 0.98, 0.82),
    (0.55, 0.26, 1.12, 1.98, 0.98, 0.82),
    (0.42, 0.26, 1.12, 1.98, 0.98, 0.82),
    (-2.35, 0.26, 1.12, 1.96, 0.98, 0.82),
    (-2.47, 0.28, 1.12, 1.30, 0.97, 0.90),
    (-2.50, 0.30, 1.10, 1.24, 0.96, 0.88),
    (-2.55, 0.42, 1.04, 1.16, 0.92, 0.84),
)
PICKUP = (
    (2.75, 0.46, 0.80, 0.90, 0.80, 0.70),
    (2.62, 0.36, 0.96, 1.06, 0.94, 0.84),
    (1.50, 0.32, 1.08, 1.18, 0.98, 0.86),
    (1.36, 0.32, 1.10, 1.20, 0.98, 0.84),
    (0.80, 0.32, 1.12, 1.72, 0.98, 0.74),
    (0.20, 0.32, 1.12, 1.78, 0.98, 0.74),
    (0.08, 0.32, 1.12, 1.78, 0.98, 0.74),
    (-0.55, 0.32, 1.12, 1.74, 0.98, 0.74),
    (-0.75, 0.32, 1.12, 1.20, 0.98, 0.90),
    (-2.65, 0.36, 1.12, 1.18, 0.97, 0.90),
    (-2.75, 0.46, 1.06, 1.12, 0.94, 0.88),
)


def _ring(station):
    x, under, belt, top, belt_half, top_half = station
    bulge = under + 0.42 * (belt - under)
    half = [
        (belt_half * 0.92, under),
        (belt_half, bulge),
        (belt_half * 0.985, belt),
        (top_half, top - 0.05 * (top - belt)),
        (top_half * 0.72, top),
    ]
    return np.array([(x, y, z) for y, z in half] + [(x, -y, z) for y, z in half[::-1]])


def wheel(builder, x, y, radius, width, kind='roll', sides=14):
    """A wheel whose outer face lies at y; rolls, and steers where told."""
    side = 1.0 if y > 0 else -1.0
    builder.joint(kind, (x, y - side * width / 2, radius))
    centre = np.array([x, y - side * width / 2, radius])
    across = np.array([0.0, width / 2, 0.0])
    builder.cylinder(centre - across, centre + across, radius, TYRE, sides)
    out = centre + side * across * 1.02
    for k in range(5):
        a = 2 * np.pi * k / 5 + np.array([-0.5, 0.5])
        rim = 0.64 * radius
        builder.polygon(
            [out, *(out + np.array([rim * np.cos(t), 0.0, rim * np.sin(t)]) for t in a)],
            HUB,
            away_from=centre,
        )
    builder.body()


def _arch(builder, x, y, radius):
    """The dark opening around a wheel."""
    side = 1.0 if y > 0 else -1.0
    angles = np.linspace(0.0, np.pi, 9)
    ring = [(x + 1.2 * radius * np.cos(a), y, radius + 1.2 * radius * np.sin(a)) for a in angles]
    ring += [(x - 1.2 * radius, y, 0.6 * radius), (x + 1.2 * radius, y, 0.6 * radius)]
    builder.fan(np.array(ring), DARK, away_from=(x, y - side, radius))


def _nose_and_tail(builder, stations):
    """Lights, grille, number plates and bumpers on the faces of the first and last station."""
    nose, under, belt, top, half, _ = stations[0]
    inside = (0.0, 0.0, belt)
    tall = top - under
    builder.patch(
        (nose + 0.008, 0, under + 0.58 * tall),
        (0, half * 0.62, 0),
        (0, 0, 0.2 * tall),
        DARK,
        inside,
    )
    builder.patch(
        (nose + 0.012, 0, under + 0.2 * tall), (0, 0.26, 0), (0, 0, 0.055), PLATE, inside
    )
    inner, _, inner_belt, _, inner_half, _ = stations[1]
    for side in (-1, 1):
        y = sorted((side * inner_half * 0.60, side * inner_half * 0.985))
        builder.box(
            (inner - 0.24, y[0], inner_belt - 0.19),
            (inner + 0.06, y[1], inner_belt - 0.03),
            HEADLIGHT,
        )
    tail, under, belt, top, half, _ = stations[-1]
    tall = top - under
    for side in (-1, 1):
        y = sorted((side * half * 0.64, side * half * 1.01))
        builder.box(
            (tail - 0.012, y[0], belt - 0.27 * tall), (tail + 0.16, y[1], belt + 0.01), TAILLIGHT
        )
    builder.patch((tail - 0.01, 0, belt - 0.2 * tall), (0, 0.26, 0), (0, 0, 0.055), PLATE, inside)
    builder.box(
        (tail - 0.02, -half * 0.97, under - 0.06),
        (tail + 0.2, half * 0.97, under + 0.12 * tall),
        DARK,
    )
    builder.box(
        (stations[1][0] - 0.1, -inner_half * 0.9, stations[0][1] - 0.08),
        (nose + 0.015, inner_half * 0.9, stations[0][1] + 0.06),
        DARK,
    )


def _doors(builder, stations, half):
    """Door gaps, handles and sills along both sides."""
    front, middle, back = stations[3][0] - 0.25, stations[6][0], stations[7][0] + 0.12
    under, belt = stations[5][1], stations[5][2]
    for side in (-1, 1):
        y = side * half * 1.004
        for x in (front, middle + 0.05, back):
            builder.patch(
                (x, y, (under + belt) / 2 + 0.06),
                (0.008, 0, 0),
                (0, 0, (belt - under) * 0.40),
                DARK,
                (x, 0, belt),
            )
        for x in (middle + 0.17, back + 0.12):
            builder.patch((x, y, belt - 0.12), (0.07, 0, 0), (0, 0, 0.014), DARK, (x, 0, belt))
        builder.patch(
            ((front + back) / 2, side * half * 0.985, under + 0.08),
            ((front - back) / 2 - 0.1, 0, 0),
            (0, side * 0.02, 0.05),
            DARK,
            (0, 0, belt),
        )


def car(stations, bed=False, wheel_radius=0.33):
    """A car, van or pickup from its stations; `bed` opens the back of a pickup."""
    builder = SolidBuilder()
    rings = np.array([_ring(k) for k in stations])
    materials = np.full((len(stations) - 1, 10), BODY)
    materials[:, 9] = DARK  # under the floor
    for s in (4, 6):
        materials[s, [2, 6]] = GLASS  # side windows
    materials[3, 2:7] = GLASS  # windscreen
    materials[7, 4] = GLASS  # rear window
    builder.loft(rings, materials, (BODY, BODY))
    nose, tail = stations[0][0], stations[-1][0]
    half = max(k[4] for k in stations)
    front_x, rear_x = nose - 0.82, tail + 0.86
    _nose_and_tail(builder, stations)
    _doors(builder, stations, half)
    if bed:
        back, front = stations[-2][0] + 0.08, stations[8][0] - 0.06
        builder.polygon(
            [(front, 0.8, 1.205), (back, 0.8, 1.205), (back, -0.8, 1.205), (front, -0.8, 1.205)],
            DARK,
            away_from=(0, 0, 0),
        )
    for x in (front_x, rear_x):
        for side in (-1, 1):
            _arch(builder, x, side * half * 1.005, wheel_radius)
            wheel(
                builder, x, side * half * 1.012, wheel_radius, 0.22, 'steer' if x > 0 else 'roll'
            )
    mirror_x, mirror_z = stations[3][0] - 0.22, stations[3][2] + 0.06
    for side in (-1, 1):
        y = sorted((side * half * 0.97, side * (half + 0.12)))
        builder.box(
            (mirror_x - 0.08, y[0], mirror_z), (mirror_x + 0.06, y[1], mirror_z + 0.13), BODY
        )
    return builder.mesh()


def axles(builder, places, half, radius, width=0.32):
    for x, kind in places:
        for side in (-1, 1):
            wheel(builder, x, side * half, radius, width, kind, 16)


def rear_lamps(builder, x, half, z, big=1.0):
    for side in (-1, 1):
        builder.patch(
            (x, side * half * 0.82, z),
            (0, half * 0.14, 0),
            (0, 0, 0.1 * big),
            TAILLIGHT,
            (0, 0, z),
        )
    builder.patch((x, 0, z), (0, 0.26, 0), (0, 0, 0.06), PLATE, (0, 0, z))


def bus():
    """A city bus with a band of windows and doors on the right."""
    builder = SolidBuilder()
    half = 1.27
    rings = []
    for x, shrink in ((5.6, 0.94), (5.35, 1.0), (-5.45, 1.0), (-5.6, 0.96)):
        profile = ((half * shrink, 0.32), (half * shrink, 2.75), (half * 0.86 * shrink, 3.0))
        rings.append([(x, y, z) for y, z in profile] + [(x, -y, z) for y, z in profile[::-1]])
    builder.loft(rings, BODY, (BODY, BODY), smooth=False)
    inside = (0, 0, 1.6)
    builder.patch((5.612, 0, 1.72), (0, 1.08, 0), (0, 0, 0.72), GLASS, inside)
    builder.patch((5.615, 0, 2.66), (0, 0.8, 0), (0, 0, 0.16), INDICATOR, inside)
    builder.patch((-5.61, 0, 2.05), (0, 1.0, 0), (0, 0, 0.45), GLASS, inside)
    for side in (-1, 1):
        for x in np.linspace(-4.9, 4.5, 7):
            builder.patch(
                (x, side * (half + 0.006), 1.98), (0.71, 0, 0), (0, 0, 0.5), GLASS, inside
            )
        builder.patch((0, side * (half + 0.004), 1.98), (5.3, 0, 0), (0, 0, 0.56), DARK, inside)
        builder.patch((0, side * (half + 0.004), 0.72), (5.3, 0, 0), (0, 0, 0.1), SECOND, inside)
        builder.patch((5.615, side * 0.95, 0.72), (0, 0.2, 0), (0, 0, 0.1), HEADLIGHT, inside)
        builder.patch((-5.612, side * 1.0, 1.1), (0, 0.12, 0), (0, 0, 0.3), TAILLIGHT, inside)
        y = sorted((side * half, side * (half + 0.14)))
        builder.box((5.35, y[0], 1.9), (5.5, y[1], 2.5), DARK)
        for x in (3.4, -3.2):
            _arch(builder, x, side * (half + 0.008), 0.5)
    for x in (4.75, 0.3):
        for shift in (-0.31, 0.31):
            builder.patch(
                (x + shift, -half - 0.012, 1.35), (0.28, 0, 0), (0, 0, 0.92), GLASS, inside
            )
    builder.box((-2.6, -0.8, 2.98), (1.4, 0.8, 3.2), WHITE)
    rear_lamps(builder, -5.61, half, 0.62)
    axles(builder, ((3.4, 'steer'), (-3.2, 'roll')), half + 0.016, 0.48)
    return builder.mesh()

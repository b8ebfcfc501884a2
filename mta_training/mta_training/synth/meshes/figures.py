"""Meshes of people, cycles, cones and barriers, in metres, x forward."""

import numpy as np

from mta_training.synth.meshes.solids import SolidBuilder
from mta_training.synth.meshes.vehicles import (
    BODY,
    DARK,
    HAIR,
    HEADLIGHT,
    INDICATOR,
    METAL,
    SECOND,
    SHOES,
    SKIN,
    TAILLIGHT,
    TROUSERS,
    TYRE,
    WHITE,
    wheel,
)


def pedestrian(build='adult', helmet=False, bag=False, skirt=False):
    """A walking person; legs and arms are joints that swing with the gait."""
    builder = SolidBuilder()
    _torso(builder, skirt)
    builder.cylinder((0, 0, 1.42), (0, 0, 1.54), 0.055, SKIN, 8)
    head = 1.64 if build == 'adult' else 1.62
    radius = 0.105 if build == 'adult' else 0.125
    builder.ellipsoid((0.01, 0, head), (radius, radius * 0.85, radius * 1.15), SKIN, 10, 6)
    if helmet:
        builder.ellipsoid(
            (0.0, 0, head + 0.05), (radius * 1.25, radius * 1.15, radius * 0.95), INDICATOR, 10, 5
        )
    else:
        builder.ellipsoid(
            (-0.022, 0, head + 0.03), (radius * 1.04, radius * 0.97, radius * 1.05), HAIR, 10, 6
        )
    if bag:
        builder.box((-0.30, -0.14, 1.0), (-0.12, 0.14, 1.42), SECOND, (0.8, 0.85))
    for side, leg, arm in ((1, 'leg', 'counter_leg'), (-1, 'counter_leg', 'leg')):
        builder.joint(leg, (0, side * 0.09, 0.88))
        builder.cylinder(
            (0, side * 0.09, 0.90),
            (0.01, side * 0.095, 0.48),
            0.088,
            TROUSERS,
            8,
            end_radius=0.066,
        )
        builder.cylinder(
            (0.01, side * 0.095, 0.48),
            (-0.02, side * 0.095, 0.07),
            0.064,
            TROUSERS,
            8,
            end_radius=0.05,
        )
        builder.box(
            (-0.08, side * 0.095 - 0.045, 0.0),
            (0.18, side * 0.095 + 0.045, 0.085),
            SHOES,
            (0.8, 0.8),
        )
        builder.joint(arm, (0, side * 0.21, 1.38))
        builder.cylinder(
            (0, side * 0.205, 1.40), (-0.02, side * 0.25, 1.10), 0.06, BODY, 8, end_radius=0.05
        )
        builder.cylinder(
            (-0.02, side * 0.25, 1.10), (0.06, side * 0.25, 0.86), 0.048, BODY, 8, end_radius=0.04
        )
        builder.ellipsoid((0.075, side * 0.25, 0.80), (0.045, 0.03, 0.06), SKIN, 6, 4)
    builder.body()
    # Swinging feet and hands must stay inside the box, so the rest pose spans what the gait needs.
    return builder.mesh(extent=((-0.36, -0.30, 0.0), (0.40, 0.30, head + radius * 1.2)))


def _torso(builder, skirt):
    levels = (
        (0.84, 0.115, 0.155),
        (0.98, 0.12, 0.165),
        (1.12, 0.11, 0.155),
        (1.32, 0.125, 0.20),
        (1.42, 0.095, 0.185),
        (1.46, 0.06, 0.09),
    )
    rings, angles = [], np.arange(10) * 2 * np.pi / 10
    for z, a, b in levels:
        rings.append(np.c_[a * np.cos(angles), b * np.sin(angles), np.full(10, z)])
    materials = np.full((len(levels) - 1, 10), BODY)
    materials[0] = TROUSERS
    builder.loft(rings, materials, (TROUSERS, SKIN))
    if skirt:
        low, high = (
            np.c_[k * np.cos(angles), k * 1.15 * np.sin(angles), np.full(10, z)]
            for k, z in ((0.2, 0.55), (0.13, 1.0))
        )
        builder.loft([low, high], BODY)


def _rider(builder, seat, bars, crank, helmet):
    """A person on a cycle: hips at `seat`, hands at `bars`, feet at `crank`."""
    seat, bars, crank = (np.asarray(k, dtype=np.float64) for k in (seat, bars, crank))
    shoulder = seat + (bars - seat) * 0.42 + (0, 0, 0.50)
    builder.cylinder(seat + (0, 0, 0.02), shoulder, 0.13, BODY, 10, end_radius=0.17)
    head = shoulder + (0.07, 0, 0.24)
    builder.cylinder(shoulder, head, 0.06, SKIN, 6)
    builder.ellipsoid(head, (0.10, 0.09, 0.12), SKIN, 10, 6)
    builder.ellipsoid(
        head + (-0.015, 0, 0.04),
        (0.125, 0.11, 0.115) if helmet else (0.105, 0.094, 0.1),
        SECOND if helmet else HAIR,
        10,
        5,
    )
    for side in (-1, 1):
        across = np.array([0.0, side, 0.0])
        knee = (seat + crank) / 2 + (0.26, 0, 0.1) + across * 0.12
        foot = crank + across * 0.11 + (0.1 * side, 0, 0.08 * side)
        builder.cylinder(seat + across * 0.09, knee, 0.085, TROUSERS, 8, end_radius=0.065)
        builder.cylinder(knee, foot, 0.062, TROUSERS, 8, end_radius=0.048)
        builder.box(foot - (0.09, 0.045, 0.05), foot + (0.15, 0.045, 0.03), SHOES)
        elbow = (shoulder + bars) / 2 + across * 0.22 + (-0.02, 0, -0.06)
        builder.cylinder(shoulder + across * 0.17, elbow, 0.055, BODY, 8, end_radius=0.046)
        builder.cylinder(elbow, bars + across * 0.22, 0.045, BODY, 8, end_radius=0.036)
        builder.ellipsoid(bars + across * 0.22, (0.045, 0.04, 0.04), SKIN, 6, 4)


def bicycle(rider, helmet=False, basket=False):
    """Diamond frame, two spoked wheels, bars and saddle; with or without a rider."""
    builder = SolidBuilder()
    axle, radius = 0.53, 0.34
    for x, kind in ((axle, 'steer'), (-axle, 'roll')):
        _spoked_wheel(builder, x, radius, kind)
    head, seat, crank = (0.40, 0, 0.80), (-0.22, 0, 0.84), (-0.06, 0, 0.30)
    for a, b in (
        (head, seat),
        (head, crank),
        (seat, crank),
        (seat, (-axle, 0, radius)),
        (crank, (-axle, 0, radius)),
        ((0.37, 0, 0.9), (axle, 0, radius)),
    ):
        builder.cylinder(a, b, 0.028, BODY, 6)
    builder.cylinder((0.36, 0, 0.86), (0.34, 0, 1.02), 0.02, METAL, 6)
    builder.cylinder((0.36, -0.27, 1.04), (0.36, 0.27, 1.04), 0.018, DARK, 6)
    builder.box((-0.38, -0.07, 0.92), (-0.1, 0.07, 0.98), DARK, (0.9, 0.6))
    builder.cylinder(seat, (-0.24, 0, 0.94), 0.02, METAL, 6)
    builder.cylinder((-0.06, -0.05, 0.30), (-0.06, 0.05, 0.30), 0.09, METAL, 10)
    if basket:
        builder.box((0.45, -0.16, 0.82), (0.72, 0.16, 1.02), METAL, (1.1, 1.1))
    for side in (-1, 1):
        builder.cylinder(
            (-0.06, side * 0.06, 0.30),
            (-0.06 + side * 0.13, side * 0.11, 0.30 + side * 0.1),
            0.015,
            METAL,
            4,
        )
    if rider:
        _rider(builder, (-0.24, 0, 0.98), (0.34, 0, 1.04), (-0.06, 0, 0.26), helmet)
    return builder.mesh()


def _spoked_wheel(builder, x, radius, kind):
    builder.joint(kind, (x, 0, radius))
    angles = np.arange(18) * 2 * np.pi / 18
    rings = []
    for r, y in (
        (radius, 0.0),
        (radius * 0.93, 0.022),
        (radius * 0.86, 0.0),
        (radius * 0.93, -0.022),
    ):
        rings.append(np.c_[x + r * np.cos(angles), np.full(18, y), radius + r * np.sin(angles)])
    # Around the tyre's section, so that the inside of the rim is skinned too.
    rings = np.array(rings + rings[:1])
    for a, b in zip(rings[:-1], rings[1:]):
        for k in range(18):
            m = (k + 1) % 18
            quad = np.array([a[k], a[m], b[m], b[k]])
            hub = np.array(
                [
                    x + radius * 0.93 * np.cos(angles[k] + 0.17),
                    0.0,
                    radius + radius * 0.93 * np.sin(angles[k] + 0.17),
                ]
            )
            builder.polygon(quad, TYRE, away_from=hub)
    for a in angles[::3]:
        rim = (x + radius * 0.9 * np.cos(a), 0.0, radius + radius * 0.9 * np.sin(a))
        builder.cylinder((x, 0, radius), rim, 0.007, METAL, 3)
    builder.body()


def motorcycle(rider, scooter=False):
    """A motorcycle or a scooter, with or without a rider."""
    builder = SolidBuilder()
    axle, radius = (0.68, 0.31) if not scooter else (0.62, 0.24)
    for x, kind in ((axle, 'steer'), (-axle, 'roll')):
        wheel(builder, x, 0.07, radius, 0.14, kind, 14)
        builder.patch(
            (x, -0.072, radius), (radius * 0.6, 0, 0), (0, 0, radius * 0.6), METAL, (x, 0, radius)
        )
    if scooter:
        builder.box((-0.78, -0.17, 0.38), (-0.02, 0.17, 0.78), BODY, (0.85, 0.8))
        builder.box((-0.1, -0.17, 0.22), (0.42, 0.17, 0.34), BODY)
        builder.box((0.36, -0.2, 0.3), (0.56, 0.2, 1.0), BODY, (0.5, 0.9))
        builder.box((-0.7, -0.14, 0.76), (-0.04, 0.14, 0.86), DARK, (0.9, 0.8))
        bars = (0.38, 0, 1.05)
    else:
        builder.ellipsoid((0.18, 0, 0.78), (0.34, 0.17, 0.17), BODY, 12, 6)
        builder.box((-0.32, -0.15, 0.28), (0.3, 0.15, 0.66), METAL, (0.8, 0.8))
        builder.box((-0.72, -0.13, 0.70), (-0.06, 0.13, 0.83), DARK, (0.9, 0.8))
        builder.box((-0.92, -0.09, 0.70), (-0.6, 0.09, 0.86), BODY, (0.7, 0.7))
        builder.box((0.42, -0.16, 0.66), (0.66, 0.16, 1.02), BODY, (0.6, 0.7))
        builder.cylinder((-0.1, -0.17, 0.3), (-0.8, -0.2, 0.42), 0.05, METAL, 8)
        bars = (0.42, 0, 1.02)
    for side in (-1, 1):
        builder.cylinder((axle, side * 0.1, radius), (0.46, side * 0.1, 0.92), 0.03, METAL, 6)
        y = sorted((side * 0.30, side * 0.40))
        builder.box((bars[0] - 0.02, y[0], 1.08), (bars[0] + 0.03, y[1], 1.2), DARK)
    builder.cylinder((bars[0], -0.36, 1.03), (bars[0], 0.36, 1.03), 0.022, DARK, 6)
    builder.ellipsoid((0.6, 0, 0.86), (0.08, 0.1, 0.1), HEADLIGHT, 8, 5)
    builder.box((-0.97, -0.07, 0.68), (-0.88, 0.07, 0.78), TAILLIGHT)
    if rider:
        _rider(builder, (-0.28, 0, 0.84), bars, (-0.05, 0, 0.34), True)
    return builder.mesh()


def traffic_cone():
    """Orange cone with two white bands on a square foot."""
    builder = SolidBuilder()
    builder.box((-0.19, -0.19, 0), (0.19, 0.19, 0.045), DARK)
    levels = (
        (0.045, 0.145),
        (0.25, 0.108),
        (0.40, 0.082),
        (0.50, 0.064),
        (0.62, 0.043),
        (0.74, 0.022),
    )
    angles = np.arange(12) * 2 * np.pi / 12
    rings = [np.c_[r * np.cos(angles), r * np.sin(angles), np.full(12, z)] for z, r in levels]
    bands = np.array([BODY, WHITE, BODY, WHITE, BODY])[:, None] * np.ones((1, 12), int)
    builder.loft(rings, bands, (DARK, DARK))
    return builder.mesh()


def delineator():
    """An upright marker post with bands."""
    builder = SolidBuilder()
    builder.box((-0.2, -0.2, 0), (0.2, 0.2, 0.07), DARK)
    for k, material in enumerate((BODY, WHITE, BODY, WHITE, BODY)):
        builder.cylinder(
            (0, 0, 0.07 + 0.17 * k), (0, 0, 0.07 + 0.17 * (k + 1)), 0.07, material, 10
        )
    return builder.mesh()


def board_barrier():
    """A board across y on two feet, striped on both faces."""
    builder = SolidBuilder()
    for x in (-0.2, 0.2):
        for y in (-0.85, 0.85):
            builder.box((x - 0.05, y - 0.05, 0), (x + 0.05, y + 0.05, 0.1), DARK)
    for y in (-0.85, 0.85):
        builder.box((-0.25, y - 0.06, 0.0), (0.25, y + 0.06, 0.08), DARK)
        builder.box((-0.04, y - 0.04, 0.05), (0.04, y + 0.04, 1.0), METAL)
    for low, high in ((0.62, 0.95), (0.2, 0.42)):
        _striped(builder, low, high)
    return builder.mesh()


def _striped(builder, low, high):
    builder.box((-0.03, -1.0, low), (0.03, 1.0, high), WHITE)
    width, lean = 0.25, 0.16
    for k, left in enumerate(np.arange(-1.0, 0.99, width)):
        if k % 2:
            continue
        for side in (-1, 1):
            builder.polygon(
                [
                    (side * 0.034, left, low),
                    (side * 0.034, left + width, low),
                    (side * 0.034, min(left + width + lean, 1.0), high),
                    (side * 0.034, min(left + lean, 1.0), high),
                ],
                BODY,
                away_from=(0, left, low),
            )


def concrete_barrier():
    """A Jersey barrier: one profile along y."""
    builder = SolidBuilder()
    profile = (
        (-0.3, 0),
        (0.3, 0),
        (0.3, 0.08),
        (0.14, 0.33),
        (0.08, 0.8),
        (-0.08, 0.8),
        (-0.14, 0.33),
        (-0.3, 0.08),
    )
    rings = [[(x, y, z) for x, z in profile] for y in (-1.0, -0.02, 0.02, 1.0)]
    builder.loft(
        rings,
        np.array([BODY, DARK, BODY])[:, None] * np.ones((1, 8), int),
        (BODY, BODY),
        smooth=False,
    )
    for side in (-1, 1):
        for y in (-0.7, 0.7):
            builder.patch(
                (side * 0.112, y, 0.56),
                (0, 0.14, 0),
                (-side * 0.016, 0, 0.06),
                SECOND,
                (0, y, 0.5),
            )
    return builder.mesh()


def fence_barrier():
    """A crowd-control fence of bars."""
    builder = SolidBuilder()
    for z in (0.16, 1.05):
        builder.cylinder((0, -1.1, z), (0, 1.1, z), 0.03, BODY, 6)
    for y in np.linspace(-1.08, 1.08, 13):
        builder.cylinder((0, y, 0.16), (0, y, 1.05), 0.016, BODY, 4)
    for y in (-0.75, 0.75):
        builder.box((-0.28, y - 0.03, 0), (0.28, y + 0.03, 0.05), BODY)
        builder.cylinder((0, y, 0), (0, y, 0.2), 0.025, BODY, 6)
    builder.box((-0.035, -0.4, 0.55), (0.035, 0.4, 0.85), WHITE)
    return builder.mesh()

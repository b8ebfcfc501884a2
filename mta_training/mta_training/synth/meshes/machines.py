"""Meshes of lorries, trailers and building machines, in metres, x forward."""

import numpy as np

from mta_training.synth.meshes.solids import SolidBuilder
from mta_training.synth.meshes.vehicles import (
    BODY,
    DARK,
    GLASS,
    HEADLIGHT,
    INDICATOR,
    METAL,
    PLATE,
    SECOND,
    TAILLIGHT,
    TYRE,
    axles,
    rear_lamps,
    wheel,
)


def _cab(builder, back, front, half, low, high, material=BODY):
    """A lorry's cab with windscreen, side windows, grille and lights."""
    slope = 0.16
    belt, roof = low + 0.52 * (high - low), high
    lower = [(front, -half, low), (front, half, low), (back, half, low), (back, -half, low)]
    middle = [(front, -half, belt), (front, half, belt), (back, half, belt), (back, -half, belt)]
    top = [
        (front - slope, -half * 0.94, roof),
        (front - slope, half * 0.94, roof),
        (back, half * 0.94, roof),
        (back, -half * 0.94, roof),
    ]
    builder.loft([lower, middle, top], material, (DARK, material), smooth=False)
    inside = ((back + front) / 2, 0.0, (low + high) / 2)
    lean = np.array([-slope, 0, roof - belt])
    base = np.array([front + 0.012, 0.0, belt])
    builder.patch(base + lean * 0.47, (0, half * 0.87, 0), lean * 0.40, GLASS, inside)
    length = front - back
    for side in (-1, 1):
        builder.patch(
            (back + length * 0.58, side * (half * 0.985), belt + (roof - belt) * 0.42),
            (length * 0.3, 0, 0),
            (-0.03, -side * 0.02, (roof - belt) * 0.36),
            GLASS,
            inside,
        )
        builder.patch(
            (front + 0.01, side * half * 0.74, low + 0.22),
            (0, half * 0.17, 0),
            (0, 0, 0.09),
            HEADLIGHT,
            inside,
        )
        y = sorted((side * half, side * (half + 0.17)))
        builder.box((front - 0.25, y[0], belt + 0.1), (front - 0.12, y[1], belt + 0.6), DARK)
    builder.patch((front + 0.01, 0, low + 0.55), (0, half * 0.62, 0), (0, 0, 0.2), DARK, inside)
    builder.patch((front + 0.012, 0, low + 0.12), (0, 0.26, 0), (0, 0, 0.06), PLATE, inside)


def box_truck():
    """A two-axle lorry with a closed box."""
    builder = SolidBuilder()
    builder.box((-3.7, -0.45, 0.65), (3.0, 0.45, 0.95), DARK)
    _cab(builder, 2.05, 3.7, 1.13, 0.55, 2.55)
    builder.box((-3.7, -1.22, 1.0), (1.9, 1.22, 3.3), BODY)
    builder.box((-3.72, -1.24, 0.98), (1.92, 1.24, 1.08), METAL)
    for x in (-3.72, 1.92):
        builder.box((x - 0.02, -1.24, 1.0), (x + 0.02, 1.24, 3.3), SECOND)
    for side in (-1, 1):
        builder.patch((-0.9, side * 1.226, 2.2), (1.7, 0, 0), (0, 0, 0.28), SECOND, (-0.9, 0, 2.2))
        builder.patch((-0.6, side * 1.1, 0.8), (1.3, 0, 0), (0, 0, 0.16), METAL, (-0.6, 0, 0.8))
    builder.patch((-3.745, 0, 2.1), (0, 0.012, 0), (0, 0, 1.0), DARK, (0, 0, 2))
    rear_lamps(builder, -3.73, 1.2, 0.86)
    axles(builder, ((2.75, 'steer'), (-2.4, 'roll')), 1.2, 0.5)
    return builder.mesh()


def tipper_truck():
    """A three-axle tipper."""
    builder = SolidBuilder()
    builder.box((-3.6, -0.5, 0.7), (3.0, 0.5, 1.0), DARK)
    _cab(builder, 2.0, 3.6, 1.2, 0.6, 2.9)
    builder.box((-3.6, -1.22, 1.1), (1.8, 1.22, 2.6), BODY, (1.0, 1.0))
    for x in np.linspace(-3.3, 1.5, 7):
        for side in (-1, 1):
            y = sorted((side * 1.22, side * 1.28))
            builder.box((x - 0.06, y[0], 1.1), (x + 0.06, y[1], 2.6), BODY)
    builder.polygon(
        [(1.6, 1.1, 2.605), (-3.4, 1.1, 2.605), (-3.4, -1.1, 2.605), (1.6, -1.1, 2.605)],
        SECOND,
        away_from=(0, 0, 0),
    )
    rear_lamps(builder, -3.62, 1.2, 0.95)
    axles(builder, ((2.65, 'steer'), (-1.6, 'roll'), (-2.85, 'roll')), 1.24, 0.52)
    return builder.mesh()


def box_trailer():
    """A closed semitrailer on three axles, without its tractor."""
    builder = SolidBuilder()
    builder.box((-5.9, -1.25, 1.15), (5.9, 1.25, 3.85), BODY)
    builder.box((-5.93, -1.27, 1.1), (5.93, 1.27, 1.22), METAL)
    for x in np.linspace(-5.6, 5.6, 13):
        for side in (-1, 1):
            builder.patch((x, side * 1.256, 2.5), (0.02, 0, 0), (0, 0, 1.3), METAL, (x, 0, 2.5))
    for side in (-1, 1):
        builder.patch((0, side * 1.262, 2.9), (2.6, 0, 0), (0, 0, 0.35), SECOND, (0, 0, 2.9))
        builder.box((2.9, side * 0.8 - 0.08, 0.0), (3.05, side * 0.8 + 0.08, 1.1), METAL)
        builder.patch((-0.6, side * 1.2, 0.8), (2.2, 0, 0), (0, 0, 0.22), METAL, (-0.6, 0, 0.8))
    builder.patch((-5.94, 0, 2.5), (0, 0.015, 0), (0, 0, 1.3), DARK, (0, 0, 2.5))
    builder.box((-5.5, -0.5, 0.85), (4.0, 0.5, 1.1), DARK)
    rear_lamps(builder, -5.94, 1.25, 1.0, 1.2)
    axles(builder, ((-2.6, 'roll'), (-3.7, 'roll'), (-4.8, 'roll')), 1.25, 0.5)
    return builder.mesh()


def flat_trailer():
    """A drawbar trailer with sides and a tarpaulin."""
    builder = SolidBuilder()
    builder.box((-2.6, -1.15, 0.75), (2.2, 1.15, 1.45), METAL)
    rings = []
    for x in (2.2, -2.6):
        rings.append(
            [
                (x, 1.15, 1.45),
                (x, 1.12, 2.1),
                (x, 0.5, 2.45),
                (x, -0.5, 2.45),
                (x, -1.12, 2.1),
                (x, -1.15, 1.45),
            ]
        )
    builder.loft(rings, BODY, (BODY, BODY), smooth=False)
    for x in np.linspace(-2.4, 2.0, 6):
        for side in (-1, 1):
            builder.patch((x, side * 1.156, 1.1), (0.04, 0, 0), (0, 0, 0.34), DARK, (x, 0, 1.1))
            builder.patch(
                (x, side * 1.146, 1.78), (0.02, 0, 0), (0, -side * 0.01, 0.3), SECOND, (x, 0, 1.8)
            )
    builder.box((2.2, -0.08, 0.6), (3.4, 0.08, 0.72), DARK)
    builder.cylinder((3.3, 0, 0), (3.3, 0, 0.7), 0.06, METAL, 6)
    rear_lamps(builder, -2.61, 1.15, 0.95)
    axles(builder, ((-0.6, 'roll'), (-1.6, 'roll')), 1.18, 0.42, 0.26)
    return builder.mesh()


def excavator():
    """Tracks, a turned house with a cab, and a bent boom with a bucket."""
    builder = SolidBuilder()
    for side in (-1, 1):
        y = sorted((side * 0.85, side * 1.35))
        profile = ((-1.9, 0.35), (-1.6, 0.0), (1.6, 0.0), (1.9, 0.35), (1.7, 0.8), (-1.7, 0.8))
        builder.loft(
            [[(x, y[0], z) for x, z in profile], [(x, y[1], z) for x, z in profile]],
            TYRE,
            (DARK, DARK),
            smooth=False,
        )
    builder.cylinder((0, 0, 0.7), (0, 0, 1.05), 0.7, DARK, 14)
    builder.box((-2.3, -1.3, 1.0), (0.9, 1.3, 2.0), BODY, (0.95, 0.96))
    builder.box((-2.35, -1.2, 1.05), (-1.5, 1.2, 2.2), BODY, (0.9, 0.95))
    builder.box((-0.3, 0.35, 1.9), (1.25, 1.28, 3.0), BODY, (0.86, 0.9))
    inside = (0.4, 0.8, 2.5)
    builder.patch((1.225, 0.82, 2.5), (0, 0.38, 0), (-0.06, 0, 0.42), GLASS, inside)
    for y, lean in ((1.285, -0.03), (0.345, 0.03)):
        builder.patch((0.45, y, 2.5), (0.6, 0, 0), (0, lean, 0.4), GLASS, inside)
    builder.patch((-1.9, 1.32, 1.5), (0.35, 0, 0), (0, 0, 0.25), DARK, (-1.9, 0, 1.5))
    builder.patch((-1.9, -1.32, 1.5), (0.35, 0, 0), (0, 0, 0.25), DARK, (-1.9, 0, 1.5))
    _beam(builder, (0.7, -0.1, 1.7), (2.7, -0.1, 3.75), 0.2, 0.34, BODY)
    _beam(builder, (2.55, -0.1, 3.75), (4.1, -0.1, 3.0), 0.2, 0.3, BODY)
    _beam(builder, (4.0, -0.1, 3.25), (4.3, -0.1, 1.1), 0.16, 0.24, BODY)
    builder.cylinder((1.2, -0.1, 1.6), (2.3, -0.1, 2.9), 0.08, METAL, 8)
    builder.cylinder((2.9, -0.1, 4.0), (4.0, -0.1, 3.4), 0.07, METAL, 8)
    profile = ((4.5, 1.15), (4.0, 1.0), (3.75, 0.5), (4.0, 0.12), (4.5, 0.2))
    builder.loft(
        [[(x, -0.6, z) for x, z in profile], [(x, 0.4, z) for x, z in profile]],
        DARK,
        (DARK, DARK),
        smooth=False,
    )
    builder.cylinder((0.2, 0.8, 3.0), (0.2, 0.8, 3.18), 0.09, INDICATOR, 8)
    return builder.mesh()


def _beam(builder, start, end, half_width, height, material):
    start, end = np.asarray(start), np.asarray(end)
    axis = (end - start) / np.linalg.norm(end - start)
    up = np.cross(axis, (0, 1, 0)) * -1.0 * height / 2
    across = np.array([0, half_width, 0])
    rings = [
        [p + across + up, p - across + up, p - across - up, p + across - up] for p in (start, end)
    ]
    builder.loft(rings, material, (material, material), smooth=False)


def wheel_loader():
    """Four big wheels, a rear engine, a cab and a shovel in front."""
    builder = SolidBuilder()
    builder.box((-3.0, -0.9, 0.9), (-0.9, 0.9, 2.0), BODY, (0.95, 0.85))
    builder.box((-3.05, -0.6, 1.0), (-2.95, 0.6, 1.8), DARK)
    builder.box((-1.0, -0.7, 0.8), (1.3, 0.7, 1.5), BODY)
    builder.box((-1.0, -0.72, 1.5), (0.45, 0.72, 3.1), BODY, (0.85, 0.88))
    inside = (-0.3, 0, 2.3)
    builder.patch((0.44, 0, 2.35), (0, 0.58, 0), (-0.09, 0, 0.55), GLASS, inside)
    for side in (-1, 1):
        builder.patch(
            (-0.28, side * 0.70, 2.35), (0.56, 0, 0), (0, -side * 0.05, 0.52), GLASS, inside
        )
        _beam(builder, (0.6, side * 0.5, 1.6), (2.7, side * 0.5, 0.75), 0.09, 0.3, BODY)
        builder.patch((-3.06, side * 0.7, 1.5), (0, 0.12, 0), (0, 0, 0.08), TAILLIGHT, inside)
        builder.patch((1.32, side * 0.55, 1.3), (0, 0.12, 0), (0, 0, 0.1), HEADLIGHT, inside)
    profile = (
        (2.6, 1.25),
        (2.45, 0.75),
        (2.6, 0.1),
        (3.6, 0.0),
        (3.65, 0.06),
        (2.85, 0.4),
        (2.75, 1.2),
    )
    builder.loft(
        [[(x, -1.3, z) for x, z in profile], [(x, 1.3, z) for x, z in profile]],
        DARK,
        (DARK, DARK),
        smooth=False,
    )
    for x, kind in ((1.1, 'roll'), (-2.0, 'roll')):
        for side in (-1, 1):
            wheel(builder, x, side * 1.22, 0.72, 0.5, kind, 16)
    builder.cylinder((-0.4, 0.3, 3.1), (-0.4, 0.3, 3.28), 0.09, INDICATOR, 8)
    return builder.mesh()

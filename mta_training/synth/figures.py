"""Meshes of people, cycles, building machines, cones and barriers, in metres, x forward."""

import numpy as np

from mta_training.synth.solids import SolidBuilder
from mta_training.synth.vehicles import (BODY, DARK, GLASS, HAIR, HEADLIGHT, INDICATOR, METAL, SECOND,
                                         SHOES, SKIN, TAILLIGHT, TROUSERS, TYRE, WHITE, wheel)


def pedestrian(build='adult', helmet=False, bag=False, skirt=False):
    """A walking person; legs and arms are joints that swing with the gait."""
    builder = SolidBuilder()
    _torso(builder, skirt)
    builder.cylinder((0, 0, 1.42), (0, 0, 1.54), .055, SKIN, 8)
    head = 1.64 if build == 'adult' else 1.62
    radius = .105 if build == 'adult' else .125
    builder.ellipsoid((.01, 0, head), (radius, radius * .85, radius * 1.15), SKIN, 10, 6)
    if helmet:
        builder.ellipsoid((.0, 0, head + .05), (radius * 1.25, radius * 1.15, radius * .95), INDICATOR, 10, 5)
    else:
        builder.ellipsoid((-.022, 0, head + .03), (radius * 1.04, radius * .97, radius * 1.05), HAIR, 10, 6)
    if bag:
        builder.box((-.30, -.14, 1.0), (-.12, .14, 1.42), SECOND, (.8, .85))
    for side, leg, arm in ((1, 'leg', 'counter_leg'), (-1, 'counter_leg', 'leg')):
        builder.joint(leg, (0, side * .09, .88))
        builder.cylinder((0, side * .09, .90), (.01, side * .095, .48), .088, TROUSERS, 8, end_radius=.066)
        builder.cylinder((.01, side * .095, .48), (-.02, side * .095, .07), .064, TROUSERS, 8, end_radius=.05)
        builder.box((-.08, side * .095 - .045, 0.0), (.18, side * .095 + .045, .085), SHOES, (.8, .8))
        builder.joint(arm, (0, side * .21, 1.38))
        builder.cylinder((0, side * .205, 1.40), (-.02, side * .25, 1.10), .06, BODY, 8, end_radius=.05)
        builder.cylinder((-.02, side * .25, 1.10), (.06, side * .25, .86), .048, BODY, 8, end_radius=.04)
        builder.ellipsoid((.075, side * .25, .80), (.045, .03, .06), SKIN, 6, 4)
    builder.body()
    # Swinging feet and hands must stay inside the box, so the rest pose spans what the gait needs.
    return _spanned(builder, (-.36, .40), (-.30, .30), (0.0, head + radius * 1.2))


def _torso(builder, skirt):
    levels = ((.84, .115, .155), (.98, .12, .165), (1.12, .11, .155), (1.32, .125, .20), (1.42, .095, .185),
              (1.46, .06, .09))
    rings, angles = [], np.arange(10) * 2 * np.pi / 10
    for z, a, b in levels:
        rings.append(np.c_[a * np.cos(angles), b * np.sin(angles), np.full(10, z)])
    materials = np.full((len(levels) - 1, 10), BODY)
    materials[0] = TROUSERS
    builder.loft(rings, materials, (TROUSERS, SKIN))
    if skirt:
        low, high = (np.c_[k * np.cos(angles), k * 1.15 * np.sin(angles), np.full(10, z)]
                     for k, z in ((.2, .55), (.13, 1.0)))
        builder.loft([low, high], BODY)


def _spanned(builder, x, y, z):
    """The mesh, with the unit box stretched over the given extent instead of the rest pose."""
    mesh = builder.mesh()
    points = np.concatenate([polygon[0] for polygon in builder._polygons])
    low, high = points.min(0), points.max(0)
    span = np.array([x, y, z])
    size, origin = span[:, 1] - span[:, 0], np.array([span[0].mean(), span[1].mean(), span[2, 0]])
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])

    def respan(unit):
        return (np.asarray(unit) * (high - low) + middle - origin) / size

    return mesh._replace(
        vertices=respan(mesh.vertices).astype(np.float32),
        normals=(mesh.normals / (high - low) * size).astype(np.float32),
        joints=tuple(j._replace(pivot=tuple(respan(j.pivot))) for j in mesh.joints))


def _rider(builder, seat, bars, crank, helmet):
    """A person on a cycle: hips at `seat`, hands at `bars`, feet at `crank`."""
    seat, bars, crank = (np.asarray(k, dtype=np.float64) for k in (seat, bars, crank))
    shoulder = seat + (bars - seat) * .42 + (0, 0, .50)
    builder.cylinder(seat + (0, 0, .02), shoulder, .13, BODY, 10, end_radius=.17)
    head = shoulder + (.07, 0, .24)
    builder.cylinder(shoulder, head, .06, SKIN, 6)
    builder.ellipsoid(head, (.10, .09, .12), SKIN, 10, 6)
    builder.ellipsoid(head + (-.015, 0, .04), (.125, .11, .115) if helmet else (.105, .094, .1),
                      SECOND if helmet else HAIR, 10, 5)
    for side in (-1, 1):
        across = np.array([0.0, side, 0.0])
        knee = (seat + crank) / 2 + (.26, 0, .1) + across * .12
        foot = crank + across * .11 + (0.1 * side, 0, .08 * side)
        builder.cylinder(seat + across * .09, knee, .085, TROUSERS, 8, end_radius=.065)
        builder.cylinder(knee, foot, .062, TROUSERS, 8, end_radius=.048)
        builder.box(foot - (.09, .045, .05), foot + (.15, .045, .03), SHOES)
        elbow = (shoulder + bars) / 2 + across * .22 + (-.02, 0, -.06)
        builder.cylinder(shoulder + across * .17, elbow, .055, BODY, 8, end_radius=.046)
        builder.cylinder(elbow, bars + across * .22, .045, BODY, 8, end_radius=.036)
        builder.ellipsoid(bars + across * .22, (.045, .04, .04), SKIN, 6, 4)


def bicycle(rider, helmet=False, basket=False):
    """Diamond frame, two spoked wheels, bars and saddle; with or without a rider."""
    builder = SolidBuilder()
    axle, radius = .53, .34
    for x, kind in ((axle, 'steer'), (-axle, 'roll')):
        _spoked_wheel(builder, x, radius, kind)
    head, seat, crank = (.40, 0, .80), (-.22, 0, .84), (-.06, 0, .30)
    for a, b in ((head, seat), (head, crank), (seat, crank), (seat, (-axle, 0, radius)),
                 (crank, (-axle, 0, radius)), ((.37, 0, .9), (axle, 0, radius))):
        builder.cylinder(a, b, .028, BODY, 6)
    builder.cylinder((.36, 0, .86), (.34, 0, 1.02), .02, METAL, 6)
    builder.cylinder((.36, -.27, 1.04), (.36, .27, 1.04), .018, DARK, 6)
    builder.box((-.38, -.07, .92), (-.1, .07, .98), DARK, (.9, .6))
    builder.cylinder(seat, (-.24, 0, .94), .02, METAL, 6)
    builder.cylinder((-.06, -.05, .30), (-.06, .05, .30), .09, METAL, 10)
    if basket:
        builder.box((.45, -.16, .82), (.72, .16, 1.02), METAL, (1.1, 1.1))
    for side in (-1, 1):
        builder.cylinder((-.06, side * .06, .30), (-.06 + side * .13, side * .11, .30 + side * .1), .015, METAL, 4)
    if rider:
        _rider(builder, (-.24, 0, .98), (.34, 0, 1.04), (-.06, 0, .26), helmet)
    return builder.mesh()


def _spoked_wheel(builder, x, radius, kind):
    builder.joint(kind, (x, 0, radius))
    angles = np.arange(18) * 2 * np.pi / 18
    rings = []
    for r, y in ((radius, 0.0), (radius * .93, .022), (radius * .86, 0.0), (radius * .93, -.022)):
        rings.append(np.c_[x + r * np.cos(angles), np.full(18, y), radius + r * np.sin(angles)])
    # Around the tyre's section, so that the inside of the rim is skinned too.
    rings = np.array(rings + rings[:1])
    for a, b in zip(rings[:-1], rings[1:]):
        for k in range(18):
            m = (k + 1) % 18
            quad = np.array([a[k], a[m], b[m], b[k]])
            hub = np.array([x + radius * .93 * np.cos(angles[k] + .17), 0.0,
                            radius + radius * .93 * np.sin(angles[k] + .17)])
            builder.polygon(quad, TYRE, away_from=hub)
    for a in angles[::3]:
        rim = (x + radius * .9 * np.cos(a), 0.0, radius + radius * .9 * np.sin(a))
        builder.cylinder((x, 0, radius), rim, .007, METAL, 3)
    builder.body()


def motorcycle(rider, scooter=False):
    """A motorcycle or a scooter, with or without a rider."""
    builder = SolidBuilder()
    axle, radius = (.68, .31) if not scooter else (.62, .24)
    for x, kind in ((axle, 'steer'), (-axle, 'roll')):
        wheel(builder, x, .07, radius, .14, kind, 14)
        builder.patch((x, -.072, radius), (radius * .6, 0, 0), (0, 0, radius * .6), METAL, (x, 0, radius))
    if scooter:
        builder.box((-.78, -.17, .38), (-.02, .17, .78), BODY, (.85, .8))
        builder.box((-.1, -.17, .22), (.42, .17, .34), BODY)
        builder.box((.36, -.2, .3), (.56, .2, 1.0), BODY, (.5, .9))
        builder.box((-.7, -.14, .76), (-.04, .14, .86), DARK, (.9, .8))
        bars = (.38, 0, 1.05)
    else:
        builder.ellipsoid((.18, 0, .78), (.34, .17, .17), BODY, 12, 6)
        builder.box((-.32, -.15, .28), (.3, .15, .66), METAL, (.8, .8))
        builder.box((-.72, -.13, .70), (-.06, .13, .83), DARK, (.9, .8))
        builder.box((-.92, -.09, .70), (-.6, .09, .86), BODY, (.7, .7))
        builder.box((.42, -.16, .66), (.66, .16, 1.02), BODY, (.6, .7))
        builder.cylinder((-.1, -.17, .3), (-.8, -.2, .42), .05, METAL, 8)
        bars = (.42, 0, 1.02)
    for side in (-1, 1):
        builder.cylinder((axle, side * .1, radius), (.46, side * .1, .92), .03, METAL, 6)
        y = sorted((side * .30, side * .40))
        builder.box((bars[0] - .02, y[0], 1.08), (bars[0] + .03, y[1], 1.2), DARK)
    builder.cylinder((bars[0], -.36, 1.03), (bars[0], .36, 1.03), .022, DARK, 6)
    builder.ellipsoid((.6, 0, .86), (.08, .1, .1), HEADLIGHT, 8, 5)
    builder.box((-.97, -.07, .68), (-.88, .07, .78), TAILLIGHT)
    if rider:
        _rider(builder, (-.28, 0, .84), bars, (-.05, 0, .34), True)
    return builder.mesh()


def traffic_cone():
    """Orange cone with two white bands on a square foot."""
    builder = SolidBuilder()
    builder.box((-.19, -.19, 0), (.19, .19, .045), DARK)
    levels = ((.045, .145), (.25, .108), (.40, .082), (.50, .064), (.62, .043), (.74, .022))
    angles = np.arange(12) * 2 * np.pi / 12
    rings = [np.c_[r * np.cos(angles), r * np.sin(angles), np.full(12, z)] for z, r in levels]
    bands = np.array([BODY, WHITE, BODY, WHITE, BODY])[:, None] * np.ones((1, 12), int)
    builder.loft(rings, bands, (DARK, DARK))
    return builder.mesh()


def delineator():
    """An upright marker post with bands."""
    builder = SolidBuilder()
    builder.box((-.2, -.2, 0), (.2, .2, .07), DARK)
    for k, material in enumerate((BODY, WHITE, BODY, WHITE, BODY)):
        builder.cylinder((0, 0, .07 + .17 * k), (0, 0, .07 + .17 * (k + 1)), .07, material, 10)
    return builder.mesh()


def board_barrier():
    """A striped board on two feet; the box's long side may be x or y, so stripes stand on both faces."""
    builder = SolidBuilder()
    for x in (-.2, .2):
        for y in (-.85, .85):
            builder.box((x - .05, y - .05, 0), (x + .05, y + .05, .1), DARK)
    for y in (-.85, .85):
        builder.box((-.25, y - .06, 0.0), (.25, y + .06, .08), DARK)
        builder.box((-.04, y - .04, .05), (.04, y + .04, 1.0), METAL)
    for low, high in ((.62, .95), (.2, .42)):
        _striped(builder, low, high)
    return builder.mesh()


def _striped(builder, low, high):
    builder.box((-.03, -1.0, low), (.03, 1.0, high), WHITE)
    width, lean = .25, .16
    for k, left in enumerate(np.arange(-1.0, .99, width)):
        if k % 2:
            continue
        for side in (-1, 1):
            builder.polygon([(side * .034, left, low), (side * .034, left + width, low),
                             (side * .034, min(left + width + lean, 1.0), high),
                             (side * .034, min(left + lean, 1.0), high)], BODY, away_from=(0, left, low))


def concrete_barrier():
    """A Jersey barrier: one profile along y."""
    builder = SolidBuilder()
    profile = ((-.3, 0), (.3, 0), (.3, .08), (.14, .33), (.08, .8), (-.08, .8), (-.14, .33), (-.3, .08))
    rings = [[(x, y, z) for x, z in profile] for y in (-1.0, -.02, .02, 1.0)]
    builder.loft(rings, np.array([BODY, DARK, BODY])[:, None] * np.ones((1, 8), int), (BODY, BODY), smooth=False)
    for side in (-1, 1):
        for y in (-.7, .7):
            builder.patch((side * .112, y, .56), (0, .14, 0), (-side * .016, 0, .06), SECOND, (0, y, .5))
    return builder.mesh()


def fence_barrier():
    """A crowd-control fence of bars."""
    builder = SolidBuilder()
    for z in (.16, 1.05):
        builder.cylinder((0, -1.1, z), (0, 1.1, z), .03, BODY, 6)
    for y in np.linspace(-1.08, 1.08, 13):
        builder.cylinder((0, y, .16), (0, y, 1.05), .016, BODY, 4)
    for y in (-.75, .75):
        builder.box((-.28, y - .03, 0), (.28, y + .03, .05), BODY)
        builder.cylinder((0, y, 0), (0, y, .2), .025, BODY, 6)
    builder.box((-.035, -.4, .55), (.035, .4, .85), WHITE)
    return builder.mesh()


def excavator():
    """Tracks, a turned house with a cab, and a bent boom with a bucket."""
    builder = SolidBuilder()
    for side in (-1, 1):
        y = sorted((side * .85, side * 1.35))
        profile = ((-1.9, .35), (-1.6, .0), (1.6, .0), (1.9, .35), (1.7, .8), (-1.7, .8))
        builder.loft([[(x, y[0], z) for x, z in profile], [(x, y[1], z) for x, z in profile]],
                     TYRE, (DARK, DARK), smooth=False)
    builder.cylinder((0, 0, .7), (0, 0, 1.05), .7, DARK, 14)
    builder.box((-2.3, -1.3, 1.0), (.9, 1.3, 2.0), BODY, (.95, .96))
    builder.box((-2.35, -1.2, 1.05), (-1.5, 1.2, 2.2), BODY, (.9, .95))
    builder.box((-.3, .35, 1.9), (1.25, 1.28, 3.0), BODY, (.86, .9))
    inside = (.4, .8, 2.5)
    builder.patch((1.225, .82, 2.5), (0, .38, 0), (-.06, 0, .42), GLASS, inside)
    for y, lean in ((1.285, -.03), (.345, .03)):
        builder.patch((.45, y, 2.5), (.6, 0, 0), (0, lean, .4), GLASS, inside)
    builder.patch((-1.9, 1.32, 1.5), (.35, 0, 0), (0, 0, .25), DARK, (-1.9, 0, 1.5))
    builder.patch((-1.9, -1.32, 1.5), (.35, 0, 0), (0, 0, .25), DARK, (-1.9, 0, 1.5))
    _beam(builder, (.7, -.1, 1.7), (2.7, -.1, 3.75), .2, .34, BODY)
    _beam(builder, (2.55, -.1, 3.75), (4.1, -.1, 3.0), .2, .3, BODY)
    _beam(builder, (4.0, -.1, 3.25), (4.3, -.1, 1.1), .16, .24, BODY)
    builder.cylinder((1.2, -.1, 1.6), (2.3, -.1, 2.9), .08, METAL, 8)
    builder.cylinder((2.9, -.1, 4.0), (4.0, -.1, 3.4), .07, METAL, 8)
    profile = ((4.5, 1.15), (4.0, 1.0), (3.75, .5), (4.0, .12), (4.5, .2))
    builder.loft([[(x, -.6, z) for x, z in profile], [(x, .4, z) for x, z in profile]], DARK, (DARK, DARK),
                 smooth=False)
    builder.cylinder((.2, .8, 3.0), (.2, .8, 3.18), .09, INDICATOR, 8)
    return builder.mesh()


def _beam(builder, start, end, half_width, height, material):
    start, end = np.asarray(start), np.asarray(end)
    axis = (end - start) / np.linalg.norm(end - start)
    up = np.cross(axis, (0, 1, 0)) * -1.0 * height / 2
    across = np.array([0, half_width, 0])
    rings = [[p + across + up, p - across + up, p - across - up, p + across - up] for p in (start, end)]
    builder.loft(rings, material, (material, material), smooth=False)


def wheel_loader():
    """Four big wheels, a rear engine, a cab and a shovel in front."""
    builder = SolidBuilder()
    builder.box((-3.0, -.9, .9), (-.9, .9, 2.0), BODY, (.95, .85))
    builder.box((-3.05, -.6, 1.0), (-2.95, .6, 1.8), DARK)
    builder.box((-1.0, -.7, .8), (1.3, .7, 1.5), BODY)
    builder.box((-1.0, -.72, 1.5), (.45, .72, 3.1), BODY, (.85, .88))
    inside = (-.3, 0, 2.3)
    builder.patch((.44, 0, 2.35), (0, .58, 0), (-.09, 0, .55), GLASS, inside)
    for side in (-1, 1):
        builder.patch((-.28, side * .70, 2.35), (.56, 0, 0), (0, -side * .05, .52), GLASS, inside)
        _beam(builder, (.6, side * .5, 1.6), (2.7, side * .5, .75), .09, .3, BODY)
        builder.patch((-3.06, side * .7, 1.5), (0, .12, 0), (0, 0, .08), TAILLIGHT, inside)
        builder.patch((1.32, side * .55, 1.3), (0, .12, 0), (0, 0, .1), HEADLIGHT, inside)
    profile = ((2.6, 1.25), (2.45, .75), (2.6, .1), (3.6, .0), (3.65, .06), (2.85, .4), (2.75, 1.2))
    builder.loft([[(x, -1.3, z) for x, z in profile], [(x, 1.3, z) for x, z in profile]], DARK, (DARK, DARK),
                 smooth=False)
    for x, kind in ((1.1, 'roll'), (-2.0, 'roll')):
        for side in (-1, 1):
            wheel(builder, x, side * 1.22, .72, .5, kind, 16)
    builder.cylinder((-.4, .3, 3.1), (-.4, .3, 3.28), .09, INDICATOR, 8)
    return builder.mesh()

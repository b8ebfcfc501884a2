"""Meshes of motor vehicles: cars, trucks, buses, trailers and building machines, in metres, x forward."""

import numpy as np

from mta_training.synth.solids import SolidBuilder

# Palette rows; `palette.palette_of` gives each its colour.
(BODY, GLASS, TYRE, HUB, DARK, HEADLIGHT, TAILLIGHT, METAL, PLATE, SECOND, SKIN, HAIR, TROUSERS,
 SHOES, WHITE, INDICATOR) = range(16)

# Stations from nose to tail: x, z under, z belt, z top, half width at the belt, half width at the top
SEDAN = ((2.35, .34, .58, .64, .66, .56), (2.22, .24, .70, .76, .82, .72), (1.15, .20, .86, .95, .91, .80),
         (0.98, .20, .90, .98, .92, .78), (0.25, .20, .93, 1.40, .92, .62), (-.33, .20, .94, 1.45, .92, .61),
         (-.43, .20, .94, 1.45, .92, .61), (-1.10, .20, .95, 1.41, .92, .60), (-1.72, .22, .97, 1.06, .91, .74),
         (-2.25, .26, .95, 1.03, .87, .73), (-2.35, .36, .88, .96, .82, .68))
HATCH = ((2.05, .34, .60, .66, .66, .54), (1.93, .24, .72, .78, .82, .70), (1.05, .20, .88, .98, .88, .76),
         (0.90, .20, .92, 1.01, .89, .74), (0.22, .20, .95, 1.44, .89, .62), (-.30, .20, .96, 1.50, .89, .61),
         (-.40, .20, .96, 1.50, .89, .61), (-1.30, .20, .99, 1.46, .89, .60), (-1.88, .22, 1.0, 1.10, .86, .70),
         (-1.98, .26, .94, 1.02, .85, .70), (-2.05, .36, .86, .93, .80, .66))
SUV = ((2.30, .42, .72, .82, .74, .64), (2.20, .32, .88, .98, .88, .78), (1.20, .28, 1.06, 1.16, .95, .84),
       (1.05, .28, 1.09, 1.19, .96, .82), (0.45, .28, 1.11, 1.68, .96, .72), (-.25, .28, 1.12, 1.74, .96, .72),
       (-.36, .28, 1.12, 1.74, .96, .72), (-1.75, .28, 1.13, 1.70, .96, .70), (-2.15, .30, 1.12, 1.26, .94, .78),
       (-2.22, .32, 1.06, 1.16, .92, .78), (-2.30, .44, .98, 1.07, .87, .72))
VAN = ((2.55, .40, .74, .84, .80, .70), (2.45, .30, .92, 1.02, .92, .82), (2.00, .26, 1.08, 1.18, .97, .88),
       (1.90, .26, 1.10, 1.22, .98, .88), (1.15, .26, 1.12, 1.90, .98, .82), (0.55, .26, 1.12, 1.98, .98, .82),
       (0.42, .26, 1.12, 1.98, .98, .82), (-2.35, .26, 1.12, 1.96, .98, .82), (-2.47, .28, 1.12, 1.30, .97, .90),
       (-2.50, .30, 1.10, 1.24, .96, .88), (-2.55, .42, 1.04, 1.16, .92, .84))
PICKUP = ((2.75, .46, .80, .90, .80, .70), (2.62, .36, .96, 1.06, .94, .84), (1.50, .32, 1.08, 1.18, .98, .86),
          (1.36, .32, 1.10, 1.20, .98, .84), (0.80, .32, 1.12, 1.72, .98, .74), (0.20, .32, 1.12, 1.78, .98, .74),
          (0.08, .32, 1.12, 1.78, .98, .74), (-.55, .32, 1.12, 1.74, .98, .74), (-.75, .32, 1.12, 1.20, .98, .90),
          (-2.65, .36, 1.12, 1.18, .97, .90), (-2.75, .46, 1.06, 1.12, .94, .88))


def _ring(station):
    x, under, belt, top, belt_half, top_half = station
    bulge = under + 0.42 * (belt - under)
    half = [(belt_half * 0.92, under), (belt_half, bulge), (belt_half * 0.985, belt),
            (top_half, top - 0.05 * (top - belt)), (top_half * 0.72, top)]
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
        builder.polygon([out, *(out + np.array([rim * np.cos(t), 0.0, rim * np.sin(t)]) for t in a)],
                        HUB, away_from=centre)
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
    builder.patch((nose + .008, 0, under + .58 * tall), (0, half * .62, 0), (0, 0, .2 * tall), DARK, inside)
    builder.patch((nose + .012, 0, under + .2 * tall), (0, .26, 0), (0, 0, .055), PLATE, inside)
    inner, _, inner_belt, _, inner_half, _ = stations[1]
    for side in (-1, 1):
        y = sorted((side * inner_half * .60, side * inner_half * .985))
        builder.box((inner - .24, y[0], inner_belt - .19), (inner + .06, y[1], inner_belt - .03), HEADLIGHT)
    tail, under, belt, top, half, _ = stations[-1]
    tall = top - under
    for side in (-1, 1):
        y = sorted((side * half * .64, side * half * 1.01))
        builder.box((tail - .012, y[0], belt - .27 * tall), (tail + .16, y[1], belt + .01), TAILLIGHT)
    builder.patch((tail - .01, 0, belt - .2 * tall), (0, .26, 0), (0, 0, .055), PLATE, inside)
    builder.box((tail - .02, -half * .97, under - .06), (tail + .2, half * .97, under + .12 * tall), DARK)
    builder.box((stations[1][0] - .1, -inner_half * .9, stations[0][1] - .08),
                (nose + .015, inner_half * .9, stations[0][1] + .06), DARK)


def _doors(builder, stations, half):
    """Door gaps, handles and sills along both sides."""
    front, middle, back = stations[3][0] - .25, stations[6][0], stations[7][0] + .12
    under, belt = stations[5][1], stations[5][2]
    for side in (-1, 1):
        y = side * half * 1.004
        for x in (front, middle + .05, back):
            builder.patch((x, y, (under + belt) / 2 + .06), (.008, 0, 0), (0, 0, (belt - under) * .40), DARK,
                          (x, 0, belt))
        for x in (middle + .17, back + .12):
            builder.patch((x, y, belt - .12), (.07, 0, 0), (0, 0, .014), DARK, (x, 0, belt))
        builder.patch(((front + back) / 2, side * half * .985, under + .08), ((front - back) / 2 - .1, 0, 0),
                      (0, side * .02, .05), DARK, (0, 0, belt))


def car(stations, bed=False, wheel_radius=0.33):
    """A car, van or pickup from its stations; `bed` opens the back of a pickup."""
    builder = SolidBuilder()
    rings = np.array([_ring(k) for k in stations])
    materials = np.full((len(stations) - 1, 10), BODY)
    materials[:, 9] = DARK                                         # under the floor
    for s in (4, 6):
        materials[s, [2, 6]] = GLASS                               # side windows
    materials[3, 2:7] = GLASS                                      # windscreen
    materials[7, 4] = GLASS                                        # rear window
    builder.loft(rings, materials, (BODY, BODY))
    nose, tail = stations[0][0], stations[-1][0]
    half = max(k[4] for k in stations)
    front_x, rear_x = nose - 0.82, tail + 0.86
    _nose_and_tail(builder, stations)
    _doors(builder, stations, half)
    if bed:
        back, front = stations[-2][0] + 0.08, stations[8][0] - 0.06
        builder.polygon([(front, .8, 1.205), (back, .8, 1.205), (back, -.8, 1.205), (front, -.8, 1.205)],
                        DARK, away_from=(0, 0, 0))
    for x in (front_x, rear_x):
        for side in (-1, 1):
            _arch(builder, x, side * half * 1.005, wheel_radius)
            wheel(builder, x, side * half * 1.012, wheel_radius, 0.22, 'steer' if x > 0 else 'roll')
    mirror_x, mirror_z = stations[3][0] - 0.22, stations[3][2] + 0.06
    for side in (-1, 1):
        y = sorted((side * half * 0.97, side * (half + 0.12)))
        builder.box((mirror_x - 0.08, y[0], mirror_z), (mirror_x + 0.06, y[1], mirror_z + 0.13), BODY)
    return builder.mesh()


def _axles(builder, places, half, radius, width=0.32):
    for x, kind in places:
        for side in (-1, 1):
            wheel(builder, x, side * half, radius, width, kind, 16)


def _cab(builder, back, front, half, low, high, material=BODY):
    """A lorry's cab with windscreen, side windows, grille and lights."""
    slope = 0.16
    belt, roof = low + 0.52 * (high - low), high
    lower = [(front, -half, low), (front, half, low), (back, half, low), (back, -half, low)]
    middle = [(front, -half, belt), (front, half, belt), (back, half, belt), (back, -half, belt)]
    top = [(front - slope, -half * .94, roof), (front - slope, half * .94, roof),
           (back, half * .94, roof), (back, -half * .94, roof)]
    builder.loft([lower, middle, top], material, (DARK, material), smooth=False)
    inside = ((back + front) / 2, 0.0, (low + high) / 2)
    lean = np.array([-slope, 0, roof - belt])
    base = np.array([front + 0.012, 0.0, belt])
    builder.patch(base + lean * 0.47, (0, half * 0.87, 0), lean * 0.40, GLASS, inside)
    length = front - back
    for side in (-1, 1):
        builder.patch((back + length * 0.58, side * (half * .985), belt + (roof - belt) * 0.42),
                      (length * 0.3, 0, 0), (-0.03, -side * 0.02, (roof - belt) * 0.36), GLASS, inside)
        builder.patch((front + .01, side * half * 0.74, low + 0.22), (0, half * 0.17, 0), (0, 0, .09),
                      HEADLIGHT, inside)
        y = sorted((side * half, side * (half + 0.17)))
        builder.box((front - .25, y[0], belt + .1), (front - .12, y[1], belt + .6), DARK)
    builder.patch((front + .01, 0, low + 0.55), (0, half * 0.62, 0), (0, 0, .2), DARK, inside)
    builder.patch((front + .012, 0, low + 0.12), (0, .26, 0), (0, 0, .06), PLATE, inside)


def _rear_lamps(builder, x, half, z, big=1.0):
    for side in (-1, 1):
        builder.patch((x, side * half * 0.82, z), (0, half * 0.14, 0), (0, 0, 0.1 * big), TAILLIGHT, (0, 0, z))
    builder.patch((x, 0, z), (0, 0.26, 0), (0, 0, 0.06), PLATE, (0, 0, z))


def box_truck():
    """A two-axle lorry with a closed box."""
    builder = SolidBuilder()
    builder.box((-3.7, -0.45, 0.65), (3.0, 0.45, 0.95), DARK)
    _cab(builder, 2.05, 3.7, 1.13, 0.55, 2.55)
    builder.box((-3.7, -1.22, 1.0), (1.9, 1.22, 3.3), BODY)
    builder.box((-3.72, -1.24, 0.98), (1.92, 1.24, 1.08), METAL)
    for x in (-3.72, 1.92):
        builder.box((x - .02, -1.24, 1.0), (x + .02, 1.24, 3.3), SECOND)
    for side in (-1, 1):
        builder.patch((-.9, side * 1.226, 2.2), (1.7, 0, 0), (0, 0, .28), SECOND, (-.9, 0, 2.2))
        builder.patch((-.6, side * 1.1, .8), (1.3, 0, 0), (0, 0, .16), METAL, (-.6, 0, .8))
    builder.patch((-3.745, 0, 2.1), (0, .012, 0), (0, 0, 1.0), DARK, (0, 0, 2))
    _rear_lamps(builder, -3.73, 1.2, 0.86)
    _axles(builder, ((2.75, 'steer'), (-2.4, 'roll')), 1.2, 0.5)
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
            builder.box((x - .06, y[0], 1.1), (x + .06, y[1], 2.6), BODY)
    builder.polygon([(1.6, 1.1, 2.605), (-3.4, 1.1, 2.605), (-3.4, -1.1, 2.605), (1.6, -1.1, 2.605)],
                    SECOND, away_from=(0, 0, 0))
    _rear_lamps(builder, -3.62, 1.2, 0.95)
    _axles(builder, ((2.65, 'steer'), (-1.6, 'roll'), (-2.85, 'roll')), 1.24, 0.52)
    return builder.mesh()


def bus():
    """A city bus with a band of windows and doors on the right."""
    builder = SolidBuilder()
    half = 1.27
    rings = []
    for x, shrink in ((5.6, .94), (5.35, 1.0), (-5.45, 1.0), (-5.6, .96)):
        profile = ((half * shrink, 0.32), (half * shrink, 2.75), (half * .86 * shrink, 3.0))
        rings.append([(x, y, z) for y, z in profile] + [(x, -y, z) for y, z in profile[::-1]])
    builder.loft(rings, BODY, (BODY, BODY), smooth=False)
    inside = (0, 0, 1.6)
    builder.patch((5.612, 0, 1.72), (0, 1.08, 0), (0, 0, .72), GLASS, inside)
    builder.patch((5.615, 0, 2.66), (0, .8, 0), (0, 0, .16), INDICATOR, inside)
    builder.patch((-5.61, 0, 2.05), (0, 1.0, 0), (0, 0, .45), GLASS, inside)
    for side in (-1, 1):
        for x in np.linspace(-4.9, 4.5, 7):
            builder.patch((x, side * (half + .006), 1.98), (.71, 0, 0), (0, 0, .5), GLASS, inside)
        builder.patch((0, side * (half + .004), 1.98), (5.3, 0, 0), (0, 0, .56), DARK, inside)
        builder.patch((0, side * (half + .004), .72), (5.3, 0, 0), (0, 0, .1), SECOND, inside)
        builder.patch((5.615, side * .95, .72), (0, .2, 0), (0, 0, .1), HEADLIGHT, inside)
        builder.patch((-5.612, side * 1.0, 1.1), (0, .12, 0), (0, 0, .3), TAILLIGHT, inside)
        y = sorted((side * half, side * (half + .14)))
        builder.box((5.35, y[0], 1.9), (5.5, y[1], 2.5), DARK)
        for x in (3.4, -3.2):
            _arch(builder, x, side * (half + .008), .5)
    for x in (4.75, 0.3):
        for shift in (-.31, .31):
            builder.patch((x + shift, -half - .012, 1.35), (.28, 0, 0), (0, 0, .92), GLASS, inside)
    builder.box((-2.6, -.8, 2.98), (1.4, .8, 3.2), WHITE)
    _rear_lamps(builder, -5.61, half, .62)
    _axles(builder, ((3.4, 'steer'), (-3.2, 'roll')), half + .016, .48)
    return builder.mesh()


def box_trailer():
    """A closed semitrailer on three axles, without its tractor."""
    builder = SolidBuilder()
    builder.box((-5.9, -1.25, 1.15), (5.9, 1.25, 3.85), BODY)
    builder.box((-5.93, -1.27, 1.1), (5.93, 1.27, 1.22), METAL)
    for x in np.linspace(-5.6, 5.6, 13):
        for side in (-1, 1):
            builder.patch((x, side * 1.256, 2.5), (.02, 0, 0), (0, 0, 1.3), METAL, (x, 0, 2.5))
    for side in (-1, 1):
        builder.patch((0, side * 1.262, 2.9), (2.6, 0, 0), (0, 0, .35), SECOND, (0, 0, 2.9))
        builder.box((2.9, side * .8 - .08, 0.0), (3.05, side * .8 + .08, 1.1), METAL)
        builder.patch((-.6, side * 1.2, .8), (2.2, 0, 0), (0, 0, .22), METAL, (-.6, 0, .8))
    builder.patch((-5.94, 0, 2.5), (0, .015, 0), (0, 0, 1.3), DARK, (0, 0, 2.5))
    builder.box((-5.5, -.5, .85), (4.0, .5, 1.1), DARK)
    _rear_lamps(builder, -5.94, 1.25, 1.0, 1.2)
    _axles(builder, ((-2.6, 'roll'), (-3.7, 'roll'), (-4.8, 'roll')), 1.25, .5)
    return builder.mesh()


def flat_trailer():
    """A drawbar trailer with sides and a tarpaulin."""
    builder = SolidBuilder()
    builder.box((-2.6, -1.15, .75), (2.2, 1.15, 1.45), METAL)
    rings = []
    for x in (2.2, -2.6):
        rings.append([(x, 1.15, 1.45), (x, 1.12, 2.1), (x, .5, 2.45), (x, -.5, 2.45), (x, -1.12, 2.1),
                      (x, -1.15, 1.45)])
    builder.loft(rings, BODY, (BODY, BODY), smooth=False)
    for x in np.linspace(-2.4, 2.0, 6):
        for side in (-1, 1):
            builder.patch((x, side * 1.156, 1.1), (.04, 0, 0), (0, 0, .34), DARK, (x, 0, 1.1))
            builder.patch((x, side * 1.146, 1.78), (.02, 0, 0), (0, -side * .01, .3), SECOND, (x, 0, 1.8))
    builder.box((2.2, -.08, .6), (3.4, .08, .72), DARK)
    builder.cylinder((3.3, 0, 0), (3.3, 0, .7), .06, METAL, 6)
    _rear_lamps(builder, -2.61, 1.15, .95)
    _axles(builder, ((-.6, 'roll'), (-1.6, 'roll')), 1.18, .42, .26)
    return builder.mesh()

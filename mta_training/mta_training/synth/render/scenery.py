"""What stands in the street and never moves: buildings, trees, lamps, traffic lights, signs.

Everything is turned once per scene into one list of lit triangles plus clumps of leaves.
"""

from typing import NamedTuple

import numpy as np

from mta_training.synth.meshes.solids import SolidBuilder, newell_normal
from mta_training.synth.render.clutter import SHADES, clutter_solid
from mta_training.synth.render.facades import FACADES, facade_textures, leaf_texture
from mta_training.synth.scene import CLUTTER

STOREY_M, BAY_M = 3.1, 3.0
(STEEL, WOOD, LAMP_HEAD, BLACK, RED, AMBER, GREEN, BLUE, SIGN_WHITE, SIGN_YELLOW, ROOF) = range(11)
_ALBEDO = np.array(
    [
        (0.20, 0.21, 0.22),
        (0.11, 0.075, 0.05),
        (0.6, 0.6, 0.6),
        (0.02, 0.02, 0.02),
        (0.5, 0.03, 0.03),
        (0.5, 0.3, 0.02),
        (0.03, 0.35, 0.12),
        (0.03, 0.12, 0.42),
        (0.75, 0.75, 0.75),
        (0.75, 0.55, 0.04),
        (0.20, 0.12, 0.10),
    ]
)


class Item(NamedTuple):
    """One standing thing: where it is and which triangles and leaf clumps draw it."""

    centre: tuple
    radius: float
    first: int
    last: int
    first_clump: int
    last_clump: int


class Walls(NamedTuple):
    """Triangles of all standing things."""

    vertices: np.ndarray  # (V, 3) float64 world
    triangles: np.ndarray  # (T, 3) int32
    colours: np.ndarray  # (T, 3, 3) float32 light (or, on facades, what multiplies the texture)
    texture: np.ndarray  # (T, 3, 2) float32 bays and storeys
    styles: np.ndarray  # (T,) int32 facade, -1 = plain
    seeds: np.ndarray  # (T,) int32, of each wall's windows


class Scenery(NamedTuple):
    """All standing things of a world, ready to draw."""

    centres: np.ndarray  # (N, 3) bounding spheres
    radii: np.ndarray  # (N,)
    spans: np.ndarray  # (N, 4) int64: first, last triangle; first, last clump
    walls: Walls
    clumps: np.ndarray  # (C, 4) float64 x, y, z, radius
    tints: np.ndarray  # (C, 3) float32
    flips: np.ndarray  # (C,) bool
    glows: np.ndarray  # (G, 6) float64 x, y, z, r, g, b of lamps seen at night
    facade: np.ndarray  # (2 * FACADES, 64, 64, 4) float32
    leaves: np.ndarray  # (128, 128, 2) float32


class _Collector:
    """Grows the lists of a `Scenery`."""

    def __init__(self, light, sun_share_at):
        self.light, self.sun_share_at = light, sun_share_at
        self.items, self.vertices, self.triangles, self.colours = [], [], [], []
        self.texture, self.styles, self.seeds = [], [], []
        self.clumps, self.tints, self.flips, self.glows = [], [], [], []
        self._count = 0

    def lit(self, albedo, normal, sun_share, low=1.0):
        """(3,) light from a matt surface."""
        light = self.light
        up = 0.5 + 0.5 * normal[2]
        ambient = light.bounce + (light.sky - light.bounce) * up
        direct = max(float(normal @ light.to_sun), 0.0) * sun_share
        return np.asarray(albedo) * (ambient * low + light.sun * direct + light.lamp * 0.12)

    def polygon(self, points, colours, texture=None, style=-1, seed=0):
        """A convex polygon as a fan."""
        base = len(self.vertices)
        self.vertices.extend(points)
        for k in range(1, len(points) - 1):
            order = [0, k, k + 1]
            self.triangles.append([base + i for i in order])
            self.colours.append([colours[i] for i in order])
            self.texture.append([texture[i] if texture is not None else (0, 0) for i in order])
            self.styles.append(style)
            self.seeds.append(seed)

    def clump(self, centre, radius, tint, flip):
        self.clumps.append((*centre, radius))
        self.tints.append(tint)
        self.flips.append(flip)

    def close(self, centre, radius, start):
        """Record what was added since `start` = (triangles, clumps) as one item."""
        self.items.append(
            Item(tuple(centre), radius, start[0], len(self.triangles), start[1], len(self.clumps))
        )

    @property
    def mark(self):
        return len(self.triangles), len(self.clumps)


def _add_building(out, building):
    start = out.mark
    base = np.asarray(building.footprint, dtype=np.float64)[:, :2]
    (ax, ay), (bx, by) = base[1] - base[0], base[2] - base[1]
    if ax * by - ay * bx < 0:
        base = base[::-1]
    height, style = building.height, building.style % FACADES
    storeys = max(1.0, round(height / STOREY_M))
    for k in range(4):
        a, b = base[k], base[(k + 1) % 4]
        length = np.hypot(*(b - a))
        normal = np.array([(b - a)[1], -(b - a)[0], 0.0]) / max(length, 1e-6)
        bays = max(1.0, round(length / BAY_M))
        bottom = out.lit((1, 1, 1), normal, 1.0, 0.62)
        top = out.lit((1, 1, 1), normal, 1.0)
        points = [(*a, 0.0), (*b, 0.0), (*b, height), (*a, height)]
        out.polygon(
            np.array(points),
            [bottom, bottom, top, top],
            [(0, 0), (bays, 0), (bays, storeys), (0, storeys)],
            style,
            building.style * 4 + k,
        )
    _add_roof(out, base, height, building.style)
    middle = base.mean(0)
    out.close(
        (*middle, height / 2),
        float(np.hypot(np.hypot(*(base - middle).T).max(), height / 2)) + 2.0,
        start,
    )


def _add_roof(out, base, height, style):
    """A gable on low houses, a cornice on others."""
    colour = _ALBEDO[ROOF] * (0.7 + 0.6 * (style % 7) / 7.0)
    middle = base.mean(0)
    grown = middle + (base - middle) * 1.03
    if height < 10.0:
        rise = 0.28 * min(np.hypot(*(base[1] - base[0])), np.hypot(*(base[2] - base[1])))
        longer = np.hypot(*(base[1] - base[0])) >= np.hypot(*(base[2] - base[1]))
        ring = grown if longer else np.roll(grown, -1, axis=0)
        ridge = [(ring[1] + ring[2]) / 2, (ring[3] + ring[0]) / 2]
        eaves = [np.array([*p, height]) for p in ring]
        tops = [np.array([*p, height + rise]) for p in ridge]
        faces = (
            [eaves[0], eaves[1], tops[0], tops[1]],
            [eaves[2], eaves[3], tops[1], tops[0]],
            [eaves[1], eaves[2], tops[0]],
            [eaves[3], eaves[0], tops[1]],
        )
        for face in faces:
            points = np.array(face)
            light = out.lit(colour, newell_normal(points), 1.0)
            out.polygon(points, [light] * len(points))
        return
    low, high = height - 0.1, height + 0.7
    for k in range(4):
        a, b = grown[k], grown[(k + 1) % 4]
        normal = np.array([(b - a)[1], -(b - a)[0], 0.0]) / max(np.hypot(*(b - a)), 1e-6)
        light = out.lit((0.36, 0.35, 0.33), normal, 1.0)
        out.polygon(np.array([(*a, low), (*b, low), (*b, high), (*a, high)]), [light] * 4)
        dark = out.lit((0.36, 0.35, 0.33), np.array([0, 0, -1.0]), 0.0)
        inner = base[k], base[(k + 1) % 4]
        out.polygon(
            np.array([(*a, low), (*inner[0], low), (*inner[1], low), (*b, low)]), [dark] * 4
        )


def _add_solid(out, builder, world_from_item, emission=None, albedo=_ALBEDO):
    """Bake a builder's polygons (materials are rows of `albedo`) at a place."""
    foot = world_from_item[:2, 3]
    share = out.sun_share_at(foot[0], foot[1])
    for points, material, _, _ in builder.polygons:
        placed = points @ world_from_item[:3, :3].T + world_from_item[:3, 3]
        light = out.lit(albedo[material], newell_normal(placed), share)
        if emission is not None and material in emission:
            light = light + np.asarray(emission[material])
        out.polygon(placed, [light] * len(placed))


def _placed(pole):
    c, s = np.cos(pole.yaw), np.sin(pole.yaw)
    return np.array([[c, -s, 0, pole.xy[0]], [s, c, 0, pole.xy[1]], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def _add_lamp(out, pole):
    start, builder = out.mark, SolidBuilder()
    height = pole.height
    builder.cylinder((0, 0, 0), (0, 0, 1.0), 0.12, STEEL, 8)
    builder.cylinder((0, 0, 1.0), (0, 0, height - 0.3), 0.075, STEEL, 8, end_radius=0.05)
    builder.cylinder((0, 0, height - 0.35), (1.5, 0, height), 0.045, STEEL, 6)
    builder.box((1.3, -0.14, height - 0.06), (2.0, 0.14, height + 0.08), STEEL)
    builder.box((1.4, -0.11, height - 0.10), (1.95, 0.11, height - 0.06), LAMP_HEAD)
    night = float(out.light.night)
    placed = _placed(pole)
    _add_solid(out, builder, placed, {LAMP_HEAD: np.array([6.0, 4.6, 2.6]) * night})
    if night:
        out.glows.append((*(placed @ np.array([1.65, 0, height - 0.1, 1]))[:3], 1.0, 0.74, 0.42))
    out.close((*pole.xy, height / 2), height * 0.7 + 1.5, start)


def _add_traffic_light(out, pole):
    start, builder = out.mark, SolidBuilder()
    height = pole.height
    builder.cylinder((0, 0, 0), (0, 0, height), 0.07, STEEL, 8)
    builder.box((0.02, -0.17, height - 1.0), (0.26, 0.17, height), BLACK)
    lit = pole.style % 3
    for k, colour in enumerate((RED, AMBER, GREEN)):
        z = height - 0.18 - 0.32 * k
        angles = np.arange(10) * 2 * np.pi / 10
        ring = np.c_[np.full(10, 0.265), 0.115 * np.cos(angles), z + 0.115 * np.sin(angles)]
        builder.polygon(ring, colour if k == lit else BLACK, away_from=(0, 0, z))
        builder.box((0.26, -0.13, z + 0.1), (0.4, 0.13, z + 0.14), BLACK)
    strength = 1.6 if not out.light.night else 1.2
    glow = {
        RED: (strength, 0.08, 0.05),
        AMBER: (strength, 0.7 * strength, 0.05),
        GREEN: (0.05, strength, 0.5 * strength),
    }
    placed = _placed(pole)
    _add_solid(out, builder, placed, glow)
    if out.light.night:
        colour = ((1, 0.1, 0.08), (1, 0.6, 0.1), (0.1, 1, 0.5))[lit]
        out.glows.append(
            (*(placed @ np.array([0.4, 0, height - 0.18 - 0.32 * lit, 1]))[:3], *colour)
        )
    out.close((*pole.xy, height / 2), height * 0.6 + 0.5, start)


def _add_sign(out, pole):
    start, builder = out.mark, SolidBuilder()
    height, kind = pole.height, pole.style % 4
    builder.cylinder((-0.05, 0, 0), (-0.05, 0, height), 0.035, STEEL, 6)
    sides = (12, 3, 4, 4)[kind]
    turn = (0.0, np.pi / 2, np.pi / 4, 0.0)[kind]
    angles = np.arange(sides) * 2 * np.pi / sides + turn
    rim, face = (
        (RED, SIGN_WHITE),
        (RED, SIGN_WHITE),
        (SIGN_WHITE, BLUE),
        (SIGN_WHITE, SIGN_YELLOW),
    )[kind]
    for radius, x, material in ((0.36, 0.0, rim), (0.27, 0.01, face)):
        ring = np.c_[
            np.full(sides, x), radius * np.cos(angles), height - 0.36 + radius * np.sin(angles)
        ]
        builder.polygon(ring, material, away_from=(-1, 0, height - 0.36))
        if material == rim:
            builder.polygon(ring - (0.02, 0, 0), STEEL, away_from=(1, 0, height - 0.36))
    _add_solid(out, builder, _placed(pole))
    out.close((*pole.xy, height / 2), height * 0.6 + 0.4, start)


def _add_plant(out, pole):
    """A tree with a trunk, or a bush, whose crown is clumps of leaves."""
    start = out.mark
    rng = np.random.default_rng(pole.style)
    tree = pole.kind == 'tree'
    height = pole.height
    share = out.sun_share_at(*pole.xy)
    if tree:
        builder = SolidBuilder()
        builder.cylinder(
            (0, 0, 0),
            (0, 0, height * 0.55),
            0.03 * height**0.9,
            WOOD,
            7,
            end_radius=0.015 * height,
        )
        _add_solid(out, builder, _placed(pole))
    hue = rng.uniform(0, 1)
    albedo = np.array([0.10 + 0.07 * hue, 0.17 + 0.02 * hue, 0.04]) * rng.uniform(0.75, 1.15)
    middle, reach = (height * 0.68, height * 0.24) if tree else (height * 0.5, height * 0.45)
    if not tree:
        share = 1.0
    for k in range(9 if tree else 4):
        offset = rng.normal(0, 1, 3)
        offset *= reach * rng.uniform(0.55, 1.0) / np.linalg.norm(offset)
        if k == 0:
            offset *= 0.0
        centre = np.array([*pole.xy, middle]) + offset * (
            (1, 1, 0.95) if tree else (1.1, 1.1, 0.35)
        )
        towards = offset / max(np.linalg.norm(offset), 1e-6)
        light = out.light
        ambient = light.bounce * 0.4 + (light.sky - light.bounce * 0.4) * (0.5 + 0.45 * towards[2])
        sun = (
            light.sun
            * (0.30 + 0.30 * float(towards @ light.to_sun))
            * (0.35 + 0.65 * max(share, 0.6))
        )
        tint = albedo * 1.5 * (ambient + sun + light.lamp * 0.10)
        radius = reach * (0.62 if k else 0.8)
        out.clump(
            (centre[0], centre[1], max(centre[2], radius * 0.8)),
            radius * rng.uniform(0.85, 1.2),
            tint,
            bool(rng.integers(2)),
        )
    out.close((*pole.xy, height / 2), height * 0.75 + 0.5, start)


def _add_clutter(out, pole):
    start = out.mark
    builder, height, reach = clutter_solid(pole.kind, pole.style)
    _add_solid(out, builder, _placed(pole), albedo=SHADES)
    out.close((*pole.xy, height / 2), height * 0.6 + reach, start)


_ADD = {
    **dict.fromkeys(CLUTTER, _add_clutter),
    'lamp': _add_lamp,
    'traffic_light': _add_traffic_light,
    'sign': _add_sign,
    'tree': _add_plant,
    'bush': _add_plant,
}


def make_scenery(world, weather, light, sun_share_at):
    """The `Scenery` of a world; `sun_share_at(x, y)` says how much sun reaches a place (0..1)."""
    out = _Collector(light, sun_share_at)
    for building in world.buildings:
        _add_building(out, building)
    for pole in world.poles:
        if pole.kind not in _ADD:
            raise ValueError(
                f'pole kind {pole.kind!r} cannot be drawn; expected one of {", ".join(_ADD)}.'
            )
        _ADD[pole.kind](out, pole)

    def stacked(values, shape, dtype):
        return np.array(values, dtype).reshape(shape)

    walls = Walls(
        stacked(out.vertices, (-1, 3), np.float64),
        stacked(out.triangles, (-1, 3), np.int32),
        stacked(out.colours, (-1, 3, 3), np.float32),
        stacked(out.texture, (-1, 3, 2), np.float32),
        np.array(out.styles, np.int32),
        np.array(out.seeds, np.int32),
    )
    return Scenery(
        stacked([k.centre for k in out.items], (-1, 3), np.float64),
        np.array([k.radius for k in out.items]),
        stacked([k[2:] for k in out.items], (-1, 4), np.int64),
        walls,
        stacked(out.clumps, (-1, 4), np.float64),
        stacked(out.tints, (-1, 3), np.float32),
        np.array(out.flips, bool),
        stacked(out.glows, (-1, 6), np.float64),
        facade_textures(weather.seed, weather.street),
        leaf_texture(weather.seed),
    )

"""Buildings, trees, lamps, traffic lights and signs along the streets (local frame, metres)."""

import numpy as np
from shapely import prepare
from shapely.geometry import Point, Polygon
from shapely.strtree import STRtree

from mta_training.synth.scene import CLUTTER, Building, Pole
from mta_training.synth.town.paths import normals
from mta_training.synth.town.roads import mouth

_CLUTTER_SHARES = (0.2, 0.2, 0.08, 0.15, 0.15, 0.12, 0.06, 0.04)


def _rectangle(centre, along, length, depth):
    out = np.array([-along[1], along[0]])
    half_x, half_y = along * length / 2, out * depth / 2
    return np.array(
        [
            centre - half_x - half_y,
            centre + half_x - half_y,
            centre + half_x + half_y,
            centre - half_x + half_y,
        ]
    )


def _buildings(network, rng, carriageway, walkway_width, street):
    """Rows of houses on both sides of every road, some plots left empty."""
    town_height = float(rng.uniform(4.0 if street else 6.0, 22.0))
    longest = float(rng.uniform(18.0, 45.0)) if street else 26.0
    setback = float(rng.choice([0.3, 3.0, 7.0]) + rng.uniform(0.0, 2.0))
    forbidden = carriageway.buffer(walkway_width + 0.2)
    prepare(forbidden)
    placed = []
    for road in network.roads:
        left = normals(road.centre)
        for side in (-1, 1):
            s = float(rng.uniform(2.0, 10.0))
            while s < len(road.centre) - 4:
                length, depth = float(rng.uniform(9.0, longest)), float(rng.uniform(9.0, 16.0))
                if rng.random() < 0.82 and s + length < len(road.centre) + 8:
                    middle = min(int(s + length / 2), len(road.centre) - 1)
                    along = np.array([left[middle, 1], -left[middle, 0]])
                    reach = (
                        road.street.half_width
                        + road.street.strips[0 if side > 0 else 1]
                        + walkway_width
                        + setback
                        + depth / 2
                    )
                    height = max(4.0, town_height * float(rng.uniform(0.6, 1.5)))
                    style = int(rng.integers(1 << 16))
                    for further in (0.0, 2.5, 6.0):  # in bends a house stands back a little
                        corners = _rectangle(
                            road.centre[middle] + left[middle] * side * (reach + further),
                            along,
                            length,
                            depth,
                        )
                        if _fits(placed, corners, forbidden):
                            placed.append(Building(corners, height, style))
                            break
                s += length + (0.4 if rng.random() < 0.5 else float(rng.uniform(2.0, 14.0)))
    return placed


def _fits(placed, corners, forbidden):
    footprint = Polygon(corners)
    return not (
        forbidden.intersects(footprint)
        or any(
            footprint.intersects(Polygon(other.footprint))
            for other in placed
            if np.hypot(*(other.footprint.mean(0) - corners.mean(0))) < 40.0
        )
    )


def _traffic_lights(network, rng):
    """One light on the right before each junction and one on its far side."""
    poles = []
    for junction in network.junctions:
        for step in junction.arms:
            along = -np.array(step, dtype=float)  # direction of arriving traffic
            right = np.array([along[1], -along[0]])
            half = junction.streets[0 if step[0] else 1].half_width
            near = mouth(junction, step) - along * 5.0 + right * (half + 0.9)
            far = 2 * junction.centre - mouth(junction, step) + right * (half + 0.9)
            yaw = float(np.arctan2(-along[1], -along[0]))  # the face looks at the traffic
            style = int(rng.integers(1 << 16))
            poles.append(Pole('traffic_light', tuple(near), yaw, 3.6, style))
            poles.append(Pole('traffic_light', tuple(far), yaw, 5.5, style))
    return poles


def _along_roads(network, rng, walkway_width):
    """Lamps at even distances, trees and signs at uneven ones, bushes behind the walkway."""
    poles = []
    tree_share = float(rng.choice([0.1, 0.5, 0.85]))
    lamp_spacing = float(rng.uniform(22.0, 34.0))
    tree_height = float(rng.uniform(5.0, 10.0))
    for road in network.roads:
        left = normals(road.centre)
        for side in (-1, 1):
            base = road.street.half_width + road.street.strips[0 if side > 0 else 1]
            for s in np.arange(9.0, len(road.centre) - 9.0, 4.0):
                index = int(s)
                inward = float(np.arctan2(*(-left[index] * side)[::-1]))
                kerb, back = (
                    road.centre[index] + left[index] * side * (base + beyond)
                    for beyond in (0.55, walkway_width + 1.2)
                )
                draw, style = rng.random(3), int(rng.integers(1 << 16))
                if s % lamp_spacing < 4.0:
                    poles.append(Pole('lamp', tuple(kerb), inward, 7.5, style))
                elif s % 12.0 < 4.0 and draw[0] < tree_share:
                    poles.append(
                        Pole('tree', tuple(kerb), 0.0, tree_height * (0.7 + 0.6 * draw[1]), style)
                    )
                elif draw[0] > 0.965:
                    along = np.array([left[index, 1], -left[index, 0]]) * side
                    poles.append(
                        Pole(
                            'sign', tuple(kerb), float(np.arctan2(along[1], along[0])), 2.4, style
                        )
                    )
                if draw[1] < 0.18:
                    kind = 'bush' if draw[2] < 0.6 else 'tree'
                    height = 1.2 if kind == 'bush' else tree_height * (0.6 + 0.8 * draw[2])
                    poles.append(Pole(kind, tuple(back), 0.0, height, style))
    return poles


def _clutter(network, rng, walkway_width):
    """Bins, bollards, boxes, parasols and the like, by the kerb and by the walls."""
    poles, share = [], float(rng.choice([0.04, 0.12, 0.25]))
    for road in network.roads:
        left = normals(road.centre)
        for side in (-1, 1):
            base = road.street.half_width + road.street.strips[0 if side > 0 else 1]
            for s in np.arange(8.0, len(road.centre) - 8.0, 2.0):
                if rng.random() > share:
                    continue
                index, kind = int(s), str(rng.choice(CLUTTER, p=_CLUTTER_SHARES))
                large = kind in ('container', 'billboard', 'parasol')
                beyond = walkway_width + 1.5 if large else rng.choice([0.7, walkway_width - 0.6])
                place = road.centre[index] + left[index] * side * (base + beyond)
                inward = float(np.arctan2(*(-left[index] * side)[::-1]))
                poles.append(Pole(kind, tuple(place), inward, 2.0, int(rng.integers(1 << 16))))
    return poles


def buildings_and_poles(
    network, rng, carriageway, walkway, walkway_width, crossings, street=False
):
    """Lists of Building and Pole that stand clear of the carriageway (shapely), crossings and
    houses.
    """
    buildings = _buildings(network, rng, carriageway, walkway_width, street)
    tree = STRtree([Polygon(k.footprint).buffer(1.0) for k in buildings])
    prepare(carriageway)
    ends = np.concatenate([k.ends for k in crossings])
    poles = []
    standing = _traffic_lights(network, rng) + _along_roads(network, rng, walkway_width)
    if street:
        standing += _clutter(network, rng, walkway_width)
    for pole in standing:
        point = Point(pole.xy)
        in_the_way = pole.kind != 'traffic_light' and np.hypot(*(ends - pole.xy).T).min() < 3.0
        if not (
            carriageway.distance(point) < 0.3
            or in_the_way
            or len(tree.query(point, predicate='intersects'))
        ):
            poles.append(pole)
    return buildings, poles

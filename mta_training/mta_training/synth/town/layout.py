"""From a street network to a town: carriageway, walkways, markings, parking, buildings, street
furniture.

Everything is made in the network's local frame and mapped into the world at the end of
`build_town`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from shapely import affinity, prepare
from shapely.geometry import LineString, Polygon, box
from shapely.ops import unary_union

from mta_training.synth.scene import Marking, StaticWorld
from mta_training.synth.town.furniture import buildings_and_poles
from mta_training.synth.town.paths import offset, ribbon
from mta_training.synth.town.roads import (
    CORNER_RADIUS_M,
    CROSSING_M,
    STOP_M,
    STRAIGHT_M,
    Network,
    mouth,
)

BAY_LENGTH_M = 6.2  # parallel parking
LOT_BAY_M = (5.3, 2.75)  # perpendicular parking: depth, width


class Bay(NamedTuple):
    """A place for a parked vehicle."""

    centre: np.ndarray  # (2,) [m]
    yaw: float  # heading of a vehicle parked forwards [rad]
    length: float
    width: float
    kind: str  # 'kerb' | 'lot' | 'yard' (for long vehicles)


class Crossing(NamedTuple):
    """A pedestrian crossing over one arm of a junction."""

    ends: np.ndarray  # (2, 2) kerb points in the middle of the crossing [m]
    junction: int
    axis: int  # local axis of the road that is crossed


@dataclass(frozen=True)
class Town:
    """The standing world and where things may be put in it; all in world coordinates."""

    network: Network
    static: StaticWorld
    lanes: list  # (n, 2) centre line of every network lane
    bays: list  # Bay
    crossings: list  # Crossing
    walkway_width: float
    carriageway: object  # shapely: where vehicles drive, lots included
    walkway: object  # shapely
    solids: object  # shapely: building footprints
    streets: object  # shapely: the carriageway without lots and driveways
    lots: object  # shapely: car parks and yards beside the streets


class _Draft:
    """Local-frame polygons and markings while the town is being drawn."""

    def __init__(self):
        self.drivable, self.crossing_areas, self.stop_lines, self.carparks = [], [], [], []
        self.junction_areas, self.markings, self.bays, self.crossings = [], [], [], []


def without_holes(geometry):
    """The polygons (no holes, nothing under half a square metre) that make up a shapely area."""
    pieces = []
    todo = list(geometry.geoms) if hasattr(geometry, 'geoms') else [geometry]
    while todo:
        polygon = todo.pop()
        if not isinstance(polygon, Polygon) or polygon.area < 0.5:
            continue
        if not polygon.interiors:
            pieces.append(polygon)
            continue
        x = polygon.interiors[0].centroid.x
        x_min, y_min, x_max, y_max = polygon.bounds
        for half in (
            box(x_min - 1, y_min - 1, x, y_max + 1),
            box(x, y_min - 1, x_max + 1, y_max + 1),
        ):
            part = polygon.intersection(half)
            todo.extend(part.geoms if hasattr(part, 'geoms') else [part])
    return pieces


def _draw_junction(draft, junction):
    # of x street, y street
    across_x, across_y = (street.half_width for street in junction.streets)
    cx, cy = junction.centre
    parts = [box(cx - across_y, cy - across_x, cx + across_y, cy + across_x)]
    for step in junction.arms:
        tip = mouth(junction, step)
        width = across_x if step[0] else across_y
        side = np.array([0.0, width]) if step[0] else np.array([width, 0.0])
        low, high = (
            np.minimum(junction.centre, tip) - side,
            np.maximum(junction.centre, tip) + side,
        )
        parts.append(box(*low, *high))
    area = unary_union(parts).buffer(CORNER_RADIUS_M).buffer(-CORNER_RADIUS_M).simplify(0.02)
    draft.drivable.append(area)
    draft.junction_areas.append(area)


def _stretch(points, start, end):
    """The part of a polyline with 1 m spacing between two arc lengths."""
    return points[int(round(start)) : int(round(end)) + 1]


def _draw_road(draft, road, junction_at):
    """Carriageway, lines, crossings, stop lines and parking strips of one road."""
    street, half, length = road.street, road.street.half_width, len(road.centre) - 1
    draft.drivable.append(Polygon(ribbon(road.centre, half, -half)))
    first = STOP_M if road.ends[0] is not None else 0.0
    last = length - (STOP_M if road.ends[1] is not None else 0.0)
    middle = _stretch(road.centre, first, last)
    colour = 'yellow' if street.yellow_centre else 'white'
    if street.lanes > 1 or street.yellow_centre:
        for side in (-0.13, 0.13):
            draft.markings.append(Marking(offset(middle, side), 0.11, colour, (0.0, 0.0)))
    else:
        draft.markings.append(Marking(middle, 0.14, colour, (3.0, 4.5)))
    for k in range(1, street.lanes):
        for side in (-1, 1):
            draft.markings.append(
                Marking(offset(middle, side * k * street.lane_width), 0.13, 'white', (3.0, 6.0))
            )
    for k, side in ((0, 1), (1, -1)):
        draft.markings.append(
            Marking(offset(middle, side * (half - 0.2)), 0.12, 'white', (0.0, 0.0))
        )
        if street.strips[k] and length > 2 * STRAIGHT_M + 20:
            _draw_strip(draft, road, side, street.strips[k])
    for end, forward in ((0, False), (1, True)):
        if road.ends[end] is not None:
            points = road.centre if forward else road.centre[::-1]
            _draw_mouth(draft, road, points, junction_at[end])


def _draw_strip(draft, road, side, width):
    """Parking along the kerb on one side (+1 left, -1 right of the road's direction)."""
    half, length = road.street.half_width, len(road.centre) - 1
    part = _stretch(road.centre, STRAIGHT_M - 2, length - STRAIGHT_M + 2)
    taper = np.clip(np.minimum(np.arange(len(part)), np.arange(len(part))[::-1]) / 3.0, 0.0, 1.0)
    edges = side * half, side * (half + width * taper)
    polygon = np.concatenate([offset(part, edges[0]), offset(part, edges[1])[::-1]])
    draft.drivable.append(Polygon(polygon).buffer(0))
    inner = part[3:-3]
    area = np.concatenate([offset(inner, edges[0]), offset(inner, side * (half + width))[::-1]])
    draft.carparks.append(Polygon(area).buffer(0))
    near, middle = offset(inner, edges[0]), offset(inner, side * (half + width / 2))
    far = offset(inner, side * (half + width))
    count = int((len(inner) - 1) / BAY_LENGTH_M)
    for k in range(count + 1):
        at = int(k * BAY_LENGTH_M)
        draft.markings.append(Marking(np.stack([near[at], far[at]]), 0.1, 'white', (0.0, 0.0)))
        centre = at + int(BAY_LENGTH_M / 2)
        if k < count and centre + 1 < len(middle):
            along = (middle[centre + 1] - middle[centre - 1]) * -side
            draft.bays.append(
                Bay(
                    middle[centre],
                    float(np.arctan2(along[1], along[0])),
                    BAY_LENGTH_M,
                    width,
                    'kerb',
                )
            )


def _draw_mouth(draft, road, towards, junction):
    """Crossing, stop line and arrows where the road (points run towards the junction) meets it."""
    half, lane_width = road.street.half_width, road.street.lane_width
    end = towards[-1]
    along = (towards[-1] - towards[-4]) / np.hypot(*(towards[-1] - towards[-4]))
    left = np.array([-along[1], along[0]])

    def rectangle(back, front, right, left_edge):
        return np.array(
            [
                end - along * back + left * right,
                end - along * front + left * right,
                end - along * front + left * left_edge,
                end - along * back + left * left_edge,
            ]
        )

    draft.crossing_areas.append(Polygon(rectangle(CROSSING_M[1], CROSSING_M[0], -half, half)))
    middle = end - along * sum(CROSSING_M) / 2
    draft.crossings.append(
        Crossing(np.stack([middle - left * half, middle + left * half]), junction, road.axis)
    )
    stripes = int(2 * half / 1.0)
    for k in range(stripes):
        right = -half + (k + 0.25) * 2 * half / stripes
        draft.markings.append(
            Marking(
                rectangle(CROSSING_M[1] - 0.2, CROSSING_M[0] + 0.2, right, right + 0.5),
                0.0,
                'white',
                (0, 0),
            )
        )
    draft.markings.append(
        Marking(rectangle(STOP_M, STOP_M - 0.4, -half + 0.15, -0.1), 0.0, 'white', (0, 0))
    )
    draft.stop_lines.append(Polygon(rectangle(STOP_M + 4.0, STOP_M - 0.4, -half, 0.0)))
    for k in range(road.street.lanes):
        tip = end - along * 14.0 - left * (k + 0.5) * lane_width
        arrow = np.array(
            [
                [0, 0],
                [-1.4, 0.45],
                [-1.4, 0.1],
                [-4.0, 0.1],
                [-4.0, -0.1],
                [-1.4, -0.1],
                [-1.4, -0.45],
            ]
        )
        draft.markings.append(
            Marking(tip + arrow[:, :1] * along + arrow[:, 1:] * left, 0.0, 'white', (0, 0))
        )


def _draw_lots(draft, rng, network, carriageway, walkway_width):
    """Car parks and goods yards beside a few roads: (area, driveway) polygons."""
    lots = []
    blocked = carriageway.buffer(walkway_width + 0.3)
    for road in network.roads:
        if rng.random() > 0.5:
            continue
        side = 1 if rng.random() < 0.5 else -1
        length, depth = float(rng.uniform(24.0, 38.0)), float(rng.uniform(16.0, 21.0))
        at = int(rng.uniform(0.35, 0.65) * len(road.centre))
        along = road.centre[at + 1] - road.centre[at]
        along /= np.hypot(*along)
        out = np.array([-along[1], along[0]]) * side
        reach = road.street.half_width + max(road.street.strips) + walkway_width + 0.8
        base = road.centre[at] + out * reach
        area = Polygon(
            [
                base - along * length / 2,
                base + along * length / 2,
                base + along * length / 2 + out * depth,
                base - along * length / 2 + out * depth,
            ]
        )
        if area.intersects(blocked) or any(
            area.intersects(other.buffer(3.0)) for other, _ in lots
        ):
            continue
        driveway = Polygon(
            [
                base - along * 3 - out * (reach - 1),
                base + along * 3 - out * (reach - 1),
                base + along * 3 + out,
                base - along * 3 + out,
            ]
        )
        lots.append((area, driveway))
        _draw_lot_bays(draft, base, along, out, length, depth, yard=rng.random() < 0.5)
    return lots


def _draw_lot_bays(draft, base, along, out, length, depth, yard):
    bay_depth, bay_width = (depth - 7.0, 4.2) if yard else LOT_BAY_M
    facing = float(np.arctan2(-out[1], -out[0]))
    count = int((length - 1.0) / bay_width)
    for k in range(count + 1):
        x = base + along * (k * bay_width - count * bay_width / 2)
        ends = np.stack([x + out * (depth - 0.3), x + out * (depth - 0.3 - bay_depth)])
        draft.markings.append(Marking(ends, 0.1, 'white', (0.0, 0.0)))
        if k < count:
            centre = x + along * bay_width / 2 + out * (depth - 0.3 - bay_depth / 2)
            draft.bays.append(Bay(centre, facing, bay_depth, bay_width, 'yard' if yard else 'lot'))


def build_town(network, rng, centre_path, street=False):
    """The town around a network.

    network      `roads.Network`, already moved into the world
    centre_path  (n, 2) world points; what lies over 120 m from them is left out
    street       clutter on the walkways, lower and longer houses among the others
    """
    draft = _Draft()
    for junction in network.junctions:
        _draw_junction(draft, junction)
    for road in network.roads:
        _draw_road(draft, road, road.ends)
    carriageway = unary_union([area.buffer(0.01) for area in draft.drivable])
    walkway_width = float(rng.uniform(2.8, 4.5))
    lots = _draw_lots(draft, rng, network, carriageway, walkway_width)
    driveways = unary_union([driveway for _, driveway in lots])
    walkway = carriageway.buffer(walkway_width).difference(carriageway).difference(driveways)
    for area, driveway in lots:
        draft.drivable.extend([area, driveway])
        draft.carparks.append(area)
    whole = unary_union([carriageway, *(area for area, _ in lots), driveways])
    buildings, poles = buildings_and_poles(
        network, rng, whole, walkway, walkway_width, draft.crossings, street
    )
    return _in_world(
        network,
        draft,
        lots,
        walkway,
        walkway_width,
        carriageway,
        whole,
        buildings,
        poles,
        centre_path,
    )


def _in_world(
    network,
    draft,
    lots,
    walkway,
    walkway_width,
    streets,
    carriageway,
    buildings,
    poles,
    centre_path,
):
    keep = LineString(centre_path).buffer(120.0)
    prepare(keep)
    x_min, y_min, x_max, y_max = keep.bounds
    window = box(x_min, y_min, x_max, y_max)
    (a, b), (c, d) = network.linear
    heading = np.arctan2(c, a)

    def moved(geometry):
        return affinity.affine_transform(geometry, [a, b, c, d, *network.origin])

    def areas(polygons):
        near = [moved(polygon) for polygon in polygons]
        near = [polygon.intersection(window) for polygon in near if keep.intersects(polygon)]
        flat = [piece for polygon in near for piece in without_holes(polygon)]
        return [
            np.array(p.exterior.coords)[:-1]
            if p.exterior.is_ccw
            else np.array(p.exterior.coords)[-2::-1]
            for p in flat
        ]

    def yaw(local):
        return float(heading + (-local if network.mirrored else local))

    def polygon_in_world(points):
        world = network.to_world(points)
        return world[::-1] if network.mirrored else world

    markings = [m._replace(points=polygon_in_world(m.points)) for m in draft.markings]
    buildings = [k._replace(footprint=polygon_in_world(k.footprint)) for k in buildings]
    poles = [p._replace(xy=tuple(network.to_world(p.xy).tolist()), yaw=yaw(p.yaw)) for p in poles]
    static = StaticWorld(
        extent=(x_min, y_min, x_max, y_max),
        drivable_area=areas(draft.drivable),
        walkway=areas([walkway]),
        ped_crossing=areas(draft.crossing_areas),
        carpark_area=areas(draft.carparks),
        stop_line=areas(draft.stop_lines),
        intersection=areas(draft.junction_areas),
        markings=[m for m in markings if keep.intersects(LineString(m.points))],
        buildings=[k for k in buildings if keep.intersects(Polygon(k.footprint))],
        poles=[p for p in poles if keep.intersects(LineString([p.xy, np.add(p.xy, 0.1)]))],
    )
    return Town(
        network=network,
        static=static,
        lanes=[network.to_world(lane.points) for lane in network.lanes],
        bays=[k._replace(centre=network.to_world(k.centre), yaw=yaw(k.yaw)) for k in draft.bays],
        crossings=[k._replace(ends=network.to_world(k.ends)) for k in draft.crossings],
        walkway_width=walkway_width,
        carriageway=moved(carriageway),
        walkway=moved(walkway),
        solids=unary_union([Polygon(k.footprint) for k in buildings]),
        streets=moved(streets),
        lots=moved(unary_union([area for area, _ in lots])),
    )

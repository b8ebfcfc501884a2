"""A street network: a warped 3x3 grid of streets, its lanes, and the turns that join them.

Built in a local frame in which every street meets its junctions at right angles (streets bend
between the junctions); `Network.moved` turns it and, for left-hand traffic, mirrors it.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mta_training.synth.town.paths import bezier, offset, resample

GRID = 3
CORNER_RADIUS_M = 6.0
STRAIGHT_M = 16.0  # of a road before a junction: room for the crossing and the queue
STUB_M = 150.0  # roads that lead out of the grid
CROSSING_M = (1.0, 4.5)  # from the junction's mouth: where the pedestrian crossing lies
STOP_M = 5.8  # from the junction's mouth: where the stop line lies


class Street(NamedTuple):
    """Cross-section of a street, the same along its whole length."""

    lanes: int  # per direction
    lane_width: float  # [m]
    # widths of the parking strip on the left and right of increasing x or y [m], 0 = none
    strips: tuple
    yellow_centre: bool

    @property
    def half_width(self):
        return self.lanes * self.lane_width


class Road(NamedTuple):
    """The stretch of a street between two junctions, or out of the grid."""

    street: Street
    axis: int  # 0 = along local x, 1 = along local y
    ends: tuple  # junction index at the start and at the end, None = leads out
    centre: np.ndarray  # (n, 2), from mouth to mouth [m]


class Lane(NamedTuple):
    """One lane of one road in its direction of travel."""

    points: np.ndarray  # (n, 2) centre line [m]
    road: int
    axis: int
    index: int  # 0 = innermost
    outermost: bool
    start: object  # junction it comes from, None at the rim
    end: object  # junction it runs into, None at the rim
    heading: tuple  # travel direction at the start and end, local grid steps, e.g. (1, 0)


class Turn(NamedTuple):
    """A way through a junction."""

    source: int  # lane
    target: int  # lane
    kind: str  # 'straight' | 'left' | 'right', as driven in right-hand traffic
    points: np.ndarray  # (n, 2)


class Junction(NamedTuple):
    """Where two streets cross."""

    centre: np.ndarray  # (2,)
    streets: tuple  # Street along x, Street along y
    arms: tuple  # directions of the roads that meet here, e.g. ((1, 0), (0, -1), (-1, 0))
    signal: tuple  # green [s], offset [s] of the two-phase traffic light


@dataclass(frozen=True)
class Network:
    """Streets, lanes and turns; `linear` (2, 2) and `origin` (2,) map the local frame into the
    world.
    """

    junctions: list
    roads: list
    lanes: list
    turns: list
    linear: np.ndarray
    origin: np.ndarray
    mirrored: bool

    def to_world(self, points):
        """Local (..., 2) points in the world."""
        return np.asarray(points, dtype=np.float64) @ self.linear.T + self.origin

    def moved(self, angle, mirrored, origin=(0.0, 0.0)):
        """The same network turned by `angle`, with its middle at `origin` and, if `mirrored`, with
        traffic on the left."""
        c, s = np.cos(angle), np.sin(angle)
        linear = np.array([[c, -s], [s, c]]) @ np.diag([1.0, -1.0 if mirrored else 1.0])
        return replace(
            self, linear=linear, origin=np.asarray(origin, dtype=float), mirrored=mirrored
        )

    def turns_from(self, lane):
        """Turns that start at the end of a lane (index)."""
        return [turn for turn in self.turns if turn.source == lane]


AMBER_S, ALL_RED_S = 2.5, 1.5


def light(junction, axis, time):
    """'green', 'amber' or 'red' for traffic along local axis 0 or 1 at a time [s]."""
    green, shift = junction.signal
    half = green + AMBER_S + ALL_RED_S
    phase = (time + shift - axis * half) % (2 * half)
    return 'green' if phase < green else 'amber' if phase < green + AMBER_S else 'red'


def random_street(rng):
    """A cross-section as towns have them."""
    lanes = int(rng.choice([1, 2], p=[0.55, 0.45]))
    strips = tuple(float(rng.uniform(2.2, 2.6)) if rng.random() < 0.75 else 0.0 for _ in range(2))
    return Street(lanes, float(rng.uniform(3.3, 3.8)), strips, bool(rng.random() < 0.5))


def _junctions(rng, streets_x, streets_y):
    """3x3 junctions on a jittered grid; about a quarter of the outward arms is missing."""
    spacing = [np.r_[0.0, np.cumsum(rng.uniform(95.0, 135.0, GRID - 1))] for _ in range(2)]
    centres, arms = {}, {}
    for i in range(GRID):
        for j in range(GRID):
            centres[i, j] = np.array([spacing[0][i], spacing[1][j]]) + rng.uniform(-9.0, 9.0, 2)
            arms[i, j] = []
            for step in ((1, 0), (0, 1), (-1, 0), (0, -1)):
                inside = 0 <= i + step[0] < GRID and 0 <= j + step[1] < GRID
                if inside or rng.random() > 0.25:
                    arms[i, j].append(step)
    middle = np.mean(list(centres.values()), axis=0)
    return {
        key: Junction(
            centres[key] - middle,
            (streets_x[key[1]], streets_y[key[0]]),
            tuple(arms[key]),
            (float(rng.uniform(6.0, 9.5)), float(rng.uniform(0.0, 30.0))),
        )
        for key in centres
    }


def mouth(junction, step):
    """Local point on the axis of arm `step` where the junction ends and the road begins."""
    crossing = junction.streets[1 if step[0] else 0]
    return junction.centre + np.array(step) * (crossing.half_width + CORNER_RADIUS_M)


def _bend(start, end, axis):
    """Centre line (n, 2) from start to end: straight, smoothly sideways, straight."""
    along = np.linspace(0.0, 1.0, 200)
    length = abs(end[axis] - start[axis])
    inner = np.clip((along * length - STRAIGHT_M) / max(length - 2 * STRAIGHT_M, 1.0), 0.0, 1.0)
    side = inner**3 * (10 - 15 * inner + 6 * inner**2)
    points = np.empty((200, 2))
    points[:, axis] = start[axis] + along * (end[axis] - start[axis])
    points[:, 1 - axis] = start[1 - axis] + side * (end[1 - axis] - start[1 - axis])
    return resample(points, 1.0)


def _roads(rng, junctions, names):
    """Roads in the direction of growing x or y, each with the junctions at its ends."""
    roads = []
    for (i, j), junction in junctions.items():
        for step in junction.arms:
            axis = 0 if step[0] else 1
            street = junction.streets[axis]
            there = (i + step[0], j + step[1])
            if there in junctions:
                if sum(step) > 0:
                    other = junctions[there]
                    end = mouth(other, (-step[0], -step[1]))
                    roads.append(
                        Road(
                            street,
                            axis,
                            (names[i, j], names[there]),
                            _bend(mouth(junction, step), end, axis),
                        )
                    )
                continue
            start = mouth(junction, step)
            far = start + np.array(step) * STUB_M
            far[1 - axis] += rng.uniform(-25.0, 25.0)
            centre, ends = _bend(start, far, axis), (names[i, j], None)
            if sum(step) < 0:
                centre, ends = centre[::-1], (None, names[i, j])
            roads.append(Road(street, axis, ends, centre))
    return roads


def _lanes(roads):
    """Two directions of lanes on every road, right-hand traffic in the local frame."""
    lanes = []
    for number, road in enumerate(roads):
        step = (1, 0) if road.axis == 0 else (0, 1)
        for k in range(road.street.lanes):
            outermost = k == road.street.lanes - 1
            across = (k + 0.5) * road.street.lane_width
            lanes.append(
                Lane(
                    resample(offset(road.centre, -across)),
                    number,
                    road.axis,
                    k,
                    outermost,
                    road.ends[0],
                    road.ends[1],
                    step,
                )
            )
            lanes.append(
                Lane(
                    resample(offset(road.centre, across)[::-1]),
                    number,
                    road.axis,
                    k,
                    outermost,
                    road.ends[1],
                    road.ends[0],
                    (-step[0], -step[1]),
                )
            )
    return lanes


def _turns(lanes):
    """Straight on from every lane, right from the outermost, left from the innermost."""
    turns = []
    for source, lane in enumerate(lanes):
        for target, other in enumerate(lanes):
            if lane.end is None or other.start != lane.end or other.road == lane.road:
                continue
            cross = lane.heading[0] * other.heading[1] - lane.heading[1] * other.heading[0]
            kind = {0: 'straight', 1: 'left', -1: 'right'}[cross]
            allowed = {
                'straight': lane.index == other.index,
                'left': lane.index == 0 and other.index == 0,
                'right': lane.outermost and other.outermost,
            }[kind]
            if allowed:
                turns.append(
                    Turn(
                        source,
                        target,
                        kind,
                        bezier(
                            lane.points[-1],
                            np.array(lane.heading, dtype=float),
                            other.points[0],
                            np.array(other.heading, dtype=float),
                        ),
                    )
                )
    return turns


def build_network(rng):
    """A random network (local frame, right-hand traffic)."""
    streets_x = [random_street(rng) for _ in range(GRID)]
    streets_y = [random_street(rng) for _ in range(GRID)]
    by_name = _junctions(rng, streets_x, streets_y)
    names = {key: number for number, key in enumerate(by_name)}
    roads = _roads(rng, by_name, names)
    lanes = _lanes(roads)
    return Network(
        list(by_name.values()), roads, lanes, _turns(lanes), np.eye(2), np.zeros(2), False
    )

"""People: along the walkways, over the crossings, standing about."""

import numpy as np
from shapely import contains_xy

from mta_training.synth.actors.catalogue import draw
from mta_training.synth.actors.traffic import Agent, Motion
from mta_training.synth.town.paths import Path, resample
from mta_training.synth.town.roads import light

STEP_S = 0.1


def kerb_rings(town, distance):
    """Closed lines (n, 2), half a metre a point, `distance` metres outside the kerb."""
    area = town.streets.buffer(distance)
    polygons = area.geoms if hasattr(area, 'geoms') else [area]
    return [
        resample(np.array(ring.coords))
        for polygon in polygons
        for ring in (polygon.exterior, *polygon.interiors)
        if ring.length > 40.0
    ]


class Kerbs:
    """The kerb lines near the ego's way, and spots on them that are far enough from crossings."""

    def __init__(self, town, ego_points):
        self.town, self.ego_points = town, ego_points
        self._rings = kerb_rings(town, 0.0)
        ends = np.concatenate([crossing.ends for crossing in town.crossings])
        self._where = np.array(
            [(k, i) for k, ring in enumerate(self._rings) for i in range(len(ring))]
        )
        points = np.concatenate(self._rings)
        self._to_crossing = _nearest(points, ends)
        self._to_ego = _nearest(points, ego_points)

    def spot(self, rng, reach, straight_m=3.0):
        """(point on the kerb, unit vector along it, unit vector away from the road), within
        `reach` of the ego's way and with `straight_m` metres of straight kerb on either side; None
        if there is none."""
        candidates = np.flatnonzero(
            (self._to_ego < reach) & (self._to_crossing > 2.0 + straight_m)
        )
        span = int(straight_m / 0.5)
        for choice in rng.permutation(candidates):
            k, i = self._where[choice]
            ring = self._rings[k]
            if not span < i < len(ring) - span - 1:
                continue
            along = ring[i + span] - ring[i - span]
            if np.hypot(*along) < 1.98 * straight_m:
                continue
            along /= np.hypot(*along)
            left = np.array([-along[1], along[0]])
            inside = contains_xy(self.town.streets, *(ring[i] + left * 0.5))
            return ring[i], along, -left if inside else left
        return None


def _nearest(points, others):
    """(n,) distance of each of points (n, 2) to the nearest of others (m, 2)."""
    return np.concatenate(
        [
            np.hypot(*(part[:, None] - others).transpose(2, 0, 1)).min(axis=1)
            for part in np.array_split(points, max(1, len(points) // 500))
        ]
    )


def _walk(path, start, speeds, seconds):
    """Motion along a path with the given target speed at each tick, changing gently."""
    times = np.arange(-1.0, seconds + 1.0 + STEP_S, STEP_S)
    s, v = np.zeros(len(times)), np.zeros(len(times))
    s[0], v[0] = start, speeds(start, times[0], 0.0)
    for k in range(1, len(times)):
        target = speeds(s[k - 1], times[k - 1], v[k - 1])
        v[k] = v[k - 1] + np.clip(target - v[k - 1], -0.15, 0.15)
        s[k] = s[k - 1] + (v[k] + v[k - 1]) / 2 * STEP_S
    return Motion(path, times, s, v, np.gradient(v, STEP_S), 0.0, 0.5)


def _stretch(ring, index, direction, length):
    """`length` metres of a closed ring from a point on, in the given direction (+1 or -1)."""
    steps = (index + direction * np.arange(int(length / 0.5) + 1)) % (len(ring) - 1)
    return ring[steps]


def _stroller(town, rng, rings, ego_points, seconds):
    """A path along the walkway and a speed."""
    ring = rings[int(rng.integers(len(rings)))]
    near = np.flatnonzero(_nearest(ring[::4], ego_points) < 30.0) * 4
    if not len(near):
        return None
    speed = float(rng.uniform(0.9, 1.7))
    direction = 1 if rng.random() < 0.5 else -1
    points = _stretch(ring, int(rng.choice(near)), direction, speed * (seconds + 4.0) + 4.0)
    return Path.through(points), speed


def _crosser(town, rng, crossing, rings, seconds):
    """Agent motion over a crossing when the cross traffic has red, or None where that does not
    happen.
    """
    ends = crossing.ends if rng.random() < 0.5 else crossing.ends[::-1]
    over = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
    aside = np.array([-over[1], over[0]]) * rng.uniform(-1.0, 1.0)
    junction = town.network.junctions[crossing.junction]
    onsets = [
        t
        for t in np.arange(0.5, seconds - 4.0, 0.5)
        if light(junction, 1 - crossing.axis, t) == 'green'
        and light(junction, 1 - crossing.axis, t - 0.5) != 'green'
    ]
    if not onsets:
        return None
    ring = rings[int(rng.integers(len(rings)))]
    before, after = (
        np.hypot(*(ring - e).T).argmin() for e in (ends[0] - over * 2, ends[1] + over * 2)
    )
    if np.hypot(*(ring[before] - ends[0])) > 4.0:
        return None
    other = min(rings, key=lambda r: np.hypot(*(r - ends[1] - over * 2).T).min())
    after = int(np.hypot(*(other - ends[1] - over * 2).T).argmin())
    speed, onset = float(rng.uniform(1.1, 1.8)), float(onsets[0] + rng.uniform(0.2, 1.5))
    way = 1 if rng.random() < 0.5 else -1
    lead = _stretch(ring, int(before), way, speed * (onset + 3.0) + 6.0)[::-1]
    tail = _stretch(other, after, 1 if rng.random() < 0.5 else -1, speed * seconds + 6.0)
    lead, tail = lead[:-4], tail[4:]
    path = Path.through(
        np.concatenate([lead, [ends[0] - over * 0.6 + aside, ends[1] + over * 0.6 + aside], tail])
    )
    kerb = float(
        np.hypot(*np.diff(np.concatenate([lead, [ends[0] - over * 0.6 + aside]]), axis=0).T).sum()
    )

    def speeds(s, time, v):
        if time < onset and s > kerb - 0.3:
            return 0.0
        return speed

    start = max(0.0, kerb - speed * (onset + 1.0) * float(rng.uniform(0.3, 1.0)))
    return _walk(path, start, speeds, seconds)


def people_on_road(motions, time):
    """(n, 2) where people on crossings are now and will be shortly."""
    if not motions:
        return np.zeros((0, 2))
    spots = []
    for motion in motions:
        _, speed, _ = motion.along(max(time, -1.0))
        if speed > 0.3:
            spots.append(motion.pose(np.clip(time + np.array([0.0, 0.7, 1.4]), -1.0, None))[0])
    return np.concatenate(spots) if spots else np.zeros((0, 2))


def people(crowd, rng, kerbs, seconds):
    """Walking agents; those who stand are placed in the crowd right away."""
    town, walkers = crowd.town, []
    rings = [
        ring
        for distance in np.arange(1.2, town.walkway_width - 0.4, 0.7)
        for ring in kerb_rings(town, float(distance))
    ]
    middle = kerb_rings(town, min(2.0, town.walkway_width / 2))
    busy = rng.uniform(0.4, 1.6)
    for _ in range(int(rng.poisson(22 * busy))):
        stroll = _stroller(town, rng, rings, crowd.ego_points, seconds)
        if stroll is not None:
            path, speed = stroll
            kind = 'adult' if rng.random() < 0.93 else 'child'
            motion = _walk(path, 2.0, lambda s, time, v, speed=speed: speed, seconds)
            walkers.append(Agent(draw(rng, kind), None, motion, False, 'walking', -1))
    near = [c for c in town.crossings if crowd.near(c.ends.mean(axis=0), 30.0)]
    for crossing in near:
        for _ in range(int(rng.poisson(0.9 * busy))):
            motion = _crosser(town, rng, crossing, middle, seconds)
            if motion is not None:
                walkers.append(Agent(draw(rng, 'adult'), None, motion, False, 'crossing', -1))
    _standing(crowd, rng, kerbs, int(rng.poisson(8 * busy)))
    return walkers


def _standing(crowd, rng, kerbs, count):
    for _ in range(count):
        spot = kerbs.spot(rng, 30.0)
        if spot is None:
            continue
        point, along, out = spot
        kind = str(rng.choice(['adult', 'child', 'police_officer'], p=[0.82, 0.08, 0.10]))
        away = rng.uniform(0.9, crowd.town.walkway_width - 0.4)
        crowd.place(draw(rng, kind), *(point + out * away), rng.uniform(-np.pi, np.pi), 'standing')

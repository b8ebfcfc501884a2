"""How vehicles move along their routes: car following, bends, traffic lights, giving way.

All vehicles are stepped together (intelligent driver model, Treiber 2000); what may be on the way
is a set of discs: the other vehicles and people on crossings.
"""

from typing import NamedTuple

import numpy as np

from mta_training.synth.town.paths import Path
from mta_training.synth.town.roads import STOP_M, light

STEP_S = 0.1
ACCELERATION, BRAKING = 1.6, 2.2  # comfortable [m/s^2]
HARDEST_BRAKING = 6.0
SIDE_ACCELERATION = 2.0  # in bends [m/s^2]
HEADWAY_S, STANDSTILL_M = 1.3, 1.2
LOOK_AHEAD_M, LOOK_STEP_M = 48.0, 1.0
SIDE_MARGIN_M = 0.3
YIELD_TIMES_S = (0.0, 0.8, 1.6, 2.4, 3.2, 4.0)


class Route(NamedTuple):
    """A way through the network."""

    path: Path
    stops: tuple  # (arc length of the stop line, junction, axis) of each light on the way
    lefts: tuple  # (start, end) arc lengths of turns that cross oncoming traffic
    kinds: tuple  # what is done at each junction: 'straight', 'left', 'right'


class Driver(NamedTuple):
    """A vehicle to be driven; arc lengths refer to the middle of the (towing) vehicle."""

    route: Route
    start: float  # arc length at the first instant [m]
    speed: float  # then [m/s]
    desired: float  # on a free straight road [m/s]
    length: float  # of the towing vehicle [m]
    width: float
    tail: float  # length of what is towed, 0 for none [m]


class Drive(NamedTuple):
    """What a driver did; one value a step."""

    times: np.ndarray
    s: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray


def plan_route(network, rng, lane, length, wanted=()):
    """A random route of at least `length` metres (less where it leaves the town) from the start of
    network lane `lane`; `wanted` names the turns to take first, where they exist."""
    pieces, stops, lefts, kinds = [], [], [], []
    total, wanted = 0.0, list(wanted)
    while True:
        points = network.to_world(network.lanes[lane].points)
        pieces.append(points)
        total += float(np.hypot(*np.diff(points, axis=0).T).sum())
        turns = network.turns_from(lane)
        if not turns or total > length:
            break
        choice = [turn for turn in turns if wanted and turn.kind == wanted[0]]
        if not choice:
            weights = np.array([3.0 if turn.kind == 'straight' else 1.0 for turn in turns])
            choice = [turns[int(rng.choice(len(turns), p=weights / weights.sum()))]]
        turn, wanted = choice[0], wanted[1:]
        here = network.lanes[lane]
        stops.append((total - STOP_M, here.end, here.axis))
        points = network.to_world(turn.points)
        bend = float(np.hypot(*np.diff(points, axis=0).T).sum())
        if turn.kind == 'left':
            lefts.append((total, total + bend))
        kinds.append(turn.kind)
        pieces.append(points)
        total += bend
        lane = turn.target
    return Route(Path.through(np.concatenate(pieces)), tuple(stops), tuple(lefts), tuple(kinds))


def _speed_caps(driver, count):
    """(count,) highest speed at each path point, so that bends are met slowly enough."""
    path = driver.route.path
    cap = np.minimum(
        driver.desired, np.sqrt(SIDE_ACCELERATION / np.maximum(np.abs(path.curvature()), 1e-4))
    )
    for k in range(len(cap) - 2, -1, -1):
        cap[k] = min(cap[k], np.sqrt(cap[k + 1] ** 2 + 2 * 1.5 * path.step))
    return np.pad(cap, (0, count - len(cap)), mode='edge')


class _Fleet:
    """All drivers as arrays."""

    def __init__(self, drivers):
        self.count = max(len(d.route.path.points) for d in drivers)
        self.points = np.stack(
            [
                np.pad(
                    d.route.path.points,
                    ((0, self.count - len(d.route.path.points)), (0, 0)),
                    mode='edge',
                )
                for d in drivers
            ]
        )
        self.step = np.array([d.route.path.step for d in drivers])
        self.caps = np.stack([_speed_caps(d, self.count) for d in drivers])
        self.ends = np.array([d.route.path.length for d in drivers])
        self.length = np.array([d.length for d in drivers])
        self.width = np.array([d.width for d in drivers])
        disc_s, disc_owner = [], []
        for k, d in enumerate(drivers):
            whole = d.length + d.tail
            count = max(2, int(np.ceil(whole / d.width)))
            disc_s.extend(d.length / 2 - (np.arange(count) + 0.5) * whole / count)
            disc_owner.extend([k] * count)
        self.disc_s, self.disc_owner = np.array(disc_s), np.array(disc_owner)
        self.disc_radius = self.width[self.disc_owner] / 2
        self.rows = np.arange(len(drivers))

    def at(self, rows, s):
        """Points (..., 2) on the paths of `rows` at arc lengths s."""
        position = np.clip(s / self.step[rows], 0, self.count - 1.001)
        index = position.astype(int)
        fraction = (position - index)[..., None]
        return self.points[rows, index] * (1 - fraction) + self.points[rows, index + 1] * fraction

    def cap(self, s):
        return self.caps[self.rows, np.clip((s / self.step).astype(int), 0, self.count - 1)]


def _leaders(fleet, s, speed, people):
    """Free distance ahead (V,) [m] and the speed (V,) of what limits it."""
    ahead = np.arange(0.0, LOOK_AHEAD_M, LOOK_STEP_M)
    # (V, A, 2)
    window = fleet.at(fleet.rows[:, None], (s + fleet.length / 2)[:, None] + ahead)
    discs = fleet.at(fleet.disc_owner, s[fleet.disc_owner] + fleet.disc_s)
    onward = fleet.at(fleet.disc_owner, s[fleet.disc_owner] + fleet.disc_s + 0.5)
    velocity = (onward - discs) * 2 * speed[fleet.disc_owner, None]
    owner, radius = fleet.disc_owner, fleet.disc_radius
    if len(people):
        discs, velocity = np.concatenate([discs, people]), np.concatenate([velocity, 0 * people])
        owner, radius = (
            np.r_[owner, np.full(len(people), -1)],
            np.r_[radius, np.full(len(people), 0.6)],
        )
    middle = window[:, len(ahead) // 2]
    close = ((middle[:, None] - discs) ** 2).sum(-1) < (LOOK_AHEAD_M / 2 + 4.0) ** 2
    # (P,) pairs
    vehicle, disc = np.nonzero(close & (owner != fleet.rows[:, None]))
    reach = (fleet.width[vehicle] / 2 + radius[disc] + SIDE_MARGIN_M) ** 2
    # (P, A)
    hit = ((window[vehicle] - discs[disc, None]) ** 2).sum(-1) < reach[:, None]
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), len(ahead))
    gap, lead = np.full(len(s), np.inf), np.zeros(len(s))
    nearest = np.full(len(s), len(ahead))
    np.minimum.at(nearest, vehicle, first)
    for k in np.flatnonzero(nearest < len(ahead)):
        index = int(nearest[k])
        culprits = disc[(vehicle == k) & (first == index)]
        along = window[k, min(index + 1, len(ahead) - 1)] - window[k, max(index - 1, 0)]
        along /= max(np.hypot(*along), 1e-6)
        gap[k], lead[k] = ahead[index], max(0.0, float((velocity[culprits] @ along).min()))
    return gap, lead


def _must_yield(fleet, drivers, s, speed):
    """Arc length (V,) at which those about to turn across oncoming traffic wait; inf = go."""
    wait = np.full(len(s), np.inf)
    for k, driver in enumerate(drivers):
        for start, end in driver.route.lefts:
            to_go = start - (s[k] + driver.length / 2)
            if not -1.0 < to_go < 30.0:
                continue
            others = np.flatnonzero((fleet.rows != k) & (speed > 1.0))
            future = s[others, None] + speed[others, None] * np.array(YIELD_TIMES_S)
            where = fleet.at(others[:, None], future).reshape(-1, 2)
            turn = fleet.at(np.full(12, k), np.linspace(start + 2.0, end, 12))
            if len(where) and (((where[:, None] - turn) ** 2).sum(-1) < 3.2**2).any():
                wait[k] = start
    return wait


def simulate(drivers, junctions, start_s, end_s, people_at):
    """Drives, one a driver, from start_s to end_s.

    people_at  function of time: (n, 2) places to keep clear of
    """
    fleet = _Fleet(drivers)
    times = np.arange(start_s, end_s + STEP_S, STEP_S)
    s, speed = np.array([d.start for d in drivers]), np.array([d.speed for d in drivers])
    acceleration = np.zeros(len(drivers))
    log = np.zeros((3, len(times), len(drivers)))
    for tick, time in enumerate(times):
        log[:, tick] = s, speed, acceleration
        gap, lead = _leaders(fleet, s, speed, people_at(time))
        front = s + fleet.length / 2
        stop = _must_yield(fleet, drivers, s, speed)
        for k, driver in enumerate(drivers):
            for line, junction, axis in driver.route.stops:
                distance = line - front[k]
                if -0.5 < distance < 60.0 and light(junctions[junction], axis, time) != 'green':
                    if distance > speed[k] ** 2 / (2 * 3.0) - 0.3:
                        stop[k] = min(stop[k], line)
        nearer = stop - front + STANDSTILL_M - 0.4 < gap
        gap = np.where(nearer, stop - front + STANDSTILL_M - 0.4, gap)
        lead = np.where(nearer, 0.0, lead)
        wanted = _idm(speed, fleet.cap(s + speed * 0.3), gap, lead)
        # limits the jerk
        easing = np.where(wanted < acceleration, 8.0, 3.0) * STEP_S
        acceleration = np.clip(
            wanted, acceleration - np.where(wanted < -3.5, 100.0, easing), acceleration + easing
        )
        acceleration = np.where((speed <= 0.0) & (acceleration < 0.0), 0.0, acceleration)
        faster = np.maximum(speed + acceleration * STEP_S, 0.0)
        s, speed = s + (speed + faster) / 2 * STEP_S, faster
    return [Drive(times, *log[:, :, k]) for k in range(len(drivers))]


def _idm(speed, desired, gap, lead):
    """Acceleration (V,) of the intelligent driver model."""
    wish = STANDSTILL_M + np.maximum(
        0.0, speed * HEADWAY_S + speed * (speed - lead) / (2 * np.sqrt(ACCELERATION * BRAKING))
    )
    free = 1.0 - (speed / np.maximum(desired, 0.1)) ** 4
    value = ACCELERATION * (np.maximum(free, -1.5) - (wish / np.maximum(gap, 0.1)) ** 2)
    return np.clip(value, -HARDEST_BRAKING, ACCELERATION)

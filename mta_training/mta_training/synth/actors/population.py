"""Fill a town: parked vehicles, road works, people, moving traffic around the ego; nothing
overlaps.
"""

import numpy as np
from shapely import prepare
from shapely.geometry import Polygon

from mta_training.synth.actors import walking
from mta_training.synth.actors.catalogue import draw
from mta_training.synth.actors.completing import complete
from mta_training.synth.actors.driving import Driver, plan_route, simulate
from mta_training.synth.actors.traffic import (
    EGO_LENGTH_M,
    EGO_WHEELBASE_M,
    EGO_WIDTH_M,
    Agent,
    Motion,
    Traffic,
)
from mta_training.synth.town.footprints import corners, overlap

WARM_UP_S = 4.0  # driven before the scene begins, so that queues have formed
NEAR_M = 75.0


class Crowd:
    """Agents placed so far, without overlaps."""

    def __init__(self, town, ego_points):
        self.town, self.ego_points = town, ego_points
        self.agents, self._boxes = [], np.zeros((0, 5))
        prepare(town.solids)

    def near(self, xy, reach=NEAR_M):
        """Is a place within `reach` metres of the ego's way?"""
        return np.hypot(*(self.ego_points - xy).T).min() < reach

    def place(self, look, x, y, yaw, role, parked=False, margin=0.15):
        """Put a standing object there if there is room; says whether."""
        box = np.array([x, y, yaw, *look.size[:2]])
        if len(self._boxes) and overlap(box, self._boxes, margin).any():
            return False
        if self.town.solids.intersects(Polygon(corners(box))):
            return False
        self._boxes = np.concatenate([self._boxes, box[None]])
        self.agents.append(Agent(look, (float(x), float(y), float(yaw)), None, parked, role, -1))
        return True

    def snapshot(self):
        """What `restore` needs to take back all that is placed from now on."""
        return len(self.agents)

    def restore(self, snapshot):
        """Take back what was placed since the snapshot."""
        del self.agents[snapshot:]
        self._boxes = self._boxes[:snapshot]

    @staticmethod
    def of(town, ego_points, agents):
        """A crowd of the standing ones among `agents`."""
        crowd = Crowd(town, ego_points)
        crowd.agents = [agent for agent in agents if agent.motion is None]
        crowd._boxes = np.array(
            [[*agent.pose, *agent.look.size[:2]] for agent in crowd.agents]
        ).reshape(-1, 5)
        return crowd


def park_large(crowd, rng):
    """A trailer, a bus, a lorry at the kerb of a street the ego comes along."""
    works = _works_places(crowd)
    close = [
        bay
        for bay in crowd.town.bays
        if bay.kind == 'kerb'
        and bay.width > 2.3
        and _distance(crowd.ego_points[:130], bay.centre) < 22.0
        and not (len(works) and _distance(works, bay.centre) < 9.0)
    ]
    for kind, chance in (('trailer', 0.6), ('bus', 0.45), ('truck', 0.6), ('tractor', 0.3)):
        if close and rng.random() < chance:
            for k in rng.permutation(len(close))[:6]:
                look, bay = draw(rng, kind), close[k]
                if crowd.place(
                    look, *bay.centre, bay.yaw + rng.normal(0.0, 0.01), 'parked', parked=True
                ):
                    break


def _works_places(crowd):
    return np.array([agent.pose[:2] for agent in crowd.agents if agent.role == 'works'])


def _distance(points, xy):
    return float(np.hypot(*(points - xy).T).min())


def park(crowd, rng):
    """Vehicles in the bays."""
    occupancy = {'kerb': rng.uniform(0.5, 1.0), 'lot': rng.uniform(0.3, 0.7), 'yard': 0.6}
    works = _works_places(crowd)
    for bay in crowd.town.bays:
        if not crowd.near(bay.centre, 55.0) or rng.random() > occupancy[bay.kind]:
            continue
        if len(works) and _distance(works, bay.centre) < 5.0:
            continue
        yaw = (
            bay.yaw
            + rng.normal(0.0, 0.015)
            + (np.pi if bay.kind != 'kerb' and rng.random() < 0.5 else 0)
        )
        jitter = rng.normal(0.0, 0.12, 2)
        if bay.kind == 'yard':
            kind = rng.choice(
                ['trailer', 'truck', 'bus', 'construction_vehicle', 'tractor'],
                p=[0.5, 0.2, 0.1, 0.1, 0.1],
            )
        else:
            kind = rng.choice(
                ['car', 'van', 'pickup', 'truck', 'motorcycle'],
                p=[0.75, 0.06, 0.08, 0.06, 0.05]
                if bay.kind == 'kerb'
                else [0.81, 0.05, 0.08, 0.02, 0.04],
            )
        look = draw(rng, str(kind))
        if look.size[0] > bay.length + 1.0 and bay.kind != 'kerb':
            continue
        if kind == 'motorcycle':
            yaw += np.pi / 2 if bay.kind == 'kerb' else 0.0
        crowd.place(look, *(bay.centre + jitter), yaw, 'parked', parked=True)


def stand_cycles(crowd, rng, kerbs, count):
    """Bicycles and motorcycles left on the walkway beside the kerb."""
    for _ in range(count):
        spot = kerbs.spot(rng, 30.0)
        if spot is None:
            return
        point, along, out = spot
        for k in range(int(rng.integers(1, 3))):
            kind = 'bicycle' if rng.random() < 0.7 else 'motorcycle'
            x, y = point + out * 1.0 + along * 1.1 * k
            yaw = np.arctan2(out[1], out[0]) + rng.normal(0.0, 0.15)
            crowd.place(draw(rng, kind), x, y, yaw, 'parked', parked=True, margin=0.05)


def road_works(crowd, rng, kerbs):
    """A digger behind a row of barriers, cones along the kerb, workers; says whether it was
    built.
    """
    spot = kerbs.spot(rng, 20.0, straight_m=float(rng.uniform(6.0, 12.0)))
    if spot is None:
        return False
    point, along, out = spot
    heading = float(np.arctan2(along[1], along[0]))
    digger = draw(rng, 'construction_vehicle' if rng.random() < 0.65 else 'small_digger')
    flip = np.pi if rng.random() < 0.5 else 0.0
    # houses may stand right behind the walkway
    room = crowd.town.walkway_width + 0.1 - digger.size[1]
    centre = point + out * (float(np.clip(room, -0.2, 0.75)) + digger.size[1] / 2)
    if not crowd.place(digger, *centre, heading + flip + rng.normal(0, 0.1), 'works', parked=True):
        return False
    _row_of_barriers(crowd, rng, spot, int(rng.integers(4, 9)))
    cone = _cone(rng)
    for end in (-1, 1):
        for k in range(int(rng.integers(1, 5))):
            x, y = point + along * end * (9.0 + 1.7 * k) + out * (0.3 + 0.5 * k)
            crowd.place(draw(rng, cone), x, y, rng.uniform(0, 6.28), 'works')
    for _ in range(int(rng.integers(1, 4))):
        x, y = centre + along * rng.uniform(-8.0, 8.0) + out * rng.uniform(-0.6, 2.8)
        crowd.place(draw(rng, 'construction_worker'), x, y, rng.uniform(0, 6.28), 'standing')
    return True


def _row_of_barriers(crowd, rng, spot, count):
    point, along, out = spot
    facing, colour = float(np.arctan2(out[1], out[0])), str(rng.choice(['white', 'orange', 'red']))
    pitch = float(rng.uniform(2.65, 3.4))
    for k in range(count):
        x, y = point + out * 0.3 + along * (k - (count - 1) / 2) * pitch
        crowd.place(
            draw(rng, 'barrier', colour_name=colour),
            x,
            y,
            facing + rng.normal(0, 0.03),
            'works',
            margin=0.0,
        )


def kerb_rows(crowd, rng, kerbs):
    """A row of barriers, or a line of cones, along the kerb."""
    spot = kerbs.spot(rng, 20.0, straight_m=9.0)
    if spot is None:
        return
    point, along, out = spot
    if rng.random() < 0.5:
        _row_of_barriers(crowd, rng, spot, int(rng.integers(4, 9)))
        return
    cone, apart = _cone(rng), float(rng.uniform(1.2, 3.0))
    for k in range(int(rng.integers(1, 8))):
        x, y = point + out * 0.3 + along * (k - 3) * apart
        crowd.place(draw(rng, cone), x, y, 0.0, 'works')


def _cone(rng):
    """Kind of the cones of one place."""
    return 'traffic_cone' if rng.random() < 0.55 else 'small_cone'


def _choose_ego(network, rng):
    """A route whose first part lies between junctions, and where on it to begin."""
    lanes = network.lanes
    inner = [k for k, lane in enumerate(lanes) if lane.start is not None and lane.end is not None]
    lane = inner[int(rng.integers(len(inner)))]
    first = str(rng.choice(['straight', 'left', 'right'], p=[0.34, 0.33, 0.33]))
    length = float(np.hypot(*np.diff(lanes[lane].points, axis=0).T).sum())
    route = plan_route(network, rng, lane, 420.0, (first,))
    start = float(rng.uniform(8.0, max(9.0, length - 15.0)))
    desired = float(rng.uniform(7.5, 12.5))
    return Driver(route, start, desired * 0.7, desired, EGO_LENGTH_M, EGO_WIDTH_M, 0.0)


def ego_route(network, rng, seconds):
    """The ego's Driver and the points (n, 2) it will pass at most."""
    ego = _choose_ego(network, rng)
    reach = ego.start + ego.desired * (seconds + WARM_UP_S)
    return ego, ego.route.path.at(np.arange(ego.start, min(reach, ego.route.path.length), 1.0))


MOVING = {
    'car': 0.63,
    'van': 0.05,
    'pickup': 0.07,
    'truck': 0.07,
    'combination': 0.04,
    'bus': 0.04,
    'motorcycle': 0.05,
    'bicycle': 0.05,
}


def _moving_drivers(town, rng, ego, ego_points, count):
    """(Driver, looks) of vehicles that begin on the lanes around the ego's way."""
    lanes = town.network.lanes
    chosen, taken = [], [(ego.route.path.at(ego.start), 12.0)]
    kinds = list(MOVING)
    wanted = ['bus', 'combination', 'motorcycle', 'bicycle', 'truck']
    for attempt in range(count * 12):
        if len(chosen) >= count:
            break
        k = int(rng.integers(len(lanes)))
        length = float(np.hypot(*np.diff(town.lanes[k], axis=0).T).sum())
        start = float(rng.uniform(10.0, max(11.0, length - 12.0)))
        # first those that are seldom, where they are seen
        rare = len(chosen) < len(wanted) and attempt < 120
        kind = wanted[len(chosen)] if rare else str(rng.choice(kinds, p=list(MOVING.values())))
        looks = (
            [draw(rng, 'tractor'), draw(rng, 'trailer')]
            if kind == 'combination'
            else [draw(rng, kind, has_rider=kind in ('motorcycle', 'bicycle'))]
        )
        tail = looks[1].size[0] + 0.8 if len(looks) > 1 else 0.0
        spot = town.lanes[k][min(int(start / 0.5), len(town.lanes[k]) - 1)]
        room = 8.0 + looks[0].size[0] / 2 + tail
        if start < room or _distance(ego_points[:110] if rare else ego_points, spot) > (
            14.0 if rare else NEAR_M
        ):
            continue
        if any(np.hypot(*(spot - other)) < max(room, reach) for other, reach in taken):
            continue
        taken.append((spot, room))
        desired = float(rng.uniform(4.0, 6.0) if kind == 'bicycle' else rng.uniform(7.5, 13.0))
        route = plan_route(town.network, rng, k, 380.0)
        chosen.append(
            (
                Driver(
                    route, start, desired * 0.6, desired, looks[0].size[0], looks[0].size[1], tail
                ),
                looks,
            )
        )
    return chosen


def _agents_of(driver, looks, drive, group):
    path = driver.route.path
    agents = [
        Agent(
            looks[0],
            None,
            Motion.of_drive(path, drive, 0.0, 0.6 * looks[0].size[0]),
            False,
            'driving',
            group,
        )
    ]
    if len(looks) > 1:
        gap = looks[0].size[0] / 2 + 0.8 + looks[1].size[0] / 2
        agents.append(
            Agent(
                looks[1],
                None,
                Motion.of_drive(path, drive, gap, 0.75 * looks[1].size[0]),
                False,
                'towed',
                group,
            )
        )
    return agents


def _collisions(agents, ego_box, times):
    """Pairs (i, j) of agents that touch at some time; j = -1 is the ego."""
    # (N + 1, T, 5)
    boxes = np.stack([agent.footprints(times) for agent in agents] + [ego_box])
    moving = np.array([agent.motion is not None for agent in agents] + [True])
    groups = np.array([agent.group for agent in agents] + [-2])
    pairs = []
    for i in np.flatnonzero(moving):
        others = np.flatnonzero(~moving | (np.arange(len(moving)) > i))
        others = others[(groups[others] == -1) | (groups[others] != groups[i])]
        reach = (boxes[i, 0, 3] + boxes[others, 0, 3]) / 2 + 2.0
        apart = np.hypot(*(boxes[others][:, :, :2] - boxes[i, :, :2]).transpose(2, 0, 1)).min(
            axis=1
        )
        others = others[apart < reach]
        if len(others):
            hit = overlap(boxes[i], boxes[others], 0.05).any(axis=1)
            pairs.extend((int(i), int(j)) for j in others[hit])
    ego = len(agents)
    return [(i, j) if j != ego else (i, -1) for i, j in pairs if i != ego] + [
        (j, -1) for i, j in pairs if i == ego
    ]


def ego_motion(ego, drive):
    """The ego as a Motion whose middle is the middle between its axles."""
    return Motion.of_drive(ego.route.path, drive, 0.0, EGO_WHEELBASE_M)


def drive_everyone(crowd, rng, ego, moving, walkers, seconds):
    """Simulate, take out who collides, until nobody does: (agents, ego drive)."""
    junctions, times = crowd.town.network.junctions, np.arange(-1.0, seconds + 0.6, 0.2)
    moving, walkers, standing = list(moving), list(walkers), list(crowd.agents)
    for _ in range(12):
        crossing = [agent.motion for agent in walkers if agent.role == 'crossing']
        drives = simulate(
            [ego] + [driver for driver, _ in moving],
            junctions,
            -WARM_UP_S,
            seconds + 1.0,
            lambda time, crossing=crossing: walking.people_on_road(crossing, time),
        )
        agents, owner = list(standing) + list(walkers), [None] * (len(standing) + len(walkers))
        for k, (driver, looks) in enumerate(moving):
            parts = _agents_of(driver, looks, drives[k + 1], k)
            agents, owner = agents + parts, owner + [k] * len(parts)
        motion = ego_motion(ego, drives[0])
        centre, yaw = motion.pose(times)
        box = np.concatenate(
            [
                centre,
                yaw[:, None],
                np.tile([EGO_LENGTH_M + 0.4, EGO_WIDTH_M + 0.2], (len(times), 1)),
            ],
            axis=1,
        )
        pairs = _collisions(agents, box, times)
        if not pairs:
            return agents, drives[0]
        drop = _to_drop(pairs, agents, owner)
        moving = [m for k, m in enumerate(moving) if k not in drop['moving']]
        walkers = [a for a in walkers if id(a) not in drop['agents']]
        standing = [a for a in standing if id(a) not in drop['agents']]
    drop = {id(agents[i]) for pair in pairs for i in pair if i >= 0}
    return [agent for agent in agents if id(agent) not in drop], drives[0]


def _to_drop(pairs, agents, owner):
    """Of each colliding pair: what stands before who walks, who walks before who drives."""
    drop = {'moving': set(), 'agents': set()}
    for pair in sorted(pairs):
        sides = [i for i in pair if i >= 0]
        if any(
            (
                owner[i] in drop['moving']
                if owner[i] is not None
                else id(agents[i]) in drop['agents']
            )
            for i in sides
        ):
            continue
        sides.sort(key=lambda i: (owner[i] is not None, agents[i].motion is not None, -i))
        if owner[sides[0]] is None:
            drop['agents'].add(id(agents[sides[0]]))
        else:
            drop['moving'].add(owner[sides[-1]])
    return drop


def populate(town, rng, ego, ego_points, seconds):
    """Traffic of the whole scene."""
    crowd = Crowd(town, ego_points)
    # The ego often stops on its way: what is rare goes where it surely comes by.
    kerbs = walking.Kerbs(town, ego_points[:150])
    for _ in range(int(rng.choice([0, 1, 2], p=[0.1, 0.45, 0.45]))):
        any(road_works(crowd, rng, kerbs) for _ in range(8))
    for _ in range(int(rng.integers(1, 4))):
        kerb_rows(crowd, rng, kerbs)
    park_large(crowd, rng)
    park(crowd, rng)
    stand_cycles(crowd, rng, kerbs, int(rng.integers(1, 4)))
    walkers = walking.people(crowd, rng, kerbs, seconds)
    moving = _moving_drivers(town, rng, ego, ego_points, int(rng.integers(26, 40)))
    agents, drive = drive_everyone(crowd, rng, ego, moving, walkers, seconds)

    def traffic_of(agents):
        return Traffic(agents, ego_motion(ego, drive), drive, ego.route.kinds)

    return complete(
        Crowd.of(town, ego_points, agents), rng, traffic_of(agents), seconds, traffic_of
    )

"""See to it that a drive meets every class: what no sensor would see all the way is added at the
kerb.

Ten classes of very different frequency and twenty seconds: without this most scenes lack one or
two, and a class without ground truth counts as AP 0 in nuScenes' evaluation.
"""

import numpy as np

from mta_perception.contract import CLASS_RANGE_M, CLASSES
from mta_training.synth.actors.catalogue import draw
from mta_training.synth.actors.walking import Kerbs
from mta_training.synth.sensors.lidar import Scan
from mta_training.synth.town.footprints import overlap

LIDAR_HEIGHT_M = 1.84
ENOUGH_POINTS = 8
TRIES = 30
# The kind that stands for a class, and how many of it stand in a row.
_SPECIMEN = {
    'car': ('car', 1),
    'truck': ('truck', 1),
    'construction_vehicle': ('construction_vehicle', 1),
    'bus': ('bus', 1),
    'trailer': ('trailer', 1),
    'barrier': ('barrier', 4),
    'motorcycle': ('motorcycle', 1),
    'bicycle': ('bicycle', 1),
    'pedestrian': ('adult', 2),
    'traffic_cone': ('traffic_cone', 4),
}


def classes_met(traffic, buildings, times):
    """Classes of which the lidar sees something within their evaluation range at one of the
    times.
    """
    met = set()
    for time in times:
        ego = traffic.world_from_ego(time)
        states = traffic.states(time, reach_m=60.0)
        counts = Scan(np.array([*ego[:2, 3], LIDAR_HEIGHT_M]), states, buildings).counts()
        for state in states:
            distance = np.hypot(*(state.world_from_object[:2, 3] - ego[:2, 3]))
            if (
                counts.get(state.instance, 0) >= ENOUGH_POINTS
                and distance < CLASS_RANGE_M[state.class_name] - 3.0
            ):
                met.add(state.class_name)
    return met


def complete(crowd, rng, traffic, seconds, make_traffic):
    """The Traffic with one more specimen, or a few, of each class that was not met.

    crowd         with all standing agents of the traffic
    make_traffic  function of a list of agents to a Traffic, the ego's drive unchanged
    """
    buildings = crowd.town.static.buildings
    missing = [
        name
        for name in CLASSES
        if name not in classes_met(traffic, buildings, np.arange(0.0, seconds, 2.0))
    ]
    if not missing:
        return traffic
    times = np.arange(0.0, seconds + 0.5, 0.25)
    way = np.stack([traffic.world_from_ego(time)[:2, 3] for time in times])
    kerbs = Kerbs(crowd.town, way)
    moving = [agent.footprints(times) for agent in traffic.agents if agent.motion is not None]
    for name in missing:
        for attempt in range(TRIES):
            before = crowd.snapshot()
            more = _stand(
                crowd, rng, kerbs, way, *_SPECIMEN[name], moving, at_kerb=attempt % 2 == 0
            )
            if more:
                wider = make_traffic(traffic.agents + more)
                close = np.argsort(np.hypot(*(way - more[0].pose[:2]).T))
                # three or four
                passing = times[close[: len(close) // 4 : max(1, len(close) // 12)]]
                if name in classes_met(wider, buildings, passing[passing < seconds - 0.3]):
                    traffic = wider
                    break
            crowd.restore(before)
    return traffic


def _stand(crowd, rng, kerbs, way, kind, count, moving, at_kerb):
    """Place `count` of a kind in a row near the way: the new agents, fewer or none without
    room.
    """
    looks = [draw(rng, kind) for _ in range(count)]
    parks = at_kerb and kind in ('car', 'truck', 'bus', 'trailer')
    spot = _bay(crowd, rng, way, looks[0]) if parks else None
    if spot is None:
        found = kerbs.spot(rng, 22.0, straight_m=4.0)
        if found is None:
            return []
        spot = _beside_kerb(crowd, kind, looks[0], *found)
    xy, yaw, along = spot
    role = (
        'standing'
        if kind == 'adult'
        else 'works'
        if count > 1 or 'construction' in kind
        else 'parked'
    )
    placed = []
    for k, look in enumerate(looks):
        x, y = xy + along * k * (max(look.size[:2]) + 0.4)
        box = np.array([x, y, yaw, *look.size[:2]])
        if not any(overlap(box, boxes, 0.3).any() for boxes in moving) and crowd.place(
            look, x, y, yaw, role, parked=role != 'standing', margin=0.1
        ):
            placed.append(crowd.agents[-1])
    return placed


def _bay(crowd, rng, way, look):
    """A kerb-side place near the way: (xy, yaw, unit vector along), or None."""
    near = [
        bay
        for bay in crowd.town.bays
        if bay.kind == 'kerb'
        and bay.width > look.size[1] - 0.35
        and np.hypot(*(way - bay.centre).T).min() < 20.0
    ]
    if not near:
        return None
    bay = near[int(rng.integers(len(near)))]
    return bay.centre, bay.yaw, np.array([np.cos(bay.yaw), np.sin(bay.yaw)])


def _beside_kerb(crowd, kind, look, point, along, out):
    """Where a kind stands next to a kerb point: (xy, yaw, unit vector along)."""
    heading, facing = np.arctan2(along[1], along[0]), np.arctan2(out[1], out[0])
    length, width, _ = look.size
    if kind in ('barrier', 'traffic_cone'):
        return point + out * 0.35, facing, along
    if kind in ('bicycle', 'motorcycle'):
        return point + out * (0.15 + length / 2), facing, along
    if kind == 'adult':
        return point + out * 1.2, heading, along
    if kind == 'construction_vehicle':
        room = crowd.town.walkway_width + 0.1 - width
        return point + out * (float(np.clip(room, -0.2, 0.75)) + width / 2), heading, along
    # on a forecourt
    return point + out * (crowd.town.walkway_width + 0.4 + width / 2), heading, along

"""What there is in the world: sizes, colours and nuScenes names of each kind of object."""

from typing import NamedTuple

import numpy as np

# The words captions use, and what the renderer paints.
COLOURS = {
    'white': (0.88, 0.88, 0.87),
    'black': (0.05, 0.05, 0.06),
    'gray': (0.33, 0.34, 0.35),
    'silver': (0.66, 0.68, 0.70),
    'red': (0.62, 0.06, 0.05),
    'blue': (0.06, 0.16, 0.52),
    'green': (0.08, 0.34, 0.14),
    'yellow': (0.88, 0.68, 0.06),
    'orange': (0.90, 0.36, 0.05),
    'brown': (0.30, 0.18, 0.10),
}


class Kind(NamedTuple):
    """A sort of object."""

    class_name: str
    category: str
    size: tuple  # typical length, width, height [m]
    spread: float  # relative standard deviation of the sizes
    colours: dict  # colour name -> weight


_CAR = {
    'white': 25,
    'black': 18,
    'gray': 14,
    'silver': 13,
    'red': 10,
    'blue': 10,
    'green': 3,
    'yellow': 3,
    'orange': 2,
    'brown': 3,
}
_GOODS = {
    'white': 40,
    'blue': 15,
    'red': 12,
    'yellow': 8,
    'green': 8,
    'gray': 8,
    'orange': 5,
    'brown': 4,
}
_CLOTHES = {
    'black': 22,
    'blue': 20,
    'gray': 14,
    'white': 14,
    'red': 12,
    'green': 7,
    'yellow': 4,
    'brown': 7,
}
_VEST = {'orange': 60, 'yellow': 40}

KINDS = {
    'car': Kind('car', 'vehicle.car', (4.6, 1.92, 1.68), 0.06, _CAR),
    'van': Kind('car', 'vehicle.car', (5.2, 2.0, 2.2), 0.05, _GOODS),
    'truck': Kind('truck', 'vehicle.truck', (6.9, 2.45, 2.8), 0.11, _GOODS),
    # nuScenes: trucks are what hauls cargo, pickups among them.
    'pickup': Kind('truck', 'vehicle.truck', (5.5, 2.05, 1.9), 0.05, _CAR),
    'tractor': Kind('truck', 'vehicle.truck', (6.0, 2.5, 3.2), 0.03, _GOODS),
    'bus': Kind(
        'bus',
        'vehicle.bus.rigid',
        (11.0, 2.75, 3.4),
        0.04,
        {'red': 30, 'white': 20, 'blue': 15, 'yellow': 15, 'green': 15, 'orange': 5},
    ),
    'trailer': Kind('trailer', 'vehicle.trailer', (10.5, 2.6, 3.7), 0.07, _GOODS),
    'construction_vehicle': Kind(
        'construction_vehicle',
        'vehicle.construction',
        (6.2, 2.6, 3.1),
        0.06,
        {'yellow': 70, 'orange': 25, 'white': 5},
    ),
    'small_digger': Kind(
        'construction_vehicle',
        'vehicle.construction',
        (3.1, 1.6, 2.6),
        0.1,
        {'yellow': 55, 'orange': 25, 'white': 15, 'red': 5},
    ),
    'motorcycle': Kind(
        'motorcycle',
        'vehicle.motorcycle',
        (2.1, 0.77, 1.47),
        0.05,
        {'black': 35, 'red': 25, 'blue': 15, 'white': 10, 'green': 5, 'yellow': 5, 'gray': 5},
    ),
    'bicycle': Kind(
        'bicycle',
        'vehicle.bicycle',
        (1.75, 0.6, 1.3),
        0.05,
        {'black': 30, 'red': 20, 'blue': 20, 'green': 10, 'white': 10, 'gray': 10},
    ),
    'adult': Kind('pedestrian', 'human.pedestrian.adult', (0.72, 0.67, 1.73), 0.07, _CLOTHES),
    'child': Kind('pedestrian', 'human.pedestrian.child', (0.5, 0.48, 1.2), 0.08, _CLOTHES),
    'construction_worker': Kind(
        'pedestrian', 'human.pedestrian.construction_worker', (0.73, 0.7, 1.78), 0.04, _VEST
    ),
    'police_officer': Kind(
        'pedestrian',
        'human.pedestrian.police_officer',
        (0.73, 0.7, 1.8),
        0.04,
        {'blue': 60, 'black': 40},
    ),
    'traffic_cone': Kind(
        'traffic_cone', 'movable_object.trafficcone', (0.41, 0.41, 1.0), 0.1, {'orange': 100}
    ),
    'small_cone': Kind(
        'traffic_cone', 'movable_object.trafficcone', (0.34, 0.34, 0.68), 0.13, {'orange': 100}
    ),
    'barrier': Kind(
        'barrier',
        'movable_object.barrier',
        (0.5, 2.45, 1.0),
        0.05,
        {'white': 45, 'orange': 40, 'red': 15},
    ),
}


class Look(NamedTuple):
    """One object's unchanging looks."""

    kind: str
    style: int
    colour_name: str
    colour: tuple
    size: tuple  # length, width, height [m]
    has_rider: bool


def draw(rng, kind, has_rider=False, colour_name=None):
    """A random specimen of a kind."""
    spec = KINDS[kind]
    scale = np.clip(
        1.0 + spec.spread * rng.standard_normal(3), 1 - 2 * spec.spread, 1 + 2 * spec.spread
    )
    if kind in ('traffic_cone', 'small_cone', 'bicycle', 'motorcycle'):
        scale[:] = scale[0]
    if colour_name is None:
        names, weights = list(spec.colours), np.array(list(spec.colours.values()), dtype=float)
        colour_name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    shade = np.clip(np.array(COLOURS[colour_name]) * rng.uniform(0.88, 1.1), 0.0, 1.0)
    size = np.round(np.array(spec.size) * scale, 3)
    if has_rider:
        size[2] = round(float(rng.uniform(1.65, 1.8)), 3)
    return Look(
        kind,
        int(rng.integers(1 << 16)),
        colour_name,
        tuple(float(x) for x in np.round(shade, 4)),
        tuple(float(x) for x in size),
        has_rider,
    )

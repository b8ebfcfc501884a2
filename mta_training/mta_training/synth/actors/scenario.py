"""One scene of the synthetic dataset, from nothing but a seed and a number."""

from typing import NamedTuple

import numpy as np

from mta_training.synth.actors.population import ego_route, populate
from mta_training.synth.actors.traffic import Traffic
from mta_training.synth.scene import Weather
from mta_training.synth.sensors import rig as rigs
from mta_training.synth.sensors.body import random_lean
from mta_training.synth.town.layout import Town, build_town
from mta_training.synth.town.roads import build_network

EPOCH_US = 1_600_000_000_000_000  # stamp of the first scene's first keyframe
SCENE_GAP_US = 100_000_000
WORLDS = ('level', 'street')
MIRRORED_SHARE = 0.1  # of scenes with traffic on the left
# The devkit refuses CAN data for these scene numbers (recordings that lack it in nuScenes).
_NO_CAN = {*range(161, 169), *range(170, 177), *range(309, 315)}
_SCENE_NUMBERS = [number for number in range(1, 10_000) if number not in _NO_CAN]
MAX_SCENES = len(_SCENE_NUMBERS)


class Scenario(NamedTuple):
    """Everything that is fixed before a scene is rendered."""

    name: str
    index: int
    start_us: int  # stamp of time 0, the first keyframe
    seconds: float
    town: Town
    traffic: Traffic
    rig: rigs.Rig
    weather: Weather
    description: str


def scene_name(index):
    """nuScenes-style name of the index-th scene, from 'scene-0001'."""
    return f'scene-{_SCENE_NUMBERS[index]:04d}'


def weather_of(seed, index, street=False):
    """Weather of a scene: of twenty in a row 3 are at night, 3 in rain (1 of them both), 4
    overcast; a dataset's first scene is always a dry day.  In the street the sun is often low."""
    block, place = divmod(index, 20)
    order = np.random.default_rng([seed, 77, block]).permutation(20)
    if block == 0:
        order[np.flatnonzero(order == 19)[0]], order[0] = order[0], 19
    kind = int(order[place])
    rng = np.random.default_rng([seed, 78, index])
    lowest = 0.06 if street else 0.25
    return Weather(
        night=kind < 3,
        rain=2 <= kind < 5,
        overcast=2 <= kind < 9,
        sun_azimuth=float(rng.uniform(0.0, 2 * np.pi)),
        sun_elevation=float(rng.uniform(lowest, 1.1)),
        seed=int(rng.integers(1 << 30)),
        street=street,
    )


def _describe(traffic, weather):
    """A description in nuScenes' manner; night and rain are only to be found here."""
    kinds = [agent.look.kind for agent in traffic.agents]
    roles = [agent.role for agent in traffic.agents]
    speed = np.asarray(traffic.ego_drive.speed)
    words = []
    if 'construction_vehicle' in kinds or 'small_digger' in kinds:
        words.append('construction')
    if roles.count('parked') > 8:
        words.append('parked cars')
    if 'walking' in roles:
        words.append('peds on sidewalk')
    if 'crossing' in roles:
        words.append('peds crossing crosswalk')
    for kind in ('bus', 'trailer', 'motorcycle', 'bicycle'):
        if kind in kinds:
            words.append(kind)
    words.append(
        {'straight': 'drive straight', 'left': 'turn left', 'right': 'turn right'}[
            (*traffic.kinds, 'straight')[0]
        ]
    )
    if (speed < 0.1).any():
        words.append('wait at intersection')
    text = ', '.join(
        (['Night'] if weather.night else []) + (['Rain'] if weather.rain else []) + words
    )
    return text[0].upper() + text[1:]


def build_scenario(
    seed, index, seconds=20.0, width=rigs.FULL_WIDTH, height=rigs.FULL_HEIGHT, world='level'
):
    """The index-th scene of the world with this seed.

    world  one of WORLDS: `level` is kind (one rig, the body never leans, clear light), `street`
           is not
    """
    if world not in WORLDS:
        raise ValueError(f'world {world!r} is none of {", ".join(WORLDS)}.')
    street = world == 'street'
    rng = np.random.default_rng([seed, 1, index])
    local = build_network(rng)
    angle, mirrored = float(rng.uniform(0.0, 2 * np.pi)), bool(rng.random() < MIRRORED_SHARE)
    # Global coordinates must not be negative (map masks start at 0, 0): route first, then move.
    origin = np.zeros(2)
    for _ in range(2):
        network = local.moved(angle, mirrored, origin)
        ego, ego_points = ego_route(network, np.random.default_rng([seed, 2, index]), seconds)
        if not origin.any():
            origin = np.ceil(130.0 - ego_points.min(axis=0))
    town = build_town(network, np.random.default_rng([seed, 3, index]), ego_points, street)
    traffic = populate(town, np.random.default_rng([seed, 4, index]), ego, ego_points, seconds)
    weather = weather_of(seed, index, street)
    if street:
        traffic.lean = random_lean(np.random.default_rng([seed, 6, index]))
    return Scenario(
        scene_name(index),
        index,
        EPOCH_US + SCENE_GAP_US * index,
        seconds,
        town,
        traffic,
        rigs.build_rig(np.random.default_rng([seed, 5, index]), width, height, street),
        weather,
        _describe(traffic, weather),
    )

"""The caption grammar: a sentence from facts, the facts back from a sentence, TOD3Cap's file
entries.

    [colour] noun [in clothes] [with a rider] about N meters away in the S of the ego car is M
    [place] [relation]

Distances and sectors are measured on the ground from the ego's origin (base_link), in ego axes.
The relation says where the object is as seen from its nearest neighbour, along the *ego's* axes
('behind a red truck': the object has the smaller x), not along the neighbour's own.  Everything is
lower case and has no full stop.
"""

import re
from typing import NamedTuple

import numpy as np

COLOURS = ('white', 'black', 'gray', 'silver', 'red', 'blue', 'green', 'yellow', 'orange', 'brown')

# noun -> class name, and whether its colour is named before it, as its clothes, or not at all
NOUNS = {
    'car': ('car', 'body'),
    'truck': ('truck', 'body'),
    'bus': ('bus', 'body'),
    'trailer': ('trailer', 'body'),
    'construction vehicle': ('construction_vehicle', 'body'),
    'motorcycle': ('motorcycle', 'body'),
    'bicycle': ('bicycle', 'body'),
    'pedestrian': ('pedestrian', 'clothes'),
    'child': ('pedestrian', 'clothes'),
    'construction worker': ('pedestrian', 'clothes'),
    'police officer': ('pedestrian', 'clothes'),
    'traffic cone': ('traffic_cone', 'none'),
    'barrier': ('barrier', 'body'),
}
_NOUN_OF_CATEGORY = {
    'vehicle.car': 'car',
    'vehicle.truck': 'truck',
    'vehicle.bus.rigid': 'bus',
    'vehicle.bus.bendy': 'bus',
    'vehicle.trailer': 'trailer',
    'vehicle.construction': 'construction vehicle',
    'vehicle.motorcycle': 'motorcycle',
    'vehicle.bicycle': 'bicycle',
    'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'child',
    'human.pedestrian.construction_worker': 'construction worker',
    'human.pedestrian.police_officer': 'police officer',
    'movable_object.trafficcone': 'traffic cone',
    'movable_object.barrier': 'barrier',
}
# 45 degrees each, counter-clockwise from the front
SECTORS = (
    'front',
    'front left',
    'left',
    'back left',
    'back',
    'back right',
    'right',
    'front right',
)
MOTIONS = (
    'not moving',
    'parked',
    'moving slowly',
    'moving',
    'moving quickly',
    'crossing the road',
)
PLACES = (
    'in the lane',
    'at the roadside',
    'in the carpark',
    'at the intersection',
    'on the crosswalk',
    'on the walkway',
    'off the road',
)
# quarters, counter-clockwise from the front
RELATIONS = ('ahead of', 'left of', 'behind', 'right of')
STANDING_MPS, SLOW_MPS, QUICK_MPS = 0.2, 2.0, 8.0
NEIGHBOUR_M = 10.0


class Thing(NamedTuple):
    """What an object looks like."""

    noun: str  # a key of NOUNS
    colour: str  # one of COLOURS; '' where the noun's colour is not named
    rider: object  # True, False; None for what cannot have one


class Relation(NamedTuple):
    """Where the object is as seen from its neighbour."""

    side: str  # one of RELATIONS
    neighbour: Thing


class Facts(NamedTuple):
    """All that a caption says."""

    thing: Thing
    distance: int  # [m], rounded
    sector: str  # one of SECTORS
    motion: str  # one of MOTIONS
    place: str  # one of PLACES, '' = not said
    relation: object  # Relation or None


def thing_of(category, colour_name, has_rider):
    """Thing for a nuScenes category; ValueError for one that captions have no noun for."""
    if category not in _NOUN_OF_CATEGORY:
        raise ValueError(
            f'no noun for category {category!r}; expected one of '
            f'{", ".join(sorted(_NOUN_OF_CATEGORY))}.'
        )
    noun = _NOUN_OF_CATEGORY[category]
    return Thing(
        noun,
        '' if NOUNS[noun][1] == 'none' else colour_name,
        bool(has_rider) if noun in ('motorcycle', 'bicycle') else None,
    )


def sector_of(x, y):
    """Name of the 45 degree sector in which (x forward, y left) lies."""
    return SECTORS[int(np.floor(np.degrees(np.arctan2(y, x)) / 45.0 + 0.5)) % 8]


def motion_of(speed, attribute, crosses):
    """Motion words for a speed [m/s], a nuScenes attribute and whether a person is crossing the
    road.
    """
    if attribute == 'vehicle.parked':
        return 'parked'
    if speed < STANDING_MPS:
        return 'not moving'
    if crosses:
        return 'crossing the road'
    return (
        'moving slowly'
        if speed < SLOW_MPS
        else 'moving'
        if speed < QUICK_MPS
        else 'moving quickly'
    )


def relation_of(xy, thing_xy_pairs):
    """Relation to the nearest of (Thing, (x, y)) pairs within NEIGHBOUR_M, or None; ego axes."""
    near = [
        (float(np.hypot(xy[0] - other[0], xy[1] - other[1])), k)
        for k, (_, other) in enumerate(thing_xy_pairs)
    ]
    if not near or min(near)[0] > NEIGHBOUR_M:
        return None
    thing, other = thing_xy_pairs[min(near)[1]]
    quarter = (
        int(np.floor(np.degrees(np.arctan2(xy[1] - other[1], xy[0] - other[0])) / 90.0 + 0.5)) % 4
    )
    return Relation(RELATIONS[quarter], thing)


def thing_words(thing):
    """'red bicycle with a rider', 'child in blue', 'traffic cone'."""
    way = NOUNS[thing.noun][1]
    words = f'{thing.colour} {thing.noun}' if way == 'body' and thing.colour else thing.noun
    if way == 'clothes' and thing.colour:
        words += f' in {thing.colour}'
    if thing.rider is not None:
        words += ' with a rider' if thing.rider else ' without a rider'
    return words


def _article(words):
    return f'{"an" if words[0] in "aeiou" else "a"} {words}'


def relation_words(relation):
    """'behind a red truck', or 'none' as in TOD3Cap's file."""
    return (
        'none'
        if relation is None
        else f'{relation.side} {_article(thing_words(relation.neighbour))}'
    )


def compose(facts):
    """The sentence that says the facts."""
    words = [
        thing_words(facts.thing),
        f'about {facts.distance} meters away',
        f'in the {facts.sector} of the ego car',
        f'is {facts.motion}',
    ]
    if facts.place:
        words.append(facts.place)
    if facts.relation is not None:
        words.append(relation_words(facts.relation))
    return ' '.join(words)


def _alternatives(words):
    return '|'.join(sorted(words, key=len, reverse=True))


def _thing_pattern(prefix):
    return (
        rf'(?:(?P<{prefix}body>{_alternatives(COLOURS)}) )?'
        rf'(?P<{prefix}noun>{_alternatives(NOUNS)})'
        rf'(?: in (?P<{prefix}clothes>{_alternatives(COLOURS)}))?'
        rf'(?: (?P<{prefix}rider>with|without) a rider)?'
    )


_SENTENCE = re.compile(
    _thing_pattern('') + r' about (?P<distance>\d+) meters away'
    rf' in the (?P<sector>{_alternatives(SECTORS)}) of the ego car'
    rf' is (?P<motion>{_alternatives(MOTIONS)})'
    rf'(?: (?P<place>{_alternatives(PLACES)}))?'
    rf'(?: (?P<side>{_alternatives(RELATIONS)}) an? {_thing_pattern("other_")})?'
)


def _parsed_thing(match, prefix):
    rider = match[f'{prefix}rider']
    return Thing(
        match[f'{prefix}noun'],
        match[f'{prefix}body'] or match[f'{prefix}clothes'] or '',
        None if rider is None else rider == 'with',
    )


def parse(sentence):
    """Facts of a sentence of the grammar (case, a full stop and doubled spaces do not matter).

    Raises ValueError where the sentence is not one.
    """
    text = ' '.join(sentence.lower().replace('.', ' ').split())
    match = _SENTENCE.fullmatch(text)
    if match is None:
        raise ValueError(
            f'{sentence!r} is not a sentence of the caption grammar; expected e.g. '
            '"red car about 12 meters away in the front left of the ego car is parked '
            'at the roadside behind a white truck".'
        )
    relation = None
    if match['side']:
        relation = Relation(match['side'], _parsed_thing(match, 'other_'))
    return Facts(
        _parsed_thing(match, ''),
        int(match['distance']),
        match['sector'],
        match['motion'],
        match['place'] or '',
        relation,
    )


def vocabulary():
    """All words of the grammar but the numbers, sorted."""
    phrases = [
        *COLOURS,
        *NOUNS,
        *SECTORS,
        *MOTIONS,
        *PLACES,
        *RELATIONS,
        'with without a an rider',
        'about meters away in the of ego car is',
    ]
    return sorted({word for phrase in phrases for word in phrase.split()})


def tod3cap_entry(
    facts,
    *,
    sample_token,
    scene_name,
    annotation_token,
    cam_file,
    rectangle,
    size_lwh,
    xy,
    velocity,
):
    """One entry of TOD3Cap's `final_caption_bbox_token.json`, with the final sentence it lacks in
    public.

    xy, velocity  metres and m/s in ego axes
    """
    x, y = (round(float(value), 3) for value in xy)
    depth = float(np.hypot(x, y))
    speed = float(np.hypot(*velocity))
    return {
        'sample_token': sample_token,
        'scene_id': scene_name,
        'bbox_token': annotation_token,
        'cam_file': cam_file,
        '2d_bbox': list(rectangle),
        '3d_size': list(size_lwh),
        'attribute_caption': {'attribute_caption': thing_words(facts.thing)},
        'depth_caption': {
            'depth': round(depth, 3),
            'depth_caption': 'near' if depth < 15.0 else 'middle' if depth < 35.0 else 'far',
        },
        'localization_caption': {
            'x_offset': x,
            'y_offset': y,
            'localization_theta': round(float(np.degrees(np.arctan2(y, x))), 2),
            'localization_caption': f'in the {facts.sector} of the ego car',
        },
        'motion_caption': {
            'x_vel': round(float(velocity[0]), 3),
            'y_vel': round(float(velocity[1]), 3),
            'bev_vel': round(speed, 3),
            'motion_caption': facts.motion,
        },
        'map_caption': {'map_caption': facts.place},
        'relation_caption': relation_words(facts.relation),
        'final_caption': compose(facts),
    }

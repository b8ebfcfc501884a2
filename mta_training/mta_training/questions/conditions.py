"""What can be said of an object in one frame, in three values: True, False, and None for what is
unknown or too near to the border to argue about.

Directions are seen from the ego's origin: `ahead of us` is 45 degrees wide, `behind us` as well,
what lies between is on the left or on the right; distances are on the ground.
"""

from typing import NamedTuple

import numpy as np

from mta_training.captions.grammar import NEIGHBOUR_M, RELATIONS, SECTORS, Thing, thing_words

BORDER_DEGREES, BORDER_M = 3.0, 0.5
MOVES_MPS, STANDS_MPS = 1.0, 0.3
VEHICLES = ('car', 'truck', 'bus', 'trailer', 'construction_vehicle')
# Word -> classes that it names.
NOUNS = {
    'car': ('car',),
    'truck': ('truck',),
    'bus': ('bus',),
    'trailer': ('trailer',),
    'construction vehicle': ('construction_vehicle',),
    'motorcycle': ('motorcycle',),
    'bicycle': ('bicycle',),
    'pedestrian': ('pedestrian',),
    'traffic cone': ('traffic_cone',),
    'barrier': ('barrier',),
    'vehicle': VEHICLES,
    'cyclist': ('bicycle',),
    'motorcyclist': ('motorcycle',),
    'child': ('pedestrian',),
    'construction worker': ('pedestrian',),
    'police officer': ('pedestrian',),
}
RIDERS = ('cyclist', 'motorcyclist')
PEOPLE = ('child', 'construction worker', 'police officer')  # known from captions alone
CLOTHED = ('pedestrian', *PEOPLE)
SIDES = {'ahead of us': (0.0, 22.5), 'on the left': (90.0, 67.5), 'on the right': (-90.0, 67.5)}
SIDES['behind us'] = (180.0, 22.5)  # centre and half width [degrees]
STILL = ('traffic_cone', 'barrier')  # classes whose motion nobody mentions


class Seen(NamedTuple):
    """An object in one frame."""

    instance: str
    name: str  # class
    noun: str  # of its caption, '' unknown
    colour: str  # '' unknown
    rider: object
    xy: tuple
    distance: float
    bearing: float  # degrees
    speed: float  # NaN unknown
    attribute: str
    facts: object  # captions.grammar.Facts or None
    caption: str


def seen_in(facts, frame):
    """List of Seen of a frame of SceneFacts."""
    return [
        Seen(
            track.instance,
            track.name,
            track.told[frame].thing.noun if track.told[frame] else '',
            track.colour,
            track.rider,
            (float(track.boxes[frame, 0]), float(track.boxes[frame, 1])),
            float(track.distance[frame]),
            float(track.bearing[frame]),
            float(track.speed[frame]),
            track.attributes[frame],
            track.told[frame],
            track.captions[frame],
        )
        for track in facts.seen_at(frame)
    ]


def every(values):
    """Conjunction in three values."""
    values = list(values)
    return False if False in values else None if None in values else True


def is_a(thing, noun):
    """Whether a noun names it; `thing` is Seen or an ObjectTrack with a noun."""
    if thing.name not in NOUNS[noun]:
        return False
    if noun in RIDERS:
        return thing.rider
    if noun in PEOPLE:
        return thing.noun == noun if thing.noun else None
    return True


def coloured(thing, colour):
    """Whether it has a colour."""
    return thing.colour == colour if thing.colour else None


def _between(value, low, high, border):
    """Whether low <= value <= high; None within `border` of either end."""
    if min(abs(value - low), abs(value - high)) < border:
        return None
    return low < value < high


def _around(bearing, centre, half_width):
    off = (bearing - centre + 180.0) % 360.0 - 180.0
    return _between(off, -half_width, half_width, BORDER_DEGREES)


def on_side(bearing, side):
    """Whether a bearing [degrees] lies on one of SIDES."""
    return _around(bearing, *SIDES[side])


def side_of(bearing):
    """The one of SIDES on which a bearing lies, None at a border."""
    return next((side for side in SIDES if on_side(bearing, side)), None)


def in_sector(bearing, sector):
    """Whether a bearing [degrees] lies in one of the captions' SECTORS."""
    return _around(bearing, 45.0 * SECTORS.index(sector), 22.5)


def sector_within(bearing):
    """The sector in which a bearing lies, None at a border."""
    return next((sector for sector in SECTORS if in_sector(bearing, sector)), None)


def nearer(distance, metres):
    """Whether a distance is below so many metres."""
    return None if abs(distance - metres) < BORDER_M else distance < metres


def about(distance, metres):
    """Whether a distance is about so many metres: within one, surely not beyond a fifth (3 m)."""
    off = abs(distance - metres)
    return True if off <= 1.0 else None if off <= max(3.0, 0.2 * metres) else False


def is_moving(seen):
    """Whether it moves; None between standing and moving, and for unknown speeds."""
    if seen.name in STILL:
        return False
    if seen.speed >= MOVES_MPS:
        return True
    return False if seen.speed < STANDS_MPS else None


def is_parked(seen):
    """Whether it is a parked vehicle, by its attribute."""
    if seen.name not in VEHICLES:
        return False
    return seen.attribute == 'vehicle.parked' if seen.attribute else None


def is_crossing(seen):
    """Whether a pedestrian crosses the road, by its caption."""
    if seen.name != 'pedestrian':
        return False
    return seen.facts.motion == 'crossing the road' if seen.facts else None


def at_place(seen, place):
    """Whether it is at one of the captions' PLACES, by its caption."""
    return seen.facts.place == place if seen.facts and seen.facts.place else None


def related(seen, relation, others):
    """Whether it stands in a Relation, by its caption; None where another caption names another
    neighbour, but one that fits is there as well."""
    if seen.facts is None:
        return None
    told = seen.facts.relation
    if told is not None and _same(told, relation):
        return True
    near = [one for one in others if one.instance != seen.instance and _fits(one, relation)]
    for one in near:
        dx, dy = seen.xy[0] - one.xy[0], seen.xy[1] - one.xy[1]
        quarter = int(np.floor(np.degrees(np.arctan2(dy, dx)) / 90.0 + 0.5)) % 4
        if RELATIONS[quarter] == relation.side and np.hypot(dx, dy) < NEIGHBOUR_M + 3.0:
            return None
    return False


def _same(a, b):
    return (a.side, a.neighbour) == (b.side, b.neighbour)


def _fits(one, relation):
    noun, colour = relation.neighbour.noun, relation.neighbour.colour
    return is_a(one, noun) is not False and (not colour or coloured(one, colour) is not False)


def noun_of(seen):
    """The noun a person would use: its caption's where that is known, else its class's."""
    if seen.rider and seen.name in ('bicycle', 'motorcycle'):
        return {'bicycle': 'cyclist', 'motorcycle': 'motorcyclist'}[seen.name]
    if seen.noun in NOUNS:
        return seen.noun
    return seen.name.replace('_', ' ')


def plural(noun):
    """'buses', 'children', 'cars'."""
    if noun == 'child':
        return 'children'
    return f'{noun}es' if noun == 'bus' else f'{noun}s'


def named(noun, colour='', many=False):
    """'red car', 'pedestrians in blue', 'traffic cone'."""
    word = plural(noun) if many else noun
    if not colour:
        return word
    return f'{word} in {colour}' if noun in CLOTHED else f'{colour} {word}'


def article(words):
    """'a red car', 'an orange bus'."""
    return f'{"an" if words[0] in "aeiou" else "a"} {words}'


def neighbour_words(relation):
    """'behind a red truck', without saying whether a bicycle has a rider."""
    thing = Thing(relation.neighbour.noun, relation.neighbour.colour, None)
    return f'{relation.side} {article(thing_words(thing))}'

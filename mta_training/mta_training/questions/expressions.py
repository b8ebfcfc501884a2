"""Referring expressions of one frame: 'the second closest pedestrian on the right'.

An expression is a form (questions/wordings.EXPRESSIONS) whose slots are filled with facts of an
object.  It is asked only where everything that is seen in the frame clearly is or clearly is not
meant; what it means is then one object, many, or none.
"""

from collections.abc import Callable
from typing import NamedTuple

from mta_training.captions.grammar import COLOURS
from mta_training.questions import conditions as c

ORDERS = {'closest': 0, 'second closest': 1, 'third closest': 2, 'farthest': -1}
ORDER_GAP_M = 1.0  # between the one that is meant and the next in the order
WITHIN_M = (5, 10, 15, 20, 30)
MOST_MEANT = 6  # objects that 'all ...' may mean; masks of a class may have more
ONE = {  # form -> its slots beside the thing
    'plain': (),
    'side': ('side',),
    'sector': ('sector',),
    'distance': ('distance',),
    'within': ('within',),
    'order': ('order',),
    'order_side': ('order', 'side'),
    'motion': ('motion',),
    'motion_side': ('motion', 'side'),
    'doing': ('doing',),
    'place': ('place',),
    'relation': ('relation',),
}
MANY = {
    'all': (),
    'all_side': ('side',),
    'all_within': ('within',),
    'all_motion': ('motion',),
    'all_place': ('place',),
}
_ORDERED_M = 35.0  # farther ones are not counted in an order


class Expression(NamedTuple):
    """Words for objects of a frame."""

    words: str  # 'the red car on the left'
    wording: str  # its template
    form: str
    noun: str
    many: bool
    meant: tuple  # Seen, in order of distance


class Part(NamedTuple):
    """A slot, filled: its words and the condition they state."""

    slot: str
    words: str
    holds: Callable


def expression(voice, objects, form, target, donor, *, most=MOST_MEANT):
    """An Expression of a form from facts of `target` (noun, colour) and `donor` (the rest), both
    Seen; None where a fact is missing or what is meant is not clear.
    """
    parts = [_PARTS[slot](voice, donor, objects) for slot in {**ONE, **MANY}[form]]
    if None in parts:
        return None
    orders = [part for part in parts if part.slot == 'order']
    noun, colour = _thing(voice, target, form)
    conditions = [lambda one: c.is_a(one, noun)]
    if colour:
        conditions.append(lambda one: c.coloured(one, colour))
    conditions += [part.holds for part in parts if part.slot != 'order']
    holds = [c.every(condition(one) for condition in conditions) for one in objects]
    meant = [one for one, held in zip(objects, holds) if held]
    if None in holds:
        return None
    meant.sort(key=lambda one: one.distance)
    many = form in MANY
    if orders:
        meant = _ordered(meant, ORDERS[orders[0].words])
    if meant is None or (len(meant) > 1 and not many) or (many and not _many(meant, most)):
        return None
    template = voice.expression(form)
    words = template.format(
        thing=c.named(noun, colour),
        things=c.named(noun, colour, many=True),
        **{_FIELD.get(part.slot, part.slot): part.words for part in parts},
    )
    return Expression(words, template, form, noun, many, tuple(meant))


def find(voice, objects, forms, *, none=False, tries=12, most=MOST_MEANT):
    """An Expression of one of the forms that means something (or, with `none`, nothing that is
    seen), by a few tries; None if none came.
    """
    if not objects:
        return None
    for _ in range(tries):
        target, donor = one_of_a_class(voice, objects), one_of_a_class(voice, objects)
        if not none:
            donor = target
        elif voice.chance(0.5):
            target = donor._replace(colour=voice.pick(COLOURS)) if target.colour else target
        found = expression(voice, objects, voice.pick(forms), target, donor, most=most)
        if found is not None and bool(found.meant) != none:
            return found
    return None


def one_of_a_class(voice, objects):
    """An object: first its class is chosen, so that rare ones come up as often as cars."""
    name = voice.pick(sorted({one.name for one in objects}))
    return voice.pick([one for one in objects if one.name == name])


def _thing(voice, target, form):
    """(noun, colour or '') of a target."""
    noun = c.noun_of(target)
    general = noun in (*c.PEOPLE, *c.RIDERS) or target.name in c.VEHICLES
    if form != 'doing' and general and voice.chance(0.15):
        noun = 'vehicle' if target.name in c.VEHICLES else target.name.replace('_', ' ')
    colour = target.colour if voice.chance(0.5) and noun not in c.RIDERS else ''
    return noun, colour


def _ordered(meant, place):
    """[the one at a place in an order of distance], [] where there are too few, None where
    distances are too close to each other or it is far away."""
    place = len(meant) - 1 if place < 0 else place
    if not meant or place >= len(meant):
        return []
    near = [abs(one.distance - meant[place].distance) for one in meant]
    del near[place]
    if len(meant) < 2 or min(near) < ORDER_GAP_M or meant[place].distance > _ORDERED_M:
        return None
    return [meant[place]]


def _many(meant, most):
    """Whether so many can be meant by a plural."""
    return not meant or 2 <= len(meant) <= most


def _side(voice, donor, objects):
    side = c.side_of(donor.bearing)
    return side and Part('side', side, lambda one: c.on_side(one.bearing, side))


def _sector(voice, donor, objects):
    sector = c.sector_within(donor.bearing)
    if sector is None or ' ' not in sector:
        return None  # 'in the left' would be another thing than 'on the left'
    return Part('sector', sector, lambda one: c.in_sector(one.bearing, sector))


def _distance(voice, donor, objects):
    metres = round(donor.distance)
    return Part('distance', str(metres), lambda one: c.about(one.distance, metres))


def _within(voice, donor, objects):
    larger = [metres for metres in WITHIN_M if c.nearer(donor.distance, metres)]
    if not larger:
        return None
    metres = larger[0]
    return Part('within', str(metres), lambda one: c.nearer(one.distance, metres))


def _order(voice, donor, objects):
    return Part('order', voice.pick(tuple(ORDERS)), None)


def _motion(voice, donor, objects):
    if c.is_parked(donor):
        return Part('motion', 'parked', c.is_parked)
    return Part('motion', 'moving', c.is_moving) if c.is_moving(donor) else None


def _doing(voice, donor, objects):
    return Part('doing', 'crossing the road', c.is_crossing) if c.is_crossing(donor) else None


def _place(voice, donor, objects):
    if donor.facts is None or not donor.facts.place:
        return None
    place = donor.facts.place
    return Part('place', place, lambda one: c.at_place(one, place))


def _relation(voice, donor, objects):
    if donor.facts is None or donor.facts.relation is None:
        return None
    relation = donor.facts.relation
    words = c.neighbour_words(relation)
    return Part('relation', words, lambda one: c.related(one, relation, objects))


_FIELD = {'distance': 'metres', 'within': 'metres'}
_PARTS = {
    'side': _side,
    'sector': _sector,
    'distance': _distance,
    'within': _within,
    'order': _order,
    'motion': _motion,
    'doing': _doing,
    'place': _place,
    'relation': _relation,
}

"""Grounded question answering: an answer in words, and the box of what it is about ('red <box>')
or when ('yes <time>')."""

from mta_perception.answers import NONE
from mta_training.captions.grammar import COLOURS
from mta_training.questions import conditions as c
from mta_training.questions.expressions import ONE, find, one_of_a_class
from mta_training.questions.moments import MOMENTS, moment
from mta_training.questions.question import Question
from mta_training.questions.wordings import FAMILIES

NONE_SHARE = 0.15
TIMED = tuple(name for name in MOMENTS if f'qa/{name}' in FAMILIES)
_FORMS = tuple(form for form in ONE if form != 'plain')


def grounded(facts, first, now, voice, name):
    """A Question of kind `box` (name: a key of ASKED) or `time` (one of TIMED) whose answer says
    more than where or when; None where none was found."""
    if name in TIMED:
        return moment(facts, first, now, voice, name, asks='qa')
    return ASKED[name](facts, first, now, voice)


def _boxed(facts, first, now, family, wording, text, words, meant):
    """meant: Seen objects; without any the answer is `words` alone."""
    return Question(
        scene=facts.name,
        first=first,
        now=now,
        text=text,
        answer=f'{words} <box>' if meant else words,
        kind='box',
        family=family,
        wording=wording,
        instances=tuple(one.instance for one in meant),
    )


def _of_one(family, answer_of, forms, *, told=frozenset()):
    """A question about one object: answer_of(Seen) -> words or None where it is unknown.

    told  words that give the answer away: an expression with one of them is not taken
    """

    def asked(facts, first, now, voice):
        none = voice.chance(NONE_SHARE)
        found = find(voice, c.seen_in(facts, now), forms, none=none)
        if found is None or told & set(found.words.split()):
            return None
        words = answer_of(found.meant[0]) if found.meant else NONE
        if words is None:
            return None
        sentence = voice.sentence(family)
        return _boxed(
            facts,
            first,
            now,
            family,
            f'{sentence} | {found.wording}',
            sentence.format(object=found.words),
            words,
            found.meant,
        )

    return asked


def _what(facts, first, now, voice):
    """'what is the closest object on the left': its noun and colour."""
    objects = c.seen_in(facts, now)
    if not objects:
        return None
    side = c.side_of(one_of_a_class(voice, objects).bearing)
    if side is None:
        return None
    held = [c.on_side(one.bearing, side) for one in objects]
    near = sorted((one.distance, k) for k, one in enumerate(objects) if held[k] is not False)
    if held[near[0][1]] is None or (len(near) > 1 and near[1][0] - near[0][0] < 1.0):
        return None
    target = objects[near[0][1]]
    wording = voice.expression('order_side')
    words = wording.format(order='closest', thing='object', things='objects', side=side)
    noun = c.noun_of(target)
    sentence = voice.sentence('qa/what')
    return _boxed(
        facts,
        first,
        now,
        'qa/what',
        f'{sentence} | {wording}',
        sentence.format(object=words),
        c.article(c.named(noun, '' if noun in c.RIDERS else target.colour)),
        (target,),
    )


def _there(facts, first, now, voice):
    """'is there a pedestrian on the left': yes and all of them, or no."""
    objects = c.seen_in(facts, now)
    if not objects:
        return None
    target = one_of_a_class(voice, objects)
    noun, side = c.noun_of(target), voice.pick(tuple(c.SIDES))
    held = [c.every((c.is_a(one, noun), c.on_side(one.bearing, side))) for one in objects]
    meant = tuple(one for one, holds in zip(objects, held) if holds)
    if None in held or len(meant) > 6:
        return None
    sentence = voice.sentence('qa/there')
    return _boxed(
        facts,
        first,
        now,
        'qa/there',
        sentence,
        sentence.format(a=c.article(noun), side=side),
        'yes' if meant else 'no',
        meant,
    )


def _yes(truth):
    return None if truth is None else 'yes' if truth else 'no'


ASKED = {
    'what': _what,
    'colour': _of_one(
        'qa/colour', lambda one: one.colour or None, _FORMS, told=frozenset(COLOURS)
    ),
    'moving': _of_one(
        'qa/moving',
        lambda one: None if one.name in c.STILL else _yes(c.is_moving(one)),
        tuple(form for form in _FORMS if form not in ('motion', 'motion_side', 'doing')),
    ),
    'side': _of_one(
        'qa/side',
        lambda one: c.side_of(one.bearing),
        ('plain', 'order', 'distance', 'within', 'motion', 'place'),
    ),
    'place': _of_one(
        'qa/place',
        lambda one: one.facts.place or None if one.facts else None,
        tuple(form for form in _FORMS if form != 'place'),
    ),
    'there': _there,
}

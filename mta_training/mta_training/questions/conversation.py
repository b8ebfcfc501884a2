"""Questions answered in words alone: how many, is there, what is this, what do you see, what do we
do."""

import numpy as np

from mta_perception.answers import NONE
from mta_perception.foreign_text import printable
from mta_training.questions import conditions as c
from mta_training.questions.expressions import ONE, find, one_of_a_class
from mta_training.questions.predicates import ego_turns, moving
from mta_training.questions.question import HERE, Question

MOST_COUNTED = 20
MOST_CAPTION = 400  # characters
SCENE_CLASSES = 4  # that 'describe the scene' names, the most frequent first


def conversation(facts, first, now, voice, name):
    """A Question of kind `talk`, `name` a key of TALKS; None where none was found."""
    return TALKS[name](facts, first, now, voice)


def talk(facts, first, now, family, wording, text, answer, **more):
    """A Question of kind `talk`."""
    return Question(
        scene=facts.name,
        first=first,
        now=now,
        text=text,
        answer=answer,
        kind='talk',
        family=family,
        wording=wording,
        **more,
    )


def _some_noun(objects, voice):
    """A noun for a question about how many: mostly of what is there."""
    if objects and voice.chance(0.8):
        return one_of_a_class(voice, objects).name.replace('_', ' ')
    return voice.pick(('car', 'truck', 'bus', 'pedestrian', 'bicycle', 'motorcycle', 'trailer'))


def _count(facts, first, now, voice):
    objects = c.seen_in(facts, now)
    noun = _some_noun(objects, voice)
    count = sum(bool(c.is_a(one, noun)) for one in objects)
    sentence = voice.sentence('conversation/count')
    return talk(
        facts,
        first,
        now,
        'conversation/count',
        sentence,
        sentence.format(things=c.plural(noun)),
        counted(count, noun),
    )


def counted(count, noun):
    """'there are 3 cars', 'there is 1 bus', 'there are no trucks'."""
    if count > MOST_COUNTED:
        return f'there are more than {MOST_COUNTED} {c.plural(noun)}'
    if count == 1:
        return f'there is 1 {noun}'
    return f'there are {count or "no"} {c.plural(noun)}'


def _count_side(facts, first, now, voice):
    objects = c.seen_in(facts, now)
    noun, side = _some_noun(objects, voice), voice.pick(tuple(c.SIDES))
    held = [c.every((c.is_a(one, noun), c.on_side(one.bearing, side))) for one in objects]
    if None in held:
        return None
    sentence = voice.sentence('conversation/count_side')
    return talk(
        facts,
        first,
        now,
        'conversation/count_side',
        sentence,
        sentence.format(things=c.plural(noun), side=side),
        f'{counted(sum(held), noun)} {side}',
    )


def _there(facts, first, now, voice):
    objects = c.seen_in(facts, now)
    noun = _some_noun(objects, voice)
    held = [c.is_a(one, noun) for one in objects]
    sentence = voice.sentence('conversation/there')
    return talk(
        facts,
        first,
        now,
        'conversation/there',
        sentence,
        sentence.format(a=c.article(noun)),
        'yes' if any(held) else 'no',
    )


def _caption(facts, first, now, voice):
    objects = c.seen_in(facts, now)
    none = voice.chance(0.1)
    found = find(voice, objects, tuple(ONE), none=none)
    if found is None or (found.meant and not plain_caption(found.meant[0].caption)):
        return None
    sentence = voice.sentence('conversation/caption')
    return talk(
        facts,
        first,
        now,
        'conversation/caption',
        f'{sentence} | {found.wording}',
        sentence.format(object=found.words),
        plain_caption(found.meant[0].caption) if found.meant else NONE,
        instances=tuple(one.instance for one in found.meant),
    )


def _caption_here(facts, first, now, voice):
    objects = [one for one in c.seen_in(facts, now) if plain_caption(one.caption)]
    if not objects:
        return None
    target = one_of_a_class(voice, objects)
    sentence = voice.sentence('conversation/caption_here')
    assert HERE in sentence
    return talk(
        facts,
        first,
        now,
        'conversation/caption_here',
        sentence,
        sentence,
        plain_caption(target.caption),
        instances=(target.instance,),
        here=target.instance,
    )


def plain_caption(caption):
    """A caption as answers are written: lower case, one space between words, no final stop, and
    no word that could be one of our tokens, whoever wrote it."""
    words = printable(caption.lower(), 4 * MOST_CAPTION).split()
    return ' '.join(word for word in words if '<' not in word)[:MOST_CAPTION].rstrip('. ')


def _scene(facts, first, now, voice):
    objects = c.seen_in(facts, now)
    names = [one.name for one in objects]
    common = sorted(set(names), key=lambda name: (-names.count(name), name))[:SCENE_CLASSES]
    parts = []
    for name in common:
        noun, count = name.replace('_', ' '), names.count(name)
        parts.append(f'1 {noun}' if count == 1 else f'{count} {c.plural(noun)}')
    seen = ' and '.join(parts) if parts else 'nothing'
    verb = 'are' if parts and names.count(common[0]) > 1 else 'is'
    own = ego_words(facts, now)
    sentence = voice.sentence('conversation/scene')
    return talk(
        facts,
        first,
        now,
        'conversation/scene',
        sentence,
        sentence,
        f'there {verb} {seen}' + (f' and {own}' if own else ''),
    )


def _ego(facts, first, now, voice):
    sentence = voice.sentence('conversation/ego')
    return talk(facts, first, now, 'conversation/ego', sentence, sentence, ego_words(facts, now))


def ego_words(facts, frame):
    """'the ego car is turning left' in a frame; None where its motion is unknown."""
    if np.isnan(facts.speed[frame]):
        return None
    for hand in ('left', 'right'):
        if ego_turns(facts, hand)[frame]:
            return f'the ego car is turning {hand}'
    if moving(np.abs(facts.speed))[frame]:
        return 'the ego car is moving'
    return 'the ego car is standing still'


TALKS = {
    'count': _count,
    'count_side': _count_side,
    'there': _there,
    'caption': _caption,
    'caption_here': _caption_here,
    'scene': _scene,
    'ego': _ego,
}

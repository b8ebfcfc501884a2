"""Multiple choice about a few frames (`short`), a part of the scene (`middle`), or all of it
(`whole`): the analogue of short, middle and long videos.

The options stand in the text, '... : a : red , b : blue'; the answer is 'b : blue'.  Of the
options exactly one is true of the frames first to now.
"""

import numpy as np

from mta_training.captions.grammar import COLOURS
from mta_training.questions import conditions as c
from mta_training.questions import predicates as p
from mta_training.questions.events import (
    EGO,
    STARTS,
    STOPS,
    TURNS,
    clear_order,
    events_of,
    plain_verb,
)
from mta_training.questions.expressions import find, one_of_a_class
from mta_training.questions.moments import named_objects
from mta_training.questions.question import Question
from mta_training.questions.reasoning import comes_closer, times

LETTERS = 'abcd'
SHORT, MIDDLE = (1, 3), (6, 20)  # frames, inclusive
SPANS = ('short', 'middle', 'whole')
_FORMS = ('plain', 'order', 'order_side', 'distance', 'within', 'motion', 'place')
_STILL, _GOES = 'it stands still all the time', 'it moves all the time'
_LEAST = 2  # options


def choice(facts, now, voice, span, name):
    """A Question of kind `choice`: `span` is one of SPANS, `name` a key of OF_FRAME (short) or
    OF_TIME (the others); None where none was found.

    Of `whole` the last frame is the scene's, whatever `now` is.
    """
    if span == 'whole':
        first, now = 0, facts.frames - 1
    else:
        low, high = SHORT if span == 'short' else MIDDLE
        first = now - int(voice.rng.integers(low, high + 1)) + 1
    if first < 0 or (span == 'whole' and now < MIDDLE[0]):
        return None
    return (OF_FRAME if span == 'short' else OF_TIME)[name](facts, first, now, voice)


def _choice(facts, first, now, voice, family, right, others, words, wording, **more):
    """A Question of the right option and up to three of the others, in any order."""
    others = [one for one in dict.fromkeys(others) if one != right]
    if len(others) + 1 < _LEAST:
        return None
    order = voice.rng.permutation(len(others))[: len(LETTERS) - 1]
    options = [right, *(others[k] for k in order)]
    options = [options[k] for k in voice.rng.permutation(len(options))]
    told = ' , '.join(f'{letter} : {option}' for letter, option in zip(LETTERS, options))
    place = options.index(right)
    return Question(
        scene=facts.name,
        first=first,
        now=now,
        text=f'{words} : {told}',
        answer=f'{LETTERS[place]} : {right}',
        kind='choice',
        family=family,
        wording=wording,
        options=tuple(options),
        right=place,
        **more,
    )


def _of_object(family, right_of, others, told=frozenset()):
    """A choice about one object of the frame `now`: right_of(Seen) -> words or None."""

    def asked(facts, first, now, voice):
        found = find(voice, c.seen_in(facts, now), _FORMS)
        if found is None or told & set(found.words.split()):
            return None
        right = right_of(found.meant[0])
        if not right:
            return None
        sentence = voice.sentence(family)
        return _choice(
            facts,
            first,
            now,
            voice,
            family,
            right,
            others,
            sentence.format(object=found.words),
            f'{sentence} | {found.wording}',
            instances=(found.meant[0].instance,),
        )

    return asked


def _count(facts, first, now, voice):
    objects = c.seen_in(facts, now)
    if not objects:
        return None
    noun = one_of_a_class(voice, objects).name.replace('_', ' ')
    count = sum(bool(c.is_a(one, noun)) for one in objects)
    others = [str(n) for n in range(max(1, count - 3), count + 4)]
    sentence = voice.sentence('choice/count')
    words = sentence.format(things=c.plural(noun))
    return _choice(facts, first, now, voice, 'choice/count', str(count), others, words, sentence)


def _first(facts, first, now, voice):
    events = events_of(facts, first, now)
    later = [one for one in events[1:] if clear_order(events[0], one)]
    if len(later) < len(events) - 1 or not later:
        return None
    sentence = voice.sentence('choice/first')
    others = [one.words for one in later if one.words != events[0].words]
    return _choice(
        facts,
        first,
        now,
        voice,
        'choice/first',
        events[0].words,
        others,
        sentence,
        sentence,
        reasoning=True,
    )


def _one_true(facts, first, now, voice, family, statements, **slots):
    """A choice of one of the true statements and all the false ones; {words: bool}."""
    true = [words for words, holds in statements.items() if holds]
    if not true:
        return None
    false = [words for words, holds in statements.items() if not holds]
    sentence = voice.sentence(family)
    return _choice(
        facts,
        first,
        now,
        voice,
        family,
        voice.pick(true),
        false,
        sentence.format(**slots),
        sentence,
        reasoning=True,
    )


def _does(state, events, subject, more):
    done = {one.does for one in events if one.subject == subject}
    return {
        _STILL: not state.any(),
        _GOES: bool(state.all()),
        **{f'it {does}': does in done for does in (STOPS, STARTS, *more)},
    }


def _ego(facts, first, now, voice):
    window = slice(first, now + 1)
    state = p.moving(np.abs(facts.speed))[window]
    statements = _does(state, events_of(facts, first, now), EGO, ())
    for hand, does in TURNS.items():
        # A turn that began before the window is one as well.
        statements[f'it {does}'] = bool(p.ego_turns(facts, hand)[window].any())
    return _one_true(facts, first, now, voice, 'choice/does', statements, object=EGO)


def _object(facts, first, now, voice):
    window = slice(first, now + 1)
    named = [
        one
        for one in named_objects(facts, window)
        if one[1].name not in c.STILL and p.in_view(one[1])[window].all()
    ]
    if not named:
        return None
    words, track = voice.pick(named)
    events = [
        one._replace(subject=words)
        for one in events_of(facts, first, now)
        if one.instance == track.instance
    ]
    statements = _does(p.moving(track.speed)[window], events, words, ())
    return _one_true(facts, first, now, voice, 'choice/does', statements, object=words)


def _distance(facts, first, now, voice):
    named = named_objects(facts, slice(first, now + 1))
    if not named:
        return None
    words, track = voice.pick(named)
    right = comes_closer(track, first, now)
    if right is None:
        return None
    others = ('it comes closer', 'it goes away', 'it stays as far away')
    sentence = voice.sentence('choice/distance')
    asked = sentence.format(object=words)
    return _choice(
        facts,
        first,
        now,
        voice,
        'choice/distance',
        right,
        others,
        asked,
        sentence,
        instances=(track.instance,),
        reasoning=True,
    )


def _unseen(facts, first, now, voice):
    """'which of these is not visible at any time'."""
    window = slice(first, now + 1)
    shown = {track.name for track in facts.objects if track.seen[window].any()}
    missing = [name for name in _CLASSES if name not in shown]
    if not missing:
        return None
    right = c.article(voice.pick(missing).replace('_', ' '))
    others = [c.article(name.replace('_', ' ')) for name in _CLASSES if name in shown]
    sentence = voice.sentence('choice/unseen')
    return _choice(facts, first, now, voice, 'choice/unseen', right, others, sentence, sentence)


def _often(facts, first, now, voice):
    does = voice.pick((STOPS, STARTS))
    count = sum(one.words == f'{EGO} {does}' for one in events_of(facts, first, now))
    if not count and voice.chance(0.7):
        return None
    sentence = voice.sentence('choice/often')
    return _choice(
        facts,
        first,
        now,
        voice,
        'choice/often',
        times(count),
        [times(n) for n in range(4)],
        sentence.format(does=plain_verb(does)),
        sentence,
        reasoning=True,
    )


_CLASSES = ('car', 'truck', 'bus', 'trailer', 'construction_vehicle', 'motorcycle', 'bicycle')
OF_FRAME = {
    'colour': _of_object('choice/colour', lambda one: one.colour, COLOURS, frozenset(COLOURS)),
    'side': _of_object(
        'choice/side', lambda one: c.side_of(one.bearing), tuple(c.SIDES), {'of', 'left', 'right'}
    ),
    'count': _count,
}
OF_TIME = {
    'first': _first,
    'ego': _ego,
    'object': _object,
    'distance': _distance,
    'unseen': _unseen,
    'often': _often,
}

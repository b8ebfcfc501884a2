"""Questions about when: something in the memory is so ('when is a pedestrian within 10 meters'),
or is answered with yes and when ('did the ego car stop').

A moment draws its values (noun, metres, ...) from what the memory shows, states a truth for every
frame, and asks for its maximal runs of a second or more.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.answers import NEVER
from mta_training.questions import conditions as c
from mta_training.questions import predicates as p
from mta_training.questions.question import Question
from mta_training.questions.scene_facts import runs, saliency

NONE_SHARE = 0.2  # of 'when ...'; of yes and no it is half
METRES = (5, 10, 15, 20, 30)
SPEEDS_KMH = (10, 20, 30, 40)
COUNTS = (1, 2, 3, 4, 5, 6, 8, 10)
WHEN, YES, NO = 'it is then <time>', 'yes <time>', 'no'


class Truth(NamedTuple):
    """What a moment asks, with its values, and when it is so."""

    values: dict  # of the slots of its wordings
    truth: np.ndarray  # (T,) bool of the whole scene
    reasoning: bool = False  # an event: it takes more than one frame to see it


def moment(facts, first, now, voice, name, *, asks='moment', none=None):
    """A Question of kind `time`, `name` a key of MOMENTS; None where none was found.

    asks  'moment' (when ...) or 'qa' (did ...: yes, and when)
    none  whether it shall be one that never happens; None = drawn
    """
    none = voice.chance(NONE_SHARE if asks == 'moment' else 0.5) if none is None else none
    window = slice(first, now + 1)
    for _ in range(8):
        drawn = MOMENTS[name](facts, window, voice)
        if drawn is None:
            continue
        truth = drawn.truth[window]
        spans = runs(truth, first)
        if bool(spans) == none or (truth.any() and not spans):
            continue
        if truth.mean() > 0.9 and not voice.chance(0.1):
            continue  # 'when do you see a car': always
        return _question(facts, first, now, voice, f'{asks}/{name}', drawn, truth, spans)
    return None


def _question(facts, first, now, voice, family, drawn, truth, spans):
    sentence = voice.sentence(family)
    no = NO if family.startswith('qa') else NEVER
    return Question(
        scene=facts.name,
        first=first,
        now=now,
        text=sentence.format(**drawn.values),
        answer=(YES if family.startswith('qa') else WHEN) if spans else no,
        kind='time',
        family=family,
        wording=sentence,
        spans=spans,
        saliency=tuple(saliency(truth).tolist()),
        reasoning=drawn.reasoning,
    )


def _noun(facts, window, voice, nouns=None):
    """A noun and its tracks: mostly one that the window shows; (None, None) where unknown."""
    shown = [track for track in facts.objects if track.seen[window].any()]
    names = sorted({track.name.replace('_', ' ') for track in shown})
    if any(track.name == 'bicycle' and track.rider for track in shown):
        names.append('cyclist')
    if len(set(names) & {'car', 'truck', 'bus'}) > 1:
        names.append('vehicle')
    if voice.chance(0.2) or not names:
        names = ['bus', 'truck', 'trailer', 'motorcycle', 'bicycle', 'pedestrian', 'cyclist']
    names = [name for name in names if nouns is None or name in nouns]
    if not names:
        return None, None
    noun = voice.pick(names)
    tracks = p.of_noun(facts, noun)
    return (noun, tracks) if tracks is not None else (None, None)


def _near(facts, window, voice):
    noun, tracks = _noun(facts, window, voice)
    if noun is None:
        return None
    metres = voice.pick(METRES)
    truth = p.any_of([p.near(track, metres) for track in tracks], facts.frames)
    return Truth({'a': c.article(noun), 'metres': metres}, truth)


def _near_side(facts, window, voice):
    noun, tracks = _noun(facts, window, voice)
    if noun is None:
        return None
    metres, side = voice.pick(METRES[1:]), voice.pick(tuple(c.SIDES))
    states = [p.near(track, metres) & p.at_side(track, side) for track in tracks]
    values = {'a': c.article(noun), 'metres': metres, 'side': side}
    return Truth(values, p.any_of(states, facts.frames))


def _visible(facts, window, voice):
    noun, tracks = _noun(facts, window, voice)
    if noun is None:
        return None
    truth = p.any_of([p.in_view(track) for track in tracks], facts.frames)
    return Truth({'a': c.article(noun)}, truth)


def _count(facts, window, voice):
    noun, tracks = _noun(facts, window, voice)
    if not tracks:
        return None
    count = np.sum([p.in_view(track) for track in tracks], axis=0)
    most = [n for n in COUNTS if n < count[window].max()]
    n = voice.pick(most or COUNTS[-3:])
    return Truth({'n': n, 'things': c.plural(noun)}, count > n)


def _crossing(facts, window, voice):
    tracks = p.of_noun(facts, 'pedestrian')
    if not any(one is not None for track in tracks for one in track.told):
        return None
    truth = p.any_of([p.crosses(track) for track in tracks], facts.frames)
    return Truth({'a': 'a pedestrian'}, truth)


def _ego_turn(facts, window, voice):
    hand = voice.pick(('left', 'right'))
    return Truth({'hand': hand}, p.ego_turns(facts, hand), True)


def _ego_stand(facts, window, voice):
    return Truth({}, ~p.moving(np.abs(facts.speed)))


def _ego_fast(facts, window, voice):
    speed = voice.pick(SPEEDS_KMH)
    return Truth({'speed': speed}, facts.speed * 3.6 > speed)


def _ego_stop(facts, window, voice):
    known = np.ones(facts.frames, bool)
    return Truth({}, p.around(p.stops(facts.speed, known), facts.frames), True)


def _ego_start(facts, window, voice):
    known = np.ones(facts.frames, bool)
    return Truth({}, p.around(p.starts(facts.speed, known), facts.frames), True)


def named_objects(facts, window, least=3):
    """List of (words, ObjectTrack) of the objects that a noun, or a noun and a colour, alone names
    among all that the window shows; seen in at least so many of its frames."""
    shown = [track for track in facts.objects if track.seen[window].any()]
    by_class = {}
    for track in shown:
        by_class.setdefault(track.label, []).append(track)
    named = []
    for track in shown:
        same, noun = by_class[track.label], track.name.replace('_', ' ')
        if track.seen[window].sum() < least:
            continue
        if len(same) == 1:
            cyclist = track.name == 'bicycle' and track.rider
            named.append((f'the {"cyclist" if cyclist else noun}', track))
        colours = [one.colour for one in same]
        if track.colour and '' not in colours and colours.count(track.colour) == 1:
            named.append((f'the {c.named(noun, track.colour)}', track))
    return named


def _of_object(truth_of, values_of=lambda voice: {}, *, reasoning=False, fits=None):
    """A moment of one object: truth_of(facts, track, **values)."""

    def drawn(facts, window, voice):
        named = named_objects(facts, window)
        named = [one for one in named if fits is None or fits(one[1])]
        if not named:
            return None
        (words, track), values = voice.pick(named), values_of(voice)
        return Truth({'object': words, **values}, truth_of(facts, track, **values), reasoning)

    return drawn


def _of_event(frames_of, fits=None):
    """A moment of what happens to one object at the frames frames_of(facts, track)."""
    return _of_object(
        lambda facts, track: p.around(frames_of(facts, track), facts.frames),
        reasoning=True,
        fits=fits,
    )


def _goes(track):
    return track.name not in c.STILL


def _may_go(track):
    """Whether it does move at some time, so that asking when it stops is no silly question."""
    return _goes(track) and p.moves(track).any()


MOMENTS = {
    'near': _near,
    'near_side': _near_side,
    'visible': _visible,
    'count': _count,
    'crossing': _crossing,
    'ego_turn': _ego_turn,
    'ego_stand': _ego_stand,
    'ego_fast': _ego_fast,
    'ego_stop': _ego_stop,
    'ego_start': _ego_start,
    'object_near': _of_object(
        lambda facts, track, metres: p.near(track, metres),
        lambda voice: {'metres': voice.pick(METRES)},
    ),
    'object_side': _of_object(
        lambda facts, track, side: p.at_side(track, side),
        lambda voice: {'side': voice.pick(tuple(c.SIDES))},
    ),
    'object_moving': _of_object(lambda facts, track: p.moves(track), fits=_goes),
    'object_stop': _of_event(
        lambda facts, track: p.stops(track.speed, p.in_view(track)), fits=_may_go
    ),
    'object_start': _of_event(
        lambda facts, track: p.starts(track.speed, p.in_view(track)), fits=_goes
    ),
    'object_pass': _of_event(p.passed),
    'object_passes_us': _of_event(p.passes, fits=_may_go),
    'object_visible': _of_object(lambda facts, track: p.in_view(track)),
}

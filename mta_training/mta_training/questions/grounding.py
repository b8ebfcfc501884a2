"""Questions that one object, many or none answer: where it is (`box`), its area (`mask`), its way
through the memory (`track`)."""

from mta_perception.answers import NONE
from mta_training.questions import conditions as c
from mta_training.questions.expressions import MANY, ONE, find, one_of_a_class
from mta_training.questions.question import Question

ANSWERS = {
    ('box', False): 'it is here <box>',
    ('box', True): 'they are here <box>',
    ('mask', False): 'this is its area <mask>',
    ('mask', True): 'this is their area <mask>',
    ('track', False): 'i follow it <track>',
}
_GROUP = {'box': 'grounding', 'mask': 'mask', 'track': 'track'}
LEAST_TRACK = 4  # frames in which a followed object is seen
NONE_SHARE, MANY_SHARE, HERE_SHARE = 0.2, 0.2, 0.3
_MOST_OF_A_MASK = 40


def referring(facts, first, now, voice, kind):
    """A Question of kind `box`, `mask` or `track`; None where none was found."""
    objects = c.seen_in(facts, now)
    none = voice.chance(NONE_SHARE)
    if kind == 'track':
        objects_followed = [one for one in objects if _followed(facts, one, first, now)]
        if not none and not objects_followed:
            return None
        if not none and voice.chance(HERE_SHARE):
            return _follow_here(facts, first, now, voice, objects_followed)
    many = kind != 'track' and voice.chance(MANY_SHARE)
    most = _MOST_OF_A_MASK if kind == 'mask' else 6
    found = find(voice, objects, tuple(MANY if many else ONE), none=none, most=most)
    if found is None or (kind == 'track' and not none and found.meant[0] not in objects_followed):
        return None
    family = f'{_GROUP[kind]}/{"many" if many else "one"}'
    sentence = voice.sentence(family)
    return Question(
        scene=facts.name,
        first=first,
        now=now,
        text=sentence.format(object=found.words),
        answer=ANSWERS[kind, many] if found.meant else NONE,
        kind=kind,
        family=family,
        wording=f'{sentence} | {found.wording}',
        instances=tuple(one.instance for one in found.meant),
    )


def _followed(facts, one, first, now):
    return facts.track(one.instance).seen[first : now + 1].sum() >= LEAST_TRACK


def _follow_here(facts, first, now, voice, objects):
    target = one_of_a_class(voice, objects)
    sentence = voice.sentence('track/here')
    return Question(
        scene=facts.name,
        first=first,
        now=now,
        text=sentence,
        answer=ANSWERS['track', False],
        kind='track',
        family='track/here',
        wording=sentence,
        instances=(target.instance,),
        here=target.instance,
    )

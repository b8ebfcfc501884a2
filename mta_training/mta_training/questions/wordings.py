"""Every wording of every family: the ones to train with (`seen`), and the ones held out, on which
unseen phrasings are tested.  Held-out ones use words that others use (a test holds that).

A Question's `wording` is its sentence's template, then ' | ' and that of each expression in it.
"""

from typing import NamedTuple


class Wordings(NamedTuple):
    """Templates of one family."""

    seen: tuple
    unseen: tuple


# Referring expressions: {thing} is 'red car', 'pedestrian in blue', 'bus'.
EXPRESSIONS = {
    'plain': Wordings(('the {thing}',), ()),
    'side': Wordings(('the {thing} {side}', 'the {thing} that is {side}'), ()),
    'sector': Wordings(
        ('the {thing} in the {sector}', 'the {thing} in the {sector} of the ego car'),
        ('the {thing} that is in the {sector}',),
    ),
    'distance': Wordings(
        ('the {thing} about {metres} meters away', 'the {thing} {metres} meters from us'),
        ('the {thing} that is about {metres} meters from us',),
    ),
    'within': Wordings(
        ('the {thing} within {metres} meters', 'the {thing} less than {metres} meters away'),
        ('the {thing} that is within {metres} meters',),
    ),
    'order': Wordings(
        ('the {order} {thing}', 'the {thing} that is the {order}'),
        ('the {thing} which is the {order}',),
    ),
    'order_side': Wordings(
        ('the {order} {thing} {side}', 'the {order} of the {things} {side}'),
        ('the {order} {thing} that is {side}',),
    ),
    'motion': Wordings(
        ('the {motion} {thing}', 'the {thing} that is {motion}'),
        ('the {thing} which is {motion}',),
    ),
    'motion_side': Wordings(
        ('the {motion} {thing} {side}', 'the {thing} {side} that is {motion}'),
        ('the {thing} that is {motion} {side}',),
    ),
    'doing': Wordings(
        ('the {thing} {doing}', 'the {thing} who is {doing}'), ('the {thing} that is {doing}',)
    ),
    'place': Wordings(
        ('the {thing} {place}', 'the {thing} that is {place}'), ('the {thing} which is {place}',)
    ),
    'relation': Wordings(
        ('the {thing} {relation}', 'the {thing} which is {relation}'),
        ('the {thing} that is {relation}',),
    ),
    # Of many objects; {things} is 'red cars'.
    'all': Wordings(('all {things}', 'the {things}'), ('all the {things}',)),
    'all_side': Wordings(
        ('all {things} {side}', 'the {things} {side}', 'the {things} that are {side}'),
        ('all the {things} {side}',),
    ),
    'all_within': Wordings(
        ('all {things} within {metres} meters', 'the {things} less than {metres} meters away'),
        ('all the {things} within {metres} meters',),
    ),
    'all_motion': Wordings(
        ('all {motion} {things}', 'the {things} that are {motion}'),
        ('all {things} which are {motion}',),
    ),
    'all_place': Wordings(
        ('all {things} {place}', 'the {things} {place}'), ('the {things} that are {place}',)
    ),
}

FAMILIES = {
    'grounding/one': Wordings(
        (
            'where is {object}',
            'show me {object}',
            'find {object}',
            'point at {object}',
            'can you see {object}',
            'please find {object}',
            'say where {object} is',
        ),
        ('please show me where {object} is', 'can you point at {object}'),
    ),
    'grounding/many': Wordings(
        ('where are {object}', 'show me {object}', 'find {object}', 'please point at {object}'),
        ('can you see {object}', 'please show me {object}'),
    ),
    'mask/one': Wordings(
        (
            'segment {object}',
            'mark the area of {object}',
            'which area does {object} cover',
            'please mark {object}',
        ),
        ('please segment {object}', 'show me the area of {object}'),
    ),
    'mask/many': Wordings(
        ('segment {object}', 'mark the area of {object}', 'which area do {object} cover'),
        ('please segment {object}', 'show me the area of {object}'),
    ),
    'track/one': Wordings(
        (
            'follow {object}',
            'track {object}',
            'where did {object} come from',
            'show me the way of {object}',
        ),
        ('please track {object}', 'can you follow {object}'),
    ),
    'track/here': Wordings(
        ('follow <here>', 'track the object at <here>', 'please follow the object at <here>'),
        ('can you track <here>', 'show me the way of <here>'),
    ),
    'moment/near': Wordings(
        (
            'when is {a} within {metres} meters',
            'when does {a} come within {metres} meters of us',
            'at what time is {a} less than {metres} meters away',
        ),
        ('when is {a} less than {metres} meters from us',),
    ),
    'moment/near_side': Wordings(
        (
            'when is {a} within {metres} meters {side}',
            'at what time is {a} {side} within {metres} meters',
            'when is there {a} {side} less than {metres} meters away',
        ),
        ('when is {a} {side} less than {metres} meters from us',),
    ),
    'moment/visible': Wordings(
        (
            'when is {a} visible',
            'when can we see {a}',
            'at what time is there {a}',
        ),
        ('when can you see {a}',),
    ),
    'moment/count': Wordings(
        (
            'when are more than {n} {things} visible',
            'when can we see more than {n} {things}',
        ),
        ('at what time are there more than {n} {things}',),
    ),
    'moment/crossing': Wordings(
        (
            'when is {a} crossing the road',
            'when does {a} cross the road',
        ),
        ('at what time is {a} crossing the road',),
    ),
    'moment/ego_turn': Wordings(
        (
            'when does the ego car turn {hand}',
            'when do we turn {hand}',
            'at what time are we turning {hand}',
        ),
        ('when is the ego car turning {hand}',),
    ),
    'moment/ego_stand': Wordings(
        (
            'when does the ego car stand still',
            'when are we standing still',
            'at what time do we not move',
        ),
        ('when is the ego car standing still',),
    ),
    'moment/ego_fast': Wordings(
        (
            'when are we faster than {speed} kilometers per hour',
            'when does the ego car drive faster than {speed} kilometers per hour',
        ),
        ('at what time is the ego car faster than {speed} kilometers per hour',),
    ),
    'moment/ego_stop': Wordings(
        (
            'when does the ego car stop',
            'when do we stop',
            'when do we come to a stop',
        ),
        ('at what time does the ego car come to a stop',),
    ),
    'moment/ego_start': Wordings(
        (
            'when does the ego car start to move',
            'when do we start to move',
        ),
        ('at what time does the ego car start to move',),
    ),
    'moment/object_near': Wordings(
        (
            'when is {object} within {metres} meters',
            'when is {object} less than {metres} meters away',
            'at what time does {object} come within {metres} meters of us',
        ),
        ('when is {object} less than {metres} meters from us',),
    ),
    'moment/object_side': Wordings(
        (
            'when is {object} {side}',
            'at what time is {object} {side}',
        ),
        ('when do we see {object} {side}',),
    ),
    'moment/object_moving': Wordings(
        (
            'when is {object} moving',
            'when does {object} move',
        ),
        ('at what time is {object} moving',),
    ),
    'moment/object_stop': Wordings(
        (
            'when does {object} stop',
            'when does {object} come to a stop',
        ),
        ('at what time does {object} stop',),
    ),
    'moment/object_start': Wordings(
        (
            'when does {object} start to move',
            'when does {object} begin to move',
        ),
        ('at what time does {object} start to move',),
    ),
    'moment/object_pass': Wordings(
        ('when do we pass {object}', 'when do we drive past {object}'),
        ('at what time do we pass {object}',),
    ),
    'moment/object_passes_us': Wordings(
        ('when does {object} pass us', 'when does {object} go past us'),
        ('at what time does {object} pass us',),
    ),
    'moment/object_visible': Wordings(
        (
            'when is {object} visible',
            'when can we see {object}',
        ),
        ('when can you see {object}',),
    ),
    'qa/near': Wordings(
        (
            'was {a} within {metres} meters',
            'did {a} come within {metres} meters of us',
        ),
        ('was {a} less than {metres} meters away',),
    ),
    'qa/near_side': Wordings(
        (
            'was {a} within {metres} meters {side}',
            'was there {a} {side} less than {metres} meters away',
        ),
        ('was {a} {side} within {metres} meters',),
    ),
    'qa/visible': Wordings(
        (
            'was {a} visible',
            'did we see {a}',
        ),
        ('was there {a}',),
    ),
    'qa/count': Wordings(
        (
            'were more than {n} {things} visible',
            'did we see more than {n} {things}',
        ),
        ('were there more than {n} {things}',),
    ),
    'qa/crossing': Wordings(('did {a} cross the road',), ('was {a} crossing the road',)),
    'qa/ego_turn': Wordings(
        (
            'did the ego car turn {hand}',
            'did we turn {hand}',
        ),
        ('were we turning {hand}',),
    ),
    'qa/ego_stand': Wordings(
        (
            'did the ego car stand still',
            'were we standing still',
        ),
        ('did we stand still',),
    ),
    'qa/ego_fast': Wordings(
        (
            'were we faster than {speed} kilometers per hour',
            'did the ego car drive faster than {speed} kilometers per hour',
        ),
        ('did we drive faster than {speed} kilometers per hour',),
    ),
    'qa/ego_stop': Wordings(
        (
            'did the ego car stop',
            'did we stop',
        ),
        ('did we come to a stop',),
    ),
    'qa/ego_start': Wordings(('did the ego car start to move',), ('did we start to move',)),
    'qa/object_near': Wordings(
        (
            'was {object} within {metres} meters',
            'did {object} come within {metres} meters of us',
        ),
        ('was {object} less than {metres} meters away',),
    ),
    'qa/object_side': Wordings(('was {object} {side}',), ('did we see {object} {side}',)),
    'qa/object_moving': Wordings(
        (
            'was {object} moving',
            'did {object} move',
        ),
        ('did we see {object} moving',),
    ),
    'qa/object_stop': Wordings(('did {object} stop',), ('did {object} come to a stop',)),
    'qa/object_start': Wordings(('did {object} start to move',), ('did {object} begin to move',)),
    'qa/object_pass': Wordings(
        ('did we pass {object}', 'did we drive past {object}'), ('did you see us pass {object}',)
    ),
    'qa/object_passes_us': Wordings(
        ('did {object} pass us', 'did {object} go past us'), ('did you see {object} pass us',)
    ),
    'qa/what': Wordings(
        (
            'what is {object}',
            'can you say what {object} is',
        ),
        ('please say what {object} is',),
    ),
    'qa/colour': Wordings(
        (
            'what colour is {object}',
            'which colour does {object} have',
        ),
        ('what is the colour of {object}',),
    ),
    'qa/moving': Wordings(
        (
            'is {object} moving',
            'does {object} move',
        ),
        ('do you see {object} moving',),
    ),
    'qa/side': Wordings(
        (
            'on which side is {object}',
            'which side of us is {object}',
        ),
        ('on which side of us is {object}',),
    ),
    'qa/there': Wordings(
        (
            'is there {a} {side}',
            'is {a} {side}',
            'do you see {a} {side}',
        ),
        ('can you see {a} {side}',),
    ),
    'qa/place': Wordings(
        (
            'in which place is {object}',
            'what place is {object} at',
        ),
        ('at what place is {object}',),
    ),
    'conversation/count': Wordings(
        (
            'how many {things} are there',
            'how many {things} do you see',
            'how many {things} are visible',
        ),
        ('how many {things} can you see',),
    ),
    'conversation/count_side': Wordings(
        (
            'how many {things} are {side}',
            'how many {things} do you see {side}',
        ),
        ('how many {things} can you see {side}',),
    ),
    'conversation/there': Wordings(
        (
            'is there {a}',
            'do you see {a}',
        ),
        ('can you see {a}',),
    ),
    'conversation/caption': Wordings(
        (
            'describe {object}',
            'what can you say about {object}',
        ),
        ('please describe {object}',),
    ),
    'conversation/caption_here': Wordings(
        (
            'describe <here>',
            'what is <here>',
            'describe the object at <here>',
            'what can you see at <here>',
        ),
        (
            'please describe <here>',
            'what do you see at <here>',
        ),
    ),
    'conversation/scene': Wordings(
        (
            'describe the scene',
            'what do you see',
            'what is there around us',
        ),
        ('please describe what you see',),
    ),
    'conversation/ego': Wordings(
        (
            'what does the ego car do',
            'what do we do',
        ),
        ('what do you see us do',),
    ),
    'reasoning/after': Wordings(
        ('what does {subject} do after {event}', 'what does {subject} do next after {event}'),
        ('after {event} what does {subject} do',),
    ),
    'reasoning/before': Wordings(
        ('what does {subject} do before {event}', 'what does {subject} do last before {event}'),
        ('before {event} what does {subject} do',),
    ),
    'reasoning/when_after': Wordings(
        (
            'when does {subject} {does} after {event}',
            'at what time does {subject} {does} after {event}',
        ),
        ('after {event} when does {subject} {does}',),
    ),
    'reasoning/first': Wordings(
        ('what happens first , {one} or {other}', 'which is first , {one} or {other}'),
        ('which happens first , {one} or {other}',),
    ),
    'reasoning/ago': Wordings(
        ('where was {object} {seconds} ago', '{seconds} ago where was {object}'),
        ('can you say where {object} was {seconds} ago',),
    ),
    'reasoning/closer': Wordings(
        ('does {object} come closer or go away', 'how does the distance to {object} change'),
        ('does {object} go away or come closer',),
    ),
    'reasoning/often': Wordings(
        ('how often does {subject} {does}', 'how many times does {subject} {does}'),
        ('how often did {subject} {does}',),
    ),
    'choice/colour': Wordings(
        ('what colour is {object}', 'which colour does {object} have'),
        ('what is the colour of {object}',),
    ),
    'choice/side': Wordings(
        ('where is {object}', 'on which side is {object}'), ('which side of us is {object}',)
    ),
    'choice/count': Wordings(
        ('how many {things} are there', 'how many {things} do you see'),
        ('how many {things} are visible',),
    ),
    'choice/first': Wordings(
        ('what happens first', 'which of these happens first'), ('which is first',)
    ),
    'choice/does': Wordings(
        ('what does {object} do', 'what do you see {object} do'), ('what did {object} do',)
    ),
    'choice/distance': Wordings(
        ('how does the distance to {object} change', 'does {object} come closer or go away'),
        ('how did the distance to {object} change',),
    ),
    'choice/unseen': Wordings(
        ('which of these is not visible at any time', 'which of these do you not see'),
        ('which of these can you not see',),
    ),
    'choice/often': Wordings(
        ('how often does the ego car {does}', 'how many times does the ego car {does}'),
        ('how often did the ego car {does}',),
    ),
}


class Voice:
    """Chooses wordings: `seen` ones, `unseen` ones, or `both` alike, by a seeded generator."""

    CHOICES = ('seen', 'unseen', 'both')

    def __init__(self, rng, which='seen'):
        if which not in self.CHOICES:
            raise ValueError(f'wordings={which!r}; choose one of {", ".join(self.CHOICES)}.')
        self.rng, self.which = rng, which

    def sentence(self, family):
        """A template of a family; a held-out one for `unseen`."""
        return self._one(FAMILIES[family], self.which)

    def expression(self, form):
        """A template of a form; beside a held-out sentence also one of those to train with."""
        return self._one(EXPRESSIONS[form], 'seen' if self.which == 'seen' else 'both')

    def pick(self, items):
        """One of the items."""
        return items[int(self.rng.integers(len(items)))]

    def chance(self, share):
        """True in so many of all cases."""
        return bool(self.rng.random() < share)

    def _one(self, wordings, which):
        if which == 'both':
            return self.pick((*wordings.seen, *wordings.unseen))
        return self.pick(getattr(wordings, which))


_UNSEEN_EXPRESSIONS = {one for form in EXPRESSIONS.values() for one in form.unseen}
_SEEN_EXPRESSIONS = {one for form in EXPRESSIONS.values() for one in form.seen}


def split_of(question):
    """'seen' or 'unseen': whether any part of a question's wording is held out.

    Raises ValueError for a wording that is in no table.
    """
    family = FAMILIES.get(question.family)
    sentence, *expressions = question.wording.split(' | ')
    known = family and sentence in (*family.seen, *family.unseen)
    if not known or any(one not in _SEEN_EXPRESSIONS | _UNSEEN_EXPRESSIONS for one in expressions):
        raise ValueError(
            f'question of family {question.family!r}: its wording {question.wording!r} is not in '
            'questions/wordings.py. Make the questions again.'
        )
    unseen = sentence in family.unseen or any(one in _UNSEEN_EXPRESSIONS for one in expressions)
    return 'unseen' if unseen else 'seen'

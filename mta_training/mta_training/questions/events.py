"""What happens in a part of a scene, in order: the ego car, and objects that a noun and a colour
alone name, stop, start to move, turn, pass, come near."""

from typing import NamedTuple

import numpy as np

from mta_training.questions import conditions as c
from mta_training.questions import predicates as p
from mta_training.questions.moments import named_objects
from mta_training.questions.scene_facts import runs

EGO = 'the ego car'
NEAR_M = 10  # 'comes within 10 meters of us'
STOPS, STARTS, PASSES = 'stops', 'starts to move', 'passes us'
TURNS = {'left': 'turns left', 'right': 'turns right'}
NEARS = f'comes within {NEAR_M} meters of us'
_PLAIN = {'stops': 'stop', 'starts': 'start', 'passes': 'pass', 'comes': 'come', 'turns': 'turn'}


class Event(NamedTuple):
    """Something that happens at a frame."""

    frame: int
    subject: str  # 'the bus'
    does: str  # 'stops', 'passes the bus'
    span: tuple  # (first, last) frame, inclusive
    instance: str  # '' for the ego car

    @property
    def words(self):
        """'the bus stops'."""
        return f'{self.subject} {self.does}'

    @property
    def asked(self):
        """'stop': what follows 'does the bus'."""
        return plain_verb(self.does)


def plain_verb(does):
    """'pass us' of 'passes us'."""
    verb, *rest = does.split()
    return ' '.join([_PLAIN[verb], *rest])


def events_of(facts, first, now):
    """List of Events of the frames first to now, in order; each object under one name."""
    window = slice(first, now + 1)
    known = np.ones(facts.frames, bool)
    found = _changes(EGO, '', facts.speed, known)
    for hand, does in TURNS.items():
        for a, b in runs(p.ego_turns(facts, hand)[window], first):
            found.append((a, EGO, does, (a, b), ''))
    names = {}
    for words, track in named_objects(facts, window):
        names.setdefault(track.instance, (words, track))
    for words, track in names.values():
        found += _events_of_object(facts, words, track, window, first)
    inside = [Event(*one) for one in found]
    inside = [one for one in inside if first + 1 <= one.frame <= now - 1]
    cut = [one._replace(span=(max(one.span[0], first), min(one.span[1], now))) for one in inside]
    return sorted(cut, key=lambda event: (event.frame, event.words))


def _changes(subject, instance, speed, known):
    found = []
    for does, frames in ((STOPS, p.stops(speed, known)), (STARTS, p.starts(speed, known))):
        found += [(k, subject, does, (k - 2, k + 1), instance) for k in frames]
    return found


def _events_of_object(facts, words, track, window, first):
    own = track.instance
    found = [(k, words, PASSES, (k - 2, k + 1), own) for k in p.passes(facts, track)]
    found += [(k, EGO, f'passes {words}', (k - 2, k + 1), '') for k in p.passed(facts, track)]
    for a, b in runs(p.near(track, NEAR_M)[window], first):
        found.append((a, words, NEARS, (a, b), track.instance))
    if track.name not in c.STILL:
        found += _changes(words, track.instance, track.speed, p.in_view(track))
    return found


def clear_order(earlier, later, gap=2):
    """Whether one event clearly comes before another, so many frames (half seconds) or more."""
    return later.frame - earlier.frame >= gap


def kept_state(facts, instance, first, now):
    """'it keeps moving' or 'it keeps standing still' from one frame to another, or None."""
    window = slice(first, now + 1)
    if instance:
        track = facts.track(instance)
        if not p.in_view(track)[window].all() or track.name in c.STILL:
            return None
        state = p.moving(track.speed)[window]
    else:
        state = p.moving(np.abs(facts.speed))[window]
        if any(p.ego_turns(facts, hand)[window].any() for hand in TURNS):
            return None
    if state.all():
        return 'it keeps moving'
    return None if state.any() else 'it keeps standing still'

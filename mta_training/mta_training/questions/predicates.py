"""When something is so, over the frames of a scene: (T,) bool arrays from SceneFacts.

States of objects count only in frames in which they are seen.  Events are frames in which a state
changes, with hysteresis between standing and moving.
"""

import numpy as np

from mta_training.questions import conditions as c
from mta_training.questions.scene_facts import TURN_RADPS

PASS_M = 15.0  # how near something has to be when we pass each other
STEADY = 2  # frames that a state lasts before its change is an event


def of_noun(facts, noun):
    """ObjectTracks that a noun names; None where captions would have to say it and do not."""
    chosen = []
    for track in facts.objects:
        told = [one.thing.noun for one in track.told if one is not None]
        thing = _Named(track.name, told[0] if told else '', track.rider)
        is_one = c.is_a(thing, noun)
        if is_one is None:
            return None
        if is_one:
            chosen.append(track)
    return chosen


class _Named:
    def __init__(self, name, noun, rider):
        self.name, self.noun, self.rider = name, noun, rider


def in_view(track):
    """(T,) bool: seen, or hidden in a single frame between two in which it is seen."""
    around = np.pad(track.seen, 1)
    return track.seen | (around[:-2] & around[2:] & ~np.isnan(track.boxes[:, 0]))


def near(track, metres):
    """Frames in which an object is seen within so many metres."""
    with np.errstate(invalid='ignore'):
        return in_view(track) & (track.distance < metres)


def at_side(track, side):
    """Frames in which an object is seen on one of conditions.SIDES."""
    centre, half_width = c.SIDES[side]
    with np.errstate(invalid='ignore'):
        return in_view(track) & (
            np.abs((track.bearing - centre + 180.0) % 360.0 - 180.0) < half_width
        )


def moves(track):
    """Frames in which an object is seen moving."""
    return in_view(track) & moving(track.speed)


def crosses(track):
    """Frames in which a pedestrian is seen crossing the road, as its captions say."""
    told = [one is not None and one.motion == 'crossing the road' for one in track.told]
    return in_view(track) & np.array(told, bool)


def any_of(arrays, frames):
    """Frames in which one of them is true."""
    return np.any([np.zeros(frames, bool), *arrays], axis=0)


def moving(speed):
    """(T,) bool: moving, with hysteresis (from MOVES_MPS on, until below STANDS_MPS); unknown
    speeds change nothing."""
    state, result = bool(np.nan_to_num(speed[0]) >= c.MOVES_MPS), []
    for value in speed:
        if value >= c.MOVES_MPS:
            state = True
        elif value < c.STANDS_MPS:
            state = False
        result.append(state)
    return np.array(result)


def stops(speed, known):
    """Frames from which on something stands that moved before; `known` (T,) where it is seen."""
    return _changes(~moving(np.abs(speed)), known)


def starts(speed, known):
    """Frames from which on something moves that stood before."""
    return _changes(moving(np.abs(speed)), known)


def _changes(state, known):
    found = np.flatnonzero(state[1:] & ~state[:-1]) + 1
    kept = []
    for frame in found.tolist():
        before, after = slice(frame - STEADY, frame), slice(frame, frame + STEADY)
        steady = (
            frame >= STEADY
            and not state[before].any()
            and state[after].all()
            and known[frame - STEADY : frame + STEADY].all()
        )
        if steady:
            kept.append(frame)
    return kept


def passed(facts, track):
    """Frames in which the ego, moving, leaves an object behind, within PASS_M of it."""
    ours = facts.speed >= c.MOVES_MPS
    return [k for k in _abreast(track) if ours[k] and not track.boxes[k, 0] > 0]


def passes(facts, track):
    """Frames in which an object, moving, passes the ego: overtakes it, or goes by as it stands."""
    ours = passed(facts, track)
    return [k for k in _abreast(track) if k not in ours and track.speed[k] >= c.MOVES_MPS]


def _abreast(track):
    """Frames in which it is on the other side of our front than in the frame before."""
    ahead, seen = track.boxes[:, 0] > 0, in_view(track)
    crossed = seen[1:] & seen[:-1] & (ahead[1:] != ahead[:-1])
    return [k for k in (np.flatnonzero(crossed) + 1).tolist() if track.distance[k] < PASS_M]


def ego_turns(facts, hand):
    """Frames in which the ego turns 'left' or 'right'."""
    rate = facts.yaw_rate if hand == 'left' else -facts.yaw_rate
    return (rate > TURN_RADPS) & (np.abs(facts.speed) > 0.5)


def around(events, frames, before=2, after=1):
    """(T,) bool of the frames around events: what leads to them, and the one after."""
    truth = np.zeros(frames, bool)
    for frame in events:
        truth[max(frame - before, 0) : frame + after + 1] = True
    return truth

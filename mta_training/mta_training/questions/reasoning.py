"""Questions that need an order of events or a comparison in time: what the bus does after the
cyclist passes, what happens first, where something was, whether it comes closer."""

from mta_perception.answers import NEVER
from mta_training.questions import conditions as c
from mta_training.questions.conversation import talk
from mta_training.questions.events import (
    EGO,
    STARTS,
    STOPS,
    TURNS,
    clear_order,
    events_of,
    kept_state,
    plain_verb,
)
from mta_training.questions.expressions import find
from mta_training.questions.question import Question
from mta_training.questions.scene_facts import STEP_S, saliency

AGO_S = (1, 2, 3, 4, 5, 8)
CLOSER_M, CLOSER_S = 1.5, 2.0  # that something comes or goes, in this time
_FORMS = ('plain', 'side', 'sector', 'order', 'order_side', 'distance', 'place')
TIMES = ('never', 'once')


def reasoning(facts, first, now, voice, name):
    """A Question that needs more than one frame, `name` a key of REASONINGS; None where none was
    found."""
    return REASONINGS[name](facts, first, now, voice)


def _pair(facts, first, now, voice):
    """Two events with a clear order, earlier one first, that happen once each; None without."""
    events = events_of(facts, first, now)
    once = [one for one in events if sum(other.words == one.words for other in events) == 1]
    pairs = [(a, b) for a in once for b in once if clear_order(a, b)]
    return (*voice.pick(pairs), events) if pairs else None


def _next(voice, of, events, subject, now, facts):
    """('it stops', its span) of what a subject does next after an event, with None for the span
    where it goes on as it is; None where that is not clear."""
    later = [one for one in events if one.subject == subject and one.frame > of.frame]
    if later and clear_order(of, later[0]):
        return f'it {later[0].does}', later[0].span
    if later or now - of.frame < 4:
        return None
    instance = next((one.instance for one in events if one.subject == subject), '')
    words = kept_state(facts, instance, of.frame, now)
    return words and (words, None)


def _after(facts, first, now, voice):
    events = events_of(facts, first, now)
    if not events:
        return None
    of = voice.pick(events)
    if sum(one.words == of.words for one in events) > 1:
        return None
    subject = voice.pick(sorted({one.subject for one in events} | {EGO}))
    found = _next(voice, of, events, subject, now, facts)
    if found is None:
        return None
    words, span = found
    return _timed(facts, first, now, voice, 'reasoning/after', words, span, subject, of)


def _before(facts, first, now, voice):
    pair = _pair(facts, first, now, voice)
    if pair is None:
        return None
    earlier, of, events = pair
    own = [one for one in events if one.subject == earlier.subject and one.frame < of.frame]
    if own[-1] != earlier:
        return None
    words = f'it {earlier.does}'
    family = 'reasoning/before'
    return _timed(facts, first, now, voice, family, words, earlier.span, earlier.subject, of)


def _when_after(facts, first, now, voice):
    events = events_of(facts, first, now)
    if len(events) < 2:
        return None
    of, asked = voice.pick(events), voice.pick(events)
    if sum(one.words == of.words for one in events) > 1 or asked.words == of.words:
        return None
    later = [one for one in events if one.words == asked.words and one.frame > of.frame]
    if (later and not clear_order(of, later[0])) or abs(asked.frame - of.frame) < 2:
        return None
    return _timed(
        facts,
        first,
        now,
        voice,
        'reasoning/when_after',
        'it is then' if later else NEVER,
        later[0].span if later else None,
        asked.subject,
        of,
        does=asked.asked,
    )


def _timed(facts, first, now, voice, family, words, span, subject, of, **slots):
    sentence = voice.sentence(family)
    truth = [span is not None and span[0] <= k <= span[1] for k in range(first, now + 1)]
    return Question(
        scene=facts.name,
        first=first,
        now=now,
        text=sentence.format(subject=subject, event=of.words, **slots),
        answer=f'{words} <time>' if span else words,
        kind='time',
        family=family,
        wording=sentence,
        spans=(span,) if span else (),
        saliency=tuple(saliency(truth).tolist()),
        reasoning=True,
    )


def _first(facts, first, now, voice):
    pair = _pair(facts, first, now, voice)
    if pair is None:
        return None
    earlier, later, _ = pair
    named = (earlier, later) if voice.chance(0.5) else (later, earlier)
    sentence = voice.sentence('reasoning/first')
    return talk(
        facts,
        first,
        now,
        'reasoning/first',
        sentence,
        sentence.format(one=named[0].words, other=named[1].words),
        earlier.words,
        reasoning=True,
    )


def _ago(facts, first, now, voice):
    """'where was the bus 3 seconds ago', as seen from where we were then."""
    found = find(voice, c.seen_in(facts, now), _FORMS)
    seconds = voice.pick(AGO_S)
    frame = now - round(seconds / STEP_S)
    if found is None or frame < first:
        return None
    track = facts.track(found.meant[0].instance)
    sector = c.sector_within(track.bearing[frame]) if track.seen[frame] else None
    if sector is None:
        return None
    sentence = voice.sentence('reasoning/ago')
    return talk(
        facts,
        first,
        now,
        'reasoning/ago',
        f'{sentence} | {found.wording}',
        sentence.format(object=found.words, seconds=seconds_words(seconds)),
        f'about {round(track.distance[frame])} meters away in the {sector}',
        instances=(track.instance,),
        reasoning=True,
    )


def seconds_words(seconds):
    """'1 second', '3 seconds'."""
    return '1 second' if seconds == 1 else f'{seconds} seconds'


def comes_closer(track, first, now):
    """'it comes closer', 'it goes away' or 'it stays as far away' between two frames; None where
    it is not seen in both or the change is between."""
    if not (track.seen[first] and track.seen[now]):
        return None
    change = track.distance[now] - track.distance[first]
    if abs(change) < 0.4 * CLOSER_M:
        return 'it stays as far away'
    if abs(change) < CLOSER_M:
        return None
    return 'it comes closer' if change < 0 else 'it goes away'


def _closer(facts, first, now, voice):
    found = find(voice, c.seen_in(facts, now), _FORMS)
    frame = now - round(CLOSER_S / STEP_S)
    if found is None or frame < first:
        return None
    track = facts.track(found.meant[0].instance)
    words = comes_closer(track, frame, now)
    if words is None:
        return None
    sentence = voice.sentence('reasoning/closer')
    return talk(
        facts,
        first,
        now,
        'reasoning/closer',
        f'{sentence} | {found.wording}',
        sentence.format(object=found.words),
        words,
        instances=(track.instance,),
        reasoning=True,
    )


def times(count):
    """'never', 'once', '2 times'."""
    return TIMES[count] if count < len(TIMES) else f'{count} times'


def _often(facts, first, now, voice):
    does = voice.pick((STOPS, STARTS, *TURNS.values()))
    count = sum(one.words == f'{EGO} {does}' for one in events_of(facts, first, now))
    if not count and voice.chance(0.7):
        return None  # most of what is asked about never happens
    sentence = voice.sentence('reasoning/often')
    return talk(
        facts,
        first,
        now,
        'reasoning/often',
        sentence,
        sentence.format(subject=EGO, does=plain_verb(does)),
        times(count),
        reasoning=True,
    )


REASONINGS = {
    'after': _after,
    'before': _before,
    'when_after': _when_after,
    'first': _first,
    'ago': _ago,
    'closer': _closer,
    'often': _often,
}

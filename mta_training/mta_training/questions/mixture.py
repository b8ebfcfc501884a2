"""All questions of a scene, drawn by a seed: how many, of which group, asked at which frames."""

import zlib

import numpy as np

from mta_training.questions.choices import OF_FRAME, OF_TIME, SPANS, choice
from mta_training.questions.conversation import TALKS, conversation
from mta_training.questions.grounded import ASKED, TIMED, grounded
from mta_training.questions.grounding import referring
from mta_training.questions.moments import MOMENTS, moment
from mta_training.questions.question import KINDS
from mta_training.questions.reasoning import REASONINGS, reasoning
from mta_training.questions.wordings import Voice

MEMORY_FRAMES = 41  # 20 s at 2 Hz, both ends included
LEAST_MEMORY = 8  # frames; a question about time is asked with so many behind it
# Groups and how often each is asked, relative to the others.
MIXTURE = {
    'grounding': 3.0,
    'moment': 2.0,
    'mask': 1.0,
    'track': 1.0,
    'qa': 1.0,
    'choice': 1.0,
    'reasoning': 1.0,
    'conversation': 2.0,
}
_NAMES, _TRIES = 3, 6


def questions_of_scene(facts, seed, *, per_frame=4.0, mixture=None, kinds=KINDS, wordings='seen'):
    """List of Questions of SceneFacts, the same for the same arguments; in the order of `now`.

    per_frame  how many, on average, for each frame of the scene
    mixture    {group: share}, or None for MIXTURE; a group that is not named is not asked
    kinds      only questions of these kinds
    wordings   'seen', 'unseen' (held out) or 'both'
    """
    shares = checked_mixture(mixture)
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f'kinds: {sorted(unknown)} unknown; choose among {", ".join(KINDS)}.')
    rng = np.random.default_rng([seed, zlib.crc32(facts.name.encode())])
    voice = Voice(rng, wordings)
    groups = sorted(name for name, share in shares.items() if share > 0)
    chances = np.array([shares[name] for name in groups]) / sum(shares.values())
    found, texts = [], set()
    for _ in range(round(per_frame * facts.frames)):
        group = groups[int(rng.choice(len(groups), p=chances))]
        question = _one(facts, group, voice, kinds, texts)
        if question is not None:
            texts.add((question.now, question.text))
            found.append(question)
    return sorted(found, key=lambda question: question.now)


def checked_mixture(mixture):
    """A mixture with every name known and some share above zero; raises ValueError."""
    shares = dict(MIXTURE if mixture is None else mixture)
    unknown = sorted(set(shares) - set(MIXTURE))
    if unknown:
        raise ValueError(f'mixture: {unknown} unknown; choose among {", ".join(MIXTURE)}.')
    if min(shares.values(), default=0.0) < 0 or not sum(shares.values()) > 0:
        raise ValueError(f'mixture={shares}: expected shares of 0 or more, one of them above 0.')
    return shares


def _one(facts, group, voice, kinds, texts):
    """A Question of a group: a name in it is chosen first, so that what can always be asked does
    not crowd out what rarely happens; None where nothing new of the kinds was found."""
    for _ in range(_NAMES):
        name = voice.pick(_NAMES_OF[group])
        least = LEAST_MEMORY if group in _IN_TIME or name in TIMED else 0
        if facts.frames <= least:
            continue
        for _ in range(_TRIES):
            now = int(voice.rng.integers(least, facts.frames))
            first = max(0, now - MEMORY_FRAMES + 1)
            question = _ASK[group](facts, first, now, voice, name)
            new = question is not None and (question.now, question.text) not in texts
            if new and question.kind in kinds:
                return question
    return None


def _choice(facts, first, now, voice, name):
    return choice(facts, now, voice, *name)


_IN_TIME = ('moment', 'track', 'reasoning')
_ASK = {
    'grounding': referring,
    'moment': moment,
    'mask': referring,
    'track': referring,
    'qa': grounded,
    'choice': _choice,
    'reasoning': reasoning,
    'conversation': conversation,
}
_NAMES_OF = {
    'grounding': ('box',),
    'moment': tuple(MOMENTS),
    'mask': ('mask',),
    'track': ('track',),
    'qa': (*ASKED, *ASKED, *TIMED),
    'choice': tuple(
        (span, name) for span in SPANS for name in (OF_FRAME if span == 'short' else OF_TIME)
    ),
    'reasoning': tuple(REASONINGS),
    'conversation': tuple(TALKS),
}

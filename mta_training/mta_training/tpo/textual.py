"""Coordinates as words instead of heads: an ablation of TPO (arXiv 2412.19326), where the same
data as text helps less than heads do.

`<box>` becomes the centre on the ground, `<time>` the first span; whole metres and frames, since
the vocabulary has the numbers 0 to 100.
"""

from dataclasses import replace
import re

import numpy as np

from mta_training.questions.question import TASK_TOKENS

_OFFSET_M = 50  # x = -50 m is said as 0
_KINDS = ('box', 'time')  # masks and tracks are not said


def as_text(question, known):
    """The Question as one of words alone; known: its batches.Asked."""
    if question.kind not in _KINDS:
        return question
    answer = question.answer
    if question.answered:
        answer = answer.replace(TASK_TOKENS[question.kind], _numbers(question, known))
    return replace(
        question, kind='talk', answer=answer, instances=(), spans=(), saliency=(), options=()
    )


def _numbers(question, known):
    if question.kind == 'time':
        a, b = question.spans[0]
        return f'{a - question.first} {b - question.first}'
    x, y = known.facts.track(question.instances[0]).boxes[question.now, :2]
    return ' '.join(str(int(np.clip(round(float(v)) + _OFFSET_M, 0, 100))) for v in (x, y))


def read_text(question, shown):
    """Shown with the box or span that its words tell; question: the one with its task token."""
    if question.kind not in _KINDS:
        return shown
    numbers = [int(word) for word in re.findall(r'\d+', shown.said)][-2:]
    if len(numbers) < 2:
        return shown
    if question.kind == 'time':
        # Said from the question's first frame, shown from the window's, which may be later.
        a, b = (number + question.first - shown.window[0] for number in numbers)
        frames = np.arange(shown.window[1] - shown.window[0] + 1)
        spans = np.array([[a, b + 1.0]])
        inside = (frames >= a) & (frames <= b)
        return shown._replace(
            heads=('temporal',), spans=spans, scores=np.ones(1), saliency=inside.astype(float)
        )
    box = np.zeros(10)
    box[:2], box[3:6], box[7] = np.array(numbers) - _OFFSET_M, 1.0, 1.0
    return shown._replace(heads=('region',), box=box)

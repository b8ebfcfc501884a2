"""Metrics of answers in words: grounded question answering (NExT-GQA), multiple choice by the
length of what is asked about, plain answers.

Two answers are the same when their words are, task tokens left out.
"""

import re
from typing import NamedTuple

import numpy as np

from mta_training.evaluation.answers_space import grounding_scores
from mta_training.evaluation.answers_time import shared_length, span_iou
from mta_training.questions.choices import LETTERS, SHORT
from mta_training.questions.question import TASK_TOKENS

GROUNDED_IOP = 0.5  # from which on an answer is grounded


class TimedAnswer(NamedTuple):
    """An answer with the span that shows it."""

    said: str
    true: str
    span: object  # (2,) frames of the window, the best; None = nothing shown
    true_spans: np.ndarray  # (n, 2); n = 0: there is nothing to show


class PlacedAnswer(NamedTuple):
    """An answer with the box that shows it."""

    said: str
    true: str
    place: object  # answers_space.GroundedAnswer


class ChoiceAnswer(NamedTuple):
    """An answer to a question with options."""

    said: str
    options: tuple
    right: int
    frames: int  # that the question is about
    scene_frames: int


class WordsAnswer(NamedTuple):
    """An answer in words alone."""

    said: str
    true: str


def plain_words(answer):
    """Words of an answer: lower case, punctuation apart, without task tokens and a final stop."""
    words = re.sub(r'([.,;:!?])', r' \1 ', answer.lower()).split()
    return ' '.join(word for word in words if word not in TASK_TOKENS.values()).rstrip(' .')


def same_words(said, true):
    """Whether two answers have the same words."""
    return plain_words(said) == plain_words(true)


def timed_answer_scores(answers):
    """Dict of a list of TimedAnswers.

    `accuracy` and `none` are of all and of those with nothing to show; the others of those with a
    true span.  IoP is the share of the shown span that lies in the true one that it fits best;
    `Acc@GQA`: right, and IoP 0.5 or more; `Acc@IoP`: of those with such an IoP, the right ones.
    """
    there = [one for one in answers if len(one.true_spans)]
    absent = [one for one in answers if not len(one.true_spans)]
    right = np.array([same_words(one.said, one.true) for one in there], bool)
    inside = np.array([_inside(one) for one in there])
    overlap = np.array(
        [0.0 if one.span is None else span_iou(one.span, one.true_spans).max() for one in there]
    )
    grounded = inside >= GROUNDED_IOP
    return {
        'questions': len(answers),
        'accuracy': _mean([same_words(one.said, one.true) for one in answers]),
        'Acc@GQA': _mean(right & grounded),
        'Acc@IoP': _mean(right[grounded]),
        'mIoP': _mean(inside),
        'IoP@0.3': _mean(inside >= 0.3),
        'IoP@0.5': _mean(grounded),
        'mIoU': _mean(overlap),
        'IoU@0.5': _mean(overlap >= 0.5),
        'none': _mean([one.span is None for one in absent]),
    }


def _inside(answer):
    if answer.span is None:
        return 0.0
    span = np.asarray(answer.span, np.float64).reshape(1, 2)
    length = max(float(span[0, 1] - span[0, 0]), 1e-9)
    return float(shared_length(span, np.asarray(answer.true_spans)).max()) / length


def placed_answer_scores(answers):
    """Dict of a list of PlacedAnswers: `accuracy` of the words, grounding_scores of the places,
    and `acc_and_2m`: right words and a box within 2 m, of those with something to show."""
    there = [one for one in answers if len(one.place.boxes)]
    both = [
        same_words(one.said, one.true) and grounding_scores([one.place])['acc_2m'] == 1.0
        for one in there
    ]
    return {
        **grounding_scores([one.place for one in answers]),
        'accuracy': _mean([same_words(one.said, one.true) for one in answers]),
        'acc_and_2m': _mean(both),
    }


def chosen_option(said, options):
    """Which of the options an answer names, by its words or its letter ('b', 'b : blue'); -1 for
    none."""
    words = plain_words(said)
    if words in options:  # 'a car' is an option, not the letter a
        return options.index(words)
    letter = words.replace(':', ' ').split()[:1]
    if letter and letter[0] in LETTERS[: len(options)]:
        return LETTERS.index(letter[0])
    return -1


def choice_scores(answers):
    """Dict of a list of ChoiceAnswers: `accuracy` of all; of `short` (1 to 3 frames), `whole` (all
    of the scene) and `middle` ones; and `chance`, what guessing would give."""
    right = np.array([chosen_option(one.said, one.options) == one.right for one in answers], bool)
    lengths = np.array([_length(one) for one in answers])
    return {
        'questions': len(answers),
        'accuracy': _mean(right),
        **{name: _mean(right[lengths == name]) for name in ('short', 'middle', 'whole')},
        'chance': _mean([1.0 / len(one.options) for one in answers]),
    }


def _length(answer):
    if answer.frames <= SHORT[1]:
        return 'short'
    return 'whole' if answer.frames >= answer.scene_frames else 'middle'


def words_scores(answers):
    """Dict of a list of WordsAnswers: `exact`, the share with the same words."""
    return {
        'questions': len(answers),
        'exact': _mean([same_words(one.said, one.true) for one in answers]),
    }


def _mean(values):
    values = np.asarray(values, np.float64)
    return float(values.mean()) if values.size else None

"""Metrics of answers that show when: moments and highlights (QVHighlights), T frames of a memory.

Spans are reals [start, end) in frames from the window's first on: Question.spans (a, b) are
(a - first, b + 1 - first), which `window_spans` makes of them.  A question about what does not
happen is right when nothing is shown, and is judged by `none` alone.
"""

from typing import NamedTuple

import numpy as np

RECALL_IOUS = (0.3, 0.5, 0.7)
AP_IOUS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
HIGH = 0.75  # a saliency from which on a frame is a highlight


class MomentAnswer(NamedTuple):
    """What was shown for one question about when, and the truth."""

    spans: np.ndarray  # (R, 2), any order
    scores: np.ndarray  # (R,)
    saliency: np.ndarray  # (T,) said
    true_spans: np.ndarray  # (n, 2); n = 0: it does not happen
    true_saliency: np.ndarray  # (T,) 0 to 1
    shown: bool = True  # False: the answer was that it does not happen; `spans` are ignored


def window_spans(question):
    """(n, 2) true spans of a Question in frames of its window."""
    spans = np.array(question.spans, np.float64).reshape(-1, 2)
    return spans - question.first + [0.0, 1.0]


def span_iou(spans_a, spans_b):
    """(n, m) overlaps of spans (n, 2) and (m, 2)."""
    a, b = (np.asarray(spans, np.float64).reshape(-1, 2) for spans in (spans_a, spans_b))
    shared = shared_length(a, b)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None] - shared
    return shared / np.maximum(union, 1e-9)


def shared_length(spans_a, spans_b):
    """(n, m) lengths that spans (n, 2) and (m, 2) share."""
    end = np.minimum(spans_a[:, None, 1], spans_b[None, :, 1])
    return np.maximum(end - np.maximum(spans_a[:, None, 0], spans_b[None, :, 0]), 0.0)


def moment_scores(answers):
    """Dict of a list of MomentAnswers.

    `R1@x`: the best span's overlap with the true span that it fits best is x or more; `mIoU`: the
    mean of that overlap; `mAP`: average precision over the spans of a question, its mean over
    questions, and over the overlaps 0.5 to 0.95; `HIT@1`: the most salient frame is a highlight.
    """
    there = [one for one in answers if len(one.true_spans)]
    absent = [one for one in answers if not len(one.true_spans)]
    best = np.array([_best_iou(one) for one in there])
    precision = np.array([[average_precision(one, x) for x in AP_IOUS] for one in there])
    by_iou = dict(zip(AP_IOUS, precision.T)) if there else {}
    bright = [one for one in there if (np.asarray(one.true_saliency) >= HIGH).any()]
    hits = [one.true_saliency[int(np.argmax(one.saliency))] >= HIGH for one in bright]
    return {
        'questions': len(there),
        'absent': len(absent),
        **{f'R1@{least}': _mean(best >= least) for least in RECALL_IOUS},
        'mIoU': _mean(best),
        'mAP': _mean(precision),
        'mAP@0.5': _mean(by_iou.get(0.5, ())),
        'mAP@0.75': _mean(by_iou.get(0.75, ())),
        'HIT@1': _mean(hits),
        'none': _mean([not one.shown or not len(one.spans) for one in absent]),
    }


def shown_spans(answer):
    """(R, 2) spans of an answer, the best first; none where nothing was shown."""
    if not answer.shown:
        return np.zeros((0, 2))
    order = np.argsort(-np.asarray(answer.scores), kind='stable')
    return np.asarray(answer.spans, np.float64).reshape(-1, 2)[order]


def _best_iou(answer):
    spans = shown_spans(answer)
    return float(span_iou(spans[:1], answer.true_spans).max()) if len(spans) else 0.0


def average_precision(answer, least):
    """Of one answer's spans, at an overlap: the best first, each takes the free true span that it
    fits best; area under the precision made monotone (ActivityNet's)."""
    spans = shown_spans(answer)
    overlap = span_iou(spans, answer.true_spans)
    free, right = np.ones(len(answer.true_spans), bool), np.zeros(len(spans), bool)
    for k in range(len(spans)):
        fit = np.where(free, overlap[k], -1.0)
        if fit.max() >= least:
            free[int(np.argmax(fit))], right[k] = False, True
    precision = np.cumsum(right) / np.arange(1, len(spans) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(monotone[right].sum() / len(answer.true_spans))


def _mean(values):
    values = np.asarray(values, np.float64)
    return float(values.mean()) if values.size else None

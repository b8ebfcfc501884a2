"""How good answers are: what was said and shown against what is true, as one dict of metrics.

assignment   share of questions of each kind whose first task token is the right one, or that
             have none where none belongs
region ...   evaluation.answers_space, answers_time, answers_words of each group of questions
unseen       the same of the questions whose wording is held out, where there are both
"""

import numpy as np
import torch

from mta_perception.answers import MASK_SCALE
from mta_training.evaluation.answers_space import (
    GroundedAnswer,
    MaskAnswer,
    MaskTrack,
    TrackAnswer,
    grounding_scores,
    mask_scores,
    mask_track_scores,
    track_scores,
)
from mta_training.evaluation.answers_time import MomentAnswer, moment_scores
from mta_training.evaluation.answers_words import (
    ChoiceAnswer,
    PlacedAnswer,
    TimedAnswer,
    WordsAnswer,
    choice_scores,
    placed_answer_scores,
    timed_answer_scores,
    words_scores,
)
from mta_training.evaluation.caption_scores import caption_scores
from mta_training.losses.tasks.footprints import footprint_masks
from mta_training.questions.question import TASK_TOKENS
from mta_training.questions.wordings import split_of
from mta_training.tpo.batches import true_mask, true_track
from mta_training.tpo.words import HEAD_OF, KIND_OF_HEAD

# Groups whose answers are words and a place or a time: judged by both.
GROUNDED_GROUPS = ('qa', 'reasoning')


def judge_answers(questions, shown, scenes, heads=tuple(KIND_OF_HEAD)):
    """Metrics of Questions and their Shown; scenes: {name: batches.Asked}.

    heads: names of those whose answers are judged
    """
    pairs = list(zip(questions, shown))
    metrics = _judge(pairs, scenes, heads)
    unseen = [pair for pair in pairs if split_of(pair[0]) == 'unseen']
    if 0 < len(unseen) < len(pairs):
        seen = [pair for pair in pairs if split_of(pair[0]) == 'seen']
        metrics['seen'] = _judge(seen, scenes, heads)
        metrics['unseen'] = _judge(unseen, scenes, heads)
    return metrics


def _judge(pairs, scenes, heads):
    metrics = {'questions': len(pairs), 'assignment': assignment(pairs)}
    for name, (head, judge) in _PARTS.items():
        scores = judge(pairs, scenes) if head is None or head in heads else None
        if scores is not None:
            metrics[name] = scores
    return metrics


def assignment(pairs):
    """{kind: share of right first task tokens} and 'all'."""
    right = {}
    for question, shown in pairs:
        wanted = TASK_TOKENS[question.kind] if question.answered else None
        first = shown.heads[0] if shown.heads else None
        right.setdefault(question.kind, []).append(first == HEAD_OF.get(wanted))
    everything = [value for values in right.values() for value in values]
    return {name: float(np.mean(values)) for name, values in {**right, 'all': everything}.items()}


def _of_kind(pairs, head, grounded=False):
    """The pairs that a head answers; grounded: those with an answer in words besides."""
    return [
        (question, shown)
        for question, shown in pairs
        if question.kind == KIND_OF_HEAD[head] and (question.group in GROUNDED_GROUPS) == grounded
    ]


def _region(pairs, scenes):
    answers = [_place(*pair, scenes) for pair in _of_kind(pairs, 'region')]
    return grounding_scores(answers) if answers else None


def _place(question, shown, scenes):
    known = scenes[question.scene]
    boxes = [known.facts.track(one).boxes[question.now] for one in question.instances]
    found = [known.found[one][question.now] for one in question.instances]
    return GroundedAnswer(
        shown.box,
        shown.pointed,
        np.stack(boxes) if boxes else np.zeros((0, 10)),
        tuple(sorted({int(row) for rows in found for row in rows})),
    )


def _temporal(pairs, scenes):
    del scenes
    answers = [_moment(*pair) for pair in _of_kind(pairs, 'temporal')]
    return moment_scores(answers) if answers else None


def true_spans(question, window):
    """(n, 2) [begin, end) in frames of a window (first, now); what lies before it is left out."""
    spans = [(max(a, window[0]), b) for a, b in question.spans if b >= window[0]]
    return np.array([(a - window[0], b + 1 - window[0]) for a, b in spans], float).reshape(-1, 2)


def _moment(question, shown):
    length = shown.window[1] - shown.window[0] + 1
    was_shown = shown.spans is not None
    saliency = np.asarray(question.saliency or np.zeros(length))[-length:]
    return MomentAnswer(
        shown.spans if was_shown else np.zeros((0, 2)),
        shown.scores if was_shown else np.zeros(0),
        shown.saliency if was_shown else np.zeros(length),
        true_spans(question, shown.window),
        saliency,
        was_shown,
    )


def _mask(pairs, scenes):
    answers = []
    for question, shown in _of_kind(pairs, 'mask'):
        known = scenes[question.scene]
        cells = MASK_SCALE * known.frames.bev.shape[-1]
        if question.instances:
            true = true_mask(known.facts, question, cells).numpy()
            name = known.facts.track(question.instances[0]).name
        else:
            true, name = np.zeros((cells, cells), bool), 'none'
        mask = np.zeros((cells, cells), bool) if shown.mask is None else shown.mask
        answers.append(MaskAnswer(mask, true, name))
    return mask_scores(answers) if answers else None


def _track(pairs, scenes):
    boxes, masks = [], []
    for question, shown in _of_kind(pairs, 'track'):
        known = scenes[question.scene]
        length = shown.window[1] - shown.window[0] + 1
        true, visible = np.zeros((length, 10)), np.zeros(length, bool)
        if question.instances:
            true, visible = (part[-length:] for part in true_track(known.facts, question))
        true[~visible, 3:6] = 1.0  # not read, but divided by
        track, seen = np.zeros((length, 10)), np.zeros(length, bool)
        if shown.track is not None:
            track, seen = shown.track, shown.seen
        boxes.append(TrackAnswer(track, seen, true, visible))
        cells = MASK_SCALE * known.frames.bev.shape[-1]
        # Frames in which it is seen alone: else who shows nothing is right wherever it is not.
        pairs_of = (track[visible], seen[visible]), (true[visible], visible[visible])
        if visible.any():
            masks.append(MaskTrack(*(_footprints(*part, cells) for part in pairs_of)))
    if not boxes:
        return None
    return {**track_scores(boxes), **(mask_track_scores(masks) if masks else {})}


def _footprints(boxes, there, cells):
    """(T, cells, cells) bool; empty where there is no box."""
    masks = np.zeros((len(boxes), cells, cells), bool)
    if there.any():
        chosen = torch.from_numpy(np.asarray(boxes[there], np.float32))
        masks[there] = footprint_masks(chosen, cells).numpy()
    return masks


def _placed(pairs, scenes):
    answers = [
        PlacedAnswer(shown.said, question.answer, _place(question, shown, scenes))
        for question, shown in _of_kind(pairs, 'region', grounded=True)
    ]
    return placed_answer_scores(answers) if answers else None


def _timed(pairs, scenes):
    del scenes
    answers = [
        TimedAnswer(
            shown.said,
            question.answer,
            None if shown.spans is None else shown.spans[0],
            true_spans(question, shown.window),
        )
        for question, shown in _of_kind(pairs, 'temporal', grounded=True)
    ]
    return timed_answer_scores(answers) if answers else None


def _choice(pairs, scenes):
    answers = [
        ChoiceAnswer(
            shown.said,
            question.options,
            question.right,
            question.now - question.first + 1,
            scenes[question.scene].facts.frames,
        )
        for question, shown in pairs
        if question.kind == 'choice'
    ]
    return choice_scores(answers) if answers else None


def _talk(pairs, scenes):
    """Conversation: exact answers, and caption scores of all of them together."""
    del scenes
    talk = [(shown.said, question.answer) for question, shown in pairs if question.kind == 'talk']
    if not talk:
        return None
    scores = words_scores([WordsAnswer(said, true) for said, true in talk])
    captions = caption_scores([true for _, true in talk], [said for said, _ in talk])
    return {**scores, 'CIDEr': captions['CIDEr'], 'BLEU_4': captions['BLEU_4']}


# Name in the metrics -> the head that is judged there, None for words alone; how.
_PARTS = {
    'region': ('region', _region),
    'temporal': ('temporal', _temporal),
    'mask': ('mask', _mask),
    'track': ('track', _track),
    'placed': ('region', _placed),
    'timed': ('temporal', _timed),
    'choice': (None, _choice),
    'talk': (None, _talk),
}

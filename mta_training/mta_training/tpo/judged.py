"""An evaluation as files: metrics.json, answers.jsonl, a sheet of pictures.

The questions are those of the held-out scenes for a fixed seed, of all groups in all wordings, so
that stages and runs are compared on the same ones.
"""

import json
from pathlib import Path
import time

import numpy as np

from mta_perception.atomic_files import write_atomically
from mta_perception.progress import Progress
from mta_training.questions.mixture import questions_of_scene
from mta_training.questions.wordings import split_of
from mta_training.tpo.answering import answer_all
from mta_training.tpo.evaluation import judge_answers
from mta_training.tpo.pictures import answer_sheet, chosen_for_sheet
from mta_training.tpo.textual import as_text, read_text
from mta_training.tpo.words import KIND_OF_HEAD

SEED = 90_000  # no stage asks with it
PER_FRAME = 1.0


def held_out_questions(scenes, per_frame=PER_FRAME, seed=SEED):
    """Questions of {name: batches.Asked}, half of them in wordings that are held out."""
    found = []
    for name in sorted(scenes):
        for wordings in ('seen', 'unseen'):
            facts = scenes[name].facts
            found += questions_of_scene(facts, seed, per_frame=per_frame / 2.0, wordings=wordings)
    return found


def judge_asker(
    asker, scenes, folder, per_frame=PER_FRAME, seed=SEED, textual=False, trained=True
):
    """Ask, judge, write into `folder`; returns the metrics.

    What belongs to a head that the model does not have is not asked.  textual: see textual.py;
    trained: the heads have learned something: else what they show is not judged
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    heads = ('region', 'temporal') if textual else asker.tasks.config.heads
    kinds = {KIND_OF_HEAD[head] for head in heads} | {'choice', 'talk'}
    questions = held_out_questions(scenes, per_frame, seed)
    questions = [question for question in questions if question.kind in kinds]
    if not questions:
        raise ValueError(
            f'{len(scenes)} held-out scenes, nothing to ask in them; name others (--val-bags).'
        )
    progress = Progress('questions answered', len(questions))
    started = time.monotonic()
    asks = [as_text(q, scenes[q.scene]) for q in questions] if textual else questions
    shown = answer_all(asker, asks, scenes, progress.advance)
    if textual:
        shown = list(map(read_text, questions, shown))
    seconds = time.monotonic() - started
    metrics = judge_answers(questions, shown, scenes, heads if trained else ())
    metrics['cost'] = {'seconds': seconds, 'questions_a_second': len(questions) / seconds}
    write_atomically(folder / 'metrics.json', json.dumps(metrics, indent=1))
    lines = [json.dumps(_line(*pair)) for pair in zip(questions, shown)]
    write_atomically(folder / 'answers.jsonl', '\n'.join(lines) + '\n')
    chosen = chosen_for_sheet(questions)
    sheet = answer_sheet([questions[i] for i in chosen], [shown[i] for i in chosen], scenes)
    write_atomically(folder / 'answers.png', sheet)
    return metrics


def _line(question, shown):
    """What one answer was, to read; without masks and tracks."""
    values = {
        'scene': question.scene,
        'now': question.now,
        'family': question.family,
        'wording': split_of(question),
        'asked': question.text,
        'true': question.answer,
        'said': shown.said,
    }
    if shown.box is not None:
        values |= {'pointed': shown.pointed, 'box': np.round(shown.box, 2).tolist()}
    if shown.spans is not None:
        values['span'] = [round(float(shown.window[0] + edge), 1) for edge in shown.spans[0]]
    return values


def told(metrics):
    """One line about metrics, for the terminal."""
    named = {
        'assigned': ('assignment', 'all'),
        'pointer': ('region', 'pointer'),
        'within 2 m': ('region', 'acc_2m'),
        'of the found': ('region', 'acc_2m_found'),
        'R1@0.5': ('temporal', 'R1@0.5'),
        'mask IoU': ('mask', 'iou'),
        'track success': ('track', 'success'),
        'choice': ('choice', 'accuracy'),
        'CIDEr': ('talk', 'CIDEr'),
    }
    parts = []
    for name, (part, key) in named.items():
        value = metrics.get(part, {}).get(key)
        parts.append(f'{name} -' if value is None else f'{name} {value:.2f}')
    return f'{metrics["questions"]} questions: ' + ', '.join(parts)

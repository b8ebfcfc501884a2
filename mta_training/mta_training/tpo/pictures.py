"""A sheet of answers: the bird's-eye view with what is true and what was shown, spans as bars.

Green is true, red is shown, grey is what the detector sees; x forward is up, y left is left, as in
the overlay.
"""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from mta_perception.answers import MASK_SCALE
from mta_perception.geometry import box_corners
from mta_training.tpo.batches import true_mask, true_track
from mta_training.tpo.evaluation import true_spans

RANGE_M = 51.2
TRUE, SHOWN, SEEN = '#1a9641', '#d7191c', '#b8b8b8'
_SCORE = 0.3  # of the detector's objects that are drawn
_COLUMNS, _SIDE, _DPI = 4, 4.2, 80  # inches a panel


def answer_sheet(questions, shown, scenes):
    """PNG bytes of some Questions and their Shown; scenes: {name: batches.Asked}."""
    rows = max(1, -(-len(questions) // _COLUMNS))
    figure = Figure(figsize=(_COLUMNS * _SIDE, rows * (_SIDE + 1.5)), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 * rows, _COLUMNS, squeeze=False, height_ratios=[_SIDE, 0.5] * rows)
    for axes in panels.flat:
        axes.axis('off')
    for index, (question, answer) in enumerate(zip(questions, shown)):
        row, column = 2 * (index // _COLUMNS), index % _COLUMNS
        known = scenes[question.scene]
        _draw_ground(panels[row, column], question, answer, known)
        _draw_bar(panels[row + 1, column], question, answer)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=_DPI)
    return buffer.getvalue()


def chosen_for_sheet(questions, count=8):
    """Indices of `count` questions, the kinds in turn, spread over the scenes; of what a head
    answers, those that have something to show where there are any."""
    of_kind = {}
    for index, question in enumerate(questions):
        of_kind.setdefault(question.kind, []).append(index)
    for kind, indices in of_kind.items():
        of_kind[kind] = [index for index in indices if questions[index].answered] or indices
    share = -(-count // max(1, len(of_kind)))
    spread = [
        [
            indices[i]
            for i in np.linspace(0, len(indices) - 1, min(share, len(indices))).astype(int)
        ]
        for indices in of_kind.values()
    ]
    turns = [indices[turn] for turn in range(share) for indices in spread if turn < len(indices)]
    return turns[:count]


def _draw_ground(axes, question, answer, known):
    axes.axis('on')
    axes.set(xlim=(RANGE_M, -RANGE_M), ylim=(-RANGE_M, RANGE_M), aspect='equal')
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(_title(question, answer), fontsize=7, loc='left')
    frames, now = known.frames, question.now
    likely = 1.0 / (1.0 + np.exp(-frames.class_logits[now].astype(np.float32).max(-1)))
    _outlines(axes, frames.boxes[now][likely > _SCORE], SEEN, 0.8)
    axes.plot(0.0, 0.0, marker='^', color='black', markersize=4)
    if question.kind == 'mask':
        cells = MASK_SCALE * frames.bev.shape[-1]
        if question.instances:
            _area(axes, true_mask(known.facts, question, cells).numpy(), TRUE)
        if answer.mask is not None:
            _area(axes, answer.mask, SHOWN)
    elif question.kind == 'track' and question.instances:
        boxes, visible = true_track(known.facts, question)
        _path(axes, boxes[visible], TRUE)
    elif question.kind == 'box':
        boxes = [known.facts.track(one).boxes[now] for one in question.instances]
        _outlines(axes, np.reshape(boxes, (-1, 10)), TRUE, 1.8)
    if answer.box is not None:
        _outlines(axes, answer.box[None], SHOWN, 1.2)
    if answer.track is not None:
        _path(axes, answer.track[answer.seen], SHOWN)


def _title(question, answer):
    lines = [f'{question.scene} {question.now}: {question.text}', f'true: {question.answer}']
    return '\n'.join(line[:64] for line in (*lines, f'said: {answer.said}'))


def _outlines(axes, boxes, colour, width):
    if len(boxes):
        corners = box_corners(np.asarray(boxes, np.float64))[:, [0, 1, 5, 4, 0], :2]  # (K, 5, 2)
        for outline in corners:
            axes.plot(outline[:, 1], outline[:, 0], color=colour, linewidth=width)


def _path(axes, boxes, colour):
    if len(boxes):
        axes.plot(boxes[:, 1], boxes[:, 0], '.-', color=colour, markersize=3, linewidth=0.8)
        _outlines(axes, boxes[-1:], colour, 1.2)


def _area(axes, mask, colour):
    """mask [iy, ix]: ix grows with +x, which is up; iy with +y, which is left."""
    if mask.any() and not mask.all():
        side = (np.arange(len(mask)) + 0.5) * 2.0 * RANGE_M / len(mask) - RANGE_M
        style = {'levels': [0.5, 1.5], 'colors': [colour], 'alpha': 0.5}
        axes.contourf(side, side, mask.T.astype(float), **style)


def _draw_bar(axes, question, answer):
    """True spans above, the best shown one below, saliency as a line."""
    if question.kind != 'time':
        return
    length = answer.window[1] - answer.window[0] + 1
    axes.axis('on')
    axes.set(xlim=(0, length), ylim=(0, 2))
    axes.set_yticks([])
    axes.tick_params(labelsize=6)
    for begin, end in true_spans(question, answer.window):
        axes.axvspan(begin, end, 0.5, 1.0, color=TRUE)
    if answer.spans is not None:
        axes.axvspan(*answer.spans[0], 0.0, 0.5, color=SHOWN)
        # Saliency has no scale of its own.
        level = answer.saliency - answer.saliency.min()
        level = 2.0 * level / max(level.max(), 1e-6)
        axes.plot(np.arange(length) + 0.5, level, color='black', linewidth=0.8)

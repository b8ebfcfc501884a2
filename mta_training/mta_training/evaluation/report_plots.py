"""The plots of an evaluation as PNG bytes; no display is needed."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from mta_perception.contract import CLASS_COLOURS, CLASSES

_DPI = 120
_LINES = ('-', '--', '-.', ':', (0, (5, 1, 1, 1, 1, 1)))
# Score -> its maximum, so that bars of one plot share one axis.
_CAPTION_BARS = {'CIDEr': 10.0, 'BLEU_4': 1.0, 'METEOR': 1.0, 'ROUGE_L': 1.0}


def draw_plots(result):
    """File name -> PNG bytes; captions.png only where captions were judged."""
    plots = {
        'pr_curves.png': _pr_curves(result['curves']),
        'confusion.png': _confusion(result['confusion']),
        'classes.png': _classes(result),
    }
    if result['captions'] is not None:
        plots['captions.png'] = _captions(result['captions'])
    return {name: _png(figure) for name, figure in plots.items()}


def _figure(width, height):
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=_DPI)
    return buffer.getvalue()


def _colour(name):
    return tuple(value / 255.0 for value in CLASS_COLOURS[name])


def _pr_curves(curves):
    figure, axes = _figure(7, 5)
    for index, (name, curve) in enumerate(curves.items()):
        if curve is not None:
            # Several class colours are shades of orange: the line style tells them apart.
            axes.plot(
                curve['recall'],
                curve['precision'],
                label=name,
                color=_colour(name),
                linestyle=_LINES[index % len(_LINES)],
            )
    axes.set(
        xlabel='recall',
        ylabel='precision',
        xlim=(0, 1),
        ylim=(0, 1.02),
        title='Precision over recall, match below 2 m',
    )
    if axes.lines:
        axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))
    axes.grid(alpha=0.3)
    return figure


def _confusion(confusion):
    counts = np.array(confusion['counts'], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = confusion['classes']
    figure, axes = _figure(8, 7)
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            if counts[row, column]:
                axes.text(
                    column,
                    row,
                    f'{counts[row, column]:.0f}',
                    ha='center',
                    va='center',
                    fontsize=7,
                    color='white' if shares[row, column] > 0.6 else 'black',
                )
    axes.set_xticks(range(len(names)), [*names[:-1], 'missed'], rotation=45, ha='right')
    axes.set_yticks(range(len(names)), [*names[:-1], 'false alarm'])
    axes.set(
        xlabel='said',
        ylabel='true',
        title=f'Objects by class, nearest within 2 m, score at least {confusion["score"]}',
    )
    return figure


def _classes(result):
    figure, axes = _figure(8, 4)
    entries = [result['detection']['classes'][name] for name in CLASSES]
    bars = axes.bar(
        CLASSES, [entry['AP'] for entry in entries], color=[_colour(name) for name in CLASSES]
    )
    axes.bar_label(
        bars,
        [f'{entry["AP"]:.2f}' if entry['ground_truth'] else 'none there' for entry in entries],
        fontsize=8,
    )
    axes.axhline(result['detection']['mAP'], color='black', linewidth=0.8, linestyle='--')
    axes.set(ylabel='AP (dashed: mAP)', ylim=(0, 1.08), title='Average precision by class')
    axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=30, ha='right')
    return figure


def _captions(captions):
    figure, axes = _figure(9, 4)
    groups = [
        (f'{protocol} {threshold}', scores)
        for protocol, parts in captions.items()
        for threshold, scores in parts.items()
    ]
    width = 0.8 / len(_CAPTION_BARS)
    for index, (name, most) in enumerate(_CAPTION_BARS.items()):
        values = [scores[name] for _, scores in groups]
        if None in values:
            continue  # no Java, no METEOR
        label = name if most == 1.0 else f'{name} / {most:.0f}'
        axes.bar(
            np.arange(len(groups)) + (index - 1.5) * width,
            [value / most for value in values],
            width,
            label=label,
        )
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], fontsize=8)
    axes.set(ylim=(0, 1.05), ylabel='share of the maximum', title='Caption scores m@k')
    axes.legend(fontsize=8)
    return figure

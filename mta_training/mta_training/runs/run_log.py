"""What a run shows: a progress bar with the time left, log.csv, TensorBoard, curves.png."""

import csv
import math
import sys

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mta_perception.atomic_files import whole

COLUMNS = (
    'step',
    'minutes',
    'lr',
    'loss',
    'detection',
    'heat',
    'dense',
    'score',
    'box',
    'perspective',
    'language',
    'bla',
    'dca',
    'captions',
    'bla_cosine',
    'dca_entropy_boxes',
    'dca_entropy_captions',
    'gradient',
    'gradient_detection',
    'gradient_perspective',
    'gradient_language',
    'gradient_bla',
    'gradient_dca',
    'mAP',
    'NDS',
)
_EVERY = 20  # steps a line of log.csv


class RunLog:
    """Means of the values since the last line; one line each `_EVERY` steps."""

    def __init__(self, out, leads, say=print, resume_at=0):
        self.out, self.leads, self.say, self.rows = out, leads, say, []
        self.path = out / 'log.csv'
        if not leads:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._forget_after(resume_at)
        self.writer = SummaryWriter(str(out / 'events'), purge_step=resume_at + 1)
        if resume_at:
            say(f'resumed at step {resume_at}')
        console = Console(file=sys.stderr)
        self.bar = Progress(
            TextColumn('training'),
            BarColumn(),
            TextColumn('{task.description}'),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task('', total=1.0)
        self.bar.start()

    def _forget_after(self, step):
        """Lines of steps that a killed run made after its last checkpoint are made again."""
        kept = []
        if self.path.exists():
            with open(self.path, newline='') as file:
                kept = [row for row in csv.DictReader(file) if int(row['step']) <= step]
        with whole(self.path) as partial, open(partial, 'w', newline='') as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(kept)

    def add(self, values, progress):
        """Values of one step."""
        self.rows.append(values)
        if not self.leads:
            return
        for name, value in values.items():
            if name not in ('step', 'minutes'):
                self.writer.add_scalar(name, value, values['step'])
        left = progress.left_s
        words = f'step {values["step"]}, loss {values["loss"]:.3g}'
        if left is not None:
            words += f', {left / 60.0:.0f} min left'
        self.bar.update(self.task, completed=progress.share, description=words)
        if values['step'] % _EVERY == 0:
            line = self.flush()
            self.say(f'{100 * progress.share:5.1f} %  {line}')

    def flush(self):
        """Write the line of what came since the last one; returns it in words."""
        if not self.rows:
            return ''
        last, means = self.rows[-1], {}
        for name in COLUMNS:
            values = [row[name] for row in self.rows if name in row]
            if values:
                means[name] = (
                    last[name] if name in ('step', 'minutes', 'lr') else float(np.mean(values))
                )
        self.rows = []
        self._write(means)
        shown = ('step', 'minutes', 'loss', 'detection', 'language', 'bla', 'dca', 'gradient')
        return '  '.join(f'{name} {means[name]:.4g}' for name in shown if name in means)

    def evaluated(self, step, metrics):
        """Held-out numbers after a step."""
        if not self.leads:
            return
        self.flush()
        numbers = {name: value for name, value in metrics.items() if np.isscalar(value)}
        self.say(
            'held out: ' + '  '.join(f'{name} {value:.3f}' for name, value in numbers.items())
        )
        for name, value in numbers.items():
            self.writer.add_scalar(f'held_out/{name}', value, step)
        self._write({'step': step, 'mAP': metrics['mAP'], 'NDS': metrics['NDS']})

    def _write(self, values):
        if not self.leads:
            return
        with open(self.path, 'a', newline='') as file:
            csv.DictWriter(file, COLUMNS).writerow(
                {name: f'{value:.9g}' for name, value in values.items()}
            )

    def close(self):
        """Last line and the picture of the curves."""
        self.flush()
        if self.leads:
            self.bar.stop()
            self.writer.close()
            draw_curves(self.path, self.out / 'curves.png')


def draw_curves(log, path):
    """A PNG of log.csv: losses, gradient norms, prompt usage, held-out numbers."""
    from matplotlib.figure import Figure

    with open(log, newline='') as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(12, 7), layout='constrained')
    groups = (
        ('losses', ('detection', 'perspective', 'language', 'bla', 'dca'), True),
        (
            'gradient norms of the weighted terms',
            [name for name in COLUMNS if name.startswith('gradient')],
            True,
        ),
        ('alignment', ('bla_cosine', 'dca_entropy_boxes', 'dca_entropy_captions'), False),
        ('held out', ('mAP', 'NDS'), False),
    )
    for axes, (title, names, logarithmic) in zip(figure.subplots(2, 2).flat, groups):
        for name in names:
            points = [(int(row['step']), float(row[name])) for row in rows if row.get(name)]
            points = [point for point in points if math.isfinite(point[1])]
            if points:
                axes.plot(*zip(*points), label=name, marker='.' if len(points) < 20 else None)
        axes.set(title=title, xlabel='step')
        if logarithmic and axes.lines:
            axes.set_yscale('log')
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)

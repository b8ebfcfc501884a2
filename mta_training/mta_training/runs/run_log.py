"""What a run shows: losses, speed and time left, log.csv, TensorBoard, curves.png."""

from collections import deque
import csv
import math

import numpy as np

from mta_perception.atomic_files import whole
from mta_perception.progress import Progress
from mta_training.runs.log_table import EVERY, LogTable

# What reaches the detector by its captions, and the share of the detection loss's gradient there
# below which some seeds cannot show anything.
ALIGNED = ('language', 'bla', 'dca', 'oracle')
SMALL_SHARE = 0.01
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
    'velocity',
    'perspective',
    'depth',
    'colour',
    'language',
    'bla',
    'dca',
    'oracle',
    'captions',
    'bla_cosine',
    'dca_entropy_boxes',
    'dca_entropy_captions',
    'dca_cosine_boxes',
    'dca_cosine_captions',
    'dca_cosine_prompts',
    'oracle_noun',
    'oracle_log_m',
    'oracle_motion',
    'waited',
    'gradient',
    'gradient_detection',
    'gradient_perspective',
    'gradient_depth',
    'gradient_colour',
    'gradient_language',
    'gradient_bla',
    'gradient_dca',
    'gradient_oracle',
    *(f'{what}_{name}' for what in ('share', 'factor') for name in ALIGNED),
    'mAP',
    'NDS',
)
_SHOWN = ('loss', 'detection', 'language', 'bla', 'dca', 'gradient')


class RunLog:
    """log.csv and TensorBoard of a run, and means over EVERY steps on the screen.

    Only the process that leads writes and shows.
    """

    def __init__(self, out, leads, say=print, resume_at=0):
        self.out, self.leads, self.say = out, leads, say
        self.recent = deque(maxlen=EVERY)
        self.warned = set()
        if not leads:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.table = LogTable(out / 'log.csv', COLUMNS, ('step', 'minutes', 'lr'), resume_at)
        self.writer = SummaryWriter(str(out / 'events'), purge_step=resume_at + 1)
        if resume_at:
            say(f'resumed at step {resume_at}')
        self.bar = Progress('training')

    def __enter__(self):
        if self.leads:
            self.bar.__enter__()
        return self

    def __exit__(self, kind, error, trace):
        """Last line, and the picture of the curves where nothing went wrong."""
        if not self.leads:
            return
        self.table.flush()
        self.bar.__exit__(kind, error, trace)
        self.writer.close()
        if error is None:
            draw_curves(self.table.path, self.out / 'curves.png')

    def add(self, values, progress):
        """Values of one step."""
        self.recent.append(values)
        if not self.leads:
            return
        self.table.add(values)
        for name, value in values.items():
            if name not in ('step', 'minutes'):
                self.writer.add_scalar(name, value, values['step'])
        self._warn(values)
        self.bar.update(progress.share, self._in_words(), progress.left_s)

    def _warn(self, values):
        """Once for each term that moves the detector too little to matter."""
        for name in ALIGNED:
            share = values.get(f'share_{name}', 1.0)
            if share < SMALL_SHARE and name not in self.warned:
                self.warned.add(name)
                self.say(
                    f'warning: at step {values["step"]} the gradient of {name} in the detector is '
                    f"{100.0 * share:.2g} % of the detection loss's; below "
                    f'{100.0 * SMALL_SHARE:g} % it cannot be told from none. Raise '
                    f'weights.{name}, or set weights.shares.'
                )

    def _in_words(self):
        """Step, means of the losses and speed over the last steps."""
        first, last = self.recent[0], self.recent[-1]
        words = [f'step {last["step"]}']
        seconds = 60.0 * (last['minutes'] - first['minutes'])
        if seconds > 0.0:
            words.append(f'{(last["step"] - first["step"]) / seconds:.2g} steps/s')
        for name in _SHOWN:
            values = [row[name] for row in self.recent if name in row]
            if values:
                words.append(f'{name} {np.mean(values):.3g}')
        return ', '.join(words)

    def doing(self, what):
        """What goes on between two steps, if it takes long."""
        if self.leads:
            step = f'step {self.recent[-1]["step"]}, ' if self.recent else ''
            self.bar.update(self.bar.done, step + what)

    def flush(self):
        """Write what came since the last line."""
        if self.leads:
            self.table.flush()

    def evaluated(self, step, metrics):
        """Held-out numbers after a step."""
        if not self.leads:
            return
        self.table.flush()
        numbers = {name: value for name, value in metrics.items() if np.isscalar(value)}
        self.say(
            'held out: ' + '  '.join(f'{name} {value:.3f}' for name, value in numbers.items())
        )
        for name, value in numbers.items():
            self.writer.add_scalar(f'held_out/{name}', value, step)
        self.table.write({'step': step, 'mAP': metrics['mAP'], 'NDS': metrics['NDS']})


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
        (
            'alignment: cosines, prompt usage, shares of the gradient in the detector',
            [name for name in COLUMNS if name.startswith(('bla_', 'dca_', 'share_'))],
            False,
        ),
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
    with whole(path) as partial:
        figure.savefig(partial, dpi=100)

"""Ablations: every row of a table trained with several seeds, judged, averaged, written down.

Runs lie in `<out>/runs/`, named by what makes them different, so that tables share them and an
ablation that was stopped goes on.  They are processes of their own, a few at a time, each with its
share of the cores or a GPU of its own.
"""

from concurrent.futures import ThreadPoolExecutor, as_completed
import hashlib
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import threading
import time

from mta_perception.atomic_files import write_atomically
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.directory_lock import sole_writer
from mta_perception.progress import Progress
from mta_training.ablation.paired import differences, paired_words, value_at
from mta_training.ablation.rows import TABLES
from mta_training.ablation.run import Spec, write_spec
from mta_training.evaluation.subsets import conditions


class AblationError(RuntimeError):
    """A run failed; the message names its log."""


def run_tables(names, recipe, bags, held_out, out, *, seeds=3, frames=20, cache=None, workers=2):
    """Make the tables `names` (keys of TABLES) from `recipe`; returns the Markdown files.

    bags, held_out  bag directories that train and that judge
    """
    out = Path(out)
    if not held_out:
        raise ValueError('no bags are held out; name some with --val-scenes.')
    devices = _devices(workers)
    specs = {}  # (table, row, seed) -> Spec
    for name in names:
        for row in TABLES[name].rows:
            if row.changes is None:
                continue
            chosen = chosen_bags(bags, row.only)
            for seed in range(seeds):
                changed = recipe.changed(row.changes).changed({'seed': recipe.seed + seed})
                specs[name, row.name, seed] = _spec(
                    changed, chosen, held_out, frames, cache or out / 'cache', out, len(devices)
                )
    with sole_writer(out):
        distinct = {spec.out: spec for spec in specs.values()}
        _perform(list(distinct.values()), devices)
        metrics = {key: json.loads(spec.metrics.read_text()) for key, spec in specs.items()}
        files = []
        for name in names:
            rows = {
                row.name: [metrics[name, row.name, seed] for seed in range(seeds)]
                for row in TABLES[name].rows
                if row.changes is not None
            }
            files.append(_write_table(name, rows, recipe, len(bags), len(held_out), frames, out))
    return files


def chosen_bags(bags, only):
    """The bags whose scene is all of `only` (words of `conditions`); ValueError where none is."""
    chosen = (
        [bag for bag in bags if set(only) <= set(conditions(SceneBag(bag).description))]
        if only
        else bags
    )
    if not chosen:
        raise ValueError(f'none of the {len(bags)} training bags is {" and ".join(only)}.')
    return chosen


def _spec(recipe, bags, held_out, frames, cache, out, workers):
    values = recipe.to_dict()
    made_of = json.dumps(
        [values, sorted(map(str, bags)), sorted(map(str, held_out)), frames], sort_keys=True
    )
    name = f'{recipe.name}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}'
    return Spec(
        values,
        [str(bag) for bag in bags],
        [str(bag) for bag in held_out],
        frames,
        str(cache),
        str(out / 'runs' / name),
        max(1, (os.cpu_count() or 1) // workers),
    )


def _devices(workers):
    """Environment of each worker: a GPU each where there are GPUs, else a share of the cores."""
    import torch

    count = torch.cuda.device_count()
    if count:
        return [{'CUDA_VISIBLE_DEVICES': str(index)} for index in range(count)]
    return [{'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // workers))}] * workers


def _perform(specs, devices):
    """Run all that are not done, as many at a time as there are devices."""
    free, lock, running = list(devices), threading.Lock(), []
    todo = [spec for spec in specs if not spec.metrics.is_file()]

    def perform(spec):
        with lock:
            environment = free.pop()
            running.append(spec)
        try:
            return _process(spec, environment)
        finally:
            with lock:
                free.append(environment)
                running.remove(spec)

    def said():
        return '; '.join(last_line(Path(spec.out) / 'log.txt') for spec in list(running))

    failures = []
    with Progress('runs', len(todo)) as progress, ThreadPoolExecutor(len(devices)) as pool:
        progress.words = said
        for future in as_completed([pool.submit(perform, spec) for spec in todo]):
            failures += future.result()
            progress.advance()
    if failures:
        raise AblationError(
            f'{len(failures)} of {len(specs)} runs failed, the others are kept; '
            f'see {failures[0]}, then run again.'
        )


def _process(spec, environment):
    """Run one; returns [] or [path of its log]."""
    path = write_spec(spec)
    log = path.with_name('log.txt')
    with open(log, 'a') as file:
        file.write(time.strftime('-- %Y-%m-%d %H:%M:%S\n'))
        file.flush()
        done = subprocess.run(
            [sys.executable, '-m', 'mta_training.ablation.run', str(path)],
            env={**os.environ, **environment},
            stdout=file,
            stderr=file,
        )
    return [] if done.returncode == 0 and spec.metrics.is_file() else [str(log)]


def last_line(log):
    """The last line of a run's log that is not empty, '' where there is none yet."""
    try:
        with open(log, 'rb') as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors='replace').splitlines()
    except OSError:
        return ''
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def summary(rows, columns):
    """row -> column -> (mean, standard deviation over seeds), None where it was not measured."""
    result = {}
    for row, runs in rows.items():
        result[row] = {}
        for column, (path, factor) in columns.items():
            values = [value_at(run, path) for run in runs]
            if any(value is None for value in values):
                result[row][column] = None
                continue
            values = [factor * value for value in values]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            result[row][column] = statistics.mean(values), spread
    return result


def _write_table(name, rows, recipe, bags, held_out, frames, out):
    table = TABLES[name]
    seeds = len(next(iter(rows.values())))
    numbers = summary(rows, table.columns)
    path = out / f'table-{name}.md'
    words = [
        f'# {table.title}',
        '',
        f'Recipe {recipe.name}: {recipe.schedule.length} of {recipe.schedule.batch} frames '
        f'from {bags} scenes'
        + (f', started from {Path(recipe.start).name}' if recipe.start else '')
        + f'. Judged on {frames} keyframes of each of {held_out} other scenes. Mean ± '
        f'standard deviation over seeds ({seeds}); in brackets the number that the paper has '
        'for nuScenes.',
        table.note,
        '',
        markdown(table, numbers),
        *paired_words(table, rows),
    ]
    write_atomically(path, '\n'.join(words) + '\n')
    write_atomically(
        path.with_suffix('.json'),
        json.dumps(
            {
                'table': name,
                'recipe': recipe.to_dict(),
                'seeds': seeds,
                'differences': differences(table, rows),
                'rows': {
                    row: {
                        column: [value_at(run, where) for run in runs]
                        for column, (where, _) in table.columns.items()
                    }
                    for row, runs in rows.items()
                },
            },
            indent=1,
        ),
    )
    return path


def markdown(table, numbers):
    """The table itself; columns in ten digits at most."""
    lines = ['| | ' + ' | '.join(table.columns) + ' |', '|---' * (1 + len(table.columns)) + '|']
    for row in table.rows:
        cells = []
        for index, column in enumerate(table.columns):
            ours = numbers.get(row.name, {}).get(column)
            cell = '-' if ours is None else _number(*ours)
            if index < len(row.paper):
                cell += f' [{row.paper[index]:g}]'
            cells.append(cell)
        lines.append(f'| {row.name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _number(mean, spread):
    digits = 3 if abs(mean) < 2 else 1
    return f'{mean:.{digits}f} ± {spread:.{digits}f}'

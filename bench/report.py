"""Tables of the benchmarks: median, p90 and the ratio to the first row of the same run."""

import json
import os
import time
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """One measured thing."""

    name: str
    samples: list  # in the table's unit


def timed(function, repeats, warm_up=2):
    """Wall-clock milliseconds of `repeats` calls, after `warm_up` calls that do not count."""
    for _ in range(warm_up):
        function()
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        samples.append((time.perf_counter() - start) * 1e3)
    return samples


def timed_in_turn(functions, repeats, warm_up=2):
    """As `timed` of each function, but in turn: a machine that slows down slows down all alike."""
    for function in functions:
        timed(function, 0, warm_up)
    rounds = [[timed(function, 1, 0)[0] for function in functions] for _ in range(repeats)]
    return [list(samples) for samples in zip(*rounds)]


def report(title, rows, unit='ms'):
    """Print the rows; the first is the baseline of the ratios.

    Where MTA_BENCH_JSON names a file, the numbers are appended to it, one JSON object a table.
    """
    table = Table(title=title, title_justify='left')
    table.add_column('what')
    for column in ('n', f'median {unit}', f'p90 {unit}', 'ratio'):
        table.add_column(column, justify='right')
    baseline = float(np.median(rows[0].samples)) if rows[0].samples else float('nan')
    numbers = []
    for row in rows:
        median, p90 = np.percentile(row.samples, [50, 90]) if row.samples else (np.nan, np.nan)
        table.add_row(
            row.name,
            str(len(row.samples)),
            f'{median:.2f}',
            f'{p90:.2f}',
            f'{median / baseline:.2f}' if baseline else '',
        )
        numbers.append(
            {'name': row.name, 'n': len(row.samples), 'median': float(median), 'p90': float(p90)}
        )
    Console(width=110).print(table)
    if os.environ.get('MTA_BENCH_JSON'):
        with open(os.environ['MTA_BENCH_JSON'], 'a', encoding='utf-8') as sink:
            sink.write(json.dumps({'title': title, 'unit': unit, 'rows': numbers}) + '\n')

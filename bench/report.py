"""Tables of the benchmarks: median with spread, the ratio to the first row of the same run, and
the floor where one can be computed (floors.py).

`python bench/report.py NUMBERS.json --write docs/performance.md` puts the tables of a run of `mta
bench --out NUMBERS.json` into a document, each between `<!-- table: TITLE -->` and `<!-- end -->`;
those without such a place come where `<!-- table: others -->` is.
"""

import argparse
import json
import os
from pathlib import Path
import re
import time
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

QUICK = bool(os.environ.get('MTA_BENCH_QUICK'))
COLUMNS = ('n', 'median', 'p10 to p90', 'ratio', 'floor')


class Row(NamedTuple):
    """One measured thing."""

    name: str
    samples: list  # in the table's unit
    floor: float | None = None  # what this machine could do at best, in the same unit


def quick(few, many):
    """`few` where somebody waits (`--quick`), else `many`."""
    return few if QUICK else many


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


def numbers_of(row):
    """A row as plain numbers; None where nothing was measured."""
    spread = [None] * 3
    if len(row.samples):
        spread = [float(value) for value in np.percentile(row.samples, [10, 50, 90])]
    p10, median, p90 = spread
    return {
        'name': row.name,
        'n': len(row.samples),
        'median': median,
        'p10': p10,
        'p90': p90,
        'floor': None if row.floor is None else float(row.floor),
    }


def cells(numbers):
    """The rows of a table as text, COLUMNS behind the name; the first is the ratios' baseline."""
    baseline = numbers[0]['median'] if numbers else None
    return [
        [
            row['name'],
            str(row['n']),
            _short(row['median']),
            f'{_short(row["p10"])} to {_short(row["p90"])}' if row['n'] > 1 else '',
            f'{row["median"] / baseline:.2f}' if baseline and row['median'] is not None else '',
            _short(row['floor']),
        ]
        for row in numbers
    ]


def _short(value):
    if value is None:
        return ''
    return f'{value:.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def report(title, rows, unit='ms', note=''):
    """Print the rows; the first is the baseline of the ratios.

    note: what a reader has to know of the table, such as how its floors are made.
    Where MTA_BENCH_JSON names a file, the numbers are appended to it, one JSON object a table.
    """
    table = Table(title=f'{title} [{unit}]', title_justify='left', caption=note or None)
    numbers = [numbers_of(row) for row in rows]
    table.add_column('what')
    for column in COLUMNS:
        table.add_column(column, justify='right')
    for line in cells(numbers):
        table.add_row(*line)
    Console(width=110).print(table)
    if os.environ.get('MTA_BENCH_JSON'):
        with open(os.environ['MTA_BENCH_JSON'], 'a', encoding='utf-8') as sink:
            content = {'title': title, 'unit': unit, 'rows': numbers, 'note': note}
            sink.write(json.dumps(content) + '\n')


def markdown(table):
    """A table of a numbers file as Markdown."""
    lines = [
        f'| {table["unit"]} | {" | ".join(COLUMNS)} |',
        f'|---|{"---:|" * len(COLUMNS)}',
        *(f'| {" | ".join(line)} |' for line in cells(table['rows'])),
    ]
    return '\n'.join([*lines, *(['', table['note']] if table.get('note') else [])])


def written_into(text, content):
    """A document's text with the tables of a numbers file in their places.

    A place whose table was not measured keeps what it has.  Raises ValueError where there is no
    place for others.
    """
    bodies = {'machine': _machine_line(content)}
    others = []
    for table in content['tables']:
        if _place(table['title']).search(text):
            bodies[table['title']] = markdown(table)
        else:
            others.append(f'**{table["title"]}**\n\n{markdown(table)}')
    if others:
        bodies['others'] = '\n\n'.join(others)
    for title, body in bodies.items():
        if not _place(title).search(text):
            raise ValueError(
                f'no place for the table {title!r}: put the lines "<!-- table: {title} -->" and '
                '"<!-- end -->" where it belongs.'
            )
        text = _place(title).sub(
            lambda found, body=body: f'{found[1]}\n{body}\n\n{found[2]}', text
        )
    return text


def _place(title):
    return re.compile(rf'(<!-- table: {re.escape(title)} -->\n).*?(<!-- end -->)', re.DOTALL)


def _machine_line(content):
    machine = content['machine']
    load = [f'{value:.1f}' for value in content.get('load', ())]
    words = [f'{machine["cpu"]}, {machine["cores"]} cores, {content.get("date", "")}']
    if load:
        words.append(f'others wanted {load[0]} cores before and {load[1]} in the last minute')
    if content.get('quick'):
        words.append('**quick: few repeats**')
    return '; '.join(words) + '.'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('numbers', type=Path, help='JSON of `mta bench --out`')
    parser.add_argument('--write', type=Path, required=True, help='the document')
    options = parser.parse_args()
    content = json.loads(options.numbers.read_text(encoding='utf-8'))
    text = written_into(options.write.read_text(encoding='utf-8'), content)
    options.write.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()

"""What a row of a table changes: differences between runs of the same seed, with their interval.

Runs of one seed see the same frames in the same order from the same weights.  What a seed does to
both is gone from their difference, so that it is known better than either row's mean.
"""

import math
import statistics

from scipy.stats import t as student

_LEVEL = 0.95


def value_at(metrics, path):
    """The number at a path of `judge`'s dict, as captions/tod3cap/0.5/CIDEr; else None."""
    here = metrics
    for name in path.split('/'):
        here = here.get(name) if isinstance(here, dict) else None
    return here


def interval(values):
    """(mean, half of the 95 % interval of Student's t) of two numbers or more."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), float(student.ppf(0.5 + _LEVEL / 2.0, len(values) - 1)) * error


def opponents(table, rows):
    """row -> the row that it is compared with: Row.against, or the first one that was trained."""
    trained = [row for row in table.rows if row.name in rows]
    pairs = {row.name: row.against or trained[0].name for row in trained}
    return {name: other for name, other in pairs.items() if other != name and other in rows}


def differences(table, rows):
    """row -> column -> `interval` of row minus opponent; rows: name -> metrics of each seed.

    None where a run has no such number; nothing at all for a single seed.
    """
    result = {}
    for name, other in opponents(table, rows).items():
        pairs = list(zip(rows[name], rows[other]))
        if len(pairs) > 1:
            result[name] = {
                column: _difference(pairs, path, factor)
                for column, (path, factor) in table.columns.items()
            }
    return result


def _difference(pairs, path, factor):
    values = [(value_at(one, path), value_at(other, path)) for one, other in pairs]
    if any(None in pair for pair in values):
        return None
    return interval([factor * (one - other) for one, other in values])


def paired_words(table, rows):
    """Lines of Markdown; none for a single seed."""
    apart, others = differences(table, rows), opponents(table, rows)
    if not apart:
        return []
    lines = [
        '',
        'Differences between runs of the same seed: mean ± half of the 95 % interval (Student). '
        'An interval that holds 0 shows nothing.',
        '',
        '| | ' + ' | '.join(table.columns) + ' |',
        '|---' * (1 + len(table.columns)) + '|',
    ]
    for name, columns in apart.items():
        cells = ['-' if value is None else _signed(*value) for value in columns.values()]
        lines.append(f'| {name}, less {others[name]} | ' + ' | '.join(cells) + ' |')
    return lines


def _signed(mean, half):
    digits = 3 if abs(mean) + half < 2 else 1
    return f'{mean:+.{digits}f} ± {half:.{digits}f}'

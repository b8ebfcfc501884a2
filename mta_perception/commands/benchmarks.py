"""`mta bench`: the scripts of bench/, each in a process of its own, one after the other."""

from collections.abc import Sequence
from datetime import date
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

from mta_perception.atomic_files import write_atomically
from mta_perception.commands.processes import ended_words
from mta_perception.commands.summary import machine

SCRIPTS = (
    'floors',
    'renderer',
    'images',
    'synchroniser',
    'detector',
    'captioner',
    'pipeline',
    'scaling',
    'asking',
    'bevformer',
    'converter',
    'transport',
    'node_rate',
    'node_memory',
)
# Others say the same in less time, or it is no part of the vehicle.
SLOW = ('converter', 'bevformer', 'node_memory')


def run_benchmarks(
    model: str,
    only: Sequence[str] | None = None,
    out: str | Path | None = None,
    quick: bool = False,
    minutes: float | None = None,
    large: bool = False,
) -> None:
    """Run all scripts, or those named in `only`; write the numbers to `out` (JSON) where given.

    quick    few repeats, 20 s of driving, and none of SLOW unless it is named
    minutes  of driving with each kind of image, instead of 10
    large    a language model of 1B, too
    Raises ValueError for an unknown name, RuntimeError where bench/ is not there or one failed.
    """
    folder = Path(__file__).parents[2] / 'bench'
    if not (folder / 'report.py').is_file():
        raise RuntimeError(
            f'{folder} is missing: the benchmarks come with the repository, not '
            'with the installed package. Run `make bench` in a checkout.'
        )
    names = list(only or [name for name in SCRIPTS if not (quick and name in SLOW)])
    for name in names:
        if name not in SCRIPTS:
            raise ValueError(f'no benchmark "{name}"; there are {", ".join(SCRIPTS)}.')
    with tempfile.TemporaryDirectory() as scratch:
        numbers = Path(scratch) / 'numbers.jsonl'
        environment = {**os.environ, 'MTA_BENCH_JSON': str(numbers), 'MTA_BENCH_MODEL': model}
        environment['MTA_BENCH_QUICK'] = '1' if quick else ''
        environment['MTA_BENCH_MINUTES'] = '' if minutes is None else str(minutes)
        environment['MTA_BENCH_LARGE'] = '1' if large else ''
        failed = []
        load = [os.getloadavg()[0]]
        for number, name in enumerate(names, 1):
            print(f'[{number}/{len(names)}] {name}', flush=True)
            script = [sys.executable, str(folder / f'{name}.py')]
            code = subprocess.run(script, env=environment, check=False).returncode
            if code != 0:
                failed.append(f'{name} {ended_words(code)}')
        lines = numbers.read_text(encoding='utf-8').splitlines() if numbers.exists() else []
    if out is not None:
        tables = [json.loads(line) for line in lines]
        content = {
            'machine': machine(),
            'date': date.today().isoformat(),
            'load': [*load, os.getloadavg()[0]],  # of the last minute before and at the end
            'quick': quick,
            'model': model,
            'tables': tables,
        }
        write_atomically(out, json.dumps(content, indent=2) + '\n')
    if failed:
        raise RuntimeError(f'benchmarks that failed, see above: {", ".join(failed)}')

"""`mta bench`: the scripts of bench/, each in a process of its own, one after the other."""

from collections.abc import Sequence
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
    'renderer',
    'images',
    'synchroniser',
    'detector',
    'captioner',
    'pipeline',
    'bevformer',
    'converter',
    'transport',
    'node_memory',
)


def run_benchmarks(
    model: str, only: Sequence[str] | None = None, out: str | Path | None = None
) -> None:
    """Run all scripts, or those named in `only`; write the numbers to `out` (JSON) where given.

    Raises ValueError for an unknown name, RuntimeError where bench/ is not there or one failed.
    """
    folder = Path(__file__).parents[2] / 'bench'
    if not (folder / 'report.py').is_file():
        raise RuntimeError(
            f'{folder} is missing: the benchmarks come with the repository, not '
            'with the installed package. Run `make bench` in a checkout.'
        )
    names = list(only or SCRIPTS)
    for name in names:
        if name not in SCRIPTS:
            raise ValueError(f'no benchmark "{name}"; there are {", ".join(SCRIPTS)}.')
    with tempfile.TemporaryDirectory() as scratch:
        numbers = Path(scratch) / 'numbers.jsonl'
        environment = {**os.environ, 'MTA_BENCH_JSON': str(numbers), 'MTA_BENCH_MODEL': model}
        failed = []
        for number, name in enumerate(names, 1):
            print(f'[{number}/{len(names)}] {name}', flush=True)
            script = [sys.executable, str(folder / f'{name}.py')]
            code = subprocess.run(script, env=environment, check=False).returncode
            if code != 0:
                failed.append(f'{name} {ended_words(code)}')
        lines = numbers.read_text(encoding='utf-8').splitlines() if numbers.exists() else []
    if out is not None:
        tables = [json.loads(line) for line in lines]
        write_atomically(
            out, json.dumps({'machine': machine(), 'tables': tables}, indent=2) + '\n'
        )
    if failed:
        raise RuntimeError(f'benchmarks that failed, see above: {", ".join(failed)}')

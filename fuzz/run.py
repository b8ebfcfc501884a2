"""`make fuzz`: mutated inputs to everything that reads what comes from elsewhere.

    python fuzz/run.py [--inputs 100000] [--seed 0] [--only NAME ...]

A finding is an error of another type than the target's own, or of several lines, an input that
took longer than SLOW_S, code that ran, or a file written outside the scratch folder.  Each is
written to --out, and `--only NAME --again NUMBER` makes it again.  Exit code 1 where one is.
"""

import argparse
from collections.abc import Callable
import faulthandler
import os
from pathlib import Path
import resource
import shutil
import signal
import sys
import tempfile
import time
from typing import NamedTuple
import zlib

import numpy as np
from rich.console import Console
from rich.table import Table

SLOW_S = 5.0
STUCK_S = 60.0  # in a library that no alarm reaches: the run ends and says where
MEMORY = 12 << 30  # of address space: what asks for more gets a MemoryError, which is a finding
MOST_WORDS = 4000
# What Python tells an audit hook of before it happens.
RUNS = ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'pickle.find_class')
BAIT = ('/etc/passwd', '/dev/zero')  # what the mutations name; nobody may open them
TOUCHES = ('os.remove', 'os.rename', 'os.rmdir', 'os.mkdir', 'os.symlink', 'shutil.rmtree')


class Target(NamedTuple):
    """Something that reads what comes from elsewhere."""

    name: str
    refuses: tuple  # types of errors that are its answer to a bad input
    seeds: list  # good inputs, bytes
    mutate: Callable  # (bytes, numpy Generator) -> bytes
    feed: Callable  # (bytes, scratch folder)
    weight: float = 1.0  # of the inputs it gets, those that take long less


class Finding(NamedTuple):
    """An input that was not answered as it should."""

    number: int
    words: str
    data: bytes


class Tried(NamedTuple):
    """A target's inputs."""

    inputs: int
    refused: int
    slowest_s: float
    findings: list


class TooLong(BaseException):
    """An input took longer than SLOW_S; no `except Exception` catches it."""


class Watch:
    """Sees code that runs and files that are touched while an input is read."""

    def __init__(self):
        self.scratch, self.seen = None, []
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if self.scratch is None:
            return
        if event in RUNS:
            self.seen.append(f'{event} {str(arguments)[:200]}')
        elif event == 'open' and arguments[0] in BAIT:
            self.seen.append(f'{event} {arguments[0]}')
        elif event == 'open' and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and isinstance(arguments[0], (str, bytes)):
                self._check(event, arguments[0])
        elif event in TOUCHES and isinstance(arguments[0], (str, bytes, os.PathLike)):
            # Names relative to an open folder are shutil.rmtree's, which was heard itself.
            if not any(isinstance(one, int) and one >= 0 for one in arguments[1:]):
                self._check(event, arguments[0])

    def _check(self, event, path):
        path = os.path.realpath(os.fsdecode(path))
        inside = path.startswith(f'{self.scratch}{os.sep}') or path == os.devnull
        if not inside and '__pycache__' not in path:
            self.seen.append(f'{event} {path}')


_WATCH = None  # audit hooks cannot be taken away again


def watch():
    """The one Watch of this process."""
    global _WATCH
    if _WATCH is None:
        _WATCH = Watch()
    return _WATCH


def try_target(target, count, seed, scratch, only=None):
    """Feed `count` inputs to a Target; returns Tried.  only: this one number alone."""
    refused, slowest, findings = 0, 0.0, []
    numbers = range(count) if only is None else (only,)
    for number in numbers:
        faulthandler.dump_traceback_later(STUCK_S, exit=True, file=sys.__stdout__)
        rng = np.random.default_rng([seed, zlib.crc32(target.name.encode()), number])
        whole = target.seeds[number % len(target.seeds)]
        data = target.mutate(whole, rng)
        began = time.monotonic()
        complaint, was_refused = _fed(target, data, scratch)
        slowest = max(slowest, time.monotonic() - began)
        refused += was_refused
        if complaint:
            findings.append(Finding(number, complaint, data))
    faulthandler.cancel_dump_traceback_later()
    return Tried(len(numbers), refused, slowest, findings)


def _fed(target, data, scratch):
    """(complaint or '', whether it was refused as it should be)."""
    folder = scratch / 'input'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    seen = watch()
    seen.scratch, seen.seen = scratch, []
    complaint, refused = '', False
    signal.setitimer(signal.ITIMER_REAL, SLOW_S)
    try:
        target.feed(data, folder)
    except target.refuses as error:
        refused = True
        words = str(error)
        if len(words.strip().splitlines()) != 1 or len(words) > MOST_WORDS:
            complaint = (
                f'{len(words)} characters in {len(words.splitlines())} lines: {words[:300]}'
            )
    except TooLong:
        complaint = f'took longer than {SLOW_S} s'
    except BaseException as error:  # whatever it is, it is a finding
        if isinstance(error, KeyboardInterrupt):
            raise
        complaint = f'{type(error).__name__}: {_where(error)}: {str(error)[:300]}'
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        seen.scratch = None
    return '; '.join([*filter(None, [complaint]), *seen.seen[:3]]), refused


def _where(error):
    """File and line of our code that it passed last."""
    place, trace = '', error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if '/mta_' in name and '/site-packages/' not in name:
            place = f'{Path(name).name}:{trace.tb_lineno}'
        trace = trace.tb_next
    return place


def prepare():
    """Limits of this process: an alarm for what hangs."""

    def too_long(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, too_long)


def main():
    """Fuzz all targets, show and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--inputs', type=int, default=100_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='*', help='names of targets')
    parser.add_argument('--again', type=int, help='this number alone')
    parser.add_argument('--out', type=Path, default=Path('fuzz_findings'))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    prepare()
    # libjpeg, libpng and libsqlite speak of each damaged file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    from targets import all_targets

    found = False
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch).resolve()
        targets = all_targets(scratch / 'seeds')
        chosen = [one for one in targets if not options.only or one.name in options.only]
        table = Table('target', 'inputs', 'read', 'refused', 'findings', 'slowest ms', 'seconds')
        for target in chosen:
            share = target.weight / sum(one.weight for one in chosen)
            count, began = max(1, round(options.inputs * share)), time.monotonic()
            tried = try_target(target, count, options.seed, scratch, options.again)
            took = time.monotonic() - began
            _keep(target, tried.findings, options)
            found = found or bool(tried.findings)
            table.add_row(
                target.name,
                str(tried.inputs),
                str(tried.inputs - tried.refused - len(tried.findings)),
                str(tried.refused),
                str(len(tried.findings)),
                f'{1e3 * tried.slowest_s:.0f}',
                f'{took:.1f}',
            )
    Console(width=110).print(table)
    sys.exit(1 if found else 0)


def _keep(target, findings, options):
    """Write findings to files and say the first of each kind."""
    kinds = {}
    for finding in findings:
        kinds.setdefault(finding.words[:60], finding)
    for finding in kinds.values():
        options.out.mkdir(parents=True, exist_ok=True)
        name = f'{target.name.replace(" ", "_")}-{options.seed}-{finding.number}'
        (options.out / name).write_bytes(finding.data)
        print(f'{target.name} {finding.number}: {finding.words}', flush=True)


if __name__ == '__main__':
    main()

"""An hour of faults: the node at 12 Hz, shipped faults at random times, its size and pace.

`python test/soak.py` (`make soak`, SECONDS=3600) prints its figures, writes soak.json and soak.png
into OUT, and ends with an error where the node died, met an unexpected error or did not end well.
"""

import argparse
import json
from pathlib import Path
import random
import sys
import tempfile
import time
from typing import NamedTuple

from contract import Witness
from contract_drive import write_drive
import numpy as np
from ros_car import start_node
import yaml

from mta_perception.bags.faults import faults_file, shipped_faults
from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.commands.summary import machine
from mta_perception.plain_yaml import read_yaml

HZ = 12.0
DRIVE_S = 240.0  # then the bag begins again, and the clock with it
EVERY_S = 8.0  # a fault
SAMPLE_S = 5.0
WARM_UP_S = 300.0  # or a fifth of the time
SANE_S = 5.0  # a latency above it is a stamp that was tampered with


class Sample(NamedTuple):
    """The node's process, seen from outside."""

    at_s: float
    rss_mb: float
    threads: int
    handles: int


class Soaked(NamedTuple):
    """What an hour did."""

    samples: list
    latencies: list  # (seconds since the begin, seconds from stamp to detections)
    errors: int  # unexpected ones
    exit_code: int | None


def soak(folder, seconds, seed=0, without=()):
    """Run it; returns Soaked.  without: shipped faults that are left out."""
    folder = Path(folder)
    drive_s = min(DRIVE_S, max(20.0, seconds))
    bag = write_drive(folder / 'drive', drive_s, HZ)
    (folder / 'faults.yaml').write_text(yaml.safe_dump(random_faults(drive_s, seed, without)))
    domain = free_domain()
    play = [sys.executable, '-m', 'mta_perception.commands.cli', 'play', bag, '--loop']
    play += ['--faults', folder / 'faults.yaml']
    witness = Witness(domain)
    latencies = []
    try:
        with start_node(folder, domain, {'max_captions': 24, 'diagnostics_rate': 1.0}) as node:
            with Child('player', play, folder / 'player.log', ros_environment(domain)) as player:
                samples = _watch(node, player, witness, seconds, latencies)
            errors = witness.unexpected_errors()
            code = node.stop()
    finally:
        witness.close()
    return Soaked(samples, latencies, errors, code)


def random_faults(drive_s, seed, without=()):
    """Content of a file of faults: a shipped one every EVERY_S, at random."""
    chosen, faults = random.Random(seed), []
    known = [name for name in shipped_faults() if name not in without]
    for number in range(int(drive_s / EVERY_S)):
        for fault in read_yaml(faults_file(chosen.choice(known)))['faults']:
            begin, end = (fault[key] + number * EVERY_S for key in ('from', 'to'))
            faults.append({**fault, 'from': begin, 'to': end})
    return {'seed': seed, 'faults': faults}


def _watch(node, player, witness, seconds, latencies):
    samples, began, heard = [], time.monotonic(), 0
    while time.monotonic() - began < seconds:
        time.sleep(SAMPLE_S)
        at_s = time.monotonic() - began
        assert node.running(), f'the node died after {at_s:.0f} s; see {node.log}'
        player.check()
        samples.append(sample(node.pid, at_s))
        now = len(witness.latencies)
        latencies += [(at_s, one) for one in witness.latencies[heard:now] if 0 <= one < SANE_S]
        heard = now
    return samples


def sample(pid, at_s):
    """Sample of a process."""
    process = Path(f'/proc/{pid}')
    fields = dict(
        line.split(':', 1) for line in (process / 'status').read_text().splitlines() if ':' in line
    )
    return Sample(
        at_s,
        int(fields['VmRSS'].split()[0]) / 1024,
        int(fields['Threads']),
        len(list((process / 'fd').iterdir())),
    )


def figures(soaked, seconds):
    """What is told of a run, as plain numbers."""
    warm_s = min(WARM_UP_S, seconds / 5)
    warm = [one for one in soaked.samples if one.at_s >= warm_s]
    at_s, rss = np.array([one.at_s for one in warm]), np.array([one.rss_mb for one in warm])
    quarter = (seconds - warm_s) / 4
    parts = [
        [1e3 * lasted for when, lasted in soaked.latencies if begin <= when < begin + quarter]
        for begin in (warm_s + k * quarter for k in range(4))
    ]
    percentiles = [np.percentile(part, (50, 99)).tolist() if part else None for part in parts]
    return {
        'machine': machine(),
        'seconds': seconds,
        'detections': len(soaked.latencies),
        'rss_mb': [float(rss[0]), float(rss.max()), float(rss[-1])],
        'rss_slope_mb_per_h': float(3600 * np.polyfit(at_s, rss, 1)[0]),
        'threads': sorted({one.threads for one in warm}),
        'handles': [min(one.handles for one in warm), max(one.handles for one in warm)],
        'latency_p50_p99_ms_by_quarter': percentiles,
        'unexpected_errors': soaked.errors,
        'exit_code': soaked.exit_code,
    }


def draw(soaked, path):
    """Memory, threads, handles and latency over time, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure((9, 6), layout='constrained')
    memory, counts, pace = figure.subplots(3, 1, sharex=True)
    minutes = [one.at_s / 60 for one in soaked.samples]
    memory.plot(minutes, [one.rss_mb for one in soaked.samples])
    memory.set_ylabel('memory [MB]')
    counts.plot(minutes, [one.threads for one in soaked.samples], label='threads')
    counts.plot(minutes, [one.handles for one in soaked.samples], label='handles')
    counts.legend(loc='center right')
    pace.plot(
        [when / 60 for when, _ in soaked.latencies],
        [1e3 * lasted for _, lasted in soaked.latencies],
        '.',
        markersize=1,
    )
    pace.set(ylabel='stamp to boxes [ms]', xlabel='minutes', ylim=(0, 2000))
    figure.savefig(path, dpi=100)


def main():
    """An hour, its figures and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=3600.0)
    parser.add_argument('--out', type=Path, default=Path('soak'))
    parser.add_argument('--without', nargs='*', default=(), help='names of shipped faults')
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        soaked = soak(folder, options.seconds, without=options.without)
    found = figures(soaked, options.seconds)
    (options.out / 'soak.json').write_text(json.dumps(found, indent=2) + '\n')
    draw(soaked, options.out / 'soak.png')
    print(json.dumps(found, indent=2))
    if found['unexpected_errors'] or found['exit_code']:
        sys.exit('the node met unexpected errors or did not end well')


if __name__ == '__main__':
    main()

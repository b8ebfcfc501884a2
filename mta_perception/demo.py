"""`mta demo`: a drive through player, node and recorder over DDS, then numbers and pictures.

The only file of the vehicle side that knows `mta_training`: it draws the synthetic drive, and its
official nuScenes evaluation judges the recorded topics.
"""

import hashlib
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mta_perception.bag import SceneBag
from mta_perception.film import film
from mta_perception.processes import Child, free_domain, ros_environment
from mta_perception.recording import read_recording
from mta_perception.summary import summarise

NODE_START_S = 90.0        # loading the graphs on a busy machine
SETTLE_S = 3.0             # the last captions and one more /diagnostics after the last image
console = Console()


def run_demo(out, scene=None, seed=7, seconds=20.0, model='nano', rate=1.0):
    """Everything from an empty cache to `out`/summary.json, which is written last.

    out: directory; what an earlier demo left there is replaced.  scene: a bag to play instead of a
    synthetic drive.  Raises RuntimeError, OSError, ValueError.
    """
    out = Path(out).resolve()
    _clear(out)
    began = time.monotonic()
    bag = Path(scene) if scene is not None else synthetic_bag(seed)
    _check_bag(bag)
    with _phase('playing, perceiving, recording'):
        run = replay(bag, out, model, rate, seconds)
    with _phase('evaluating the recorded topics'):
        recording = read_recording(out / 'output_bag')
        summary = summarise(SceneBag(bag), recording)
        summary.update(_accuracy(bag, recording), **run, scene=bag.name, model=str(model),
                       rate=rate)
    _draw(bag, out)
    summary['demo_s'] = round(time.monotonic() - began, 1)
    partial = out / 'summary.json.partial'
    partial.write_text(json.dumps(summary, indent=2) + '\n', encoding='utf-8')
    os.replace(partial, out / 'summary.json')
    _print_summary(summary, out)


def _clear(out):
    """Remove an earlier demo's files; refuse a directory with anything else of those names."""
    out.mkdir(parents=True, exist_ok=True)
    for path in [out / 'summary.json', out / 'demo.mp4', *out.glob('frame_*.png')]:
        path.unlink(missing_ok=True)
    if (out / 'output_bag').is_dir():
        if not (out / 'output_bag' / 'metadata.yaml').is_file():
            raise ValueError(f'{out / "output_bag"} is no recorded bag, so `mta demo` does not '
                             'replace it. Move it away or name another --out.')
        shutil.rmtree(out / 'output_bag')


def cache_directory():
    """Where drives are kept between demos: $MTA_CACHE or ~/.cache/mta_perception."""
    return Path(os.environ.get('MTA_CACHE') or Path.home() / '.cache' / 'mta_perception')


def synthetic_bag(seed):
    """The bag of a synthetic drive, drawn once per seed and version of the code that draws it."""
    key = f'seed{seed}-{_code_hash()[:12]}'
    folder = cache_directory() / 'demo' / key
    bags = sorted(path.parent for path in (folder / 'bags').glob('*/metadata.yaml'))
    if bags:
        console.print(f'synthetic drive from the cache: {folder}')
        return bags[0]
    folder.mkdir(parents=True, exist_ok=True)
    _mta_train('synth', '--out', folder / 'dataset', '--scenes', 1, '--seed', seed)
    _mta_train('convert', folder / 'dataset', '--out', folder / 'bags')
    bags = sorted(path.parent for path in (folder / 'bags').glob('*/metadata.yaml'))
    if not bags:
        raise RuntimeError(f'`mta-train convert` left no bag in {folder / "bags"}; remove {folder} '
                           'and run the demo again.')
    shutil.rmtree(folder / 'dataset')     # the bag has all of it, image bytes included
    return bags[0]


def _code_hash():
    """Hash of the source that decides what a drive looks like."""
    import mta_training
    root = Path(mta_training.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*root.glob('synth/**/*.py'), *root.glob('convert*.py'),
                        *root.glob('bag*.py'), *root.glob('nuscenes*.py')]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _mta_train(command, *arguments):
    """Run `mta-train` with its own progress bar on our terminal."""
    words = [sys.executable, '-m', 'mta_training.cli', command, *map(str, arguments)]
    if subprocess.run(words, check=False).returncode != 0:
        raise RuntimeError(f'`mta-train {" ".join(words[3:])}` failed, see above.')


def _check_bag(bag):
    if not (bag / 'metadata.yaml').is_file():
        raise ValueError(f'{bag} is no bag: metadata.yaml is missing. Expected a rosbag2 directory '
                         'as `mta-train convert` writes it.')


def replay(bag, out, model, rate, seconds):
    """Recorder, node and player as processes in a DDS domain of their own; `out`/output_bag.

    Returns what can only be seen from outside: domain, peak memory and CPU time of the node.
    """
    environment = ros_environment(free_domain())
    logs = out / 'logs'
    logs.mkdir(exist_ok=True)
    python = [sys.executable, '-m']
    record = [*python, 'mta_perception.ros.recorder', '--out', str(out / 'output_bag')]
    perceive = [*python, 'mta_perception.ros.node', '--ros-args', '-p', 'use_sim_time:=true',
                '-p', f'model:={model}']
    play = [*python, 'mta_perception.cli', 'play', str(bag), '--rate', str(rate)]
    with Child('recorder', record, logs / 'recorder.log', environment) as recorder:
        recorder.wait_for('recording', 30.0)
        with Child('node', perceive, logs / 'node.log', environment) as node:
            node.wait_for('active', NODE_START_S)
            with Child('player', play, logs / 'player.log', environment) as player:
                _wait_for_end(player, (recorder, node), seconds / rate + NODE_START_S)
            time.sleep(SETTLE_S)
            node.check()
            usage = process_usage(node.pid)
            node.stop()
        recorder.stop()
        recorder.check()
    return {'node': usage}


def _wait_for_end(player, others, timeout_s):
    deadline = time.monotonic() + timeout_s
    while player.running() and time.monotonic() < deadline:
        for child in others:
            child.check()
            if not child.running():
                raise RuntimeError(f'the {child.name} process ended before the player did; '
                                   f'see {child.log}.')
        time.sleep(0.1)
    player.check()
    if player.running():
        raise RuntimeError(f'the player did not end within {timeout_s:.0f} s; see {player.log}.')


def process_usage(pid):
    """Peak memory [MB] and CPU seconds of a running process."""
    status = Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
    peak_kb = next(int(line.split()[1]) for line in status.splitlines()
                   if line.startswith('VmHWM'))
    fields = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rsplit(')', 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    return {'peak_memory_mb': round(peak_kb / 1024, 1),
            'cpu_s': round(ticks / os.sysconf('SC_CLK_TCK'), 1)}

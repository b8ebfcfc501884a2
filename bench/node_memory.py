"""The node over a looping bag: memory, rate, and the images' way through it, over time."""

import argparse
from pathlib import Path
import sys
import tempfile
import time

from drive import drive, model
from report import Row, report

from mta_perception.bags.recording import read_recording
from mta_perception.commands.demo import process_usage
from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.commands.summary import latencies_ms
from mta_perception.ros.environment import prepare

PARTS = 4


def resident_mb(pid):
    """Resident memory of a process now."""
    for line in Path(f'/proc/{pid}/status').read_text(encoding='utf-8').splitlines():
        if line.startswith('VmRSS'):
            return int(line.split()[1]) / 1024
    return 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=40.0)
    seconds = parser.parse_args().seconds
    scene, directory = drive(), model().directory
    prepare()
    environment, python = ros_environment(free_domain()), [sys.executable, '-m']
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / 'bag'
        node = [
            *python,
            'mta_perception.ros.node',
            '--ros-args',
            '-p',
            'use_sim_time:=true',
            '-p',
            f'model:={directory}',
        ]
        record = [*python, 'mta_perception.ros.recorder', '--out', str(bag)]
        play = [*python, 'mta_perception.commands.cli', 'play', str(scene.path), '--loop']
        with (
            Child('recorder', record, f'{folder}/recorder.log', environment) as recorder,
            Child('node', node, f'{folder}/node.log', environment) as running,
        ):
            recorder.wait_for('ready', 30)
            running.wait_for('active', 90)
            with Child('player', play, f'{folder}/player.log', environment) as player:
                memory = sample_memory(running.pid, seconds)
                player.check()
            usage = process_usage(running.pid)
            running.stop()
            recorder.stop()
        recording = read_recording(bag)
    show(memory, recording, usage, seconds)


def sample_memory(pid, seconds):
    """Resident memory [MB] four times a second."""
    samples, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        samples.append(resident_mb(pid))
        time.sleep(0.25)
    return samples


def show(memory, recording, usage, seconds):
    length = max(1, len(memory) // PARTS)
    report(
        'Node: resident memory',
        [
            Row(f'quarter {part + 1}', memory[part * length : (part + 1) * length])
            for part in range(PARTS)
        ],
        unit='MB',
    )
    arrivals = [message.arrival_ns for message in recording.detections]
    gaps = [(b - a) / 1e6 for a, b in zip(arrivals, arrivals[1:])]
    # Every loop brings the same stamps again, so only the first pass can be told apart.
    first_pass = recording._replace(detections=_until_stamps_repeat(recording.detections))
    report(
        'Node: recorded messages',
        [
            Row('time between detections', gaps),
            Row('last image of the set to detections', latencies_ms(first_pass)),
        ],
    )
    print(
        f'{len(arrivals) / seconds:.2f} detections messages and '
        f'{len(recording.captions) / seconds:.2f} captions a second, '
        f'{usage["cpu_s"] / seconds:.2f} cores, {usage["peak_memory_mb"]:.0f} MB at most'
    )


def _until_stamps_repeat(messages):
    kept = []
    for message in messages:
        if kept and message.stamp_ns <= kept[-1].stamp_ns:
            break
        kept.append(message)
    return kept


if __name__ == '__main__':
    main()

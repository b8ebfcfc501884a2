"""Two demos on one cache, and what a killed demo leaves."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from mta_perception.atomic_files import write_atomically

pytest.importorskip('rclpy')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from mta_perception.commands import demo

HOLD = """
import sys
from mta_perception.directory_lock import sole_writer
with sole_writer(sys.argv[1]):
    print('mine', flush=True)
    sys.stdin.readline()
    from mta_perception.atomic_files import write_atomically
    write_atomically(sys.argv[1] + '/bags/scene-0001/metadata.yaml', 'whole')
"""


def test_the_second_demo_waits_for_the_drive_that_the_first_one_draws(tmp_path, monkeypatch):
    monkeypatch.setenv('MTA_CACHE', str(tmp_path))
    version = demo._mta_train('synth', '--print-version', capture=True)
    folder = tmp_path / 'demo' / f'seed7-20s-{version}'
    write_atomically(folder / 'dataset' / 'half', 'x')
    first = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(Path(demo.__file__).parents[2])},
    )
    assert first.stdout.readline() == 'mine\n'
    said = []

    def heard(words):
        said.append(words)
        if 'waiting' in words:
            first.stdin.write('\n')
            first.stdin.flush()

    monkeypatch.setattr(demo.console, 'print', heard)
    try:
        assert demo.synthetic_bag(7, 20.0) == folder / 'bags' / 'scene-0001'
    finally:
        first.communicate()
    assert f'{folder} is being written by another process ({first.pid}: ' in said[0]
    assert not (folder / 'dataset').exists()  # what was killed before it removed that


def test_a_killed_demo_is_no_obstacle(tmp_path):
    write_atomically(tmp_path / 'logs' / 'recorder.log', 'ready')
    write_atomically(tmp_path / 'output_bag.partial' / 'output_bag' / 'output_bag.mcap', 'half')
    demo._clear(tmp_path)
    assert os.listdir(tmp_path) == ['logs']


def test_a_recording_that_is_not_the_demos_stays(tmp_path):
    half = tmp_path / 'output_bag.partial' / 'output_bag' / 'output_bag.mcap'
    write_atomically(half, 'half')
    demo._clear(tmp_path)
    assert half.read_text() == 'half'

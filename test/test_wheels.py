"""Wheels of both packages, installed into an empty virtual environment: do the programs start?"""

from importlib.util import find_spec
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NOT_SOURCE = (
    '.*',
    'build',
    'install',
    'log',
    'ros2_ws',
    'demo',
    'runs',
    '*.egg-info',
    '__pycache__',
)
FETCHING = (
    'Could not find a version',
    'No matching distribution',
    'Temporary failure',
    'Retrying',
)


def run(*command, **options):
    """Far from the checkout, and without what the shell of the developer has set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ('PYTHONPATH', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'ROS_DISTRO')
    }
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=kept, **options
    )


def pip(*arguments):
    """Skips where pip cannot reach an index, fails for every other reason."""
    done = run(*arguments)
    if done.returncode and any(words in done.stderr for words in FETCHING):
        pytest.skip(f'pip cannot fetch packages here: {done.stderr.strip().splitlines()[-1]}')
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope='module')
def wheels(tmp_path_factory):
    """Both wheels, made as `python -m build` makes them: from a source distribution."""
    out = tmp_path_factory.mktemp('wheels')
    # From a copy: setuptools leaves build/ behind, and takes what lies there into the next wheel.
    copy = tmp_path_factory.mktemp('source') / 'checkout'
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    for folder in (copy, copy / 'mta_training'):
        if find_spec('build.__main__'):
            pip(sys.executable, '-m', 'build', '--outdir', out, folder)
        else:
            pip(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--wheel-dir', out, folder)
    return sorted(out.glob('*.whl'))


@pytest.fixture(scope='module')
def environment(wheels, tmp_path_factory):
    """A virtual environment with nothing but the wheels and what they ask for."""
    folder = tmp_path_factory.mktemp('empty') / 'venv'
    assert run(sys.executable, '-m', 'venv', folder).returncode == 0
    pip(folder / 'bin' / 'python', '-m', 'pip', 'install', '--progress-bar', 'off', *wheels)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('program', ['mta', 'mta-train', 'perception_node'])
def test_a_program_starts_from_its_wheel(environment, program, tmp_path):
    done = run(environment / 'bin' / program, '--help', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'usage' in done.stdout.lower()


@pytest.mark.slow
def test_without_ros_the_node_says_what_it_needs(environment, tmp_path):
    done = run(environment / 'bin' / 'perception_node', cwd=tmp_path)
    assert done.returncode == 1 and 'source a ROS 2' in done.stderr


@pytest.mark.slow
def test_launch_parameters_and_model_are_found(environment, tmp_path):
    code = (
        'from mta_perception.share import model_directory, share_file\n'
        'from mta_perception.runtime.manifest import Manifest\n'
        'print(share_file("launch", "bringup.launch.py"))\n'
        'print(share_file("params", "perception.yaml"))\n'
        'print(Manifest.load(model_directory("nano")).directory)'
    )
    done = run(environment / 'bin' / 'python', '-c', code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    places = [Path(line) for line in done.stdout.split()]
    assert len(places) == 3
    assert all(place.is_relative_to(environment.resolve()) for place in places)

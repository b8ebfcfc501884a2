"""`mta`: exit codes, one-line errors, imports that are no heavier than the command needs."""

from importlib import metadata
import os
from pathlib import Path
import subprocess
import sys
import typing

import pytest

REPOSITORY = Path(__file__).parents[1]


def mta(*arguments, **environment):
    return subprocess.run(
        [sys.executable, '-m', 'mta_perception.commands.cli', *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_command_has_help():
    from mta_perception.commands.cli import app

    names = {command.callback.__name__ for command in app.registered_commands}
    assert names == {'demo', 'play', 'render', 'ask', 'bench', 'doctor', 'rescue'}
    for command in app.registered_commands:
        assert command.callback.__doc__
    done = mta('demo', '--help')
    assert done.returncode == 0 and '--seed' in done.stdout


@pytest.mark.parametrize(
    'program, module', [('mta', 'mta_perception'), ('mta-train', 'mta_training')]
)
def test_version_and_completion(program, module):
    command = [sys.executable, '-m', f'{module}.commands.cli']
    done = subprocess.run([*command, '--version'], capture_output=True, text=True, check=True)
    assert done.stdout == f'{program} {metadata.version(module)}\n'
    # What the shell asks when somebody types `mta d` and presses the tabulator.
    code = f'import sys; sys.argv = [{program!r}]; from {module}.commands.cli import main; main()'
    variable = f'_{program.upper().replace("-", "_")}_COMPLETE'
    asked = {variable: 'complete_bash', 'COMP_WORDS': f'{program} ', 'COMP_CWORD': '1'}
    done = subprocess.run(
        [sys.executable, '-c', code], env={**os.environ, **asked}, capture_output=True, text=True
    )
    offered = done.stdout.split()
    assert {'mta': 'doctor', 'mta-train': 'synth'}[program] in offered and len(offered) > 4


def test_no_help_text_is_taken_for_markup():
    pytest.importorskip('mta_training')
    from mta_perception.commands.cli import app
    from mta_training.commands.cli import app as training

    for command in [*app.registered_commands, *training.registered_commands]:
        for parameter in typing.get_type_hints(command.callback, include_extras=True).values():
            for entry in getattr(parameter, '__metadata__', ()):
                assert '[' not in (entry.help or ''), f'{entry.help} loses its brackets'


def test_help_loads_neither_ros_nor_cv2_nor_torch_nor_training():
    code = (
        'import sys; sys.modules.update(rclpy=None, cv2=None, torch=None, numpy=None, '
        'mta_training=None); import mta_perception.commands.cli'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize(
    'arguments',
    [
        (),
        ('fly',),
        ('render',),
        ('play', '/no/such/bag'),
        ('demo',),
        ('ask',),
        ('demo', '--out', 'x', '--rate', '-1'),
        ('render', '/no/such/bag', '--out', 'x'),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments):
    done = mta(*arguments)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr + done.stdout


def test_a_directory_that_is_no_bag_is_one_clear_line(tmp_path):
    out = tmp_path / 'out'
    for command in (
        ('render', tmp_path, '--out', out),
        ('play', tmp_path),
        ('demo', '--out', out, '--scene', tmp_path),
    ):
        done = mta(*command)
        assert done.returncode == 1, command
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith('mta: ') and str(tmp_path) in lines[0]
    assert not (out / 'demo.mp4').exists() and not (out / 'summary.json').exists()


def test_debug_switch_shows_where_an_error_came_from(tmp_path):
    done = mta('render', tmp_path, '--out', tmp_path / 'out', MTA_DEBUG='1')
    assert done.returncode == 1 and 'Traceback' in done.stderr


def test_ask_without_a_node_says_what_is_missing():
    pytest.importorskip('mta_msgs')
    done = mta(
        'ask',
        'what is ahead?',
        '--timeout',
        '0.5',
        ROS_DOMAIN_ID='97',
        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
    )
    assert done.returncode == 1
    assert '/mta_perception/ask' in done.stderr and '--node' in done.stderr


def test_doctor_names_what_a_process_would_die_of_and_goes_on(tmp_path):
    pytest.importorskip('rclpy')
    (tmp_path / 'bag').mkdir()
    done = mta(
        'doctor',
        '--bag',
        tmp_path / 'bag',
        HOME='/proc/nowhere',
        MTA_CACHE='/proc/nowhere/cache',
        FASTDDS_DEFAULT_PROFILES_FILE=str(tmp_path / 'none.xml'),
    )
    assert done.returncode == 1
    bad = [line.split(':')[0] for line in done.stdout.splitlines() if line.startswith('BAD')]
    assert bad == ['BAD  home directory', 'BAD  cache', 'BAD  DDS profile', 'BAD  bag']
    assert 'MTA_CACHE' in done.stdout and 'ROS_LOG_DIR' in done.stdout


@pytest.mark.skipif(
    subprocess.run(['unshare', '--mount', 'true'], capture_output=True).returncode != 0,
    reason='may not mount a small /dev/shm here',
)
def test_full_shared_memory_is_named_by_doctor_and_by_whoever_starts_in_it():
    pytest.importorskip('rclpy')
    python = f'{sys.executable} -m mta_perception'
    script = (
        'mount -t tmpfs -o size=1m tmpfs /dev/shm && head -c 2M /dev/zero > /dev/shm/full; '
        f'{python}.ros.recorder --out no_bag; {python}.commands.cli doctor'
    )
    done = subprocess.run(
        ['unshare', '--mount', 'sh', '-c', script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert 'BAD  shared memory: 0 MB free of 1' in done.stdout
    assert '/dev/shm has 0 MB free, a process takes 134' in done.stderr  # the recorder
    assert 'was ended by SIGBUS' in done.stdout and 'ok   model' in done.stdout


def test_without_a_cache_the_demo_names_the_variable(tmp_path):
    done = mta('demo', '--out', tmp_path, MTA_CACHE='/proc/nowhere')
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and 'MTA_CACHE' in done.stderr


def test_doctor_names_a_model_that_is_not_there(tmp_path):
    done = mta('doctor', '--model', tmp_path / 'no_model')
    assert done.returncode == 1
    assert 'BAD  model:' in done.stdout and '->' in done.stdout

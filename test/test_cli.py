"""`mta`: exit codes, one-line errors, imports that are no heavier than the command needs."""

import os
from pathlib import Path
import subprocess
import sys

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
    assert names == {'demo', 'play', 'render', 'ask', 'bench', 'doctor'}
    for command in app.registered_commands:
        assert command.callback.__doc__
    done = mta('demo', '--help')
    assert done.returncode == 0 and '--seed' in done.stdout


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


def test_doctor_names_a_model_that_is_not_there(tmp_path):
    done = mta('doctor', '--model', tmp_path / 'no_model')
    assert done.returncode == 1
    assert 'BAD  model:' in done.stdout and '->' in done.stdout

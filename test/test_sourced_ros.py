"""A sourced ROS is set aside where our programs bring their own, and nowhere else."""

import os
from pathlib import Path
import subprocess
import sys
import sysconfig

import pytest

from mta_perception.sourced_ros import cleaned, has_ros_wheels, is_our_program

REPOSITORY = Path(__file__).parents[1]
OWN = f'{REPOSITORY}{os.pathsep}{REPOSITORY / "mta_training"}'


@pytest.fixture
def own(tmp_path):
    """(prefix, site-packages) of an environment with ROS as wheels."""
    prefix = tmp_path / 'own'
    site = prefix / 'lib' / 'python3' / 'site-packages'
    for name in ('ros_rclpy-9.1.2.dist-info', 'rclpy', 'numpy', 'mta_msgs', 'mta_msgs.egg-info'):
        (site / name).mkdir(parents=True)
    for name in ('librcl.so', 'librmw_fastrtps_cpp.so', 'libmta_msgs__c.so'):
        (prefix / 'lib' / name).touch()
    return prefix, site


@pytest.fixture
def other(tmp_path):
    """Variables of a shell that has sourced another ROS 2."""
    prefix = tmp_path / 'opt' / 'ros' / 'jazzy'
    packages = prefix / 'lib' / 'python3.12' / 'site-packages'
    (packages / 'rclpy').mkdir(parents=True)
    (packages / 'rclpy' / '__init__.py').write_text('raise SystemExit("the other rclpy")')
    (prefix / 'lib' / 'librcl.so').touch()
    return {
        'ROS_DISTRO': 'jazzy',
        'ROS_VERSION': '2',
        'ROS_PYTHON_VERSION': '3',
        'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp',
        'AMENT_PREFIX_PATH': str(prefix),
        'LD_LIBRARY_PATH': str(prefix / 'lib'),
        'PYTHONPATH': str(packages),
    }


@pytest.fixture
def other_numpy(tmp_path):
    folder = tmp_path / 'somewhere'
    (folder / 'numpy').mkdir(parents=True)
    (folder / 'numpy' / '__init__.py').write_text('raise SystemExit("the other numpy")')
    return folder


def test_nothing_of_another_ros_is_left(own, other):
    kept = {'HOME': '/h', 'ROS_DOMAIN_ID': '3', 'FASTDDS_DEFAULT_PROFILES_FILE': 'p.xml'}
    assert cleaned({**kept, **other}, *own) == {**kept, 'AMENT_PREFIX_PATH': str(own[0])}


def test_what_hides_nothing_of_ours_stays(own, other, tmp_path):
    tools = tmp_path / 'tools'
    (tools / 'my_debugger').mkdir(parents=True)
    environment = {
        'PYTHONPATH': f'{OWN}{os.pathsep}{tools}',
        'LD_LIBRARY_PATH': f'{tools}{os.pathsep}{own[0] / "lib"}',
        'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
        'AMENT_PREFIX_PATH': str(own[0]),
    }
    assert cleaned(environment, *own) == environment
    both = f'{other["PYTHONPATH"]}{os.pathsep}{environment["PYTHONPATH"]}'
    assert cleaned({**environment, 'PYTHONPATH': both}, *own) == environment


def test_a_workspace_on_top_of_our_own_wheels_stays(own, tmp_path):
    workspace = tmp_path / 'install' / 'mta_msgs'
    for name in ('mta_msgs', 'mta_msgs.egg-info'):
        (workspace / 'site-packages' / name).mkdir(parents=True)
    (workspace / 'lib').mkdir()
    (workspace / 'lib' / 'libmta_msgs__c.so').touch()
    environment = {
        'AMENT_PREFIX_PATH': str(workspace),
        'PYTHONPATH': str(workspace / 'site-packages'),
        'LD_LIBRARY_PATH': str(workspace / 'lib'),
    }
    assert cleaned(environment, *own) == {
        **environment,
        'AMENT_PREFIX_PATH': f'{workspace}{os.pathsep}{own[0]}',
    }


def test_a_prefix_that_is_not_there_is_dropped(own):
    wanted = cleaned({'AMENT_PREFIX_PATH': '/opt/ros/gone'}, *own)
    assert wanted == {'AMENT_PREFIX_PATH': str(own[0])}


@pytest.mark.parametrize(
    'argv, orig_argv, ours',
    [
        (['/x/.venv/bin/mta', 'doctor'], ['python', '/x/.venv/bin/mta', 'doctor'], True),
        (['perception_node'], ['python', 'perception_node'], True),
        (['-m'], ['python', '-m', 'mta_perception.ros.node'], True),
        (['-m'], ['python', '-X', 'dev', '-mmta_training.bevformer.golden'], True),
        (['/x/pytest/__main__.py'], ['python', '-m', 'pytest', 'mta_perception'], False),
        (['my_script.py'], ['python', 'my_script.py'], False),
        (['-c'], ['python', '-c', 'import mta_perception'], False),
        ([''], ['python'], False),
    ],
)
def test_only_our_own_programs_are_touched(argv, orig_argv, ours):
    assert is_our_program(argv, orig_argv) is ours


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


needs_wheels = pytest.mark.skipif(
    not has_ros_wheels(Path(sysconfig.get_path('purelib'))),
    reason='ROS 2 is not in this environment as wheels',
)


@needs_wheels
@pytest.mark.parametrize(
    'module',
    ['mta_perception.commands.cli', 'mta_training.commands.cli', 'mta_perception.ros.node'],
)
def test_programs_start_in_a_shell_with_another_ros(other, other_numpy, module):
    path = os.pathsep.join([other['PYTHONPATH'], str(other_numpy), OWN])
    words = ['--help'] if module.endswith('cli') else ['--ros-args', '-p', 'model:=/no/such/model']
    done = run('-m', module, *words, **{**other, 'PYTHONPATH': path})
    said = [line for line in done.stderr.splitlines() if 'leaves aside' in line]
    assert len(said) == 1 and 'jazzy' in said[0] and 'rmw_cyclonedds_cpp' in said[0]
    if module.endswith('cli'):
        assert done.returncode == 0, done.stderr
    else:
        assert '/no/such/model' in done.stderr and 'the other' not in done.stderr


@needs_wheels
@pytest.mark.parametrize('which', ['RMW_IMPLEMENTATION', 'AMENT_PREFIX_PATH', 'PYTHONPATH'])
def test_one_variable_alone_is_enough_to_be_set_aside(other, other_numpy, which):
    values = {**other, 'PYTHONPATH': f'{other_numpy}{os.pathsep}{OWN}'}
    environment = {'PYTHONPATH': OWN, which: values[which]}
    done = run('-m', 'mta_perception.commands.cli', 'doctor', **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert which in done.stderr and 'BAD' not in done.stdout


@needs_wheels
def test_a_program_starts_in_a_workspace_that_names_itself_alone(tmp_path):
    """As `colcon test` starts them: our own prefix is only added, and nothing is set aside."""
    done = run('-m', 'mta_perception.commands.cli', '--help', AMENT_PREFIX_PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert 'leaves aside' not in done.stderr


@needs_wheels
def test_a_program_of_somebody_else_is_left_alone(other):
    done = run(
        '-c',
        'import os, mta_perception; print(os.environ["ROS_DISTRO"], os.environ["PYTHONPATH"])',
        **{**other, 'PYTHONPATH': OWN},
    )
    assert done.stdout.split() == ['jazzy', OWN] and not done.stderr

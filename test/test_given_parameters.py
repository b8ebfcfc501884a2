"""Parameters that would be lost without a word: misspelt, in a file that is not there, or given
where nothing reads them."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from mta_perception.ros.given_parameters import check_names, check_params_file, params_files

KNOWN = ('cameras', 'max_captions', 'model', 'transport')


@pytest.mark.parametrize(
    'given, meant',
    [('max_caption', 'max_captions'), ('modle', 'model'), ('camera', 'cameras')],
)
def test_a_misspelt_name_is_an_error_that_names_the_near_one(given, meant):
    with pytest.raises(ValueError, match=f'"{given}" .did you mean {meant}'):
        check_names([given, 'model'], KNOWN)


@pytest.mark.parametrize(
    'asked, cores, threads, spare', [(0, 1, 1, 0), (0, 2, 2, 0), (0, 16, 4, 1), (2, 4, 2, 1)]
)
def test_the_detector_takes_the_cores_there_are_where_nothing_is_asked(
    asked, cores, threads, spare, monkeypatch
):
    parameters = pytest.importorskip('mta_perception.ros.parameters')
    values = {spec.name: spec.default for spec in parameters.SPECS}
    given = SimpleNamespace(**{**values, 'detector_threads': asked})
    monkeypatch.setattr(parameters.os, 'sched_getaffinity', lambda _: range(cores))
    assert parameters.detector_threads(given, parameters.cores()) == threads
    assert parameters.pipeline_config(given).has_spare_cores == bool(spare)


def test_names_of_other_nodes_and_qos_overrides_are_no_error():
    given = ['robot_name', 'qos_overrides./odom.subscription.depth', 'transport']
    assert check_names(given, KNOWN) == ['robot_name']


def test_a_file_that_is_there_is_taken(tmp_path):
    path = tmp_path / 'car.yaml'
    path.write_text('')
    assert check_params_file(str(path)) == path


def test_a_missing_file_names_what_lies_beside_it(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no directory'):
        check_params_file(tmp_path / 'nowhere' / 'car.yaml')
    with pytest.raises(FileNotFoundError, match='none'):
        check_params_file(tmp_path / 'car.yaml')
    (tmp_path / 'truck.yaml').write_text('')
    with pytest.raises(FileNotFoundError, match='truck.yaml'):
        check_params_file(tmp_path / 'car.yaml')
    with pytest.raises(FileNotFoundError, match='is a directory'):
        check_params_file(tmp_path)


def test_every_parameter_file_of_a_command_line_is_found():
    line = ['--ros-args', '--params-file', 'a.yaml', '-p', 'model:=x', '--params-file', 'b.yaml']
    assert params_files(line) == ['a.yaml', 'b.yaml']


def perception_node(*arguments, without=()):
    """Run the executable in an interpreter that lacks the modules `without`."""
    code = (
        'import sys\n'
        'class Blocker:\n'
        '    def find_spec(name, path=None, target=None):\n'
        f'        if name.split(".")[0] in {without!r}:\n'
        '            raise ModuleNotFoundError(f"No module named {name!r}", name=name)\n'
        'sys.meta_path.insert(0, Blocker)\n'
        'from mta_perception.ros.start import main\n'
        'sys.exit(main())'
    )
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_is_printed_without_ros_and_ends():
    done = perception_node('--help', without=('rclpy', 'rcl_interfaces'))
    assert done.returncode == 0 and 'usage: perception_node' in done.stdout


def test_help_lists_every_parameter():
    parameters = pytest.importorskip('mta_perception.ros.parameters')
    done = perception_node('--help')
    assert all(f'\n  {name} ' in done.stdout for name in parameters.NAMES)


def test_without_ros_one_line_says_what_to_do():
    done = perception_node(without=('rclpy', 'rcl_interfaces'))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and 'source a ROS 2' in done.stderr


def test_arguments_that_nothing_would_read_are_refused():
    done = perception_node('-p', 'model:=mine')
    assert done.returncode == 2
    assert 'perception_node --ros-args -p model:=mine' in done.stderr
    assert 'did you mean --help?' in perception_node('--hlep').stderr


def test_the_node_itself_refuses_a_misspelt_parameter(tmp_path):
    pytest.importorskip('rclpy')
    pytest.importorskip('mta_msgs', reason='interface packages are not built here')
    path = tmp_path / 'car.yaml'
    path.write_text('/**:\n  ros__parameters:\n    transprot: raw\n')
    for given in (('-p', 'transprot:=raw'), ('--params-file', path)):
        done = perception_node('--ros-args', *given)
        assert done.returncode == 2, done.stderr
        assert 'did you mean transport?' in done.stderr
    done = perception_node('--ros-args', '--params-file', tmp_path / 'cars.yaml')
    assert done.returncode == 2 and f'Did you mean {path}?' in done.stderr

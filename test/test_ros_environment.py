"""`make ros-env`: what it says where ROS 2 or a part of it is missing, what it hands to pip."""

import os
from pathlib import Path
import subprocess
import sys

import pytest
import ros_environment

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def ros_prefix(tmp_path, monkeypatch):
    """A sourced ROS 2 with all that package.xml asks for; its rclpy is taken as read."""
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for name in ros_environment.ros_dependencies():
        (index / name).touch()
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "elsewhere"}{os.pathsep}{tmp_path}')
    return index


def test_without_ros_the_way_without_is_named():
    kept = {name: value for name, value in os.environ.items() if name != 'ROS_DISTRO'}
    done = subprocess.run(
        ['make', '--no-print-directory', 'ros-env', f'PYTHON={sys.executable}'],
        cwd=REPOSITORY,
        env=kept,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'no ROS 2 is sourced' in done.stderr and '`make env`' in done.stderr
    assert not (REPOSITORY / '.venv-ros').exists() or 'making' not in done.stderr


def test_missing_messages_are_named_with_the_line_that_installs_them(ros_prefix):
    pytest.importorskip('rclpy')
    ros_environment.check_ros()
    (ros_prefix / 'vision_msgs').unlink()
    with pytest.raises(ros_environment.MissingError, match='missing: vision_msgs.*\n.*rosdep'):
        ros_environment.check_ros()


def test_what_the_node_itself_does_not_need_is_only_told(ros_prefix, capsys):
    pytest.importorskip('rclpy')
    (ros_prefix / 'rviz2').unlink()
    ros_environment.check_ros()
    assert 'rviz2' in capsys.readouterr().err


def test_pip_gets_every_requirement_but_what_the_system_has_without_telling_pip():
    asked = ros_environment.requirements()
    assert any(line.startswith('onnxruntime') for line in asked)
    assert 'mta_perception' not in asked
    assert not any(line.startswith('opencv') for line in asked), 'cv2 can be imported here'
    assert f'numpy<{ros_environment.numpy_major() + 1}' in asked

"""Beside a sourced ROS 2: `.venv-ros` with what rosdep cannot install, and ros2_ws built with it.

`make ros-env` calls this.  The virtual environment sees the packages of the system (rclpy, OpenCV,
what rosdep has brought); pip adds the rest, since Debian 12 and Ubuntu 24.04 refuse it outside of
one (PEP 668).  numpy keeps the major version that ROS is built with.  Standard library alone.
"""

import argparse
import ast
import os
from pathlib import Path
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

REPOSITORY = Path(__file__).resolve().parent.parent
WORKSPACE = REPOSITORY / 'ros2_ws'
ENVIRONMENT = REPOSITORY / '.venv-ros'
PACKAGES = (REPOSITORY, REPOSITORY / 'mta_training')
ROSDEP = 'rosdep install --from-paths ros2_ws/src --ignore-src -y'
# Its metadata keeps numpy below 2, which its code does not need; what it needs is in setup.py.
DEVKIT = 'nuscenes-devkit==1.2.0'
# `setup.py develop`, which --symlink-install calls, has lost its options in setuptools 80.
BUILD_TOOLS = ['setuptools<80', 'colcon-common-extensions', 'pytest>=7,<9', 'hypothesis']


class MissingError(Exception):
    """Something is not there; the message says what to type."""


def main():
    """Make or complete the environment, then build the workspace; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('colcon', nargs='*', help='arguments for colcon build, after --')
    colcon = parser.parse_args().colcon
    try:
        check_ros()
        make_environment()
        install()
        run([python(), '-m', 'colcon', 'build', *colcon], cwd=WORKSPACE)
    except MissingError as error:
        say(str(error))
        return 1
    except subprocess.CalledProcessError as error:
        say(f'`{" ".join(map(str, error.cmd[:4]))} …` ended with exit code {error.returncode}')
        return 1
    say(
        'ready. In every shell that uses it, after the setup file of ROS 2:\n'
        f'    source {ENVIRONMENT}/bin/activate\n'
        f'    source {WORKSPACE}/install/setup.bash\n'
        '    ros2 launch mta_perception bringup.launch.py'
    )
    return 0


def check_ros():
    """Refuse a shell without ROS 2, or a ROS 2 without the messages; tell what else is missing."""
    if 'ROS_DISTRO' not in os.environ:
        raise MissingError(
            'no ROS 2 is sourced in this shell. Type `source /opt/ros/DISTRO/setup.bash` first '
            '(humble, jazzy, kilted or lyrical); without ROS 2, `make env` brings its own.'
        )
    if not imports('rclpy'):
        raise MissingError(
            f'{sys.executable} cannot import the rclpy of ROS 2 {os.environ["ROS_DISTRO"]}. Give '
            'the Python that this ROS 2 is built for: make ros-env PYTHON=/usr/bin/python3'
        )
    missing = sorted(ros_dependencies() - ros_packages())
    needed = [name for name in missing if name.endswith(('_msgs', '_interfaces', '_srvs'))]
    if needed:
        raise MissingError(f'ROS packages are missing: {", ".join(needed)}. Type\n    {ROSDEP}')
    if missing:
        say(f'not installed, and not needed by the node itself: {", ".join(missing)} ({ROSDEP})')


def ros_dependencies():
    """ROS packages in the package.xml of both packages, but ours and Python's."""
    asked = {
        element.text
        for folder in PACKAGES
        for element in ElementTree.parse(folder / 'package.xml').getroot().iter('exec_depend')
    }
    return {name for name in asked if not name.startswith(('mta_', 'python3-'))}


def ros_packages():
    """Names in the ament index of the sourced prefixes."""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    index = Path('share', 'ament_index', 'resource_index', 'packages')
    return {path.name for prefix in prefixes if prefix for path in Path(prefix, index).glob('*')}


def make_environment():
    """A virtual environment that sees the packages of the system; kept where it is there."""
    if python().exists():
        return
    say(f'making {ENVIRONMENT.name}, an environment that sees the packages of the system')
    run([sys.executable, '-m', 'venv', '--system-site-packages', ENVIRONMENT])


def install():
    """With pip what the system does not have, or has too old."""
    say('installing what rosdep cannot (onnxruntime, tokenizers, rosbags and more)')
    pip = [python(), '-m', 'pip', 'install', '--disable-pip-version-check', '--quiet']
    run([*pip, *requirements(), *BUILD_TOOLS])
    run([*pip, '--no-deps', DEVKIT])


def requirements():
    """install_requires of both packages, with numpy held at the major version of ROS' own."""
    wanted = {line for folder in PACKAGES for line in install_requires(folder / 'setup.py')}
    wanted.discard('mta_perception')
    if imports('cv2'):  # python3-opencv does not tell pip that it is there
        wanted = {line for line in wanted if not line.startswith('opencv')}
    return sorted(wanted) + [f'numpy<{numpy_major() + 1}']


def install_requires(setup_py):
    """The list that is written in a setup.py."""
    for node in ast.walk(ast.parse(setup_py.read_text(encoding='utf-8'))):
        if isinstance(node, ast.keyword) and node.arg == 'install_requires':
            return ast.literal_eval(node.value)
    raise MissingError(f'{setup_py} has no install_requires')


def numpy_major():
    """The major version of numpy that the messages of the sourced ROS 2 are built with."""
    command = [sys.executable, '-c', 'import numpy; print(numpy.__version__)']
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if answer.returncode:
        raise MissingError(f'{sys.executable} has no numpy. Type\n    {ROSDEP}')
    return int(answer.stdout.split('.')[0])


def imports(module):
    """True where the Python that runs this can import the module."""
    command = [sys.executable, '-c', f'import {module}']
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def python():
    return ENVIRONMENT / 'bin' / 'python3'


def run(command, cwd=None):
    """Raises CalledProcessError."""
    # What builds the scripts looks for python3 on the PATH, as they will when they start.
    path = f'{ENVIRONMENT / "bin"}{os.pathsep}{os.environ["PATH"]}'
    subprocess.run(list(map(str, command)), cwd=cwd, check=True, env={**os.environ, 'PATH': path})


def say(text):
    """Tell the person; on stderr, so that the output of the command itself stays clean."""
    print(f'[ros-env] {text}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    sys.exit(main())

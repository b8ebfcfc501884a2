"""The executable `perception_node`: its command line, before ROS is needed.

`--help` answers on any machine; everything else goes to node.py, and what is missing for that is
said with what to do about it.
"""

import os
import re
import signal
import sys

from mta_perception.ros.environment import prepare
from mta_perception.ros.given_parameters import check_params_file, near_match, params_files

USAGE = """\
usage: perception_node [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] ...]

Six cameras in, 3D boxes and sentences about them out, as a ROS 2 lifecycle node.

  -p NAME:=VALUE      one parameter
  --params-file FILE  parameters from a file; params/perception.yaml shows all of them
  -r FROM:=TO         another name for a topic, e.g. -r cam_front/image_raw:=/front/image
  -r __ns:=/NAME      a namespace
  --log-level LEVEL   debug, info, warn, error or fatal

"""
ROS_OPTIONS = ('-p', '--param', '-r', '--remap', '--params-file', '--log-level')
DONE, FAILED, WRONG_USAGE = 0, 1, 2
# Whoever lacks one of these has not sourced a ROS 2 or not built the workspace.
FROM_ROS = re.compile(r'rclpy|std_srvs|\w+_msgs|\w+_interfaces')


def main():
    """Answer --help, refuse what cannot work, else run the node; returns the exit code."""
    # Until the node has its own handlers: importing takes a second.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(DONE))
    arguments = sys.argv[1:]
    own = arguments[: arguments.index('--ros-args')] if '--ros-args' in arguments else arguments
    if '--help' in own or '-h' in own:
        print(USAGE + parameter_list(), end='')
        return DONE
    try:
        check_arguments(own)
        for path in params_files(arguments):
            check_params_file(path)
    except (ValueError, OSError) as error:
        return complain(error, WRONG_USAGE)
    try:
        prepare()
        from mta_perception.ros import node
    except OSError as error:
        return complain(error, FAILED)
    except ModuleNotFoundError as error:
        return complain(missing(error), FAILED)
    return node.main()


def check_arguments(own):
    """Raises ValueError for arguments before `--ros-args`: they would be passed over."""
    if not own:
        return
    if own[0] in ROS_OPTIONS or ':=' in own[0]:
        advice = f'it is read after --ros-args only: perception_node --ros-args {" ".join(own)}'
    else:
        near = near_match(own[0], ('--help', '--ros-args'))
        advice = f'did you mean {near}?' if near else 'see perception_node --help'
    raise ValueError(f'unknown argument "{own[0]}": {advice}')


def parameter_list():
    """A line for each parameter; without ROS, where to read it."""
    try:
        from mta_perception.ros.parameters import SPECS
    except ModuleNotFoundError:
        return 'parameters: see params/perception.yaml\n'
    width = max(len(spec.name) for spec in SPECS)
    lines = [f'  {spec.name:{width}}  {spec.description}' for spec in SPECS]
    return 'parameters:\n' + '\n'.join(lines) + '\n'


def missing(error):
    """Words for a module that is not there."""
    name = (error.name or '').split('.')[0]
    if FROM_ROS.fullmatch(name):
        advice = (
            'source a ROS 2 and the workspace that was built with it (README.md, "On a machine '
            'with ROS 2"), or make an environment that has both with `make env`.'
        )
    else:
        advice = f'{sys.executable} does not have it; `make ros-env` or `make env` installs it.'
    return f'the Python module {name} is not there: {advice}'


def complain(error, code):
    """One line on stderr; returns `code`."""
    print(f'perception_node: {error}', file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())

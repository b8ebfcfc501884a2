"""From the strings that `ros2 launch` has to what the node gets, for launch/bringup.launch.py.

Without launch, so that it is tested where ROS 2 comes from wheels (launch is not among them).
"""

from typing import NamedTuple

import yaml

from mta_perception.contract import CAMERAS
from mta_perception.ros.given_parameters import check_params_file

# The name that the launch file gives the node and a parameter file has above `ros__parameters`.
NODE_NAME = 'mta_perception'


class NodeArguments(NamedTuple):
    """What launch_ros' Node takes."""

    params_file: str
    parameters: dict
    remappings: list  # (from, to)
    log_level: str


def node_arguments(given):
    """NodeArguments from {argument: string}; an empty string leaves params_file its say.

    Raises FileNotFoundError, ValueError.
    """
    path = check_params_file(given['params_file'])
    parameters = {name: given[name] for name in ('model', 'transport') if given[name]}
    parameters.update(
        {name: given[name] == 'true' for name in ('autostart', 'use_sim_time') if given[name]}
    )
    cameras = [name.strip() for name in given['cameras'].strip('[]').split(',') if name.strip()]
    if cameras:
        parameters['cameras'] = cameras
    remappings = _remappings(
        cameras or cameras_in(path), given['image_topic'], given['camera_info_topic']
    )
    return NodeArguments(str(path), parameters, remappings, given['log_level'])


def cameras_in(path):
    """Names of the cameras in a parameter file; the model's own where it has none."""
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    found = None
    for section, parameters in _sections(content, ''):
        if section.rsplit('/', 1)[-1] in (NODE_NAME, '**'):
            found = parameters.get('cameras', found)
    return list(found or CAMERAS)


def _sections(content, name):
    """(name of a node, its parameters) of a parameter file, namespaces taken apart or not."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == 'ros__parameters':
            yield name, value or {}
        else:
            yield from _sections(value, f'{name}/{key}')


def _remappings(cameras, image_topic, camera_info_topic):
    """Both transports of each image and each calibration, where a topic was given."""
    remappings = []
    for camera in cameras:
        if image_topic:
            topic = _topic_of(camera, image_topic, 'image_topic')
            remappings += [
                (f'{camera}/image_raw', topic),
                (f'{camera}/image_raw/compressed', f'{topic}/compressed'),
            ]
        if camera_info_topic:
            topic = _topic_of(camera, camera_info_topic, 'camera_info_topic')
            remappings.append((f'{camera}/camera_info', topic))
    return remappings


def _topic_of(camera, pattern, argument):
    if '{camera}' not in pattern:
        raise ValueError(
            f'{argument} is "{pattern}" for all cameras; write {{camera}} where their names '
            'differ, for example "/sensing/{camera}/image_rect".'
        )
    return pattern.replace('{camera}', camera)

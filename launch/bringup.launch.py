"""Start the perception node; with it, where asked for, RViz and the replay of a bag."""

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription
from mta_perception.ros.environment import transport_variables
from mta_perception.ros.launch_arguments import node_arguments

PACKAGE = 'mta_perception'
START_S = '5'  # the node has loaded its model by then and misses nothing of a bag [s]
# Arguments that go to the node; what is empty is as in params_file.
FOR_THE_NODE = (
    'params_file',
    'model',
    'transport',
    'cameras',
    'autostart',
    'use_sim_time',
    'image_topic',
    'camera_info_topic',
    'log_level',
)


def shipped(*parts):
    """A file of the package's share directory."""
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])


def declared_arguments():
    return [
        DeclareLaunchArgument(
            'model',
            default_value='',
            description='Name of a model under models/, or the path of a directory with a '
            'manifest.yaml; empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=shipped('params', 'perception.yaml'),
            description='Parameter file of the node. Arguments of this launch that are not empty '
            'take the place of what it says.',
        ),
        DeclareLaunchArgument(
            'transport',
            default_value='',
            choices=['', 'raw', 'compressed'],
            description='raw: <cam>/image_raw; compressed: <cam>/image_raw/compressed; empty: as '
            'in params_file.',
        ),
        DeclareLaunchArgument(
            'cameras',
            default_value='',
            description='Names of the six cameras, comma between them, in the order of the model: '
            'front, front right, front left, back, back left, back right; empty: as in '
            'params_file.',
        ),
        DeclareLaunchArgument(
            'image_topic',
            default_value='',
            description='Where the images of a camera are published, "{camera}" for its name: '
            '"/sensing/{camera}/image_rect". Compressed ones are below it, as image_transport '
            'publishes them. Empty: <namespace>/<cam>/image_raw.',
        ),
        DeclareLaunchArgument(
            'camera_info_topic',
            default_value='',
            description='Where the calibration of a camera is published, "{camera}" for its name; '
            'empty: <namespace>/<cam>/camera_info.',
        ),
        DeclareLaunchArgument(
            'namespace',
            default_value='',
            description='Namespace of the node and of every topic with a relative name.',
        ),
        DeclareLaunchArgument(
            'autostart',
            default_value='',
            choices=['', 'true', 'false'],
            description='Configure and activate at start; false: wait for a lifecycle manager; '
            'empty: as in params_file.',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Level from which the node logs.',
        ),
        DeclareLaunchArgument(
            'rviz',
            default_value='false',
            choices=['true', 'false'],
            description='Open RViz with boxes, captions, overlay picture and TF.',
        ),
        DeclareLaunchArgument(
            'bag',
            default_value='',
            description='Path of a bag to play with `ros2 bag play --clock`; empty: none. Give '
            'use_sim_time:=true with it.',
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='false',
            choices=['true', 'false'],
            description='Take the time from /clock (a bag, a simulator).',
        ),
    ]


def transport_profile():
    """Six raw cameras need more shared memory than Fast DDS' default; the user's choice stays."""
    return [SetEnvironmentVariable(name, path) for name, path in transport_variables().items()]


def perception_node(context):
    """The node with what was given; a file that is not there ends the launch here."""
    given = {name: LaunchConfiguration(name).perform(context) for name in FOR_THE_NODE}
    arguments = node_arguments(given)
    # Marked as text: launch would make a number of a model that is named 7.
    parameters = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in arguments.parameters.items()
    }
    return [
        Node(
            package=PACKAGE,
            executable='perception_node',
            name='mta_perception',
            namespace=LaunchConfiguration('namespace'),
            output='screen',
            parameters=[arguments.params_file, parameters],
            remappings=arguments.remappings,
            ros_arguments=['--log-level', arguments.log_level],
            on_exit=Shutdown(reason='the perception node has ended'),
        )
    ]


def bag_player(context):
    bag = LaunchConfiguration('bag').perform(context)
    if not bag:
        return []
    play = ['ros2', 'bag', 'play', bag, '--clock', '100', '--delay', START_S]
    return [ExecuteProcess(cmd=play, output='screen')]


def rviz():
    return Node(
        package='rviz2',
        executable='rviz2',
        name='rviz2',
        output='screen',
        arguments=['-d', shipped('rviz', 'perception.rviz')],
        parameters=[
            {'use_sim_time': ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)}
        ],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )


def generate_launch_description():
    return LaunchDescription(
        [
            *declared_arguments(),
            *transport_profile(),
            OpaqueFunction(function=perception_node),
            OpaqueFunction(function=bag_player),
            rviz(),
        ]
    )

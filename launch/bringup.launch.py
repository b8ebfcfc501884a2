"""Start the perception node; with it, where asked for, RViz and the replay of a bag."""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    NotEqualsSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

PACKAGE = 'mta_perception'
START_S = '5'  # the node has loaded its model by then and misses nothing of a bag [s]


def shipped(*parts):
    """A file of the package's share directory."""
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])


def declared_arguments():
    return [
        DeclareLaunchArgument(
            'model',
            default_value='nano',
            description='Name of a model under models/, or the path of a directory with a '
            'manifest.yaml.',
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=shipped('params', 'perception.yaml'),
            description='Parameter file of the node; model, transport and use_sim_time are taken '
            'from the arguments of this launch.',
        ),
        DeclareLaunchArgument(
            'transport',
            default_value='compressed',
            choices=['raw', 'compressed'],
            description='raw: <cam>/image_raw; compressed: <cam>/image_raw/compressed.',
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
    return SetEnvironmentVariable(
        'FASTDDS_DEFAULT_PROFILES_FILE',
        EnvironmentVariable(
            'FASTDDS_DEFAULT_PROFILES_FILE',
            default_value=shipped('params', 'fastdds_shared_memory.xml'),
        ),
    )


def perception_node():
    use_sim_time = ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)
    return Node(
        package=PACKAGE,
        executable='perception_node',
        name='mta_perception',
        output='screen',
        parameters=[
            LaunchConfiguration('params_file'),
            {
                'model': ParameterValue(LaunchConfiguration('model'), value_type=str),
                'transport': ParameterValue(LaunchConfiguration('transport'), value_type=str),
                'use_sim_time': use_sim_time,
            },
        ],
        on_exit=Shutdown(reason='the perception node has ended'),
    )


def bag_player():
    bag = LaunchConfiguration('bag')
    return ExecuteProcess(
        cmd=['ros2', 'bag', 'play', bag, '--clock', '100', '--delay', START_S],
        output='screen',
        condition=IfCondition(NotEqualsSubstitution(bag, '')),
    )


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
        [*declared_arguments(), transport_profile(), perception_node(), bag_player(), rviz()]
    )

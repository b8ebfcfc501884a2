"""What a process needs in its environment before `rclpy.init`, set unless the user has set it.

The ROS wheels do not name their own install prefix, and Fast DDS' built-in transport cannot carry
six raw cameras; on a machine with ROS 2 from apt the first is set by sourcing it, the second not.
"""

import os
import sys

from mta_perception.share import share_file

# The second is the name Fast DDS read before 2.11; whoever has set either has chosen a profile.
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def prepare(transport_profile=True):
    """Set AMENT_PREFIX_PATH and, with `transport_profile`, the shared-memory profile.

    Call it before `rclpy.init`. Raises FileNotFoundError when the shipped profile is not there.
    """
    os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
    if transport_profile:
        os.environ.update(transport_variables())


def transport_variables():
    """{variable: the shipped profile}; empty where the user has chosen a profile."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return {}
    older = os.environ.get('ROS_DISTRO') == 'humble'  # Fast DDS 2.6
    return {PROFILE_VARIABLES[older]: str(transport_profile_path())}


def transport_profile_path():
    """The shipped Fast DDS profile."""
    return share_file('params', 'fastdds_shared_memory.xml')

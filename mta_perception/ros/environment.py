"""What a process needs in its environment before `rclpy.init`, set unless the user has set it.

The ROS wheels do not name their own install prefix, and Fast DDS' built-in transport cannot carry
six raw cameras; on a machine with ROS 2 from apt the first is set by sourcing it, the second not.
"""

from functools import cache
import os
from pathlib import Path
import sys
import tempfile

from mta_perception.ros.shared_memory import free_bytes, remove_abandoned
from mta_perception.share import share_file

SEGMENT_MB = 134  # as in params/fastdds_shared_memory.xml
# Whoever has set either has chosen a profile.  Fast DDS 2, which these distributions have, reads
# the second alone; later ones read the first, and warn of the second.
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
WITH_FAST_DDS_2 = ('humble', 'iron', 'jazzy')


def prepare(transport_profile: bool = True) -> None:
    """Set AMENT_PREFIX_PATH and, with `transport_profile`, the shared-memory profile; make room.

    Call it before rclpy is imported: where shared memory is full, that ends the process.  What
    killed processes left there is removed, and logs have a place where there is no home.  Raises
    FileNotFoundError where the shipped profile is missing.
    """
    remove_abandoned()
    _say_what_is_missing_of_shared_memory()
    if (
        not (os.environ.get('ROS_LOG_DIR') or os.environ.get('ROS_HOME'))
        and not home_is_writable()
    ):
        # Without a folder for logs rclpy does not start at all.
        os.environ['ROS_LOG_DIR'] = str(Path(tempfile.gettempdir()) / f'ros_log_{os.getuid()}')
    os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
    if transport_profile:
        os.environ.update(transport_variables())


@cache
def _say_what_is_missing_of_shared_memory():
    """One line before SIGBUS, which may follow, ends the process without any."""
    free_mb = free_bytes() // 2**20
    if free_mb < SEGMENT_MB:
        print(
            f'/dev/shm has {free_mb} MB free, a process takes {SEGMENT_MB}: images will be slow, '
            'and a full one ends processes by SIGBUS. Enlarge it (docker run --shm-size=1g).',
            file=sys.stderr,
            flush=True,
        )


def transport_variables() -> dict[str, str]:
    """{variable: profile} to set, so that Fast DDS reads the user's or else the shipped one."""
    now, formerly = PROFILE_VARIABLES
    wanted = formerly if os.environ.get('ROS_DISTRO') in WITH_FAST_DDS_2 else now
    if os.environ.get(wanted) or os.environ.get(formerly):
        return {}
    return {wanted: os.environ.get(now) or str(transport_profile_path())}


def home_is_writable() -> bool:
    """False in containers and CI without a home directory, or with somebody else's."""
    home = Path(os.path.expanduser('~'))
    deepest = (home / '.ros' / 'log', home / '.ros', home)
    folder = next((path for path in deepest if path.exists()), home)
    return os.access(folder, os.W_OK | os.X_OK)


def transport_profile_path() -> Path:
    """The shipped Fast DDS profile."""
    return share_file('params', 'fastdds_shared_memory.xml')

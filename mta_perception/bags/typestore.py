"""ROS message types for reading and writing bags without ROS: rosbags' Kilted store plus ours.

The definitions of vision_msgs and mta_msgs come from the ament share directories (apt or the
virtual environment), or from this source tree where the interface packages are not installed.
"""

from functools import lru_cache
import os
from pathlib import Path
import sys
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

_SOURCE = Path(__file__).resolve().parents[2] / 'ros2_ws'
_SOURCE_DIRECTORY = {
    'vision_msgs': _SOURCE / 'underlay' / 'vision_msgs',
    'mta_msgs': _SOURCE / 'src' / 'mta_msgs',
}


def _definition_directory(package: str) -> Path:
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    tried = [Path(prefix) / 'share' / package for prefix in [*prefixes, sys.prefix]]
    tried.append(_SOURCE_DIRECTORY[package])
    for directory in tried:
        if any((directory / 'msg').glob('*.msg')):
            return directory / 'msg'
    raise FileNotFoundError(
        f'the message definitions of {package} are in none of '
        f'{", ".join(map(str, tried))}; run `make env`, or install '
        f'ros-$ROS_DISTRO-{package.replace("_", "-")}.'
    )


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The Typestore all bags are read and written with."""
    store = get_typestore(Stores.ROS2_KILTED)
    added = {}
    for package in _SOURCE_DIRECTORY:
        for path in sorted(_definition_directory(package).glob('*.msg')):
            added.update(get_types_from_msg(path.read_text(), f'{package}/msg/{path.stem}'))
    store.register(added)
    return store


def message(name: str, **fields: Any) -> Any:
    """A message object, `message('std_msgs/msg/String', data='x')`."""
    return typestore().types[name](**fields)


def time_message(stamp_ns: int) -> Any:
    """builtin_interfaces/Time from integer nanoseconds."""
    return message(
        'builtin_interfaces/msg/Time',
        sec=int(stamp_ns // 1_000_000_000),
        nanosec=int(stamp_ns % 1_000_000_000),
    )


def time_ns(stamp: Any) -> int:
    """Integer nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

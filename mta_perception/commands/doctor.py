"""`mta doctor`: what is installed, what is missing, what to do about it."""

from importlib import import_module, metadata
from importlib.util import find_spec
import json
import os
from pathlib import Path
import platform
import shutil
import sys
from typing import NamedTuple

PACKAGES = (
    'numpy',
    'opencv-python-headless',
    'rosbags',
    'onnxruntime',
    'tokenizers',
    'pyyaml',
    'pillow',
    'typer',
    'rich',
)
INTERFACES = {
    'sensor_msgs': 'Image',
    'nav_msgs': 'Odometry',
    'diagnostic_msgs': 'DiagnosticArray',
    'visualization_msgs': 'MarkerArray',
    'vision_msgs': 'Detection3DArray',
    'tf2_msgs': 'TFMessage',
    'mta_msgs': 'ObjectCaptionArray',
}
# RIHS01 of the published vision_msgs: with another one no other ROS machine understands us.
DETECTION_HASH = 'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'
SHARED_MEMORY_MB = 512  # our profile takes a segment of 128 MB a process


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    ok: bool
    found: str
    remedy: str


def examine(model):
    """All findings, in the order in which to mend them."""
    return [
        _python(),
        *_packages(),
        _rclpy(),
        *_interfaces(),
        _type_hash(),
        _shared_memory(),
        _profile(),
        _model(model),
    ]


def _python():
    return Finding(
        'python',
        (3, 10) <= sys.version_info[:2] <= (3, 12),
        f'{platform.python_version()} at {sys.executable}',
        'The ROS wheels are built for Python 3.10 to 3.12; make the environment with '
        'one of those: `make clean env PYTHON=python3.11`.',
    )


def _packages():
    findings = []
    for package in PACKAGES:
        try:
            findings.append(Finding(package, True, metadata.version(package), ''))
        except metadata.PackageNotFoundError:
            findings.append(Finding(package, False, 'not installed', 'Run `make env`.'))
    return findings


def _rclpy():
    os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
    wanted = os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp')
    try:
        found = import_module('rclpy').get_rmw_implementation_identifier()
    except (ImportError, RuntimeError) as error:
        return Finding('rclpy', False, str(error), 'Run `make env`, or source your ROS 2.')
    return Finding(
        'rclpy',
        found == wanted,
        f'{found}, domain {os.environ.get("ROS_DOMAIN_ID", "0")}',
        f'RMW_IMPLEMENTATION asks for {wanted}; unset it or install that one.',
    )


def _interfaces():
    findings = []
    for package, name in INTERFACES.items():
        try:
            getattr(import_module(f'{package}.msg'), name)
            findings.append(Finding(f'{package}', True, f'{name} loads', ''))
        except (ImportError, AttributeError) as error:
            findings.append(
                Finding(
                    f'{package}',
                    False,
                    str(error),
                    'Run `make env` (it builds the interface packages), or '
                    'source the workspace that has them.',
                )
            )
    return findings


def _type_hash():
    """The hash that the built package carries in its type description."""
    name = 'vision_msgs/msg/Detection3DArray'
    if os.environ.get('ROS_DISTRO') == 'humble':
        return Finding('type hash', True, 'none on Humble', '')
    for prefix in os.environ.get('AMENT_PREFIX_PATH', sys.prefix).split(os.pathsep):
        description = Path(prefix) / 'share' / 'vision_msgs' / 'msg' / 'Detection3DArray.json'
        if description.is_file():
            hashes = json.loads(description.read_text(encoding='utf-8'))['type_hashes']
            found = next(
                (entry['hash_string'] for entry in hashes if entry['type_name'] == name), 'absent'
            )
            return Finding(
                'type hash',
                found == DETECTION_HASH,
                f'{name} {found[:19]}…',
                f'Expected {DETECTION_HASH}: other ROS machines will not understand '
                'this build. Remove the underlay and run `make env` again.',
            )
    return Finding('type hash', False, f'no type description of {name}', 'Run `make env`.')


def _shared_memory():
    if not Path('/dev/shm').is_dir():
        return Finding(
            'shared memory', False, 'no /dev/shm', 'Mount a tmpfs there: images go through it.'
        )
    usage = shutil.disk_usage('/dev/shm')
    return Finding(
        'shared memory',
        usage.free >= SHARED_MEMORY_MB * 2**20,
        f'{usage.free // 2**20} MB free of {usage.total // 2**20}',
        f'Expected {SHARED_MEMORY_MB} MB free: enlarge it (docker run '
        '--shm-size=1g), or remove stale /dev/shm/fastrtps_* of ended processes.',
    )


def _profile():
    from mta_perception.ros.environment import transport_profile_path

    chosen = os.environ.get('FASTDDS_DEFAULT_PROFILES_FILE')
    try:
        path = Path(chosen) if chosen else transport_profile_path()
    except FileNotFoundError as error:
        return Finding('DDS profile', False, str(error), 'Install the package again.')
    origin = 'FASTDDS_DEFAULT_PROFILES_FILE' if chosen else 'shipped, set by the node'
    return Finding(
        'DDS profile',
        path.is_file(),
        f'{path} ({origin})',
        'The file is missing: without it six raw cameras come through at 4 Hz. Unset '
        'FASTDDS_DEFAULT_PROFILES_FILE or install the package again.',
    )


def _model(model):
    if find_spec('onnxruntime') is None:
        return Finding('model', False, 'onnxruntime is missing', 'Run `make env`.')
    from mta_perception.runtime.manifest import Manifest
    from mta_perception.share import model_directory

    try:
        manifest = Manifest.load(model_directory(model))
    except (OSError, ValueError) as error:
        return Finding('model', False, str(error), 'Check out the models again, or export one.')
    return Finding(
        'model',
        True,
        f'{manifest.name}, contract {manifest.contract_version}, every file has its hash',
        '',
    )

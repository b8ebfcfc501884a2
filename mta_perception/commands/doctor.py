"""`mta doctor`: what is installed, what is missing, what to do about it, said as it is found."""

from collections.abc import Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
import json
import os
from pathlib import Path
import platform
import shutil
import subprocess
import sys
from typing import NamedTuple

from mta_perception.commands.processes import ended_words
from mta_perception.ros.environment import home_is_writable
from mta_perception.ros.shared_memory import SHARED_MEMORY, remove_abandoned
from mta_perception.share import cache_directory

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
CACHE_GB = 1
DDS_TIMEOUT_S = 30
SHARED_MEMORY_MB = 512  # our profile takes a segment of 128 MB a process


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    ok: bool
    found: str
    remedy: str


def examine(model: str, bag: Path | None = None) -> Iterator[Finding]:
    """Findings one by one, in the order in which to mend them, each made when it is asked for.

    What a later check could die of is looked at before; what starts DDS runs in a child.
    """
    yield _python()
    yield from _packages()
    yield _rmw()
    yield _shared_memory()
    yield _home()
    yield _cache()
    yield _profile()
    yield _dds()
    yield from _interfaces()
    yield _type_hash()
    yield _model(model)
    if bag is not None:
        yield _bag(bag)


def _python() -> Finding:
    return Finding(
        'python',
        (3, 10) <= sys.version_info[:2] <= (3, 14),
        f'{platform.python_version()} at {sys.executable}',
        'The ROS wheels are built for Python 3.10 to 3.14; make the environment with '
        'one of those: `make clean env PYTHON=python3.12`.',
    )


def _packages() -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield Finding(package, True, metadata.version(package), '')
        except metadata.PackageNotFoundError:
            yield Finding(package, False, 'not installed', 'Run `make env`.')


def _rmw() -> Finding:
    """The RMW that the environment asks for is there: rcl ends the process where it is not."""
    wanted = os.environ.get('RMW_IMPLEMENTATION')
    if not wanted:
        return Finding('RMW', True, 'RMW_IMPLEMENTATION is not set', '')
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    folders = [Path(prefix) / 'lib' for prefix in [*filter(None, prefixes), sys.prefix]]
    folders += map(Path, filter(None, os.environ.get('LD_LIBRARY_PATH', '').split(os.pathsep)))
    return Finding(
        'RMW',
        any((folder / f'lib{wanted}.so').is_file() for folder in folders),
        f'RMW_IMPLEMENTATION={wanted}',
        f'There is no lib{wanted}.so in {", ".join(map(str, dict.fromkeys(folders)))}: unset '
        'RMW_IMPLEMENTATION or install that one.',
    )


# What every program of ours does first, with our profile: a participant in shared memory.
OPEN_A_PARTICIPANT = """
from mta_perception.ros.environment import prepare
prepare()
import rclpy
rclpy.init()
node = rclpy.create_node('mta_doctor')
print(rclpy.get_rmw_implementation_identifier())
node.destroy_node()
rclpy.shutdown()
"""


def _dds() -> Finding:
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    command = [sys.executable, '-c', OPEN_A_PARTICIPANT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DDS_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Finding(
            'DDS',
            False,
            f'no participant in domain {domain} within {DDS_TIMEOUT_S} s',
            'Is the machine very busy, or its network down? Try ROS_AUTOMATIC_DISCOVERY_RANGE='
            'LOCALHOST.',
        )
    if done.returncode == 0:
        return Finding('DDS', True, f'{done.stdout.split()[-1]}, a node in domain {domain}', '')
    last = done.stderr.strip().splitlines()[-1:] or ['']
    return Finding(
        'DDS',
        False,
        f'a process that opens a node {ended_words(done.returncode)}. {last[0]}'.strip(),
        'See what is BAD above; else run `make env`, or source your ROS 2.',
    )


def _interfaces() -> Iterator[Finding]:
    for package, name in INTERFACES.items():
        try:
            getattr(import_module(f'{package}.msg'), name)
            yield Finding(package, True, f'{name} loads', '')
        except (ImportError, AttributeError) as error:
            yield Finding(
                package,
                False,
                str(error),
                'Run `make env` (it builds the interface packages), or source the workspace that '
                'has them.',
            )


def _type_hash() -> Finding:
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


def _shared_memory() -> Finding:
    if not SHARED_MEMORY.is_dir():
        return Finding(
            'shared memory', False, f'no {SHARED_MEMORY}', 'Mount a tmpfs there for the images.'
        )
    removed = remove_abandoned()
    cleaned = f'; {removed.bytes // 2**20} MB of ended processes removed' if removed.bytes else ''
    usage = shutil.disk_usage(SHARED_MEMORY)
    return Finding(
        'shared memory',
        usage.free >= SHARED_MEMORY_MB * 2**20,
        f'{usage.free // 2**20} MB free of {usage.total // 2**20} in {SHARED_MEMORY}{cleaned}',
        f'Expected {SHARED_MEMORY_MB} MB free: processes that find less are ended by SIGBUS. '
        'Enlarge it (docker run --shm-size=1g; mount -o remount,size=1g), or see who fills it.',
    )


def _home() -> Finding:
    home = os.path.expanduser('~')
    return Finding(
        'home directory',
        home_is_writable() or bool(os.environ.get('ROS_LOG_DIR')),
        home,
        'It cannot be written to: set ROS_LOG_DIR for logs and MTA_CACHE for what is kept between '
        'runs (else logs go to the folder for temporary files).',
    )


def _cache() -> Finding:
    try:
        folder = cache_directory()
    except OSError as error:
        return Finding('cache', False, str(error), 'Set MTA_CACHE.')
    free_gb = shutil.disk_usage(folder).free / 2**30
    return Finding(
        'cache',
        free_gb >= CACHE_GB,
        f'{folder}, {free_gb:.1f} GB free',
        f'Expected {CACHE_GB} GB free for drives and built packages; see MTA_CACHE.',
    )


def _profile() -> Finding:
    from mta_perception.ros.environment import PROFILE_VARIABLES, transport_profile_path

    variable = next((name for name in PROFILE_VARIABLES if os.environ.get(name)), None)
    try:
        path = Path(os.environ[variable]) if variable else transport_profile_path()
    except FileNotFoundError as error:
        return Finding('DDS profile', False, str(error), 'Install the package again.')
    origin = variable or 'shipped, set by the node'
    return Finding(
        'DDS profile',
        path.is_file(),
        f'{path} ({origin})',
        f'The file is missing: without it six raw cameras come through at 4 Hz. Unset {variable}.'
        if variable
        else 'Install the package again.',
    )


def _model(model: str) -> Finding:
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


def _bag(bag: Path) -> Finding:
    """The bag can be read and has what the node needs: images, calibration, odometry."""
    from mta_perception.bags.scene_bag import SceneBag
    from mta_perception.contract import CAMERAS

    try:
        scene = SceneBag(bag)
        missing = [camera for camera in CAMERAS if camera not in scene.cameras]
        calibrated, poses = len(scene.calibrations), len(scene.ego_poses[0])
        images = sum(len(scene.image_stamps(camera)) for camera in scene.cameras)
    except ValueError as error:
        return Finding('bag', False, str(error), 'See what `mta-train inspect` says of it.')
    return Finding(
        'bag',
        not missing and poses > 0,
        f'{scene.path}: {(scene.end_ns - scene.start_ns) / 1e9:.1f} s, {images} images of '
        f'{len(scene.cameras)} cameras, {calibrated} calibrations, {poses} ego poses',
        f'No images of {", ".join(missing) or "nothing"}: the node masks missing cameras, down to '
        'its parameter min_cameras.',
    )

"""What is shipped: type hashes, entry points, the colcon workspace; nothing of one machine."""

from importlib import metadata
import json
import os
from pathlib import Path
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
import setuptools

import mta_perception

ROOT = Path(mta_perception.__file__).resolve().parent.parent
WORKSPACE = ROOT / 'ros2_ws'
UNDERLAY = WORKSPACE / 'underlay'
DETECTION3D_ARRAY_HASH = 'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'
# What must never be in a file: places of one machine, hosts that packages are fetched from.
FORBIDDEN = re.compile(
    r'/(?:work|root|opt/pypi|home/\w+)/|(?<!/var)/tmp/\w'
    r'|pypi\.(?:org|python)|pythonhosted|deb\.debian|archive\.ubuntu'
)
NOT_BUILT = 'interface packages are not built here'
CONSOLE_SCRIPTS = {
    'perception_node': ('mta-perception', 'mta_perception.ros.start:main'),
    'mta': ('mta-perception', 'mta_perception.commands.cli:main'),
    'mta-train': ('mta-training', 'mta_training.commands.cli:main'),
}


def store_with(*folders):
    """A rosbags store with the .msg files of these package folders added to what it knows."""
    store = get_typestore(Stores.ROS2_KILTED)
    added = {}
    for folder in folders:
        for path in sorted((folder / 'msg').glob('*.msg')):
            added.update(get_types_from_msg(path.read_text(), f'{folder.name}/msg/{path.stem}'))
    store.register({name: fields for name, fields in added.items() if name not in store.fielddefs})
    return store


def built_hash(name):
    """Type hash of a message as rosidl has computed it when the package was built."""
    package, kind, message = name.split('/')
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    for prefix in [prefix for prefix in prefixes if prefix] + [sys.prefix]:
        path = Path(prefix) / 'share' / package / kind / f'{message}.json'
        if path.exists():
            hashes = json.loads(path.read_text())['type_hashes']
            return next(entry['hash_string'] for entry in hashes if entry['type_name'] == name)
    pytest.skip(f'{package} is not built here')


def messages_of(folder):
    return [f'{folder.name}/msg/{path.stem}' for path in sorted((folder / 'msg').glob('*.msg'))]


def test_hash_of_detection3d_array_from_the_definitions():
    store = store_with(UNDERLAY / 'vision_msgs')
    assert store.hash_rihs01('vision_msgs/msg/Detection3DArray') == DETECTION3D_ARRAY_HASH


def test_hash_of_detection3d_array_from_the_build():
    assert built_hash('vision_msgs/msg/Detection3DArray') == DETECTION3D_ARRAY_HASH


@pytest.mark.parametrize(
    'name',
    [
        *messages_of(UNDERLAY / 'vision_msgs'),
        *messages_of(UNDERLAY / 'tf2_msgs'),
        *messages_of(WORKSPACE / 'src' / 'mta_msgs'),
    ],
)
def test_built_messages_are_those_of_the_definitions(name):
    """A stale build shows here; tf2_msgs is compared with the definitions that rosbags brings."""
    store = store_with(UNDERLAY / 'vision_msgs', WORKSPACE / 'src' / 'mta_msgs')
    assert built_hash(name) == store.hash_rihs01(name)


def test_type_hash_on_the_graph(monkeypatch):
    """What another ROS 2 machine compares is what the publisher announces."""
    rclpy = pytest.importorskip('rclpy')
    messages = pytest.importorskip('vision_msgs.msg', reason=NOT_BUILT)
    from mta_perception.commands.processes import free_domain

    monkeypatch.setenv('AMENT_PREFIX_PATH', os.environ.get('AMENT_PREFIX_PATH', sys.prefix))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain())
    try:
        node = rclpy.create_node('announcer', context=context)
        node.create_publisher(messages.Detection3DArray, 'detections', 1)
        (endpoint,) = node.get_publishers_info_by_topic('/detections')
        if not hasattr(endpoint, 'topic_type_hash'):
            pytest.skip('ROS 2 before Iron announces no hash of a type')
        assert str(endpoint.topic_type_hash) == DETECTION3D_ARRAY_HASH
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize('script', CONSOLE_SCRIPTS)
def test_entry_points_exist_and_load(script):
    distribution, target = CONSOLE_SCRIPTS[script]
    points = {
        point.name: point
        for point in metadata.distribution(distribution).entry_points
        if point.group == 'console_scripts'
    }
    assert points[script].value == target
    if script == 'perception_node':
        pytest.importorskip('mta_msgs', reason=NOT_BUILT)
    assert callable(points[script].load())


def test_package_xml_names_a_valid_maintainer():
    """colcon silently takes a package with an invalid address for plain Python."""
    folders = [ROOT, ROOT / 'mta_training', WORKSPACE / 'src/mta_msgs', *UNDERLAY.glob('*_msgs')]
    assert len(folders) == 5
    for path in folders:
        maintainer = ElementTree.parse(path / 'package.xml').getroot().find('maintainer')
        assert re.fullmatch(r'[\w.-]+@[\w-]+(\.[\w-]+)+', maintainer.get('email')), path


def test_the_version_is_one():
    """package.xml has it for colcon and bloom, setup.py reads it there, the changelog tells it."""
    folders = [ROOT, ROOT / 'mta_training', WORKSPACE / 'src' / 'mta_msgs']
    versions = {
        ElementTree.parse(path / 'package.xml').getroot().findtext('version') for path in folders
    }
    newest = re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE).group(1)
    assert versions == {newest}
    for name in ('mta-perception', 'mta-training'):
        assert metadata.version(name) == newest, f'{name} is installed in another version'


def colcon(*arguments, **options):
    """Run colcon in the workspace; skips where there is none."""
    beside = Path(sys.executable).parent / 'colcon'
    command = str(beside) if beside.exists() else shutil.which('colcon')
    if command is None:
        pytest.skip('colcon is not installed here')
    return subprocess.run(
        [command, '--log-base', os.devnull, *arguments],
        cwd=WORKSPACE,
        capture_output=True,
        text=True,
        **options,
    )


def test_colcon_sees_three_packages_and_no_underlay():
    listed = colcon('list')
    assert listed.returncode == 0, listed.stderr
    kinds = {name: kind for name, _, kind in (line.split() for line in listed.stdout.splitlines())}
    assert kinds == {
        'mta_msgs': '(ros.ament_cmake)',
        'mta_perception': '(ros.ament_python)',
        'mta_training': '(ros.ament_python)',
    }


def test_from_the_root_colcon_sees_the_root_alone():
    """Neither mta_training inside of it nor the links in ros2_ws, or tests would run twice."""
    listed = colcon('list', '--names-only', '--base-paths', str(ROOT))
    assert listed.stdout.split() == ['mta_perception'], listed.stderr


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['', '--symlink-install', '--merge-install'])
def test_colcon_installs_both_packages_whole(tmp_path, layout):
    """Executables where `ros2 run` looks, shared files as in the tree, training on its own."""
    done = colcon(
        'build',
        *layout.split(),
        '--build-base',
        str(tmp_path / 'build'),
        '--install-base',
        str(tmp_path / 'install'),
        '--packages-ignore',
        'mta_msgs',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    merged = layout == '--merge-install'
    prefix = tmp_path / 'install' / ('' if merged else 'mta_perception')
    share = prefix / 'share' / 'mta_perception'
    assert (prefix / 'lib' / 'mta_perception' / 'perception_node').exists()
    assert (prefix / 'share/ament_index/resource_index/packages/mta_perception').exists()
    tracked = subprocess.run(
        ['git', 'ls-files', 'launch', 'params', 'rviz', 'models'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert [name for name in tracked if not (share / name).exists()] == []
    if not merged:
        assert not list(prefix.rglob('mta_training')), 'mta_perception has swallowed mta_training'
    training = tmp_path / 'install' / ('' if merged else 'mta_training')
    script = training / 'lib' / 'mta_training' / 'mta-train'
    if layout == '--symlink-install':
        assert script.exists()
        assert (share / 'params/perception.yaml').resolve() == ROOT / 'params/perception.yaml'
        return
    assert script.read_text().startswith('#!/usr/bin/env python3\n')
    (installed,) = training.glob('lib/python3*/site-packages/mta_training')
    assert (installed / 'synth' / 'scene.py').exists() and not (installed / 'test').exists()


@pytest.mark.slow
def test_colcon_counts_the_tests_of_each_package(tmp_path):
    """Each package's own, by pytest: what `colcon test-result` adds up is in these two files."""
    places = ['--build-base', str(tmp_path / 'build'), '--packages-ignore', 'mta_msgs']
    install = ['--install-base', str(tmp_path / 'install')]
    done = colcon('build', *places, *install)
    assert done.returncode == 0, done.stdout + done.stderr
    done = colcon(
        'test', *places, *install, '--pytest-args', '-k', 'test_geometry.py or test_grammar.py'
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = {}
    for package in ('mta_perception', 'mta_training'):
        tree = ElementTree.parse(tmp_path / 'build' / package / 'pytest.xml')
        files[package] = {case.get('classname') for case in tree.iter('testcase')}
    assert files == {
        'mta_perception': {'mta_perception.test.test_geometry'},
        'mta_training': {'mta_training.mta_training.test.test_grammar'},
    }


def test_shared_files_are_installed(monkeypatch):
    """setup.py picks up what the node and the launch file look for, with its folders."""
    seen = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **given: seen.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path('setup.py')
    shipped = {name for _, names in seen['data_files'] for name in names}
    assert 'params/fastdds_shared_memory.xml' in shipped
    assert all((ROOT / name).is_file() for name in shipped)
    assert all(name.split('.')[0] == 'mta_perception' for name in seen['packages'])
    assert {'mta_perception.ros', 'mta_perception.model', 'mta_perception.runtime'} <= set(
        seen['packages']
    )


def test_nothing_of_this_machine_is_in_the_tree():
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip('not a git checkout')
    found = []
    for name in filter(None, listed.stdout.split('\0')):
        path = ROOT / name
        # Links lead to files that are listed themselves; this file names what it looks for.
        if not path.is_file() or path.is_symlink() or path == Path(__file__).resolve():
            continue
        content = path.read_bytes()
        if b'\0' in content[:4096]:
            continue
        for number, line in enumerate(content.decode(errors='replace').splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f'{name}:{number}: {line.strip()[:80]}')
    assert found == []

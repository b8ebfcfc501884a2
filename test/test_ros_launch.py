"""Launch file, RViz configuration and transport profile: checked by their structure, since neither
launch nor RViz can be installed beside the wheels."""

import ast
from pathlib import Path
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH = REPOSITORY / 'launch' / 'bringup.launch.py'
ARGUMENTS = {
    'model': 'nano',
    'params_file': None,
    'transport': 'compressed',
    'rviz': 'false',
    'bag': '',
    'use_sim_time': 'false',
}


@pytest.fixture(scope='module')
def tree():
    return ast.parse(LAUNCH.read_text(encoding='utf-8'))


def calls(tree, name):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == name
    ]


def keyword(call, name):
    return next(word.value for word in call.keywords if word.arg == name)


def test_every_argument_is_declared_once_with_description_and_default(tree):
    declared = calls(tree, 'DeclareLaunchArgument')
    assert [call.args[0].value for call in declared] == list(ARGUMENTS)
    for call in declared:
        assert len(ast.literal_eval(keyword(call, 'description'))) > 20
        default, expected = keyword(call, 'default_value'), ARGUMENTS[call.args[0].value]
        if expected is not None:
            assert default.value == expected


def test_every_argument_is_used_and_none_is_unknown(tree):
    used = {call.args[0].value for call in calls(tree, 'LaunchConfiguration')}
    assert used == set(ARGUMENTS)


def test_every_name_is_imported_and_every_import_used(tree):
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported <= named
    assert {name for name in named if name[0].isupper() and not name.isupper()} <= imported


def test_shipped_files_exist(tree):
    parts = [tuple(argument.value for argument in call.args) for call in calls(tree, 'shipped')]
    assert len(parts) == 3
    for path in parts:
        assert REPOSITORY.joinpath(*path).is_file(), path


def test_started_executables_are_installed_by_setup(tree):
    executables = {keyword(call, 'executable').value for call in calls(tree, 'Node')}
    assert executables == {'perception_node', 'rviz2'}
    assert 'perception_node = mta_perception.ros.node:main' in (REPOSITORY / 'setup.py').read_text(
        encoding='utf-8'
    )


def test_rviz_shows_what_the_node_publishes():
    config = yaml.safe_load((REPOSITORY / 'rviz' / 'perception.rviz').read_text(encoding='utf-8'))
    manager = config['Visualization Manager']
    assert manager['Global Options']['Fixed Frame'] == 'base_link'
    shown = {display['Class'].split('/')[1]: display for display in manager['Displays']}
    assert shown['MarkerArray']['Topic']['Value'] == '/mta_perception/markers'
    assert set(shown['MarkerArray']['Namespaces']) == {'boxes', 'captions', 'heading', 'velocity'}
    assert shown['Image']['Topic']['Value'] == '/mta_perception/overlay/compressed'
    assert shown['TF']['Enabled']


def test_transport_profile_holds_the_sizes_it_was_measured_with():
    root = ElementTree.parse(REPOSITORY / 'params' / 'fastdds_shared_memory.xml').getroot()
    names = {
        element.tag.split('}')[1]: element.text
        for element in root.iter()
        if not len(element) and isinstance(element.tag, str)
    }
    assert int(names['segment_size']) == 128 * 2**20
    assert int(names['maxMessageSize']) == 8 * 2**20
    assert int(names['port_queue_capacity']) == 2048
    assert names['useBuiltinTransports'] == 'false'

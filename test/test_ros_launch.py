"""Launch file, RViz configuration and transport profile: what goes to the node is asked of the
functions that the launch file asks; the rest is checked by its structure, since neither launch nor
RViz can be installed beside the wheels.  Where launch is there, the file is executed."""

import ast
from pathlib import Path
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

from mta_perception.contract import CAMERAS
from mta_perception.ros.environment import (
    PROFILE_VARIABLES,
    transport_profile_path,
    transport_variables,
)
from mta_perception.ros.launch_arguments import cameras_in, node_arguments

NOW, FORMERLY = PROFILE_VARIABLES
REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH = REPOSITORY / 'launch' / 'bringup.launch.py'
ARGUMENTS = {
    'model': '',
    'params_file': None,
    'transport': '',
    'cameras': '',
    'image_topic': '',
    'camera_info_topic': '',
    'namespace': '',
    'autostart': '',
    'log_level': 'info',
    'rviz': 'false',
    'bag': '',
    'use_sim_time': 'false',
}
PARAMS = str(REPOSITORY / 'params' / 'perception.yaml')
GIVEN = {name: value or '' for name, value in ARGUMENTS.items()} | {'params_file': PARAMS}
OWN = ['f', 'fr', 'fl', 'b', 'bl', 'br']


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
    used = {getattr(call.args[0], 'value', None) for call in calls(tree, 'LaunchConfiguration')}
    listed = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'FOR_THE_NODE'
    )
    for_the_node = ast.literal_eval(listed)
    assert (used - {None}) | set(for_the_node) == set(ARGUMENTS)
    assert node_arguments({**GIVEN, **dict.fromkeys(for_the_node, ''), 'params_file': PARAMS})


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


def test_the_parameter_file_has_its_say_where_an_argument_is_empty():
    arguments = node_arguments(GIVEN)
    assert arguments.params_file == PARAMS
    assert arguments.parameters == {'use_sim_time': False}
    assert arguments.remappings == []


def test_what_is_given_reaches_the_node_with_its_type():
    given = {
        **GIVEN,
        'model': 'mine',
        'transport': 'raw',
        'autostart': 'false',
        'use_sim_time': 'true',
        'cameras': ', '.join(OWN),
        'log_level': 'debug',
    }
    arguments = node_arguments(given)
    assert arguments.parameters == {
        'model': 'mine',
        'transport': 'raw',
        'autostart': False,
        'use_sim_time': True,
        'cameras': OWN,
    }
    assert arguments.log_level == 'debug'


def test_topics_are_remapped_for_the_cameras_of_the_argument_or_of_the_file(tmp_path):
    topics = {
        'image_topic': '/sensing/{camera}/image_rect',
        'camera_info_topic': '/calibration/{camera}',
    }
    of_argument = node_arguments({**GIVEN, **topics, 'cameras': ','.join(OWN)}).remappings
    assert ('f/image_raw', '/sensing/f/image_rect') in of_argument
    assert ('f/image_raw/compressed', '/sensing/f/image_rect/compressed') in of_argument
    assert ('br/camera_info', '/calibration/br') in of_argument
    assert len(of_argument) == 3 * len(OWN)
    file = tmp_path / 'car.yaml'
    file.write_text(
        yaml.safe_dump({'front': {'mta_perception': {'ros__parameters': {'cameras': OWN}}}})
    )
    of_file = node_arguments({**GIVEN, **topics, 'params_file': str(file)}).remappings
    assert of_file == of_argument


def test_cameras_are_the_models_where_the_file_has_none(tmp_path):
    assert cameras_in(Path(PARAMS)) == list(CAMERAS)
    (tmp_path / 'empty.yaml').write_text('')
    assert cameras_in(tmp_path / 'empty.yaml') == list(CAMERAS)


def test_one_topic_for_all_cameras_is_refused():
    with pytest.raises(ValueError, match='image_topic is "/image" for all cameras'):
        node_arguments({**GIVEN, 'image_topic': '/image'})


def test_a_parameter_file_that_is_not_there_ends_the_launch(tmp_path):
    (tmp_path / 'my_car.yaml').write_text('{}')
    with pytest.raises(FileNotFoundError, match=r'Did you mean .*my_car\.yaml\?'):
        node_arguments({**GIVEN, 'params_file': str(tmp_path / 'my_cra.yaml')})


def test_launch_itself_gives_the_node_what_was_given(tmp_path):
    launch = pytest.importorskip('launch', reason='launch comes with an installed ROS 2 only')
    pytest.importorskip('launch_ros')
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    from launch_ros.actions import Node

    description = get_launch_description_from_python_launch_file(str(LAUNCH))
    context = launch.LaunchContext()
    context.launch_configurations.update({**GIVEN, 'namespace': 'front', 'autostart': 'false'})
    nodes = []
    for entity in description.entities:
        if isinstance(entity, launch.actions.OpaqueFunction):
            nodes += [made for made in entity.execute(context) or [] if isinstance(made, Node)]
    (node,) = nodes
    node._perform_substitutions(context)
    assert node.expanded_node_namespace == '/front'
    assert node.node_name == '/front/mta_perception'


def test_shipped_files_exist(tree):
    parts = [tuple(argument.value for argument in call.args) for call in calls(tree, 'shipped')]
    assert len(parts) == 2
    for path in parts:
        assert REPOSITORY.joinpath(*path).is_file(), path


def test_started_executables_are_installed_by_setup(tree):
    executables = {keyword(call, 'executable').value for call in calls(tree, 'Node')}
    assert executables == {'perception_node', 'rviz2'}
    assert 'perception_node = mta_perception.ros.start:main' in (
        REPOSITORY / 'setup.py'
    ).read_text(encoding='utf-8')


def test_rviz_shows_what_the_node_publishes():
    config = yaml.safe_load((REPOSITORY / 'rviz' / 'perception.rviz').read_text(encoding='utf-8'))
    manager = config['Visualization Manager']
    assert manager['Global Options']['Fixed Frame'] == 'base_link'
    shown = {display['Class'].split('/')[1]: display for display in reversed(manager['Displays'])}
    answers = next(one for one in manager['Displays'] if one['Name'] == 'Answers')
    assert answers['Topic']['Value'] == '/mta_perception/answer_markers'
    assert set(answers['Namespaces']) == {'boxes', 'mask', 'track', 'words'}
    assert shown['MarkerArray']['Topic']['Value'] == '/mta_perception/markers'
    assert set(shown['MarkerArray']['Namespaces']) == {'boxes', 'captions', 'heading', 'velocity'}
    assert shown['Image']['Topic']['Value'] == '/mta_perception/overlay/compressed'
    assert shown['TF']['Enabled'] and not shown['TF']['Show Names']
    # The layout of the window is the word of Qt's QMainWindow; it names the docks it places.
    layout = bytes.fromhex(config['Window Geometry']['QMainWindow State'])
    for dock in ('Displays', 'Time', shown['Image']['Name']):
        assert dock.encode('utf-16-be') in layout, dock


@pytest.mark.parametrize(
    'distribution, given, wanted',
    [
        ('jazzy', {}, {FORMERLY: 'shipped'}),
        ('jazzy', {NOW: 'mine'}, {FORMERLY: 'mine'}),
        ('humble', {FORMERLY: 'mine'}, {}),
        ('kilted', {}, {NOW: 'shipped'}),
        ('kilted', {FORMERLY: 'mine'}, {}),
        ('', {NOW: 'mine'}, {}),
        ('', {}, {NOW: 'shipped'}),
    ],
)
def test_each_fast_dds_reads_the_profile(distribution, given, wanted, monkeypatch):
    """Each version reads one of the two names: the users' profile, else the shipped one."""
    for name in (NOW, FORMERLY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('ROS_DISTRO', distribution)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    shipped = str(transport_profile_path())
    expected = {name: shipped if value == 'shipped' else value for name, value in wanted.items()}
    assert transport_variables() == expected


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

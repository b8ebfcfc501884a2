"""Who may import what: read from every import statement, and tried in new interpreters."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

import mta_perception

ROOT = Path(mta_perception.__file__).resolve().parent.parent
MAY_IMPORT_TORCH = ('mta_perception/model/', 'mta_perception/runtime/torch', 'mta_training/')
MAY_IMPORT_ROS = ('mta_perception/ros/',)
MAY_IMPORT_TRAINING = ('mta_training/',)
# Lowest first: a folder imports itself, what stands before it and the files at the package's root.
# docs/architecture.md says what each of them holds, in the same order.
FOLDERS = {
    'mta_perception': (
        'runtime',
        'bags',
        'pipeline',
        'workers',
        'drawing',
        'ros',
        'commands',
    ),
    'mta_training': (
        'captions',
        'data',
        'questions',
        'language',
        'conversion',
        'synth',
        'losses',
        'bevformer',
        'runs',
        'evaluation',
        'training',
        'tpo',
        'export',
        'ablation',
        'commands',
    ),
    'mta_training.synth': ('meshes', 'sensors', 'town', 'render', 'actors', 'dataset'),
}
# The network imports the root and is imported by nothing else of the vehicle side.
APART = {'mta_perception': 'model'}
TORCH = {'torch', 'torchvision', 'transformers'}


def package_files():
    found = [
        path
        for package in ('mta_perception', 'mta_training')
        for path in (ROOT / package).rglob('*.py')
    ]
    found = [path.relative_to(ROOT).as_posix() for path in found]
    return sorted(name for name in found if '/test/' not in name and not name.endswith('setup.py'))


def imported_modules(source, package):
    """Full names of what a file imports, also inside functions; relative ones made absolute."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = node.module or ''
            if node.level:
                parents = package.split('.')[: len(package.split('.')) - node.level + 1]
                stem = '.'.join([*parents, stem] if stem else parents)
            modules.add(stem)
            # `from mta_perception import ros` imports a module, too.
            modules.update(f'{stem}.{alias.name}' for alias in node.names)
    return modules


def imports_of(name):
    package = '.'.join(Path(name).parent.parts)
    return imported_modules((ROOT / name).read_text(), package)


def is_ros(module):
    top = module.split('.')[0]
    return top in ('rclpy', 'std_srvs', 'launch', 'launch_ros', 'tf2_ros') or top.endswith(
        ('_msgs', '_interfaces')
    )


def offenders(allowed, is_restricted):
    """'file: module' for each restricted import outside the allowed places."""
    return [
        f'{name}: {module}'
        for name in package_files()
        if not name.startswith(allowed)
        for module in sorted(imports_of(name))
        if is_restricted(module)
    ]


def test_the_tree_is_looked_at():
    names = package_files()
    assert (
        'mta_perception/ros/conversions.py' in names
        and 'mta_training/mta_training/losses/nano.py' in names
    )
    assert 'torch' in imports_of('mta_perception/model/mta_model.py')
    assert any(is_ros(module) for module in imports_of('mta_perception/ros/conversions.py'))


@pytest.mark.parametrize(
    'source, expected',
    [
        ('def f():\n    import torch.nn as nn', 'torch.nn'),
        ('from ..ros import node', 'mta_perception.ros.node'),
        ('from . import node', 'mta_perception.model.node'),
        ('from mta_perception import ros', 'mta_perception.ros'),
    ],
)
def test_every_form_of_import_is_read(source, expected):
    assert expected in imported_modules(source, 'mta_perception.model')


def test_only_model_and_training_import_torch():
    assert offenders(MAY_IMPORT_TORCH, lambda module: module.split('.')[0] in TORCH) == []


def test_only_ros_imports_ros():
    assert offenders(MAY_IMPORT_ROS, is_ros) == []


def test_the_vehicle_side_does_not_import_training():
    wrong = offenders(MAY_IMPORT_TRAINING, lambda module: module.split('.')[0] == 'mta_training')
    assert wrong == []


def test_training_does_not_import_the_node():
    names = [name for name in package_files() if name.startswith('mta_training/')]
    wrong = [
        name
        for name in names
        for module in imports_of(name)
        if module.startswith('mta_perception.ros')
    ]
    assert wrong == []


def module_of(name):
    """Dotted name of a file of either package: both packages lie in a folder of their own name."""
    parts = Path(name).with_suffix('').parts
    return '.'.join(parts[1:] if parts[:2] == ('mta_training', 'mta_training') else parts)


def folder_of(module, package):
    """Folder of `package` that a module lies in, '' at its root; None outside the package."""
    if module != package and not module.startswith(f'{package}.'):
        return None
    first = module.removeprefix(package).lstrip('.').split('.')[0]
    return first if first in (*FOLDERS[package], APART.get(package)) else ''


def wrong_way(module, imported):
    """'module: imported' for each import that points up in one of FOLDERS."""
    wrong = []
    for package, order in FOLDERS.items():
        folder = folder_of(module, package)
        if folder is None:
            continue
        if folder == '':
            allowed = {''}
        elif folder == APART.get(package):
            allowed = {'', folder}
        else:
            allowed = {'', *order[: order.index(folder) + 1]}
        wrong += [
            f'{module}: {other}'
            for other in sorted(imported)
            if folder_of(other, package) not in {None, *allowed}
        ]
    return wrong


def test_folders_import_only_what_is_below_them():
    wrong = [
        entry for name in package_files() for entry in wrong_way(module_of(name), imports_of(name))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    'module, line',
    [
        ('mta_training.losses.nano', 'import mta_training.training.learner'),
        ('mta_training.process_group', 'from mta_training.runs import recipe'),
        ('mta_training.synth.meshes.solids', 'from mta_training.synth.render.raster import draw'),
        ('mta_training.synth.scene', 'def f():\n    from .town import paths'),
        ('mta_perception.drawing.film', 'from mta_perception.commands.summary import machine'),
        ('mta_perception.geometry', 'from mta_perception import bags'),
        ('mta_perception.pipeline.step', 'from mta_perception.model.qformer import QFormer'),
        ('mta_perception.model.qformer', 'from mta_perception.runtime import onnx'),
    ],
)
def test_an_import_that_points_up_is_found(module, line):
    imported = imported_modules(line, module.rpartition('.')[0])
    assert wrong_way(module, imported) != []
    assert wrong_way(module, {'numpy', 'mta_perception.contract'}) == []


@pytest.mark.parametrize('package', FOLDERS)
def test_every_folder_has_its_place(package):
    here = ROOT / ('mta_training' if package.startswith('mta_training') else '')
    here = here.joinpath(*package.split('.'))
    found = {path.parent.name for path in here.glob('*/__init__.py')}
    assert found == {*FOLDERS[package], *filter(None, [APART.get(package)])}


@pytest.mark.parametrize('package', FOLDERS)
def test_the_architecture_page_lists_the_same_folders(package):
    page = (ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    table = page.split(f'| folders of `{package}`')[1].split('\n\n')[0]
    rows = [line.split('|')[1].strip() for line in table.splitlines()[2:]]
    apart = [f'`{APART[package]}/` (apart)'] if package in APART else []
    assert rows == ['root', *(f'`{folder}/`' for folder in FOLDERS[package]), *apart]


def import_without(blocked, modules):
    """Import `modules` in a new interpreter that finds nothing named in `blocked`."""
    # Not `sys.modules[name] = None`: scipy takes that for a torch that is there.
    code = (
        'import sys\n'
        'class Blocker:\n'
        '    def find_spec(name, path=None, target=None):\n'
        f'        if name.split(".")[0] in {blocked!r}:\n'
        '            raise ModuleNotFoundError(f"{name} is blocked by the test", name=name)\n'
        'sys.meta_path.insert(0, Blocker)\n' + '\n'.join(f'import {module}' for module in modules)
    )
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_blocking_works():
    assert 'blocked by the test' in import_without(['numpy'], ['mta_perception.geometry']).stderr


def test_pipeline_needs_neither_ros_nor_torch_nor_training():
    done = import_without(
        ['rclpy', 'torch', 'transformers', 'mta_training', 'vision_msgs', 'mta_msgs'],
        [
            'mta_perception.pipeline.step',
            'mta_perception.runtime.onnx',
            'mta_perception.drawing.overlay',
            'mta_perception.bags.scene_bag',
            'mta_perception.commands.cli',
            'mta_perception.commands.demo',
        ],
    )
    assert done.returncode == 0, done.stderr


def test_offline_commands_without_learning_need_no_torch():
    done = import_without(
        ['rclpy', 'torch', 'transformers', 'onnx'],
        [
            'mta_training.commands.cli',
            'mta_training.synth.dataset.generate',
            'mta_training.conversion.convert',
            'mta_training.evaluation.recorded',
            'mta_training.evaluation.report',
            'mta_training.evaluation.answers_words',
            'mta_training.questions.files',
            'mta_training.questions.mixture',
            'mta_perception.commands.demo',
        ],
    )
    assert done.returncode == 0, done.stderr


def test_the_node_needs_neither_torch_nor_training():
    pytest.importorskip('rclpy')
    pytest.importorskip('mta_msgs', reason='interface packages are not built here')
    done = import_without(['torch', 'transformers', 'mta_training'], ['mta_perception.ros.node'])
    assert done.returncode == 0, done.stderr


def test_packages_are_found_from_anywhere(tmp_path):
    code = (
        'import mta_perception, mta_training, mta_training.synth; '
        'print(mta_perception.__file__, mta_training.__file__)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(Path(place).is_absolute() for place in done.stdout.split())

"""`mta-train`: exit codes and one-line errors, in process because each start costs a second."""

import json
import subprocess
import sys

from command_line import one_line
import numpy as np
import pytest
from tiny_dataset import VERSION

from mta_perception.bags.scene_bag import SceneBag
from mta_training.evaluation.nuscenes_metrics import Predictions, write_results


def test_commands_are_the_agreed_ones_and_have_help(mta_train):
    code, text, _ = mta_train('--help')
    assert code == 0
    for name in (
        'synth',
        'convert',
        'inspect',
        'train',
        'eval',
        'export',
        'import-bevformer',
        'questions',
    ):
        assert f' {name} ' in text
        code, help_text, _ = mta_train(name, '--help')
        assert code == 0 and '--' in help_text


@pytest.mark.parametrize(
    'arguments',
    [
        ('fly',),
        ('convert',),
        ('convert', '/no/such/folder', '--out', 'x'),
        ('synth', '--out', 'x'),
        ('synth', '--out', 'x', '--scenes', '0'),
        ('synth', '--out', 'x', '--scenes', '1', '--minutes', '1'),
        ('synth', '--out', 'x', '--scenes', '1', '--width', '100'),
        ('inspect',),
        ('inspect', '/no/such/bag'),
        ('eval',),
        ('train',),
        ('export',),
        ('export', '--run', 'run', '--out', 'model', '--keep-fp32'),
        ('export', '--run', 'run', '--out', 'model', '--float-layers', 'stem'),
        ('int8-layers',),
        ('import-bevformer',),
        ('import-bevformer', '/no/such/file', '--out', 'x'),
        ('questions', '--out', 'x'),
        ('questions', '--bags', 'x', '--out', 'y', '--wordings', 'old'),
    ],
)
def test_wrong_usage_is_exit_code_2(mta_train, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, error = mta_train(*arguments)
    assert code == 2
    assert 'Traceback' not in out + error
    assert not list(tmp_path.iterdir())


def test_convert_inspect_and_eval(mta_train, dataset, tmp_path):
    code, out, _ = mta_train(
        'convert', dataset, '--out', tmp_path / 'bags', '--workers', 1, '--scene', 'scene-0002'
    )
    assert code == 0 and '1 bags' in out
    code, out, _ = mta_train('inspect', tmp_path / 'bags' / 'scene-0002')
    assert code == 0
    for words in (
        'Night, scene-0002, turn left',
        '/ground_truth/detections',
        'transient_local',
        'tiny_val',
        'red ',
        'bicycle_rack',
        'vision_msgs/msg/Detection3DArray',
        'keyframes   4',
    ):
        assert words in out
    scene = SceneBag(tmp_path / 'bags' / 'scene-0002')
    predictions = {
        sample.token: Predictions(sample.boxes, sample.labels, np.ones(len(sample.labels)))
        for sample in scene.samples
    }
    write_results(tmp_path / 'results.json', scene.samples, predictions)
    code, out, _ = mta_train(
        'eval', tmp_path / 'results.json', '--dataset', dataset, '--split', 'tiny_val'
    )
    assert code == 0 and json.loads(out)['mAP'] > 0.85


def test_no_dataset(mta_train, tmp_path):
    code, _, error = mta_train('convert', tmp_path, '--out', tmp_path / 'bags')
    assert code == 1
    one_line(error, tmp_path, 'no nuScenes dataset')
    assert not (tmp_path / 'bags').exists()


def test_wrong_version_lists_those_that_are_there(mta_train, dataset, tmp_path):
    code, _, error = mta_train('convert', dataset, '--out', tmp_path / 'b', '--version', 'v1.0-x')
    assert code == 1
    one_line(error, 'v1.0-x', VERSION)


def test_out_that_cannot_be_written(mta_train, dataset, tmp_path):
    (tmp_path / 'file').write_text('')
    code, _, error = mta_train('convert', dataset, '--out', tmp_path / 'file' / 'bags')
    assert code == 1
    one_line(error, tmp_path / 'file')


@pytest.mark.parametrize('content', ['', 'no: bag', '{'])
def test_inspect_what_is_no_bag(mta_train, tmp_path, content):
    if content:
        (tmp_path / 'metadata.yaml').write_text(content)
    code, _, error = mta_train('inspect', tmp_path)
    assert code == 1
    one_line(error, tmp_path)


def test_eval_with_a_split_that_is_not_there(mta_train, dataset, tmp_path):
    (tmp_path / 'results.json').write_text(json.dumps({'meta': {}, 'results': {}}))
    code, _, error = mta_train(
        'eval', tmp_path / 'results.json', '--dataset', dataset, '--split', 'nowhere'
    )
    assert code == 1
    one_line(error, 'nowhere', 'splits.json')


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'rclpy', 'transformers', 'onnx'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(
    'arguments',
    [
        ('train', '--bags', 'bags', '--out', 'run', '--steps', '1'),
        ('export', '--run', 'run', '--out', 'model'),
    ],
)
def test_without_torch_the_remedy_is_named(tmp_path, arguments):
    for name in ('bags/scene/metadata.yaml', 'run/last.pt'):  # right paths, as far as one can see
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    # A process of its own: a module that is once loaded stays loaded, whatever one does.
    code = BLOCKER + 'from mta_training.commands.cli import main\nmain()'
    ended = subprocess.run(
        [sys.executable, '-c', code, *arguments],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == 2
    one_line(ended.stderr, 'which is not installed', 'make train-env')


@pytest.mark.parametrize(
    'arguments, named',
    [
        (('train', '--bags', 'nowhere', '--out', 'run'), 'nowhere'),
        (('train', '--bags', 'empty', '--out', 'run'), 'empty'),
        (('train', '--bags', 'bags', '--val-bags', 'nowhere', '--out', 'run'), 'nowhere'),
        (('train', '--bags', 'bags', '--start', 'nowhere', '--out', 'run'), 'nowhere'),
        (('train', '--bags', 'bags', '--config', 'my.yaml', '--out', 'run'), 'my.yaml'),
        (('ablate', '--table', '4', '--bags', 'nowhere', '--out', 'run'), 'nowhere'),
        (('eval', '--run', 'nowhere', '--bags', 'bags', '--out', 'o'), 'nowhere'),
        (('eval', '--run', 'run', '--bags', 'bags', '--out', 'o', '--checkpoint', 'best'), 'run'),
        (('eval', '--model', 'nowhere', '--bags', 'bags', '--out', 'o'), 'nowhere'),
        (('eval', '--run', 'run', '--bags', 'nowhere', '--out', 'o'), 'nowhere'),
        (('export', '--run', 'empty', '--out', 'o'), 'empty'),
        (('export', '--run', 'run', '--out', 'o', '--eval-bags', 'nowhere'), 'nowhere'),
    ],
)
def test_a_wrong_path_is_refused_before_torch_is_imported(
    mta_train, tmp_path, monkeypatch, arguments, named
):
    for name in ('bags/scene/metadata.yaml', 'run/last.pt', 'empty/nothing'):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    there = sorted(tmp_path.rglob('*'))
    monkeypatch.chdir(tmp_path)
    # Whoever asks for one of these now fails at once, whether it is loaded already or not.
    for module in ('torch', 'onnx', 'transformers', 'mta_training.training.bag_training'):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, 'mta_training.evaluation.torch_frames', raising=False)
    monkeypatch.delitem(sys.modules, 'mta_training.export.model_directory', raising=False)
    code, _, error = mta_train(*arguments)
    assert code == 1
    one_line(error, named)
    assert 'not installed' not in error
    assert sorted(tmp_path.rglob('*')) == there


def test_convert_and_eval_need_no_torch(dataset, tmp_path):
    code = BLOCKER + (
        'import mta_training.evaluation.nuscenes_metrics\n'
        'import mta_training.conversion.bag_tables, mta_training.commands.cli\n'
        'from mta_training.conversion.convert import convert\n'
        f'convert({str(dataset)!r}, {str(tmp_path)!r}, workers=1, progress=False)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)
    assert len(list(tmp_path.glob('*/metadata.yaml'))) == 2

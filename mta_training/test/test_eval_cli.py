"""`mta-train eval` on bags: result files, an exported toy model, wrong usage, one-line errors."""

import json

import numpy as np
import pytest

pytest.importorskip('pycocoevalcap')

from mta_perception.bags.scene_bag import SceneBag
from mta_training.evaluation.nuscenes_metrics import Predictions
from mta_training.evaluation.report import JudgedFrame, described_truth
from mta_training.evaluation.result_files import captioned_results


@pytest.fixture(scope='module')
def results(bags, tmp_path_factory):
    """Result file that says the ground truth."""
    frames = []
    for bag in bags:
        scene = SceneBag(bag)
        for sample in scene.samples:
            truth = described_truth(sample)
            scores = np.linspace(0.9, 0.5, len(truth.labels))
            frames.append(
                JudgedFrame(
                    sample,
                    scene.description,
                    Predictions(truth.boxes, truth.labels, scores),
                    truth._replace(scores=scores),
                )
            )
    path = tmp_path_factory.mktemp('results') / 'results.json'
    path.write_text(json.dumps(captioned_results(frames)))
    return path


def test_a_result_file(mta_train, bags, results, tmp_path):
    code, out, _ = mta_train(
        'eval', '--results', results, '--bags', bags[0].parent, '--out', tmp_path / 'report'
    )
    assert code == 0
    for words in (
        'Detection, 8 keyframes',
        'night',
        'rare',
        'tod3cap',
        'names another class',
        'report.md',
    ):
        assert words in out
    metrics = json.loads((tmp_path / 'report' / 'metrics.json').read_text())
    assert metrics['detection']['mAP'] > 0.99
    assert metrics['captions']['strict']['iou_0.5']['CIDEr'] == pytest.approx(10.0, abs=1e-6)
    assert (tmp_path / 'report' / 'captions.png').stat().st_size > 1000


def test_a_result_file_without_captions(mta_train, bags, results, tmp_path):
    content = json.loads(results.read_text())
    for rows in content['results'].values():
        for row in rows:
            row.pop('caption', None)
    path = tmp_path / 'plain.json'
    path.write_text(json.dumps(content))
    code, out, _ = mta_train(
        'eval', '--results', path, '--bags', bags[1], '--frames', 2, '--out', tmp_path / 'report'
    )
    assert code == 0 and 'caption metrics: absent, the predictions have no captions' in out
    assert json.loads((tmp_path / 'report' / 'metrics.json').read_text())['frames'] == 2


def test_an_exported_model(mta_train, bags, exported, tmp_path):
    _, _, directory, _ = exported
    code, out, error = mta_train(
        'eval',
        '--model',
        directory,
        '--bags',
        bags[0],
        '--frames',
        2,
        '--out',
        tmp_path / 'report',
    )
    assert code == 0, error
    metrics = json.loads((tmp_path / 'report' / 'metrics.json').read_text())
    assert metrics['frames'] == 2 and metrics['captions']['strict']['centre_2m']['objects'] > 10
    assert 'written: ' in out


def test_card_metrics_of_an_exported_model(bags, exported):
    from mta_training.evaluation.onnx_frames import evaluate_model_directory

    _, _, directory, _ = exported
    metrics = evaluate_model_directory(directory, bags[:1], 2)
    assert {
        'mAP',
        'NDS',
        'CIDEr',
        'BLEU_4',
        'ROUGE_L',
        'found',
        'objects',
        'frames',
        'classes',
    } <= set(metrics)
    assert all(value is not None for value in metrics.values())


@pytest.mark.parametrize(
    'arguments',
    [
        ('--bags', '.', '--out', 'x'),
        ('--results', 'r.json', '--out', 'x'),
        ('--results', 'r.json', '--bags', '.'),
        ('--results', 'r.json', '--model', 'm', '--bags', '.', '--out', 'x'),
        ('--run', 'r', '--bags', '.', '--out', 'x', '--checkpoint', 'first'),
        ('--run', 'r', '--bags', '.', '--out', 'x', '--frames', '0'),
        ('--run', 'r', '--bags', '.', '--out', 'x', '--dataset', '.'),
    ],
)
def test_wrong_usage_is_exit_code_2(mta_train, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, error = mta_train('eval', *arguments)
    assert code == 2 and 'Traceback' not in out + error
    assert not list(tmp_path.iterdir())


def test_failures_are_one_line_and_leave_no_report(mta_train, bags, results, tmp_path):
    (tmp_path / 'empty').mkdir()
    other = tmp_path / 'other.json'
    other.write_text(json.dumps({'meta': {}, 'results': {'another': []}}))
    out, model, run = tmp_path / 'report', tmp_path / 'no_model', tmp_path / 'no_run'
    for arguments, words in (
        (('--results', results, '--bags', tmp_path / 'empty'), 'holds no bags'),
        (('--results', tmp_path / 'none.json', '--bags', bags[0]), 'does not exist'),
        (('--results', other, '--bags', bags[0]), '0 of the 4 keyframes'),
        (('--model', model, '--bags', bags[0]), 'holds no manifest.yaml'),
        (('--run', run, '--bags', bags[0]), str(run)),
    ):
        code, _, error = mta_train('eval', *arguments, '--out', out)
        lines = error.strip().splitlines()
        assert code == 1 and len(lines) == 1 and words in lines[0], error
        assert not out.exists()

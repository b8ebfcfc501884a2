"""The three commands of `make train-smoke`, one after the other, in an empty folder."""

import json
import subprocess
import sys

import pytest

pytest.importorskip('torch', reason='torch is only in the training environment')


@pytest.mark.slow
def test_train_eval_ablate(tmp_path):
    for arguments in (
        ['train', '--smoke'],
        ['eval', '--smoke'],
        ['ablate', '--table', '4', '--smoke'],
    ):
        done = subprocess.run(
            [sys.executable, '-m', 'mta_training.commands.cli', *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    smoke = tmp_path / 'runs' / 'smoke'
    metrics = json.loads((smoke / 'eval' / 'metrics.json').read_text())
    # Something is found, described and judged: a smoke that measures zeros shows nothing.
    assert metrics['detection']['mAP_present'] > 0
    assert metrics['captions']['strict']['centre_2m']['CIDEr'] > 0
    assert metrics['hallucination']['objects'] > 0
    assert '| MTA (both) |' in (smoke / 'ablate' / 'table-4.md').read_text()
    for name in ('curves.png', 'best.pt', 'log.csv'):
        assert (smoke / 'run' / name).stat().st_size > 0
    assert list((smoke / 'run' / 'pictures').glob('*.png'))

"""Our BEVFormer tiny against outputs of the published code; skips where they are not at hand."""

from pathlib import Path
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip('torch')

import typer

from mta_training.bevformer import golden

CASE = Path(__file__).parents[3] / 'shared' / 'golden' / 'case_a.npz'
needs_case = pytest.mark.skipif(not CASE.is_file(), reason=f'{CASE} is not there')


@needs_case
def test_every_quantity_is_within_its_tolerance():
    lines = golden.compare(CASE, 'A')
    bad = [
        f'{line.key}: {line.largest:.1e}, allowed {line.tolerance[0]:.1e}; rms {line.rms:.1e}'
        for line in lines
        if not line.good
    ]
    assert not bad
    assert {line.key for line in lines} >= {
        f'{frame}_{name}'
        for frame in ('f0', 'f1', 'f2')
        for name in ('cls', 'bbox', 'bev_mask', 'boxes')
    }


@needs_case
def test_one_wrong_number_is_seen(tmp_path):
    arrays = dict(np.load(CASE))
    arrays['can_bus_used'][0, 16] += 0.3  # the yaw
    arrays['lidar2img'] = arrays['lidar2img'][:1]  # one frame will do
    changed = tmp_path / 'case_a.npz'
    np.savez(changed, **arrays)
    app = typer.Typer()
    app.command()(golden.main)
    result = CliRunner().invoke(app, [str(changed)])
    assert result.exit_code == 1
    assert 'f0_cls' in result.output and 'BAD' in result.output


@needs_case
def test_another_letter_is_refused(tmp_path):
    renamed = tmp_path / 'case_q.npz'
    shutil.copy(CASE, renamed)
    with pytest.raises(ValueError, match="case 'Q'"):
        golden.compare(renamed, 'Q')

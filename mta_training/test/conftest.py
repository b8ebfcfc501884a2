"""Fixtures that several tests share: the hand-made dataset, its bags, the real keyframe."""

import os
from pathlib import Path

import pytest
from tiny_dataset import write_dataset

from mta_training.bags import convert

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def dataset(tmp_path_factory):
    """Root of the hand-made dataset; not to be changed."""
    return write_dataset(tmp_path_factory.mktemp('dataset'))


@pytest.fixture(scope='session')
def bags(dataset, tmp_path_factory):
    """Its two bags."""
    return convert(dataset, tmp_path_factory.mktemp('bags'), workers=1, progress=False)


@pytest.fixture(scope='session')
def real_data():
    """Folder of the real nuScenes keyframe; the test is skipped where it is not there."""
    folder = Path(os.environ.get('MTA_SHARED') or _REPOSITORY.parent / 'shared') / 'data'
    if not (folder / 'nuscenes_real').is_dir():
        pytest.skip(f'the real keyframe is not in {folder}; set MTA_SHARED')
    return folder

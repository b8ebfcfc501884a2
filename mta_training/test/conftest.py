"""Fixtures that several tests share: the hand-made dataset, its bags, the real keyframe."""

from dataclasses import replace
import os
from pathlib import Path

# Before torch is imported, and for child processes.  On a busy machine the threads of small
# tensors would spin, waiting for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import command_line
import pytest
from tiny_dataset import write_dataset

from mta_training.conversion.convert import convert

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def mta_train(monkeypatch, capsys):
    """Run the command line; returns (exit code, standard output, standard error)."""
    return command_line.runner(monkeypatch, capsys)


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


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """(model, language model, directory, Parity) of an untrained toy network none of whose layers
    is zero; not to be changed."""
    torch = pytest.importorskip('torch')
    pytest.importorskip('onnxscript')
    from toy_scenes import toy_scene

    from mta_perception.model.config import MtaConfig
    from mta_perception.model.language import LanguageModel
    from mta_perception.model.mta_model import MtaModel
    from mta_training.export import model_directory
    from mta_training.language import small_model

    directory = tmp_path_factory.mktemp('models') / 'toy'
    scene = toy_scene(MtaConfig.toy(), frames=1, objects=6)
    tokenizer = small_model.train_tokenizer(scene.captions[0])
    config = MtaConfig.toy()
    config = replace(
        config,
        language=replace(config.language, vocab_size=tokenizer.get_vocab_size(), adapter_tokens=4),
    )
    torch.manual_seed(0)
    model, language = MtaModel(config).eval(), LanguageModel(config.language).eval()
    with torch.no_grad():
        for part in (model, language):
            for name, parameter in part.named_parameters():
                if not parameter.abs().sum() or '.heat.' in name:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    parity = model_directory.write_model(
        model, language, tokenizer, directory, {'data': 'none'}, {}
    )
    return model, language, directory, parity

"""Torch against ONNX, with a moving ego, a non-zero history and a dead camera."""

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

import yaml

from mta_perception import atomic_files
from mta_perception.model.language import LanguageModel
from mta_perception.model.mta_model import MtaModel
from mta_training.export import graphs, model_directory
from mta_training.export.parity import parity
from mta_training.language import small_model


def test_onnx_equals_torch(exported):
    *_, parity = exported
    print('largest differences:', parity)
    assert parity.boxes < 1e-3
    assert max(parity) < 1e-3


def test_manifest_names_what_lies_there(exported):
    model, _, directory, _ = exported
    manifest = yaml.safe_load((directory / 'manifest.yaml').read_text())
    assert set(manifest['files']) == {
        'detector.onnx',
        'qformer.onnx',
        'language.onnx',
        'tokenizer.json',
    }
    for name, digest in manifest['files'].items():
        assert atomic_files.sha256(directory / name) == digest
    assert manifest['captioner']['vocabulary'] == model.config.language.vocab_size
    assert (manifest['captioner']['bos'], manifest['captioner']['eos']) == (1, 2)


def test_graphs_have_the_contracts_inputs_and_outputs(exported):
    _, _, directory, _ = exported
    expected = {
        'detector.onnx': (
            [
                'images',
                'image_from_ego',
                'camera_mask',
                'history_bev',
                'history_valid',
                'ego_prev_from_ego_now',
            ],
            ['class_logits', 'boxes', 'object_features', 'bev'],
        ),
        'qformer.onnx': (['object_features', 'boxes', 'class_logits', 'bev'], ['prefix']),
        'language.onnx': (
            ['prefix', 'token_ids', 'past_keys', 'past_values'],
            ['logits', 'keys', 'values'],
        ),
    }
    for name, (inputs, outputs) in expected.items():
        session = onnxruntime.InferenceSession(directory / name)
        assert [entry.name for entry in session.get_inputs()] == inputs
        assert [entry.name for entry in session.get_outputs()] == outputs
        if name == 'detector.onnx':
            assert session.get_inputs()[0].type == 'tensor(uint8)'


def test_history_and_mask_are_in_the_graph(exported):
    model, _, directory, _ = exported
    session = onnxruntime.InferenceSession(directory / 'detector.onnx')
    inputs = graphs.example_inputs(model.config)
    bev = session.run(['bev'], inputs)[0]
    moved = {**inputs, 'ego_prev_from_ego_now': np.eye(4, dtype=np.float32)[None]}
    assert np.abs(session.run(['bev'], moved)[0] - bev).max() > 1e-3
    inputs['history_valid'] = np.zeros(1, np.float32)
    fresh = session.run(['bev'], inputs)[0]
    assert np.abs(fresh - bev).max() > 1e-3
    inputs['history_bev'] = inputs['history_bev'] * 100
    inputs['images'] = inputs['images'].copy()
    inputs['images'][:, 4] = 255  # the dead camera
    np.testing.assert_array_equal(session.run(['bev'], inputs)[0], fresh)


def test_parity_sees_other_weights(exported):
    model, language, directory, _ = exported
    other = MtaModel(model.config).eval()
    assert parity(other, language, directory).boxes > 1e-3
    assert parity(model, LanguageModel(model.config.language), directory).language > 1e-3


def test_interrupted_export_leaves_no_manifest(exported, tmp_path, monkeypatch):
    model, language, *_ = exported
    (tmp_path / 'manifest.yaml').write_text('old')

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.onnx, 'export', stop)
    tokenizer = small_model.train_tokenizer(['a car'])
    with pytest.raises(KeyboardInterrupt):
        model_directory.write_model(model, language, tokenizer, tmp_path, {}, {})
    assert not (tmp_path / 'manifest.yaml').exists()

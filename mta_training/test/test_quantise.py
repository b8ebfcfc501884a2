"""The int8 detector: the same graph to its caller, near the float32 one, smaller."""

from contextlib import suppress
import re
import shutil

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

import onnx
from tokenizers import Tokenizer
from toy_scenes import toy_scene

from mta_perception.runtime.engines import FLOAT_FILE, EngineSettings
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.session import open_session
from mta_training.data.batches import Place, make_batch
from mta_training.export import graphs, model_directory, quantise
from mta_training.export.model_card import model_card

STAYS_FLOAT = r'stages\.0\.0\.'


def toy_frames(config, seed, frames=3):
    """Graph inputs of a toy drive with a random history."""
    scene = toy_scene(config, frames=frames, objects=6, seed=seed)
    history = graphs.example_inputs(config, seed=seed)['history_bev']
    batches = [make_batch([scene], [Place(0, frame, frame > 0)]) for frame in range(frames)]
    return [
        {name: getattr(batch, name).numpy() for name in batch._fields[:5]}
        | {'history_bev': history}
        for batch in batches
    ]


@pytest.fixture(scope='module')
def int8(exported, tmp_path_factory):
    """(config, float32 directory, int8 directory) of the toy network."""
    model, _, floats, _ = exported
    directory = tmp_path_factory.mktemp('int8') / 'toy'
    shutil.copytree(floats, directory)
    scenes = [toy_scene(model.config, frames=3, objects=6, seed=seed) for seed in (0, 1)]
    tokenizer = Tokenizer.from_file(str(floats / 'tokenizer.json'))
    whole = model_directory.Exported(model.config, model.detector, tokenizer)
    how = model_directory.Int8(keep_fp32=True, float_layers=STAYS_FLOAT)
    model_directory.quantise_model(whole, directory, {}, scenes, how)
    return model.config, floats, directory


def test_int8_is_near_float32(int8):
    config, floats, bytes_ = int8
    sessions = [open_session(directory / 'detector.onnx', 1) for directory in (floats, bytes_)]
    worst = 0.0
    for inputs in toy_frames(config, 5):
        want, got = (session.run(['bev'], inputs)[0] for session in sessions)
        worst = max(worst, float(np.sqrt(np.square(got - want).mean() / np.square(want).mean())))
    print('root mean square of the difference over that of the BEV:', worst)
    # 0.0085 with VNNI and without; weights of eight bits: 0.0081 with it, 0.055 without.
    assert 1e-6 < worst < 0.02


def test_fp32_stays_beside_int8_where_it_is_asked_for(int8):
    config, floats, bytes_ = int8
    kept = (bytes_ / FLOAT_FILE).read_bytes()
    assert kept == (floats / 'detector.onnx').read_bytes()
    manifest = Manifest.load(bytes_)
    assert FLOAT_FILE in manifest.files and FLOAT_FILE not in Manifest.load(floats).files
    detector = OnnxDetector(manifest, 1, EngineSettings(precision='fp32'))
    inputs = toy_frames(config, 5)[1]
    (want,) = open_session(floats / 'detector.onnx', 1).run(['bev'], inputs)
    np.testing.assert_array_equal(detector._graph.run(['bev'], inputs)[0], want)


def test_a_graph_that_could_saturate_is_refused(int8):
    _, _, bytes_ = int8
    graph = onnx.load(bytes_ / 'detector.onnx').graph
    quantise.check_no_saturation(graph, 'detector.onnx')
    weight = next(
        entry
        for entry in graph.initializer
        if entry.data_type == onnx.TensorProto.INT8 and len(entry.dims) > 1
    )
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = -65
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with pytest.raises(ValueError, match=f'{weight.name} reaches 65, .*without VNNI'):
        quantise.check_no_saturation(graph, 'detector.onnx')


def test_no_pair_of_products_exceeds_16_bits(int8):
    """What an x86 CPU without VNNI would cut off; found here on every CPU."""
    _, _, bytes_ = int8
    graph = onnx.load(bytes_ / 'detector.onnx').graph
    initializers = {entry.name: entry for entry in graph.initializer}
    weights = [
        onnx.numpy_helper.to_array(initializers[node.input[0]]).astype(int)
        for node in graph.node
        if node.op_type == 'DequantizeLinear'
        and node.input[0] in initializers
        and initializers[node.input[0]].data_type == onnx.TensorProto.INT8
    ]
    assert len(weights) >= 20
    largest = 2 * 255 * max(np.abs(weight).max() for weight in weights)
    assert 2**14 < largest < 2**15


def test_weights_are_bytes_and_the_file_is_smaller(int8):
    _, floats, bytes_ = int8
    sizes = [(directory / 'detector.onnx').stat().st_size for directory in (floats, bytes_)]
    print('bytes:', sizes)
    assert sizes[1] < sizes[0]
    initializers = {
        entry.name: entry for entry in onnx.load(bytes_ / 'detector.onnx').graph.initializer
    }
    weights = [name for name in initializers if 'backbone' in name and name.endswith('quantized')]
    assert len(weights) >= 10
    assert all(
        initializers[name].data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
        for name in weights
    )


def test_inputs_outputs_and_manifest_are_the_contracts(int8):
    _, floats, bytes_ = int8
    one, other = (open_session(directory / 'detector.onnx', 1) for directory in (floats, bytes_))
    for kind in ('get_inputs', 'get_outputs'):
        assert [(node.name, node.type, node.shape) for node in getattr(one, kind)()] == [
            (node.name, node.type, node.shape) for node in getattr(other, kind)()
        ]
    manifest = Manifest.load(bytes_)
    assert manifest.precision == 'int8' and Manifest.load(floats).precision == 'fp32'
    OnnxDetector(manifest, 1)


def test_boxes_scores_and_sampling_positions_keep_float32_weights(int8):
    _, _, bytes_ = int8
    names = [entry.name for entry in onnx.load(bytes_ / 'detector.onnx').graph.initializer]
    for part in ('.box.', '.heat.', '.score.', 'offsets'):
        found = [name for name in names if part in name]
        assert found and not any('quantized' in name for name in found), found


def test_layers_that_were_named_stay_float32(int8):
    _, _, bytes_ = int8
    graph = onnx.load(bytes_ / 'detector.onnx').graph
    rounded = {node.output[0] for node in graph.node if node.op_type == 'DequantizeLinear'}
    convs = [node for node in graph.node if node.op_type == 'Conv']
    named = [node for node in convs if re.search(STAYS_FLOAT, node.input[1])]
    assert named and not any(node.input[1] in rounded for node in named)
    assert sum(node.input[1] in rounded for node in convs) > 10
    with pytest.raises(ValueError, match='--float-layers nothing: found in none of the .* layers'):
        quantise._but([graph.node[-1].name], graph, 'nothing')


def test_stem_on_bytes_is_the_stem(exported, tmp_path):
    """Before any rounding the rewritten first layer gives the same features inside the image."""
    model, _, floats, _ = exported
    prepared = tmp_path / 'prepared.onnx'
    quantise.quant_pre_process(floats / 'detector.onnx', prepared, skip_symbolic_shape=True)
    outputs = []
    for change in (lambda graph: None, quantise.bytes_into_stem):
        loaded = onnx.load(prepared)
        change(loaded.graph)
        stem = next(node for node in loaded.graph.node if node.op_type == 'Conv').output[0]
        loaded.graph.output.append(onnx.ValueInfoProto(name=stem))
        path = tmp_path / f'{len(outputs)}.onnx'
        onnx.save(loaded, path)
        outputs.append(open_session(path, 1).run([stem], graphs.example_inputs(model.config))[0])
    want, got = outputs
    assert got.shape == want.shape
    np.testing.assert_allclose(got[..., 2:-2, 2:-2], want[..., 2:-2, 2:-2], atol=1e-4)
    assert np.abs(got - want).max() < 0.5  # the edge sees one grey, not three means


def test_calibration_frames_come_from_bags(exported, bags):
    model, _, floats, _ = exported
    spec = Manifest.load(floats)
    scenes = quantise.scenes_of_bags(bags[0].parent, spec.image, count=4)
    frames = list(quantise.calibration_frames(spec, scenes, count=4))
    assert 1 <= len(frames) <= 4
    assert set(frames[0]) == set(graphs.example_inputs(model.config))
    assert not frames[0]['history_valid'] and frames[0]['images'].dtype == np.uint8


def test_no_frames_and_no_bags_are_named(exported, tmp_path):
    _, _, floats, _ = exported
    with pytest.raises(ValueError, match='no frame to calibrate on'):
        quantise.quantise_detector(floats / 'detector.onnx', tmp_path / 'detector.onnx', [])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='holds no bags'):
        model_directory.export('no/run', tmp_path / 'out', int8=True, calibration_bags=tmp_path)
    with suppress(FileNotFoundError):
        assert not list((tmp_path / 'out').iterdir())


def test_card_shows_both_precisions(exported):
    model, *_ = exported
    card = model_card(
        model.config,
        1,
        1,
        {},
        {'mAP': 0.51, 'AP': {'car': 0.5}},
        'none.',
        'int8',
        {'mAP': 0.52, 'AP': {'car': 0.6}},
    )
    assert '| mAP | 0.510 | 0.520 |' in card and '| AP | car 0.500 | car 0.600 |' in card
    assert '8 bits' in card and 'seven bits' in card and '| | int8 | fp32 |' in card
    assert 'float32' in model_card(model.config, 1, 1, {}, {}, 'none.')

"""Engines of the detector: what was asked for runs or is refused in a sentence, and all of them
say the same."""

import gc
import os
from pathlib import Path
import re
import subprocess
import sys

import numpy as np
import pytest

from mta_perception.atomic_files import sha256
from mta_perception.pipeline.bev_memory import ABSENT, History
from mta_perception.runtime import openvino_graph, tensorrt_cache
from mta_perception.runtime.engines import FLOAT_FILE, EngineSettings
from mta_perception.runtime.manifest import Manifest, ManifestError
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.session import BoundGraph, Device, SessionGraph, open_session
from mta_perception.runtime.visible_pairs import surround_view

onnx = pytest.importorskip('onnx', reason='onnx comes with the training environment')
onnxruntime = pytest.importorskip('onnxruntime')
from tiny_model import HEIGHT, WIDTH, write_manifest, write_tiny_model

NANO = Path(__file__).parents[1] / 'models' / 'nano'
OPENVINO = EngineSettings('openvino')
needs_openvino = pytest.mark.skipif(
    not openvino_graph.installed(), reason='openvino is not installed (the extra of this name)'
)


@pytest.fixture
def directory(tmp_path):
    return write_tiny_model(tmp_path / 'tiny')


def frame(detector, brightness, history):
    images = np.full((6, HEIGHT, WIDTH, 3), brightness, np.uint8)
    return detector(images, np.zeros((6, 3, 4)), np.ones(6), history)


@pytest.mark.parametrize(
    'asked, words',
    [
        ({'engine': 'tvm'}, "engine is 'tvm', expected one of: auto, onnxruntime, openvino"),
        ({'precision': 'fp64'}, "precision is 'fp64', expected one of: model, fp32, int8, fp16"),
        ({'device': 'gpu'}, "device is 'gpu', expected cpu, cuda, tensorrt"),
        ({'device': 'cpu:1'}, "device is 'cpu:1', expected"),
        ({'device': 'cuda', 'engine': 'openvino'}, 'it runs on the cpu'),
        ({'device': 'cuda', 'precision': 'fp16'}, 'only tensorrt computes in it'),
        ({'device': 'tensorrt', 'precision': 'int8'}, 'Set precision to fp16 or fp32'),
    ],
)
def test_what_no_machine_could_do_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        EngineSettings(**asked)


def test_an_engine_that_is_not_installed_is_not_replaced(directory, monkeypatch):
    monkeypatch.setattr(openvino_graph, 'find_spec', lambda name: None)
    with pytest.raises(ManifestError, match='engine is openvino.*pip install openvino'):
        OnnxDetector(Manifest.load(directory), 1, OPENVINO)


@pytest.mark.parametrize('device', ['cuda', 'cuda:1', 'tensorrt'])
def test_a_gpu_that_onnxruntime_cannot_use_is_not_replaced(directory, device):
    if len(onnxruntime.get_available_providers()) > 2:
        pytest.skip('this onnxruntime computes on more than the CPU')
    with pytest.raises(ManifestError, match=f'device is {device}, .*alone, .*set device to cpu'):
        OnnxDetector(Manifest.load(directory), 1, EngineSettings(device=device))


def test_the_precision_that_was_asked_for_runs(directory):
    """int8 and fp32 of this model differ by their boxes."""
    model = onnx.load(directory / 'detector.onnx')
    boxes = next(one for one in model.graph.initializer if one.name == 'constant_boxes')
    boxes.CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 3, 10), np.float32), boxes.name))
    onnx.save(model, directory / FLOAT_FILE)

    def files(*names):
        return {name: sha256(directory / name) for name in names}

    captions = ('qformer.onnx', 'language.onnx', 'tokenizer.json')
    write_manifest(directory, precision='int8', files=files('detector.onnx', *captions))
    with pytest.raises(ManifestError, match='no detector in fp32, .*--int8 --keep-fp32'):
        OnnxDetector(Manifest.load(directory), 1, EngineSettings(precision='fp32'))
    with pytest.raises(ManifestError, match='which device tensorrt, which does not run our int8'):
        OnnxDetector(Manifest.load(directory), 1, EngineSettings(device='tensorrt'))
    both = files('detector.onnx', FLOAT_FILE, *captions)
    write_manifest(directory, precision='int8', files=both)
    manifest = Manifest.load(directory)
    for asked, x in (('model', 0.0), ('int8', 0.0), ('fp32', 1.0)):
        detector = OnnxDetector(manifest, 1, EngineSettings(precision=asked))
        assert frame(detector, 0, ABSENT).boxes[0, 0] == x
    write_manifest(directory)
    with pytest.raises(ManifestError, match='no detector in int8, .*detector.onnx is fp32'):
        OnnxDetector(Manifest.load(directory), 1, EngineSettings(precision='int8'))


def test_history_that_stays_on_the_device_is_the_history(directory):
    """The calls are those of a GPU; here the device is the CPU."""
    manifest = Manifest.load(directory)
    session = open_session(manifest.path('detector.onnx'), 1)
    plain, bound = OnnxDetector(manifest, 1), OnnxDetector(manifest, 1)
    bound._graph = BoundGraph(session, Device('cpu'), ['bev'])
    plain._graph = SessionGraph(session)
    past = {plain: ABSENT, bound: ABSENT}
    for brightness in (10, 20, 30):
        found = {one: frame(one, brightness, past[one]) for one in past}
        for name, want in found[plain]._asdict().items():
            np.testing.assert_array_equal(getattr(found[bound], name), want, err_msg=name)
        past = {one: History(found[one].bev, True, np.eye(4), 0.5) for one in past}
    assert found[bound].bev.max() > 1.7  # it remembered

    bev = found[bound].bev
    graph = bound._graph
    assert graph._there(bev[None]) is not None
    assert graph._there(bev[:1]) is None and graph._there(bev.copy()) is None
    with pytest.raises(ValueError, match='read-only'):
        bev += 1
    del bev, found, past
    gc.collect()
    frame(bound, 10, ABSENT)
    assert len(graph._kept) == 1  # what nobody remembers is not kept


def test_a_tensorrt_cache_of_another_machine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('MTA_CACHE', str(tmp_path))
    here = {'gpus': 'NVIDIA H100', 'driver': '570.1', 'onnxruntime': '1.31.1'}
    folder = tensorrt_cache.engine_folder('ab' * 32, 'fp16', here)
    (folder / 'graph.engine').write_bytes(b'x')
    assert tensorrt_cache.engine_folder('ab' * 32, 'fp16', here) == folder
    assert tensorrt_cache.engine_folder('ab' * 32, 'fp32', here) != folder
    other = {**here, 'gpus': 'NVIDIA Orin'}
    words = f'{re.escape(str(folder))} holds .*gpus NVIDIA H100.*this one is gpus NVIDIA Orin'
    with pytest.raises(ManifestError, match=words):
        tensorrt_cache.engine_folder('ab' * 32, 'fp16', other)
    (folder / tensorrt_cache.MACHINE).unlink()
    with pytest.raises(ManifestError, match='it has no machine.json.*Remove the folder'):
        tensorrt_cache.engine_folder('ab' * 32, 'fp16', here)


def test_a_machine_is_its_gpus_and_driver(tmp_path):
    gpu = tmp_path / 'gpus' / '0000:01:00.0'
    gpu.mkdir(parents=True)
    (gpu / 'information').write_text('Model: \t\t NVIDIA H100 PCIe\nIRQ:   \t 1\n')
    (tmp_path / 'version').write_text('NVRM version: NVIDIA  UNIX  570.1\nGCC version: 12\n')
    found = tensorrt_cache.this_machine(tmp_path)
    assert found['gpus'] == 'NVIDIA H100 PCIe'
    assert found['driver'] == 'NVRM version: NVIDIA UNIX 570.1'
    assert tensorrt_cache.this_machine(tmp_path / 'none')['gpus'] == 'unknown'


def test_warming_up_leaves_nothing_behind(directory):
    detector = OnnxDetector(Manifest.load(directory), 1)
    assert 0.0 < detector.warm_up() < 10.0
    np.testing.assert_allclose(frame(detector, 10, ABSENT).bev, 1.0)
    assert 'onnxruntime' in detector.engine and 'cpu' in detector.engine


@needs_openvino
def test_openvino_reads_inputs_history_and_motion(directory):
    manifest = Manifest.load(directory)
    motion = np.eye(4)
    motion[:3, 3] = 3.0, -1.0, 0.5
    history = History(np.full((2, 4, 4), 8.0, np.float32), True, motion, 0.5)
    want, got = (frame(OnnxDetector(manifest, 1, s), 30, history) for s in (None, OPENVINO))
    for name, values in want._asdict().items():
        np.testing.assert_allclose(getattr(got, name), values, rtol=1e-5, err_msg=name)
    detector = OnnxDetector(manifest, 1, OPENVINO)
    first = frame(detector, 30, history)
    kept = first.bev.copy()
    frame(detector, 30, ABSENT)  # the next frame does not write into the last one's outputs
    np.testing.assert_array_equal(first.bev, kept)


@needs_openvino
def test_openvino_refuses_what_onnxruntime_refuses(directory, monkeypatch):
    model = onnx.load(directory / 'detector.onnx')
    onnx.save(
        model,
        directory / 'detector.onnx',
        save_as_external_data=True,
        location='elsewhere.bin',
        size_threshold=0,
    )
    write_manifest(directory)
    monkeypatch.chdir(directory)  # where it would be found
    for settings in (None, OPENVINO):
        with pytest.raises(ManifestError, match='detector.onnx cannot be run by'):
            OnnxDetector(Manifest.load(directory), 1, settings)
    (directory / 'detector.onnx').write_bytes(b'no graph at all')
    write_manifest(directory)
    with pytest.raises(ManifestError, match='detector.onnx cannot be run by openvino'):
        OnnxDetector(Manifest.load(directory), 1, OPENVINO)


@needs_openvino
def test_openvino_is_imported_without_its_telemetry(directory, tmp_path):
    (tmp_path / 'openvino_telemetry.py').write_text('raise SystemExit("it would call home")')
    code = (
        'import sys; from mta_perception.runtime.openvino_graph import OpenVinoGraph; '
        'print(OpenVinoGraph(sys.argv[1], 1).engine)'
    )
    paths = [str(tmp_path), str(Path(__file__).parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, '-c', code, directory / 'detector.onnx'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    )
    assert done.returncode == 0 and 'openvino' in done.stdout, done.stderr


@needs_openvino
@pytest.mark.skipif(not (NANO / 'manifest.yaml').is_file(), reason='models/nano is not there')
def test_engines_agree_on_the_shipped_detector():
    """int8: a last bit that differs is rounded to another step, so that engines differ as int8
    does from float32, 3 to 4 % of the BEV, and no less where nothing is fused."""
    manifest, rng = Manifest.load(NANO), np.random.default_rng(0)
    size = manifest.image.height, manifest.image.width
    small = rng.integers(0, 255, (6, size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
    images = small.repeat(16, 1).repeat(16, 2)
    given = images, surround_view(manifest.image), np.ones(6, np.float32), ABSENT
    want, got = (OnnxDetector(manifest, 2, s)(*given) for s in (None, OPENVINO))
    worst = np.sqrt(np.square(got.bev - want.bev).mean() / np.square(want.bev).mean())
    print('root mean square of the difference over that of the BEV:', worst)
    assert 1e-6 < worst < 0.07

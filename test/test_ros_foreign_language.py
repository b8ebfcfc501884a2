"""A node that speaks with a foreign language model: a small Llama with random weights.

The detector is the hand-made one of tiny_model.py with its objects moved apart.
"""

import shutil

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')
torch = pytest.importorskip('torch')
pytest.importorskip('peft')
onnx = pytest.importorskip('onnx')

from foreign_models import write_llama
from ros_car import Car, start_node, wait_until
from small_language import open_gates
from tiny_dataset import write_dataset
import tiny_model
import yaml

from mta_perception.commands.processes import free_domain
from mta_perception.detections import CaptionInputs
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.speech import LanguageSettings, open_captioner
from mta_training.conversion.convert import convert
from mta_training.evaluation.ros_parity import ros_parity
from mta_training.export.foreign_language import ForeignLanguage
from mta_training.language import small_model
from mta_training.language.frozen_llama import CaptionLanguage

PLACES, WIDTH, MOST = 2, 64, 8
SIZES = {'car': (4.0, 2.0, 1.5), 'truck': (8.0, 2.5, 3.0)}  # of the two that score enough
# None of them a claim of our grammar, which the node would hold against the box.
WORDS = ['lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor']


@pytest.fixture(scope='module')
def spoken(tmp_path_factory):
    """(model directory, directory of the weights)."""
    folder = tmp_path_factory.mktemp('spoken')
    tokenizer = small_model.train_tokenizer(WORDS)
    weights = write_llama(folder / 'weights', tokenizer)
    language = open_gates(
        CaptionLanguage.from_directory(
            weights, adapter_len=3, dtype='float32', prompt='ipsum', max_tokens=MOST
        )
    )
    model = tiny_model.write_tiny_model(folder / 'model')
    boxes = np.zeros((1, tiny_model.QUERIES, 10))
    boxes[0, :, :2] = (12.0, 5.0), (9.0, -6.0), (-8.0, 4.0)
    boxes[0, :2, 3:6] = list(SIZES.values())
    boxes[0, :, 7] = 1.0
    tiny_model._save(
        model / 'detector.onnx',
        tiny_model.DETECTOR,
        constant_logits=tiny_model._logits(),
        constant_boxes=boxes,
    )
    weights_of_size = np.zeros((10, PLACES * WIDTH))  # the same sentence wherever an object is
    weights_of_size[3:6] = np.random.default_rng(0).normal(0, 0.3, (3, PLACES * WIDTH))
    tiny_model._save(
        model / 'qformer.onnx',
        tiny_model.QFORMER.replace('[count,2,3]', f'[count,{PLACES},{WIDTH}]').replace(
            '[0, 2, 3]', f'[0, {PLACES}, {WIDTH}]'
        ),
        weights=weights_of_size,
    )
    for name in ('language.onnx', 'tokenizer.json'):
        (model / name).unlink()
    foreign = ForeignLanguage(language, weights, 'ipsum')
    foreign.write(model)
    tiny_model.write_manifest(model, captioner=foreign.captioner(PLACES))
    values = yaml.safe_load((model / 'manifest.yaml').read_text())
    values['files']['adapter.safetensors'] = tiny_model.hashlib.sha256(
        (model / 'adapter.safetensors').read_bytes()
    ).hexdigest()
    (model / 'manifest.yaml').write_text(yaml.safe_dump(values))
    return model, weights


def offline(model, weights):
    """The sentence of each class in SIZES."""
    boxes = np.zeros((len(SIZES), 10), np.float32)
    boxes[:, 3:6] = list(SIZES.values())
    inputs = CaptionInputs(np.zeros((2, 6)), boxes, np.zeros((2, 10)), np.zeros((2, 4, 4)))
    manifest = Manifest.load(model)
    captions = open_captioner(manifest, 1, LanguageSettings(str(weights))).caption(inputs)
    return {name: caption.text for name, caption in zip(SIZES, captions)}


@pytest.mark.slow
def test_the_node_says_what_offline_evaluation_says(spoken, tmp_path):
    model, weights = spoken
    dataset = write_dataset(tmp_path / 'dataset', scenes=1)
    (bag,) = convert(dataset, tmp_path / 'bags', workers=1, progress=False)
    found = ros_parity(bag, model, tmp_path / 'out', 4, 0.5, LanguageSettings(str(weights)))
    assert found.compared >= 2 and found.box_difference < 1e-3
    assert found.sentences >= 2 and found.sentences_equal == found.sentences


def test_without_its_tokenizer_a_node_stays_unconfigured_and_with_it_says_the_sentences(
    spoken, tmp_path
):
    from lifecycle_msgs.srv import GetState

    model, weights = spoken
    copy = shutil.copytree(weights, tmp_path / 'weights')
    (copy / 'tokenizer.json').unlink()
    domain = free_domain()
    given = {'model': model, 'autostart': False, 'language_directory': copy}
    given |= {'dead_after_s': 2.0, 'score_threshold': 0.2}
    with start_node(tmp_path, domain, given, wait_for='') as node:
        car = Car(domain)
        try:
            car.listen_to_node()
            assert not car.change_state('configure')
            state = car.call(GetState, '/mta_perception/get_state', GetState.Request())
            assert state.current_state.label == 'unconfigured'
            (line,) = [line for line in node.output().splitlines() if 'cannot be' in line]
            assert 'lacks the tokenizer' in line and '-p captions:=false' in line
            assert 'Traceback' not in node.output()
            shutil.copy(weights / 'tokenizer.json', copy)
            assert car.change_state('configure', 'activate')
            car.wait_for_node()
            wait_until(lambda: car.step() and car.captions, 15.0, 'no sentence')
            car.step()
            said = [one for message in list(car.captions) for one in message.captions]
            wanted = offline(model, weights)
            assert len(set(wanted.values())) == 2
            assert said and all(one.caption == wanted[one.class_id] for one in said)
            assert 'Traceback' not in node.output()
        finally:
            car.close()


def test_with_captions_off_a_node_runs_without_the_weights(spoken, tmp_path):
    model, _ = spoken
    domain = free_domain()
    given = {'model': model, 'captions': 'off', 'dead_after_s': 2.0}
    with start_node(tmp_path, domain, given, name='silent'):
        car = Car(domain)
        try:
            car.listen_to_node()
            car.wait_for_node()
            assert car.step().detections
            assert 'captions is false' in car.statuses()['captions'][1]
            assert not car.captions
        finally:
            car.close()

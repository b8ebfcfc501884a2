"""The paper's recipe made small, from training over export to the node: BEVFormer nano, and a
random language model of either of the paper's families, Llama and InternLM2; and an imported file
as published, detections alone.

Weights of a few steps find nothing: what is held is that node and pipeline say the same, box by
box and word by word.  So the threshold is put where some boxes pass it.
"""

import sys

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')
torch = pytest.importorskip('torch')
pytest.importorskip('peft')
pytest.importorskip('onnxscript')

from foreign_models import small_llama, write_internlm2, write_llama
from tiny_dataset import write_dataset
import yaml

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer.official import official_name
from mta_perception.runtime.speech import LanguageSettings
from mta_training.commands import cli
from mta_training.commands.parity import differs
from mta_training.conversion.convert import convert
from mta_training.evaluation.ros_parity import ros_parity
from mta_training.language import small_model

FRAMES, RATE, MOST = 4, 0.2, 12
RECIPE = {
    'base': 'paper',
    'model': {
        'name': 'bevformer_nano',
        'detector': 'bevformer_nano',
        'image': {'width': 448, 'height': 256, 'scale': 0.28},
        'bev': {'channels': 128},
        'qformer': {'width': 64, 'heads': 4, 'layers': 2, 'prefix_tokens': 4},
    },
    # nano starts at random: nothing of it may be frozen.
    'schedule': {
        'steps': 2,
        'batch': 1,
        'frozen_stages': -1,
        'backbone_rate': 1.0,
        'freeze_norm': False,
    },
    'alignment': {'bla': 'off', 'dca': 'off'},
    'captions': {'objects': 4},
    'gradient_norms_every': 0,
    'evaluate_minutes': 0.0,
    'evaluate_frames': 2,
}


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    """Two bags of the hand-made dataset, each in a folder of its own."""
    folder = tmp_path_factory.mktemp('drives')
    made = convert(write_dataset(folder / 'dataset'), folder / 'bags', workers=1, progress=False)
    found = []
    for bag in made:
        (folder / bag.name).mkdir()
        found.append(bag.rename(folder / bag.name / bag.name))
    return found


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['mta-train', *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


def with_boxes(model, threshold):
    """The model publishes its MOST best boxes above a threshold that untrained ones pass."""
    path = model / 'manifest.yaml'
    values = yaml.safe_load(path.read_text())
    values['decode'] |= {'score_threshold': threshold, 'max_detections': MOST}
    path.write_text(yaml.safe_dump(values))


def held(found):
    print(found)
    assert found.compared >= FRAMES / 2 and found.boxes >= 2
    assert differs(found) == ''


def internlm2(directory, tokenizer):
    return write_internlm2(small_llama(tokenizer), tokenizer, directory)


@pytest.mark.slow
@pytest.mark.parametrize('write', [write_llama, internlm2], ids=['llama', 'internlm2'])
def test_the_paper_made_small_says_in_the_node_what_it_says_offline(
    bags, tmp_path, monkeypatch, write
):
    words = [text for sample in SceneBag(bags[0]).samples for text in sample.captions if text]
    directory = write(tmp_path / 'language', small_model.train_tokenizer(words))
    language = {'model': str(directory), 'dtype': 'float32', 'gradient_checkpointing': False}
    recipe, run, model = tmp_path / 'small.yaml', tmp_path / 'run', tmp_path / 'model'
    recipe.write_text(yaml.safe_dump(RECIPE | {'language': language}))
    training, held_out = (bag.parent for bag in bags)
    command(
        monkeypatch,
        *('train', '--config', recipe, '--bags', training, '--val-bags', held_out),
        *('--out', run, '--threads', 1),
    )
    command(monkeypatch, 'export', '--run', run, '--out', model)
    with_boxes(model, 0.001)
    found = ros_parity(
        bags[1], model, tmp_path / 'out', FRAMES, RATE, LanguageSettings(str(directory))
    )
    held(found)
    assert found.sentences >= 1 and found.sentences_equal == found.sentences


@pytest.mark.slow
def test_an_imported_file_detects_in_the_node_what_it_detects_offline(bags, tmp_path, monkeypatch):
    torch.manual_seed(0)
    state = BEVFormer(BEVFormerConfig.tiny(official=True)).state_dict()
    published = {official_name(name): value for name, value in state.items()}
    torch.save({'state_dict': published}, tmp_path / 'bevformer_tiny.pth')
    command(
        monkeypatch,
        *('import-bevformer', tmp_path / 'bevformer_tiny.pth', '--out', tmp_path / 'imported'),
    )
    model = tmp_path / 'model'
    command(monkeypatch, 'export', '--run', tmp_path / 'imported', '--out', model)
    with_boxes(model, 0.001)
    held(ros_parity(bags[1], model, tmp_path / 'out', FRAMES, RATE / 2, LanguageSettings()))

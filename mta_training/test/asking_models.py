"""A model directory that can be asked, untrained and small enough to be exported in seconds."""

import hashlib

import torch
import yaml

from mta_perception import contract
from mta_perception.model.asking import AskConfig, TaskModel
from mta_perception.model.config import LanguageConfig
from mta_perception.model.language import LanguageModel
from mta_perception.model.tasks.config import (
    MaskConfig,
    RegionConfig,
    TasksConfig,
    TemporalConfig,
    TrackConfig,
)
from mta_training.tpo.host import word_tokenizer
from mta_training.tpo.words import Vocabulary

TEXTS = ('where is the red car ahead', 'when does the bus stop', 'there is no such object')
OBJECTS, FRAMES = 12, 9  # of a frame, of the memory


def tasks_config():
    """All four heads, narrow."""
    return TasksConfig(
        region=RegionConfig(pointer_width=16, hidden=32),
        temporal=TemporalConfig(
            width=32,
            heads=2,
            feedforward=32,
            dummies=3,
            dummy_layers=1,
            cross_layers=1,
            encoder_layers=1,
            decoder_layers=2,
            queries=4,
            prompts=3,
        ),
        mask=MaskConfig(width=16, heads=2, layers=1, feedforward=32),
        track=TrackConfig(pointer_width=16, hidden=32),
    )


def untrained(model, host='plain', seed=0):
    """(TaskModel, LanguageModel, Vocabulary) with random weights for an MtaConfig."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary(word_tokenizer(TEXTS))
    config = AskConfig(
        host=host, memory=FRAMES, objects=OBJECTS, width=32, pooled=2, tasks=tasks_config()
    )
    size = model.language
    language = LanguageModel(
        LanguageConfig(
            hidden_size=size.hidden_size,
            intermediate_size=size.intermediate_size,
            num_hidden_layers=size.num_hidden_layers,
            num_attention_heads=size.num_attention_heads,
            vocab_size=vocabulary.tokenizer.get_vocab_size(),
        )
    )
    return TaskModel(config, model).eval(), language.eval(), vocabulary


def write_detector(directory, model):
    """A model directory whose detector nobody opens."""
    directory.mkdir()
    (directory / 'detector.onnx').write_bytes(b'a detector')
    image, bev = model.image, model.bev
    values = {
        'contract_version': contract.CONTRACT_VERSION,
        'name': 'toy',
        'cameras': list(contract.CAMERAS),
        'classes': list(contract.CLASSES),
        'image': {'width': image.width, 'height': image.height, 'scale': image.scale},
        'bev': {'half_extent_m': 51.2, 'cells': bev.cells, 'channels': bev.channels},
        'box_code': ['x', 'y', 'z', 'length', 'width', 'height', 'sin', 'cos', 'vx', 'vy'],
        'history': {'step_s': 0.5},
        'decode': contract.DECODE,
        'files': {'detector.onnx': hashlib.sha256(b'a detector').hexdigest()},
        'training': {'data': 'none'},
        'metrics': {},
    }
    (directory / 'manifest.yaml').write_text(yaml.safe_dump(values))
    return directory

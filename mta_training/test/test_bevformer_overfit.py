"""The published recipe learns: two frames by heart, every object within a metre, right class."""

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch')

from small_bevformer import drives, missed, overfit, small_config

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer.config import ImageConfig
from mta_training.bevformer.queue import QueueSet
from mta_training.conversion.convert import convert
from mta_training.data.scene_cache import read_scene
from mta_training.synth.dataset.generate import synthesise

torch.set_num_threads(1)


def learn(config, scenes, indices, steps, rate, seed=0):
    """Train on two frames, check that all is found, and by looking.

    Nothing but the images may tell the two samples apart: can_bus is zero, or they would be known
    by where the car was.
    """
    frames, targets = QueueSet(scenes, config).batch([[index] for index in indices])
    frames = [
        frame._replace(ego=frame.ego._replace(can_bus=torch.zeros_like(frame.ego.can_bus)))
        for frame in frames
    ]
    torch.manual_seed(seed)
    model = overfit(BEVFormer(config), frames, targets, steps, rate, warm_up=steps // 8)
    assert missed(model, frames, targets) == [[], []]
    swapped = [frame._replace(images=frame.images.flip(0)) for frame in frames]
    total = sum(len(frame.labels) for frame in targets)
    assert sum(len(row) for row in missed(model, swapped, targets)) > total / 2


def test_drawn_frames_by_heart():
    config = small_config(dropout=0.0, encoder_layers=1)
    learn(config, drives(config), (2, 8), 120, 4e-3)


def rendered(folder, config):
    """Two scenes of the synthetic world as SceneArrays."""
    root = synthesise(
        folder / 'set',
        2,
        55,
        workers=1,
        image_size=(448, 252),
        sweeps=False,
        seconds=1.0,
        progress=False,
    )
    bags = convert(root, folder / 'bags', workers=1, progress=False)
    return [read_scene(bag, config.image) for bag in bags]


@pytest.mark.slow
def test_rendered_frames_by_heart(tmp_path):
    """Nano at half the images, channels and queries."""
    nano = BEVFormerConfig.nano()
    config = replace(
        nano,
        image=ImageConfig(224, 128, 126, 0.14),
        channels=64,
        feedforward=128,
        backbone=replace(nano.backbone, width=16),
        dropout=0.0,
        decoder_layers=2,
        queries=150,
    )
    learn(config, rendered(tmp_path, config), (1, 3), 160, 2e-3)


@pytest.mark.slow
def test_nano_has_rendered_frames_by_heart(tmp_path):
    """Nano as it is, but for the dropout: minutes."""
    config = replace(BEVFormerConfig.nano(), dropout=0.0)
    learn(config, rendered(tmp_path, config), (1, 3), 160, 2e-3)

"""The published recipe learns: two frames by heart, every object within a metre, right class."""

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch')

from small_bevformer import drives, missed, small_config, small_trainer

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer.config import PaddedImageConfig
from mta_training.conversion.convert import convert
from mta_training.data.batches import Place, make_batch
from mta_training.data.scene_arrays import SceneArrays
from mta_training.data.scene_cache import read_scene
from mta_training.synth.dataset.generate import synthesise


def learn(folder, config, scenes, frames, steps, rate):
    """Train on one frame of each of two scenes, check that all is found, and by looking."""
    scenes = [only(scene, frame) for scene, frame in zip(scenes, frames)]
    torch.manual_seed(0)
    trainer = small_trainer(
        folder,
        scenes,
        BEVFormer(config),
        schedule={'steps': steps, 'batch': 2, 'learning_rate': rate, 'warm_up': 0.125},
    )
    for _ in range(steps):
        trainer.step()
    detector = trainer.learner.model.detector
    batch = make_batch(scenes, [Place(0, 0, False), Place(1, 0, False)])
    assert missed(detector, batch) == [[], []]
    # Who does not look finds everything again.
    swapped = batch._replace(images=batch.images.flip(0))
    total = sum(len(frame.labels) for frame in batch.targets)
    assert sum(len(row) for row in missed(detector, swapped)) >= total / 2


def only(scene, frame):
    """A scene of one of its frames."""
    parts = (None if part is None else part[frame : frame + 1] for part in scene[1:])
    return SceneArrays(scene.name, *parts)


def test_drawn_frames_by_heart(tmp_path):
    config = small_config(dropout=0.0, encoder_layers=1)
    learn(tmp_path, config, drives(config), (2, 2), 120, 4e-3)


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
        image=PaddedImageConfig(224, 128, 0.14, 126),
        channels=64,
        feedforward=128,
        backbone=replace(nano.backbone, width=16),
        dropout=0.0,
        decoder_layers=2,
        queries=150,
    )
    learn(tmp_path, config, rendered(tmp_path, config), (1, 1), 160, 2e-3)


@pytest.mark.slow
def test_nano_has_rendered_frames_by_heart(tmp_path):
    """Nano as it is, but for the dropout: minutes."""
    config = replace(BEVFormerConfig.nano(), dropout=0.0)
    learn(tmp_path, config, rendered(tmp_path, config), (1, 1), 160, 2e-3)

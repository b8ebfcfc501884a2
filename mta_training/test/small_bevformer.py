"""A BEVFormer that runs in milliseconds, and drives for it."""

from dataclasses import replace
import math

from accelerate import Accelerator
import torch
from toy_scenes import toy_scene
from training_cases import small_recipe

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer.config import BackboneConfig, PaddedImageConfig
from mta_perception.model.bevformer.detector import ego_boxes
from mta_perception.model.config import ImageConfig as ModelImage
from mta_perception.model.config import MtaConfig
from mta_training.process_group import ProcessGroup
from mta_training.training import loop
from mta_training.training.trainer import Trainer


def small_config(**changes):
    """32 channels, 20 x 20 cells, 30 queries, a ResNet of width 8."""
    backbone = BackboneConfig(
        (1, 1, 1, 1), 8, False, out_stages=(2, 3), levels=1, frozen_norm=False
    )
    config = BEVFormerConfig(
        'small',
        PaddedImageConfig(96, 64, 0.06, 54),
        backbone,
        channels=32,
        heads=4,
        feedforward=64,
        bev_cells=20,
        encoder_layers=2,
        queries=30,
        decoder_layers=2,
        max_detections=60,
    )
    return replace(config, **changes)


def small_model(config=None, seed=0):
    """Weights at random also where the start is zero, so that nothing is hidden by a zero."""
    torch.manual_seed(seed)
    model = BEVFormer(config or small_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def drives(config, count=2, frames=6):
    """SceneArrays with objects in every frame."""
    return [toy_scene(config, frames=frames, objects=6, seed=seed) for seed in range(count)]


def small_trainer(folder, scenes, network, **changes):
    """A Trainer whose detector has a given BEVFormer: the one trainer there is, made small.

    changes: of a recipe of BEVFormer without captions or augmentation, as Recipe.changed
    """
    config = network.config
    image = config.image
    model = replace(
        MtaConfig.toy(),
        detector='bevformer_nano',
        image=ModelImage(image.width, image.height, image.scale),
        bev=replace(MtaConfig.toy().bev, cells=config.bev_cells, channels=config.channels),
    )
    recipe = small_recipe(
        model=model.to_dict(),
        captions={'start': 1.0},
        weights={'detection': 1.0},
        augmentation={'relight': False, 'dead_cameras': 0.0},
        schedule={'bf16': False, 'offsets_rate': 1.0, 'decay_all': True, 'clip': 35.0},
    ).changed(changes)
    learner, recipe = loop.build_learner(folder, scenes, recipe, ProcessGroup())
    learner.model.detector.network = network
    return Trainer(learner, scenes, recipe, Accelerator(cpu=True))


def missed(detector, batch, reach_m=1.0):
    """Per sample of a Batch without history, the objects that are not found, as (class, x, y).

    The best detections, as many as there are objects, each take, in the order of their scores,
    the nearest object of their class that nobody has taken and that is nearer than `reach_m`.
    """
    config = detector.network.config
    memory = torch.zeros(len(batch.images), config.channels, *2 * [config.bev_cells])
    detector.eval()
    with torch.no_grad():
        result = detector(*batch[:3], memory, *batch[3:5])
    rows = []
    for found, frame in zip(detector.network.decode(result.stages), batch.targets):
        boxes = ego_boxes(result.stages.box_codes[-1][len(rows)])[found.index // config.classes]
        left = [
            (label, *box[:2]) for label, box in zip(frame.labels.tolist(), frame.boxes.tolist())
        ]
        for box, label in list(zip(boxes.tolist(), found.labels.tolist()))[: len(left)]:
            near = [(math.dist(box[:2], thing[1:]), thing) for thing in left if thing[0] == label]
            if near and min(near)[0] < reach_m:
                left.remove(min(near)[1])
        rows.append(left)
    return rows

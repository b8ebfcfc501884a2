"""A BEVFormer that runs in milliseconds, and drives for it."""

from dataclasses import replace
import math

import torch
from toy_scenes import toy_scene

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer import History
from mta_perception.model.bevformer.config import BackboneConfig, ImageConfig
from mta_training.bevformer import training_step
from mta_training.bevformer.optimiser import Schedule, descend, make_optimiser
from mta_training.bevformer.step import remember


def small_config(**changes):
    """32 channels, 20 x 20 cells, 30 queries, a ResNet of width 8."""
    backbone = BackboneConfig(
        (1, 1, 1, 1), 8, False, out_stages=(2, 3), levels=1, frozen_norm=False
    )
    config = BEVFormerConfig(
        'small',
        ImageConfig(96, 64, 54, 0.06),
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


def missed(model, frames, targets, reach_m=1.0):
    """Per sample, the objects that are not found, as (class, x, y).

    The best detections, as many as there are objects, each take, in the order of their scores,
    the nearest object of their class that nobody has taken and that is nearer than `reach_m`.
    """
    model.eval()
    with torch.no_grad():
        bev = remember(model, frames[:-1])
        past = None if bev is None else History(bev, frames[-1].continues)
        output = model(frames[-1].images, frames[-1].image_from_lidar, frames[-1].ego, past)
    rows = []
    for found, frame in zip(model.decode(output), targets):
        left = [
            (label, *code[:2]) for label, code in zip(frame.labels.tolist(), frame.codes.tolist())
        ]
        for box, label in list(zip(found.boxes.tolist(), found.labels.tolist()))[: len(left)]:
            near = [(math.dist(box[:2], thing[1:]), thing) for thing in left if thing[0] == label]
            if near and min(near)[0] < reach_m:
                left.remove(min(near)[1])
        rows.append(left)
    return rows


def overfit(model, frames, targets, steps, rate, warm_up):
    """Train on the same frames again and again: no augmentation, whole schedule."""
    optimiser = make_optimiser(model.train(), rate=rate, backbone=1.0)
    schedule = Schedule(1, steps, by_epoch=False, warm_up=warm_up)
    for step in range(steps):
        descend(optimiser, training_step(model, frames, targets).total, schedule.factor(step))
    return model

"""A BEVFormer that runs in milliseconds, and drives for it."""

from dataclasses import replace

import torch
from toy_scenes import toy_scene

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer.config import BackboneConfig, ImageConfig


def small_config(**changes):
    """32 channels, 20 x 20 cells, 30 queries, a ResNet of width 8."""
    backbone = BackboneConfig((1, 1, 1, 1), 8, False, out_stages=(2, 3), levels=1,
                              frozen_norm=False)
    config = BEVFormerConfig('small', ImageConfig(96, 64, 54, 0.06), backbone, channels=32,
                             heads=4, feedforward=64, bev_cells=20, encoder_layers=2, queries=30,
                             decoder_layers=2, max_detections=60)
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

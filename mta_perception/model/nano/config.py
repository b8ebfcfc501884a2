"""Sizes of nano's own parts, as frozen dataclasses that refuse what does not fit together.

A BEVFormer has its own in `bevformer/config.py`; what both share is `ImageConfig` and `BevGrid`.
"""

from dataclasses import dataclass

from mta_perception.contract import CAMERAS
from mta_perception.model.grid import BevGrid


@dataclass(frozen=True)
class BackboneConfig:
    """ResNet with basic blocks; `stride` is that of the fused feature map it returns."""

    width: int = 32  # channels of the first stage, doubled at each other
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    stride: int = 16

    def __post_init__(self) -> None:
        if self.stride not in (8, 16, 32):
            raise ValueError(f'backbone.stride={self.stride}; choose 8, 16 or 32.')
        if len(self.blocks) != 4:
            raise ValueError(
                f'backbone.blocks={self.blocks} names {len(self.blocks)} stages; a ResNet has 4.'
            )


@dataclass(frozen=True)
class BevConfig(BevGrid):
    """The grid, and the encoder that fills it."""

    heads: int = 4
    feedforward: int = 256
    layers: int = 2
    pillar_heights_m: tuple[float, ...] = (0.0, 0.7, 1.5, 3.0)  # above ground, ego frame
    temporal_points: int = 4
    cameras_per_cell: int = 2  # the best-seeing cameras a cell reads; nuScenes has <= 2
    neck_blocks: int = 1  # 3x3 residual blocks between encoder and decoder

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise ValueError(
                f'bev.channels={self.channels} is not divisible by bev.heads={self.heads}.'
            )
        if not 1 <= self.cameras_per_cell <= len(CAMERAS):
            raise ValueError(
                f'bev.cameras_per_cell={self.cameras_per_cell}; expected 1 to {len(CAMERAS)}.'
            )


@dataclass(frozen=True)
class DecoderConfig:
    """Object queries: the `queries` highest peaks of the centre heatmap, refined by `layers`."""

    queries: int = 300
    layers: int = 3
    heads: int = 4
    feedforward: int = 256
    points: int = 4

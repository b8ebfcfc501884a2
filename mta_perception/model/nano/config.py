"""Sizes of nano's own parts, as frozen dataclasses that refuse what does not fit together.

A BEVFormer has its own in `bevformer/config.py`; what both share is `ImageConfig` and `BevGrid`.
"""

from dataclasses import dataclass

from mta_perception.checks import require_counts
from mta_perception.contract import CAMERAS
from mta_perception.model.grid import BevGrid

BACKBONES = ('resnet', 'lite0')


@dataclass(frozen=True)
class BackboneConfig:
    """What sees the images; `stride` is that of the one feature map that the BEV is made of."""

    width: int = 32  # resnet: channels of the first stage, doubled at each other
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # resnet
    stride: int = 16
    kind: str = 'resnet'  # from nothing, or lite0: EfficientNet-Lite0, with ImageNet's weights
    refine: int = 0  # separable blocks over the fused map
    depth_bins: int = 0  # depth told at each of its places, for the BEV encoder; 0: not
    fine: bool = False  # what an object looks like is read at stride 4 too

    def __post_init__(self) -> None:
        if self.kind not in BACKBONES:
            raise ValueError(f'backbone.kind={self.kind!r}; choose {" or ".join(BACKBONES)}.')
        if self.refine < 0 or self.depth_bins < 0 or self.depth_bins == 1:
            raise ValueError(
                f'backbone.refine={self.refine}, depth_bins={self.depth_bins}; expected 0 or '
                'more, and not a single bin.'
            )
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
        require_counts(
            **{
                'bev.cells': self.cells,
                'bev.channels': self.channels,
                'bev.heads': self.heads,
            }
        )
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

    def __post_init__(self) -> None:
        require_counts(**{'decoder.queries': self.queries, 'decoder.heads': self.heads})

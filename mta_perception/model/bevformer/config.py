"""Sizes of BEVFormer as frozen dataclasses: the published tiny, small and base, and our nano.

What the published code does and nobody would do on purpose has a name in `Quirks`: on in
`official=True`, so that published weights give published numbers, off in our own recipes.
"""

from dataclasses import asdict, dataclass, field, fields, replace

from mta_perception.model.camera_image import RGB_MEAN, RGB_STD, ImageConfig

_CAFFE_MEAN = (103.53, 116.28, 123.675)


@dataclass(frozen=True)
class Quirks:
    """Behaviour of the published code that parity with its weights needs.

    Numbers are issues of github.com/fundamentalvision/BEVFormer.
    """

    rotate_about_pixel_100: bool = False  # history turns about cell (100, 100) of any grid (96)
    nearest_history: bool = False  # turned by nearest cell; the shift moves references
    shift_both_references: bool = False  # until 2f37d0d (July 2023): `ref_2d` aliased, see 96
    initial_query_beside_history: bool = False  # slot 1 of temporal attention is never refined
    padding_counts_as_image: bool = False  # the rows of padding below the image are 'visible'
    raw_degrees: bool = False  # yaw difference of can_bus not wrapped to +-180

    @classmethod
    def published(cls, shift_both_references=False):
        """What the code at HEAD does; `shift_both_references` for weights older than 2f37d0d."""
        return cls(True, True, shift_both_references, True, True, True)


@dataclass(frozen=True)
class PaddedImageConfig(ImageConfig):
    """The image, and how published weights want it."""

    width: int = 800
    height: int = 480
    scale: float = 0.5
    content_height: int = 450  # rows that are no padding
    mean: tuple[float, ...] = RGB_MEAN  # in the order of the channels that enter
    std: tuple[float, ...] = RGB_STD
    bgr: bool = False  # channels enter as B, G, R ('caffe')


@dataclass(frozen=True)
class BackboneConfig:
    """ResNet and feature pyramid."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64  # channels of the first stage before expansion
    bottleneck: bool = True
    stride_in_first: bool = False  # 'caffe': the 1x1 convolution has the stride
    deformable_stages: tuple[bool, ...] = (False, False, False, False)  # DCNv2
    out_stages: tuple[int, ...] = (3,)  # which of 0..3 enter the pyramid
    levels: int = 1  # maps that leave it; the coarsest is an extra one
    frozen_norm: bool = True  # batch norm keeps its statistics and weights

    @property
    def channels(self):
        """Channels of the four stages."""
        return tuple(self.width * 2**stage * (4 if self.bottleneck else 1) for stage in range(4))


@dataclass(frozen=True)
class BEVFormerConfig:
    """The whole detector.  `BEVFormerConfig.tiny(official=True)` and its siblings make one."""

    name: str
    image: PaddedImageConfig = field(default_factory=PaddedImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    quirks: Quirks = field(default_factory=Quirks)
    cameras: int = 6
    classes: int = 10
    channels: int = 256
    heads: int = 8
    feedforward: int = 512
    dropout: float = 0.1
    range_m: tuple[float, ...] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)  # lidar frame, x y z
    bev_cells: int = 50  # along x and along y
    encoder_layers: int = 3
    pillar_points: int = 4
    spatial_points: int = 8  # a head, level and camera; a multiple of pillar_points
    temporal_points: int = 4
    queries: int = 900
    decoder_layers: int = 6
    decoder_points: int = 4
    level_rows: int = 4  # rows of the level embedding; `levels` are read
    max_detections: int = 300
    centre_range_m: tuple[float, ...] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    checkpointing: bool = False  # recompute encoder layers in the backward pass

    def __post_init__(self):
        if self.channels % self.heads:
            raise ValueError(f'channels={self.channels} is not divisible by heads={self.heads}')
        if self.spatial_points % self.pillar_points:
            raise ValueError(
                f'spatial_points={self.spatial_points} is no multiple of '
                f'pillar_points={self.pillar_points}'
            )
        if self.backbone.levels > self.level_rows:
            raise ValueError(
                f'backbone.levels={self.backbone.levels} is more than level_rows={self.level_rows}'
            )

    @property
    def cell_m(self):
        """Edge of a cell [m]."""
        return (self.range_m[3] - self.range_m[0]) / self.bev_cells

    @classmethod
    def named(cls, name):
        """The one of a name: tiny, small, base or nano, with `_official` behind it or without."""
        size, _, official = name.partition('_')
        return getattr(cls, size)(official == 'official')

    @classmethod
    def tiny(cls, official=False):
        """ResNet-50, 800x480, one level, BEV 50x50, three encoder layers."""
        return cls('tiny', quirks=_quirks(official))

    @classmethod
    def small(cls, official=False):
        """ResNet-101-DCN, 1280x736, one level (C5), BEV 150x150, three encoder layers."""
        return cls(
            'small',
            PaddedImageConfig(1280, 736, 0.8, 720, _CAFFE_MEAN, (1.0, 1.0, 1.0), True),
            _resnet101(out_stages=(3,), levels=1),
            _quirks(official),
            bev_cells=150,
        )

    @classmethod
    def base(cls, official=False):
        """ResNet-101-DCN, 1600x928, four levels (C3 to C6), BEV 200x200, six encoder layers."""
        return cls(
            'base',
            PaddedImageConfig(1600, 928, 1.0, 900, _CAFFE_MEAN, (1.0, 1.0, 1.0), True),
            _resnet101(out_stages=(1, 2, 3), levels=4),
            _quirks(official),
            bev_cells=200,
            encoder_layers=6,
        )

    @classmethod
    def nano(cls, official=False):
        """Our size for two CPU cores; never published, so `official` changes only the quirks."""
        backbone = BackboneConfig(
            (2, 2, 2, 2), 32, False, out_stages=(2, 3), levels=1, frozen_norm=False
        )
        return cls(
            'nano',
            PaddedImageConfig(448, 256, 0.28, 252),
            backbone,
            _quirks(official),
            channels=128,
            heads=4,
            feedforward=256,
            encoder_layers=2,
            queries=300,
            decoder_layers=3,
        )

    def with_quirks(self, **switches):
        """The same with some quirks set otherwise."""
        return replace(self, quirks=replace(self.quirks, **switches))

    def to_dict(self):
        """As dicts, lists, strings and numbers, for YAML and files without code."""
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, values):
        """Back from `to_dict`.  Raises ValueError that names what is missing or unknown."""
        parts = {'image': PaddedImageConfig, 'backbone': BackboneConfig, 'quirks': Quirks}
        values = dict(values)
        for name, part in parts.items():
            if name in values:
                values[name] = _from_plain(part, values[name])
        return _from_plain(cls, values)


def _quirks(official):
    return Quirks.published() if official else Quirks()


def _resnet101(**rest):
    return BackboneConfig(
        (3, 4, 23, 3), stride_in_first=True, deformable_stages=(False, False, True, True), **rest
    )


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _from_plain(cls, values):
    names = {entry.name for entry in fields(cls)}
    faults = [
        f'{what} {", ".join(sorted(map(str, which)))}'
        for what, which in (
            ('lacks', names - set(values)),
            ('has the unknown', set(values) - names),
        )
        if which
    ]
    if faults:
        raise ValueError(f'{cls.__name__} {" and ".join(faults)}; is it of another version?')
    return cls(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )

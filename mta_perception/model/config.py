"""Sizes of the network, as frozen dataclasses that refuse what does not fit together.

`MtaConfig.nano()` runs on two CPU cores.  Everything here is stored in a checkpoint and in the
manifest, so a model is always rebuilt with the sizes it was trained with.  `backbone` and
`decoder` are nano's; a BEVFormer's sizes follow from its name (`bevformer/config.py`).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from mta_perception.checks import require, require_counts
from mta_perception.contract import CLASSES
from mta_perception.model.bevformer.config import BEVFormerConfig
from mta_perception.model.camera_image import ImageConfig
from mta_perception.model.nano.config import BackboneConfig, BevConfig, DecoderConfig

SIZES = ('nano', 'tiny', 'small', 'base')  # of BEVFormer
DETECTORS = (
    'nano',
    *(f'bevformer_{size}' for size in SIZES),
    *(f'bevformer_{size}_official' for size in SIZES[1:]),
)


@dataclass(frozen=True)
class QFormerConfig:
    """From one object to `prefix_tokens` soft words."""

    width: int = 256
    heads: int = 4
    layers: int = 2
    prefix_tokens: int = 12
    bev: str = 'around'  # what of the BEV it reads; see qformer.py
    neighbourhood: int = 5  # around: at n x n points ...
    spacing_m: float = 3.0  # ... this far apart
    bev_stride: int = 5  # shared, joint: a token for so many cells squared
    told: str = 'all'  # what an object's token is made of: query, detection or all; see qformer.py
    prefix_object: bool = False  # the object's own token is the first of the prefix, as TOD3Cap's

    def __post_init__(self) -> None:
        require(
            self.bev in ('around', 'shared', 'joint'),
            f'qformer.bev={self.bev!r}; choose around, shared or joint.',
        )
        require(
            self.told in ('query', 'detection', 'all'),
            f'qformer.told={self.told!r}; choose query, detection or all.',
        )
        require_counts(
            **{
                'qformer.width': self.width,
                'qformer.heads': self.heads,
                'qformer.neighbourhood': self.neighbourhood,
                'qformer.bev_stride': self.bev_stride,
            }
        )
        require(
            self.layers >= 1 and self.prefix_tokens > self.prefix_object,
            f'qformer.layers={self.layers}, prefix_tokens={self.prefix_tokens}; expected 1 block '
            'or more, and a learned token beside the object.',
        )
        require(
            self.width % self.heads == 0,
            f'qformer.width={self.width} is not divisible by qformer.heads={self.heads}.',
        )


@dataclass(frozen=True)
class LanguageConfig:
    """Llama architecture; names as in transformers' LlamaConfig."""

    vocab_size: int = 300
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_tokens: int = 48  # longest caption that is generated
    adapter_tokens: int = 0  # LLaMA-Adapter prompts per layer but the first; 0: none

    def __post_init__(self) -> None:
        require_counts(
            **{
                'language.vocab_size': self.vocab_size,
                'language.hidden_size': self.hidden_size,
                'language.intermediate_size': self.intermediate_size,
                'language.num_hidden_layers': self.num_hidden_layers,
                'language.num_attention_heads': self.num_attention_heads,
            }
        )
        require(
            self.hidden_size % self.num_attention_heads == 0 and self.head_dim % 2 == 0,
            f'language.hidden_size={self.hidden_size} does not give '
            f'{self.num_attention_heads} heads of even width.',
        )
        require(
            self.adapter_tokens >= 0 and (not self.adapter_tokens or self.num_hidden_layers > 1),
            f'language.adapter_tokens={self.adapter_tokens} with num_hidden_layers='
            f'{self.num_hidden_layers}; expected 0, or more with 2 layers or more: the first '
            'layer has no adapter.',
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class MtaConfig:
    """The whole network."""

    name: str = 'nano'
    detector: str = 'nano'  # one of DETECTORS; `_official`: published weights, quirks
    image: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    bev: BevConfig = field(default_factory=BevConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)

    def __post_init__(self) -> None:
        require(
            self.detector in DETECTORS,
            f'detector={self.detector!r}; choose one of {", ".join(DETECTORS)}.',
        )
        channels, heads = self.bev.channels, self.decoder.heads
        require(
            channels % heads == 0,
            f'bev.channels={channels} is not divisible by decoder.heads={heads}.',
        )
        require(
            self.decoder.queries <= len(CLASSES) * self.bev.cells**2,
            f'decoder.queries={self.decoder.queries} is more than the heatmap has cells.',
        )
        require(
            self.qformer.bev == 'around' or self.bev.cells % self.qformer.bev_stride == 0,
            f'qformer.bev_stride={self.qformer.bev_stride} does not divide the '
            f'{self.bev.cells} cells of the BEV.',
        )

    @property
    def sees_photographs(self) -> bool:
        """Whether its backbone starts from weights that learned from photographs."""
        return self.detector == 'nano' and self.backbone.kind == 'lite0'

    @classmethod
    def nano(cls) -> 'MtaConfig':
        """The size that fits two CPU cores."""
        return cls()

    @classmethod
    def toy(cls) -> 'MtaConfig':
        """Small enough for tests and smoke runs; learns, but not much."""
        return cls(
            name='toy',
            image=ImageConfig(224, 128, 0.14),
            backbone=BackboneConfig(width=8, blocks=(1, 1, 1, 1), stride=8),
            bev=BevConfig(cells=20, channels=32, feedforward=64, layers=1, neck_blocks=1),
            decoder=DecoderConfig(queries=40, layers=2, feedforward=64),
            qformer=QFormerConfig(width=64, layers=2, prefix_tokens=6),
            language=LanguageConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2),
        )

    @classmethod
    def bevformer(cls, size: str = 'tiny') -> 'MtaConfig':
        """BEVFormer of a size (`tiny`, or `tiny_official`), and MTA's captioner at its size.

        Eight Q-Former blocks of width 768 that share the tokens of the BEV (TOD3Cap, MTA).
        """
        name = f'bevformer_{size}'
        require(name in DETECTORS, f'{name!r} is none of {", ".join(DETECTORS)}.')
        published = BEVFormerConfig.named(size)
        image = published.image
        return cls(
            name=name,
            detector=name,
            image=ImageConfig(image.width, image.height, image.scale),
            bev=BevConfig(published.range_m[3], published.bev_cells, published.channels),
            qformer=QFormerConfig(width=768, heads=16, layers=8, prefix_tokens=10, bev='shared'),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict of this configuration, for checkpoints and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'MtaConfig':
        """The inverse of `to_dict`; unknown or bad values raise TypeError or ValueError."""
        parts = {
            'image': ImageConfig,
            'backbone': BackboneConfig,
            'bev': BevConfig,
            'decoder': DecoderConfig,
            'qformer': QFormerConfig,
            'language': LanguageConfig,
        }
        for name in parts.keys() & values.keys():
            if not isinstance(values[name], dict):
                raise TypeError(f'model.{name} is no names and values')
        built = {
            name: part(
                **{
                    key: tuple(value) if isinstance(value, list) else value
                    for key, value in values[name].items()
                }
            )
            for name, part in parts.items()
            if name in values
        }
        words = {key: values[key] for key in ('name', 'detector') if key in values}
        return cls(**words, **built)

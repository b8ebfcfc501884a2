"""Sizes and switches of the task heads, as frozen dataclasses that refuse what does not fit.

Each head has the form of TPO (arXiv 2412.19326) and a simpler one; docs/tpo.md says what the paper
leaves open.  Defaults are nano's; `paper()` gives the sizes of the published networks.
"""

from dataclasses import dataclass, field
from typing import Optional

from mta_perception.checks import require, require_counts, require_positive

TOLD = ('detection', 'all')


@dataclass(frozen=True)
class RegionConfig:
    """Which object is meant, and its box."""

    # mse: on the box code, as the paper; l1_giou: L1 and gIoU of the footprints, as its release.
    loss: str = 'l1_giou'
    # pointed: the pointed query's box and what has to be added to it; direct: the MLP's own, as
    # the paper's; then the pointer is not learned.
    box: str = 'pointed'
    # What a query's key is made of beside its features: detection (class logits and box, one
    # linear layer) or all (class scores and polar geometry, an MLP); see qformer.py.
    told: str = 'all'
    pointer_width: int = 128
    hidden: int = 256  # of the MLPs

    def __post_init__(self) -> None:
        _check_pointer('region', self)


@dataclass(frozen=True)
class TrackConfig:
    """The region head at each frame of the memory, and what its frames tell each other."""

    loss: str = 'l1_giou'
    box: str = 'pointed'
    told: str = 'all'
    pointer_width: int = 128
    hidden: int = 256
    layers: int = 1  # self-attention over the tokens of all frames; 0: each frame by itself
    heads: int = 4
    # What is pointed at in a frame is told to the frame before it, from now backwards; False: as
    # the paper, a frame's token alone decides.
    associate: bool = True

    def __post_init__(self) -> None:
        _check_pointer('track', self)
        require(self.layers >= 0, f'track.layers={self.layers} is below 0.')
        require_positive(heads=self.heads)


@dataclass(frozen=True)
class TemporalConfig:
    """CG-DETR (arXiv 2311.08835), or an MLP on the task token."""

    kind: str = 'cg_detr'  # or mlp
    width: int = 128
    heads: int = 8
    feedforward: int = 512
    dummies: int = 10
    dummy_layers: int = 2
    cross_layers: int = 2
    encoder_layers: int = 2
    decoder_layers: int = 3
    queries: int = 10  # spans
    prompts: int = 10  # of the saliency token, of which the likeliest ...
    selected_prompts: int = 1  # ... so many are taken
    dropout: float = 0.1
    input_dropout: float = 0.1

    @classmethod
    def paper(cls, **others) -> 'TemporalConfig':
        """The released network."""
        sizes = {
            'width': 256,
            'feedforward': 1024,
            'dummies': 45,
            'encoder_layers': 3,
            'input_dropout': 0.5,
        }
        return cls(**{**sizes, **others})

    def __post_init__(self) -> None:
        require(
            self.kind in ('cg_detr', 'mlp'),
            f'temporal.kind={self.kind!r}; choose cg_detr or mlp.',
        )
        require_counts(**{'temporal.width': self.width, 'temporal.heads': self.heads})
        require(
            self.width % self.heads == 0 and self.width % 4 == 0,
            f'temporal.width={self.width} is not divisible by 4 and by temporal.heads='
            f'{self.heads}.',
        )
        require_positive(
            feedforward=self.feedforward,
            dummies=self.dummies,
            dummy_layers=self.dummy_layers,
            cross_layers=self.cross_layers,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            queries=self.queries,
        )
        require(
            1 <= self.selected_prompts <= self.prompts,
            f'temporal.selected_prompts={self.selected_prompts} is not in 1..prompts='
            f'{self.prompts}.',
        )
        for name in ('dropout', 'input_dropout'):
            value = getattr(self, name)
            require(0 <= value < 1, f'temporal.{name}={value} is not in [0, 1).')


@dataclass(frozen=True)
class MaskConfig:
    """SAM2's two-way mask decoder on the BEV, or one filter from the task token."""

    kind: str = 'two_way'  # or dot
    width: int = 128
    heads: int = 8
    layers: int = 2
    feedforward: int = 512
    prompts: int = 3  # tokens that the adapter makes of the task token
    masks: int = 3  # guesses, of which the one that the IoU head prefers is the answer
    # The head points at the detector's objects and mends their footprints; False: as the paper,
    # all that it knows is the task token and the map.
    objects: bool = True
    told: str = 'all'  # of the pointer, as that of a region
    pointer_width: int = 128
    hidden: int = 256

    @classmethod
    def paper(cls, **others) -> 'MaskConfig':
        """SAM2's sizes, and the task token alone."""
        sizes = {'width': 256, 'feedforward': 2048, 'masks': 4, 'objects': False}
        return cls(**{**sizes, **others})

    def __post_init__(self) -> None:
        require(self.told in TOLD, f'mask.told={self.told!r}; choose one of {", ".join(TOLD)}.')
        require(
            self.kind in ('two_way', 'dot'), f'mask.kind={self.kind!r}; choose two_way or dot.'
        )
        require_counts(**{'mask.width': self.width, 'mask.heads': self.heads})
        require(
            self.width % 8 == 0 and self.width % (2 * self.heads) == 0,
            f'mask.width={self.width} is not divisible by 8 and by twice mask.heads={self.heads}.',
        )
        require_positive(
            layers=self.layers,
            feedforward=self.feedforward,
            prompts=self.prompts,
            masks=self.masks,
            pointer_width=self.pointer_width,
            hidden=self.hidden,
        )


@dataclass(frozen=True)
class TasksConfig:
    """The heads that a model has; None: not this one."""

    region: Optional[RegionConfig] = field(default_factory=RegionConfig)
    temporal: Optional[TemporalConfig] = field(default_factory=TemporalConfig)
    mask: Optional[MaskConfig] = field(default_factory=MaskConfig)
    track: Optional[TrackConfig] = field(default_factory=TrackConfig)


def _check_pointer(name, config):
    require(
        config.loss in ('mse', 'l1_giou'),
        f'{name}.loss={config.loss!r}; choose mse or l1_giou.',
    )
    require(
        config.box in ('pointed', 'direct'),
        f'{name}.box={config.box!r}; choose pointed or direct.',
    )
    require(config.told in TOLD, f'{name}.told={config.told!r}; choose one of {", ".join(TOLD)}.')
    require_positive(pointer_width=config.pointer_width, hidden=config.hidden)

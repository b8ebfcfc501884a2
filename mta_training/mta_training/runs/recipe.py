"""What a training run is made of: frozen settings with their reasons; YAML holds values only.

`Recipe.nano()` is what two CPU cores can train on the synthetic world, `Recipe.paper()` are the
settings of MTA (arXiv 2411.10639, section 4) with what it leaves open filled in, `Recipe.smoke()`
shows in a minute that everything runs.  `Recipe.load` reads one of these names or a YAML file that
starts from one (`base: nano`) and changes values.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mta_perception.checks import require
from mta_perception.foreign_text import printable, shown
from mta_perception.model.config import LanguageConfig, MtaConfig, QFormerConfig
from mta_perception.model.nano.config import BackboneConfig, BevConfig
from mta_perception.plain_yaml import read_yaml
from mta_training.data.augmentation import Augmentation
from mta_training.runs.settings import (
    STRICT,
    Alignment,
    Captions,
    Language,
    Schedule,
    Weights,
    World,
)

MOST_WORDS = 2000  # of a message about a recipe, whatever stands in it


@dataclass(frozen=True)
class Recipe:
    """One run: the network, what it learns from, how long."""

    __pydantic_config__ = STRICT
    name: str
    model: MtaConfig
    schedule: Schedule
    weights: Weights = field(default_factory=Weights)
    alignment: Alignment = field(default_factory=Alignment)
    captions: Captions = field(default_factory=Captions)
    augmentation: Augmentation = field(default_factory=Augmentation)
    language: Language = field(default_factory=Language)
    world: World = field(default_factory=World)
    start: str = ''  # run directory whose detector this one starts from
    start_captioner: bool = False  # ... and whose Q-Former and adapter too
    start_sizes: bool = False  # the detector has the sizes of that run's, whatever `model` says
    caption_steps: int = 0  # at the end, captions alone; see caption_stage.py
    checkpoint_minutes: float = 5.0
    evaluate_minutes: float = 15.0  # 0 = only at the end
    evaluate_frames: int = 10  # of each held-out scene
    gradient_norms_every: int = 50  # steps between logs of each term's gradient; 0 = never
    seed: int = 0

    def __post_init__(self):
        layer, layers = self.alignment.bla_layer, self.model.qformer.layers
        require(
            self.gradient_norms_every > 0 or not self.weights.shares,
            f'weights.shares={self.weights.shares} with gradient_norms_every=0; expected to '
            'measure gradients every so many steps.',
        )
        require(
            -1 <= layer <= layers,
            f'alignment.bla_layer={layer}: the Q-Former has {layers} '
            'blocks, counted from 1; 0 = the middle one, -1 = the last.',
        )

    @classmethod
    def nano(cls):
        """Two CPU cores, synthetic world: detector from nothing, captions on the way."""
        return cls(
            'nano',
            MtaConfig(qformer=QFormerConfig(layers=4)),
            # With ten times the loss, ten times the length at which a gradient is cut.
            Schedule(minutes=120.0, clip=100.0),
            captions=Captions(start=0.25, objects=6),
            # With MiniLM's unit vectors BLA's gradient is ten times the language loss's at the
            # paper's weight of 1, and captions get worse (docs/results.md).
            weights=Weights(bla=0.1, colour=0.1),
            caption_steps=1500,
        )

    @classmethod
    def street(cls):
        """nano with eyes that have seen photographs, for `train --world`: the detector first, on
        frames without end, then captions alone.

        The backbone stays as ImageNet made it: trained on drawn pictures it finds more in those
        and less on real streets (docs/results.md).
        """
        return cls(
            'street',
            MtaConfig(
                name='street',
                backbone=BackboneConfig(
                    kind='lite0', stride=8, refine=2, depth_bins=32, fine=True
                ),
                bev=BevConfig(neck_blocks=2),
                qformer=QFormerConfig(layers=4),
            ),
            Schedule(
                minutes=480.0,
                batch=32,
                learning_rate=1.5e-3,
                backbone_rate=0.0,
                warm_up=0.03,
                clip=100.0,
            ),
            captions=Captions(start=1.0, objects=6),
            weights=Weights(colour=0.1),
            alignment=Alignment(bla='off', dca='off'),
            caption_steps=1500,
            checkpoint_minutes=1.0,
            gradient_norms_every=0,
        )

    @classmethod
    def nano_joint(cls):
        """The paper's comparison at nano size: a pretrained detector, trained on with captions."""
        return replace(
            cls.nano(),
            name='nano_joint',
            caption_steps=0,
            captions=Captions(),
            schedule=Schedule(
                steps=400, learning_rate=4e-4, freeze_norm=True, backbone_rate=0.0, clip=35.0
            ),
        )

    @classmethod
    def mta(cls):
        """The paper's method as faithfully as it can be had at nano size (docs/mta.md): a
        pretrained detector, trained on with captions whose gradient reaches all of its heads.

        The paper's weights (10, 1, 1, 0.01) leave alignments below 1 % of the detection loss's
        gradient in the detector here; these leave them something.
        """
        return replace(
            cls.nano_joint(),
            name='mta',
            model=_faithful(MtaConfig(qformer=QFormerConfig(layers=4, bev='shared'))),
            captions=_FAITHFUL_CAPTIONS,
            alignment=_FAITHFUL_ALIGNMENT,
            weights=Weights(detection=1.0, dca=0.1),
            start_sizes=True,
        )

    @classmethod
    def paper(cls):
        """MTA's settings: 10 epochs, 2e-4, BEVFormer-tiny pretrained, eight blocks that each look
        at the whole BEV, BLA at the fourth.

        What the paper leaves open is BEVFormer's, on which it builds: optimiser, schedule of the
        rate, queues, augmentation; `start` is a directory of `mta-train import-bevformer`.
        """
        return cls(
            'paper',
            _faithful(MtaConfig.bevformer('tiny_official')),
            Schedule(
                epochs=10.0,
                learning_rate=2e-4,
                backbone_rate=0.1,
                frozen_stages=1,
                offsets_rate=1.0,
                weight_decay=0.01,
                decay_all=True,
                curve='bevformer',
                clip=35.0,
                batch=8,
                freeze_norm=True,
                history='queue',
                skip_empty=True,
            ),
            augmentation=Augmentation(
                relight=False, dead_cameras=0.0, photometric=True, grid_mask=0.7
            ),
            alignment=_FAITHFUL_ALIGNMENT,
            captions=_FAITHFUL_CAPTIONS,
            language=Language(model='Llama-3.2-1B', gradient_checkpointing=True),
        )

    @classmethod
    def smoke(cls):
        """A toy network and a few steps."""
        toy = MtaConfig.toy()
        return cls(
            'smoke',
            replace(
                toy,
                language=LanguageConfig(
                    hidden_size=64, intermediate_size=128, num_hidden_layers=2
                ),
            ),
            Schedule(steps=200, batch=2, learning_rate=3e-3),
            captions=Captions(objects=6),
            weights=Weights(detection=1.0),
            language=Language(pretrain_steps=300),
            evaluate_minutes=0.0,
            evaluate_frames=3,
            gradient_norms_every=10,
        )

    @classmethod
    def load(cls, name):
        """A built-in recipe by name, or a YAML file; ValueError names what is wrong in it."""
        return load_named(cls, name, _BUILT_IN, 'nano')

    def changed(self, values):
        """The same with the values of a nested dict; ValueError for unknown names."""
        merged = self.to_dict()
        schedule = values.get('schedule')
        if isinstance(schedule, dict) and {'steps', 'epochs', 'minutes'} & schedule.keys():
            merged['schedule'] |= {'steps': 0, 'epochs': 0.0, 'minutes': 0.0}
        return Recipe.from_dict(_merge(merged, values))

    def to_dict(self):
        """Plain nested dict, for checkpoints and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The inverse of `to_dict`; ValueError for what does not fit."""
        values = dict(values)
        try:
            model = values.pop('model')
            model = MtaConfig.from_dict(model) if isinstance(model, dict) else model
            return TypeAdapter(cls).validate_python({**values, 'model': model})
        except (ValidationError, TypeError) as error:
            raise ValueError(_in_short(error)) from error

    @property
    def bla_layer(self):
        """Index of the aligned Q-Former block, from 0."""
        layers = self.model.qformer.layers
        return {0: (layers + 1) // 2, -1: layers}.get(
            self.alignment.bla_layer, self.alignment.bla_layer
        ) - 1


def load_named(kind, name, built_in, default):
    """A recipe of a kind that has `changed`: one of those built in by its name, or what a YAML
    file makes of one (`base:`, else the default).  ValueError names what is wrong in it."""
    if name in built_in:
        return getattr(kind, name)()
    path = Path(name)
    if not path.is_file():
        raise ValueError(f'config {name!r} is no file and none of {", ".join(built_in)}.')
    values = read_yaml(path)
    if not isinstance(values, dict) or values.get('base', default) not in built_in:
        raise ValueError(
            f'{path}: expected names and values, with `base:` one of {", ".join(built_in)}.'
        )
    try:
        return getattr(kind, values.pop('base', default))().changed(values)
    except ValueError as error:
        raise ValueError(f'{path}: {printable(str(error), MOST_WORDS)}') from error


_BUILT_IN = ('nano', 'street', 'nano_joint', 'mta', 'paper', 'smoke')
# What the captioner is told is what the detector says, and nothing of it is detached.
_FAITHFUL_ALIGNMENT = Alignment(standard=True, scaled=False)
_FAITHFUL_CAPTIONS = Captions(box='predicted', class_gradient=True)


def _faithful(model):
    """The same MtaConfig with d_0 = the detection's embedding, and its token in the prefix."""
    qformer = replace(model.qformer, told='detection', prefix_object=True)
    return replace(model, qformer=qformer)


def _merge(old, new):
    result = dict(old)
    for name, value in new.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = _merge(result[name], value) if both else value
    return result


def _in_short(error):
    if isinstance(error, ValidationError):
        return '; '.join(
            f'{".".join(map(str, entry["loc"]))}: {entry["msg"]} (came {shown(entry["input"])})'
            for entry in error.errors()
        )
    return str(error)

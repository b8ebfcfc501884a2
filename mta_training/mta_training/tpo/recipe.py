"""What a TPO run is made of: sizes, four stages, mixtures of questions.

0  the language model and its connector learn to converse about scenes: the multimodal model
   that TPO (arXiv 2412.19326) starts from, which comes ready-made there (VideoChat2)
1  task assignment: LoRA alone learns to say the task tokens
2  heads and task tokens, with LoRA; connector and detector frozen
3  everything together, with conversation
"""

from dataclasses import asdict, dataclass, field, replace

from pydantic import TypeAdapter, ValidationError

from mta_perception.checks import require
from mta_perception.foreign_text import printable
from mta_perception.model.asking import AskConfig
from mta_perception.model.config import LanguageConfig
from mta_perception.model.tasks.config import (
    MaskConfig,
    TasksConfig,
    TemporalConfig,
    TrackConfig,
)
from mta_training.runs.recipe import MOST_WORDS, load_named
from mta_training.runs.settings import STRICT
from mta_training.tpo.objective import TaskWeights

STAGES = (0, 1, 2, 3)
# What is trained in a stage; the names are those of `stages.group_of`.
TRAINED = {
    0: ('connector', 'language'),
    1: ('lora',),
    2: ('lora', 'tokens', 'heads'),
    3: ('lora', 'tokens', 'heads', 'connector', 'language', 'detector'),  # the last: of a run
}
_TALK = {'conversation': 3.0, 'choice': 2.0}
_TASKS = {'grounding': 3.0, 'moment': 2.0, 'mask': 1.0, 'track': 1.0}


@dataclass(frozen=True)
class Stage:
    """How long, how fast, about what."""

    __pydantic_config__ = STRICT
    steps: int
    mixture: dict[str, float]  # group of questions -> share; see questions.mixture
    learning_rate: float = 1e-3
    rates: dict[str, float] = field(default_factory=dict)  # group of parameters -> times that
    frames: int = 2  # asked about in a step
    per_frame: float = 8.0  # questions about each, on average

    def __post_init__(self):
        require(
            self.steps >= 0 and self.frames >= 1 and self.per_frame > 0,
            f'stage: steps={self.steps}, frames={self.frames}, per_frame={self.per_frame:g}; '
            'expected 0 steps or more, 1 frame or more, some questions.',
        )
        unknown = sorted(set(self.rates) - {name for group in TRAINED.values() for name in group})
        require(not unknown, f'stage.rates: {unknown} unknown.')


@dataclass(frozen=True)
class Lora:
    """As TPO's release."""

    __pydantic_config__ = STRICT
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1


@dataclass(frozen=True)
class TpoRecipe:
    """One model that can be asked, and how it learns."""

    __pydantic_config__ = STRICT
    name: str
    stages: tuple[Stage, Stage, Stage, Stage]
    asking: AskConfig = field(default_factory=AskConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    language_directory: str = ''  # a Llama or InternLM2 in transformers' format, instead of ours
    word_steps: int = 400  # our own language model reads texts first, without pictures
    lora: Lora = field(default_factory=Lora)
    weights: TaskWeights = field(default_factory=TaskWeights)
    detach: bool = False  # heads teach nothing but themselves: an ablation
    textual: bool = False  # boxes and spans are said in numbers: an ablation; see textual.py
    bf16: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.02
    clip: float = 1.0
    least_rate: float = 0.05  # cosine down to this share
    warm_up: float = 0.03
    seed: int = 0

    @classmethod
    def tpo_nano(cls):
        """Two CPU cores: a language model of 2.7 M parameters, questions by the ten thousand."""
        return cls(
            'tpo_nano',
            (
                Stage(600, _TALK),
                Stage(150, {**_TASKS, 'conversation': 1.0}),
                Stage(1200, _TASKS, rates={'lora': 1.0}),
                Stage(
                    1200,
                    {**_TASKS, 'qa': 1.0, 'reasoning': 1.0, 'conversation': 3.0, 'choice': 2.0},
                    learning_rate=5e-4,
                    rates={'language': 0.3, 'detector': 0.1},
                ),
            ),
            # An instruction means one area.  Of three guesses one was ever taught, and the IoU
            # head preferred another (docs/tpo.md).
            asking=AskConfig(tasks=TasksConfig(mask=MaskConfig(masks=1))),
        )

    @classmethod
    def tpo_paper(cls):
        """The paper's and the release's settings: AdamW at 2e-5 for all groups, bf16; 50k
        questions a task, then 115k masks, 117k moments, 540k boxes, then 3.5 M of which 3 M are
        conversation.  Never run: neither weights nor GPUs were at hand."""
        tasks = {'grounding': 540.0, 'moment': 117.0, 'mask': 115.0, 'track': 50.0}
        everything = {**tasks, 'qa': 50.0, 'reasoning': 50.0}
        third = {**everything, 'conversation': 2500.0, 'choice': 500.0}
        common = {'learning_rate': 2e-5, 'frames': 16}
        return cls(
            'tpo_paper',
            (
                Stage(0, _TALK, **common),
                Stage(1200, dict.fromkeys(tasks, 1.0), **common),
                Stage(6500, tasks, **common),
                Stage(27000, third, **common),
            ),
            asking=AskConfig(
                host='mta',
                bev_stride=5,
                objects=128,
                width=768,
                tasks=TasksConfig(
                    temporal=TemporalConfig.paper(),
                    mask=MaskConfig.paper(),
                    track=TrackConfig(associate=False),
                ),
            ),
            language_directory='Llama-3.2-1B',
            bf16=True,
            eps=1e-5,
            warm_up=0.0,
        )

    @classmethod
    def tpo_smoke(cls):
        """Does everything run?"""
        few = Stage(4, {**_TASKS, 'conversation': 2.0}, frames=1, per_frame=6.0)
        return replace(
            cls.tpo_nano(),
            name='tpo_smoke',
            stages=(few, few, few, few),
            word_steps=20,
            language=LanguageConfig(
                hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
            ),
        )

    @classmethod
    def load(cls, name):
        """A built-in recipe by name, or a YAML file with `base:`; ValueError names what is
        wrong."""
        return load_named(cls, name, BUILT_IN, 'tpo_nano')

    def changed(self, values):
        """The same with the values of a nested dict; ValueError for what does not fit."""
        return self.from_dict(_merge(self.to_dict(), values))

    def to_dict(self):
        """Plain nested dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The inverse of `to_dict`; ValueError for what does not fit."""
        try:
            return TypeAdapter(cls).validate_python(values)
        except (ValidationError, TypeError) as error:
            raise ValueError(printable(str(error), MOST_WORDS)) from error


BUILT_IN = ('tpo_nano', 'tpo_paper', 'tpo_smoke')


def _merge(old, new):
    """Nested dicts; `stages` is a list, or a dict of numbers and the values that change."""
    result = dict(old)
    for name, value in new.items():
        if name == 'stages' and isinstance(value, dict):
            stages = list(result['stages'])
            for number, changes in value.items():
                if number not in STAGES or not isinstance(changes, dict):
                    raise ValueError(f'stages: {number!r}; expected 0 to 3 with names and values.')
                stages[number] = {**stages[number], **changes}
            result[name] = stages
        elif isinstance(value, dict) and isinstance(result.get(name), dict) and name != 'mixture':
            result[name] = _merge(result[name], value)
        else:
            result[name] = value
    return result

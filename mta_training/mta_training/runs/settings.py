"""The parts of a recipe, each with its reasons; `recipe.Recipe` has one of each.

YAML holds their values only; what does not fit raises ValueError with its name.
"""

from dataclasses import dataclass, field

from mta_perception.checks import require
from mta_training.synth.scene import KEYFRAME_S

OBJECTIVES = ('off', 'mse', 'cosine', 'clip')
STRICT = {'extra': 'forbid'}  # pydantic refuses names that it does not know


@dataclass(frozen=True)
class Schedule:
    """How long, how fast.  One of steps, epochs and minutes says how long."""

    __pydantic_config__ = STRICT
    steps: int = 0
    epochs: float = 0.0  # of all keyframes of the training bags
    minutes: float = 0.0  # by the clock: a run that cannot be repeated exactly
    batch: int = 4  # frames a step, over all processes
    accumulate: int = 1  # such batches whose gradients are added up in a step
    learning_rate: float = 8e-4
    backbone_rate: float = 1.0  # times learning_rate; 0 = the backbone is frozen
    frozen_stages: int = -1  # of BEVFormer's ResNet: 0 its stem, 1 the first stage too; -1 none
    offsets_rate: float = 0.3  # of deformable attention, times learning_rate
    weight_decay: float = 0.02
    decay_all: bool = False  # also biases, norms, embeddings and the adapter
    # cosine: linear warm-up, then down to 1 %; bevformer: 500 steps of warm-up from a third, down
    # to 0.1 % once an epoch.
    curve: str = 'cosine'
    warm_up: float = 0.05  # of curve cosine: share of the run
    clip: float = 10.0
    bf16: bool = True  # autocast; geometry, box regression and losses stay fp32
    freeze_norm: bool = False  # batch norms keep their statistics
    history: str = 'stream'  # or queue; see data/batches.py
    skip_empty: bool = False  # a queue with a frame without objects is drawn again

    def __post_init__(self):
        lengths = [value for value in (self.steps, self.epochs, self.minutes) if value]
        require(
            len(lengths) == 1 and lengths[0] > 0,
            f'schedule: steps={self.steps}, epochs={self.epochs:g}, minutes={self.minutes:g}; '
            'give just one of them.',
        )
        require(
            self.batch >= 1 and self.accumulate >= 1,
            f'schedule: batch={self.batch}, accumulate={self.accumulate}; expected 1 or more.',
        )
        require(
            self.history in ('stream', 'queue'),
            f'schedule.history={self.history!r}; choose stream or queue.',
        )
        require(
            self.curve in ('cosine', 'bevformer'),
            f'schedule.curve={self.curve!r}; choose cosine or bevformer.',
        )
        require(
            -1 <= self.frozen_stages <= 4,
            f'schedule.frozen_stages={self.frozen_stages}; expected -1 (none) to 4 (all).',
        )

    @property
    def length(self):
        """How long, in words."""
        name = next(name for name in ('steps', 'epochs', 'minutes') if getattr(self, name))
        return f'{getattr(self, name):g} {name}'


@dataclass(frozen=True)
class Weights:
    """L = detection L_det + language L_lm + bla L_bla + dca L_dca (paper section 4.1).

    `shares` sets weights by what they do: {oracle: 0.25} = where gradients are measured
    (gradient_norms_every), `oracle` is multiplied so that its gradient in the detector is a
    quarter as long as that of the detection loss.
    """

    __pydantic_config__ = STRICT
    detection: float = 10.0
    language: float = 1.0
    bla: float = 1.0
    dca: float = 0.01
    oracle: float = 1.0  # ours, see oracle.py
    perspective: float = 0.5  # of L_det; ours, see perspective.py
    depth: float = 0.5  # of L_det, where the backbone tells depth
    colour: float = 0.0  # of L_det; ours, see look.py
    shares: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        known = ('language', 'bla', 'dca', 'oracle')
        wrong = {name: share for name, share in self.shares.items() if name not in known}
        require(not wrong, f'weights.shares={wrong}; choose from {", ".join(known)}.')
        require(
            all(share > 0.0 for share in self.shares.values()),
            f'weights.shares={self.shares}; expected shares above 0 of the detection loss.',
        )


@dataclass(frozen=True)
class Alignment:
    """BLA and DCA; `off` for both is the TOD3Cap-style baseline."""

    __pydantic_config__ = STRICT
    bla: str = 'mse'  # paper Table 6: mse > clip > cosine
    bla_layer: int = 0  # Q-Former block, from 1; 0 = middle, -1 = last (Table 5)
    bla_summed: bool = True  # the equation's squared norm, or its mean over the width:
    #                                      which one balances depends on the encoder; alignment.py
    # Texts centred and of variance one, so that a weight means the same with every encoder; the
    # mse of DCA by the prompts' variance.  `bla_summed` says nothing then.
    standard: bool = False
    shuffled: bool = False  # each caption has another one's embedding: the control of BLA
    oracle: bool = False  # the aligned token tells noun, distance and motion outright; oracle.py
    text_encoder: str = 'minilm'  # or the directory of a CLIP text model, as the paper
    dca: str = 'clip'  # paper Table 7: clip > cosine > mse
    prompts: int = 16  # N: not stated in the paper
    prompt_width: int = 256  # D: not stated
    # Not stated.  At CLIP's 0.02 the softmax over the prompts is flat, all rows are pooled to the
    # same point, and the gradient was measured at 1e-6 of the detection loss's.
    prompt_std: float = 1.0
    # 1 / sqrt(D) in the softmax.  The paper's equation has none; without it (and with logits that
    # were not centred, qformer.py) all detections ended on one prompt in three runs of six.
    # With it the softmax starts flat, and DCA's gradient in the detector at a 400th (docs/mta.md).
    scaled: bool = True

    def __post_init__(self):
        for name in ('bla', 'dca'):
            require(
                getattr(self, name) in OBJECTIVES,
                f'alignment.{name}={getattr(self, name)!r}; choose one of '
                f'{", ".join(OBJECTIVES)}.',
            )

    @property
    def on(self):
        """Whether anything is aligned."""
        return self.bla != 'off' or self.dca != 'off'


@dataclass(frozen=True)
class Captions:
    """What the captioner learns from."""

    __pydantic_config__ = STRICT
    start: float = 0.0  # share of the run after which captions are learned
    objects: int = 8  # a frame, never one twice (TOD3Cap repeats them)
    # The box the captioner is told: the true one, slightly shaken, so that sentence and box agree;
    # or the predicted one with its gradient, as TOD3Cap and the paper.
    box: str = 'true'
    class_gradient: bool = False  # captions teach the class scores that they are told, too
    missing: float = 0.0  # this share of the captions is taken away ...
    wrong: float = 0.0  # ... and this share swapped for another object's

    def __post_init__(self):
        require(
            self.box in ('true', 'predicted'),
            f'captions.box={self.box!r}; choose true or predicted.',
        )
        require(
            0 <= self.missing <= 1 and 0 <= self.wrong <= 1,
            f'captions.missing={self.missing}, wrong={self.wrong}; expected shares, 0 to 1.',
        )


@dataclass(frozen=True)
class Language:
    """The frozen language model and its LLaMA-Adapter."""

    __pydantic_config__ = STRICT
    model: str = 'small'  # ours, trained on the captions' text; or a directory
    pretrain_steps: int = 600  # of the small one, before it is frozen
    adapter_tokens: int = 10  # as TOD3Cap
    prompt: str = 'Describe the object in detail.'  # for a foreign model; ours needs none
    gradient_checkpointing: bool = False
    dtype: str = 'bfloat16'  # of a foreign model's frozen weights


@dataclass(frozen=True)
class World:
    """What `train --world` draws, and how long it is used."""

    __pydantic_config__ = STRICT
    seed: int = 0
    kind: str = 'street'  # or level: the world before slopes, rigs and clutter
    seconds: float = 10.0  # of a scene, a frame each half
    window: int = 48  # scenes in use at a time, at most
    times: float = 5.0  # that a frame is shown, on average; 0 = scenes as fast as they are drawn
    begin: int = 0  # scenes in use at first; 0 = all of the window

    def __post_init__(self):
        require(
            self.seconds >= 1.0
            and self.window >= 1
            and self.times >= 0
            and 0 <= self.begin <= self.window,
            f'world: seconds={self.seconds:g}, window={self.window}, times={self.times:g}, '
            f'begin={self.begin}; expected at least 1 s and 1 scene, 0 times or more, and to '
            'begin with no more scenes than the window holds.',
        )

    @property
    def frames(self):
        """Frames of a scene."""
        return int(self.seconds / KEYFRAME_S)

    @property
    def first(self):
        """Scenes that must be there before the first step."""
        return self.begin or self.window

    def alive(self, shown):
        """Numbers of the scenes in use when so many frames have been shown."""
        return self.last(self.first + int(shown / (self.frames * self.times)))

    def last(self, count):
        """Numbers of the scenes in use of so many that have been drawn."""
        return range(max(0, count - self.window), count)

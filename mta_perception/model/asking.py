"""What a language model is told of a scene, and the heads that answer with geometry.

    [BEV of now] [objects of now] [frames of the memory] <s> instruction <answer> words </s>

The soft tokens before the words are the prefix.  Where an answer needs geometry, the language
model says a task token (`<box>`), an ordinary word; after it comes a slot whose input is a learned
vector v_i, and whose last hidden state e_i the head of that task reads (TPO, arXiv 2412.19326,
section 3).  A track has a slot for each frame of the memory.  `<here>` in an instruction is a slot
with the encoded box of an object.

B frames at which something is asked, T frames of memory (the last one is now; masked where there
are fewer), K of the detector's best queries of each frame, Q of all, D the language model's width.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from mta_perception.answers import EGO_NUMBERS
from mta_perception.checks import require, require_positive
from mta_perception.contract import CLASSES
from mta_perception.model.qformer import GEOMETRY_WIDTH, QFormer, geometry_features
from mta_perception.model.tasks.config import TasksConfig
from mta_perception.model.tasks.locations import LocationEncoder
from mta_perception.model.tasks.mask import MaskHead
from mta_perception.model.tasks.region import RegionHead
from mta_perception.model.tasks.temporal import TemporalHead
from mta_perception.model.tasks.track import TrackHead

HOSTS = ('plain', 'mta')
# Head -> word of its task token; the order is that of the learned vectors.
TASK_WORDS = {'region': '<box>', 'temporal': '<time>', 'mask': '<mask>', 'track': '<track>'}


@dataclass(frozen=True)
class AskConfig:
    """What the prefix is made of."""

    host: str = (
        'plain'  # objects as an MLP of what is known of them, or as MTA's Q-Former has them
    )
    memory: int = 41  # frames: 20 s at 2 Hz, both ends
    objects: int = 48  # K
    bev_stride: int = 10  # a token for so many cells squared
    width: int = 256  # of a frame's vector
    pooled: int = 4  # vectors that a frame's objects are pooled into
    tasks: TasksConfig = field(default_factory=TasksConfig)

    def __post_init__(self) -> None:
        require(
            self.host in HOSTS, f'asking.host={self.host!r}; choose one of {", ".join(HOSTS)}.'
        )
        require_positive(
            memory=self.memory,
            objects=self.objects,
            bev_stride=self.bev_stride,
            width=self.width,
            pooled=self.pooled,
        )

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that there are."""
        return tuple(name for name in TASK_WORDS if getattr(self.tasks, name) is not None)


class Scene(NamedTuple):
    """The memory of B frames at which something is asked."""

    objects: torch.Tensor  # (B, T, K, F) the detector's features
    own_boxes: torch.Tensor  # (B, T, K, 10) BoxCode in the level ego frame of their own frame
    boxes: torch.Tensor  # (B, T, K, 10) the same in that of now
    class_logits: torch.Tensor  # (B, T, K, classes)
    bev_mean: torch.Tensor  # (B, T, C) mean of each frame's BEV
    ego: torch.Tensor  # (B, T, EGO_NUMBERS)
    frame_mask: torch.Tensor  # (B, T) bool, True = there is such a frame
    bev: torch.Tensor  # (B, C, Y, X) of now

    def take(self, rows):
        """The same for answers: rows (N,) int64 say whose."""
        return Scene(*(part[rows] for part in self))


class Read(NamedTuple):
    """What the connector makes of a Scene."""

    prefix: torch.Tensor  # (B, P, D)
    present: torch.Tensor  # (B, P) bool
    frames: torch.Tensor  # (B, T, width), what the temporal head reads


class ObjectEncoder(nn.Module):
    """Features, class scores and polar geometry of an object as one vector."""

    def __init__(self, object_width, width):
        super().__init__()
        self.norm = nn.LayerNorm(object_width)
        self.layers = nn.Sequential(
            nn.Linear(object_width + len(CLASSES) + GEOMETRY_WIDTH, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, objects, boxes, class_logits):
        """(..., F), (..., 10), (..., classes) -> (..., width)."""
        known = [self.norm(objects), class_logits.sigmoid(), geometry_features(boxes)]
        return self.layers(torch.cat(known, dim=-1))


class FrameEncoder(nn.Module):
    """A frame of the memory as one vector: pooled objects, mean BEV, how the car moved."""

    def __init__(self, config, object_width, channels):
        super().__init__()
        width = config.width
        self.object = ObjectEncoder(object_width, width)
        self.asks = nn.Parameter(torch.randn(config.pooled, width) * width**-0.5)
        inside = config.pooled * width + channels + EGO_NUMBERS
        self.norm = nn.LayerNorm(inside - EGO_NUMBERS)
        self.frame = nn.Sequential(
            nn.Linear(inside, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, scene):
        """Scene -> (B, T, width)."""
        objects = self.object(scene.objects, scene.own_boxes, scene.class_logits)
        best = scene.class_logits.amax(-1, keepdim=True)  # a sure object is read more
        weights = (objects @ self.asks.t() + best).softmax(-2)  # (B, T, K, pooled)
        pooled = (weights.transpose(-1, -2) @ objects).flatten(-2)
        seen = self.norm(torch.cat([pooled, scene.bev_mean], dim=-1))
        return self.frame(torch.cat([seen, scene.ego], dim=-1))


class Connector(nn.Module):
    """A Scene as the soft words that a language model reads before an instruction."""

    def __init__(self, config, model):
        """config: AskConfig; model: MtaConfig with the sizes of detector and language model."""
        super().__init__()
        self.config = config
        channels, hidden = model.bev.channels, model.language.hidden_size
        object_width = config_object_width(model)
        require(
            model.bev.cells % config.bev_stride == 0,
            f'asking.bev_stride={config.bev_stride} does not divide the {model.bev.cells} cells.',
        )
        self.frames = FrameEncoder(config, object_width, channels)
        stride = config.bev_stride
        # Narrow first: else half of all parameters would be here.
        narrow = max(8, config.width // 4)
        self.pool = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, config.width, stride, stride)
        )
        cells = (model.bev.cells // stride) ** 2
        self.place = nn.Parameter(torch.randn(cells, hidden) * 0.02)
        self.age = nn.Parameter(torch.randn(config.memory, hidden) * 0.02)
        self.bev_words = nn.Linear(config.width, hidden)
        self.frame_words = nn.Linear(config.width, hidden)
        if config.host == 'mta':
            self.qformer = QFormer(model, object_width)
            self.object_words = nn.Linear(model.qformer.width, hidden)
        else:
            self.objects = ObjectEncoder(object_width, config.width)
            self.object_words = nn.Linear(config.width, hidden)

    def forward(self, scene):
        """Scene -> Read."""
        frames = self.frames(scene)
        bev = self.bev_words(self.pool(scene.bev).flatten(2).transpose(1, 2)) + self.place
        # Ages count from now, wherever a shorter memory begins.
        ages = self.age[-frames.shape[1] :]
        remembered = self.frame_words(frames) + ages
        objects = self.object_words(self._objects(scene))
        prefix = torch.cat([bev, objects, remembered], dim=1)
        there = torch.ones_like(prefix[..., 0], dtype=torch.bool)
        there = torch.cat([there[:, : -frames.shape[1]], scene.frame_mask], dim=1)
        return Read(prefix, there, frames)

    def _objects(self, scene):
        now = scene.objects[:, -1], scene.own_boxes[:, -1], scene.class_logits[:, -1]
        if self.config.host == 'plain':
            return self.objects(*now)
        # The aligned token of each object after the last block.
        return torch.stack(
            [
                self.qformer.states(*(part[row] for part in now), scene.bev[row])[-1][:, 0]
                for row in range(len(scene.bev))
            ]
        )


def config_object_width(model):
    """Width of the detector's features of an object, of an MtaConfig."""
    return (2 if model.detector == 'nano' else 1) * model.bev.channels


def build_heads(config, model):
    """ModuleDict of the heads that an AskConfig has, for an MtaConfig."""
    hidden, tasks = model.language.hidden_size, config.tasks
    object_width = config_object_width(model)
    makers = {
        'region': lambda: RegionHead(hidden, object_width, tasks.region),
        'temporal': lambda: TemporalHead(hidden, config.width, hidden, tasks.temporal),
        'mask': lambda: MaskHead(
            hidden, model.bev.channels, object_width, tasks.mask, model.bev.half_extent_m
        ),
        'track': lambda: TrackHead(hidden, object_width, tasks.track, config.memory),
    }
    return nn.ModuleDict({name: makers[name]() for name in config.heads})


class TaskModel(nn.Module):
    """Connector, learned vectors of the tasks, box prompts and heads; the language model is
    beside them, as it is with MtaModel."""

    def __init__(self, config, model):
        """config: AskConfig; model: MtaConfig."""
        super().__init__()
        self.config, hidden = config, model.language.hidden_size
        self.connector = Connector(config, model)
        self.tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(hidden)) for name in config.heads}
        )
        self.here = LocationEncoder(hidden)
        self.heads = build_heads(config, model)

    def slots(self, name, frames):
        """Inputs of the slots of a task: (1, D), or one a frame of the memory (frames, D)."""
        token = self.tokens[name]
        if name != 'track':
            return token[None]
        return token + self.connector.age[self.config.memory - frames :]

    def answer_region(self, e, scene):
        """e (N, D), Scene of N answers -> RegionOutputs over the K objects of now."""
        now = scene.objects[:, -1], scene.own_boxes[:, -1], scene.class_logits[:, -1]
        return self.heads['region'](e, *now)

    def answer_mask(self, e, scene, meant=None):
        """e (N, D), Scene of N answers, meant as of the head -> MaskOutputs of now."""
        now = scene.objects[:, -1], scene.own_boxes[:, -1], scene.class_logits[:, -1]
        return self.heads['mask'](e, scene.bev, *now, meant)

    def answer_track(self, e, scene):
        """e (N, T, D), Scene of N answers -> TrackOutputs over the K objects of each frame."""
        return self.heads['track'](
            e, scene.objects, scene.boxes, scene.class_logits, scene.frame_mask
        )

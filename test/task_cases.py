"""Small task heads and what goes into them, for the tests of heads and of their losses."""

import torch

from mta_perception.model.tasks.config import (
    MaskConfig,
    RegionConfig,
    TemporalConfig,
    TrackConfig,
)
from mta_perception.model.tasks.mask import MaskHead
from mta_perception.model.tasks.region import RegionHead
from mta_perception.model.tasks.temporal import TemporalHead
from mta_perception.model.tasks.track import TrackHead

N, Q, F, D, T, S, K = 3, 6, 12, 16, 8, 5, 10
FRAME, WORD, CHANNELS, CELLS = 7, 9, 4, 6
SMALL = {'pointer_width': 8, 'hidden': 16}
REGION = RegionConfig(**SMALL)
TRACK = TrackConfig(**SMALL, heads=4)
TEMPORAL = TemporalConfig(
    width=32, heads=4, feedforward=32, dummies=3, queries=4, prompts=4, dropout=0.0,
    input_dropout=0.0,
)  # fmt: skip
MASK = MaskConfig(width=32, heads=4, feedforward=32, **SMALL)


def seeded(make, seed=0):
    torch.manual_seed(seed)
    head = make().eval()
    for name, parameter in head.named_parameters():
        # Zeros as a start would make a test blind for what they are multiplied with.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3 if 'norm' not in name else 0.0)
    return head


def region_head(config=REGION):
    return seeded(lambda: RegionHead(D, F, config))


def track_head(config=TRACK):
    return seeded(lambda: TrackHead(D, F, config, memory=T))


def temporal_head(config=TEMPORAL):
    return seeded(lambda: TemporalHead(D, FRAME, WORD, config))


def mask_head(config=MASK):
    return seeded(lambda: MaskHead(D, CHANNELS, F, config))


def random_boxes(*shape, seed=3):
    """BoxCode (*shape, 10) about the car, with unit headings."""
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.randn(*shape, 10, generator=draw)
    boxes[..., :2] *= 15.0
    boxes[..., 3:6] = boxes[..., 3:6].abs() + 1.0
    boxes[..., 6:8] /= boxes[..., 6:8].norm(dim=-1, keepdim=True)
    return boxes


def objects_of(*shape, seed=4):
    """Features (*shape, Q, F), boxes and class logits of the queries."""
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(*shape, Q, F, generator=draw),
        random_boxes(*shape, Q, seed=seed),
        torch.randn(*shape, Q, K, generator=draw) - 3.0,
    )


def token(*shape, seed=5):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))


def moments(seed=6):
    """words, word_mask, frames, frame_mask; the last rows are padded."""
    draw = torch.Generator().manual_seed(seed)
    word_mask = torch.arange(S) < torch.tensor([[S], [3], [2]])
    frame_mask = torch.arange(T) < torch.tensor([[T], [T], [5]])
    return (
        torch.randn(N, S, WORD, generator=draw),
        word_mask,
        torch.randn(N, T, FRAME, generator=draw),
        frame_mask,
    )


def bev(seed=7):
    return torch.randn(N, CHANNELS, CELLS, CELLS, generator=torch.Generator().manual_seed(seed))

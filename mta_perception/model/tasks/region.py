"""Region head: which detection is meant, and its box in three dimensions.

in   e             (N, D)        hidden state of the language model at the task token <box>
     objects       (N, Q, F)     the detector's features
     boxes         (N, Q, 10)    contract.BoxCode, level ego frame
     class_logits  (N, Q, K)
out  pointer       (N, Q + 1)    logits; the last is `none`: there is no such object
     code          (N, 10)       BoxCode: the pointed query's, mended; or the MLP's own (`direct`)

TPO (arXiv 2412.19326) has a two-layer MLP from e to the coordinates; that is `direct`.  Ours
beside it is a pointer, score_k = <W e, W' o_k> / sqrt(d), and a small MLP that mends the box of
the query: the detector has measured the box already.
"""

from typing import NamedTuple

import torch
from torch import nn

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.model.qformer import GEOMETRY_WIDTH, detection_numbers, geometry_features
from mta_perception.model.tasks.locations import boxes_from_numbers, numbers_from_boxes


class RegionOutputs(NamedTuple):
    """What the region head says."""

    pointer: torch.Tensor  # (N, Q + 1) logits, the last = none
    code: torch.Tensor  # (N, 10) BoxCode of the answer, whatever the pointer says of none
    direct: torch.Tensor  # (N, 10) BoxCode from e alone
    mended: torch.Tensor  # (N, Q, 10) BoxCode of every query as it would be answered


def pointed_box(pointer, boxes):
    """The box of the likeliest query, whatever is said of none.

    pointer (..., Q + 1), boxes (..., Q, 10) -> (..., 10)
    """
    best = pointer[..., :-1].argmax(-1)[..., None, None]
    return boxes.gather(-2, best.expand(*best.shape[:-1], BoxCode.WIDTH)).squeeze(-2)


class Pointer(nn.Module):
    """Keys of the queries and what a task token says of them."""

    def __init__(self, width, object_width, config):
        super().__init__()
        self.told, size = config.told, config.pointer_width
        self.appearance = nn.LayerNorm(object_width)
        if self.told == 'detection':
            self.keys = nn.Linear(object_width + len(CLASSES) + BoxCode.WIDTH, size)
        else:
            self.keys = nn.Sequential(
                nn.Linear(object_width + len(CLASSES) + GEOMETRY_WIDTH, config.hidden),
                nn.GELU(),
                nn.Linear(config.hidden, size),
            )
        self.none = nn.Parameter(torch.randn(size) * size**-0.5)
        self.query = nn.Linear(width, size)

    def forward(self, e, objects, boxes, class_logits):
        """(N, D), (N, Q, ...) -> logits (N, Q + 1), keys (N, Q, P)."""
        seen = self.appearance(objects)
        if self.told == 'detection':
            known = detection_numbers(boxes, class_logits)
        else:
            known = torch.cat([class_logits.sigmoid(), geometry_features(boxes)], dim=-1)
        keys = self.keys(torch.cat([seen, known], dim=-1))  # (N, Q, P)
        query = self.query(e)  # (N, P)
        scores = (keys @ query.unsqueeze(-1)).squeeze(-1)  # (N, Q)
        none = query @ self.none  # (N,)
        logits = torch.cat([scores, none.unsqueeze(-1)], dim=-1) * query.shape[-1] ** -0.5
        return logits, keys


class RegionHead(nn.Module):
    """Pointer, box from the task token alone, and the pointed query's box mended."""

    def __init__(self, width, object_width, config):
        super().__init__()
        self.config = config
        self.pointer = Pointer(width, object_width, config)
        self.direct = nn.Sequential(
            nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, BoxCode.WIDTH)
        )
        self.mend_token = nn.Linear(width, config.hidden)
        self.mend_key = nn.Linear(config.pointer_width, config.hidden)
        self.mend = nn.Linear(config.hidden, BoxCode.WIDTH)
        for parameter in self.mend.parameters():  # starts with the detector's own box
            nn.init.zeros_(parameter)

    def forward(self, e, objects, boxes, class_logits):
        """(N, D), (N, Q, F), (N, Q, 10), (N, Q, K) -> RegionOutputs."""
        pointer, keys = self.pointer(e, objects, boxes, class_logits)
        direct = boxes_from_numbers(self.direct(e))  # (N, 10)
        hidden = (self.mend_token(e).unsqueeze(1) + self.mend_key(keys)).relu()  # (N, Q, H)
        mended = boxes_from_numbers(numbers_from_boxes(boxes) + self.mend(hidden))  # (N, Q, 10)
        if self.config.box == 'direct':
            return RegionOutputs(pointer, direct, direct, mended)
        return RegionOutputs(pointer, pointed_box(pointer, mended), direct, mended)

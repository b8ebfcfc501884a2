"""Loss of the region head: which query is meant, and its box.

    L = 1 CE(pointer) + box(mended) + box(direct)
    box = 5 L1 + 1 (1 - gIoU of the footprints)     as TPO's release, in DETR's proportion
        | 5 squared error                           as TPO's paper
both on numbers of order one (locations.py): 0.1 for a metre.  What is unknown (NaN: nuScenes has
no velocity at the ends of a track) counts nothing.  With `config.box` direct, box(direct) alone.
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional

import torch

from mta_perception.checks import require
from mta_perception.contract import BoxCode
from mta_perception.model.tasks.locations import numbers_from_boxes
from mta_training.losses.tasks.footprints import footprint_giou
from mta_training.losses.tasks.task_loss import add_up, mean_of

VELOCITY_WEIGHT = 0.2  # as BEVFormer's


class RegionTargets(NamedTuple):
    """The right answers."""

    # (N, Q + 1) bool: the queries that found a meant object, or the last one alone for none.  A
    # row without any is an object that the detector missed: the pointer is not taught then.
    pointed: torch.Tensor
    boxes: torch.Tensor  # (N, 10) true box: of the meant object (of a set: any one of it)
    known: torch.Tensor  # (N,) bool: there is such a box
    # (N, Q, 10) true box of the object of each pointed query, where a set is meant; None: `boxes`
    query_boxes: Optional[torch.Tensor] = None


@dataclass(frozen=True)
class RegionWeights:
    """What the terms weigh."""

    pointer: float = 1.0
    box: float = 5.0
    giou: float = 1.0
    direct: float = 1.0  # times the two above, for the MLP's own box

    def __post_init__(self):
        require(
            min(self.pointer, self.box, self.giou, self.direct) >= 0,
            f'{self}: a weight is below 0.',
        )


def region_loss(outputs, targets, config, weights=None, balanced=False):
    """RegionOutputs, RegionTargets -> TaskLoss; balanced: see `pointer_loss`."""
    weights = weights or RegionWeights()
    share = 1.0 if config.box == 'direct' else weights.direct
    box, giou = box_terms(outputs.direct, targets.boxes, targets.known, config.loss)
    terms = {
        'direct_box': share * weights.box * box,
        'direct_giou': share * weights.giou * giou,
    }
    if config.box == 'pointed':
        goals = targets.query_boxes
        if goals is None:
            goals = targets.boxes.unsqueeze(1).expand_as(outputs.mended)
        # Other queries are left out before anything is computed from them.
        rows = targets.pointed[:, :-1]
        box, giou = box_terms(
            outputs.mended[rows], goals[rows], torch.ones_like(rows[rows]), config.loss
        )
        loss = pointer_loss(outputs.pointer, targets.pointed, balanced)
        terms['pointer'] = weights.pointer * loss
        terms['box'] = weights.box * box
        terms['giou'] = weights.giou * giou
    return add_up(terms)


def pointer_loss(logits, pointed, balanced=False):
    """Cross-entropy (scalar) of logits (N, Q + 1) and the even share of all that are meant.

    Less the entropy of that share, so that 0 is the best whatever the number that is meant.
    balanced: rows that mean none weigh as much as all others together, where there are both.
    """
    count = pointed.sum(-1)  # (N,)
    surprise = -torch.where(pointed, logits.log_softmax(-1), 0.0).sum(-1) / count.clamp(min=1)
    surprise, known = surprise - count.clamp(min=1).log(), count > 0
    none = pointed[:, -1]
    if balanced and bool((known & none).any()) and bool((known & ~none).any()):
        return (mean_of(surprise, known & none) + mean_of(surprise, known & ~none)) / 2.0
    return mean_of(surprise, known)


def box_terms(boxes, goals, rows, loss):
    """Mean error of boxes (n, 10) at the rows (n,), and 1 - gIoU (0 with `mse`): two scalars."""
    # What is unknown is right: replaced before anything is computed, as 0 x NaN is NaN.
    known = rows.unsqueeze(-1) & torch.isfinite(goals)
    goals = torch.where(known, goals, boxes.detach())
    error = numbers_from_boxes(boxes) - numbers_from_boxes(goals)
    error = error.square() if loss == 'mse' else error.abs()
    scale = torch.ones(BoxCode.WIDTH, device=boxes.device)
    scale[BoxCode.VELOCITY] = VELOCITY_WEIGHT
    mean = mean_of((error * scale).sum(-1), rows)
    if loss == 'mse':
        return mean, 0.0 * mean
    return mean, mean_of(1.0 - footprint_giou(boxes, goals), rows)

"""Loss of the mask head, as SAM2's (arXiv 2408.00714): 20 focal + 1 dice + 1 IoU + 1 presence.

Of several guesses the one with the least focal and dice is taught, the IoU head at all of them;
where nothing is to be shown, presence alone.  Where the head points at objects, 1 cross-entropy of
that besides, as of a region.  TPO's release does not have this loss: it regresses
the prompt that SAM's own encoder makes of the true box; its paper has.
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional

import torch
from torch.nn import functional

from mta_perception.checks import require
from mta_training.losses.tasks.region import pointer_loss
from mta_training.losses.tasks.task_loss import add_up, mean_of

_ALPHA, _GAMMA = 0.25, 2.0


class MaskTargets(NamedTuple):
    """The right masks."""

    masks: torch.Tensor  # (N, 4Y, 4X) bool or 0..1; anything where nothing is there
    present: torch.Tensor  # (N,) bool: there is something to show
    # (N, Q + 1) bool, as RegionTargets.pointed; None: of a head that points at nothing
    pointed: Optional[torch.Tensor] = None


@dataclass(frozen=True)
class MaskWeights:
    """What the terms weigh."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    present: float = 1.0
    pointer: float = 1.0

    def __post_init__(self):
        require(
            min(vars(self).values()) >= 0,
            f'{self}: a weight is below 0.',
        )


def mask_loss(outputs, targets, weights=None):
    """MaskOutputs, MaskTargets -> TaskLoss."""
    weights = weights or MaskWeights()
    goals = targets.masks.to(outputs.masks.dtype).unsqueeze(1)  # (N, 1, H, W)
    focal = weights.focal * focal_terms(outputs.masks, goals)  # (N, M)
    dice = weights.dice * dice_terms(outputs.masks, goals)
    best = (focal + dice).argmin(-1, keepdim=True)  # (N, 1)
    judged = (outputs.iou - mask_iou(outputs.masks > 0, goals > 0.5)).abs().mean(-1)  # (N,)
    present = functional.binary_cross_entropy_with_logits(
        outputs.present, targets.present.to(outputs.present.dtype)
    )
    terms = {}
    if outputs.pointer is not None and targets.pointed is not None:
        terms['pointer'] = weights.pointer * pointer_loss(outputs.pointer, targets.pointed)
    return add_up(
        terms
        | {
            'focal': mean_of(focal.gather(1, best).squeeze(1), targets.present),
            'dice': mean_of(dice.gather(1, best).squeeze(1), targets.present),
            'iou': weights.iou * mean_of(judged, targets.present),
            'present': weights.present * present,
        }
    )


def focal_terms(logits, goals):
    """Mean sigmoid focal loss of each mask: (N, M, H, W), (N, 1, H, W) -> (N, M)."""
    goals = goals.expand_as(logits)
    cross = functional.binary_cross_entropy_with_logits(logits, goals, reduction='none')
    p = logits.sigmoid()
    miss = p * (1.0 - goals) + (1.0 - p) * goals
    alpha = _ALPHA * goals + (1.0 - _ALPHA) * (1.0 - goals)
    return (alpha * miss**_GAMMA * cross).mean((-1, -2))


def dice_terms(logits, goals):
    """1 - dice of each mask, plus one in numerator and denominator: -> (N, M)."""
    p = logits.sigmoid()
    common = (p * goals).sum((-1, -2))
    return 1.0 - (2.0 * common + 1.0) / (p.sum((-1, -2)) + goals.sum((-1, -2)) + 1.0)


def mask_iou(one, other):
    """IoU (N, M) of bool masks (N, M, H, W) and (N, 1, H, W)."""
    common = (one & other).sum((-1, -2))
    return common / (one | other).sum((-1, -2)).clamp(min=1)

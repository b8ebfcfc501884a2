"""Saliency losses of CG-DETR: which frames are meant, by score and by attention to the words.

margin       a frame of a higher label scores 0.2 above one of a lower label (all pairs; the
             release draws two)
contrastive  softmax with temperature 0.5 over the frames, at each of 11 levels of the label
negatives    the frames with the sentence of another scene score low, and so do those of a
             question whose answer is never
Means over frames where the release sums: the weight then means the same for every window.
"""

import torch
from torch.nn import functional

from mta_training.losses.tasks.task_loss import mean_of

MARGIN, TEMPERATURE, LEVELS = 0.2, 0.5, 12
_LOW = -1e3


def other_rows(scenes):
    """Rows that have one of another scene, and the next such one of each: (n,) int64 twice.

    The release takes the next row and drops those of the same video.
    """
    count = len(scenes)
    ahead = (torch.arange(count)[:, None] + torch.arange(count)) % count  # own, next, ...
    different = scenes.cpu()[ahead] != scenes.cpu()[:, None]
    there = different.any(1).nonzero().squeeze(1)
    first = different.to(torch.uint8).argmax(1)  # the first of several
    other = ahead[there, first[there]]
    return there.to(scenes.device), other.to(scenes.device)


def score_loss(scores, labels, mask, wrong=None, there=None):
    """Scores, labels 0..1 (N, T), mask (N, T) -> scalar.

    wrong  (n, T) scores of the rows `there` (n,) with another scene's sentence; None: without
    """
    loss = margin_loss(scores, labels, mask)
    loss = loss + contrastive_loss(scores, labels, mask, wrong, there)
    never = mask & ~(labels > 0).any(1, keepdim=True)
    negatives, valid = _negatives(scores, never, wrong, there, mask)
    return loss + mean_of(functional.softplus(negatives), valid)


def attention_loss(attention, labels, mask, wrong, there):
    """The same of how much of a frame's attention words get (N, T), 0..1."""
    loss = margin_loss(attention, labels, mask)
    loss = loss + contrastive_loss(attention, labels, mask, wrong, there)
    # By hand: torch refuses its own under autocast, and bfloat16 has no 1 - 1e-6.
    labels = labels.clamp(0.0, 1.0).float()
    safe, wrong = (x.float().clamp(1e-6, 1.0 - 1e-6) for x in (attention, wrong))
    known = -(labels * safe.log() + (1.0 - labels) * torch.log1p(-safe))
    loss = loss + mean_of(known, mask)
    return loss + mean_of(-torch.log1p(-wrong), mask[there])


def _negatives(scores, never, wrong, there, mask):
    if wrong is None:
        return scores, never
    return torch.cat([scores, wrong]), torch.cat([never, mask[there]])


def margin_loss(scores, labels, mask):
    """Mean hinge of all pairs of frames of a row with different labels."""
    higher = labels.unsqueeze(2) > labels.unsqueeze(1)  # [n, i, j]: i is meant more than j
    higher = higher & mask.unsqueeze(2) & mask.unsqueeze(1)
    hinge = (MARGIN + scores.unsqueeze(1) - scores.unsqueeze(2)).clamp(min=0.0)
    return mean_of(hinge, higher)


def contrastive_loss(scores, labels, mask, wrong=None, there=None):
    """Mean over rows and levels of -log of the softmax at the frames of at least that label."""
    if wrong is not None:
        more = torch.full_like(scores, _LOW)
        more[there] = wrong.masked_fill(~mask[there], _LOW)
        scores = torch.cat([scores.masked_fill(~mask, _LOW), more], dim=1)
        labels = torch.cat([labels * mask, torch.zeros_like(labels)], dim=1)
    else:
        scores, labels = scores.masked_fill(~mask, _LOW), labels * mask
    level = torch.arange(1, LEVELS, device=scores.device).view(-1, 1, 1) / LEVELS
    positive = labels >= level - 1e-6  # (11, N, T or 2 T)
    share = (scores / TEMPERATURE).log_softmax(-1)
    count = positive.sum(-1)
    surprise = -(positive * share).sum(-1) / count.clamp(min=1)  # (11, N)
    return torch.where(count > 0, surprise, 0.0).mean(1).sum() / LEVELS

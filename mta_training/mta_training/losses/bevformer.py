"""BEVFormer's set loss: each layer of the decoder is matched and judged by itself.

Focal loss x 2 over all queries and L1 x 0.25 over the matched ones, both divided by the number of
matched queries of the batch.  Codes are those of codes.py, in metres: nothing is divided by the
range.
"""

from typing import NamedTuple

import torch

from mta_training.losses.nano import assign, focal_loss

SCORE_WEIGHT, BOX_WEIGHT = 2.0, 0.25


class Targets(NamedTuple):
    """The objects of one frame."""

    codes: torch.Tensor  # (n, 10) float32, lidar frame, see codes.py
    labels: torch.Tensor  # (n,) int64, index into contract.CLASSES


class SetLoss(NamedTuple):
    """Weighted losses a layer, their sum, and who was matched in the last layer."""

    total: torch.Tensor
    scores: torch.Tensor  # (layers,)
    boxes: torch.Tensor  # (layers,)
    matches: list  # per frame (queries (m,), objects (m,)) int64 arrays


def detection_loss(output, targets, code_weights, average=float):
    """Loss of a network.Output against the Targets of its samples.

    code_weights  (10,) of the L1 distance, `BEVFormer.code_weights`
    average       mean of a number over the processes that train together
    A loss that is not finite becomes a number, as published: a broken step teaches nothing
    instead of ending the run.
    """
    scores, boxes, matches = [], [], []
    for logits, codes in zip(output.class_logits, output.box_codes):
        score, box, matches = _layer_loss(logits, codes, targets, code_weights, average)
        scores.append(torch.nan_to_num(SCORE_WEIGHT * score))
        boxes.append(torch.nan_to_num(BOX_WEIGHT * box))
    scores, boxes = torch.stack(scores), torch.stack(boxes)
    return SetLoss(scores.sum() + boxes.sum(), scores, boxes, matches)


def _layer_loss(logits, codes, targets, code_weights, average):
    """Unweighted focal loss and L1 of one layer: logits (B, Q, K), codes (B, Q, 10)."""
    goals = torch.zeros_like(logits)
    distance, matches = codes.new_zeros(()), []
    for index, frame in enumerate(targets):
        queries, chosen = assign(logits[index], codes[index], frame.labels, frame.codes)
        matches.append((queries, chosen))
        goals[index, queries, frame.labels[chosen]] = 1.0
        told, wanted = codes[index, queries], frame.codes[chosen]
        known = torch.isfinite(wanted).all(-1)  # others count as positives all the same
        distance = distance + ((told - wanted)[known].abs() * code_weights).sum()
    positives = max(1.0, average(sum(len(queries) for queries, _ in matches)))
    return focal_loss(logits, goals) / positives, distance / positives, matches

"""Spans of time: overlap, and which predicted one answers for which true one.

A span is centre and width (..., 2), parts of the window.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
import torch


def ends(spans):
    """Centre and width (..., 2) -> begin and end (..., 2)."""
    centre, width = spans.unbind(-1)
    return torch.stack([centre - width / 2.0, centre + width / 2.0], dim=-1)


def span_giou(one, other):
    """Generalised IoU (...), -1 to 1, of spans (..., 2) and (..., 2)."""
    one, other = ends(one), ends(other)
    common = (
        torch.minimum(one[..., 1], other[..., 1]) - torch.maximum(one[..., 0], other[..., 0])
    ).clamp(min=0.0)
    union = (one[..., 1] - one[..., 0]) + (other[..., 1] - other[..., 0]) - common
    hull = torch.maximum(one[..., 1], other[..., 1]) - torch.minimum(one[..., 0], other[..., 0])
    union, hull = union.clamp(min=1e-6), hull.clamp(min=1e-6)
    return common / union - (hull - union) / hull


def match_spans(spans, logits, goals, counts, weights):
    """Hungarian matching of predicted spans (N, R, 2) and the true ones (N, G, 2).

    counts   (N,) how many of the G are true ones
    weights  of L1, gIoU and class
    returns  rows, predicted, true: int64 arrays (m,) of all pairs of the batch
    """
    with torch.no_grad():
        one, other = spans.unsqueeze(2), goals.unsqueeze(1)
        cost = weights[0] * (one - other).abs().sum(-1) - weights[1] * span_giou(one, other)
        cost = cost - weights[2] * logits.softmax(-1)[..., :1]  # (N, R, G)
        # A broken network must show as a NaN loss, not as a crash in the matcher.
        cost = torch.nan_to_num(cost, nan=1e4, posinf=1e4, neginf=-1e4).cpu().numpy()
    pairs = [linear_sum_assignment(row[:, :count]) for row, count in zip(cost, counts.tolist())]
    rows = np.repeat(np.arange(len(pairs)), [len(pair[0]) for pair in pairs])
    predicted = np.concatenate([pair[0] for pair in pairs]).astype(np.int64)
    true = np.concatenate([pair[1] for pair in pairs]).astype(np.int64)
    return rows, predicted, true

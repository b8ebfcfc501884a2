"""What the loss of a task head is: a weighted sum, and its terms for the log."""

from typing import NamedTuple

import torch


class TaskLoss(NamedTuple):
    """Loss of one head."""

    total: torch.Tensor  # scalar: the sum of the weighted terms
    parts: dict  # name -> float, the weighted terms


def add_up(terms):
    """Weighted terms {name: scalar tensor} -> TaskLoss."""
    total = torch.stack(list(terms.values())).sum()
    return TaskLoss(total, {name: float(term.detach()) for name, term in terms.items()})


def mean_of(values, rows):
    """Mean of values (...) where rows (...) is true; 0, with a gradient of 0, where nowhere."""
    # torch.where and not a product: what is left out may be NaN.
    return torch.where(rows, values, 0.0).sum() / rows.sum().clamp(min=1)

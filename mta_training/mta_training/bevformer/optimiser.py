"""AdamW with a slow backbone, clipped gradients, cosine schedule with a warm-up."""

from dataclasses import dataclass
import math

import torch

CLIP = 35.0


@dataclass(frozen=True)
class Schedule:
    """Rate of each iteration, as a factor of the base rate.

    Cosine from 1 to `floor`; in the first `warm_up` iterations times a line from `start` to 1.
    """

    epochs: int = 24
    iterations: int = 3517  # of an epoch
    by_epoch: bool = True  # the cosine changes at each epoch, as published
    warm_up: int = 500
    start: float = 1.0 / 3.0
    floor: float = 1e-3

    def __post_init__(self):
        if self.epochs < 1 or self.iterations < 1:
            raise ValueError(
                f'{self.epochs} epochs of {self.iterations} iterations are no '
                'training; expected one or more of both.'
            )

    def factor(self, iteration):
        """Factor of the base rate in an iteration, counted from 0 over the whole training."""
        share = iteration / (self.epochs * self.iterations)
        if self.by_epoch:
            share = iteration // self.iterations / self.epochs
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
        regular = self.floor + (1.0 - self.floor) * cosine
        if iteration >= self.warm_up:
            return regular
        return regular * (self.start + (1.0 - self.start) * iteration / self.warm_up)


def make_optimiser(model, rate=2e-4, backbone=0.1, decay=0.01):
    """AdamW over what is trained; the backbone at `backbone` x the rate, all with decay."""
    slow, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (slow if name.startswith('backbone.') else rest).append(parameter)
    return torch.optim.AdamW(
        [{'params': rest, 'rate': rate}, {'params': slow, 'rate': rate * backbone}],
        lr=rate,
        weight_decay=decay,
    )


def freeze_first_stages(model):
    """Stem and first stage keep their weights, as published for ImageNet weights.

    Raises ValueError for a backbone whose norms are not frozen: it is one that starts at random.
    """
    if not model.config.backbone.frozen_norm:
        raise ValueError(
            f'the backbone of BEVFormer {model.config.name} has norms that learn; '
            'expected backbone.frozen_norm=True and pretrained weights.'
        )
    for name in ('conv1', 'bn1', 'layer1'):
        getattr(model.backbone, name).requires_grad_(False)


def descend(optimiser, loss, factor, clip=CLIP):
    """One step along the gradient of `loss` at `factor` x the rates; returns the gradient's norm.

    A gradient that is not finite leaves the weights as they are, and its norm says so.
    """
    for group in optimiser.param_groups:
        group['lr'] = group['rate'] * factor
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [parameter for group in optimiser.param_groups for parameter in group['params']]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
    if math.isfinite(norm):
        optimiser.step()
    return norm

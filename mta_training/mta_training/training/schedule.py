"""How long a run is, and at which rate each of its parameters learns."""

import math
import time

import torch

from mta_perception.model.bevformer.resnet import FrozenNorm

# BEVFormer's: steps of its warm-up, the shares of the rate at their start and at the run's end.
_WARM_UP_STEPS, _WARM_UP_FROM, _FLOOR = 500, 1.0 / 3.0, 1e-3


class RunProgress:
    """How far a run is, 0 to 1, by its clock or its steps; survives a resume."""

    def __init__(self, schedule, frames):
        """frames: keyframes there are to train on."""
        self.minutes, self.step, self.elapsed_s = schedule.minutes, 0, 0.0
        self.steps = schedule.steps
        if schedule.epochs:
            self.steps = max(
                1, round(schedule.epochs * frames / (schedule.batch * schedule.accumulate))
            )
        self._mark = time.monotonic()

    def tick(self):
        """One step is done."""
        now = time.monotonic()
        self.elapsed_s += now - self._mark
        self._mark = now
        self.step += 1

    def pause(self):
        """What happened since the last tick (evaluation, saving) does not count."""
        self._mark = time.monotonic()

    @property
    def share(self):
        """0 at the start, 1 at the end."""
        if self.steps:
            return min(1.0, self.step / self.steps)
        return min(1.0, self.elapsed_s / (60.0 * self.minutes))

    @property
    def left_s(self):
        """Seconds until the end, at the pace so far; None before the first step."""
        if not self.step or not self.share:
            return None
        return self.elapsed_s * (1.0 - self.share) / self.share


def learning_rate(schedule, share, step):
    """Rate of a step, counted from 0 over the whole run, of which `share` is done."""
    curve = {'cosine': _cosine, 'bevformer': _bevformer}[schedule.curve]
    return schedule.learning_rate * curve(schedule, share, step)


def _cosine(schedule, share, step):
    """Linear warm-up, then cosine down to 1 %."""
    del step
    if share < schedule.warm_up:
        return 0.02 + 0.98 * share / schedule.warm_up
    along = (share - schedule.warm_up) / (1.0 - schedule.warm_up)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * along))


def _bevformer(schedule, share, step):
    """Cosine over the whole run that changes once an epoch, times a linear warm-up.

    Without epochs (a run of steps or minutes) it changes at every step.
    """
    if schedule.epochs:
        share = math.floor(share * schedule.epochs + 1e-9) / schedule.epochs
    factor = _FLOOR + (1.0 - _FLOOR) * 0.5 * (1.0 + math.cos(math.pi * share))
    if step < _WARM_UP_STEPS:
        factor *= _WARM_UP_FROM + (1.0 - _WARM_UP_FROM) * step / _WARM_UP_STEPS
    return factor


def freeze_backbone(backbone, schedule):
    """Whole, at `backbone_rate` 0, or its first stages, as published for ImageNet weights.

    Raises ValueError for a backbone whose norms learn: it is one that starts at random.
    """
    if schedule.backbone_rate == 0:
        backbone.requires_grad_(False)
    if schedule.frozen_stages < 0:
        return
    if not isinstance(getattr(backbone, 'bn1', None), FrozenNorm):
        raise ValueError(
            f'schedule.frozen_stages={schedule.frozen_stages}: the backbone of this detector has '
            'norms that learn, so it starts at random; expected BEVFormer tiny, or -1 (none).'
        )
    for name in ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')[
        : schedule.frozen_stages + 2
    ]:
        getattr(backbone, name).requires_grad_(False)


def make_optimizer(learner, schedule):
    """AdamW over all that is not frozen, in groups of one `rate` (a share of the learning rate).

    Backbone and offsets of deformable attention have their own rates; biases, norms, embeddings
    and the language model's adapter have no decay unless the schedule says so.
    """
    groups = {}
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = schedule.offsets_rate if '.offsets.' in name else 1.0
        if '.backbone.' in name:
            rate *= schedule.backbone_rate
        free = parameter.ndim < 2 or 'embedding' in name or name.startswith('language.')
        decay = schedule.weight_decay if schedule.decay_all or not free else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {'params': parameters, 'weight_decay': decay, 'rate': rate}
            for (rate, decay), parameters in groups.items()
        ],
        lr=schedule.learning_rate,
    )

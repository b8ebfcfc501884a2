"""One training run in memory: steps of the optimiser, and checkpoints that go on exactly.

The step number and the seed decide what every slot of a batch sees, so that a run may be resumed,
on as many processes as one likes.
"""

import math
import time

import torch

from mta_training.data.batches import QueueStream, SceneStream, make_batch, slot_generators
from mta_training.process_group import ProcessGroup
from mta_training.runs.recipe import Recipe
from mta_training.runs.run_directory import (
    RunError,
    origin,
    read_checkpoint_file,
    write_checkpoint,
)
from mta_training.tensor_files import fill
from mta_training.training.prefetch import Prefetch
from mta_training.training.schedule import (
    RunProgress,
    freeze_backbone,
    learning_rate,
    make_optimizer,
)
from mta_training.training.term_gradients import TermGradients
from mta_training.training.world import World

# What a run cannot change while it goes on.
_FIXED = (
    'model',
    'schedule',
    'weights',
    'alignment',
    'captions',
    'augmentation',
    'world',
    'language',
    'seed',
)


_AHEAD = 3  # batches that threads make while a GPU works


class Trainer:
    """All that changes while a run goes on; scenes: a list of SceneArrays, or a World."""

    def __init__(self, learner, scenes, recipe, accelerator):
        schedule = recipe.schedule
        self.scenes, self.recipe, self.accelerator = scenes, recipe, accelerator
        self.processes = ProcessGroup(accelerator.device)
        if schedule.batch % self.processes.size:
            raise RunError(
                f'schedule.batch={schedule.batch} frames do not divide among '
                f'{self.processes.size} processes; choose a multiple.'
            )
        share = schedule.batch // self.processes.size
        self.slots = range(self.processes.rank * share, (self.processes.rank + 1) * share)
        backbone = learner.model.detector.backbone
        backbone.to(memory_format=torch.channels_last)
        freeze_backbone(backbone, schedule)
        self.learner = learner
        self.wrapped, self.optimizer = accelerator.prepare(
            learner, make_optimizer(learner, schedule)
        )
        bev = learner.model.config.bev
        self.batches = Prefetch(
            make_stream(scenes, recipe, bev.half_extent_m),
            self._make_batches,
            _AHEAD if accelerator.device.type == 'cuda' else 0,
        )
        self.progress = RunProgress(schedule, frames_of(scenes))
        self.best = -1.0
        self.memory = torch.zeros(
            share, *learner.model.detector.memory_shape, device=accelerator.device
        )
        self.seen = 0  # batches so far
        self.caption_steps = 0  # of captions alone, so far
        self.gradients = TermGradients(learner, recipe.weights.shares, self.processes)
        self.origin = origin(recipe.start)

    def step(self):
        """One step of the optimiser -> dict of floats for the log."""
        schedule, progress = self.recipe.schedule, self.progress
        share = progress.share
        rate = learning_rate(schedule, share, progress.step)
        for group in self.optimizer.param_groups:
            group['lr'] = rate * group['rate']
        self.wrapped.train()
        self.optimizer.zero_grad(set_to_none=True)
        values = {}
        for part in range(schedule.accumulate):
            last = part == schedule.accumulate - 1
            if last:
                values = self.accumulate(share)
            else:
                with self.accelerator.no_sync(self.wrapped):
                    self.accumulate(share)
        norm = float(self.accelerator.clip_grad_norm_(self._trained, schedule.clip))
        if not math.isfinite(norm):
            raise FloatingPointError(
                f'gradient of norm {norm} at step {progress.step + 1}: {values}. Lower the '
                'learning rate or resume from an earlier checkpoint.'
            )
        values['gradient'] = norm
        self.optimizer.step()
        progress.tick()
        progress.elapsed_s = self.processes.first(progress.elapsed_s)
        return {'step': progress.step, 'minutes': progress.elapsed_s / 60.0, 'lr': rate, **values}

    @property
    def _trained(self):
        return [
            parameter for group in self.optimizer.param_groups for parameter in group['params']
        ]

    def accumulate(self, share):
        """Add the gradient of the next batch, at a share of the run; returns what is logged."""
        asked = time.monotonic()
        generators, batches = self.batches.next()
        waited = time.monotonic() - asked
        *past, batch = [batch.to(self.accelerator.device) for batch in batches]
        learned = self.wrapped(
            batch,
            self.memory,
            generators,
            self.processes,
            past=past,
            with_captions=share >= self.recipe.captions.start,
        )
        if not torch.isfinite(learned.total):
            raise FloatingPointError(
                f'loss {float(learned.total.detach())} at step {self.progress.step + 1}: '
                f'{learned.log}. Lower the learning rate or resume from an earlier checkpoint.'
            )
        every, norms = self.recipe.gradient_norms_every, {}
        if every and self.progress.step % every == 0:
            described = learned.log.get('captions', 0.0) > 0.0
            norms = self.gradients.measure(learned.terms, described)
        total = self.gradients.total(learned)
        self.accelerator.backward(total / self.recipe.schedule.accumulate)
        self.memory = learned.bev
        self.seen += 1
        return {
            'loss': float(total.detach()),
            **learned.log,
            **norms,
            'waited': waited,
        }

    def _make_batches(self, number, queues):
        """(a generator a slot, Batches of our slots, oldest first; the last is learned)."""
        generators = slot_generators(self.recipe.seed, number, self.slots)
        *past, present = zip(*queues[self.slots.start : self.slots.stop])
        harder = self.recipe.augmentation
        batches = [
            make_batch(self.scenes, places, generators, harder.of_history) for places in past
        ]
        batches.append(make_batch(self.scenes, present, generators, harder))
        return generators, batches

    def save(self, path):
        """Write a checkpoint that `load` goes on from; atomic.  All processes call it."""
        memories = self.processes.gather(self.memory.cpu())
        state = self.accelerator.get_state_dict(self.wrapped)
        if self.processes.rank:
            return
        write_checkpoint(
            path,
            self.learner,
            state,
            {
                'recipe': self.recipe.to_dict(),
                'origin': self.origin,
                'optimizer': self.optimizer.state_dict(),
                'memory': torch.cat(memories),
                'stream': self.batches.state(),
                'best': self.best,
                'factors': self.gradients.factors,
                'caption_steps': self.caption_steps,
                'data': words_of(self.scenes),
                'step': self.progress.step,
                'seen': self.seen,
                'elapsed_s': self.progress.elapsed_s,
            },
        )

    def load(self, path):
        """Go on where `save` stopped."""
        state = read_checkpoint_file(path)
        wanted, found = self.recipe.to_dict(), Recipe.from_dict(state['recipe']).to_dict()
        other = sorted(name for name in wanted if wanted[name] != found[name] and name in _FIXED)
        if other:
            raise RunError(
                f'{path} belongs to another recipe: {", ".join(other)} differ; resume '
                'with the recipe.yaml beside it, or choose another directory.'
            )
        frozen = {
            name
            for name, parameter in self.learner.named_parameters(remove_duplicate=False)
            if name.startswith('language.')
            and (not parameter.requires_grad or name.startswith('language.llama.lm_head'))
        }
        fill(self.learner, state['learner'], path, optional=frozen)
        self.optimizer.load_state_dict(state['optimizer'])
        self.batches.restore(state['stream'], state['seen'])
        self.memory = state['memory'][self.slots.start : self.slots.stop].to(
            self.accelerator.device
        )
        self.best, self.seen = state['best'], state['seen']
        self.origin = state.get('origin', self.origin)
        self.gradients.factors = dict(state.get('factors', {}))
        # Which runs of before this was written had them is not known.
        self.caption_steps = state.get('caption_steps', 0)
        self.progress.step, self.progress.elapsed_s = state['step'], state['elapsed_s']
        self.progress.pause()


def frames_of(scenes):
    """Keyframes there are to train on; those in use of a World, which has no end."""
    if isinstance(scenes, World):
        return scenes.settings.first * scenes.settings.frames
    return sum(len(scene.boxes) for scene in scenes)


def words_of(scenes):
    """What there is to train on, in words."""
    if isinstance(scenes, World):
        return scenes.words
    return f'{len(scenes)} scenes, {frames_of(scenes)} keyframes'


def make_stream(scenes, recipe, half_extent_m):
    """SceneStream or QueueStream of a recipe; a frame is empty whose objects are all farther away
    than `half_extent_m` ahead or aside."""
    schedule = recipe.schedule
    if isinstance(scenes, World):
        if schedule.history != 'stream':
            raise RunError(
                f'schedule.history={schedule.history!r}: queues want all frames at hand; a world '
                'that is drawn on the way gives stream.'
            )
        return scenes.stream(schedule.batch, recipe.seed, recipe.augmentation.mirror)
    lengths = [len(scene.boxes) for scene in scenes]
    if schedule.history == 'stream':
        return SceneStream(
            lengths, schedule.batch, seed=recipe.seed, mirror=recipe.augmentation.mirror
        )
    empty = [
        (number, frame)
        for number, scene in enumerate(scenes)
        for frame, boxes in enumerate(scene.boxes)
        if not (abs(boxes[:, :2]) < half_extent_m).all(1).any()
    ]
    return QueueStream(lengths, schedule.batch, recipe.seed, empty if schedule.skip_empty else ())

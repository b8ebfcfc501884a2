"""The stages of TPO: what learns in each, the loop around it, its log.

A run goes on where it was killed: checkpoints hold the optimiser, and the questions of a step
follow from the seed and the step alone.
"""

import math
import time
from typing import NamedTuple

import numpy as np
import torch

from mta_perception.progress import Progress
from mta_training.questions.mixture import questions_of_scene
from mta_training.runs.log_table import LogTable
from mta_training.tpo.batches import make_batch, windows_of
from mta_training.tpo.host import is_lora
from mta_training.tpo.live import with_gradients
from mta_training.tpo.recipe import TRAINED
from mta_training.tpo.run_files import read_stage, save_stage, stage_folder, take_up
from mta_training.tpo.textual import as_text

TERMS = ('words', 'assign', 'region', 'temporal', 'mask', 'track')
READERS = ('lora', 'connector', 'qformer', 'detector')  # whose gradients are logged, for each term
_GRADIENTS_EVERY, _SAVE_EVERY_S = 200, 120.0
_TRIES = 100  # to find something to ask in a step
COUNTED = ('step', 'seconds', 'questions', 'rate')
COLUMNS = (
    *COUNTED,
    'loss',
    *TERMS,
    'words_right',
    'assign_right',
    'region_pointer',
    'region_box',
    'track_pointer',
    'track_links',
    'mask_pointer',
    'mask_dice',
    'mask_focal',
    'gradient',
    *(f'gradient_{term}_{reader}' for reader in READERS for term in TERMS),
)


class Trained(NamedTuple):
    """How a stage went."""

    steps: int
    questions: int  # of this stage
    seconds: float  # of this call
    loss: float  # mean of the last steps


def group_of(name):
    """connector, tokens, heads, lora, language, detector or its backbone: what a parameter of an
    Asker belongs to."""
    if is_lora(name):
        return 'lora'
    if name.startswith('eyes.'):  # eyes that have seen photographs stay as they are
        return 'backbone' if name.startswith('eyes.detector.backbone.') else 'detector'
    if name.startswith('host.'):
        return 'language'
    if name.startswith('tasks.connector.'):
        return 'connector'
    if name.startswith(('tasks.tokens.', 'tasks.here.')):
        return 'tokens'
    return 'heads'


def prepare(asker, stage):
    """Freeze what does not learn in a stage; returns {group: [parameters]} of what does."""
    groups = {name: [] for name in TRAINED[stage]}
    for name, parameter in asker.named_parameters():
        group = group_of(name)
        parameter.requires_grad_(group in groups)
        if group in groups:
            groups[group].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def rate_at(recipe, share):
    """Factor of the learning rate at a share (0 to 1) of a stage: warm-up, cosine to a rest."""
    if share < recipe.warm_up:
        return share / recipe.warm_up + 1e-3
    left = 0.5 * (1.0 + math.cos(math.pi * share))
    return recipe.least_rate + (1.0 - recipe.least_rate) * left


class Questions:
    """Questions of a stage, step by step: those of some frames of scenes drawn by the seed."""

    def __init__(self, scenes, settings, seed, textual=False):
        """scenes: {name: batches.Asked}; settings: recipe.Stage; textual: see textual.py."""
        self.scenes, self.names = scenes, sorted(scenes)
        self.settings, self.seed, self.kept = settings, seed, {}
        self.textual = textual

    def at(self, step):
        """List of Questions of a step, from its number alone."""
        rng = np.random.default_rng([self.seed, step])
        chosen = []
        for _ in range(_TRIES):
            if chosen:
                return chosen
            for _ in range(self.settings.frames):
                name = self.names[int(rng.integers(len(self.names)))]
                by_frame = self._asked(name, step)
                if by_frame:
                    frames = sorted(by_frame)
                    chosen += by_frame[frames[int(rng.integers(len(frames)))]]
        raise ValueError(
            f'{len(self.names)} scenes, and no question of {", ".join(self.settings.mixture)} in '
            f'{_TRIES} tries; give longer drives, or another mixture.'
        )

    def _asked(self, name, step):
        """frame -> Questions of a scene; drawn anew every so many steps."""
        settings = self.settings
        # A scene's frames are used up about once: then others are asked.
        age = step * settings.frames // (20 * len(self.names))
        key = name, age
        if key not in self.kept:
            self.kept = {kept: found for kept, found in self.kept.items() if kept[1] >= age}
            by_frame = {}
            for question in questions_of_scene(
                self.scenes[name].facts,
                self.seed * 7919 + age,
                per_frame=settings.per_frame,
                mixture=settings.mixture,
            ):
                if self.textual:
                    question = as_text(question, self.scenes[name])
                by_frame.setdefault(question.now, []).append(question)
            self.kept[key] = by_frame
        return self.kept[key]


def train_stage(run, stage, asker, recipe, scenes, resume=False, steps=None, minutes=None):
    """Train an Asker for one stage into RUN/stageN; returns Trained.

    steps, minutes: another length than the recipe's
    """
    settings = recipe.stages[stage]
    length = steps or settings.steps
    groups = prepare(asker, stage)
    optimizer = torch.optim.AdamW(
        [
            {'params': parameters, 'rate': settings.learning_rate * settings.rates.get(name, 1.0)}
            for name, parameters in groups.items()
        ],
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
    )
    begin, seen = 0, 0
    state = read_stage(run, stage) if resume else None
    if state is not None:
        take_up(run, stage, state, asker, optimizer)
        begin, seen = state['step'], state['seen']
    heads = 'heads' in TRAINED[stage]
    questions = Questions(scenes, settings, recipe.seed * 10 + stage, recipe.textual)
    log = LogTable(stage_folder(run, stage) / 'log.csv', COLUMNS, COUNTED, begin)
    progress = Progress(f'stage {stage}', length)
    started, saved, recent = time.monotonic(), time.monotonic(), []
    asker.train()
    for step in progress.over(range(begin, length)):
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # of dropout: the same after a resume
        passed = (time.monotonic() - started) / 60.0
        share = passed / minutes if minutes else step / length
        if share >= 1.0:
            break
        asks = questions.at(step)
        batch = _batch(asker, asks, scenes)
        loss, gradient = _step(asker, optimizer, recipe, batch, rate_at(recipe, share), heads)
        seen += len(asks)
        recent = [*recent[-19:], float(loss.total.detach())]
        more = _gradients(asker, asks, scenes) if step % _GRADIENTS_EVERY == 0 else {}
        log.add(
            {
                **loss.log,
                **more,
                'step': step + 1,
                'seconds': time.monotonic() - started,
                'questions': seen,
                'rate': rate_at(recipe, share),
                'loss': recent[-1],
                'gradient': gradient,
            }
        )
        progress.words = f'loss {np.mean(recent):.2f}'
        if time.monotonic() - saved > _SAVE_EVERY_S:
            save_stage(run, stage, asker, optimizer, step + 1, seen)
            saved = time.monotonic()
        begin = step + 1
    asker.eval()
    save_stage(run, stage, asker, optimizer, begin, seen, ended=True)
    log.flush()
    mean = float(np.mean(recent)) if recent else float('nan')
    return Trained(begin, seen, time.monotonic() - started, mean)


def _batch(asker, asks, scenes):
    """AskBatch of Questions; seen anew, with gradients, where the detector learns."""
    vocabulary, config = asker.host.vocabulary, asker.tasks.config
    seen = None
    if asker.eyes is not None:
        seen = asker.eyes.see(windows_of(asks)[0], scenes)
    batch = make_batch(vocabulary, config.heads, asks, scenes, config.memory)
    return batch if seen is None else batch._replace(scene=with_gradients(batch.scene, seen))


def _step(asker, optimizer, recipe, batch, factor, with_heads):
    """One step of the optimiser; returns (AskLoss, length of the gradient)."""
    for group in optimizer.param_groups:
        group['lr'] = group['rate'] * factor
    with torch.autocast('cpu', torch.bfloat16, enabled=recipe.bf16):
        loss = asker(batch, with_heads)
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    trained = [p for group in optimizer.param_groups for p in group['params']]
    gradient = torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
    optimizer.step()
    return loss, float(gradient)


def _gradients(asker, asks, scenes):
    """Length of each term's gradient in LoRA, connector, Q-Former and detector, trained there or
    not."""
    readers = {
        'lora': [p for name, p in asker.named_parameters() if group_of(name) == 'lora'],
        'connector': [p for name, p in asker.named_parameters() if group_of(name) == 'connector'],
        'qformer': [p for name, p in asker.named_parameters() if '.qformer.' in name],
        'detector': [p for name, p in asker.named_parameters() if group_of(name) == 'detector'],
    }
    every = {id(p): p for part in readers.values() for p in part}
    kept = {key: p.requires_grad for key, p in every.items()}
    for parameter in every.values():
        parameter.requires_grad_(True)
    loss = asker(_batch(asker, asks, scenes))
    found = {}
    for term, value in loss.terms.items():
        if not value.requires_grad:
            continue
        grads = torch.autograd.grad(
            value, list(every.values()), retain_graph=True, allow_unused=True
        )
        squares = {
            key: 0.0 if grad is None else float(grad.square().sum())
            for key, grad in zip(every, grads)
        }
        for reader, parameters in readers.items():
            total = sum(squares[id(p)] for p in parameters)
            found[f'gradient_{term}_{reader}'] = total**0.5
    for key, parameter in every.items():
        parameter.requires_grad_(kept[key])
    return found

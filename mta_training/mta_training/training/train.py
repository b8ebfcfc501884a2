"""The training loop: streams scenes through a Learner, under accelerate, and goes on exactly.

A run directory holds `recipe.yaml`, `tokenizer.json`, `language.pt` (the small language model,
frozen), `last.pt`, `best.pt` (best by held-out mAP), `log.csv`, `curves.png`, `events/`
(TensorBoard) and `pictures/`.  A killed run goes on with `resume=True` where its last checkpoint
was written, on as many processes as one likes: the step number and the seed decide what every slot
of a batch sees.
"""

import ctypes
from datetime import timedelta
import math
import os
from pathlib import Path
import time

from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
import torch

from mta_training.data.batches import QueueStream, SceneStream, make_batch, slot_generators
from mta_training.process_group import Team
from mta_training.runs.recipe import Recipe
from mta_training.runs.run_directory import (
    RunError,
    build_language,
    build_model,
    load_detector,
    origin,
    write_checkpoint,
)
from mta_training.runs.run_log import RunLog
from mta_training.training.caption_stage import finish_captions
from mta_training.training.learner import Learner


class Progress:
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


def learning_rate(share, schedule):
    """Linear warm-up, then cosine down to 1 %."""
    top = schedule.learning_rate
    if share < schedule.warm_up:
        return top * (0.02 + 0.98 * share / schedule.warm_up)
    along = (share - schedule.warm_up) / (1.0 - schedule.warm_up)
    return top * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * along)))


def make_optimizer(learner, schedule):
    """AdamW; offset layers at 0.3 of the rate, no decay on biases, norms and embeddings.

    The backbone has its own rate; at 0 it is frozen.
    """
    learner.model.detector.backbone.requires_grad_(schedule.backbone_rate > 0)
    groups = {}
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        slow = 0.3 if '.offsets.' in name else 1.0
        if '.backbone.' in name:
            slow *= schedule.backbone_rate
        free = parameter.ndim < 2 or 'embedding' in name or name.startswith('language.')
        decay = 0.0 if free else schedule.weight_decay
        groups.setdefault((slow, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {'params': parameters, 'weight_decay': decay, 'rate': slow}
            for (slow, decay), parameters in groups.items()
        ],
        lr=schedule.learning_rate,
    )


def keep_large_blocks():
    """Let glibc reuse big buffers instead of returning them: page faults cost a quarter of a step.

    Does nothing where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 1 << 30)
    mallopt(m_trim_threshold, (1 << 31) - 1)


class Trainer:
    """All that changes while a run goes on."""

    def __init__(self, learner, scenes, recipe, accelerator):
        schedule = recipe.schedule
        self.scenes, self.recipe, self.accelerator = scenes, recipe, accelerator
        self.team = Team(accelerator.device)
        if schedule.batch % self.team.size:
            raise RunError(
                f'schedule.batch={schedule.batch} frames do not divide among '
                f'{self.team.size} processes; choose a multiple.'
            )
        share = schedule.batch // self.team.size
        self.slots = range(self.team.rank * share, (self.team.rank + 1) * share)
        learner.model.detector.backbone.to(memory_format=torch.channels_last)
        self.learner = learner
        self.wrapped, self.optimizer = accelerator.prepare(
            learner, make_optimizer(learner, schedule)
        )
        lengths = [len(scene.boxes) for scene in scenes]
        stream = {'stream': SceneStream, 'queue': QueueStream}[schedule.history]
        self.stream = stream(lengths, schedule.batch, seed=recipe.seed)
        self.progress = Progress(schedule, sum(lengths))
        self.best = -1.0
        bev = learner.model.config.bev
        self.memory = torch.zeros(
            share, bev.channels, bev.cells, bev.cells, device=accelerator.device
        )
        self.seen = 0  # batches so far
        self.origin = origin(recipe.start)

    def step(self):
        """One step of the optimiser -> dict of floats for the log."""
        schedule, progress = self.recipe.schedule, self.progress
        share = progress.share
        rate = learning_rate(share, schedule)
        for group in self.optimizer.param_groups:
            group['lr'] = rate * group['rate']
        self.wrapped.train()
        self.optimizer.zero_grad(set_to_none=True)
        values = {}
        for part in range(schedule.accumulate):
            last = part == schedule.accumulate - 1
            if last:
                values = self._accumulate(share)
            else:
                with self.accelerator.no_sync(self.wrapped):
                    self._accumulate(share)
        trained = [
            parameter for group in self.optimizer.param_groups for parameter in group['params']
        ]
        values['gradient'] = float(self.accelerator.clip_grad_norm_(trained, schedule.clip))
        self.optimizer.step()
        progress.tick()
        progress.elapsed_s = self.team.first(progress.elapsed_s)
        return {'step': progress.step, 'minutes': progress.elapsed_s / 60.0, 'lr': rate, **values}

    def _accumulate(self, share):
        """Add the gradient of the next batch; returns what is logged."""
        queues = self.stream.step()[self.slots.start : self.slots.stop]
        generators = slot_generators(self.recipe.seed, self.seen, self.slots)
        *past, batch = (
            make_batch(self.scenes, places, generators).to(self.accelerator.device)
            for places in zip(*queues)
        )
        learned = self.wrapped(
            batch,
            self.memory,
            generators,
            self.team,
            past=past,
            with_captions=share >= self.recipe.captions.start,
        )
        if not torch.isfinite(learned.total):
            raise FloatingPointError(
                f'loss {float(learned.total.detach())} at step {self.progress.step + 1}: '
                f'{learned.log}. Lower the learning rate or resume from an earlier checkpoint.'
            )
        norms = self._gradient_norms(learned.terms)
        self.accelerator.backward(learned.total / self.recipe.schedule.accumulate)
        self.memory = learned.bev
        self.seen += 1
        return {'loss': float(learned.total.detach()), **learned.log, **norms}

    def _gradient_norms(self, terms):
        """Norm of each weighted term's gradient, over all that is trained, of this process."""
        every = self.recipe.gradient_norms_every
        if not every or self.progress.step % every:
            return {}
        trained = [
            parameter for group in self.optimizer.param_groups for parameter in group['params']
        ]
        norms = {}
        for name, term in terms.items():
            gradients = torch.autograd.grad(term, trained, retain_graph=True, allow_unused=True)
            norms[f'gradient_{name}'] = float(
                torch.stack([g.norm() for g in gradients if g is not None]).norm()
            )
        return norms

    def save(self, path):
        """Write a checkpoint that `load` goes on from; atomic.  All processes call it."""
        memories = self.team.gather(self.memory.cpu())
        state = self.accelerator.get_state_dict(self.wrapped)
        if self.team.rank:
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
                'stream': self.stream.state(),
                'best': self.best,
                'data': f'{len(self.scenes)} scenes, '
                f'{sum(len(scene.boxes) for scene in self.scenes)} keyframes',
                'step': self.progress.step,
                'seen': self.seen,
                'elapsed_s': self.progress.elapsed_s,
            },
        )

    def load(self, path):
        """Go on where `save` stopped."""
        state = torch.load(path, map_location='cpu', weights_only=False)
        wanted, found = self.recipe.to_dict(), Recipe.from_dict(state['recipe']).to_dict()
        other = sorted(
            name
            for name in wanted
            if wanted[name] != found[name]
            and name
            in ('model', 'schedule', 'weights', 'alignment', 'captions', 'language', 'seed')
        )
        if other:
            raise RunError(
                f'{path} belongs to another recipe: {", ".join(other)} differ; resume '
                'with the recipe.yaml beside it, or choose another directory.'
            )
        missing, unexpected = self.learner.load_state_dict(state['learner'], strict=False)
        frozen = {
            name
            for name, parameter in self.learner.named_parameters()
            if name.startswith('language.') and not parameter.requires_grad
        }
        frozen |= {name for name in missing if name.startswith('language.llama.lm_head')}
        broken = sorted(set(missing) - frozen) + list(unexpected)
        if broken:
            raise RunError(
                f'{path} does not fit this network: {broken[0]} and '
                f'{len(broken) - 1} more names are missing or unknown.'
            )
        self.optimizer.load_state_dict(state['optimizer'])
        self.stream.restore(state['stream'])
        self.memory = state['memory'][self.slots.start : self.slots.stop].to(
            self.accelerator.device
        )
        self.best, self.seen = state['best'], state['seen']
        self.origin = state.get('origin', self.origin)
        self.progress.step, self.progress.elapsed_s = state['step'], state['elapsed_s']
        self.progress.pause()


def run(
    scenes,
    held_out,
    out,
    recipe,
    *,
    resume=False,
    evaluate=None,
    threads=0,
    say=print,
    text_cache=None,
):
    """Train on `scenes` (SceneArrays) into the directory `out`; returns the last evaluation.

    evaluate    evaluate(learner, held_out, picture) -> dict with 'mAP', which decides what is
                `best.pt`; `picture` is the path of the PNG that it may draw
    text_cache  where embeddings of captions are kept, None = in `out`
    Under `accelerate launch` every process calls this with the same arguments.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        # The others wait while the first one embeds captions and trains the small language model.
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),
        ],
    )
    team = Team(accelerator.device)
    if (out / 'last.pt').exists() and not resume:
        raise RunError(
            f'{out} already holds a run; go on with --resume or choose another directory.'
        )
    team.first(None)  # nobody writes before all have looked
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // team.size))
    keep_large_blocks()
    learner, recipe = _build(out, scenes, recipe, team, say, text_cache or out)
    trainer = Trainer(learner, scenes, recipe, accelerator)
    if resume and (out / 'last.pt').exists():
        trainer.load(out / 'last.pt')
    log = RunLog(out, leads=team.rank == 0, say=say, resume_at=trainer.progress.step)
    metrics = _loop(trainer, held_out, out, evaluate, log)
    if recipe.caption_steps:
        _finish_captions(trainer, out, say)
        if metrics and metrics['mAP'] >= trainer.best:
            trainer.save(out / 'best.pt')  # its detector is the last one
    log.close()
    return metrics


def _build(out, scenes, recipe, team, say, text_cache):
    """(Learner, recipe with the sizes that the vocabulary decides); process 0 makes, others
    read."""
    captions = [text for scene in scenes for frame in scene.captions for text in frame if text]
    if team.rank:
        team.first(None)
    language, embeddings, recipe = build_language(
        out, captions, recipe, text_cache, say if not team.rank else _silent
    )
    if not team.rank:
        team.first(None)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    learner = Learner(model, language, recipe, embeddings)
    if recipe.start and not (out / 'last.pt').exists():
        load_detector(recipe.start, learner, with_captioner=recipe.start_captioner)
    return learner, recipe


def _silent(line):
    """What the processes that do not lead have to say."""


def _finish_captions(trainer, out, say):
    """Captions alone, by the leading process; into `last.pt`."""
    recipe = trainer.recipe
    if trainer.team.rank == 0:
        torch.set_num_threads(os.cpu_count() or 1)
        finish_captions(
            trainer.learner, trainer.scenes, recipe.caption_steps, seed=recipe.seed, log_line=say
        )
    trainer.team.first(None)
    trainer.save(out / 'last.pt')


def _loop(trainer, held_out, out, evaluate, log):
    recipe, progress, metrics = trainer.recipe, trainer.progress, {}
    saved = evaluated = progress.elapsed_s
    leads = trainer.team.rank == 0
    while progress.share < 1.0:
        log.add(trainer.step(), progress)
        done = progress.share >= 1.0
        if done or progress.elapsed_s - saved >= 60.0 * recipe.checkpoint_minutes:
            log.flush()
            trainer.save(out / 'last.pt')
            saved = progress.elapsed_s
        due = recipe.evaluate_minutes and (
            progress.elapsed_s - evaluated > 60.0 * recipe.evaluate_minutes
        )
        if evaluate and held_out and (done or due):
            picture = out / 'pictures' / f'step-{progress.step:06d}.png'
            metrics = trainer.team.first(
                evaluate(trainer.learner, held_out, picture) if leads else None
            )
            evaluated = progress.elapsed_s
            log.evaluated(progress.step, metrics)
            if metrics['mAP'] > trainer.best:
                trainer.best = metrics['mAP']
                trainer.save(out / 'best.pt')
        progress.pause()
    log.flush()
    trainer.team.first(None)  # when any process is done, the files are there
    return metrics

"""Plain training loop: detector and captioner together, on scenes held as arrays.

A run directory holds `tokenizer.json`, `language.pt`, `last.pt`, `best.pt` (best by held-out mAP)
and `log.csv`.  A killed run goes on with `resume=True` exactly where its last checkpoint was
written.
"""

import csv
import ctypes
from dataclasses import asdict, dataclass, replace
import math
import os
from pathlib import Path
import time

import numpy as np
from tokenizers import Tokenizer
import torch

from mta_perception.model.config import MtaConfig
from mta_perception.model.mta_model import MtaModel
from mta_training import language_training
from mta_training.caption_stage import finish_captions
from mta_training.captioning import language_loss
from mta_training.losses import detection_loss
from mta_training.perspective import PerspectiveHead, perspective_loss
from mta_training.samples import SceneStream, make_batch
from mta_training.team import Team


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, how often."""

    minutes: float = 0.0                 # length of the run; 0 = `steps` decide
    steps: int = 0
    batch: int = 4                       # frames a step and process
    learning_rate: float = 8e-4
    weight_decay: float = 0.02
    warm_up: float = 0.05                # share of the run
    clip: float = 10.0
    perspective_weight: float = 0.5
    caption_start: float = 0.25          # share of the run after which captions are learned
    caption_objects: int = 6             # per frame
    caption_weight: float = 0.5
    language_steps: int = 300
    caption_minutes: float = 0.0         # at the end, captions alone; see caption_stage.py
    checkpoint_minutes: float = 5.0
    evaluate_minutes: float = 15.0       # 0 = only at the end
    threads: int = 1                     # per process
    processes: int = 1                   # see team.py
    seed: int = 0

    def __post_init__(self):
        if (self.minutes > 0) == (self.steps > 0):
            raise ValueError(f'minutes={self.minutes} and steps={self.steps}: give one of the '
                             'two.')


class Progress:
    """How far a run is, 0 to 1, by its clock or its steps; survives a resume."""

    def __init__(self, config):
        self.config, self.step, self.elapsed_s = config, 0, 0.0
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
        if self.config.steps:
            return min(1.0, self.step / self.config.steps)
        return min(1.0, self.elapsed_s / (60.0 * self.config.minutes))


def learning_rate(share, config):
    """Linear warm-up, then cosine down to 1 %."""
    if share < config.warm_up:
        return config.learning_rate * (0.02 + 0.98 * share / config.warm_up)
    along = (share - config.warm_up) / (1.0 - config.warm_up)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * along)))


def make_optimizer(model, config):
    """AdamW; offset layers at 0.3 of the rate, no decay on biases, norms and embeddings."""
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        slow = 0.3 if '.offsets.' in name else 1.0
        decay = config.weight_decay if parameter.ndim >= 2 and 'embedding' not in name else 0.0
        groups.setdefault((slow, decay), []).append(parameter)
    return torch.optim.AdamW([
        {'params': parameters, 'weight_decay': decay, 'rate': slow}
        for (slow, decay), parameters in groups.items()], lr=config.learning_rate)


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


_ALONE = Team()


class Trainer:
    """All that changes while a run goes on."""

    def __init__(self, model, tokenizer, scenes, config, team=_ALONE):
        self.model, self.tokenizer, self.scenes, self.config = model, tokenizer, scenes, config
        self.team = team
        model.language.requires_grad_(False)
        model.detector.backbone.to(memory_format=torch.channels_last)
        self.perspective = PerspectiveHead(model.config.bev.channels)
        self.trained = torch.nn.ModuleDict({'model': model, 'perspective': self.perspective})
        self.optimizer = make_optimizer(self.trained, config)
        self.stream = SceneStream([len(scene.boxes) for scene in scenes], config.batch,
                                  seed=config.seed + 1000 * team.rank)
        self.rng = np.random.default_rng(config.seed + 1 + 1000 * team.rank)
        self.progress = Progress(config)
        self.best = -1.0
        bev = model.config.bev
        self.memory = torch.zeros(config.batch, bev.channels, bev.cells, bev.cells)

    def step(self):
        """One step of the optimiser -> dict of floats for the log."""
        config = self.config
        batch = make_batch(self.scenes, self.stream.step(), self.rng)
        share = self.progress.share
        rate = learning_rate(share, config)
        for group in self.optimizer.param_groups:
            group['lr'] = rate * group['rate']
        self.model.train()
        with torch.autocast('cpu', torch.bfloat16):
            result = self.model.detector(
                batch.images, batch.image_from_ego, batch.camera_mask, self.memory,
                batch.history_valid, batch.ego_prev_from_ego_now)
            aside = perspective_loss(self.perspective, result.image_features, batch,
                                     self.model.config.image, self.model.config.backbone.stride)
        detection = detection_loss(result.stages, batch.targets, self.model.config.bev)
        values = {**detection.parts, 'image': float(aside.detach())}
        total = detection.total + config.perspective_weight * aside
        if share >= config.caption_start and config.caption_weight:
            with torch.autocast('cpu', torch.bfloat16):
                loss = language_loss(self.model, self.tokenizer, result, batch, detection.matches,
                                     config.caption_objects, self.rng)
            if loss is not None:
                total = total + config.caption_weight * loss
                values['caption'] = float(loss.detach())
        self._descend(total, values)
        self.memory = result.bev.detach()
        self.progress.tick()
        self.progress.elapsed_s = self.team.first(self.progress.elapsed_s)
        return {'step': self.progress.step, 'minutes': self.progress.elapsed_s / 60.0, 'lr': rate,
                'loss': float(total.detach()), **values}

    def _descend(self, total, values):
        if not torch.isfinite(total):
            raise FloatingPointError(
                f'loss {float(total.detach())} at step {self.progress.step + 1}: {values}. '
                'Lower the learning rate or resume earlier.')
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.team.average_gradients(self.trained.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), self.config.clip)
        values['gradient'] = float(norm)
        self.optimizer.step()

    def save(self, path):
        """Write a checkpoint that `load` goes on from; atomic.  All processes call it."""
        members = self.team.gather({
            'stream': self.stream.state(), 'rng': self.rng.bit_generator.state,
            'torch_rng': torch.get_rng_state(), 'memory': self.memory})
        if self.team.rank:
            return
        partial = Path(path).with_suffix('.partial')
        torch.save({
            'config': self.model.config.to_dict(), 'train': asdict(self.config),
            'model': self.model.state_dict(),
            'perspective': self.perspective.state_dict(), 'optimizer': self.optimizer.state_dict(),
            'members': members, 'best': self.best,
            'data': f'{len(self.scenes)} scenes, '
                    f'{sum(len(scene.boxes) for scene in self.scenes)} keyframes',
            'step': self.progress.step, 'elapsed_s': self.progress.elapsed_s,
        }, partial)
        os.replace(partial, path)

    def load(self, path):
        """Go on where `save` stopped."""
        state = torch.load(path, map_location='cpu', weights_only=False)
        self.model.load_state_dict(state['model'])
        self.perspective.load_state_dict(state['perspective'])
        self.optimizer.load_state_dict(state['optimizer'])
        if len(state['members']) != self.team.size:
            count = len(state['members'])
            raise ValueError(f'{path} was written by {count} processes, this run has '
                             f'{self.team.size}; resume with --processes {count}.')
        member = state['members'][self.team.rank]
        self.stream.restore(member['stream'])
        self.rng.bit_generator.state = member['rng']
        torch.set_rng_state(member['torch_rng'])
        self.memory, self.best = member['memory'], state['best']
        self.progress.step, self.progress.elapsed_s = state['step'], state['elapsed_s']
        self.progress.pause()


def load_model(run, which='last'):
    """(MtaModel in eval mode, tokenizer, checkpoint dict) of a run directory."""
    run = Path(run)
    path = run / f'{which}.pt'
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; expected a run directory written by '
                                '`mta-train train --out`.')
    state = torch.load(path, map_location='cpu', weights_only=False)
    model = MtaModel(MtaConfig.from_dict(state['config']))
    model.load_state_dict(state['model'])
    return model.eval(), Tokenizer.from_file(str(run / 'tokenizer.json')), state


def build_model(run, scenes, config, model_config, log_line):
    """Tokeniser and pretrained language model (made once per run), and a fresh detector."""
    captions = [text for scene in scenes for frame in scene.captions for text in frame if text]
    tokenizer_path, language_path = run / 'tokenizer.json', run / 'language.pt'
    if language_path.is_file():
        tokenizer = Tokenizer.from_file(str(tokenizer_path))
    else:
        tokenizer = language_training.train_tokenizer(captions)
    size = replace(model_config.language, vocab_size=tokenizer.get_vocab_size())
    torch.manual_seed(config.seed)
    model = MtaModel(replace(model_config, language=size))
    if not language_path.is_file():
        language, _ = language_training.pretrain(
            captions, tokenizer, size, model_config.qformer.prefix_tokens,
            steps=config.language_steps, seed=config.seed, log_line=log_line)
        tokenizer.save(str(tokenizer_path))
        torch.save(language.state_dict(), language_path.with_suffix('.partial'))
        os.replace(language_path.with_suffix('.partial'), language_path)
    model.language.load_state_dict(torch.load(language_path, weights_only=True))
    return model, tokenizer


def _say(line):
    print(line, flush=True)


def _silent(line):
    """What the processes that do not lead have to say."""


def run(scenes, held_out, out, config, model_config=None, resume=False, evaluate=None,
        log_line=_say, team=_ALONE):
    """Train on `scenes` (SceneArrays) into the directory `out`; returns the last evaluation.

    `evaluate(model, held_out) -> dict` with a key 'mAP' decides which checkpoint is `best.pt`.
    With a `team` every process calls this with the same arguments.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / 'last.pt').exists() and not resume:
        raise FileExistsError(f'{out} already holds a run; go on with --resume or choose another '
                              'directory.')
    if team.rank:
        log_line = _silent
    torch.set_num_threads(config.threads)
    keep_large_blocks()
    arguments = out, scenes, config, model_config or MtaConfig.nano(), log_line
    # Process 0 trains the language model; the others then find it.
    model, tokenizer = build_model(*arguments) if not team.rank else (None, None)
    team.first(None)
    if team.rank:
        model, tokenizer = build_model(*arguments)
    trainer = Trainer(model, tokenizer, scenes, config, team)
    if resume and (out / 'last.pt').exists():
        trainer.load(out / 'last.pt')
        log_line(f'resumed at step {trainer.progress.step}')
    metrics = _loop(trainer, held_out, out, config, evaluate, log_line)
    if config.caption_minutes:
        _finish_captions(trainer, out, log_line)
    return metrics


def _finish_captions(trainer, out, log_line):
    """Captions alone, by the leading process on all threads; into `last.pt`."""
    config = trainer.config
    if trainer.team.rank == 0:
        torch.set_num_threads(config.threads * config.processes)
        finish_captions(trainer.model, trainer.tokenizer, trainer.scenes, config.caption_minutes,
                        seed=config.seed, log_line=log_line)
    trainer.team.first(None)
    trainer.save(out / 'last.pt')


def _loop(trainer, held_out, out, config, evaluate, log_line):
    progress, metrics = trainer.progress, {}
    saved = evaluated = progress.elapsed_s
    leads = trainer.team.rank == 0
    log = _CsvLog(out / 'log.csv', leads)
    while progress.share < 1.0:
        log.add(trainer.step())
        if progress.step % 20 == 0:
            log_line(f'{100 * progress.share:5.1f} %  ' + log.flush())
        done = progress.share >= 1.0
        if done or progress.elapsed_s - saved > 60.0 * config.checkpoint_minutes:
            trainer.save(out / 'last.pt')
            saved = progress.elapsed_s
        due = config.evaluate_minutes and (
            progress.elapsed_s - evaluated > 60.0 * config.evaluate_minutes)
        if evaluate and held_out and (done or due):
            metrics = trainer.team.first(evaluate(trainer.model, held_out) if leads else None)
            evaluated = progress.elapsed_s
            log_line('held out: ' + '  '.join(
                f'{key} {value:.3f}' for key, value in metrics.items() if np.isscalar(value)))
            if metrics['mAP'] > trainer.best:
                trainer.best = metrics['mAP']
                trainer.save(out / 'best.pt')
        progress.pause()
    log.flush()
    trainer.team.first(None)             # when any process is done, the files are there
    return metrics


class _CsvLog:
    """Means of the values since the last flush, one line each."""

    COLUMNS = ('step', 'minutes', 'lr', 'loss', 'heat', 'dense', 'score', 'box', 'image',
               'caption', 'gradient')

    def __init__(self, path, leads):
        self.path, self.rows, self.leads = path, [], leads
        if leads and not path.exists():
            path.write_text(','.join(self.COLUMNS) + '\n')

    def add(self, values):
        self.rows.append(values)

    def flush(self):
        if not self.rows:
            return ''
        last = self.rows[-1]
        means = {'step': last['step'], 'minutes': last['minutes'], 'lr': last['lr']}
        for name in self.COLUMNS[3:]:
            values = [row[name] for row in self.rows if name in row]
            if values:
                means[name] = float(np.mean(values))
        self.rows = []
        if not self.leads:
            return ''
        with open(self.path, 'a', newline='') as file:
            csv.DictWriter(file, self.COLUMNS).writerow(
                {name: f'{value:.6g}' for name, value in means.items()})
        return '  '.join(f'{name} {value:.4g}' for name, value in means.items())

"""The training loop: streams scenes through a Learner, under accelerate, and goes on exactly.

A run directory holds `recipe.yaml`, `tokenizer.json`, `language.pt` (the small language model,
frozen), `last.pt`, `best.pt` (best by held-out mAP), `log.csv`, `curves.png`, `events/`
(TensorBoard) and `pictures/`.  A killed run goes on with `resume=True` where its last checkpoint
was written.
"""

from contextlib import ExitStack, contextmanager
import ctypes
from datetime import timedelta
import os
from pathlib import Path

from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
import torch

from mta_perception.directory_lock import BusyError, sole_writer
from mta_perception.progress import say
from mta_training.process_group import ProcessGroup
from mta_training.runs.photographs import load_photographs
from mta_training.runs.run_directory import RunError, build_language, build_model, load_detector
from mta_training.runs.run_log import RunLog
from mta_training.training.caption_stage import finish_captions
from mta_training.training.learner import Learner
from mta_training.training.trainer import Trainer, words_of
from mta_training.training.world import World


def run(
    scenes,
    held_out,
    out,
    recipe,
    *,
    resume=False,
    evaluate=None,
    threads=0,
    say=say,
    text_cache=None,
):
    """Train on `scenes` (SceneArrays, or a World) into the directory `out`; returns the last
    evaluation.

    evaluate    evaluate(learner, held_out, picture) -> dict with 'mAP', which decides what is
                `best.pt`; `picture` is the path of the PNG that it may draw
    text_cache  where embeddings of captions are kept, None = in `out`
    Under `accelerate launch` every process calls this with the same arguments.
    """
    out = Path(out)
    accelerator = _accelerator()
    processes = ProcessGroup(accelerator.device)
    with _sole_run(out, processes):
        if (out / 'last.pt').exists() and not resume:
            raise RunError(
                f'{out} already holds a run; go on with --resume or choose another directory.'
            )
        processes.first(None)  # nobody writes before all have looked
        torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // processes.size))
        keep_large_blocks()
        if accelerator.device.type == 'cuda':
            torch.set_float32_matmul_precision('high')
            torch.backends.cudnn.benchmark = True  # all batches have the same shapes
        if processes.rank == 0:
            say(_plan(recipe, scenes))
        learner, recipe = build_learner(out, scenes, recipe, processes, text_cache)
        trainer = Trainer(learner, scenes, recipe, accelerator)
        if resume and (out / 'last.pt').exists():
            trainer.load(out / 'last.pt')
        with RunLog(out, processes.rank == 0, say, trainer.progress.step) as log:
            metrics = _train(trainer, held_out, out, evaluate, log)
        if recipe.caption_steps:
            if trainer.caption_steps < recipe.caption_steps:  # else it was finished before
                _finish_captions(trainer, out, say, threads)
            if metrics and metrics['mAP'] >= trainer.best:
                trainer.save(out / 'best.pt')  # its detector is the last one
        return metrics


@contextmanager
def _sole_run(out, processes):
    """Let nobody else train in `out`; of many processes the first one asks, for all."""
    with ExitStack() as stack:
        busy = None
        if processes.rank == 0:
            try:
                stack.enter_context(sole_writer(out, then='go on with --resume'))
            except (BusyError, OSError) as error:
                busy = error
        busy = processes.first(busy)
        if busy is not None:
            raise busy
        out.mkdir(parents=True, exist_ok=True)
        yield


def some_of(scenes):
    """Scenes as a list: all, or those in use first of a World."""
    return scenes.first(scenes.settings.first) if isinstance(scenes, World) else scenes


def _plan(recipe, scenes):
    """What is to come, before it takes its time."""
    words = [
        f'recipe {recipe.name}: {recipe.schedule.length}',
        f'{recipe.schedule.batch} frames a step',
        words_of(scenes),
    ]
    if recipe.caption_steps:
        words.append(f'then {recipe.caption_steps} steps of captions alone')
    return ', '.join(words)


def _accelerator():
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        # The others wait while the first one embeds captions and trains the small language model.
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),
        ],
    )


def build_learner(out, scenes, recipe, processes, text_cache=None):
    """(Learner, recipe with the sizes that the vocabulary decides) of a run directory.

    Process 0 makes what is not there yet (language model, embeddings), the others read it.
    """
    some = some_of(scenes)
    captions = [text for scene in some for frame in scene.captions for text in frame if text]
    if processes.rank:
        processes.first(None)
    language, embeddings, recipe = build_language(out, captions, recipe, text_cache or out)
    if not processes.rank:
        processes.first(None)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    fresh = not (out / 'last.pt').exists()
    if fresh and not recipe.start and recipe.model.sees_photographs:
        load_photographs(model.detector.backbone)
    learner = Learner(model, language, recipe, embeddings)
    if recipe.start and fresh:
        load_detector(recipe.start, learner, with_captioner=recipe.start_captioner)
    return learner, recipe


def _train(trainer, held_out, out, evaluate, log):
    """All steps, with checkpoints and evaluations in between; returns the last evaluation."""
    recipe, progress, metrics = trainer.recipe, trainer.progress, {}
    saved = evaluated = progress.elapsed_s
    if progress.share >= 1.0 and evaluate and held_out:
        # Killed after its last step: whether it came to this before is not known.
        metrics = _evaluate(trainer, held_out, out, evaluate, log)
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
            metrics = _evaluate(trainer, held_out, out, evaluate, log)
            evaluated = progress.elapsed_s
        progress.pause()
    log.flush()
    trainer.processes.first(None)  # when any process is done, the files are there
    return metrics


def _evaluate(trainer, held_out, out, evaluate, log):
    """Held-out numbers, by the leading process; the best so far are kept."""
    step, metrics = trainer.progress.step, None
    log.doing('evaluation on held-out scenes')
    if trainer.processes.rank == 0:
        metrics = evaluate(trainer.learner, held_out, out / 'pictures' / f'step-{step:06d}.png')
    metrics = trainer.processes.first(metrics)
    log.evaluated(step, metrics)
    if metrics['mAP'] > trainer.best:
        trainer.best = metrics['mAP']
        trainer.save(out / 'best.pt')
    return metrics


def _finish_captions(trainer, out, say, threads):
    """Captions alone, by the leading process; into `last.pt`.  threads: 0 = all cores."""
    recipe = trainer.recipe
    if trainer.processes.rank == 0:
        torch.set_num_threads(threads or os.cpu_count() or 1)
        finish_captions(
            trainer.learner,
            some_of(trainer.scenes),
            recipe.caption_steps - trainer.caption_steps,
            seed=recipe.seed,
            log_line=say,
        )
    trainer.processes.first(None)
    trainer.caption_steps = recipe.caption_steps
    trainer.save(out / 'last.pt')


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

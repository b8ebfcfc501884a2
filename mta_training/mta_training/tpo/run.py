"""`mta-train tpo`: bags and a detector in, a model that can be asked out, stage by stage."""

from dataclasses import replace
from pathlib import Path
import shutil

import torch

from mta_perception.atomic_files import sha256
from mta_perception.bags.scene_bag import SceneBag, find_bags
from mta_perception.config import MemoryConfig
from mta_perception.directory_lock import sole_writer
from mta_perception.model.config import BevConfig, ImageConfig, MtaConfig
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.torch_detector import TorchDetector
from mta_perception.runtime.torch_llama import load_llama
from mta_training.questions.mixture import questions_of_scene
from mta_training.questions.scene_facts import scene_facts
from mta_training.runs.run_directory import RunError, load_run
from mta_training.tpo.batches import asked
from mta_training.tpo.frames import all_frames
from mta_training.tpo.host import pretrain_words, word_tokenizer
from mta_training.tpo.judged import judge_asker, told
from mta_training.tpo.live import LiveEyes
from mta_training.tpo.run_files import (
    build_asker,
    is_whole,
    load_asker,
    read_recipe,
    read_stage,
    save_detector,
    stage_folder,
    take_up,
    write_run,
)
from mta_training.tpo.stages import train_stage
from mta_training.tpo.words import Vocabulary

_PER_FRAME = 4.0  # questions a frame that the words are learned from


class Eyes:
    """The detector that is asked, from a model directory or a run."""

    def __init__(self, directory, threads=1):
        self.directory, self.qformer, self.detector = Path(directory), None, None
        self.live = None  # a LiveEyes, of a run whose bags are trained on
        if (self.directory / 'manifest.yaml').is_file():
            manifest = Manifest.load(self.directory)
            self.engine = OnnxDetector(manifest, threads)
            self.image = ImageConfig(
                manifest.image.width, manifest.image.height, manifest.image.scale
            )
            self.memory = MemoryConfig.trained_at(manifest.history_step_s)
            bev = manifest.bev
            self.model = MtaConfig(
                name=manifest.name,
                detector='nano' if manifest.pairs is None else 'bevformer_tiny',
                image=self.image,
                bev=BevConfig(bev.half_extent_m, bev.cells, bev.channels),
            )
            self.identity = sha256(self.directory / 'detector.onnx')
        elif (self.directory / 'last.pt').is_file():
            loaded = load_run(self.directory)
            self.engine = TorchDetector(loaded.model.detector, bf16=False)
            self.detector = loaded.model.detector
            self.model, self.image = loaded.model.config, loaded.model.config.image
            self.qformer = loaded.model.qformer.state_dict()
            self.memory = MemoryConfig()
            self.identity = sha256(self.directory / 'last.pt')
            self.detector.requires_grad_(False)
        else:
            raise RunError(
                f'{directory} is neither a model directory (manifest.yaml) nor a run of '
                '`mta-train train` (last.pt).'
            )


def scenes_of(bags, eyes, cache, count):
    """{name: Asked} of a directory of bags."""
    paths = find_bags(bags)
    frames = all_frames(paths, eyes.engine, eyes.image, eyes.identity, cache, count, eyes.memory)
    scenes = {}
    for path in paths:
        # By the bag: two datasets may have a scene of the same name.
        facts = scene_facts(SceneBag(path))._replace(name=path.name)
        scenes[path.name] = asked(frames[path.name], facts)
    return scenes


def train(
    bags,
    out,
    recipe,
    stage,
    detector,
    *,
    val_bags=None,
    cache=None,
    resume=False,
    steps=None,
    minutes=None,
    threads=0,
    log_line=print,
):
    """Run one stage (and those before it that were not run) into the directory `out`.

    val_bags: directory of bags that judge each stage at its end (judged.py).  Returns
    {stage: Trained}.
    """
    out = Path(out)
    if threads:
        torch.set_num_threads(threads)
    with sole_writer(out):
        eyes = Eyes(detector)
        cache, objects = cache or out / 'cache', recipe.asking.objects
        scenes = scenes_of(bags, eyes, cache, objects)
        if eyes.detector is not None and stage == 3:
            eyes.live = LiveEyes.of_bags(eyes.detector, find_bags(bags), eyes.image, cache)
        judges = scenes_of(val_bags, eyes, cache, objects) if val_bags else {}
        length = {'steps': steps, 'minutes': minutes}
        return train_stages(
            out, recipe, stage, eyes, scenes, judges, resume=resume, log_line=log_line, **length
        )


def train_stages(
    out, recipe, stage, eyes, scenes, judges, *, resume=False, log_line=print, **length
):
    """As `train`, of scenes that are there: {name: Asked} to learn from, and to judge with."""
    if (out / 'recipe.yaml').is_file():
        recipe, model, _ = _same(out, recipe)
        asker = build_asker(out, recipe, model)
    else:
        torch.manual_seed(recipe.seed)
        asker = _begin(out, recipe, eyes, scenes, log_line)
    done = {}
    for number in range(stage + 1):
        last = number == stage
        if not last and is_whole(read_stage(out, number)):
            continue
        before = read_stage(out, number - 1) if number else None
        if before is not None:
            take_up(out, number - 1, before, asker)
        asker.eyes = eyes.live if number == 3 else None
        if number == 3 and eyes.live is None:
            log_line(f'{eyes.directory} is a model: its detector stays as it is.')
        if not resume and last:
            shutil.rmtree(stage_folder(out, number), ignore_errors=True)
        trained = done[number] = train_stage(
            out,
            number,
            asker,
            recipe,
            scenes,
            resume=resume or not last,  # one that was cut on the way to another goes on
            **(length if last else {}),
        )
        log_line(
            f'stage {number}: {trained.steps} steps, {trained.questions} questions, '
            f'{trained.seconds / 60.0:.1f} min, loss {trained.loss:.3f}'
        )
        if asker.eyes is not None:
            save_detector(out, number, asker.eyes, eyes.directory)
            asker.eyes = None
        if judges:
            folder = stage_folder(out, number)
            how = {'textual': recipe.textual, 'trained': number >= 2}
            log_line(told(judge_asker(asker, judges, folder, **how)))
    return done


def judge_run(run, bags, out=None, stage=None, detector=None, per_frame=1.0, cache=None):
    """Judge a run on bags; returns lines to print.  None: its last stage, its own detector."""
    recipe, _, seen_by = read_recipe(run)
    if stage is None:
        stage = next((n for n in (3, 2, 1) if read_stage(run, n) is not None), 0)
    asker, _, _ = load_asker(run, stage)
    cache = cache or Path(run) / 'cache'
    scenes = scenes_of(bags, Eyes(detector or seen_by), cache, recipe.asking.objects)
    out = Path(out or stage_folder(run, stage))
    how = {'textual': recipe.textual, 'trained': stage >= 2}
    metrics = judge_asker(asker, scenes, out, per_frame, **how)
    return f'stage {stage}: {told(metrics)}', f'written: {out / "metrics.json"}, answers.png'


def _same(out, recipe):
    """(TpoRecipe, MtaConfig, detector) of a run that is there; RunError where another is asked
    for."""
    found = read_recipe(out)
    wanted = replace(recipe, stages=found[0].stages)
    if wanted != found[0]:
        raise RunError(
            f'{out} was begun with other settings ({found[0].name}); use another --out, or the '
            'same config. Only the stages may change.'
        )
    return replace(found[0], stages=recipe.stages), *found[1:]


def _begin(out, recipe, eyes, scenes, log_line):
    """A fresh Asker, its words and language model; writes the run's files."""
    language, tokenizer = None, None
    if recipe.language_directory:
        size = load_llama(recipe.language_directory, torch.float32).config.hidden_size
        model = replace(
            eyes.model, language=replace(eyes.model.language, hidden_size=size, adapter_tokens=0)
        )
    else:
        pairs = [
            (question.text, question.answer)
            for name in sorted(scenes)
            for question in questions_of_scene(
                scenes[name].facts, recipe.seed, per_frame=_PER_FRAME, wordings='seen'
            )
        ]
        tokenizer = word_tokenizer([f'{text} {answer}' for text, answer in pairs])
        size = replace(recipe.language, vocab_size=tokenizer.get_vocab_size(), adapter_tokens=0)
        model = replace(eyes.model, language=size)
        language, _ = pretrain_words(
            Vocabulary(tokenizer), size, pairs, recipe.word_steps, recipe.seed, log_line=log_line
        )
    write_run(out, recipe, model, tokenizer, eyes.directory)
    asker = build_asker(out, recipe, model, language)
    if recipe.asking.host == 'mta':
        _take_qformer(asker, eyes, log_line)
    return asker


def _take_qformer(asker, eyes, log_line):
    """The aligned Q-Former of the run that is asked; of a model directory there is none here."""
    if eyes.qformer is None:
        log_line(
            f'{eyes.directory} is a model: its Q-Former begins anew; give the run, or what '
            '`mta-train rebuild` makes of the model, to begin with the aligned one.'
        )
        return
    own = asker.tasks.connector.qformer
    kept = {k: v for k, v in eyes.qformer.items() if not k.startswith('prefix.')}
    own.load_state_dict({**own.state_dict(), **kept})

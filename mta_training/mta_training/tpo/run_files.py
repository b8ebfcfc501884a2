"""A TPO run directory: recipe, tokenizer, and a folder a stage with its checkpoint and log.

RUN/recipe.yaml tokenizer.json   RUN/stage0 .. stage3: last.pt log.csv metrics.json pictures/
"""

from pathlib import Path
import shutil

import torch
import yaml

from mta_perception.atomic_files import whole, write_atomically
from mta_perception.model.asking import TaskModel
from mta_perception.model.config import MtaConfig
from mta_perception.model.language import LanguageModel
from mta_perception.plain_yaml import read_yaml
from mta_perception.runtime.torch_llama import load_llama, load_tokenizer
from mta_training.runs.run_directory import RunError, read_checkpoint
from mta_training.tensor_files import fill, read_tensors, tensors_of
from mta_training.tpo.host import ForeignHost, SmallHost, add_lora
from mta_training.tpo.objective import Asker
from mta_training.tpo.recipe import TpoRecipe
from mta_training.tpo.words import Vocabulary

SEEN_BY = 'detector.yaml'  # sizes of the detector that the run asks, and where it was


def stage_folder(run, stage):
    """RUN/stageN."""
    return Path(run) / f'stage{stage}'


def write_run(run, recipe, model, tokenizer, detector):
    """recipe.yaml, tokenizer.json, detector.yaml of a fresh run; model: MtaConfig."""
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        with whole(run / 'tokenizer.json') as partial:
            tokenizer.save(str(partial))
    values = {'detector': str(detector), 'model': model.to_dict()}
    write_atomically(run / SEEN_BY, yaml.safe_dump(_plain(values), sort_keys=False))
    write_atomically(
        run / 'recipe.yaml', yaml.safe_dump(_plain(recipe.to_dict()), sort_keys=False)
    )


def read_recipe(run):
    """(TpoRecipe, MtaConfig, where its detector was) of a run directory; RunError where there is
    none."""
    run = Path(run)
    for name in ('recipe.yaml', SEEN_BY):
        if not (run / name).is_file():
            raise RunError(
                f'{run / name} does not exist; expected a directory that `mta-train tpo` wrote.'
            )
    seen = read_yaml(run / SEEN_BY)
    if not isinstance(seen, dict) or not isinstance(seen.get('model'), dict):
        raise RunError(f'{run / SEEN_BY} has no `model`; remove the run and begin anew.')
    recipe = TpoRecipe.from_dict(read_yaml(run / 'recipe.yaml'))
    return recipe, MtaConfig.from_dict(seen['model']), str(seen.get('detector', ''))


def build_asker(run, recipe, model, language=None):
    """Asker with fresh weights; language: a LanguageModel, or None for a fresh one."""
    if recipe.language_directory:
        host = ForeignHost.of(
            load_llama(recipe.language_directory, torch.float32),
            load_tokenizer(recipe.language_directory),
        )
    else:
        host = SmallHost(
            language or LanguageModel(model.language), Vocabulary(load_tokenizer(Path(run)))
        )
    lora = recipe.lora
    add_lora(host, lora.rank, lora.alpha, lora.dropout)
    return Asker(TaskModel(recipe.asking, model), host, recipe.weights, recipe.detach)


def save_stage(run, stage, asker, optimizer, step, seen, ended=False):
    """RUN/stageN/last.pt, whole or not at all; ended: the stage was trained to its end."""
    folder = stage_folder(run, stage)
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / 'last.pt') as partial:
        torch.save(
            {
                'asker': asker.state_dict(),
                'optimizer': optimizer.state_dict(),
                'step': step,
                'seen': seen,
                'ended': int(ended),
            },
            partial,
        )


def save_detector(run, stage, eyes, source):
    """RUN/stageN/detector: the run directory `source` with what its detector has learned since,
    for `mta-train eval` and `export`."""
    folder = stage_folder(run, stage) / 'detector'
    folder.mkdir(parents=True, exist_ok=True)
    for name in ('recipe.yaml', 'tokenizer.json', 'language.pt'):
        if (Path(source) / name).is_file():
            with whole(folder / name) as partial:
                shutil.copyfile(Path(source) / name, partial)
    state = read_checkpoint(source)
    learned = {f'detector.{name}': value for name, value in eyes.detector.state_dict().items()}
    state['model'] = {**state['model'], **learned}
    state['learner'] = {
        **state['learner'],
        **{f'model.{name}': value for name, value in learned.items()},
    }
    with whole(folder / 'last.pt') as partial:
        torch.save(state, partial)


def read_stage(run, stage):
    """The dict of RUN/stageN/last.pt, or None where there is none."""
    path = stage_folder(run, stage) / 'last.pt'
    if not path.is_file():
        return None
    state = read_tensors(path)
    tensors_of(state, 'asker', path)
    for name in ('step', 'seen'):
        if not isinstance(state.get(name), int):
            raise RunError(f'{path}: no number {name!r}; it is no checkpoint of `mta-train tpo`.')
    return state


def take_up(run, stage, state, asker, optimizer=None):
    """Load what `read_stage` gave into an Asker, and into its optimiser to go on with the stage.

    Raises TensorFileError or RunError where it is of another network.
    """
    path = stage_folder(run, stage) / 'last.pt'
    # The detector learns with the rest in stage 3 alone; elsewhere it is none of the Asker's.
    eyes = {name for name in asker.state_dict() if name.startswith('eyes.')}
    tensors = {
        name: value
        for name, value in state['asker'].items()
        if eyes or not name.startswith('eyes.')
    }
    fill(asker, tensors, path, eyes)
    if optimizer is None:
        return
    try:
        optimizer.load_state_dict(state['optimizer'])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise RunError(
            f'{path}: its optimiser is not that of this recipe; begin the stage anew, without '
            '--resume.'
        ) from None


def is_whole(state):
    """Whether a checkpoint (or None) is that of a stage that was trained to its end."""
    return state is not None and bool(state.get('ended', 1))


def load_asker(run, stage=None):
    """(Asker in evaluation mode, TpoRecipe, MtaConfig) of a run after a stage; None = its last."""
    recipe, model, _ = read_recipe(run)
    stages = [3, 2, 1, 0] if stage is None else [stage]
    for number in stages:
        state = read_stage(run, number)
        if state is not None:
            asker = build_asker(run, recipe, model)
            take_up(run, number, state, asker)
            return asker.eval(), recipe, model
    raise RunError(f'{run} has no stage{stages[0]}/last.pt; run `mta-train tpo --stage` first.')


def _plain(value):
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value

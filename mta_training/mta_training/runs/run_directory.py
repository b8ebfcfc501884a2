"""What lies in a run directory, and how a network is built from it.

A checkpoint holds weights, optimiser, stream and memory; not the frozen language model, which lies
in `language.pt` or in the directory that the recipe names.
"""

from dataclasses import replace
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import torch
import yaml

from mta_perception.atomic_files import whole, write_atomically
from mta_perception.model.bevformer.detector import BevFormerDetector
from mta_perception.model.mta_model import MtaModel
from mta_perception.runtime.torch_llama import load_tokenizer
from mta_training.bevformer.checkpoint import CARD, load_imported
from mta_training.language import small_model
from mta_training.language.frozen_llama import CaptionLanguage
from mta_training.language.text_embeddings import CaptionEmbeddings
from mta_training.runs.recipe import Recipe
from mta_training.tensor_files import fill, read_tensors, tensors_of


class RunError(ValueError):
    """A run directory, checkpoint or recipe that does not fit; the message says what to do."""


class LoadedRun(NamedTuple):
    """A trained network, ready to look and speak."""

    model: MtaModel  # in evaluation mode
    language: CaptionLanguage
    recipe: Recipe
    state: dict[str, Any]  # the checkpoint


def build_language(out, captions, recipe, text_cache):
    """(CaptionLanguage, CaptionEmbeddings or None, recipe with the vocabulary's size).

    Our own language model is trained once per run directory, on `captions`, and found there later.
    Writes recipe.yaml.
    """
    if not captions:
        raise RunError(
            'none of the training bags has captions; convert a dataset that has them '
            '(synth writes them, TOD3Cap has them for nuScenes).'
        )
    embeddings = None
    if recipe.alignment.bla != 'off':
        embeddings = CaptionEmbeddings.of(captions, recipe.alignment.text_encoder, text_cache)
    if recipe.language.model == 'small':
        if not (out / 'language.pt').is_file():
            _pretrain(out, captions, recipe)
        torch.manual_seed(recipe.seed)  # of the adapter; whether pretraining came first or not
        language, size = small_language(out, recipe)
    else:
        torch.manual_seed(recipe.seed)
        language = foreign_language(recipe)
        size = replace(
            recipe.model.language, hidden_size=language.hidden_size, vocab_size=language.vocab_size
        )
    recipe = replace(recipe, model=replace(recipe.model, language=size))
    write_atomically(out / 'recipe.yaml', yaml.safe_dump(recipe.to_dict(), sort_keys=False))
    return language, embeddings, recipe


def _pretrain(out, captions, recipe):
    started = Path(recipe.start) if recipe.start else None
    if started and _speaks(started, captions, recipe.model.language):
        # One for all that start from a run; the captioner that may come with it speaks to it.
        for name in ('tokenizer.json', 'language.pt'):
            with whole(out / name) as partial:
                shutil.copyfile(started / name, partial)
        return
    tokenizer = small_model.train_tokenizer(captions)
    size = replace(recipe.model.language, vocab_size=tokenizer.get_vocab_size(), adapter_tokens=0)
    weights, _ = small_model.pretrain(
        captions,
        tokenizer,
        size,
        recipe.model.qformer.prefix_tokens,
        steps=recipe.language.pretrain_steps,
        seed=recipe.seed,
    )
    with whole(out / 'tokenizer.json') as partial:
        tokenizer.save(str(partial))
    with whole(out / 'language.pt') as partial:
        torch.save(weights.state_dict(), partial)


def _speaks(run, captions, size):
    """Whether the language model of another run is of this size and knows all words."""
    if not all((run / name).is_file() for name in ('tokenizer.json', 'language.pt')):
        return False
    weights = _language_tensors(run)
    layers = sum(name.endswith('input_layernorm.weight') for name in weights)
    gates = [value for name, value in weights.items() if name.endswith('gate_proj.weight')]
    if not gates or (layers, *gates[0].shape) != (
        size.num_hidden_layers,
        size.intermediate_size,
        size.hidden_size,
    ):
        return False
    tokenizer = load_tokenizer(run)
    encoded = tokenizer.encode_batch(list(set(captions)), add_special_tokens=False)
    return not any(small_model.UNKNOWN in entry.ids for entry in encoded)


def _language_tensors(run):
    path = run / 'language.pt'
    return tensors_of({'weights': read_tensors(path)}, 'weights', path)


def small_language(run, recipe):
    """(CaptionLanguage, LanguageConfig) of our own model in a run directory."""
    run = Path(run)
    for name in ('tokenizer.json', 'language.pt'):
        if not (run / name).is_file():
            raise RunError(
                f'{run / name} does not exist; expected a run directory written by '
                '`mta-train train`.'
            )
    tokenizer = load_tokenizer(run)
    size = replace(recipe.model.language, vocab_size=tokenizer.get_vocab_size(), adapter_tokens=0)
    weights = _language_tensors(run)
    language = CaptionLanguage.small(
        tokenizer, size, weights, recipe.language.adapter_tokens, run / 'language.pt'
    )
    return language, replace(size, adapter_tokens=recipe.language.adapter_tokens)


def foreign_language(recipe, dtype=''):
    """CaptionLanguage of the directory that a recipe names; dtype: another than the recipe's."""
    settings = recipe.language
    return CaptionLanguage.from_directory(
        settings.model,
        settings.adapter_tokens,
        dtype or settings.dtype,
        settings.prompt,
        settings.gradient_checkpointing,
        recipe.model.language.max_tokens,
    )


def build_model(recipe):
    """A fresh MtaModel."""
    return MtaModel(recipe.model)


def write_checkpoint(path, learner, state, rest):
    """Write a Learner's state without what is frozen in its language model; atomic.

    state   its state_dict as the accelerator gives it; rest: more entries of the checkpoint
    """
    frozen = {
        name
        for name, parameter in learner.named_parameters()
        if name.startswith('language.') and not parameter.requires_grad
    }
    kept = {
        name: value
        for name, value in state.items()
        if name not in frozen and not name.startswith('language.llama.lm_head')
    }
    try:
        with whole(path) as partial:
            torch.save(
                {
                    'learner': kept,
                    'model': part_of(kept, 'model.'),
                    'adapter': learner.language.trained_state(),
                    **rest,
                },
                partial,
            )
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError on a full disk
        raise RunError(
            f'{path} could not be written ({error}); the checkpoint before it is '
            'whole. Make room and go on with --resume.'
        ) from error


def part_of(state, prefix):
    """The entries of a state_dict below a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def read_checkpoint(run, which='last'):
    """The dict of a run's checkpoint; RunError where there is none."""
    path = Path(run) / f'{which}.pt'
    if not path.is_file():
        raise RunError(
            f'{path} does not exist; expected a run directory written by `mta-train train --out`.'
        )
    return read_checkpoint_file(path)


_ENTRIES = {'recipe': dict, 'step': int, 'seen': int, 'data': str}


def read_checkpoint_file(path):
    """The dict of a checkpoint file, as it would be written now.  Raises RunError, ValueError."""
    state = read_tensors(path)
    for name in ('learner', 'model', 'adapter'):
        tensors_of(state, name, path)
    for name, kind in _ENTRIES.items():
        if not isinstance(state.get(name), kind):
            raise RunError(
                f'{path}: {name!r} is {type(state.get(name)).__name__}, expected '
                f'{kind.__name__}; it is no checkpoint that `mta-train train` wrote.'
            )
    return _with_todays_names(state)


def _with_todays_names(checkpoint):
    """The pyramid was part of the backbone once, and the perspective head alone."""

    def renamed(tensors):
        return {
            name.replace('.backbone.lateral.', '.pyramid.lateral.')
            if not name.startswith('perspective.')
            else f'heads.{name}': value
            for name, value in tensors.items()
        }

    return {**checkpoint, **{key: renamed(checkpoint[key]) for key in ('learner', 'model')}}


def origin(start):
    """What a run's detector had learned before, as the model card says it."""
    if not start:
        return {}
    try:
        state = read_checkpoint(start)
    except RunError:
        return {'detector_from': Path(start).name}
    return {'detector_from': f'{Path(start).name}: {state["step"]} steps, {state["data"]}'}


def load_run(run, which='last', foreign_dtype=''):
    """LoadedRun of a run directory; `which` is last or best.

    foreign_dtype: of the frozen weights of a foreign language model, where not the recipe's
    """
    state = read_checkpoint(run, which)
    recipe = Recipe.from_dict(state['recipe'])
    language = (
        small_language(run, recipe)[0]
        if recipe.language.model == 'small'
        else foreign_language(recipe, foreign_dtype)
    )
    language.load_trained_state(state['adapter'])
    model = build_model(recipe)
    fill(model, state['model'], run)
    return LoadedRun(model.eval(), language.eval(), recipe, state)


def fitted(recipe):
    """The recipe, its detector as large as the one that it starts from, if it asks for that."""
    if not (recipe.start and recipe.start_sizes) or (Path(recipe.start) / CARD).is_file():
        return recipe
    found = Recipe.from_dict(read_checkpoint(recipe.start)['recipe']).model
    mine = recipe.model
    return replace(recipe, model=replace(found, qformer=mine.qformer, language=mine.language))


def load_detector(run, learner, with_captioner=False):
    """Start a Learner from the detector (and its training's heads) of another run's checkpoint,
    or from a directory of `mta-train import-bevformer`.

    with_captioner  its Q-Former and adapter too
    """
    if (Path(run) / CARD).is_file():
        _load_published(run, learner.model)
        return
    state = read_checkpoint(run)
    weights = state['model']
    wanted = learner.model if with_captioner else learner.model.detector
    found = weights if with_captioner else part_of(weights, 'detector.')
    fill(wanted, found, run)
    if learner.heads is not None:
        # A run with other terms had other heads; those begin anew.
        learner.heads.load_state_dict(part_of(state['learner'], 'heads.'), strict=False)
    if with_captioner:
        learner.language.load_trained_state(state['adapter'])


def _load_published(directory, model):
    network = load_imported(directory)
    detector = model.detector
    if not isinstance(detector, BevFormerDetector) or not _same_but_quirks(
        detector.network.config, network.config
    ):
        raise RunError(
            f'{directory} holds BEVFormer {network.config.name}, the recipe wants '
            f'{detector.config.detector}; set model.detector in the recipe '
            '(MtaConfig.bevformer).'
        )
    detector.network.load_state_dict(network.state_dict())


def _same_but_quirks(one, other):
    return replace(one, quirks=other.quirks) == other

"""A trained TaskModel with its language model as the graphs that the node asks.

The graphs' inputs and outputs are in docs/architecture.md; runtime/asking.py runs them.  One
question at a time: N = 1.
"""

import json
from pathlib import Path
import shutil

import numpy as np
import torch
from torch import nn
import yaml

from mta_perception.answers import EGO_NUMBERS
from mta_perception.atomic_files import renewed, sha256, write_atomically
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.directory_lock import sole_writer
from mta_perception.model.asking import Scene
from mta_perception.plain_yaml import read_yaml
from mta_perception.runtime.asking import OnnxAsker
from mta_perception.runtime.manifest import FILE_NAME, Manifest
from mta_perception.runtime.task_spec import (
    ASK_LANGUAGE,
    ASK_PREFIX,
    ASK_TOKENIZER,
    head_file,
)
from mta_training.export.graphs import save_graph
from mta_training.export.half_weights import halve, keep_in_half
from mta_training.tpo.host import merged_language
from mta_training.tpo.run_files import load_asker, stage_folder

MOST_APART = 1e-4
LEAST_MOMENT, MOST_UNKNOWN, LEAST_WORD = 0.5, 0.3, 0.25
_FRAMES = 3  # of the examples that graphs are traced with
_MOST_FRAMES = 128


class PrefixGraph(nn.Module):
    """Remembered frames -> soft words, frames for the temporal head, learned vectors."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = tasks

    def forward(self, objects, own_boxes, class_logits, bev_mean, ego, bev):
        """Scene without `boxes` -> prefix (1, P, D), frames (1, T, W), slots (H, D), ages (T,
        D)."""
        there = torch.ones_like(bev_mean[..., 0], dtype=torch.bool)
        scene = Scene(objects, own_boxes, own_boxes, class_logits, bev_mean, ego, there, bev)
        read = self.tasks.connector(scene)
        slots = torch.stack([self.tasks.tokens[name] for name in self.tasks.config.heads])
        ages = self.tasks.connector.age[self.tasks.config.memory - objects.shape[1] :]
        return read.prefix, read.frames, slots, ages


class AskLanguageGraph(nn.Module):
    """The language model: logits of the last place, hidden states of all new ones."""

    def __init__(self, language):
        super().__init__()
        self.language = language

    def forward(self, prefix, token_ids, past_keys, past_values):
        """As docs/architecture.md."""
        outputs = self.language(prefix, token_ids, past_keys, past_values)
        return outputs.logits[:, -1], outputs.hidden, outputs.keys, outputs.values


class RegionGraph(nn.Module):
    """The region head without what training reads."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, e, objects, boxes, class_logits):
        """-> pointer (1, K + 1), code (1, 10)."""
        outputs = self.head(e, objects, boxes, class_logits)
        return outputs.pointer, outputs.code


class TemporalGraph(nn.Module):
    """The temporal head, nothing padded."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, e, words, frames):
        """-> spans (1, R, 2), logits (1, R, 2), saliency (1, T)."""
        there = [torch.ones_like(x[..., 0], dtype=torch.bool) for x in (words, frames)]
        return tuple(self.head(e, words, there[0], frames, there[1]))


class MaskGraph(nn.Module):
    """The mask head, of its guesses the one that it prefers."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, e, bev, objects, boxes, class_logits):
        """-> mask (1, 4Y, 4X) logits, iou (1,), present (1,)."""
        outputs = self.head(e, bev, objects, boxes, class_logits)
        return outputs.best(), outputs.iou.amax(-1), outputs.present


class TrackGraph(nn.Module):
    """The track head, nothing padded."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, e, objects, boxes, class_logits):
        """-> pointer (1, T, K + 1), code (1, T, 10)."""
        there = torch.ones_like(e[..., 0], dtype=torch.bool)
        outputs = self.head(e, objects, boxes, class_logits, there)
        return outputs.pointer, outputs.code


_HEAD_GRAPHS = {
    'region': (RegionGraph, ('pointer', 'code')),
    'temporal': (TemporalGraph, ('spans', 'logits', 'saliency')),
    'mask': (MaskGraph, ('mask', 'iou', 'present')),
    'track': (TrackGraph, ('pointer', 'code')),
}


def example_scene(model, objects, frames=_FRAMES, seed=0):
    """{name: tensor} of Scene's inputs; model: MtaConfig."""
    generator = torch.Generator().manual_seed(seed)
    channels, cells = model.bev.channels, model.bev.cells
    width = (2 if model.detector == 'nano' else 1) * channels
    shapes = {
        'objects': (1, frames, objects, width),
        'own_boxes': (1, frames, objects, BoxCode.WIDTH),
        'class_logits': (1, frames, objects, len(CLASSES)),
        'bev_mean': (1, frames, channels),
        'ego': (1, frames, EGO_NUMBERS),
        'bev': (1, channels, cells, cells),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def graph_parts(tasks, language, model, objects, seed=0, frames=_FRAMES, past=2):
    """graph name -> (module, {input: tensor}, output names, dynamic shapes) of a TaskModel.

    objects: K of each frame.  model: MtaConfig.
    """
    scene = example_scene(model, objects, frames, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    size = language.config
    time = {1: torch.export.Dim('frames', min=1, max=_MOST_FRAMES)}

    def random(*shape):
        return torch.randn(shape, generator=generator)

    def dims(name, most):
        return torch.export.Dim(name, max=most)

    cache = (size.num_hidden_layers, 1, size.num_attention_heads, past, size.head_dim)
    ids = torch.randint(0, size.vocab_size, (1, 2), generator=generator)
    parts = {
        'prefix': (
            PrefixGraph(tasks),
            scene,
            ('prefix', 'frames', 'slots', 'ages'),
            (time, time, time, time, time, None),
        ),
        'language': (
            AskLanguageGraph(language),
            {
                'prefix': random(1, 3, size.hidden_size),
                'token_ids': ids,
                'past_keys': random(*cache),
                'past_values': random(*cache),
            },
            ('logits', 'hidden', 'keys', 'values'),
            (
                {1: dims('prefix', 1024)},
                {1: dims('tokens', 1024)},
                {3: (kept := dims('past', 4096))},
                {3: kept},
            ),
        ),
    }
    e, now = random(1, size.hidden_size), {name: value[:, -1] for name, value in scene.items()}
    seen = {'objects': scene['objects'], 'boxes': scene['own_boxes']}
    of_now = {
        'objects': now['objects'],
        'boxes': now['own_boxes'],
        'class_logits': now['class_logits'],
    }
    inputs = {
        'region': {'e': e, **of_now},
        'temporal': {
            'e': e,
            'words': random(1, 4, size.hidden_size),
            'frames': random(1, frames, tasks.config.width),
        },
        'mask': {'e': e, 'bev': scene['bev'], **of_now},
        'track': {
            'e': random(1, frames, size.hidden_size),
            **seen,
            'class_logits': scene['class_logits'],
        },
    }
    dynamic = {
        'region': None,
        'temporal': (None, {1: dims('words', 512)}, time),
        'mask': None,
        'track': (time, time, time, time),
    }
    for head in tasks.config.heads:
        graph, outputs = _HEAD_GRAPHS[head]
        parts[head] = graph(tasks.heads[head]), inputs[head], outputs, dynamic[head]
    return parts


def file_of(name):
    """File of a part of `graph_parts`."""
    return {'prefix': ASK_PREFIX, 'language': ASK_LANGUAGE}.get(name) or head_file(name)


def export_task_graphs(tasks, language, model, objects, directory):
    """Write all ask_*.onnx of a TaskModel and a LanguageModel."""
    parts = graph_parts(tasks.float().eval(), language.float().eval(), model, objects)
    for name, (module, inputs, outputs, dynamic) in parts.items():
        save_graph(
            module,
            tuple(inputs.values()),
            Path(directory) / file_of(name),
            list(inputs),
            list(outputs),
            dynamic,
        )


def tasks_section(tasks, language, vocabulary, objects):
    """`tasks:` of a manifest."""
    size, ids = language.config, vocabulary
    never = sorted({ids.pad, ids.bos, ids.answer, ids.slot, ids.here} - {ids.eos})
    return {
        'heads': {head: ids.tasks[head] for head in tasks.config.heads},
        'memory': tasks.config.memory,
        'objects': objects,
        'frame_width': tasks.config.width,
        'language': {
            'width': size.hidden_size,
            'layers': size.num_hidden_layers,
            'heads': size.num_attention_heads,
            'head_dim': size.head_dim,
            'vocabulary': size.vocab_size,
            'bos': ids.bos,
            'eos': ids.eos,
            'answer': ids.answer,
            'unknown': ids.tokenizer.token_to_id('<unk>'),
            'never': never,
            'max_words': 96,
            'max_tokens': 48,
        },
        'least_moment': LEAST_MOMENT,
        'most_unknown': MOST_UNKNOWN,
        'least_word': LEAST_WORD,
    }


def export_run(run, directory, out, stage=None, half=True):
    """`add_tasks` of a run of `mta-train tpo` to the model in `directory`.

    Returns (graph -> largest difference between torch and graph, MB of what was added).  Raises
    ValueError where the run asks a language model that is not ours: the node has none.
    """
    asker, recipe, model = load_asker(run, stage)
    if recipe.language_directory:
        raise ValueError(
            f'{run} asks the language model in {recipe.language_directory}; only our own one has '
            'graphs. Train with `language_directory` empty.'
        )
    manifest = Manifest.load(directory)
    _check_detector(run, model, manifest)
    training = {'recipe': recipe.name, 'seed': recipe.seed, 'detector': manifest.name}
    vocabulary = asker.host.vocabulary
    metrics = {}
    for number in (3, 2, 1, 0) if stage is None else (stage,):
        path = stage_folder(run, number) / 'metrics.json'
        if path.is_file():
            metrics = {'stage': number, **json.loads(path.read_text(encoding='utf-8'))}
            break
    apart = add_tasks(
        asker.tasks,
        merged_language(asker.host),
        vocabulary,
        model,
        directory,
        out,
        training,
        metrics,
        half,
    )
    added = Manifest.load(out)
    sizes = [added.path(name).stat().st_size for name in added.tasks.files]
    return apart, sum(sizes) / 1e6


def _check_detector(run, model, manifest):
    """Raises ValueError where the run saw another detector's outputs than `manifest` has."""
    sizes = {'cells': model.bev.cells, 'channels': model.bev.channels}
    came = {'cells': manifest.bev.cells, 'channels': manifest.bev.channels}
    if sizes != came:
        raise ValueError(
            f'{manifest.directory} has a BEV of {came}, the run {run} was trained on {sizes}. '
            'Name the model that the run asked (its detector.yaml) with --model.'
        )


def add_tasks(
    tasks, language, vocabulary, model, directory, out, training=None, metrics=None, half=True
):
    """Write a model directory `out`: that of `directory` with the graphs of a TaskModel.

    training, metrics: entries `asking` of the manifest's own.  half: weights are kept in 16 bits.
    Returns graph -> largest difference between torch (with such weights) and graph; raises
    ValueError where that is above MOST_APART.
    """
    if half:
        for module in (tasks, language):
            halve(module)
    manifest = Manifest.load(directory)
    section = tasks_section(tasks, language, vocabulary, tasks.config.objects)
    heads = tuple(head_file(head) for head in section['heads'])
    own = (ASK_PREFIX, ASK_LANGUAGE, ASK_TOKENIZER, *heads)
    kept = [path.name for path in manifest.directory.iterdir() if path.is_file()]
    kept = [name for name in kept if not name.startswith('ask_') and name != FILE_NAME]
    with sole_writer(out), renewed(out, (*kept, *own, FILE_NAME)) as draft:
        for name in kept:
            shutil.copyfile(manifest.directory / name, draft / name)
        export_task_graphs(tasks, language, model, tasks.config.objects, draft)
        if half:
            for name in own:
                if name.endswith('.onnx'):
                    keep_in_half(draft / name)
        vocabulary.tokenizer.save(str(draft / ASK_TOKENIZER))
        values = read_yaml(manifest.directory / FILE_NAME)
        files = {name: value for name, value in values['files'].items() if name in kept}
        values['files'] = files | {name: sha256(draft / name) for name in own}
        values['tasks'], values['name'] = section, Path(out).resolve().name
        values['training'] = {**values['training'], 'asking': training or {}}
        values['metrics'] = {**values['metrics'], 'asking': metrics or {}}
        write_atomically(draft / FILE_NAME, yaml.safe_dump(values, sort_keys=False))
        apart = task_parity(tasks, language, model, draft)
    return apart


def task_parity(tasks, language, model, directory):
    """graph -> largest difference between torch and the graphs of a model directory, for two, for
    few and for as many frames as there may be.  Raises ValueError above MOST_APART.

    Not for one: a frame is then the mean of all, each prompt of CG-DETR is as near to it as any
    other, and which of them is taken is up to the runtime.
    """
    asker, apart = OnnxAsker(Manifest.load(directory)), {}
    objects = tasks.config.objects
    for frames, past in ((2, 0), (5, 7), (tasks.config.memory, 40)):
        parts = graph_parts(tasks, language, model, objects, seed=frames, frames=frames, past=past)
        for name, (module, inputs, outputs, _) in parts.items():
            with torch.no_grad():
                wanted = dict(zip(outputs, module(*inputs.values())))
            came = asker.run(name, {key: value.numpy() for key, value in inputs.items()})
            most = max(
                float(np.abs(came[key] - wanted[key].detach().numpy()).max()) for key in outputs
            )
            apart[name] = max(apart.get(name, 0.0), most)
    worst = max(apart, key=apart.get)
    if not apart[worst] <= MOST_APART:
        raise ValueError(
            f'{directory}: torch and {file_of(worst)} differ by {apart[worst]:.2e}; expected at '
            f'most {MOST_APART:g}. The exported graph is not the trained network.'
        )
    return apart

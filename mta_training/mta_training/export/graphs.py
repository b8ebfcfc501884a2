"""Trained network -> `models/<name>/`: three ONNX graphs, tokeniser, manifest, model card.

The graphs' inputs and outputs are the table in docs/architecture.md; `parity` runs each against
torch with a moving ego, a non-zero history and one dead camera.
"""

import logging
from pathlib import Path
import subprocess
from typing import NamedTuple
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
import yaml

from mta_perception import contract
from mta_perception.atomic_files import sha256, whole, write_atomically
from mta_perception.bags.scene_bag import find_bags
from mta_perception.runtime.manifest import Manifest
from mta_training.export.model_card import model_card
from mta_training.export.quantise import calibration_frames, quantise_detector
from mta_training.runs.run_directory import load_run, origin

OPSET = 20
HISTORY_STEP_S = 0.5  # nuScenes keyframes: the spacing training streams with
ARTEFACTS = ('detector.onnx', 'qformer.onnx', 'language.onnx', 'tokenizer.json')


class Parity(NamedTuple):
    """Largest absolute difference between torch and ONNX."""

    boxes: float
    class_logits: float
    object_features: float
    bev: float
    prefix: float
    language: float


class DetectorGraph(nn.Module):
    """The detector with the four outputs of the graph and nothing else."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(
        self,
        images,
        image_from_ego,
        camera_mask,
        history_bev,
        history_valid,
        ego_prev_from_ego_now,
    ):
        """As docs/architecture.md."""
        result = self.detector(
            images, image_from_ego, camera_mask, history_bev, history_valid, ego_prev_from_ego_now
        )
        return result.class_logits, result.boxes, result.object_features, result.bev


class LanguageGraph(nn.Module):
    """The language model with the logits of the last position only."""

    def __init__(self, language):
        super().__init__()
        self.language = language

    def forward(self, prefix, token_ids, past_keys, past_values):
        """As docs/architecture.md."""
        outputs = self.language(prefix, token_ids, past_keys, past_values)
        return outputs.logits[:, -1], outputs.keys, outputs.values


def example_inputs(config, batch=1, seed=0):
    """Inputs of the detector graph for a turning, moving car with a history and a dead camera."""
    rng = np.random.default_rng(seed)
    image, cameras = config.image, len(contract.CAMERAS)
    images = rng.integers(0, 256, (batch, cameras, image.height, image.width, 3), dtype=np.uint8)
    mask = np.ones((batch, cameras), np.float32)
    mask[:, 4] = 0.0
    images[:, 4] = 0
    yaw = 0.05
    ego = np.eye(4, dtype=np.float32)
    ego[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    ego[:2, 3] = 3.1, -0.2
    return {
        'images': images,
        'image_from_ego': np.repeat(surround_view(image)[None], batch, 0),
        'camera_mask': mask,
        'history_bev': rng.normal(0, 1, (batch, *config.bev.shape)).astype(np.float32),
        'history_valid': np.ones(batch, np.float32),
        'ego_prev_from_ego_now': np.repeat(ego[None], batch, 0),
    }


def surround_view(image):
    """image_from_ego (6, 3, 4) of a plausible rig in contract order."""
    focal = 1266.0 * image.scale
    intrinsics = np.array([[focal, 0, image.width / 2], [0, focal, image.height / 2], [0, 0, 1]])
    optical = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    matrices = []
    for degrees in (0, -55, 55, 180, 110, -110):
        yaw = np.radians(degrees)
        ego = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        rotation = optical @ ego
        matrices.append(intrinsics @ np.c_[rotation, -rotation @ [1.0, 0.0, 1.5]])
    return np.stack(matrices).astype(np.float32)


def export_graphs(model, language_model, directory):
    """Write detector.onnx, qformer.onnx, language.onnx of an MtaModel and a LanguageModel."""
    directory = Path(directory)
    model = model.float().eval()
    config = model.config
    inputs = {name: torch.from_numpy(value) for name, value in example_inputs(config).items()}
    save_graph(
        DetectorGraph(model.detector),
        tuple(inputs.values()),
        directory / 'detector.onnx',
        list(inputs),
        ['class_logits', 'boxes', 'object_features', 'bev'],
        None,
    )
    objects = _object_inputs(model, 3)
    count = torch.export.Dim('count', min=1, max=512)
    save_graph(
        model.qformer,
        tuple(objects.values()),
        directory / 'qformer.onnx',
        list(objects),
        ['prefix'],
        ({0: count}, {0: count}, {0: count}, None),
    )
    language = _language_inputs(config, 3, prefix=5, tokens=2, past=7)
    count, places = torch.export.Dim('count', max=512), torch.export.Dim('prefix', max=64)
    tokens, past = torch.export.Dim('tokens', max=512), torch.export.Dim('past', max=1024)
    save_graph(
        LanguageGraph(language_model),
        tuple(language.values()),
        directory / 'language.onnx',
        list(language),
        ['logits', 'keys', 'values'],
        ({0: count, 1: places}, {0: count, 1: tokens}, {1: count, 3: past}, {1: count, 3: past}),
    )


def save_graph(module, inputs, path, input_names, output_names, dynamic):
    """Export `module` with torch's exporter into one ONNX file.  Atomic."""
    # Otherwise a page about torchvision operators that nobody here uses and constants not folded.
    for name in ('torch.onnx', 'onnxscript'):
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=dynamic,
            verbose=False,
        )
    graph = program.model_proto
    forget_origin(graph)
    with whole(path) as partial:
        onnx.save(graph, partial)


def forget_origin(model):
    """Remove from a ModelProto the stack traces of the machine that made it."""
    parts = [
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ]
    for function in model.functions:
        parts += [function, *function.node, *function.value_info]
    for part in parts:
        part.ClearField('metadata_props')
        part.ClearField('doc_string')


def _object_inputs(model, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        'object_features': (count, model.detector.object_feature_width),
        'boxes': (count, 10),
        'class_logits': (count, len(contract.CLASSES)),
        'bev': model.detector.memory_shape,
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _language_inputs(config, count, prefix, tokens, past, seed=2):
    generator = torch.Generator().manual_seed(seed)
    size = config.language
    cache = (size.num_hidden_layers, count, size.num_attention_heads, past, size.head_dim)
    return {
        'prefix': torch.randn(count, prefix, size.hidden_size, generator=generator),
        'token_ids': torch.randint(0, size.vocab_size, (count, tokens), generator=generator),
        'past_keys': torch.randn(cache, generator=generator),
        'past_values': torch.randn(cache, generator=generator),
    }


def parity(model, language_model, directory):
    """Run every graph in `directory` and the torch models on the same inputs -> Parity."""
    model = model.float().eval()
    directory = Path(directory)
    differences = []
    cases = [
        (
            DetectorGraph(model.detector),
            'detector.onnx',
            {
                name: torch.from_numpy(value)
                for name, value in example_inputs(model.config, seed=7).items()
            },
        ),
        (model.qformer, 'qformer.onnx', _object_inputs(model, 8, seed=8)),
    ]
    cases += [
        (
            LanguageGraph(language_model),
            'language.onnx',
            _language_inputs(model.config, count, prefix, tokens, past, seed=9),
        )
        for count, prefix, tokens, past in ((4, 8, 1, 0), (4, 0, 1, 9), (1, 0, 3, 2))
    ]
    for module, name, inputs in cases:
        session = onnxruntime.InferenceSession(
            directory / name, providers=['CPUExecutionProvider']
        )
        got = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        with torch.no_grad():
            want = module(*inputs.values())
        want = (want,) if isinstance(want, torch.Tensor) else want
        want = [output.numpy() for output in want]
        if name == 'detector.onnx':
            got = _same_order(got, want)
        differences.append([float(np.abs(a - b).max()) for a, b in zip(got, want)])
    logits, boxes, features, bev = differences[0]
    return Parity(
        boxes, logits, features, bev, differences[1][0], max(max(part) for part in differences[2:])
    )


def _same_order(got, want):
    """ONNX detector outputs with the queries in torch's order.

    Queries are the highest peaks of a heatmap; rounding may swap two that are equally high.  Each
    torch query is compared with the ONNX query whose box and features are nearest.
    """
    mine, theirs = (np.concatenate([outputs[1], outputs[2]], -1) for outputs in (got, want))
    distance = np.abs(mine[:, :, None] - theirs[:, None]).max(-1)  # (B, Q onnx, Q torch)
    order = distance.argmin(1)
    rows = np.arange(len(order))[:, None]
    return [output[rows, order] for output in got[:3]] + [got[3]]


def manifest(config, tokenizer, directory, training, metrics, precision='fp32'):
    """The dict of manifest.yaml; hashes the files that lie in `directory`."""
    image, bev, language = config.image, config.bev, config.language
    return {
        'contract_version': contract.CONTRACT_VERSION,
        'name': config.name,
        'precision': precision,
        'cameras': list(contract.CAMERAS),
        'classes': list(contract.CLASSES),
        'image': {'width': image.width, 'height': image.height, 'scale': image.scale},
        'bev': {'half_extent_m': bev.half_extent_m, 'cells': bev.cells, 'channels': bev.channels},
        'box_code': ['x', 'y', 'z', 'length', 'width', 'height', 'sin', 'cos', 'vx', 'vy'],
        'history': {'step_s': HISTORY_STEP_S},
        'decode': dict(contract.DECODE),
        'captioner': {
            'prefix_tokens': config.qformer.prefix_tokens,
            'width': language.hidden_size,
            'layers': language.num_hidden_layers,
            'heads': language.num_attention_heads,
            'head_dim': language.head_dim,
            'vocabulary': language.vocab_size,
            'bos': tokenizer.token_to_id('<s>'),
            'eos': tokenizer.token_to_id('</s>'),
            'max_tokens': language.max_tokens,
        },
        'files': {name: sha256(Path(directory) / name) for name in ARTEFACTS},
        'training': training,
        'metrics': metrics,
        'licence': 'Apache-2.0',
    }


_LIMITS = """
Trained on one simulated world with flat ground, camera rigs near nuScenes' and about ten object
styles a class. The numbers above are of the same world and say nothing about real images. The
network starts from random weights: no real image was used. Not for driving.
""".strip()


def export(
    run,
    out,
    *,
    checkpoint='last',
    eval_bags=None,
    eval_frames=20,
    int8=False,
    calibration_bags=None,
):
    """Export a run directory into a model directory; returns the flat dict of what was measured.

    With `eval_bags`, a directory of bags nobody trained on, metrics are measured through the
    exported files and written into manifest and model card.  With `int8` the detector is quantised
    on frames of `calibration_bags`, training bags, and `fp32_` metrics are those before that.
    """
    if int8 and calibration_bags is None:
        raise ValueError(
            'int8 needs bags to measure the ranges of activations on: give '
            '--calibration-bags, a directory of training bags.'
        )
    for bags in (calibration_bags, eval_bags):
        if bags is not None:
            find_bags(bags)  # fails now rather than minutes later
    model, language, recipe, state = load_run(run, checkpoint)
    if recipe.language.model != 'small':
        raise ValueError(
            f'{run} captions with {recipe.language.model}: only our own small '
            'language model has a runtime form. Use `mta-train eval --run`.'
        )
    if not model.detector.has_graph:
        raise ValueError(
            f'{run} detects with {model.config.detector}, whose graph the node '
            'cannot run yet. Use `mta-train eval --run`, or train with nano.'
        )
    tokenizer, language_model = language.tokenizer, language.runtime_model()
    training = {
        'data': state['data'],
        'recipe': recipe.name,
        'steps': state['step'],
        'samples': state['seen'] * recipe.schedule.batch,
        'minutes': round(state['elapsed_s'] / 60.0, 1),
        **state.get('origin', origin(recipe.start)),
        'caption_steps': recipe.caption_steps,
        'seed': recipe.seed,
        'bla': recipe.alignment.bla,
        'dca': recipe.alignment.dca,
        'git_revision': git_revision(),
    }
    out = Path(out)
    measured = write_model(model, language_model, tokenizer, out, training, {})
    metrics = _metrics(out, eval_bags, eval_frames)
    float_metrics, precision = {}, 'fp32'
    if int8:
        float_metrics, precision = metrics, 'int8'
        quantise_model(model.config, tokenizer, out, training, calibration_bags)
        metrics = _metrics(out, eval_bags, eval_frames)
    _write_manifest(model.config, tokenizer, out, training, metrics, precision)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model, language_model)]
    sizes[0] += sizes[1]
    (out / 'MODEL_CARD.md').write_text(
        model_card(model.config, *sizes, training, metrics, _LIMITS, precision, float_metrics)
    )
    return {
        **metrics,
        **{f'fp32_{name}': value for name, value in float_metrics.items()},
        **{f'parity_{name}': value for name, value in measured._asdict().items()},
    }


def quantise_model(config, tokenizer, out, training, calibration_bags):
    """Replace detector.onnx of a float32 model directory by its int8 form; see `quantise`."""
    detector = Path(out) / 'detector.onnx'
    with whole(detector) as quantised:
        frames = calibration_frames(Manifest.load(out), calibration_bags)
        quantise_detector(detector, quantised, frames)
        (Path(out) / 'manifest.yaml').unlink(missing_ok=True)
    _write_manifest(config, tokenizer, Path(out), training, {}, 'int8')


def _metrics(out, bags, frames):
    if bags is None:
        return {}
    from mta_training.evaluation.onnx_frames import evaluate_model_directory

    return _rounded(evaluate_model_directory(out, find_bags(bags), frames))


def _rounded(metrics):
    """Metrics as plain numbers for YAML; per class only the average precision."""
    flat = {name: round(float(value), 4) for name, value in metrics.items() if name != 'classes'}
    flat['AP'] = {name: round(float(entry['AP']), 4) for name, entry in metrics['classes'].items()}
    return flat


def git_revision():
    """Revision of the code this runs from, or 'unknown' outside a checkout."""
    try:
        return subprocess.run(
            ['git', 'rev-parse', '--short', 'HEAD'],
            check=True,
            text=True,
            capture_output=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def write_model(model, language_model, tokenizer, out, training, metrics):
    """Write graphs, tokeniser and manifest into `out`; the manifest last, so that a directory with
    one is whole.  Returns the measured Parity; raises ValueError where boxes differ by over
    1e-3."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'manifest.yaml').unlink(missing_ok=True)
    export_graphs(model, language_model, out)
    tokenizer.save(str(out / 'tokenizer.json'))
    measured = parity(model, language_model, out)
    if not measured.boxes <= 1e-3:
        raise ValueError(
            f'{out}: boxes of torch and ONNX differ by {measured.boxes:.2e}; '
            'expected at most 1e-3. The exported graph is not the trained network.'
        )
    _write_manifest(model.config, tokenizer, out, training, metrics)
    return measured


def _write_manifest(config, tokenizer, out, training, metrics, precision='fp32'):
    values = manifest(config, tokenizer, out, training, metrics, precision)
    write_atomically(out / 'manifest.yaml', yaml.safe_dump(values, sort_keys=False))

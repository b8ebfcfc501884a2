"""A model directory back into a run directory: to train on from a model whose checkpoint is gone.

The exporter names most weights of a graph by number and turns or cuts many.  So the same network
is exported once more with weights that are all different (a probe): where each of them went is
where the model's own lie.  Convolutions have their batch norms folded in; norms are put back
around the numbers that pass there, so that nothing changes and training can go on.

An int8 model gives its weights as they were rounded.  What only training has (heads of further
losses) is not in a model, and begins anew.
"""

from dataclasses import replace
from pathlib import Path
import shutil
import tempfile
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process
import torch
from torch import nn
import yaml

from mta_perception.atomic_files import whole, write_atomically
from mta_perception.config import MemoryConfig
from mta_perception.directory_lock import sole_writer
from mta_perception.model.language import LanguageModel
from mta_perception.model.mta_model import MtaModel
from mta_perception.progress import Progress
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_training.data.scene_drive import drive_scene
from mta_training.export.graphs import export_graphs
from mta_training.export.quantise import bytes_into_stem
from mta_training.runs.photographs import load_photographs
from mta_training.synth.dataset.drawn_drive import draw_drive

GRAPHS = ('detector', 'qformer', 'language')
DRIVES, SECONDS = 6, 2.0  # on which norms are put back, and the result is compared
MOST_APART = 0.2  # of the BEV's spread; an int8 model is 0.03 from its float form


class Rebuilt(NamedTuple):
    """How near the rebuilt detector comes to the model's graph, on drawn frames."""

    frames: int
    bev: float  # root mean square of the difference, over the spread of the graph's BEV


class _Place(NamedTuple):
    """Where a tensor lies in a graph."""

    graph: str
    names: list  # one initializer, or one a column
    turned: bool = False
    skipped: int = 0  # numbers before it

    def read(self, arrays, shape):
        if len(self.names) > 1:
            columns = [arrays[self.graph][name].reshape(-1) for name in self.names]
            return np.stack(columns, axis=-1).reshape(shape)
        value = arrays[self.graph][self.names[0]]
        value = value.T if self.turned else value.reshape(-1)[self.skipped :]
        return value.reshape(shape)


def rebuild(directory, recipe, out, drives=DRIVES):
    """Write a run directory `out` from the model in `directory`, which a run of `recipe` made.

    Returns Rebuilt.  Raises ValueError where the model is not of that recipe's sizes.
    """
    directory, out = Path(directory), Path(out)
    manifest = Manifest.load(directory)
    spoken = manifest.captioner
    if spoken is None or spoken.foreign is not None or manifest.pairs is not None:
        raise ValueError(
            f'{directory}: only a model with our own detector and language model can be rebuilt; '
            'expected detector.onnx, qformer.onnx and language.onnx in it.'
        )
    own_eyes = recipe.model.sees_photographs
    if manifest.precision == 'int8' and not own_eyes:
        raise ValueError(
            f'{directory}: an int8 model reads images in another way than its network; only one '
            'whose backbone is frozen (recipe street) can be rebuilt. Export it in fp32.'
        )
    language = replace(
        recipe.model.language,
        vocab_size=spoken.vocabulary,
        adapter_tokens=recipe.language.adapter_tokens,
    )
    recipe = replace(recipe, model=replace(recipe.model, language=language))
    arrays = {name: _arrays(onnx.load(directory / f'{name}.onnx')) for name in GRAPHS}
    model, speaker = _filled(recipe, manifest.precision, arrays, directory)
    if own_eyes:
        load_photographs(model.detector.backbone)
    detector = OnnxDetector(manifest, threads=2)
    found = _settle(model.detector, detector, manifest, recipe, drives)
    if not found.bev <= MOST_APART:
        raise ValueError(
            f'{directory}: the rebuilt network differs from detector.onnx by {found.bev:.2f} of '
            f'its spread; expected at most {MOST_APART}. Was it made by recipe {recipe.name}?'
        )
    with sole_writer(out):
        out.mkdir(parents=True, exist_ok=True)
        _write(out, directory, recipe, manifest, model, speaker)
    return found


def _filled(recipe, precision, arrays, directory):
    """(MtaModel, LanguageModel) with the weights of the graphs."""
    model, speaker = MtaModel(recipe.model).eval(), LanguageModel(recipe.model.language).eval()
    _make_different(model, speaker)
    tensors = {
        **model.state_dict(),
        **{f'language.{k}': v for k, v in speaker.state_dict().items()},
    }
    with tempfile.TemporaryDirectory() as scratch:
        probe = _probe(model, speaker, precision, Path(scratch))
    skipped = 'detector.backbone.' if recipe.model.sees_photographs else None
    values = {}
    for name, tensor in tensors.items():
        if skipped and name.startswith(skipped) or not tensor.is_floating_point():
            continue
        place = _place_of(name, tensor.numpy(), probe)
        if place is None:
            if _of_norm(name):
                continue  # folded: stays the identity
            raise ValueError(f'{directory}: {name} is nowhere in the graphs of this recipe.')
        if any(one not in arrays[place.graph] for one in place.names):
            raise ValueError(
                f'{directory}: {place.graph}.onnx has no {place.names[0]}, where {name} is '
                f'expected. It was not made by recipe {recipe.name} of this version.'
            )
        try:
            values[name] = place.read(arrays, tuple(tensor.shape))
        except ValueError as error:
            raise ValueError(
                f'{directory}: {name} is of another size than recipe {recipe.name} has it '
                f'({error}).'
            ) from error
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(torch.from_numpy(np.array(value, dtype=np.float32)))
    return model, speaker


def _make_different(*modules):
    """All weights random, norms of batches the identity but for their bias."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
            for norm in of_norms(module).values():
                norm.weight.fill_(1.0)
                norm.running_mean.zero_()
                norm.running_var.fill_(1.0 - norm.eps)


def of_norms(module):
    """name -> batch norm of a module."""
    return {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm)
    }


def _of_norm(name):
    return name.endswith(('.weight', '.running_mean', '.running_var'))


def _probe(model, speaker, precision, folder):
    """graph -> its arrays by name, exported the way a model of this precision is."""
    export_graphs(model, speaker, folder)
    if precision == 'int8':
        prepared = folder / 'prepared.onnx'
        quant_pre_process(folder / 'detector.onnx', prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared)
        bytes_into_stem(graph.graph)
        onnx.save(graph, folder / 'detector.onnx')
    return {name: _arrays(onnx.load(folder / f'{name}.onnx')) for name in GRAPHS}


def _arrays(model):
    """name -> float array of a graph's constants; quantised ones under the name they had."""
    found = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    floats = {name: value for name, value in found.items() if value.dtype == np.float32}
    for name, value in found.items():
        own = name.removesuffix('_quantized')
        scales = (f'{own}_scale', f'{own}_quantized_scale')
        scale = next((floats[one] for one in scales if one in floats), None)
        if own == name or scale is None:
            continue
        axis = _scaled_axis(model.graph, name)
        shape = [1] * value.ndim
        if scale.size > 1:
            shape[axis] = scale.size
        floats[own] = value.astype(np.float32) * scale.reshape(shape)
    return floats


def _scaled_axis(graph, name):
    """Along which axis the scales of a quantised constant lie."""
    node = next(node for node in graph.node if name in node.input)
    return next((entry.i for entry in node.attribute if entry.name == 'axis'), 1)


def _place_of(name, value, probe):
    """_Place of a tensor of the probe's network, or None."""
    graph = name.split('.', 1)[0]
    arrays = probe[graph]
    for known in (name, name.split('.', 1)[1]):
        if known in arrays and np.array_equal(arrays[known].reshape(-1), value.reshape(-1)):
            return _Place(graph, [known])
    if _of_norm(name) and value.ndim == 1 and np.ptp(value) == 0.0:
        return None
    near = {k: a for k, a in arrays.items() if a.size >= value.shape[0]}
    for other, array in near.items():
        if array.size == value.size:
            if np.allclose(array.reshape(-1), value.reshape(-1), atol=1e-6):
                return _Place(graph, [other])
            if array.ndim == 2 and np.allclose(array.T.reshape(-1), value.reshape(-1), atol=1e-6):
                return _Place(graph, [other], turned=True)
        elif array.size == value.size + value.shape[-1]:  # after a row of zeros
            rest = array.reshape(-1)[value.shape[-1] :]
            if np.allclose(rest, value.reshape(-1), atol=1e-6):
                return _Place(graph, [other], skipped=value.shape[-1])
    return _columns(graph, value, near)


def _columns(graph, value, arrays):
    if value.ndim != 2:
        return None
    names = []
    for column in value.T:
        same = [
            name
            for name, array in arrays.items()
            if array.size == column.size and np.allclose(array.reshape(-1), column, atol=1e-6)
        ]
        if not same:
            return None
        names.append(same[0])
    return _Place(graph, names)


def _settle(network, graph, manifest, recipe, drives):
    """Put the folded norms back around what passes there; compare with the graph."""
    norms = {name: norm for name, norm in of_norms(network).items() if _is_identity(norm)}
    sums = {name: [] for name in norms}
    hooks = [
        norm.register_forward_pre_hook(
            lambda _, given, name=name: sums[name].append(_moments(given[0]))
        )
        for name, norm in norms.items()
    ]
    apart, spread, frames = 0.0, 0.0, 0
    memory = MemoryConfig.trained_at(manifest.history_step_s)
    world = recipe.world.kind
    for index in Progress('norms', drives).over(range(drives)):
        scene = draw_drive(recipe.world.seed, index, manifest.image, SECONDS, world=world)
        for driven in drive_scene(graph, scene, range(len(scene.boxes)), memory):
            frame = driven.frame
            given = graph.inputs(
                frame.images, frame.image_from_ego, frame.camera_mask, driven.history
            )
            with torch.no_grad():
                bev = network(*(torch.from_numpy(value) for value in given.values())).bev[0]
            wanted = driven.outputs.bev
            apart += float(np.square(bev.numpy() - wanted).mean())
            spread += float(wanted.var())
            frames += 1
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for name, norm in norms.items():
            mean, square = (torch.stack(part).mean(0) for part in zip(*sums[name]))
            variance = (square - mean.square()).clamp(min=1e-6)
            norm.bias.add_(mean)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
    return Rebuilt(frames, (apart / spread) ** 0.5)


def _is_identity(norm):
    return bool((norm.weight == 1.0).all() and (norm.running_mean == 0.0).all())


def _moments(x):
    return x.mean((0, 2, 3)), x.square().mean((0, 2, 3))


def _write(out, directory, recipe, manifest, model, speaker):
    """language.pt, tokenizer.json, recipe.yaml, and last.pt at the end."""
    adapter = {k: v for k, v in speaker.state_dict().items() if 'adapter' in k}
    frozen = {k: v for k, v in speaker.state_dict().items() if k not in adapter}
    with whole(out / 'tokenizer.json') as partial:
        shutil.copyfile(directory / 'tokenizer.json', partial)
    with whole(out / 'language.pt') as partial:
        torch.save(frozen, partial)
    write_atomically(out / 'recipe.yaml', yaml.safe_dump(recipe.to_dict(), sort_keys=False))
    state = model.state_dict()
    told = f'rebuilt from {manifest.name} ({manifest.precision})'
    with whole(out / 'last.pt') as partial:
        torch.save(
            {
                'learner': {f'model.{name}': value for name, value in state.items()},
                'model': state,
                'adapter': adapter,
                'recipe': recipe.to_dict(),
                'step': 0,
                'seen': 0,
                'elapsed_s': 0.0,
                'data': told,
            },
            partial,
        )

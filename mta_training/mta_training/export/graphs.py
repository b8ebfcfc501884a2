"""A trained network as three ONNX graphs, and inputs to try them with.

The graphs' inputs and outputs are the table in docs/architecture.md.
"""

import logging
from pathlib import Path
import warnings

import numpy as np
import onnx
import torch
from torch import nn

from mta_perception import contract
from mta_perception.atomic_files import whole
from mta_perception.model.bevformer.detector import LIDAR_IN_EGO_M
from mta_perception.runtime.manifest import BevSpec, ImageSpec, PairsSpec
from mta_perception.runtime.visible_pairs import VisiblePairs, surround_view

OPSET = 20
_MOST_GATHERED = 4e9  # bytes of rows that one layer of a graph may copy


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


class PairsGraph(nn.Module):
    """A detector that is given its visible pairs, with the same outputs."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(
        self,
        images,
        pair_cell,
        pair_camera,
        pair_uv,
        pair_share,
        history_bev,
        history_valid,
        ego_prev_from_ego_now,
    ):
        """As docs/architecture.md."""
        result = self.detector.with_pairs(
            images,
            history_bev,
            history_valid,
            ego_prev_from_ego_now,
            pair_cell,
            pair_camera,
            pair_uv,
            pair_share,
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


def detector_graph(detector):
    """(module that is the detector's graph, its dynamic shapes)."""
    if not detector.wants_pairs:
        return DetectorGraph(detector), None
    pairs = {0: torch.export.Dim('pairs', min=2)}
    return PairsGraph(detector), (None, pairs, pairs, pairs, pairs, None, None, None)


def detector_inputs(config, detector, seed=0):
    """Inputs of `detector_graph`, input name -> array: those of `example_inputs`, or with the
    pairs that they lead to."""
    inputs = example_inputs(config, seed=seed)
    if not detector.wants_pairs:
        return inputs
    image_from_ego, mask = inputs.pop('image_from_ego'), inputs.pop('camera_mask')
    spec, cells = pairs_spec(detector), detector.network.config.bev_cells
    tables = VisiblePairs(
        spec,
        ImageSpec(config.image.width, config.image.height, config.image.scale),
        BevSpec(spec.range_m[3], cells, detector.network.config.channels),
    ).tables(image_from_ego[0], mask[0])
    return {'images': inputs.pop('images'), **tables, **inputs}


def pairs_spec(detector):
    """PairsSpec of a BevFormerDetector."""
    config = detector.network.config
    rows = config.image.height if config.quirks.padding_counts_as_image else None
    return PairsSpec(
        tuple(config.range_m),
        config.pillar_points,
        rows or config.image.content_height,
        LIDAR_IN_EGO_M,
    )


def _check_memory(config, detector, path):
    """ValueError where a layer of the graph would copy more rows than fit into memory."""
    sizes = detector.network.config
    pairs = len(detector_inputs(config, detector)['pair_cell'])
    rows = pairs * sizes.backbone.levels * sizes.spatial_points * 4
    copied = rows * sizes.channels * 4
    if copied > _MOST_GATHERED:
        raise ValueError(
            f'{path}: not exported. A layer of BEVFormer {sizes.name} as a graph would copy '
            f'{copied / 1e9:.1f} GB of rows; expected at most {_MOST_GATHERED / 1e9:.1f}. Run it '
            'in torch (`mta-train eval --run`).'
        )


def export_detector(config, detector, directory):
    """Write detector.onnx of a Detector; config: what has its `image` and `bev`.

    Raises ValueError where the graph would need too much memory.
    """
    path = Path(directory) / 'detector.onnx'
    if detector.wants_pairs:
        _check_memory(config, detector, path)
    graph, dynamic = detector_graph(detector.float().eval())
    inputs = detector_inputs(config, detector)
    save_graph(
        graph,
        tuple(torch.from_numpy(value) for value in inputs.values()),
        path,
        list(inputs),
        ['class_logits', 'boxes', 'object_features', 'bev'],
        dynamic,
    )


def export_network(model, directory):
    """Write detector.onnx and qformer.onnx of an MtaModel."""
    directory = Path(directory)
    model = model.float().eval()
    export_detector(model.config, model.detector, directory)
    objects = object_inputs(model, 3)
    count = torch.export.Dim('count', min=1, max=512)
    save_graph(
        model.qformer,
        tuple(objects.values()),
        directory / 'qformer.onnx',
        list(objects),
        ['prefix'],
        ({0: count}, {0: count}, {0: count}, None),
    )


def export_graphs(model, language_model, directory):
    """Write detector.onnx, qformer.onnx, language.onnx of an MtaModel and a LanguageModel."""
    export_network(model, directory)
    language = language_inputs(model.config, 3, prefix=5, tokens=2, past=7)
    count, places = torch.export.Dim('count', max=512), torch.export.Dim('prefix', max=64)
    tokens, past = torch.export.Dim('tokens', max=512), torch.export.Dim('past', max=1024)
    save_graph(
        LanguageGraph(language_model),
        tuple(language.values()),
        Path(directory) / 'language.onnx',
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


def object_inputs(model, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        'object_features': (count, model.detector.object_feature_width),
        'boxes': (count, 10),
        'class_logits': (count, len(contract.CLASSES)),
        'bev': model.detector.memory_shape,
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def language_inputs(config, count, prefix, tokens, past, seed=2):
    generator = torch.Generator().manual_seed(seed)
    size = config.language
    cache = (size.num_hidden_layers, count, size.num_attention_heads, past, size.head_dim)
    return {
        'prefix': torch.randn(count, prefix, size.hidden_size, generator=generator),
        'token_ids': torch.randint(0, size.vocab_size, (count, tokens), generator=generator),
        'past_keys': torch.randn(cache, generator=generator),
        'past_values': torch.randn(cache, generator=generator),
    }

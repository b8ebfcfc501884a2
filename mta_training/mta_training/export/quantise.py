"""detector.onnx in float32 -> the same graph with int8 convolutions and map-wide linear layers.

Static quantisation in QDQ form: weights int8 with a scale per output channel, activations uint8
with ranges measured on frames of bags, or of the world that was trained on.  Camera geometry,
sampling positions and weights, layer norms, the heatmap, boxes and scores stay float32.  Inputs
and outputs keep their names, types and shapes.  onnxruntime is quick with uint8 activations on
CPUs with VNNI; int8 ones cost as much as float32.

Weights use seven of their eight bits, -64 to 64.  An x86 CPU with AVX2 but no VNNI adds pairs of
products in 16 bits (pmaddubsw) and cuts off what is beyond: 255 * 127 * 2 is, 255 * 64 * 2 is not.
So all CPUs compute the same, for a little more rounding: docs/training.md has the figures.
"""

import logging
from pathlib import Path
import re
import tempfile

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from mta_perception.atomic_files import whole
from mta_perception.bags.scene_bag import find_bags
from mta_perception.config import MemoryConfig
from mta_perception.runtime.onnx import OnnxDetector
from mta_training.data.scene_cache import read_scene
from mta_training.data.scene_drive import drive_scene
from mta_training.synth.dataset.drawn_drive import draw_drive

FRAMES = 48
_MOST_OF_ACTIVATION, _MOST_OF_PAIR = 255, 2**15 - 1
_RUN = 3  # consecutive frames from one place: the memory must look like in driving
_FLOAT_CONVS = ('.dense.heat.', '.dense.box.')
# Linear layers over all cells of a map; the others see 300 queries and cost next to nothing.
_INT8_LINEARS = re.compile(
    r'bev_encoder\.layers\.\d+\.((temporal|spatial)\.(value|output)|feedforward\.\d)\.'
    r'|\.cross\.value\.'
)
# Between quantised convolutions these work on bytes too, so nothing is converted back and forth.
_BETWEEN_CONVS = ('Relu', 'Clip', 'Add', 'MaxPool', 'Resize')


def scenes_of_bags(bags, image, count=FRAMES):
    """SceneArrays of a directory of bags, as many as `calibration_frames` looks into.

    Raises BagError where `bags` holds none.
    """
    paths = find_bags(bags)
    chosen = np.linspace(0, len(paths) - 1, -(-count // _RUN)).round().astype(int)
    return [read_scene(paths[index], image) for index in sorted(set(chosen))]


def scenes_of_world(world, image, count=FRAMES):
    """SceneArrays of the world (settings.World) that a run learned from, first of all scenes."""
    return [
        draw_drive(world.seed, index, image, seconds=_RUN, world=world.kind)
        for index in range(-(-count // (2 * _RUN)))
    ]


def calibration_frames(manifest, scenes, count=FRAMES):
    """Yield `count` dicts of graph inputs from SceneArrays, spread over scenes and time.

    The history of a frame is what the float32 detector of `manifest` remembered of those before.
    """
    detector = OnnxDetector(manifest, threads=2)
    memory = MemoryConfig.trained_at(manifest.history_step_s)
    made = 0
    for run in range(-(-count // _RUN)):
        scene = scenes[run % len(scenes)]
        first = run * 7 % max(1, len(scene.boxes) - _RUN + 1)
        frames = range(first, min(first + _RUN, len(scene.boxes), first + count - made))
        for driven in drive_scene(detector, scene, frames, memory):
            made += 1
            frame = driven.frame
            yield detector.inputs(
                frame.images, frame.image_from_ego, frame.camera_mask, driven.history
            )


class _Frames(CalibrationDataReader):
    def __init__(self, frames):
        self._frames = iter(frames)
        self._first = next(self._frames, None)
        if self._first is None:
            raise ValueError(
                'no frame to calibrate on: int8 needs the ranges that activations '
                'have on real input; give bags with keyframes.'
            )

    def get_next(self):
        """Next dict of inputs, or None at the end."""
        frame, self._first = self._first, None
        return frame or next(self._frames, None)


def quantise_detector(source, target, frames, float_layers=None):
    """Quantise the graph `source` into `target`, calibrated on `frames`, dicts of its inputs.

    float_layers: a regular expression; nodes whose name, or one of whose weights' names, it is
    found in stay float32 (sensitivity.py).  Raises ValueError where there is no frame, no such
    node, or a weight that could saturate.
    """
    frames = _Frames(frames)
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # or a line for every run and every layer
    try:
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / 'prepared.onnx'
            quant_pre_process(source, prepared, skip_symbolic_shape=True)  # folds batch norms
            model = onnx.load(prepared)
            bytes_into_stem(model.graph)
            onnx.save(model, prepared)
            nodes = _but(_int8_nodes(model.graph), model.graph, float_layers)
            with whole(target) as partial:
                quantize_static(
                    prepared,
                    partial,
                    frames,
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    reduce_range=True,  # seven bits, of the weights alone
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    op_types_to_quantize=['Conv', 'Gemm', 'MatMul', *_BETWEEN_CONVS],
                    nodes_to_quantize=nodes,
                )
                check_no_saturation(onnx.load(partial).graph, target)
    finally:
        logging.getLogger().setLevel(level)


def _but(names, graph, float_layers):
    """Of the nodes `names` those that the expression `float_layers` is not found in."""
    if not float_layers:
        return names
    nodes = {node.name: node for node in graph.node}
    kept = [
        name
        for name in names
        if not any(re.search(float_layers, one) for one in (name, *nodes[name].input))
    ]
    if len(kept) == len(names):
        raise ValueError(
            f'--float-layers {float_layers}: found in none of the {len(names)} int8 layers, '
            f'expected a part of names such as {names[0]} or {nodes[names[0]].input[1]}.'
        )
    return kept


def check_no_saturation(graph, path):
    """ValueError where two products of an int8 graph may exceed 16 bits together: a CPU with AVX2
    and without VNNI would cut their sum off, and see other objects than one with it.

    Activations are bytes, up to 255; which weights are added in pairs is the kernel's choice.
    """
    weights = {entry.name: entry for entry in graph.initializer}
    for node in graph.node:
        weight = weights.get(node.input[0]) if node.op_type == 'DequantizeLinear' else None
        if weight is None or weight.data_type != onnx.TensorProto.INT8:
            continue
        largest = int(np.abs(numpy_helper.to_array(weight).astype(int)).max(initial=0))
        if 2 * _MOST_OF_ACTIVATION * largest > _MOST_OF_PAIR:
            raise ValueError(
                f'{path}: the weight {weight.name} reaches {largest}, and two products of '
                f'{_MOST_OF_ACTIVATION} x {largest} exceed {_MOST_OF_PAIR}, 16 bits, where CPUs '
                'without VNNI cut off. Expected at most 64: quantise weights to seven bits '
                '(reduce_range).'
            )


def _int8_nodes(graph):
    """Names of the nodes to quantise: by the weights' names and, between convs, by the flow."""
    constants = {entry.name for entry in graph.initializer}
    inside, names = set(), []
    for node in graph.node:
        parameters = ' '.join(name for name in node.input if name in constants)
        if node.op_type == 'Conv':
            chosen = not any(part in parameters for part in _FLOAT_CONVS)
        elif node.op_type in ('Gemm', 'MatMul'):
            chosen = bool(_INT8_LINEARS.search(parameters))
        else:
            chosen = (
                node.op_type in _BETWEEN_CONVS
                and node.input[0] in inside
                and all(not name or name in inside or name in constants for name in node.input)
            )
        if chosen:
            names.append(node.name)
            if node.op_type not in ('Gemm', 'MatMul'):
                inside.update(node.output)
    return names


def bytes_into_stem(graph):
    """Let the first convolution, of stride 2, read the image's bytes: no normalisation, no first
    rounding.

    Mean and deviation move into weights and bias.  Padding must be one number, so that beyond the
    image's edge lies the grey of the mean over the channels, not each channel's own mean.  Blocks
    of 2 x 2 pixels become 12 channels, a 7x7 kernel becomes a 4x4 one of stride 1, a 3x3 one 2x2:
    with 3 channels the int8 kernel is slower than float32.
    """
    constants = {entry.name: entry for entry in graph.initializer}
    conv, chain, (subtract, divide, transpose), padding = _stem(graph, constants)
    weight, bias, mean, deviation = (
        numpy_helper.to_array(constants[name]).astype(np.float64)
        for name in (conv.input[1], conv.input[2], subtract.input[1], divide.input[1])
    )
    mean = np.broadcast_to(mean.ravel(), 3)
    grey = round(float(mean.mean()))
    weight = weight / np.broadcast_to(deviation.ravel(), 3).reshape(3, 1, 1)
    bias = bias - weight.sum((2, 3)) @ (mean - grey)
    before = padding % 2
    after = (weight.shape[-1] + before) % 2
    weight = np.pad(weight, ((0, 0), (0, 0), (before, after), (before, after)))
    size = weight.shape[-1] // 2
    blocks = weight.reshape(len(weight), 3, size, 2, size, 2)
    blocks = blocks.transpose(0, 3, 5, 1, 2, 4).reshape(len(weight), 12, size, size)
    first = (padding + before) // 2
    shape = next(entry for entry in graph.input if entry.name == 'images').type.tensor_type.shape
    batch, cameras, height, width, _ = (size.dim_value for size in shape.dim)
    count = batch * cameras
    for name, value in {
        'stem_weight': blocks.astype(np.float32),
        'stem_bias': bias.astype(np.float32),
        'stem_scale': np.float32(1),
        'stem_grey': np.uint8(grey),
        'stem_pairs': np.array([count, height // 2, 2, width // 2, 6]),
        'stem_blocks': np.array([count, height // 2, width // 2, 12]),
    }.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    nodes = [
        helper.make_node('Reshape', [transpose.input[0], 'stem_pairs'], ['pairs']),
        helper.make_node('Transpose', ['pairs'], ['paired'], perm=[0, 1, 3, 2, 4]),
        helper.make_node('Reshape', ['paired', 'stem_blocks'], ['blocks']),
        helper.make_node('Transpose', ['blocks'], ['block_maps'], perm=[0, 3, 1, 2]),
        helper.make_node(
            'DequantizeLinear', ['block_maps', 'stem_scale', 'stem_grey'], ['stem_input']
        ),
        helper.make_node(
            'Conv',
            ['stem_input', 'stem_weight', 'stem_bias'],
            conv.output,
            name='stem_conv',
            kernel_shape=[size, size],
            pads=[first, first, size - 1 - first, size - 1 - first],
        ),
    ]
    place = list(graph.node).index(conv)
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)
    for node in chain:
        # What an object looks like is read from the pixels too: they may share the first steps.
        used = {name for one in graph.node for name in one.input}
        if node is conv or not used & set(node.output):
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for name, entry in constants.items():
        if name not in used:
            graph.initializer.remove(entry)


def _stem(graph, constants):
    """(first convolution, it and what comes before, (Sub, Div, Transpose), rows padded above)."""
    producer = {name: node for node in graph.node for name in node.output}
    conv = next(node for node in graph.node if node.op_type == 'Conv')
    pads = next((list(entry.ints) for entry in conv.attribute if entry.name == 'pads'), [0] * 4)
    chain, kinds = [conv], {}
    node = producer.get(conv.input[0])
    if node is not None and node.op_type == 'Pad':
        pads = numpy_helper.to_array(constants[node.input[1]]).tolist()[2:4]
        chain.append(node)
    for kind in ('Div', 'Sub', 'Cast', 'Transpose'):
        node = producer.get(chain[-1].input[0])
        if node is None or node.op_type != kind:
            raise ValueError(
                f'{kind} was expected before the first convolution, there is '
                f'{node and node.op_type}: the first lines of the backbone have '
                'changed, quantise.bytes_into_stem has to follow.'
            )
        chain.append(node)
        kinds[kind] = node
    return conv, chain, (kinds['Sub'], kinds['Div'], kinds['Transpose']), int(pads[0])

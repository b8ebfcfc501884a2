"""What rounding costs, layer by layer, in an int8 detector: each layer alone in int8, the others'
activations in float32.

Weights stay as they are, rounded: only what int8 does to activations is seen.  A QDQ graph has no
ReLU where the range of a quantised activation begins at zero, so that a range takes the place of
its rounding.  What is found here goes to `mta-train export --float-layers`.
"""

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper
import onnxruntime

_LAYERS = ('Conv', 'Gemm', 'MatMul', 'Add')


class LayerCost(NamedTuple):
    """Of one int8 layer."""

    name: str  # of its node, for --float-layers
    weight: str  # of the network, where the name survived; '' for a sum
    error: float  # root mean square of the BEV's difference over that of the BEV


class Costs(NamedTuple):
    """Of a detector."""

    whole: float  # error of all layers in int8 together
    layers: list  # LayerCost, the worst first


def layer_costs(path, frames):
    """Costs of the graph `path` on `frames`, dicts of its inputs (quantise.calibration_frames)."""
    model, frames = onnx.load(path), list(frames)
    want = _bevs(unrounded(model), frames)
    layers = []
    for node in int8_layers(model.graph):
        got = _bevs(unrounded(model, but=node.name), frames)
        weight = next((name for name in node.input if '.weight_Dequantize' in name), '')
        layers.append(LayerCost(node.name, weight.split('_Dequantize')[0], _apart(got, want)))
    whole = _apart(_bevs(model, frames), want)
    return Costs(whole, sorted(layers, key=lambda layer: -layer.error))


def int8_layers(graph):
    """The nodes that read rounded activations and compute with them."""
    rounded = _activations(graph)
    return [
        node for node in graph.node if node.op_type in _LAYERS and rounded.keys() & set(node.input)
    ]


def unrounded(model, but=''):
    """The same graph with activations that are cut to their ranges and not rounded, but for those
    that the node `but` reads."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph, rounded = found.graph, _activations(found.graph)
    constants = {entry.name: entry for entry in graph.initializer}
    read = set()
    for node in graph.node:
        if node.op_type == 'QuantizeLinear' or node.name == but:
            continue
        for place, name in enumerate(node.input):
            if name in rounded:
                node.input[place] = f'{name}_cut'
                read.add(name)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == 'DequantizeLinear' and node.output[0] in read:
            name = node.output[0]
            scale, zero = (
                numpy_helper.to_array(constants[one]).astype(np.float64) for one in node.input[1:3]
            )
            for end, byte in (('low', 0), ('high', 255)):
                value = np.float32((byte - zero) * scale).reshape(())
                graph.initializer.append(numpy_helper.from_array(value, f'{name}_{end}'))
            ends = [f'{name}_low', f'{name}_high']
            nodes.append(helper.make_node('Clip', [rounded[name], *ends], [f'{name}_cut']))
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def _activations(graph):
    """Name behind a pair of QuantizeLinear and DequantizeLinear -> name before it."""
    before = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == 'QuantizeLinear'
    }
    return {
        node.output[0]: before[node.input[0]]
        for node in graph.node
        if node.op_type == 'DequantizeLinear' and node.input[0] in before
    }


def _bevs(model, frames):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return np.stack([session.run(['bev'], frame)[0] for frame in frames])


def _apart(got, want):
    return float(np.sqrt(np.square(got - want).mean() / np.square(want).mean()))

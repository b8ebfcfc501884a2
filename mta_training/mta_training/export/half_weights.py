"""Weights of a graph in 16 bits: half the file, computed in 32 bits as before.

A weight becomes a float16 initialiser and a Cast, which onnxruntime folds as it loads the graph:
nothing is slower.  What is rounded is the weight alone (11 bits of precision).
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
import torch

from mta_perception.atomic_files import whole

LEAST_NUMBERS = 256  # of a weight; smaller ones are norms and biases, and weigh nothing
_MOST = 60_000.0  # float16 ends at 65504


def halve(module):
    """Round the weights that `keep_in_half` takes, so that torch computes with the same ones."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.numel() >= LEAST_NUMBERS and weight.abs().max() < _MOST:
                weight.copy_(weight.half().float())
    return module


def keep_in_half(path):
    """Rewrite a graph in place: float32 initialisers that float16 holds exactly become that."""
    model = onnx.load(path)
    graph, casts = model.graph, []
    for index, tensor in enumerate(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LEAST_NUMBERS:
            continue
        small = values.astype(np.float16)
        if not np.array_equal(small.astype(np.float32), values):
            continue
        whole_name, name = tensor.name, f'{tensor.name}.half'
        graph.initializer[index].CopyFrom(numpy_helper.from_array(small, name))
        casts.append(helper.make_node('Cast', [name], [whole_name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    with whole(path, replace=True) as partial:
        onnx.save(model, partial)

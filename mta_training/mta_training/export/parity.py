"""Exported graphs against torch, on inputs with a moving ego, a non-zero history and one dead
camera."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch

from mta_training.export.graphs import (
    LanguageGraph,
    detector_graph,
    detector_inputs,
    language_inputs,
    object_inputs,
)


class Parity(NamedTuple):
    """Largest absolute difference between torch and ONNX."""

    boxes: float
    class_logits: float
    object_features: float
    bev: float
    prefix: float
    language: float


def detector_parity(config, detector, directory, seed=7):
    """(boxes, class_logits, object_features, bev): largest differences of detector.onnx."""
    graph, _ = detector_graph(detector.float().eval())
    inputs = detector_inputs(config, detector, seed)
    got, want = _both(graph, Path(directory) / 'detector.onnx', inputs)
    differences = _largest(_same_order(got, want), want)
    logits, boxes, features, bev = differences
    return boxes, logits, features, bev


def network_parity(model, directory):
    """Of an MtaModel: `detector_parity`, and the largest difference of qformer.onnx."""
    model, directory = model.float().eval(), Path(directory)
    found = detector_parity(model.config, model.detector, directory)
    objects = {name: value.numpy() for name, value in object_inputs(model, 8, seed=8).items()}
    (prefix,) = _largest(*_both(model.qformer, directory / 'qformer.onnx', objects))
    return *found, prefix


def parity(model, language_model, directory):
    """Run every graph in `directory` and the torch models on the same inputs -> Parity."""
    found, language = network_parity(model, directory), []
    directory = Path(directory)
    for count, before, tokens, past in ((4, 8, 1, 0), (4, 0, 1, 9), (1, 0, 3, 2)):
        inputs = language_inputs(model.config, count, before, tokens, past, seed=9)
        inputs = {name: value.numpy() for name, value in inputs.items()}
        graph = LanguageGraph(language_model)
        language += _largest(*_both(graph, directory / 'language.onnx', inputs))
    return Parity(*found, max(language))


def _both(module, path, inputs):
    """Outputs of a graph and of its module for the same arrays."""
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    got = session.run(None, inputs)
    with torch.no_grad():
        want = module(*(torch.from_numpy(value) for value in inputs.values()))
    want = (want,) if isinstance(want, torch.Tensor) else want
    return got, [output.numpy() for output in want]


def _largest(got, want):
    return [float(np.abs(one - other).max()) for one, other in zip(got, want)]


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

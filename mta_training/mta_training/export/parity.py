"""Exported graphs against torch, on inputs with a moving ego, a non-zero history and one dead
camera."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch

from mta_training.export.graphs import (
    DetectorGraph,
    LanguageGraph,
    example_inputs,
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
        (model.qformer, 'qformer.onnx', object_inputs(model, 8, seed=8)),
    ]
    cases += [
        (
            LanguageGraph(language_model),
            'language.onnx',
            language_inputs(model.config, count, prefix, tokens, past, seed=9),
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

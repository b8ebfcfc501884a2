"""BEVFormer -> one ONNX graph of one sample, and the measured difference from torch.

Which cells a camera sees depends on the calibration alone, and their number varies: whoever runs
the graph works it out once per calibration (`visible_pairs`) and gives it as four tables.

in   images        (1, N, H, W, 3) uint8   RGB, scaled and padded as config.image tells
     can_bus       (1, 18) float32         history.relative_can_bus
     pair_cell     (P,) int64              Visibility.cell, .camera, .pair_uv, .share
     pair_camera   (P,) int64
     pair_uv       (P, Z, 2) float32
     pair_share    (P,) float32
     history_bev   (1, Q, C) float32       `bev` of the frame before
     history_valid (1,) float32            0 = there is none
out  class_logits  (1, queries, classes), box_codes (1, queries, 10), bev (1, Q, C)
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from mta_perception.atomic_files import whole
from mta_perception.model.bevformer import History
from mta_perception.model.bevformer.visibility import Visibility, find_visibility
from mta_training.export.graphs import save_graph, surround_view

GRAPH = 'bevformer.onnx'
LARGEST_DIFFERENCE = 5e-3  # of an output; twice what golden.py allows for box codes
_MOST_GATHERED = 4e9  # bytes of rows that one layer of the graph may copy
OUTPUTS = ('class_logits', 'box_codes', 'bev')


class BEVFormerGraph(nn.Module):
    """The network with the inputs and outputs of the graph."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(
        self,
        images,
        can_bus,
        pair_cell,
        pair_camera,
        pair_uv,
        pair_share,
        history_bev,
        history_valid,
    ):
        """As above."""
        model = self.model
        features = model.features(model.normalise(images))
        visibility = Visibility(None, None, pair_cell, pair_camera, pair_uv, pair_share)
        bev = model.encoder(
            features, visibility, can_bus, History(history_bev, history_valid > 0.5)
        )
        decoded = model.decoder(bev)
        return decoded.class_logits[-1], decoded.box_codes[-1], bev


def visible_pairs(config, image_from_lidar, camera_mask=None):
    """The graph's four tables of a calibration (1, N, 4, 4)."""
    seen = find_visibility(config, image_from_lidar, camera_mask)
    return {
        'pair_cell': seen.cell,
        'pair_camera': seen.camera,
        'pair_uv': seen.pair_uv,
        'pair_share': seen.share,
    }


def calibration(config):
    """(1, 6, 4, 4) image_from_lidar of a plausible rig in contract order."""
    image_from_ego = surround_view(config.image)  # (6, 3, 4)
    ego_from_lidar = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])
    matrices = np.tile(np.eye(4), (1, 6, 1, 1))
    matrices[0, :, :3] = image_from_ego @ ego_from_lidar
    return torch.from_numpy(matrices)


def example_inputs(config, seed=0, history=True):
    """Inputs for a car that drives and turns, with a history unless told otherwise."""
    rng = np.random.default_rng(seed)
    image, cells = config.image, config.bev_cells
    size = (1, config.cameras, image.height, image.width, 3)
    can_bus = rng.normal(0, 0.3, (1, 18))
    can_bus[:, :2], can_bus[:, 16], can_bus[:, 17] = (3.1, 1.4), 0.6, 4.0
    bev = rng.normal(0, 1, (1, cells * cells, config.channels))
    return {
        'images': torch.from_numpy(rng.integers(0, 256, size, dtype=np.uint8)),
        'can_bus': torch.from_numpy(can_bus).float(),
        **visible_pairs(config, calibration(config)),
        'history_bev': torch.from_numpy(bev).float(),
        'history_valid': torch.tensor([float(history)]),
    }


def export_onnx(model, directory):
    """Write bevformer.onnx into `directory` -> its path, and `parity`.

    Raises ValueError, and leaves no file, where torch and ONNX differ by too much or the graph
    would need too much memory.
    """
    path = Path(directory) / GRAPH
    config = model.config
    pairs = visible_pairs(config, calibration(config))['pair_cell']
    copied = len(pairs) * config.backbone.levels * config.spatial_points * 4 * config.channels * 4
    if copied > _MOST_GATHERED:
        raise ValueError(
            f'{path}: not exported. A layer of BEVFormer {config.name} as a graph '
            f'would copy {copied / 1e9:.1f} GB of rows; expected at most '
            f'{_MOST_GATHERED / 1e9:.1f}. Run it in torch.'
        )
    inputs = example_inputs(config)
    pairs = torch.export.Dim('pairs', min=2)
    with whole(path) as candidate:
        save_graph(
            BEVFormerGraph(model.float().eval()),
            tuple(inputs.values()),
            candidate,
            list(inputs),
            list(OUTPUTS),
            {name: {0: pairs} if name.startswith('pair_') else None for name in inputs},
        )
        measured = parity(model, candidate)
        if not max(measured.values()) <= LARGEST_DIFFERENCE:
            raise ValueError(
                f'{path}: torch and ONNX differ by {measured}; expected at most '
                f'{LARGEST_DIFFERENCE}. The graph is not the network.'
            )
    return path, measured


def parity(model, path, seed=7):
    """Largest absolute difference of each output, torch against ONNX, with a history."""
    inputs = example_inputs(model.config, seed)
    with torch.no_grad():
        want = BEVFormerGraph(model.float().eval())(*inputs.values())
    return {
        name: float(np.abs(mine - theirs.numpy()).max())
        for name, mine, theirs in zip(OUTPUTS, run(path, inputs), want)
    }


def run(path, inputs):
    """Outputs of the graph, numpy arrays in the order of OUTPUTS, for a dict of tensors."""
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return session.run(list(OUTPUTS), {name: value.numpy() for name, value in inputs.items()})

"""Run a case file of golden BEVFormer outputs through our network and print the differences.

    python -m mta_training.bevformer.golden case_a.npz

A case file holds outputs of the published code for weights and images that follow from their
names alone (`weights`, `image`); only those outputs, the calibration and can_bus are in the file.
Exit code 0: every line is within its tolerance, 1: one is not, 2: wrong usage.
"""

import hashlib
from pathlib import Path
import re
import sys
from typing import Annotated, Optional

import numpy as np
from rich.console import Console
from rich.table import Table
import torch
import typer

from mta_perception.model.bevformer import BEVFormer, BEVFormerConfig, Ego, History
from mta_perception.model.bevformer.history import align, displacement
from mta_perception.model.bevformer.official import official_name
from mta_perception.model.bevformer.visibility import find_visibility

# Largest absolute and rms difference; half an order of magnitude above what float32 itself costs.
TOLERANCES = {
    'backbone': (3e-4, 3e-5),
    'neck': (1e-4, 2e-5),
    'can_bus_embed': (3e-6, 5e-7),
    'shift': (1e-8, 1e-8),
    'ref_cam': (3e-6, 5e-7),
    'bev_query_in': (3e-6, 5e-7),
    'bev_pos': (0.0, 0.0),
    'prev_bev_rotated': (3e-4, 2e-5),
    'tsa0': (1e-4, 1e-5),
    'sca0': (1.5e-4, 1e-5),
    'enc0': (1.5e-4, 1e-5),
    'tsa1': (2e-4, 1.5e-5),
    'sca1': (2e-4, 1.5e-5),
    'enc1': (2e-4, 1.5e-5),
    'enc2': (3e-4, 2e-5),
    'bev_embed': (3e-4, 2e-5),
    'init_reference': (2e-6, 3e-7),
    'hs': (1e-3, 2e-5),
    'inter_references': (3e-5, 2e-6),
    'cls': (1.5e-3, 5e-5),
    'bbox': (2.5e-3, 6e-5),
    'scores': (8e-5, 1.5e-5),
    'boxes': (4e-3, 4e-3),
}
_SCORE_TIE = 8e-5  # two detections this near in score may change places

# How a weight follows from its name: the first pattern found decides (kind, scale, offset).
_RULES = (
    (r'\.running_var$', 'positive', 0.25, 0.8),
    (r'\.running_mean$', 'plain', 0.1, 0.0),
    (r'^img_backbone\..*bn3\.weight$', 'plain', 0.03, 0.25),
    (r'^img_backbone\.(bn1|.*\.bn\d|.*downsample\.1)\.weight$', 'plain', 0.1, 1.0),
    (r'^img_backbone\.(bn1|.*\.bn\d|.*downsample\.1)\.bias$', 'plain', 0.1, 0.0),
    (r'^img_backbone\.conv1\.weight$', 'fan', 1.5, 0.0),
    (r'^img_backbone\..*\.weight$', 'pairs', 1.7, 0.0),
    (r'^img_neck\.lateral_convs.*weight$', 'pairs', 0.5, 0.0),
    (r'^img_neck\.fpn_convs.*weight$', 'fan', 1.5, 0.0),
    (r'reg_branches\.\d+\.4\.weight$', 'pairs', 0.3, 0.0),
    (r'reg_branches\.\d+\.4\.bias$', 'plain', 0.2, 0.0),
    (r'(reg_branches\.\d+\.2|cls_branches\.\d+\.3|can_bus_mlp\.2)\.weight$', 'pairs', 1.5, 0.0),
    (r'ffns\.0\.layers\.1\.weight$', 'pairs', 1.0, 0.0),
    (r'can_bus_mlp\.norm\.weight$', 'plain', 0.05, 0.4),
    (r'(\.norms\.\d+|cls_branches\.\d+\.[14])\.weight$', 'plain', 0.1, 1.0),
    (r'(query_embedding|bev_embedding)\.weight$', 'plain', 1.0, 0.0),
    (r'(row_embed|col_embed)\.weight$', 'plain', 0.5, 0.0),
    (r'(level_embeds|cams_embeds)$', 'plain', 0.3, 0.0),
    (r'decoder\..*sampling_offsets\.bias$', 'plain', 3.0, 0.0),
    (r'sampling_offsets\.bias$', 'plain', 2.0, 0.0),
    (r'sampling_offsets\.weight$', 'fan', 0.6, 0.0),
    (r'attn\.in_proj_weight$', 'fan', 0.7, 0.0),
    (r'decoder\..*attentions\.1\.output_proj\.weight$', 'fan', 0.4, 0.0),
    (r'reference_points\.weight$', 'fan', 1.5, 0.0),
    (r'attn\.out_proj\.weight$', 'fan', 0.6, 0.0),
    (r'cls_branches\.\d+\.6\.weight$', 'pairs', 3.0, 0.0),
    (r'cls_branches\.\d+\.6\.bias$', 'plain', 0.5, -2.0),
    (r'bias$', 'plain', 0.05, 0.0),
    (r'weight$', 'fan', 1.0, 0.0),
)


def _numbers(tag):
    digest = hashlib.sha256(tag.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:4], 'little')))


def weight(case, name, shape):
    """The tensor of this published name: float32, but int64 for batch counters."""
    if name.endswith('num_batches_tracked'):
        return np.zeros((), np.int64)
    if name.endswith('code_weights'):
        return np.array([1.0] * 8 + [0.2] * 2, np.float32)
    values = _numbers(f'{case}:weight:{name}').standard_normal(tuple(shape), dtype=np.float32)
    kind, scale, offset = next(rule[1:] for rule in _RULES if re.search(rule[0], name))
    if kind == 'positive':
        values = np.abs(values)
    if kind == 'pairs':
        values[:, 1::2] = -values[:, 0::2]
    if kind in ('fan', 'pairs'):
        scale = scale / np.sqrt(float(np.prod(shape[1:])))
    return values * np.float32(scale) + np.float32(offset)


def image(case, frame):
    """(1, 6, 3, 480, 800) float32, normalised: coarse noise, fine noise, 30 rows of padding."""
    generator = _numbers(f'{case}:image:{frame}')
    coarse = generator.standard_normal((6, 3, 15, 25), dtype=np.float32)
    fine = generator.standard_normal((6, 3, 480, 800), dtype=np.float32)
    x = np.repeat(np.repeat(coarse, 32, axis=2), 32, axis=3) + np.float32(0.25) * fine
    x[:, :, 450:] = 0
    return x[None]


def build(case, config):
    """The network with the case's weights, through the loader that a checkpoint takes."""
    state = {}
    for name, tensor in BEVFormer(config).state_dict().items():
        theirs = official_name(name)
        state[theirs] = torch.from_numpy(np.asarray(weight(case, theirs, tensor.shape)))
    return BEVFormer.from_official(state, config)


def run(path, case):
    """Yield (name, ours, golden) for every quantity of every frame of a case file."""
    golden = np.load(path)
    config = BEVFormerConfig.tiny(official=True)
    model = build(case, config)
    history = None
    for frame in range(len(golden['lidar2img'])):
        pixels = image(case, frame)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        if digest != str(golden['image_sha256'][frame]):
            raise ValueError(
                f'{path}: image {frame} of case {case!r} is not the one the file was '
                f'made with (sha256 {digest[:12]}...); is the case letter right?'
            )
        values, history = _frame(model, pixels, golden, frame, history)
        for name, ours in values.items():
            key = f'f{frame}_{name}'
            if key in golden:
                yield key, ours, golden[key]
        yield from _decoded(values, golden, frame)


def _frame(model, pixels, golden, frame, history):
    """Every quantity of one frame by its name in the file, and the history it leaves."""
    config = model.config
    can_bus = torch.from_numpy(golden['can_bus_used'][frame])[None]
    matrices = torch.from_numpy(golden['lidar2img'][frame])[None]
    seen = {}
    hooks = list(_listen(model, seen))
    with torch.no_grad():
        output = model(torch.from_numpy(pixels), matrices, Ego(can_bus), history)
        visibility = find_visibility(config, matrices)
        detections = model.decode(output)[0]
    for hook in hooks:
        hook.remove()
    values = {
        'backbone': seen['backbone'][0][:, ::64, ::2, ::2],
        'neck': seen['neck'][0][:, ::16],
        'can_bus_embed': seen['can_bus'][0],
        'bev_pos': model.encoder.position()[::29],
        'bev_query_in': (model.encoder.embedding + seen['can_bus'][0])[::29],
        'bev_mask': visibility.mask[0],
        'ref_cam': visibility.uv[0, :, ::17],
        'shift': displacement(can_bus)[0] / (config.cell_m * config.bev_cells),
        'bev_embed': output.bev[0, ::7],
        'init_reference': output.references[0, 0],
        'inter_references': output.references[1:, 0],
        'hs': output.queries[:, 0, ::13],
        'cls': output.class_logits[:, 0],
        'bbox': output.box_codes[:, 0],
        'detections': detections,
    }
    for layer in range(config.encoder_layers):
        values[f'tsa{layer}'] = seen[f'tsa{layer}'][0, ::29]
        values[f'sca{layer}'] = seen[f'sca{layer}'][0, ::29]
        values[f'enc{layer}'] = seen[f'enc{layer}'][0, ::17]
    if history is not None:
        past, _ = align(history, can_bus, config)
        values['prev_bev_rotated'] = past[0, ::17]
        values['prev_bev_zero'] = (past[0] == 0).all(-1)
    values = {
        name: value if name == 'detections' else value.detach().numpy()
        for name, value in values.items()
    }
    return values, History(output.bev, torch.ones(1, dtype=torch.bool))


def _listen(model, seen):
    """Hooks that put intermediate results into `seen`."""

    def keep(name, hook='output'):
        def store(_, arguments, *result):
            value = arguments[0] if hook == 'input' else result[0]
            seen[name] = value

        return store

    yield model.backbone.register_forward_hook(keep('backbone'))
    yield model.neck.register_forward_hook(keep('neck'))
    yield model.encoder.can_bus.register_forward_hook(keep('can_bus'))
    for index, layer in enumerate(model.encoder.layers):
        # What enters a norm is the output of the attention before it, residual included.
        yield layer.norms[0].register_forward_pre_hook(keep(f'tsa{index}', 'input'))
        yield layer.norms[1].register_forward_pre_hook(keep(f'sca{index}', 'input'))
        yield layer.register_forward_hook(keep(f'enc{index}'))


def _decoded(values, golden, frame):
    """Sorted scores, and boxes paired by (query, class): near-equal scores may change places."""
    mine = values['detections']
    theirs = {int(index): row for row, index in enumerate(golden[f'f{frame}_topk_index'])}
    scores, boxes = golden[f'f{frame}_scores'], golden[f'f{frame}_boxes']
    ours = mine.boxes.numpy().astype(np.float64)
    yield f'f{frame}_scores', mine.scores.numpy(), scores
    lowest = scores.min()
    stray = [
        score
        for index, score in zip(mine.index.tolist(), mine.scores.tolist())
        if index not in theirs and score > lowest + _SCORE_TIE
    ]
    rows = [
        (row, theirs[index]) for row, index in enumerate(mine.index.tolist()) if index in theirs
    ]
    found = set(mine.index.tolist())
    stray += [
        scores[row]
        for index, row in theirs.items()
        if index not in found and scores[row] > lowest + _SCORE_TIE
    ]
    left, right = (np.array([pair[side] for pair in rows]) for side in (0, 1))
    yield f'f{frame}_topk_index', np.array(len(stray)), np.array(0)
    yield f'f{frame}_labels', mine.labels.numpy()[left], golden[f'f{frame}_labels'][right]
    difference = ours[left] - boxes[right]
    difference[:, 6] = np.remainder(difference[:, 6] + np.pi, 2 * np.pi) - np.pi
    yield f'f{frame}_boxes', boxes[right] + difference, boxes[right]


class Line:
    """One comparison: largest and rms difference against the tolerance."""

    def __init__(self, key, ours, golden, mask=None):
        self.key, name = key, key.split('_', 1)[1]
        if ours.shape != golden.shape:
            raise ValueError(f'{key} has shape {ours.shape}; the file has {golden.shape}')
        self.exact = golden.dtype.kind in 'bi'
        if self.exact:
            self.largest = self.rms = float((ours != golden).sum())
            self.tolerance = 0.0, 0.0
        else:
            difference = ours.astype(np.float64) - golden.astype(np.float64)
            if mask is not None:
                difference = difference[mask]
            self.largest = float(np.abs(difference).max(initial=0.0))
            self.rms = float(np.sqrt(np.square(difference).mean()))
            self.tolerance = TOLERANCES[name]

    @property
    def good(self):
        """Within tolerance; NaN is not."""
        return self.largest <= self.tolerance[0] and self.rms <= self.tolerance[1]


def compare(path, case):
    """All Lines of a case file.  Raises OSError, ValueError, KeyError for a file that is none."""
    golden = np.load(path)
    lines = []
    for key, ours, theirs in run(path, case):
        mask = None
        if key.endswith('_ref_cam'):  # a point behind the camera has no place
            mask = golden[key.replace('ref_cam', 'bev_mask')][:, ::17]
        lines.append(Line(key, ours, theirs, mask))
    return lines


def main(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help='case_<letter>.npz')],
    case: Annotated[
        Optional[str],
        typer.Option(help='Letter in the tags of the case; default: that of the file name.'),
    ] = None,
):
    """Compare our BEVFormer tiny with golden outputs of the published code."""
    if case is None:
        found = re.search(r'case_([A-Za-z0-9]+)', path.stem)
        if not found:
            raise typer.BadParameter(f'{path.name} is not case_<letter>.npz; give --case')
        case = found.group(1).upper()
    try:
        lines = compare(path, case)
    except (OSError, ValueError, KeyError) as error:
        print(f'golden: {error}', file=sys.stderr)
        raise typer.Exit(1) from error
    table = Table('quantity', 'largest', 'allowed', 'rms', 'allowed', '')
    for line in lines:
        values = [
            f'{value:.1e}'
            for pair in zip((line.largest, line.rms), line.tolerance)
            for value in pair
        ]
        table.add_row(line.key, *values, 'ok' if line.good else '[red]BAD')
    Console().print(table)
    bad = sum(not line.good for line in lines)
    print(f'{len(lines) - bad} of {len(lines)} within tolerance')
    raise typer.Exit(1 if bad else 0)


if __name__ == '__main__':
    typer.run(main)

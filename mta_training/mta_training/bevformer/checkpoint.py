"""Published BEVFormer checkpoint -> `DIR/`: bevformer.pt under our names, card.yaml.

A checkpoint is read as data (tensor_files.py).  The weights are renamed by
model/bevformer/official.py, all or none.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from mta_perception.atomic_files import renewed, sha256
from mta_perception.directory_lock import sole_writer
from mta_perception.foreign_text import shown
from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer.official import official_name
from mta_perception.plain_yaml import read_yaml
from mta_training.tensor_files import fill, read_tensors, tensors_of

FORMAT = 1
WEIGHTS, CARD = 'bevformer.pt', 'card.yaml'
_MAYBE_FIT = 0.5  # of the names and shapes: below, it is another network
_TOLD = ('epoch', 'iter', 'time', 'mmdet_version', 'mmdet3d_version')  # of `meta`, into the card


@dataclass(frozen=True)
class Checkpoint:
    """What was in a file."""

    state_dict: dict  # published name -> tensor
    form: str  # how it was wrapped, in words
    meta: dict  # the entries of `meta` that are worth keeping


def read_checkpoint(path):
    """Checkpoint of a file.  Raises ValueError for what is none, or would run code when read."""
    path = Path(path)
    content = read_tensors(path)
    form, meta, state = 'a bare state_dict', {}, content
    if 'state_dict' in content:
        form, state = 'a checkpoint with ' + ', '.join(map(str, content)), content['state_dict']
        meta = content.get('meta') or {}
    strange = (
        [
            str(name)
            for name, value in state.items()
            if not isinstance(name, str) or not isinstance(value, torch.Tensor)
        ]
        if isinstance(state, dict)
        else [type(state).__name__]
    )
    if strange or not state:
        raise ValueError(
            f'{path.name}: the state_dict is not names and tensors: '
            f'{", ".join(strange[:5]) or "it is empty"}'
        )
    if all(name.startswith('module.') for name in state):
        form += ", names with 'module.'"
        state = {name.removeprefix('module.'): tensor for name, tensor in state.items()}
    return Checkpoint(
        dict(state),
        form,
        {name: _plain(meta[name]) for name in _TOLD if isinstance(meta, dict) and name in meta},
    )


def _plain(value):
    return (
        value.item()
        if isinstance(value, np.generic)
        else (value if isinstance(value, (int, float)) else str(value))
    )


def find_config(state_dict, configs=None):
    """The published config that names and shapes fit best.

    `configs` are the candidates, otherwise tiny, small and base.  Raises ValueError where none is
    near.
    """
    configs = configs or [
        make(official=True)
        for make in (BEVFormerConfig.tiny, BEVFormerConfig.small, BEVFormerConfig.base)
    ]
    fits = []
    for config in configs:
        expected = official_shapes(config)
        same = sum(
            name in state_dict and tuple(state_dict[name].shape) == shape
            for name, shape in expected.items()
        )
        fits.append(
            (
                same - 0.5 * sum(name not in expected for name in state_dict),
                same,
                len(expected),
                config,
            )
        )
    _, same, count, config = max(fits, key=lambda fit: fit[0])
    if same < _MAYBE_FIT * count:
        parts = Counter(name.split('.')[0] for name in state_dict)
        raise ValueError(
            f'this is no checkpoint of BEVFormer: {same} of the {count} names and shapes of '
            f'{config.name}, the nearest, are there. It has {len(state_dict)} tensors: '
            + ', '.join(f'{name} ({number})' for name, number in parts.most_common(6))
        )
    return config


def official_shapes(config):
    """Published name -> shape of every tensor."""
    with torch.device('meta'):
        ours = BEVFormer(config).state_dict()
    return {official_name(name): tuple(tensor.shape) for name, tensor in ours.items()}


def import_checkpoint(path, out, *, configs=None, shift_both_references=False):
    """Write a checkpoint in our format into directory `out` -> the dict of card.yaml.

    shift_both_references: for weights of before July 2023, see Quirks.  Raises ValueError, and
    writes nothing, for a file that is not exactly one of `configs`.
    """
    path, out = Path(path), Path(out)
    checkpoint = read_checkpoint(path)
    try:
        config = find_config(checkpoint.state_dict, configs)
        if shift_both_references:
            config = config.with_quirks(shift_both_references=True)
        model = BEVFormer.from_official(checkpoint.state_dict, config)
    except ValueError as error:
        raise ValueError(f'{path.name}: {error}') from None
    state = model.state_dict()
    broken = [official_name(name) for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f'{path.name}: values that are not finite in {", ".join(broken)}')
    card = {
        'format': FORMAT,
        'source': {
            'file': path.name,
            'sha256': sha256(path),
            'form': checkpoint.form,
            'tensors': len(checkpoint.state_dict),
            **checkpoint.meta,
        },
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'config': config.to_dict(),
    }
    write_imported(out, state, card)
    return card


def write_imported(out, state, card):
    """Weights and card, in one step.  Adds the weights' sha256 to the card."""
    with sole_writer(out), renewed(out, (CARD, WEIGHTS)) as draft:
        torch.save(
            {'format': FORMAT, 'config': card['config'], 'state_dict': dict(state)},
            draft / WEIGHTS,
        )
        card['files'] = {WEIGHTS: sha256(draft / WEIGHTS)}
        (draft / CARD).write_text(yaml.safe_dump(card, sort_keys=False))


def load_imported(directory):
    """BEVFormer, ready to run, from a directory of `import_checkpoint`.

    Raises FileNotFoundError or ValueError for one that is not whole.
    """
    directory = Path(directory)
    if not (directory / CARD).is_file():
        raise FileNotFoundError(
            f'{directory} has no {CARD}; expected a directory that '
            '`mta-train import-bevformer` wrote'
        )
    card = read_yaml(directory / CARD)
    came = card.get('format') if isinstance(card, dict) else card
    if came != FORMAT:
        raise ValueError(
            f'{directory / CARD} has format {shown(came)}; this program reads '
            f'{FORMAT}. Import the checkpoint again.'
        )
    files = card.get('files')
    if not isinstance(files, dict) or sha256(directory / WEIGHTS) != files.get(WEIGHTS):
        raise ValueError(
            f'{directory / WEIGHTS} is not the file that {CARD} tells of (sha256 '
            'differs). Import the checkpoint again.'
        )
    content = read_tensors(directory / WEIGHTS)
    try:
        model = BEVFormer(BEVFormerConfig.from_dict(content['config']))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f'{directory / WEIGHTS}: its network cannot be built ({error!r}). Import the '
            'checkpoint again.'
        ) from None
    fill(model, tensors_of(content, 'state_dict', directory / WEIGHTS), directory / WEIGHTS)
    return model.eval()


def summary(card):
    """What was found, in lines."""
    config, source = card['config'], card['source']
    switched = [name for name, on in config['quirks'].items() if on]
    told = ', '.join(f'{name} {source[name]}' for name in _TOLD if name in source)
    return [
        f'{source["file"]}: {source["form"]}; {source["tensors"]} tensors'
        + (f'; {told}' if told else ''),
        f'BEVFormer {config["name"]}: images {config["image"]["width"]} x '
        f'{config["image"]["height"]}, {config["bev_cells"]} x {config["bev_cells"]} cells, '
        f'{config["encoder_layers"]} encoder layers, {card["parameters"]:,} parameters',
        f'quirks of the published code that stay: {", ".join(switched) or "none"}',
    ]

"""Reading a transformers model from a local directory: what must lie there, and in silence.

Nothing here or in its users asks a hub, executes code that comes with weights, or unpickles.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
import json
from pathlib import Path
from typing import Any
import warnings

from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' and peft's warnings and progress bars off the console.

    What they would report of loaded weights is checked by `refuse_misfits`, which raises.
    """
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def read_config(directory: str | Path, wanted: Collection[str], purpose: str) -> dict[str, Any]:
    """The dict in config.json of a model directory.

    Raises FileNotFoundError where directory or file is missing, ValueError where `model_type` is
    none of `wanted`.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(
            f'{directory} is not a directory; expected that of {purpose}, with config.json, '
            'weights (*.safetensors) and a tokenizer. Copy the model there: nothing is '
            'downloaded.'
        )
    path = directory / 'config.json'
    if not path.is_file():
        raise FileNotFoundError(
            f'{directory} has no config.json; expected {purpose} in the format of transformers. '
            'Copy all files of the model, not the weights alone.'
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        kind = config.get('model_type')
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{path} is not a JSON object ({error}); copy it again.') from error
    if kind not in wanted:
        raise ValueError(
            f'{path}: model_type is {kind!r}; {purpose} needs '
            f'{" or ".join(map(repr, wanted))}. Choose another model.'
        )
    return config


def weight_files(directory: str | Path, named: Iterable[str] | None = None) -> list[Path]:
    """Paths of all safetensors files of a model; every one has a readable header.

    named: the names to take; None: those of the index, or all.
    Raises FileNotFoundError where there are none or one that the index names is missing.
    """
    directory = Path(directory)
    index = directory / 'model.safetensors.index.json'
    if named is not None:
        paths = [directory / name for name in named]
    elif index.is_file():
        names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f'{directory} lacks {", ".join(missing)}, which {index.name} '
                'names; copy the missing files.'
            )
        paths = [directory / name for name in names]
    else:
        paths = sorted(directory.glob('*.safetensors'))
    if not paths:
        pickles = sorted(path.name for path in directory.glob('*.bin'))
        raise FileNotFoundError(
            f'{directory} has no weights; expected *.safetensors'
            + (
                f', found {", ".join(pickles)}. A pickle can execute code and is not read: '
                'convert it with save_pretrained(..., safe_serialization=True) where its source '
                'is trusted.'
                if pickles
                else ". Copy the model's weights there."
            )
        )
    for path in paths:
        try:
            with safe_open(path, 'pt') as file:
                file.keys()
        except SafetensorError as error:
            raise ValueError(
                f'{path} is not a whole safetensors file ({error}); it may be a Git '
                'LFS pointer or cut short. Copy it again.'
            ) from error
    return paths


def refuse_misfits(directory: str | Path, info: Mapping[str, Any]) -> None:
    """Raise ValueError where from_pretrained's loading info names weights that do not fit."""
    found = {
        name: sorted(
            str(key[0]) if isinstance(key, tuple) else str(key)
            for key in info.get(f'{name}_keys', ())
        )
        for name in ('missing', 'unexpected', 'mismatched')
    }
    problems = [
        f'{len(keys)} {name} ({", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""})'
        for name, keys in found.items()
        if keys
    ]
    if problems:
        raise ValueError(
            f'{directory}: weights do not fit config.json: {"; ".join(problems)}. '
            'Expected exactly the tensors of that architecture; copy config and '
            'weights of one and the same model.'
        )

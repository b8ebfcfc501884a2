"""Files of tensors as data: torch's loader of tensors, texts, numbers and plain containers, which
never runs what a file asks for.  Every checkpoint of ours and of others is opened here.
"""

from pathlib import Path
import pickle
import re
import warnings

import numpy as np
import torch

_scalar = np.float64(0.0).__reduce__()[0]
# What a training loop may leave in `meta` or `optimizer`: numbers and texts of numpy's, under the
# names of numpy 1 and 2.  No arrays: nobody needs them.
_HARMLESS = [
    *((_scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    np.dtype,
    *(type(np.dtype(kind)) for kind in 'efdbhilqBHILQ?U'),
]
# How the loader says that a file wants something called or made.
_WANTED = re.compile(r'GLOBAL (\S+)|unrecognized function (.+)|but got (<class .+>)')


class TensorFileError(ValueError):
    """A file cannot be read, or only by running code; the message says which and why."""


def read_tensors(path):
    """The dict in a file of `torch.save`, on the CPU.

    Raises TensorFileError for what is no such file, or would run code when read.
    """
    path = Path(path)
    if not path.is_file():
        what = 'is a folder, pipe or device' if path.exists() else 'does not exist'
        raise TensorFileError(f'{path} {what}; expected a checkpoint of PyTorch')
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about pickle protocols: it says so or works
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise TensorFileError(_refusal(path, str(error))) from None
    except OSError as error:
        raise TensorFileError(f'{path} cannot be read: {error.strerror or error}') from None
    # The loader has no error of its own for damaged bytes.
    except Exception as error:
        raise TensorFileError(
            f'{path} is no checkpoint of PyTorch, or damaged: {_first_line(error)}'
        ) from None
    if not isinstance(content, dict):
        raise TensorFileError(
            f'{path} holds a {type(content).__name__}; expected the dict of a '
            "checkpoint, with 'state_dict', or a state_dict"
        )
    return content


def tensors_of(content, name, path):
    """content[name] as {text: tensor}; TensorFileError where it is missing or something else."""
    found = content.get(name)
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    ):
        came = 'is missing' if found is None else 'is not names and tensors'
        raise TensorFileError(
            f'{path}: {name!r} {came}; expected a checkpoint that `mta-train train` wrote'
        )
    return found


def fill(module, tensors, whose, optional=()):
    """Load {name: tensor} into a module; TensorFileError where they do not fit it.

    whose     whose tensors they are, for the message
    optional  names of the module that may be missing; they stay as they are
    """
    own, got = (
        {name: tuple(value.shape) for name, value in part.items()}
        for part in (module.state_dict(), tensors)
    )
    misfits = sorted(
        name
        for name in own.keys() | got.keys()
        if own.get(name) != got.get(name) and not (name in optional and name not in got)
    )
    if misfits:
        name = misfits[0]
        raise TensorFileError(
            f'{whose}: {len(misfits)} tensors are missing, unknown or of another shape, the first '
            f'is {name} ({got.get(name, "missing")}, this network has {own.get(name, "none")}); '
            'expected those of the same network, which recipe.yaml beside them describes.'
        )
    module.load_state_dict(tensors, strict=False)


def _refusal(path, message):
    wanted = _WANTED.search(message)
    if wanted is None:
        return (
            f'{path} is no checkpoint of PyTorch: '
            f'{_first_line(message.partition("WeightsUnpickler error:")[2] or message)}'
        )
    what = next(part for part in wanted.groups() if part)
    return (
        f'{path} is refused: to read it, code that the file names would have to run '
        f'({what}); a checkpoint needs no more than tensors, text and numbers. If you trust '
        'the file, save its tensors again with the program that wrote it: '
        "torch.save({'state_dict': model.state_dict()}, ...)."
    )


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

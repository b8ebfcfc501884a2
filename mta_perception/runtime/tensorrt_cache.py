"""Where TensorRT's engines lie: a folder for each graph and precision, with the machine's name.

TensorRT builds an engine for one GPU, in minutes, and it is kept.  One that was built elsewhere (a
home directory that was copied, an image of a container) is slow or wrong: it is refused.
"""

import json
from pathlib import Path

import onnxruntime

from mta_perception.atomic_files import write_atomically
from mta_perception.runtime.manifest import ManifestError
from mta_perception.share import cache_directory

MACHINE = 'machine.json'
_DRIVER = Path('/proc/driver/nvidia')


def this_machine(driver: Path = _DRIVER) -> dict[str, str]:
    """What an engine depends on: GPUs, driver, onnxruntime."""
    gpus = [
        line.split(':', 1)[1].strip()
        for path in sorted(driver.glob('gpus/*/information'))
        for line in path.read_text(errors='replace').splitlines()
        if line.startswith('Model:')
    ]
    version = driver / 'version'
    lines = version.read_text(errors='replace').splitlines() if version.is_file() else []
    return {
        'gpus': ', '.join(gpus) or 'unknown',
        'driver': ' '.join(lines[0].split()) if lines else 'unknown',
        'onnxruntime': onnxruntime.__version__,
    }


def engine_folder(digest: str, precision: str, machine: dict[str, str] | None = None) -> Path:
    """The folder of the engines of a graph, by its sha256; made and marked where it is new.

    Raises ManifestError where it holds engines of another machine.
    """
    folder = cache_directory('tensorrt', f'{digest[:16]}-{precision}')
    here, mark = machine or this_machine(), folder / MACHINE
    if not any(folder.iterdir()):
        write_atomically(mark, json.dumps(here, indent=1))
        return folder
    try:
        came = json.loads(mark.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        came = None
    if came != here:
        raise ManifestError(
            f'{folder} holds TensorRT engines of another machine ({_words(came)}), this one is '
            f'{_words(here)}. Remove the folder: they are built again here, which takes minutes.'
        )
    return folder


def _words(machine: object) -> str:
    if not isinstance(machine, dict):
        return f'it has no {MACHINE}'
    return ', '.join(f'{key} {str(value)[:100]}' for key, value in machine.items())

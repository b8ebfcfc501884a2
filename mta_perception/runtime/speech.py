"""Which captioner a model has, and the directory of a foreign language model held against its
manifest.

Everything here is known before torch is imported, which only a foreign language model needs.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
import re

from mta_perception.atomic_files import sha256
from mta_perception.foreign_text import printable, shown
from mta_perception.runtime.captioner import Captioner, OnnxCaptioner, captioner_spec
from mta_perception.runtime.manifest import (
    FILE_NAME,
    TOKENIZER,
    ForeignSpec,
    Manifest,
    ManifestError,
)

PRECISIONS = ('auto', 'float32', 'bfloat16', 'float16')
PACKAGES = ('torch', 'transformers', 'safetensors')
_DEVICE = re.compile(r'cpu|cuda(:\d{1,2})?')
_WITHOUT = 'or run without sentences (-p captions:=false)'
_GIVE_IT = '-p language_directory:=DIR, offline --language-directory DIR'


@dataclass(frozen=True)
class LanguageSettings:
    """Where a foreign language model lies and how it is to run; ours needs none of it."""

    directory: str = ''
    device: str = 'cpu'  # or cuda, cuda:1
    precision: str = 'auto'  # of PRECISIONS; auto: float32 on a CPU, bfloat16 on a GPU

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise ValueError(
                f'language_device is {shown(self.device)}, expected cpu, cuda or cuda:NUMBER.'
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f'language_precision is {shown(self.precision)}, expected one of: '
                f'{", ".join(PRECISIONS)}.'
            )
        if self.device == 'cpu' and self.precision not in ('auto', 'float32'):
            raise ValueError(
                f'language_precision is {self.precision} with language_device cpu: a CPU '
                'computes in float32. Set language_precision to auto, or language_device to cuda.'
            )

    def parameters(self) -> dict[str, str]:
        """Of the node, by name; none for a language model of ours."""
        if not self.directory:
            return {}
        return {
            'language_directory': str(Path(self.directory).expanduser().resolve()),
            'language_device': self.device,
            'language_precision': self.precision,
        }


def open_captioner(
    manifest: Manifest, threads: int = 1, language: LanguageSettings | None = None
) -> Captioner:
    """The Captioner of a manifest that has one.

    threads: of the CPU.  Raises ManifestError, in one sentence with its mend.
    """
    captioner_spec(manifest)
    language = language or LanguageSettings()
    directory = language_directory(manifest, language.directory)
    if directory is None:
        return OnnxCaptioner(manifest, threads)
    missing = [name for name in PACKAGES if not _installed(name)]
    if missing:
        raise ManifestError(
            f'{manifest.directory / FILE_NAME}: the language model runs in torch, and '
            f'{", ".join(missing)} is not installed. Install the extra `language` '
            f"(pip install safetensors torch 'transformers>=5'), {_WITHOUT}."
        )
    from mta_perception.runtime.torch_captioner import TorchCaptioner

    return TorchCaptioner(manifest, directory, threads, language.device, language.precision)


def language_directory(manifest: Manifest, directory: str | Path) -> Path | None:
    """The directory of a model's foreign language model, each file held against its hash; None for
    a model that needs none.  Raises ManifestError."""
    foreign = manifest.captioner.foreign if manifest.captioner else None
    if foreign is None:
        return None
    path, name = manifest.directory / FILE_NAME, printable(foreign.name, 80)
    if not str(directory):
        raise ManifestError(
            f'{path}: its sentences are spoken by the language model {name}, which is no part of '
            f'it. Name the directory with its weights ({_GIVE_IT}), {_WITHOUT}.'
        )
    directory = Path(directory).expanduser()
    if not directory.is_dir():
        raise ManifestError(
            f'language_directory {directory} is no directory, expected that of the language '
            f'model {name} with {", ".join(sorted(foreign.files))}. Copy the model there (nothing '
            f'is downloaded), name another ({_GIVE_IT}), {_WITHOUT}.'
        )
    _check_files(path, directory, foreign)
    return directory


def _check_files(manifest: Path, directory: Path, foreign: ForeignSpec) -> None:
    name = printable(foreign.name, 80)
    missing = sorted(file for file in foreign.files if not (directory / file).is_file())
    if missing:
        what = 'the tokenizer' if missing == [TOKENIZER] else ', '.join(missing)
        raise ManifestError(
            f'language_directory {directory} lacks {what}, which {manifest} lists'
            f'{f" as {TOKENIZER}" if missing == [TOKENIZER] else ""}. Copy all files of the '
            f'language model {name} there, name another directory ({_GIVE_IT}), {_WITHOUT}.'
        )
    for file, expected in foreign.files.items():
        digest = sha256(directory / file)
        if digest != expected:
            raise ManifestError(
                f'{directory / file} has sha256 {digest}, {manifest} expects {shown(expected)}: '
                f'it is damaged, or not of the {name} that the model was trained with. Copy that '
                f'one, name another directory ({_GIVE_IT}), {_WITHOUT}.'
            )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False

"""`models/<name>/manifest.yaml`: what a model directory holds and how it wants to be fed.

The layout is in docs/architecture.md.  Whatever does not fit this program is refused here, in
words, before a graph is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mta_perception import contract
from mta_perception.atomic_files import sha256
from mta_perception.detections import UNCALIBRATED, Calibration
from mta_perception.foreign_text import shown
from mta_perception.plain_yaml import YamlError, read_yaml
from mta_perception.runtime.task_spec import TasksSpec, tasks_spec

FILE_NAME = 'manifest.yaml'
BOX_CODE = ('x', 'y', 'z', 'length', 'width', 'height', 'sin', 'cos', 'vx', 'vy')
TOKENIZER = 'tokenizer.json'
CAPTION_FILES = ('qformer.onnx', 'language.onnx', TOKENIZER)
FOREIGN_FILES = ('qformer.onnx', 'adapter.safetensors')
KINDS = ('onnx', 'transformers')  # of a language model: ours, or a directory that is not shipped
_READ_OF_FOREIGN = ('.json', '.safetensors')
EXPORT_AGAIN = 'Export the model again with `mta-train export`.'


MOST = 1 << 20  # of anything that is counted


class ManifestError(ValueError):
    """The model directory does not fit this program."""


@dataclass(frozen=True)
class ImageSpec:
    """The model's image: resized, then padded bottom/right with zeros."""

    width: int  # [px]
    height: int
    scale: float  # resize factor of the training cameras' images


@dataclass(frozen=True)
class BevSpec:
    """The grid around the car."""

    half_extent_m: float
    cells: int  # along x and along y
    channels: int


@dataclass(frozen=True)
class PairsSpec:
    """How a graph that is given the visible pairs counts them (visible_pairs.py)."""

    range_m: tuple[float, ...]  # x y z least, x y z most of the grid, lidar frame
    pillar_points: int  # heights of a cell
    content_height: int  # rows of the image in which a point counts as seen [px]
    lidar_in_ego_m: tuple[float, ...]  # x y z of the frame that the network works in


@dataclass(frozen=True)
class ForeignSpec:
    """A language model that is no part of the model: a directory in transformers' format."""

    name: str  # of the directory it was trained with, for people
    prompt: str  # after the prefix and `bos`, before the first word
    adapter_tokens: int  # of each layer but the first
    files: Mapping[str, str]  # name of a file of that directory -> sha256


@dataclass(frozen=True)
class CaptionerSpec:
    """Sizes of the captioner and its special tokens."""

    prefix_tokens: int
    width: int
    layers: int
    heads: int
    head_dim: int
    vocabulary: int
    bos: int
    eos: int
    max_tokens: int
    foreign: Optional[ForeignSpec] = None  # None: language.onnx and tokenizer.json


@dataclass(frozen=True)
class Manifest:
    """A model directory that fits this program: every file is there and has its hash."""

    directory: Path
    name: str
    contract_version: int
    cameras: tuple[str, ...]
    classes: tuple[str, ...]
    image: ImageSpec
    bev: BevSpec
    history_step_s: float  # age of the history in training [s]
    score_threshold: float
    max_detections: int
    calibration: Calibration  # of the scores
    captioner: Optional[CaptionerSpec]
    pairs: Optional[PairsSpec]  # None: the graph works out what its cameras see
    files: Mapping[str, str]  # file name -> sha256
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    licence: str
    precision: str  # of detector.onnx: fp32, or int8 where that is faster
    tasks: Optional[TasksSpec] = None  # None: the model answers no questions

    @classmethod
    def load(cls, directory: str | Path) -> 'Manifest':
        """Read and check `directory`; raises ManifestError."""
        directory = Path(directory).expanduser()
        if directory.name == FILE_NAME:
            directory = directory.parent
        fields = _Fields(directory / FILE_NAME, _read(directory))
        _check_contract(fields)
        manifest = cls(
            directory=directory,
            name=fields.text('name'),
            contract_version=contract.CONTRACT_VERSION,
            cameras=contract.CAMERAS,
            classes=contract.CLASSES,
            image=ImageSpec(
                fields.count('image', 'width'),
                fields.count('image', 'height'),
                fields.number('image', 'scale'),
            ),
            bev=BevSpec(
                fields.number('bev', 'half_extent_m'),
                fields.count('bev', 'cells'),
                fields.count('bev', 'channels'),
            ),
            history_step_s=fields.number('history', 'step_s'),
            score_threshold=fields.number('decode', 'score_threshold'),
            max_detections=fields.count('decode', 'max_detections'),
            calibration=_calibration(fields),
            captioner=_captioner(fields),
            pairs=_pairs(fields),
            files=fields.hashes(),
            training=fields.optional_mapping('training'),
            metrics=fields.optional_mapping('metrics'),
            licence=str(fields.values.get('licence', 'not stated')),
            precision='int8' if fields.values.get('precision') == 'int8' else 'fp32',
            tasks=tasks_spec(fields),
        )
        _check_files(fields, manifest)
        return manifest

    def path(self, name: str) -> Path:
        """Path of one of `files`."""
        if name not in self.files:
            raise ManifestError(
                f'{self.directory / FILE_NAME}: files has no {name}, only '
                f'{sorted(self.files)}. {EXPORT_AGAIN}'
            )
        return self.directory / name


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number above all floats
        return False


class _Fields:
    """Typed reading of nested keys; every error names the key, what came and what was expected."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values

    def get(self, *keys: str) -> Any:
        value: Any = self.values
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise self.error('.'.join(keys), 'nothing', 'a value')
            value = value[key]
        return value

    def number(self, *keys: str) -> float:
        value = self.get(*keys)
        if not _is_number(value) or value <= 0:
            raise self.error('.'.join(keys), value, 'a positive number')
        return float(value)

    def count(self, *keys: str, least: int = 1) -> int:
        value = self.get(*keys)
        if type(value) is not int or not least <= value <= MOST:
            raise self.error('.'.join(keys), value, f'a whole number from {least} to {MOST}')
        return value

    def text(self, *keys: str) -> str:
        value = self.get(*keys)
        if not isinstance(value, str) or not value:
            raise self.error('.'.join(keys), value, 'a name')
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.get(key)
        if not isinstance(value, dict) or not value:
            raise self.error(key, value, 'a mapping')
        return value

    def optional_mapping(self, key: str) -> dict[str, Any]:
        return self.mapping(key) if self.values.get(key) else {}

    def hashes(self, *keys: str) -> dict[str, str]:
        """`files`, of the manifest or below `keys`: name -> sha256."""
        place = '.'.join((*keys, 'files'))
        files = self.get(*keys, 'files')
        if not isinstance(files, dict) or not files:
            raise self.error(place, files, 'a mapping')
        for name, digest in files.items():
            # A manifest may come from elsewhere: it must not make the program read outside its
            # folder.
            if not isinstance(name, str) or Path(name).name != name:
                beside = 'of one folder' if keys else 'beside the manifest'
                raise self.error(place, name, f'names of files {beside}')
            if not isinstance(digest, str):
                raise self.error(f'{place}.{shown(name)}', digest, 'a sha256')
        return files

    def error(
        self, key: str, came: object, expected: str, remedy: str = EXPORT_AGAIN
    ) -> ManifestError:
        return ManifestError(f'{self.path}: {key} is {shown(came)}, expected {expected}. {remedy}')


def _calibration(fields: _Fields) -> Calibration:
    """Of `decode.calibration`, two numbers a class; models before it have none."""
    if 'calibration' not in fields.mapping('decode'):
        return UNCALIBRATED
    curves = []
    for name in contract.CLASSES:
        value = fields.get('decode', 'calibration', name)
        if not (
            isinstance(value, list)
            and len(value) == 2
            and all(map(_is_number, value))
            and value[0] > 0
        ):
            raise fields.error(
                f'decode.calibration.{name}', value, 'slope and offset, the slope positive'
            )
        curves.append(value)
    slopes, offsets = np.array(curves, dtype=np.float64).T
    return Calibration(slopes, offsets)


def _read(directory: Path) -> dict[str, Any]:
    path = directory / FILE_NAME
    if not path.is_file():
        raise ManifestError(
            f'{directory} holds no {FILE_NAME}, expected a model directory as '
            'described in docs/architecture.md. Check the path of the model.'
        )
    try:
        values = read_yaml(path)
    except YamlError as error:
        raise ManifestError(f'{error} {EXPORT_AGAIN}') from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        came = type(values).__name__ if not isinstance(values, dict) else 'keys that are no text'
        raise ManifestError(f'{path} holds {came}, expected a mapping. {EXPORT_AGAIN}')
    return values


def _check_contract(fields: _Fields) -> None:
    version = fields.get('contract_version')
    if version != contract.CONTRACT_VERSION:
        raise fields.error(
            'contract_version',
            version,
            f'{contract.CONTRACT_VERSION}',
            'This model is for another version of the program: use that one, or '
            'export the model again with this one.',
        )
    for key, expected in (
        ('cameras', contract.CAMERAS),
        ('classes', contract.CLASSES),
        ('box_code', BOX_CODE),
    ):
        came = fields.get(key)
        if not isinstance(came, list) or tuple(came) != expected:
            raise fields.error(
                key,
                came,
                f'{list(expected)} in this order',
                'The order is part of the trained weights: the model must be '
                'trained and exported with it.',
            )


def _captioner(fields: _Fields) -> Optional[CaptionerSpec]:
    if fields.values.get('captioner') is None:
        return None
    names = [name for name in CaptionerSpec.__dataclass_fields__ if name != 'foreign']
    least = {'bos': 0, 'eos': 0}
    spec = CaptionerSpec(
        **{name: fields.count('captioner', name, least=least.get(name, 1)) for name in names},
        foreign=_foreign(fields),
    )
    for name in ('bos', 'eos'):
        if getattr(spec, name) >= spec.vocabulary:
            raise fields.error(
                f'captioner.{name}',
                getattr(spec, name),
                f'a token below vocabulary={spec.vocabulary}',
            )
    return spec


def _foreign(fields: _Fields) -> Optional[ForeignSpec]:
    """Of `captioner.language`; None where the language model is ours, as where nothing says it."""
    if fields.mapping('captioner').get('language') is None:
        return None
    place = ('captioner', 'language')
    kind = fields.get(*place, 'kind')
    if kind not in KINDS:
        raise fields.error('captioner.language.kind', kind, f'one of {", ".join(KINDS)}')
    if kind == 'onnx':
        return None
    prompt = fields.get(*place, 'prompt')
    if not isinstance(prompt, str):
        raise fields.error('captioner.language.prompt', prompt, 'a text')
    files = fields.hashes(*place)
    # Of each other kind some reader runs what the file says.
    other = [name for name in files if not name.endswith(_READ_OF_FOREIGN)]
    if other or 'config.json' not in files or not any(map(_holds_weights, files)):
        raise fields.error(
            'captioner.language.files',
            sorted(files),
            f'config.json and weights, each of them {" or ".join(_READ_OF_FOREIGN)}',
        )
    return ForeignSpec(
        fields.text(*place, 'name'), prompt, fields.count(*place, 'adapter_tokens'), files
    )


def _holds_weights(name: str) -> bool:
    return name.endswith('.safetensors')


def _pairs(fields: _Fields) -> Optional[PairsSpec]:
    if fields.values.get('visible_pairs') is None:
        return None

    def numbers(name: str, count: int) -> tuple[float, ...]:
        value = fields.get('visible_pairs', name)
        fits = isinstance(value, list) and len(value) == count and all(map(_is_number, value))
        if not fits or max(map(abs, value)) > 1e4:
            raise fields.error(f'visible_pairs.{name}', value, f'{count} numbers [m]')
        return tuple(map(float, value))

    range_m = numbers('range_m', 6)
    if not all(low < high for low, high in zip(range_m[:3], range_m[3:])):
        raise fields.error('visible_pairs.range_m', list(range_m), 'the least before the most')
    points = fields.count('visible_pairs', 'pillar_points')
    if points > 64:
        raise fields.error('visible_pairs.pillar_points', points, 'at most 64')
    return PairsSpec(
        range_m,
        points,
        fields.count('visible_pairs', 'content_height'),
        numbers('lidar_in_ego_m', 3),
    )


def _check_files(fields: _Fields, manifest: Manifest) -> None:
    asking = manifest.tasks.files if manifest.tasks else ()
    for name in ('detector.onnx', *_caption_files(manifest.captioner), *asking):
        manifest.path(name)
    for name, expected in manifest.files.items():
        path = manifest.directory / name
        if not path.is_file():
            raise ManifestError(
                f'{path} is missing, {fields.path} lists it. Copy the whole model '
                'directory, or export the model again.'
            )
        digest = sha256(path)
        if digest != expected:
            raise ManifestError(
                f'{path} has sha256 {digest}, {fields.path} expects {shown(expected)}: the '
                'file is damaged or of another export. Copy the whole model directory again.'
            )


def _caption_files(captioner: Optional[CaptionerSpec]) -> tuple[str, ...]:
    if captioner is None:
        return ()
    if captioner.foreign is None:
        return CAPTION_FILES
    # A directory that has no tokenizer.json of its own was exported with one.
    own = () if TOKENIZER in captioner.foreign.files else (TOKENIZER,)
    return (*FOREIGN_FILES, *own)

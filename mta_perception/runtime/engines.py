"""Which engine runs a detector, where, and in which precision: what was asked, or an error.

| engine | device | precision |
|---|---|---|
| onnxruntime | cpu | as the graph |
| onnxruntime | cuda | as the graph (int8 is computed in float32) |
| onnxruntime | tensorrt | fp32, fp16 |
| openvino | cpu | as the graph |
"""

from dataclasses import dataclass
import re

from mta_perception.foreign_text import shown
from mta_perception.runtime import openvino_graph
from mta_perception.runtime.manifest import FILE_NAME, Manifest, ManifestError
from mta_perception.runtime.session import (
    BoundGraph,
    Device,
    Graph,
    SessionGraph,
    open_session,
)

ENGINES = ('auto', 'onnxruntime', 'openvino')
PRECISIONS = ('model', 'fp32', 'int8', 'fp16')
FLOAT_FILE = 'detector_fp32.onnx'  # beside an int8 detector.onnx
_DEVICE = re.compile(r'(cpu|cuda|tensorrt)(?::(\d{1,2}))?')
_KEPT = ('bev',)  # outputs that come back as inputs


@dataclass(frozen=True)
class EngineSettings:
    """What the parameters engine, device and precision of the node ask for.

    auto is onnxruntime: OpenVINO was not faster (docs/training.md).  Raises ValueError for what no
    machine could do.
    """

    engine: str = 'auto'  # of ENGINES
    device: str = 'cpu'  # or cuda, tensorrt, cuda:1 ...
    precision: str = 'model'  # of PRECISIONS; model: detector.onnx as it is

    def __post_init__(self) -> None:
        for name, choices in (('engine', ENGINES), ('precision', PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f'{name} is {shown(getattr(self, name))}, expected one of: '
                    f'{", ".join(choices)}.'
                )
        found = _DEVICE.fullmatch(self.device)
        if not found or (found[1] == 'cpu' and found[2]):
            raise ValueError(
                f'device is {shown(self.device)}, expected cpu, cuda, tensorrt, or a further GPU '
                'as cuda:1.'
            )
        if self.engine == 'openvino' and found[1] != 'cpu':
            raise ValueError(
                f'engine is openvino with device {self.device}: it runs on the cpu. Set engine to '
                'onnxruntime, or device to cpu.'
            )
        if self.precision == 'fp16' and found[1] != 'tensorrt':
            raise ValueError(
                f'precision is fp16 with device {self.device}: only tensorrt computes in it. Set '
                'device to tensorrt, or precision to model.'
            )
        if self.precision == 'int8' and found[1] == 'tensorrt':
            raise ValueError(
                'precision is int8 with device tensorrt, which wants other int8 graphs than ours '
                '(symmetric ones). Set precision to fp16 or fp32.'
            )

    @property
    def place(self) -> Device:
        """`device`, read."""
        kind, _, index = self.device.partition(':')
        return Device(kind, int(index or 0))


def open_detector_graph(manifest: Manifest, threads: int, settings: EngineSettings) -> Graph:
    """The detector of a model as a Graph; `threads` of the CPU.

    Raises ManifestError, in one sentence with its mend, where what was asked is not to be had.
    """
    path = manifest.path(detector_file(manifest, settings))
    if _engine(settings) == 'openvino':
        if not openvino_graph.installed():
            raise ManifestError(
                'engine is openvino, and the package is not installed. Install the extra '
                '`openvino` (pip install openvino), or set engine to onnxruntime.'
            )
        return openvino_graph.OpenVinoGraph(path, threads)
    place = settings.place
    session = open_session(path, threads, place, settings.precision == 'fp16')
    if place.kind == 'cpu':
        return SessionGraph(session)
    return BoundGraph(session, place, _KEPT)


def detector_file(manifest: Manifest, settings: EngineSettings) -> str:
    """Name of the graph with the precision that was asked for.  Raises ManifestError."""
    wanted = {'model': manifest.precision, 'fp16': 'fp32'}.get(
        settings.precision, settings.precision
    )
    if settings.place.kind == 'tensorrt' and wanted == 'int8':
        wanted_by = 'device tensorrt, which does not run our int8 graphs'
        wanted = 'fp32'
    else:
        wanted_by = f'precision {settings.precision}'
    if wanted == manifest.precision:
        return 'detector.onnx'
    if wanted == 'fp32' and FLOAT_FILE in manifest.files:
        return FLOAT_FILE
    flag = '--int8' if wanted == 'int8' else '--int8 --keep-fp32'
    raise ManifestError(
        f'{manifest.directory / FILE_NAME}: no detector in {wanted}, which {wanted_by} needs; its '
        f'detector.onnx is {manifest.precision}. Export the model with `mta-train export {flag}`, '
        'or set precision to model and device to cpu.'
    )


def _engine(settings: EngineSettings) -> str:
    return 'onnxruntime' if settings.engine == 'auto' else settings.engine

"""A graph in onnxruntime: how it is opened on the CPU or a GPU, what it takes and gives.

On a GPU an output that comes back as an input of a later frame (the BEV) stays there: the caller
gets a copy in the main memory, and when that very array comes back, what lies on the GPU is used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
import weakref

import numpy as np
from numpy.typing import NDArray
import onnxruntime

from mta_perception.atomic_files import sha256
from mta_perception.runtime.manifest import EXPORT_AGAIN, ManifestError
from mta_perception.runtime.tensorrt_cache import engine_folder

# Of one input or output: dtype, shape; None = any size.
Sizes = Sequence[int | str | None]
Nodes = Mapping[str, tuple[str, Sizes]]
Values = Mapping[str, NDArray[Any]]

_TYPES = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32', 'tensor(int64)': 'int64'}
_NOWHERE = '/dev/null/weights'  # where nothing can be
_PROVIDERS = {'cuda': 'CUDAExecutionProvider', 'tensorrt': 'TensorrtExecutionProvider'}
_GPU_PACKAGE = (
    'Install the extra `gpu` in its place (pip uninstall -y onnxruntime; '
    "pip install 'onnxruntime-gpu[cuda,cudnn]'; for tensorrt also pip install tensorrt), "
    'or set device to cpu'
)


class Device(NamedTuple):
    """Where a session computes."""

    kind: str = 'cpu'  # or cuda, tensorrt
    number: int = 0  # of the GPU

    def __str__(self) -> str:
        return f'{self.kind}:{self.number}' if self.number else self.kind


class Graph(Protocol):
    """An opened graph, whatever runs it."""

    engine: str  # for people: name, version and device
    inputs: Nodes
    outputs: Nodes

    def run(self, names: Sequence[str], values: Values) -> list[NDArray[Any]]:
        """The outputs `names` for arrays by the names of inputs."""


class SessionGraph:
    """A Graph in onnxruntime."""

    def __init__(
        self, session: onnxruntime.InferenceSession, device: Device | None = None
    ) -> None:
        self._session = session
        self.engine = f'onnxruntime {onnxruntime.__version__} on {device or Device()}'
        self.inputs = _nodes(session.get_inputs())
        self.outputs = _nodes(session.get_outputs())

    def run(self, names: Sequence[str], values: Values) -> list[NDArray[Any]]:
        """As Graph's; contiguous inputs are read where they lie."""
        found: list[NDArray[Any]] = self._session.run(list(names), dict(values))
        return found


class BoundGraph(SessionGraph):
    """A Graph on a GPU.  What it was last given for `stays` and is still held by somebody lies
    there too."""

    def __init__(
        self, session: onnxruntime.InferenceSession, device: Device, stays: Sequence[str]
    ) -> None:
        super().__init__(session, device)
        # TensorRT works in CUDA's memory.
        self._place = ('cpu' if device.kind == 'cpu' else 'cuda', device.number)
        self._stays = frozenset(stays)
        self._kept: list[tuple[weakref.ref[NDArray[Any]], onnxruntime.OrtValue]] = []

    def run(self, names: Sequence[str], values: Values) -> list[NDArray[Any]]:
        """As Graph's.  The arrays of `stays` cannot be written to."""
        binding = self._session.io_binding()
        for name, value in values.items():
            there = self._there(value)
            if there is not None:
                binding.bind_ortvalue_input(name, there)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in names:
            binding.bind_output(name, *(self._place if name in self._stays else ('cpu', 0)))
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return [self._here(name, value) for name, value in zip(names, binding.get_outputs())]

    def _here(self, name: str, value: onnxruntime.OrtValue) -> NDArray[Any]:
        array: NDArray[Any] = value.numpy()
        if name in self._stays:
            array.flags.writeable = False  # or the two would differ
            alive = [(ref, there) for ref, there in self._kept if ref() is not None]
            self._kept = [*alive, (weakref.ref(array), value)]
        return array

    def _there(self, array: NDArray[Any]) -> onnxruntime.OrtValue | None:
        """What lies on the device of the array that `array`, all of it, is a view of."""
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        whole = array.size == owner.size
        return next((there for ref, there in self._kept if ref() is owner and whole), None)


def open_session(
    path: str | Path, threads: int, device: Device | None = None, fp16: bool = False
) -> onnxruntime.InferenceSession:
    """InferenceSession with a thread pool of its own that sleeps when idle.

    Spinning threads would take the cores from the other session and from image decoding.  fp16: of
    TensorRT.  Raises ManifestError where the file is no graph that onnxruntime runs, or keeps
    weights in another file: only what the manifest has the hash of is read; and where the device
    is not to be had: onnxruntime itself would go on with the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.add_session_config_entry(
        'session.model_external_initializers_file_folder_path', _NOWHERE
    )
    device = device or Device()
    providers = _providers(path, device, fp16)
    try:
        session = onnxruntime.InferenceSession(
            Path(path).read_bytes(),
            options,
            providers=providers,
            # Fused, a sum and its layer norm take six times as long as the two one after the
            # other.
            disabled_optimizers=['SkipLayerNormFusion'],
        )
    except Exception as error:  # onnxruntime's exception classes share no public base
        raise cannot_run(path, f'onnxruntime {onnxruntime.__version__}', error) from error
    if device.kind != 'cpu' and _PROVIDERS[device.kind] not in session.get_providers():
        raise ManifestError(
            f'device is {device}: onnxruntime {onnxruntime.__version__} could not load its '
            f'{_PROVIDERS[device.kind]}, or finds no GPU {device.number}. Check the driver '
            f'(nvidia-smi), CUDA and cuDNN{" and TensorRT" * (device.kind == "tensorrt")}, or set '
            'device to cpu.'
        )
    return session


def cannot_run(path: str | Path, engine: str, error: Exception) -> ManifestError:
    """ManifestError: `engine` says this of the file."""
    reason = ' '.join(str(error).split())[:300]
    return ManifestError(f'{path} cannot be run by {engine}: {reason}. {EXPORT_AGAIN}')


def _providers(path: str | Path, device: Device, fp16: bool) -> list[Any]:
    if device.kind == 'cpu':
        return ['CPUExecutionProvider']
    there = onnxruntime.get_available_providers()
    if _PROVIDERS[device.kind] not in there:
        raise ManifestError(
            f'device is {device}, and this onnxruntime {onnxruntime.__version__} computes with '
            f'{", ".join(there)} alone, expected {_PROVIDERS[device.kind]}. {_GPU_PACKAGE}.'
        )
    if hasattr(onnxruntime, 'preload_dlls'):  # of the packages nvidia-*; from 1.21 on
        onnxruntime.preload_dlls()
    cuda = ('CUDAExecutionProvider', {'device_id': device.number})
    if device.kind == 'cuda':
        return [cuda, 'CPUExecutionProvider']
    cache = engine_folder(sha256(path), 'fp16' if fp16 else 'fp32')
    tensorrt = {
        'device_id': device.number,
        'trt_fp16_enable': fp16,
        'trt_engine_cache_enable': True,
        'trt_engine_cache_path': str(cache),
    }
    return [('TensorrtExecutionProvider', tensorrt), cuda, 'CPUExecutionProvider']


def check_graph(graph: Graph, path: str | Path, inputs: Nodes, outputs: Nodes) -> None:
    """Hold a graph's inputs and outputs against {name: (dtype, shape)}; None = any size.

    A dynamic dimension of the graph fits every size.  Raises ManifestError.
    """
    for kind, wanted, came in (
        ('input', inputs, graph.inputs),
        ('output', outputs, graph.outputs),
    ):
        for name, (dtype, shape) in wanted.items():
            if name not in came:
                raise ManifestError(
                    f'{path}: no {kind} "{name}", it has {sorted(came)}. {EXPORT_AGAIN}'
                )
            if came[name][0] != dtype or not _fits(came[name][1], shape):
                raise ManifestError(
                    f'{path}: {kind} "{name}" is {_describe(*came[name])}, this program and '
                    f'manifest.yaml need {_describe(dtype, shape)}. {EXPORT_AGAIN}'
                )
        if kind == 'input' and set(came) - set(wanted):
            raise ManifestError(
                f'{path}: unknown input {sorted(set(came) - set(wanted))}, '
                f'expected only {sorted(wanted)}. {EXPORT_AGAIN}'
            )


def _nodes(nodes: Sequence[Any]) -> Nodes:
    return {node.name: (_TYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}


def _fits(came: Sizes, wanted: Sizes) -> bool:
    return len(came) == len(wanted) and all(
        want is None or not isinstance(size, int) or size == want
        for size, want in zip(came, wanted)
    )


def _describe(dtype: str, shape: Sizes) -> str:
    return f'{dtype}[{", ".join("any" if size is None else str(size) for size in shape)}]'

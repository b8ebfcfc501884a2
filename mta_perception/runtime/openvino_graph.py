"""A graph in OpenVINO, on the CPU.  The package comes with the extra `openvino`."""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
import re
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mta_perception.runtime.manifest import EXPORT_AGAIN, ManifestError
from mta_perception.runtime.session import Nodes, Values, cannot_run

_TYPES = {'f32': 'float32', 'u8': 'uint8', 'i64': 'int64'}
# The key of an initializer's entry that names another file, in any way to write its length.
_ELSEWHERE = re.compile(rb'(\x08|\x88\x80*\x00)location')


def installed() -> bool:
    """Whether the package is there; it is not imported."""
    return find_spec('openvino') is not None


class OpenVinoGraph:
    """A Graph (session.Graph).  Computes in float32 where the graph does, on every CPU."""

    def __init__(self, path: str | Path, threads: int) -> None:
        """Raises ManifestError, as `session.open_session`."""
        # Or `import openvino` reports itself to its makers, from a vehicle too.
        sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
        import openvino  # half a second, and not installed everywhere

        self.engine = f'openvino {version("openvino")} on cpu'
        data = Path(path).read_bytes()
        # OpenVINO would look for that file in the directory that the process was started in.
        if _ELSEWHERE.search(data):
            raise ManifestError(
                f'{path} cannot be run by openvino: it keeps weights in another file, of which '
                f'the manifest has no hash. {EXPORT_AGAIN}'
            )
        core = openvino.Core()
        try:
            model = core.read_model(data, b'')
            compiled = core.compile_model(
                model,
                'CPU',
                {
                    'PERFORMANCE_HINT': 'LATENCY',
                    'NUM_STREAMS': 1,
                    'INFERENCE_NUM_THREADS': threads,
                    # The cores are shared with decoding, ROS and the captioner.
                    'ENABLE_CPU_PINNING': False,
                    # Its own choice is bfloat16 where the CPU has it: other boxes on other CPUs.
                    'INFERENCE_PRECISION_HINT': 'f32',
                },
            )
        except Exception as error:  # OpenVINO raises plain RuntimeError and its own
            raise cannot_run(path, self.engine, error) from error
        self.inputs, self.outputs = _nodes(compiled.inputs), _nodes(compiled.outputs)
        self._request = compiled.create_infer_request()

    def run(self, names: Sequence[str], values: Values) -> list[NDArray[Any]]:
        """As Graph's; contiguous inputs are read where they lie.  One caller at a time."""
        given = {name: np.ascontiguousarray(value) for name, value in values.items()}
        found = self._request.infer(given, share_inputs=True)
        return [found[name] for name in names]


def _nodes(ports: Sequence[Any]) -> Nodes:
    return {
        port.any_name: (
            _TYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
            tuple(size.get_length() if size.is_static else None for size in port.partial_shape),
        )
        for port in ports
    }

"""The detector graph in onnxruntime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
import onnxruntime

from mta_perception import contract
from mta_perception.contract import BoxCode
from mta_perception.detections import DetectorOutputs, Floats, Past
from mta_perception.frames import Pixels
from mta_perception.runtime.manifest import EXPORT_AGAIN, Manifest, ManifestError
from mta_perception.runtime.visible_pairs import VisiblePairs

# Of one input or output: dtype, shape; None = any size.
Sizes = Sequence[int | str | None]
Nodes = Mapping[str, tuple[str, Sizes]]

_TYPES = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32', 'tensor(int64)': 'int64'}

_NOWHERE = '/dev/null/weights'  # where nothing can be


class OnnxDetector:
    """One frame in, raw outputs out.  The session is thread-safe; one caller at a time is
    intended."""

    def __init__(self, manifest: Manifest, threads: int = 2) -> None:
        self._session = open_session(manifest.path('detector.onnx'), threads)
        bev = (manifest.bev.channels, manifest.bev.cells, manifest.bev.cells)
        cameras, classes = len(contract.CAMERAS), len(contract.CLASSES)
        self._pairs = (
            VisiblePairs(manifest.pairs, manifest.image, manifest.bev) if manifest.pairs else None
        )
        seen: Nodes = {
            'image_from_ego': ('float32', (1, cameras, 3, 4)),
            'camera_mask': ('float32', (1, cameras)),
        }
        if manifest.pairs:
            seen = {
                'pair_cell': ('int64', (None,)),
                'pair_camera': ('int64', (None,)),
                'pair_uv': ('float32', (None, manifest.pairs.pillar_points, 2)),
                'pair_share': ('float32', (None,)),
            }
        check_graph(
            self._session,
            manifest.path('detector.onnx'),
            inputs={
                'images': ('uint8', (1, cameras, manifest.image.height, manifest.image.width, 3)),
                **seen,
                'history_bev': ('float32', (1, *bev)),
                'history_valid': ('float32', (1,)),
                'ego_prev_from_ego_now': ('float32', (1, 4, 4)),
            },
            outputs={
                'class_logits': ('float32', (1, None, classes)),
                'boxes': ('float32', (1, None, BoxCode.WIDTH)),
                'object_features': ('float32', (1, None, None)),
                'bev': ('float32', (1, *bev)),
            },
        )
        self._no_history = np.zeros((1, *bev), np.float32)

    def __call__(
        self, images: Pixels, image_from_ego: Floats, camera_mask: Floats, history: Past
    ) -> DetectorOutputs:
        """Run the graph -> DetectorOutputs.

        images (6, H, W, 3) uint8 RGB in contract order; image_from_ego (6, 3, 4), pixels of those
        images; camera_mask (6,), 1 = present; history a bev_memory.History.
        """
        outputs = self._session.run(
            list(DetectorOutputs._fields),
            self.inputs(images, image_from_ego, camera_mask, history),
        )
        return DetectorOutputs(*(output[0] for output in outputs))

    def inputs(
        self, images: Pixels, image_from_ego: Floats, camera_mask: Floats, history: Past
    ) -> dict[str, NDArray[Any]]:
        """What the graph is given for a call: input name -> array with the batch axis, which the
        tables of visible pairs do not have."""
        seen = {
            'image_from_ego': _float32(image_from_ego)[None],
            'camera_mask': _float32(camera_mask)[None],
        }
        if self._pairs is not None:
            seen = self._pairs.tables(_float32(image_from_ego), _float32(camera_mask))
        return {
            'images': images[None],
            **seen,
            'history_bev': history.bev[None] if history.valid else self._no_history,
            'history_valid': np.array([history.valid], np.float32),
            'ego_prev_from_ego_now': _float32(history.ego_prev_from_ego_now)[None],
        }


def _float32(values: ArrayLike) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)


def open_session(path: str | Path, threads: int) -> onnxruntime.InferenceSession:
    """InferenceSession on the CPU with a thread pool of its own that sleeps when idle.

    Spinning threads would take the cores from the other session and from image decoding.  Raises
    ManifestError where the file is no graph that onnxruntime runs, or keeps weights in another
    file: only what the manifest has the hash of is read.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.add_session_config_entry(
        'session.model_external_initializers_file_folder_path', _NOWHERE
    )
    try:
        # Fused, a sum and its layer norm take six times as long as the two one after the other.
        return onnxruntime.InferenceSession(
            Path(path).read_bytes(),
            options,
            providers=['CPUExecutionProvider'],
            disabled_optimizers=['SkipLayerNormFusion'],
        )
    except Exception as error:  # onnxruntime's exception classes share no public base
        reason = ' '.join(str(error).split())[:300]
        raise ManifestError(
            f'{path} cannot be run by onnxruntime {onnxruntime.__version__}: '
            f'{reason}. {EXPORT_AGAIN}'
        ) from error


def check_graph(
    session: onnxruntime.InferenceSession, path: str | Path, inputs: Nodes, outputs: Nodes
) -> None:
    """Hold a session's inputs and outputs against {name: (dtype, shape)}; None = any size.

    A dynamic dimension of the graph fits every size.  Raises ManifestError.
    """
    for kind, wanted, nodes in (
        ('input', inputs, session.get_inputs()),
        ('output', outputs, session.get_outputs()),
    ):
        came = {node.name: (_TYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}
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


def _fits(came: Sizes, wanted: Sizes) -> bool:
    return len(came) == len(wanted) and all(
        want is None or not isinstance(size, int) or size == want
        for size, want in zip(came, wanted)
    )


def _describe(dtype: str, shape: Sizes) -> str:
    return f'{dtype}[{", ".join("any" if size is None else str(size) for size in shape)}]'

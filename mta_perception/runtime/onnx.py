"""The detector graph behind one call, whatever engine runs it (engines.py)."""

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_perception import contract
from mta_perception.contract import BoxCode
from mta_perception.detections import DetectorOutputs, Floats, Past
from mta_perception.frames import Pixels
from mta_perception.geometry import Array
from mta_perception.runtime.engines import EngineSettings, detector_file, open_detector_graph
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.session import Nodes, check_graph
from mta_perception.runtime.visible_pairs import VisiblePairs, surround_view


class OnnxDetector:
    """One frame in, raw outputs out; one caller at a time."""

    def __init__(
        self, manifest: Manifest, threads: int = 2, settings: EngineSettings | None = None
    ) -> None:
        """settings: which engine, where, in which precision.  Raises ManifestError."""
        settings = settings or EngineSettings()
        path = manifest.path(detector_file(manifest, settings))
        self._graph = open_detector_graph(manifest, threads, settings)
        self._image = manifest.image
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
            self._graph,
            path,
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
        outputs = self._graph.run(
            DetectorOutputs._fields,
            self.inputs(images, image_from_ego, camera_mask, history),
        )
        return DetectorOutputs(*(output[0] for output in outputs))

    @property
    def engine(self) -> str:
        """For people: name and version of the engine, and where it runs."""
        return self._graph.engine

    def warm_up(self) -> float:
        """Two frames of black images, the second with a history, as on the road: memory is taken
        and kernels are chosen now, not at the first real frame.  Returns what they took [s]."""
        start = time.monotonic()
        size = self._image.height, self._image.width
        images = np.zeros((len(contract.CAMERAS), *size, 3), np.uint8)
        present = np.ones(len(contract.CAMERAS), np.float32)
        bev = None
        for _ in range(2):
            past = _Past(bev, bev is not None, np.eye(4))
            bev = self(images, surround_view(self._image), present, past).bev
        return time.monotonic() - start

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


class _Past(NamedTuple):
    """A detections.Past."""

    bev: Floats | None
    valid: bool
    ego_prev_from_ego_now: Array


def _float32(values: ArrayLike) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)

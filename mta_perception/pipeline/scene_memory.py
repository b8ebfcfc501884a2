"""The last 20 s of frames, for questions about the scene: the detector's best objects, where the
car was, and the BEV of the newest.

Frames lie about STEP_S apart, as in training, and the last one is always the newest.  Of older
ones the mean of the BEV is enough for what asks (model/asking.py).  At nano size a frame is 29 kB,
41 of them 1.2 MB.  Written by the thread of the steps, read by any.
"""

from collections.abc import Sequence
import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mta_perception.answers import EGO_NUMBERS, RememberedFrame, SceneInputs, SceneView
from mta_perception.detections import DetectorOutputs, Floats
from mta_perception.geometry import Array, invert_rigid, transform_boxes, yaw_from_rigid
from mta_perception.reasons import Reason

STEP_S = 0.5  # between frames
EARLY_S = 0.05  # a frame may be this much early: cameras are no clocks
WINDOW_S = 20.0
EGO_SPEED_M_S, EGO_REACH_M = 10.0, 51.2  # units of the ego numbers


class _Newest(NamedTuple):
    """The newest frame as it came; it becomes a RememberedFrame where one is due or asked for."""

    stamp_ns: int
    world_from_level: Array
    world_from_ego: Array
    outputs: DetectorOutputs
    track_ids: dict[int, str]


class SceneMemory:
    """`observe` each frame, `view` when a question comes."""

    def __init__(self, objects: int, frames: int) -> None:
        """objects: K of each frame.  frames: most of them, now included."""
        self._objects, self._most = objects, frames
        self._frames: list[RememberedFrame] = []  # STEP_S apart, oldest first
        self._newest: _Newest | None = None  # may be the last of these
        self._lock = threading.Lock()
        self.last_reset: Reason | None = None  # why what was remembered before is gone

    def observe(
        self,
        stamp_ns: int,
        world_from_level: Array,
        world_from_ego: Array,
        outputs: DetectorOutputs,
        track_ids: dict[int, str],
    ) -> None:
        """Remember a frame; arrays are kept, not copied.

        track_ids: query -> id of what is published of it.
        """
        newest = _Newest(stamp_ns, world_from_level, world_from_ego, outputs, track_ids)
        with self._lock:
            self._newest = newest
            due_ns = round((STEP_S - EARLY_S) * 1e9)
            if self._frames and stamp_ns - self._frames[-1].stamp_ns < due_ns:
                return
            self._frames.append(self._remembered(newest))
            oldest = stamp_ns - round((WINDOW_S + EARLY_S) * 1e9)
            kept = [one for one in self._frames if one.stamp_ns >= oldest]
            self._frames = kept[-self._most :]

    def reset(self, reason: Reason) -> None:
        """Forget everything."""
        with self._lock:
            if self._newest is not None:
                self.last_reset = reason
            self._frames, self._newest = [], None

    def view(self) -> SceneView | None:
        """What is remembered now; None: nothing."""
        with self._lock:
            frames, newest = list(self._frames), self._newest
        if newest is None:
            return None
        if frames[-1].stamp_ns != newest.stamp_ns:
            # The last one makes room where it lies nearer to now than to where a frame should be.
            if len(frames) > 1 and newest.stamp_ns - frames[-1].stamp_ns < STEP_S / 2 * 1e9:
                frames.pop()
            frames.append(self._remembered(newest))
        frames = frames[-self._most :]
        bev = newest.outputs.bev.astype(np.float16)
        return SceneView(tuple(frames), bev, scene_inputs(frames, bev))

    def state(self) -> tuple[int, float]:
        """(frames, seconds from the oldest to the newest)."""
        with self._lock:
            if self._newest is None:
                return 0, 0.0
            return len(self._frames), (self._newest.stamp_ns - self._frames[0].stamp_ns) / 1e9

    def size_bytes(self) -> int:
        """Of all arrays but those of the newest frame, which are the detector's."""
        with self._lock:
            arrays = [x for one in self._frames for x in one if isinstance(x, np.ndarray)]
        return sum(array.nbytes for array in arrays)

    def _remembered(self, newest: _Newest) -> RememberedFrame:
        outputs = newest.outputs
        best = np.argsort(-outputs.class_logits.max(axis=1), kind='stable')[: self._objects]
        # As training's frames come from their cache (mta_training/tpo/frames.py).
        bev = outputs.bev.astype(np.float16)
        return RememberedFrame(
            newest.stamp_ns,
            np.array(newest.world_from_level),
            np.array(newest.world_from_ego),
            outputs.object_features[best].astype(np.float16),
            outputs.boxes[best].astype(np.float32),
            outputs.class_logits[best].astype(np.float16),
            bev.mean(axis=(1, 2), dtype=np.float32),
            tuple(newest.track_ids.get(int(query), '') for query in best),
        )


def scene_inputs(frames: Sequence[RememberedFrame], bev: NDArray[np.float16]) -> SceneInputs:
    """SceneInputs of frames, oldest first, the last one is now, and its BEV."""
    level_from_world = invert_rigid(frames[-1].world_from_level)
    boxes = [
        transform_boxes(level_from_world @ frame.world_from_level, frame.boxes) for frame in frames
    ]
    return SceneInputs(
        _batch([frame.objects for frame in frames]),
        _batch([frame.boxes for frame in frames]),
        _batch(boxes),
        _batch([frame.class_logits for frame in frames]),
        _batch([frame.bev_mean for frame in frames]),
        ego_numbers(
            np.stack([frame.world_from_level for frame in frames]),
            np.array([frame.stamp_ns for frame in frames]),
        )[None],
        bev.astype(np.float32)[None],
    )


def ego_numbers(world_from_level: Array, stamps_ns: NDArray[np.int64]) -> Floats:
    """(T, 6) for poses (T, 4, 4): speed [10 m/s] and yaw rate [rad/s] at each frame, and its place
    [51.2 m] and heading (sin, cos) in the frame of the last one."""
    numbers = np.zeros((len(stamps_ns), EGO_NUMBERS), np.float32)
    now_from_world = invert_rigid(world_from_level[-1])
    for index in range(len(stamps_ns)):
        other = index - 1 if index else min(1, len(stamps_ns) - 1)
        seconds = float(stamps_ns[index] - stamps_ns[other]) / 1e9
        if seconds:
            moved = invert_rigid(world_from_level[other]) @ world_from_level[index]
            metres = float(np.linalg.norm(moved[:2, 3]))
            numbers[index, 0] = metres / abs(seconds) / EGO_SPEED_M_S
            numbers[index, 1] = float(yaw_from_rigid(moved)) / seconds
        now_from_then = now_from_world @ world_from_level[index]
        numbers[index, 2:4] = now_from_then[:2, 3] / EGO_REACH_M
        yaw = float(yaw_from_rigid(now_from_then))
        numbers[index, 4:] = np.sin(yaw), np.cos(yaw)
    return numbers


def _batch(rows: Sequence[NDArray[np.generic]]) -> Floats:
    return np.stack(rows).astype(np.float32)[None]

"""SKELETON pipeline.py — signatures fixed, bodies being written."""
from typing import NamedTuple

import numpy as np


class DroppedFrame(Exception):
    """This frame gave nothing; .reason is a short countable class, str() the whole story."""


class StepResult(NamedTuple):
    """What one frame set became."""
    stamp_ns: int                # reference stamp
    world_from_ego: np.ndarray   # (4, 4) at the reference stamp
    detections: object           # detections.Detections
    track_ids: list              # K str, row for row with detections
    caption_inputs: object       # detections.CaptionInputs, row for row with detections
    history: object              # memory.MemoryState
    blind: dict                  # camera -> reason, cameras this frame did without
    images: np.ndarray           # (6, H, W, 3) uint8 RGB model size, contract order, zeros where blind
    image_from_ego: np.ndarray   # (6, 3, 4) float32, pixels of `images` from ego metres
    timings_ms: dict             # 'decode', 'project', 'memory', 'detector', 'track' -> ms


class PerceptionPipeline:
    """Not thread-safe: one worker steps it."""

    def __init__(self, manifest, detector, config):
        self.memory = None    # BevMemory
        self.tracker = None   # Tracker: .trails()
        self.counts = {}      # Counter: 'frames', drop reasons, 'camera masked: ...'

    def step(self, frames, calibrations, ego_motion):
        """FrameSet, {camera: CameraCalibration}, EgoMotion -> StepResult.  Raises DroppedFrame."""

    def reset(self, reason):
        """Forget history and tracks (service ~/reset_history)."""

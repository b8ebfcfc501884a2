"""One step from a frame set to tracked detections: the whole of the vehicle side but ROS and
captions.

A camera that cannot be used is masked and named in `StepResult.blind`; a frame that cannot be used
raises DroppedFrame; both are counted in `PerceptionPipeline.counts`.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
import time
from typing import NamedTuple

import numpy as np

from mta_perception.config import MemoryConfig, PipelineConfig
from mta_perception.contract import CAMERAS
from mta_perception.detections import CaptionInputs, Detections, caption_inputs, decode
from mta_perception.pipeline.bev_memory import BevMemory, MemoryState
from mta_perception.pipeline.camera_geometry import camera_geometry, same_calibration
from mta_perception.pipeline.ego_motion import EgoMotionError
from mta_perception.pipeline.images import ImageError, model_image
from mta_perception.pipeline.tracking import Tracker


class DroppedFrame(Exception):
    """This frame gave nothing.  `reason` is a short class to count by, str() says it all."""

    def __init__(self, reason, detail):
        super().__init__(f'{reason}: {detail}')
        self.reason = reason


class StepResult(NamedTuple):
    """What one frame set became."""

    stamp_ns: int  # reference stamp
    world_from_ego: np.ndarray  # (4, 4) at the reference stamp
    detections: Detections
    track_ids: list  # K str, row for row with `detections`
    caption_inputs: CaptionInputs  # row for row with `detections`
    history: MemoryState  # after this frame
    blind: dict  # camera -> reason, cameras this frame did without
    images: np.ndarray  # (6, H, W, 3) uint8 RGB, model size, zeros where blind
    image_from_ego: np.ndarray  # (6, 3, 4) float32, pixels of `images`; zeros where blind
    timings_ms: dict  # stage -> ms: project, decode, memory, detector, track


class _Stopwatch:
    """Time of each stage in turn."""

    def __init__(self):
        self.timings_ms = {}
        self._since = time.perf_counter()

    def lap(self, stage):
        now = time.perf_counter()
        self.timings_ms[stage] = 1e3 * (now - self._since)
        self._since = now


class PerceptionPipeline:
    """Holds what outlives a frame: memory, tracks, calibrations.  One thread at a time."""

    def __init__(self, manifest, detector, config=None):
        """detector is called as runtime.onnx.OnnxDetector is."""
        self.manifest, self.config = manifest, config or PipelineConfig()
        # 'frames', 'camera masked', 'calibration changed', reasons of dropped frames
        self.counts = Counter()
        step_s = manifest.history_step_s
        self.memory = BevMemory(
            MemoryConfig(
                step_s=step_s, min_age_s=step_s / 2, max_gap_s=self.config.history_max_gap_s
            )
        )
        self.tracker = Tracker(self.config.tracking)
        self._detector = detector
        self._geometry = {}  # camera -> CameraGeometry
        self._ego_resets = None
        self._pool = ThreadPoolExecutor(self.config.decode_threads, 'decode')

    def step(self, frames, calibrations, ego_motion):
        """FrameSet, {camera: CameraCalibration}, EgoMotion -> StepResult.  Raises DroppedFrame.

        A dropped frame leaves the memory as it was, unless the past is no longer this drive's.
        """
        self.counts['frames'] += 1
        try:
            return self._step(frames, calibrations, ego_motion)
        except DroppedFrame as drop:
            self.counts[drop.reason] += 1
            raise

    def reset(self, reason, stamp_ns=0):
        """Forget history and tracks."""
        self.memory.reset(reason, stamp_ns)
        self.tracker.reset()

    def close(self):
        """End the decoding threads."""
        self._pool.shutdown()

    def _step(self, frames, calibrations, ego_motion):
        watch, stamp_ns = _Stopwatch(), frames.stamp_ns
        world_from_ego = self._pose(ego_motion, stamp_ns)  # (4, 4)
        self._follow_jumps(ego_motion, stamp_ns)
        blind = dict(frames.missing)
        image_from_ego = self._project(
            frames, calibrations, ego_motion, world_from_ego, blind
        )  # (6, 3, 4)
        watch.lap('project')
        images = self._decode(frames, image_from_ego, blind)  # (6, H, W, 3)
        present = np.array([camera not in blind for camera in CAMERAS], np.float32)  # (6,)
        watch.lap('decode')
        history = self._recall(stamp_ns, world_from_ego)
        watch.lap('memory')
        outputs = self._detector(images, image_from_ego, present, history)
        self._check_finite(outputs, stamp_ns)
        self.memory.store(stamp_ns, world_from_ego, outputs.bev)
        watch.lap('detector')
        config, manifest = self.config, self.manifest
        detections = decode(
            outputs,
            manifest.score_threshold if config.score_threshold is None else config.score_threshold,
            config.max_detections or manifest.max_detections,
        )
        track_ids = self.tracker.update(stamp_ns, world_from_ego, detections)
        watch.lap('track')
        return StepResult(
            stamp_ns,
            world_from_ego,
            detections,
            track_ids,
            caption_inputs(outputs, detections),
            self.memory.state,
            blind,
            images,
            image_from_ego,
            watch.timings_ms,
        )

    def _pose(self, ego_motion, stamp_ns):
        try:
            return ego_motion.world_from_ego(stamp_ns)
        except EgoMotionError as error:
            raise DroppedFrame(error.reason, str(error).split(': ', 1)[1]) from error

    def _follow_jumps(self, ego_motion, stamp_ns):
        """Drop memory and tracks where the odometry began a new world."""
        if self._ego_resets is not None and ego_motion.resets != self._ego_resets:
            self.reset(ego_motion.last_reset[1], stamp_ns)
        self._ego_resets = ego_motion.resets

    def _project(self, frames, calibrations, ego_motion, world_from_ego, blind):
        """image_from_ego (6, 3, 4) float32 at the reference stamp; unusable cameras go into
        `blind`."""
        result = np.zeros((len(CAMERAS), 3, 4), np.float32)
        for index, camera in enumerate(CAMERAS):
            if camera not in frames.images:
                blind.setdefault(camera, 'no image')
                continue
            geometry = self._camera_geometry(camera, calibrations.get(camera), frames.stamp_ns)
            if geometry is None or geometry.fault:
                self._mask(
                    camera,
                    geometry.fault
                    if geometry
                    else 'no CameraInfo or no transform to the camera yet',
                    blind,
                )
                continue
            try:
                world_from_ego_at_image = ego_motion.world_from_ego(frames.images[camera].stamp_ns)
            except EgoMotionError as error:
                self._mask(camera, str(error), blind)
                continue
            result[index] = geometry.image_from_ego(world_from_ego_at_image, world_from_ego)
        return result

    def _camera_geometry(self, camera, calibration, stamp_ns):
        """CameraGeometry, computed anew where the calibration changed; None where there is none.

        The remembered BEV was made with the old calibration: it is forgotten.
        """
        if calibration is None:
            return None
        known = self._geometry.get(camera)
        if known is None or not same_calibration(known.calibration, calibration):
            if known is not None:
                self.counts['calibration changed'] += 1
                self.memory.reset(f'calibration of {camera} changed', stamp_ns)
            self._geometry[camera] = camera_geometry(calibration, self.manifest.image)
        return self._geometry[camera]

    def _decode(self, frames, image_from_ego, blind):
        """(6, H, W, 3) uint8 RGB in model size; what cannot be decoded goes into `blind`."""
        spec = self.manifest.image
        images = np.zeros((len(CAMERAS), spec.height, spec.width, 3), np.uint8)
        self._check_enough(blind)
        running = {
            camera: self._pool.submit(
                model_image, frames.images[camera], self._geometry[camera].plan, images[index]
            )
            for index, camera in enumerate(CAMERAS)
            if camera not in blind
        }
        for camera, future in running.items():
            try:
                future.result()
            except ImageError as error:
                self._mask(camera, str(error), blind)
                images[CAMERAS.index(camera)] = 0
                image_from_ego[CAMERAS.index(camera)] = 0.0
        self._check_enough(blind)
        return images

    def _check_enough(self, blind):
        usable = len(CAMERAS) - len(blind)
        if usable < self.config.min_cameras:
            reasons = ', '.join(f'{camera} ({reason})' for camera, reason in blind.items())
            raise DroppedFrame(
                'too few cameras',
                f'{usable} usable, min_cameras is {self.config.min_cameras}; without {reasons}',
            )

    def _mask(self, camera, reason, blind):
        blind[camera] = reason
        self.counts['camera masked'] += 1

    def _recall(self, stamp_ns, world_from_ego):
        resets = self.memory.state.resets
        history = self.memory.recall(stamp_ns, world_from_ego)
        if self.memory.state.resets != resets:
            self.tracker.reset()
        return history

    def _check_finite(self, outputs, stamp_ns):
        """A NaN remembered would poison every frame after it."""
        if not np.isfinite(outputs.bev).all():
            self.memory.reset('network output was not finite', stamp_ns)
            raise DroppedFrame(
                'network output not finite',
                'the BEV holds NaN or infinity; the '
                'history was dropped. Check the calibration, or the model file.',
            )

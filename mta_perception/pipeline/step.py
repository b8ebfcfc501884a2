"""One step from a frame set to tracked detections: the whole of the vehicle side but ROS and
captions.

A camera that cannot be used is masked and named in `StepResult.blind`; a frame that cannot be used
raises DroppedFrame.  Both come with a Reason and are counted by its code.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
import time
from typing import NamedTuple

import numpy as np

from mta_perception.config import MemoryConfig, PipelineConfig
from mta_perception.contract import CAMERAS
from mta_perception.detections import (
    CaptionInputs,
    Detections,
    DetectorOutputs,
    Floats,
    caption_inputs,
    decode,
    told_track,
)
from mta_perception.frames import CameraCalibration, CameraImage, FrameSet, ImageError, Pixels
from mta_perception.geometry import Array, invert_rigid, level_pose, transform_boxes
from mta_perception.pipeline.bev_memory import BevMemory, History, MemoryState
from mta_perception.pipeline.camera_geometry import (
    CameraGeometry,
    camera_geometry,
    same_calibration,
)
from mta_perception.pipeline.decoding import Decoding
from mta_perception.pipeline.drive import DetectorEngine
from mta_perception.pipeline.duplicates import distinct
from mta_perception.pipeline.ego_motion import EgoMotion, EgoMotionError
from mta_perception.pipeline.images import ModelImageReader
from mta_perception.pipeline.scene_memory import SceneMemory
from mta_perception.pipeline.tracking import Tracker
from mta_perception.reasons import Code, Reason, Refused
from mta_perception.runtime.manifest import Manifest

Calibrations = Mapping[str, CameraCalibration]  # by camera
Reasons = dict[str, Reason]  # by camera


class DroppedFrame(Refused):
    """This frame gave nothing; `reason` says why."""


class StepResult(NamedTuple):
    """What one frame set became."""

    stamp_ns: int  # reference stamp
    world_from_ego: Array  # (4, 4) at the reference stamp
    detections: Detections
    track_ids: list[str]  # K, row for row with `detections`
    caption_inputs: CaptionInputs  # row for row with `detections`
    history: MemoryState  # after this frame
    blind: Reasons  # cameras this frame did without
    images: Pixels  # (6, H, W, 3) RGB, model size, zeros where blind
    image_from_ego: Floats  # (6, 3, 4), pixels of `images`; zeros where blind
    timings_ms: dict[str, float]  # by stage: project, decode, memory, detector, track


class _Stopwatch:
    """Time of each stage in turn."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.timings_ms[stage] = 1e3 * (now - self._since)
        self._since = now


class PerceptionPipeline:
    """Holds what outlives a frame: memory, tracks, calibrations.  One thread at a time, but for
    `begin`."""

    def __init__(
        self,
        manifest: Manifest,
        detector: DetectorEngine[DetectorOutputs],
        config: PipelineConfig | None = None,
    ) -> None:
        self.manifest, self.config = manifest, config or PipelineConfig()
        config = self.config
        self.score_threshold = (
            manifest.score_threshold if config.score_threshold is None else config.score_threshold
        )
        self.max_detections = config.max_detections or manifest.max_detections
        self.dropped: Counter[Code] = Counter()  # Code -> frames
        self.masked: Counter[Code] = Counter()  # Code -> images that came and could not be used
        self.memory = BevMemory(
            MemoryConfig.trained_at(
                manifest.history_step_s, max_gap_s=self.config.history_max_gap_s
            )
        )
        self.tracker = Tracker(self.config.tracking)
        tasks = manifest.tasks
        # For questions alone: nothing is kept where there is nothing that answers them.
        self.scene = SceneMemory(tasks.objects, tasks.memory) if tasks else None
        self._detector = detector
        self._geometry: dict[str, CameraGeometry] = {}  # by camera
        self._ego_resets: int | None = None
        self._decoding = Decoding(
            manifest.image, self.config.decode_threads, self.config.has_spare_cores
        )

    def begin(self, image: CameraImage) -> None:
        """Decode an image that may be in a frame set to come; from a thread other than that of
        the steps.  Nothing needs it: what was not begun is decoded in the step."""
        geometry = self._geometry.get(image.camera)
        if geometry is not None and geometry.reader is not None:
            self._decoding.begin(image, geometry.reader)

    def step(
        self, frames: FrameSet, calibrations: Calibrations, ego_motion: EgoMotion
    ) -> StepResult:
        """FrameSet, {camera: CameraCalibration}, EgoMotion -> StepResult.  Raises DroppedFrame.

        A dropped frame leaves the memory as it was, unless the past is no longer this drive's.
        """
        self._decoding.pause()
        try:
            return self._step(frames, calibrations, ego_motion)
        except DroppedFrame as drop:
            self.dropped[drop.reason.code] += 1
            raise

    @property
    def decoded_ahead(self) -> int:
        """Images so far that were begun before their step."""
        return self._decoding.found

    def rest(self) -> None:
        """No step follows at once: images that came during the last one are decoded now."""
        self._decoding.go_on()

    def reset(self, reason: Reason, stamp_ns: int = 0) -> None:
        """Forget history, tracks and scene, for a Reason."""
        self.memory.reset(reason, stamp_ns)
        self.tracker.reset()
        self._forget_scene(reason)

    def image_readers(self) -> dict[str, ModelImageReader]:
        """By camera, of those with a usable calibration: what is known of their images."""
        return {
            camera: geometry.reader
            for camera, geometry in list(self._geometry.items())
            if geometry.reader is not None
        }

    def close(self) -> None:
        """End the decoding threads."""
        self._decoding.close()

    def _step(
        self, frames: FrameSet, calibrations: Calibrations, ego_motion: EgoMotion
    ) -> StepResult:
        watch, stamp_ns = _Stopwatch(), frames.stamp_ns
        world_from_ego = self._pose(ego_motion, stamp_ns)  # (4, 4)
        # The frame of BEV, memory and tracks; what goes out is in the car's own.
        world_from_bev = level_pose(world_from_ego) if self.config.level else world_from_ego
        self._follow_jumps(ego_motion, stamp_ns)
        missing = _missing(frames)
        projections, unplaced = self._project(frames, calibrations, ego_motion, world_from_bev)
        watch.lap('project')
        self._check_enough({**missing, **unplaced})
        images, unreadable = self._decode(frames, projections)  # (6, H, W, 3)
        blind = {**missing, **unplaced, **unreadable}
        self._check_enough(blind)
        image_from_bev, present = _without_blind(projections, blind)  # (6, 3, 4), (6,)
        watch.lap('decode')
        history = self._recall(stamp_ns, world_from_bev)
        watch.lap('memory')
        outputs = self._detector(images, image_from_bev, present, history)
        self._check_finite(outputs, stamp_ns)
        self.memory.store(stamp_ns, world_from_bev, outputs.bev)
        watch.lap('detector')
        detections = decode(
            outputs, self.score_threshold, self.max_detections, self.manifest.calibration
        )
        detections = distinct(detections)
        track_ids = self.tracker.update(stamp_ns, world_from_bev, detections)
        if self.scene is not None:
            published = dict(zip(detections.queries.tolist(), track_ids))
            self.scene.observe(stamp_ns, world_from_bev, world_from_ego, outputs, published)
        inputs = caption_inputs(outputs, detections)
        detections = self.tracker.settled(world_from_bev, detections)
        inputs = told_track(inputs, detections)
        ego_from_bev = invert_rigid(world_from_ego) @ world_from_bev
        detections = detections._replace(boxes=_moved(ego_from_bev, detections.boxes))
        watch.lap('track')
        return StepResult(
            stamp_ns,
            world_from_ego,
            detections,
            track_ids,
            inputs,
            self.memory.state,
            blind,
            images,
            (image_from_bev @ invert_rigid(ego_from_bev)).astype(np.float32),
            watch.timings_ms,
        )

    def _pose(self, ego_motion: EgoMotion, stamp_ns: int) -> Array:
        try:
            return ego_motion.world_from_ego(stamp_ns)
        except EgoMotionError as error:
            raise DroppedFrame(*error.reason) from error

    def _follow_jumps(self, ego_motion: EgoMotion, stamp_ns: int) -> None:
        """Drop memory and tracks where the odometry began a new world."""
        if self._ego_resets not in (None, ego_motion.resets) and ego_motion.last_reset:
            self.reset(ego_motion.last_reset[1], stamp_ns)
        self._ego_resets = ego_motion.resets

    def _project(
        self,
        frames: FrameSet,
        calibrations: Calibrations,
        ego_motion: EgoMotion,
        world_from_bev: Array,
    ) -> tuple[dict[str, Array], Reasons]:
        """({camera: (3, 4) image_from_bev at the reference stamp}, {camera: Reason}), of the
        cameras with an image those that can be placed and those that cannot."""
        projections: dict[str, Array] = {}
        unplaced: Reasons = {}
        for camera, image in frames.images.items():
            geometry = self._camera_geometry(camera, calibrations.get(camera), frames.stamp_ns)
            if geometry is None:
                unplaced[camera] = Reason(
                    Code.NO_CALIBRATION, 'no CameraInfo or no transform to the camera yet'
                )
                continue
            if geometry.fault is not None:
                unplaced[camera] = geometry.fault
                continue
            try:
                world_from_ego_at_image = ego_motion.world_from_ego(image.stamp_ns)
            except EgoMotionError as error:
                unplaced[camera] = error.reason
                continue
            projections[camera] = geometry.image_from_ego(world_from_ego_at_image, world_from_bev)
        self._count_masked(unplaced)
        return projections, unplaced

    def _camera_geometry(
        self, camera: str, calibration: CameraCalibration | None, stamp_ns: int
    ) -> CameraGeometry | None:
        """CameraGeometry, computed anew where the calibration changed; None where there is none.

        The remembered BEV was made with the old calibration: it is forgotten.
        """
        if calibration is None:
            return None
        known = self._geometry.get(camera)
        if known is None or not same_calibration(known.calibration, calibration):
            if known is not None:
                self.memory.reset(Reason(Code.CALIBRATION_CHANGED, f'of {camera}'), stamp_ns)
            self._geometry[camera] = camera_geometry(calibration, self.manifest.image)
        return self._geometry[camera]

    def _decode(self, frames: FrameSet, cameras: Iterable[str]) -> tuple[Pixels, Reasons]:
        """((6, H, W, 3) uint8 RGB in model size, {camera: Reason}), the images of `cameras`, and
        those of them that cannot be decoded; zeros where there is no image."""
        spec = self.manifest.image
        images = np.zeros((len(CAMERAS), spec.height, spec.width, 3), np.uint8)
        running = {}
        for camera in cameras:
            reader = self._geometry[camera].reader
            assert reader is not None, f'{camera} was placed'
            running[camera] = self._decoding.take(frames.images[camera], reader)
        unreadable: Reasons = {}
        for camera, future in running.items():
            try:
                images[CAMERAS.index(camera)] = future.result()
            except ImageError as error:
                unreadable[camera] = error.reason
        self._count_masked(unreadable)
        return images, unreadable

    def _check_enough(self, blind: Reasons) -> None:
        usable = len(CAMERAS) - len(blind)
        if usable < self.config.min_cameras:
            reasons = ', '.join(f'{camera} ({reason})' for camera, reason in blind.items())
            raise DroppedFrame(
                Code.TOO_FEW_CAMERAS,
                f'{usable} usable, min_cameras is {self.config.min_cameras}; without {reasons}',
            )

    def _count_masked(self, reasons: Reasons) -> None:
        self.masked.update(reason.code for reason in reasons.values())

    def _recall(self, stamp_ns: int, world_from_ego: Array) -> History:
        resets = self.memory.state.resets
        history = self.memory.recall(stamp_ns, world_from_ego)
        if self.memory.state.resets != resets:
            self.tracker.reset()
            self._forget_scene(self.memory.state.last_reason)
        return history

    def _forget_scene(self, reason: Reason | None) -> None:
        if self.scene is not None and reason is not None:
            self.scene.reset(reason)

    def _check_finite(self, outputs: DetectorOutputs, stamp_ns: int) -> None:
        """A NaN remembered would poison every frame after it."""
        if not np.isfinite(outputs.bev).all():
            self.memory.reset(Reason(Code.OUTPUT_NOT_FINITE), stamp_ns)
            raise DroppedFrame(
                Code.OUTPUT_NOT_FINITE,
                'the BEV holds NaN or infinity; the '
                'history was dropped. Check the calibration, or the model file.',
            )


def _missing(frames: FrameSet) -> Reasons:
    """camera -> Reason, for every camera without an image in the frame set."""
    return {
        camera: frames.missing.get(camera, Reason(Code.NO_IMAGE))
        for camera in CAMERAS
        if camera not in frames.images
    }


def _moved(ego_from_bev: Array, boxes: Floats) -> Floats:
    """(K, 10) boxes in the ego frame; untouched where that is the level one."""
    if np.array_equal(ego_from_bev, np.eye(4)):
        return boxes
    return transform_boxes(ego_from_bev, boxes).astype(np.float32)


def _without_blind(projections: Mapping[str, Array], blind: Reasons) -> tuple[Floats, Floats]:
    """Projections (6, 3, 4) float32 and presence (6,) float32; zeros where blind."""
    image_from_bev = np.zeros((len(CAMERAS), 3, 4), np.float32)
    present = np.array([camera not in blind for camera in CAMERAS], np.float32)
    for index in np.flatnonzero(present):
        image_from_bev[index] = projections[CAMERAS[index]]
    return image_from_bev, present

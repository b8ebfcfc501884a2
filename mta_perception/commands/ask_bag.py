"""`mta ask --bag`: a question about a moment of a bag, answered as the node would, without ROS.

The bag drives through the same pipeline as on the road, up to that moment, and the memory is then
asked.  Frames half a second apart are enough: nearer ones would not be remembered.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.answers import Answer
from mta_perception.atomic_files import write_atomically
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.config import SyncConfig
from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.drawing.answer_picture import draw_answer
from mta_perception.drawing.overlay import DrawnObject
from mta_perception.frames import FrameSet, Pixels
from mta_perception.pipeline.answering import answer
from mta_perception.pipeline.camera_sync import CameraSync
from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.pipeline.images import plan_for
from mta_perception.pipeline.scene_memory import EARLY_S, STEP_S
from mta_perception.pipeline.step import DroppedFrame, PerceptionPipeline, StepResult
from mta_perception.progress import Progress
from mta_perception.runtime.asking import OnnxAsker
from mta_perception.runtime.manifest import Manifest, ManifestError
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.share import model_directory

POSES_AHEAD_NS = 50_000_000  # odometry that a frame waits for


class AskedBag(NamedTuple):
    """An Answer about a bag, and what its picture is drawn from."""

    answer: Answer
    result: StepResult  # of the frame it is about
    manifest: Manifest
    scene: SceneBag


def ask_bag(
    bag: str | Path, model: str, text: str, at_s: float | None = None, threads: int = 2
) -> AskedBag:
    """Ask about the moment `at_s` seconds after the begin of a bag; None: its end.

    Raises ValueError where the model answers nothing or no frame of the bag can be used.
    """
    with BagMemory(bag, model, threads) as memory:
        result = memory.drive_to(at_s)
        return AskedBag(memory.ask(text), result, memory.manifest, memory.scene)


class BagMemory:
    """A bag on its way through the pipeline: drive to a moment, ask, drive on."""

    def __init__(self, bag: str | Path, model: str, threads: int = 2) -> None:
        self.scene, self.manifest = SceneBag(bag), Manifest.load(model_directory(model))
        if self.manifest.tasks is None:
            raise ManifestError(
                f'{self.manifest.directory}: the model has no task heads and answers no '
                'questions. Name one that does with --model (docs/ask.md).'
            )
        self._asker = OnnxAsker(self.manifest, threads)
        self._pipeline = PerceptionPipeline(self.manifest, OnnxDetector(self.manifest, threads))
        self._sets = _frame_sets(self.scene)
        self._last: StepResult | None = None
        self._ahead: tuple[FrameSet, EgoMotion] | None = None
        self._dropped = ''

    def __enter__(self) -> 'BagMemory':
        return self

    def __exit__(self, *_: object) -> None:
        self._pipeline.close()

    def drive_to(self, at_s: float | None) -> StepResult:
        """Step up to a moment; the StepResult of the last frame.  Raises ValueError for none."""
        begin, end = self.scene.start_ns, self.scene.end_ns
        until = end if at_s is None else begin + round(at_s * 1e9)
        with Progress('driving, seconds', round((min(until, end) - begin) / 1e9, 1)) as progress:
            while (ahead := self._ahead or next(self._sets, None)) is not None:
                self._ahead = ahead
                frames, ego_motion = ahead
                if frames.stamp_ns > until:
                    break
                self._ahead = None
                self._step(frames, ego_motion)
                progress.update(round((frames.stamp_ns - begin) / 1e9, 1))
        if self._last is None:
            raise ValueError(
                f'{self.scene.path}: no frame could be used up to {at_s or "its end"} s'
                f'{self._dropped}.'
            )
        return self._last

    def ask(self, text: str) -> Answer:
        """The Answer to a text about the moment that was driven to."""
        assert self._pipeline.scene is not None, 'the model has task heads'
        return answer(self._asker, self._pipeline.scene, text)

    def _step(self, frames: FrameSet, ego_motion: EgoMotion) -> None:
        due_ns = round((STEP_S - EARLY_S) * 1e9)
        if self._last is not None and frames.stamp_ns - self._last.stamp_ns < due_ns:
            return
        try:
            self._last = self._pipeline.step(frames, self.scene.calibrations, ego_motion)
        except DroppedFrame as drop:
            self._dropped = f'; the last one was dropped: {drop}'


def _frame_sets(scene: SceneBag) -> Iterator[tuple[FrameSet, EgoMotion]]:
    """(FrameSet, EgoMotion that reaches beyond it) in order, as the node would see them."""
    sync, ego_motion = CameraSync(CAMERAS, SyncConfig()), EgoMotion()
    poses = list(zip(*scene.ego_poses))
    for image in scene.images():
        while poses and poses[0][0] <= image.stamp_ns + POSES_AHEAD_NS:
            ego_motion.add(*poses.pop(0))
        for frames in sync.add(image, image.stamp_ns):
            yield frames, ego_motion


def picture_of(text: str, asked: AskedBag, width: int = 1600) -> Pixels:
    """RGB picture of what was answered."""
    result, images, matrices = asked.result, {}, {}
    for index, camera in enumerate(CAMERAS):
        calibration = asked.scene.calibrations.get(camera)
        if camera not in result.blind and calibration is not None:
            plan = plan_for(asked.manifest.image, calibration.width, calibration.height)
            columns, rows = plan.scaled
            images[camera] = result.images[index, :rows, :columns]  # without padding
            matrices[camera] = result.image_from_ego[index]
    detections = result.detections
    seen = [
        DrawnObject(box, CLASSES[label], float(score), track_id, '')
        for box, label, score, track_id in zip(
            detections.boxes, detections.labels, detections.scores, result.track_ids
        )
    ]
    half_extent_m = asked.manifest.bev.half_extent_m
    return draw_answer(text, asked.answer, images, matrices, seen, half_extent_m, width)


def write_picture(text: str, asked: AskedBag, out: str | Path) -> None:
    """PNG of `picture_of`."""
    picture = cv2.cvtColor(picture_of(text, asked), cv2.COLOR_RGB2BGR)
    write_atomically(out, cv2.imencode('.png', picture)[1].tobytes())


def answer_lines(found: Answer, half_extent_m: float) -> list[str]:
    """What an Answer shows, for people, a line each; ids are those of ~/detections."""
    lines = [found.text] if found.text else []
    if found.why_not is not None:
        return [*lines, str(found.why_not)]
    for one in found.boxes:
        x, y, z = one.box[:3]
        name = f'{one.label.replace("_", " ")} {one.track_id}'.strip()
        lines.append(f'box: {name} at x {x:.1f}, y {y:.1f}, z {z:.1f} m, score {one.score:.2f}')
    if found.track:
        first, last = found.track[0], found.track[-1]
        ago = [(found.stamp_ns - one.stamp_ns) / 1e9 for one in (first, last)]
        x, y, z = last.box[:3]
        lines.append(
            f'track: {last.label.replace("_", " ")} in {len(found.track)} frames, {ago[0]:.1f} to '
            f'{ago[1]:.1f} s ago; last at x {x:.1f}, y {y:.1f}, z {z:.1f} m'
        )
    if found.span_ns is not None:
        begin, end = ((found.stamp_ns - stamp) / 1e9 for stamp in found.span_ns)
        lines.append(f'time: {begin:.1f} to {end:.1f} s before {found.stamp_ns / 1e9:.2f} s')
    if found.mask is not None:
        side = 2.0 * half_extent_m / len(found.mask)
        lines.append(f'mask: {np.count_nonzero(found.mask) * side**2:.1f} m2 on the ground')
    return lines

"""The pipeline in workers while the node is active: one steps it, one captions, one draws.

Each works on the newest only (NewestWorker).  Captions and pictures never hold up
detections: they get a finished StepResult, and what comes meanwhile overtakes in their slot.
"""

from collections import Counter
import threading
import time
from typing import NamedTuple

import numpy as np

from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.drawing.overlay import DrawnObject, draw_overlay
from mta_perception.foreign_text import printable
from mta_perception.geometry import invert_rigid, transform
from mta_perception.pipeline.images import plan_for
from mta_perception.pipeline.step import DroppedFrame, PerceptionPipeline, StepResult
from mta_perception.reasons import Code, Reason
from mta_perception.ros import parameters
from mta_perception.runtime.captioner import StoppedError
from mta_perception.sentences import Said
from mta_perception.workers.caption_book import CaptionBook, rows_to_caption
from mta_perception.workers.latency import Latency, Moments, received_s
from mta_perception.workers.look_ahead import LookAhead, boxes_ahead
from mta_perception.workers.newest_worker import NewestWorker
from mta_perception.workers.tally import Durations, Rate, Tally

MOST_WARNINGS = 30  # about images, said once each


MEMORY = 'memory began anew'  # source of the reasons for that
PASS_S = 0.25  # a caption pass on a busy machine takes fewer objects, not longer
FEWEST_CAPTIONS = 4
FOREIGN_NICE = 10  # a tenth of a core that the detector wants, too


class Picture(NamedTuple):
    """What the overlay is drawn from."""

    result: StepResult
    calibrations: dict  # camera -> CameraCalibration
    trails: dict  # track id -> (n, 2) [m] in the ego frame of the result
    step_ms: float


class PerceptionWorkers:
    """The workers of one activation; `offer(Job)` takes a frame set, the newest wins."""

    def __init__(self, model, settings, ego_motion, outputs, guard, say, is_sim_time):
        """model: node.LoadedModel.  say: function (text) that writes a warning to the log.
        is_sim_time: function () -> whether the node's time is that of /clock."""
        self.settings = settings
        self.dropped = Tally(say)  # frame sets without a result, by Code
        self.processed, self.captioned = Rate(), Rate()
        self.durations = Durations()  # stages of a step, ms
        self.caption_durations = Durations()
        self.latency = Latency()
        self.masked = {camera: Counter() for camera in CAMERAS}  # camera -> Code -> frames
        self.resets = Tally(say)  # of the memory, by Refusal
        self.latest = None  # StepResult
        self._say, self._said = say, set()  # of (camera, warning)
        self._is_sim_time = is_sim_time
        self._model, self._ego_motion, self._outputs = model, ego_motion, outputs
        self._reset_wanted = None  # Reason of a reset that the service asked for
        self._pipeline = PerceptionPipeline(
            model.manifest, model.detector, parameters.pipeline_config(settings)
        )
        # Sentences that were not told: wrong as they were made, or without a word.
        self.contradictory, self.empty = 0, 0
        self._book = CaptionBook(settings.caption_max_age_s)
        self._look_ahead = LookAhead(settings.caption_look_ahead_s)
        self._screen = threading.Lock()  # ~/markers and ~/caption_text: one writer at a time
        # Of a caption pass, an object; learnt.  A foreign language model may take seconds.
        self._object_s = PASS_S if _speaks_foreign(model) else 0.01
        self._closing = False
        self._caption_pose = None  # (stamp [ns], world_from_ego) of the pass before
        self._steps = NewestWorker('perception', guard('perception', self._work))
        self._captioning = NewestWorker(
            'captions',
            guard('captions', self._caption),
            settings.caption_rate,
            FOREIGN_NICE if _speaks_foreign(model) else 0,
        )
        self._drawing = NewestWorker(
            'overlay', guard('overlay', self._draw), settings.overlay_rate
        )
        self._workers = (self._steps, self._captioning, self._drawing)
        for worker in self._workers:
            worker.start()

    def close(self):
        """Let each worker end its present item, and end it; of a caption pass the present word."""
        self._closing = True
        for worker in self._workers:
            worker.stop()
        self._pipeline.close()

    def begin(self, image):
        """Take a CameraImage that may come again in a Job; called in the executor's thread."""
        self._pipeline.begin(image)

    def offer(self, job):
        """Take a subscriptions.Job; called in the executor's thread."""
        if self._steps.offer(job):
            self.dropped.count_reason(Reason(Code.OVERTAKEN), quiet=True)

    @property
    def says_sentences(self):
        """Whether the model has a captioner."""
        return self._model.captioner is not None

    @property
    def scene(self):
        """SceneMemory for questions; None where the model answers none."""
        return self._pipeline.scene

    @property
    def score_threshold(self):
        """Objects below it are not reported."""
        return self._pipeline.score_threshold

    @property
    def decoded_ahead(self):
        """Images whose decoding began before their step."""
        return self._pipeline.decoded_ahead

    def ask_for_reset(self, reason):
        """Have the memory and the tracks dropped before the next frame, for a Reason."""
        self._reset_wanted = reason

    def caption_backlog(self):
        """(frames waiting, seconds the present pass has taken, frames overtaken)."""
        return (*self._captioning.backlog(), self._captioning.overtaken)

    def image_facts(self, camera):
        """What is done to a camera's images, for people: [(what, how)]."""
        reader = self._pipeline.image_readers().get(camera)
        return list(reader.facts().items()) if reader else []

    def image_warnings(self, camera):
        """What is used of a camera's images and should be mended, in sentences."""
        reader = self._pipeline.image_readers().get(camera)
        return reader.warnings() if reader else []

    # -- in the perception worker

    def _work(self, job):
        self._step(job)
        waiting, _ = self._steps.backlog()
        if not waiting:
            self._pipeline.rest()

    def _step(self, job):
        began = time.monotonic()
        reason, self._reset_wanted = self._reset_wanted, None
        if reason is not None:
            self._pipeline.reset(reason, job.frames.stamp_ns)
        self._ego_motion.wait_for(job.frames.stamp_ns, self.settings.odometry_wait_s)
        ready = time.monotonic()
        try:
            result = self._pipeline.step(job.frames, job.calibrations, self._ego_motion)
        except DroppedFrame as drop:
            self.dropped.count_reason(drop.reason)
            return
        self._note(result)
        stepped = time.monotonic()
        self._outputs.publish_detections(result, self.settings.base_frame)
        self._time(job, result, ready, time.monotonic())
        self._publish(result, job.calibrations, (stepped - ready) * 1e3)
        done = time.monotonic()
        self.processed.tick()
        self.durations.add(
            {
                'queue': (began - job.complete_s) * 1e3,
                'odometry_wait': (ready - began) * 1e3,
                **result.timings_ms,
                'publish': (done - stepped) * 1e3,
                'total': (done - job.complete_s) * 1e3,
            }
        )

    def _time(self, job, result, began_s, boxes_s):
        """Stamp the stages of a frame whose boxes are out."""
        laps = result.timings_ms
        decoded = began_s + (laps['project'] + laps['decode']) / 1e3
        moments = Moments(
            received_s(job.frames, job.complete_s),
            job.complete_s,
            decoded,
            decoded + (laps['memory'] + laps['detector']) / 1e3,
            boxes_s,
        )
        spans_ms = self.latency.frame(
            result.stamp_ns, moments, time.monotonic() - time.time(), self._is_sim_time()
        )
        self._outputs.publish_latency(
            result.stamp_ns, self.settings.base_frame, spans_ms, self.latency
        )

    def _note(self, result):
        for camera, reason in result.blind.items():
            self.masked[camera][reason.code] += 1
        before = self.latest.history.resets if self.latest else 0
        if result.history.resets > before:
            self.resets.count_reason(result.history.last_reason, MEMORY)
        self.latest = result
        for camera in result.blind.keys() ^ set(CAMERAS):
            for warning in self.image_warnings(camera):
                if (camera, warning) not in self._said and len(self._said) < MOST_WARNINGS:
                    self._said.add((camera, warning))
                    self._say(printable(f'{camera}: {warning}'))

    def _publish(self, result, calibrations, step_ms):
        frame_id = self.settings.base_frame
        self._look_ahead.published(result.stamp_ns, time.monotonic())
        self._book.keep_only(result.track_ids)
        if self._outputs.wants_objects():
            with self._screen:
                objects = self._objects(result)
                self._outputs.publish_markers(
                    result.stamp_ns, frame_id, objects, self.settings.marker_captions
                )
                self._outputs.publish_caption_text(objects)
        if self.says_sentences and len(result.track_ids) and self._outputs.wants_sentences():
            self._captioning.offer(result)
        if self._outputs.wants_overlay():
            self._drawing.offer(Picture(result, calibrations, self._trails(result), step_ms))

    def _trails(self, result):
        ego_from_world = invert_rigid(result.world_from_ego)
        height = result.world_from_ego[2, 3]
        return {
            track_id: transform(
                ego_from_world, np.column_stack([trail, np.full(len(trail), height)])
            )[:, :2]
            for track_id, trail in self._pipeline.tracker.trails().items()
        }

    def _objects(self, result):
        """The detections as DrawnObjects, each with what may be said of it at this stamp."""
        detections = result.detections
        return [
            DrawnObject(box, name, float(score), track_id, self._text(track_id, name, box, result))
            for box, name, score, track_id in zip(
                detections.boxes,
                [CLASSES[label] for label in detections.labels],
                detections.scores,
                result.track_ids,
            )
        ]

    def _text(self, track_id, class_name, box, result):
        if self._model.captioner is None:
            return ''
        return self._book.text(track_id, class_name, box, result.stamp_ns)

    # -- in the caption worker

    def _caption(self, result):
        began = time.monotonic()
        detections = result.detections
        velocity, turn = _ego_twist(self._caption_pose, result)
        self._caption_pose = result.stamp_ns, result.world_from_ego
        rows = rows_to_caption(
            detections,
            result.track_ids,
            self._book,
            result.stamp_ns,
            self._captions_in_time(),
            velocity,
        )
        if not len(rows):
            return
        ahead_s = self._look_ahead.seconds()
        inputs = result.caption_inputs.take(rows)
        inputs = inputs._replace(boxes=boxes_ahead(inputs.boxes, ahead_s, velocity, turn))
        try:
            captions = self._model.captioner.caption(inputs, lambda: not self._closing)
        except StoppedError:
            return
        boxes = boxes_ahead(detections.boxes[rows], ahead_s, velocity, turn)
        entries = [
            (
                result.track_ids[row],
                CLASSES[detections.labels[row]],
                detections.scores[row],
                caption.text,
                caption.score,
                box,
            )
            for row, caption, box in zip(rows, captions, boxes)
        ]
        told = [entry for entry in entries if self._take(entry, result.stamp_ns)]
        empty = sum(not caption.text for caption in captions)
        self.empty += empty
        self.contradictory += len(entries) - len(told) - empty
        if told:
            true_ns = result.stamp_ns + round(ahead_s * 1e9)
            self._outputs.publish_captions(
                result.stamp_ns, self.settings.base_frame, told, true_ns
            )
            spans_ms = self.latency.sentences(result.stamp_ns, time.monotonic())
            self._outputs.publish_latency(
                result.stamp_ns, self.settings.base_frame, spans_ms, self.latency
            )
            self._show_again(result)
        self._look_ahead.told(result.stamp_ns, time.monotonic())
        seconds = time.monotonic() - began
        self.caption_durations.add({'captions': seconds * 1e3})
        self._object_s += 0.3 * (seconds / len(rows) - self._object_s)
        for _ in told:
            self.captioned.tick()

    def _captions_in_time(self):
        """How many objects a pass may take: a sentence that comes late is true no more."""
        in_time = int(PASS_S / max(self._object_s, 1e-4))
        return min(self.settings.max_captions, max(FEWEST_CAPTIONS, in_time))

    def _show_again(self, result):
        """The new sentences beside the boxes they are about, while those are on the screen."""
        with self._screen:
            if self.latest is not result or not self._outputs.wants_objects():
                return
            objects = self._objects(result)
            self._outputs.publish_words_again(
                result.stamp_ns, self.settings.base_frame, objects, self.settings.marker_captions
            )
            self._outputs.publish_caption_text(objects)

    def _take(self, entry, stamp_ns):
        """Put a sentence into the book; whether it may be told."""
        track_id, class_name, _, text, _, box = entry
        xy = float(box[0]), float(box[1])
        return self._book.put(track_id, Said(text, stamp_ns, class_name, xy), box)

    # -- in the overlay worker

    def _draw(self, picture):
        began = time.monotonic()
        result, images, image_from_ego = picture.result, {}, {}
        for index, camera in enumerate(CAMERAS):
            if camera not in result.blind and camera in picture.calibrations:
                calibration = picture.calibrations[camera]
                width, height = plan_for(
                    self._model.manifest.image, calibration.width, calibration.height
                ).scaled
                images[camera] = result.images[index, :height, :width]  # without padding
                image_from_ego[camera] = result.image_from_ego[index]
        objects = self._objects(result)
        header = (
            f'{len(images)} of {len(CAMERAS)} cameras, step {picture.step_ms:.0f} ms, '
            f'stamp {result.stamp_ns / 1e9:.2f} s'
        )
        drawn = draw_overlay(
            images,
            image_from_ego,
            objects,
            trails=picture.trails,
            header=header,
            width=self.settings.overlay_width,
        )
        self._outputs.publish_overlay(
            result.stamp_ns,
            self.settings.base_frame,
            drawn,
            self.settings.overlay_jpeg_quality,
        )
        self.durations.add({'overlay': (time.monotonic() - began) * 1e3})


def _speaks_foreign(model):
    captioner = model.manifest.captioner
    return captioner is not None and captioner.foreign is not None


def _ego_twist(before, result):
    """((2,) m/s in the ego frame, rad/s about z) since (stamp, pose) `before`; zeros where that
    tells nothing."""
    if before is None or not 0 < result.stamp_ns - before[0] <= 2_000_000_000:
        return np.zeros(2), 0.0
    seconds = (result.stamp_ns - before[0]) / 1e9
    before_from_now = invert_rigid(before[1]) @ result.world_from_ego
    way = result.world_from_ego[:3, :3].T @ (result.world_from_ego[:3, 3] - before[1][:3, 3])
    turn = np.arctan2(before_from_now[1, 0], before_from_now[0, 0])
    return way[:2] / seconds, float(turn) / seconds

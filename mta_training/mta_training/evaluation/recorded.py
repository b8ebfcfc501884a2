"""What a node said on its topics, judged at the key frames of the bags that were played.

A listener's view: for each key frame the message nearest in time, at most 0.25 s away, its boxes
moved to the key frame's stamp by the car's motion and their own.  A Detection3D carries no
velocity, so it is fitted to each track's past.  Captions are the newest of each track, up to 3 s
old; the boxes that have one count as described.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.bags.recording import (
    boxes_moved_to,
    newest_captions,
    read_recording,
    with_track_velocities,
)
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CLASSES, BoxCode
from mta_training.evaluation.caption_matching import DescribedObjects
from mta_training.evaluation.nuscenes_metrics import EvaluationError, Predictions
from mta_training.evaluation.result_files import JudgedFrame

NEAREST_WITHIN_S = 0.25  # farther from any message, a key frame counts as without detections


class RecordedFrames(NamedTuple):
    """The key frames of the bags, and for how many of them there was a message."""

    frames: list  # JudgedFrame
    with_detections: int


def recorded_frames(recorded, bags, frames):
    """RecordedFrames of a recorded bag for the first `frames` key frames of each played bag.

    A node that said nothing finds nothing.  Raises EvaluationError where it spoke, but never
    within a bag's time: then another bag was played.
    """
    recording, judged, heard = read_recording(recorded), [], 0
    for scene in map(SceneBag, bags):
        part = _within(recording, scene)
        if recording.detections and not part.detections:
            raise EvaluationError(
                f'{recorded} has {len(recording.detections)} messages with detections, none of '
                f'them from the time of {scene.path}. Expected a recording made while that bag '
                'was played: give the bags that were.'
            )
        part = part._replace(captions=part.captions if recording.captions else None)
        found = judged_recording(part, scene, scene.samples[:frames])
        judged += found.frames
        heard += found.with_detections
    return RecordedFrames(judged, heard)


def judged_recording(recording, scene, samples):
    """RecordedFrames of what a node said during a scene, for some of its key frames.

    recording  Recording of that scene; its captions are None from a node that has none
    """
    messages = with_track_velocities(recording.detections, scene.world_from_ego_at)
    judged, heard = [], 0
    for sample in samples:
        message = nearest_detections(messages, sample.stamp_ns)
        heard += message is not None
        judged.append(_frame(scene, sample, message, recording.captions))
    return RecordedFrames(judged, heard)


def _within(recording, scene):
    """The part of a Recording that is about a scene, by stamps."""
    slack_ns = NEAREST_WITHIN_S * 1e9

    def inside(entries):
        return [
            entry
            for entry in entries
            if scene.start_ns - slack_ns <= entry.stamp_ns <= scene.end_ns + slack_ns
        ]

    return recording._replace(
        detections=inside(recording.detections), captions=inside(recording.captions)
    )


def nearest_detections(messages, stamp_ns):
    """The RecordedDetections whose stamp is nearest, or None farther than NEAREST_WITHIN_S."""
    if not messages:
        return None
    nearest = min(messages, key=lambda message: abs(message.stamp_ns - stamp_ns))
    return nearest if abs(nearest.stamp_ns - stamp_ns) <= NEAREST_WITHIN_S * 1e9 else None


def _frame(scene, sample, message, captions):
    """JudgedFrame of a key frame.

    message   RecordedDetections with velocities, or None
    captions  RecordedCaptions of the scene, or None from a node that has no captions
    """
    boxes, labels, scores = np.zeros((0, BoxCode.WIDTH)), np.zeros(0, int), np.zeros(0)
    sentences = []
    if message is not None:
        boxes = boxes_moved_to(
            message.boxes, message.stamp_ns, sample.stamp_ns, scene.world_from_ego_at
        )
        labels = np.array([CLASSES.index(name) for name in message.class_names], dtype=int)
        scores = message.scores
        known = newest_captions(captions or (), message.stamp_ns)
        sentences = [known.get(track_id, '') for track_id in message.track_ids]
    described = None
    if captions is not None:
        told = [row for row, sentence in enumerate(sentences) if sentence]
        described = DescribedObjects(
            boxes[told], labels[told], scores[told], [sentences[row] for row in told]
        )
    return JudgedFrame(sample, scene.description, Predictions(boxes, labels, scores), described)

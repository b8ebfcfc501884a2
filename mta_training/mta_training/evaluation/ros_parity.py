"""Does the node say what the pipeline says?  A bag played through the real node, and the same
frames through the same pipeline without ROS; both judged alike.

The bag's key frames alone are played, slowly enough that the node sees them all.  What the node
published decides which frames count, because its history is made of those; the pipeline without
ROS then steps through exactly these.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from mta_perception.bags.recording import (
    RecordedCaption,
    RecordedDetections,
    Recording,
    read_recording,
)
from mta_perception.bags.scene_bag import SceneBag, image_topic
from mta_perception.bags.typestore import typestore
from mta_perception.commands.demo import replay
from mta_perception.config import EgoMotionConfig
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.frames import FrameSet
from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.pipeline.step import PerceptionPipeline
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.speech import LanguageSettings, language_directory, open_captioner
from mta_training.evaluation.nuscenes_metrics import EvaluationError
from mta_training.evaluation.recorded import judged_recording
from mta_training.evaluation.report import judge

THREADS = 2  # of the detector, the node's default: sums come in another order with others
# Frames are far apart in receive time, and a camera is not dead for that.
PATIENT = {'dead_after_s': 10.0, 'max_wait_s': 2.0, 'max_captions': 100}
PATIENT |= {'caption_look_ahead_s': 0.0}  # of how long captions took, nobody else knows
FORGETS_NOTHING = EgoMotionConfig(keep_s=1e6)
AFTER_S = 1.0  # odometry behind the last key frame that is played


class Parity(NamedTuple):
    """How the node and the pipeline without ROS compare."""

    frames: int  # key frames of the bag
    compared: int  # ... that the node saw
    boxes: int
    box_difference: float  # largest of any number of a box [m, 1]
    score_difference: float
    sentences: int  # that the node said
    sentences_equal: int
    metrics: dict[str, tuple[float, float]]  # name -> (node, without ROS)


def ros_parity(
    bag: Path, model: Path, out: Path, frames: int, rate: float, language: LanguageSettings
) -> Parity:
    """Play the first `frames` key frames of a bag, of nuScenes' half a second each.

    out       folder for the bag that is played, the recording and the logs
    rate      1 = real time
    language  of a model that speaks with a foreign language model
    Raises EvaluationError where the node saw fewer than half of the frames, BagError, RuntimeError
    """
    scene, manifest = SceneBag(bag), Manifest.load(model)
    language_directory(manifest, language.directory)  # said now, not by a node that ends
    parameters = {**PATIENT, **language.parameters()}
    samples = scene.samples[:frames]
    played = write_key_frames(scene, samples, out / 'key_frames')
    replay(SceneBag(played), out, manifest.directory, rate, parameters)
    recording = read_recording(out / 'output_bag')
    whole = {max(sample.image_stamps.values()): sample for sample in samples}
    said = [one for one in recording.detections if one.stamp_ns in whole]
    if len(said) < len(samples) / 2:
        raise EvaluationError(
            f'the node saw {len(said)} of {len(samples)} key frames of {scene.path}: play them '
            f'more slowly (--rate {rate / 2:g}) or see {out / "logs"}.'
        )
    stamps = [one.stamp_ns for one in said]
    captions = [one for one in recording.captions if one.stamp_ns in set(stamps)]
    node = recording._replace(detections=said, captions=captions)
    samples = [whole[stamp_ns] for stamp_ns in stamps]
    alone = without_ros(scene, samples, manifest, captions, language)
    return _compared(scene, samples, node, alone, frames)


def write_key_frames(scene, samples, folder: Path) -> Path:
    """A bag with the images of some key frames, all odometry until then, and the mounts."""
    wanted = {
        (topic, stamp_ns)
        for sample in samples
        for camera, stamp_ns in sample.image_stamps.items()
        for topic in (image_topic(camera), f'/{camera}/camera_info')
    }
    frames = {topic for topic, _ in wanted}
    last_ns = max(stamp_ns for _, stamp_ns in wanted) + round(AFTER_S * 1e9)
    store, connections = typestore(), {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = [*frames, *({'/odom', '/tf', '/tf_static'} & scene.topics.keys())]
        for topic, kind, stamp_ns, data in scene.raw(topics, stop_ns=last_ns):
            if topic in frames and (topic, stamp_ns) not in wanted:
                continue
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic,
                    kind,
                    typestore=store,
                    offered_qos_profiles=scene.offered_qos(topic),
                )
            writer.write(connections[topic], stamp_ns, data)
    return folder


def without_ros(scene, samples, manifest, captions, language) -> Recording:
    """The same key frames through the pipeline alone, as a Recording.

    captions  RecordedCaptions of the node: of the same objects at the same stamps sentences are
              made here
    """
    ego_motion = EgoMotion(FORGETS_NOTHING)
    for stamp_ns, pose in zip(*scene.ego_poses):
        ego_motion.add(int(stamp_ns), pose)
    pipeline = PerceptionPipeline(manifest, OnnxDetector(manifest, THREADS))
    captioner = open_captioner(manifest, THREADS, language) if manifest.captioner else None
    wanted = {(one.stamp_ns, one.track_id) for one in captions}
    detections, sentences = [], []
    try:
        for sample in samples:
            result = pipeline.step(_frame_set(scene, sample), scene.calibrations, ego_motion)
            detections.append(_recorded(result))
            rows = [
                row
                for row, track_id in enumerate(result.track_ids)
                if (result.stamp_ns, track_id) in wanted
            ]
            if captioner is not None and rows:
                told = captioner.caption(result.caption_inputs.take(np.array(rows)))
                sentences += [_sentence(result, *pair) for pair in zip(rows, told)]
    finally:
        pipeline.close()
    return Recording(detections, sentences, {}, [])


def _frame_set(scene, sample):
    stamps = sample.image_stamps
    first, newest = min(stamps.values()), max(stamps.values())
    images = {
        image.camera: image
        for image in scene.images(list(stamps), first, newest + 1)
        if image.stamp_ns == stamps[image.camera]
    }
    return FrameSet(newest, images, {})


def _recorded(result):
    """A StepResult as a listener hears it: without velocities."""
    boxes = np.array(result.detections.boxes, dtype=np.float64)
    boxes[:, BoxCode.VELOCITY] = np.nan
    names = [CLASSES[label] for label in result.detections.labels]
    scores = np.asarray(result.detections.scores, dtype=np.float64)
    return RecordedDetections(
        result.stamp_ns, result.stamp_ns, boxes, names, scores, list(result.track_ids)
    )


def _sentence(result, row, caption):
    box = result.detections.boxes[row]
    return RecordedCaption(
        result.stamp_ns,
        result.stamp_ns,
        result.track_ids[row],
        CLASSES[result.detections.labels[row]],
        caption.text,
        (float(box[0]), float(box[1])),
    )


def _compared(scene, samples, node, alone, frames):
    boxes, scores = [0.0], [0.0]
    for ours, theirs in zip(node.detections, alone.detections):
        if len(ours.boxes) != len(theirs.boxes) or ours.class_names != theirs.class_names:
            raise EvaluationError(
                f'at {ours.stamp_ns} the node published {len(ours.boxes)} boxes '
                f'({", ".join(ours.class_names[:5])} ...), the pipeline without ROS '
                f'{len(theirs.boxes)} ({", ".join(theirs.class_names[:5])} ...).'
            )
        boxes += np.nan_to_num(np.abs(ours.boxes - theirs.boxes)).ravel().tolist()
        scores += np.abs(ours.scores - theirs.scores).ravel().tolist()
    sentences = {(one.stamp_ns, one.track_id): one.caption for one in alone.captions}
    equal = sum(
        sentences.get((one.stamp_ns, one.track_id)) == one.caption for one in node.captions
    )
    return Parity(
        frames,
        len(samples),
        sum(len(one.boxes) for one in node.detections),
        max(boxes),
        max(scores),
        len(node.captions),
        equal,
        _metrics(scene, samples, node, alone),
    )


def _metrics(scene, samples, node, alone):
    found = []
    for recording in (node, alone):
        result = judge(judged_recording(recording, scene, samples).frames, ('strict',))
        numbers = {name: result['detection'][name] for name in ('mAP', 'NDS')}
        if result['captions'] is not None:
            numbers.update(
                {
                    f'captions {name}': value
                    for name, value in result['captions']['strict']['centre_2m'].items()
                    if isinstance(value, float)
                }
            )
        found.append(numbers)
    return {name: (found[0][name], found[1][name]) for name in found[0]}

"""What a trained network says about scenes: torch in, judged frames and pictures out."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from mta_perception.atomic_files import write_atomically
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CAMERAS, CLASSES, DECODE
from mta_perception.detections import decode
from mta_perception.drawing.overlay import DrawnObject, draw_overlay
from mta_perception.runtime.torch_detector import TorchDetector
from mta_training.data.scene_arrays import SceneArrays
from mta_training.data.scene_cache import read_scene
from mta_training.data.scene_drive import drive_scene
from mta_training.evaluation.caption_matching import DescribedObjects
from mta_training.evaluation.nuscenes_metrics import Predictions, evaluate_detections
from mta_training.evaluation.report import JudgedFrame
from mta_training.runs.run_directory import load_run

# The metric integrates over all scores, so that nothing is cut off that the node would drop.
_SCORE_THRESHOLD, _MOST = 0.02, 300


class HeldOut(NamedTuple):
    """A scene to be judged on, with its ground truth as the bag has it, in the level frame."""

    scene: SceneArrays
    samples: list  # T mta_perception.bags.scene_bag.Sample, same order
    description: str


def held_out_scene(scene, bag):
    """HeldOut of decoded SceneArrays and their bag's directory."""
    bag = SceneBag(bag)
    return HeldOut(scene, [sample.levelled() for sample in bag.samples], bag.description)


def predict_scene(model, scene, frames):
    """DetectorOutputs of the first frames of a scene, each with the memory of those before."""
    shown = range(min(frames, len(scene.boxes)))
    for driven in drive_scene(TorchDetector(model.detector), scene, shown):
        yield driven.outputs


@torch.no_grad()
def describe(model, language, outputs, detections, beams=1):
    """Captions of decoded Detections, one each."""
    if not len(detections.scores):
        return []
    device = next(model.parameters()).device
    rows = detections.queries
    inputs = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device)
        for part in (
            outputs.object_features[rows],
            detections.boxes,
            outputs.class_logits[rows],
            outputs.bev,
        )
    )
    return language.generate(model.qformer(*inputs), beams)


def judge_scenes(model, language, held_out, frames, beams=1):
    """JudgedFrames of the first `frames` frames of each HeldOut."""
    model.eval()
    judged = []
    for part in held_out:
        for sample, outputs in zip(part.samples, predict_scene(model, part.scene, frames)):
            found = decode(outputs, _SCORE_THRESHOLD, _MOST)
            shown = decode(outputs, **DECODE)
            captions = describe(model, language, outputs, shown, beams)
            judged.append(
                JudgedFrame(
                    sample,
                    part.description,
                    Predictions(found.boxes, found.labels, found.scores),
                    DescribedObjects(shown.boxes, shown.labels, shown.scores, captions),
                )
            )
    return judged


def evaluate_learner(learner, held_out, picture=None, frames=10):
    """Detection metrics on the first `frames` frames of each HeldOut, and a picture.

    The picture shows the middle frame of the first scene: boxes, captions, ground truth.
    """
    learner.eval()
    samples, predictions = [], {}
    for number, part in enumerate(held_out):
        middle = min(frames, len(part.samples)) // 2
        outputs = predict_scene(learner.model, part.scene, frames)
        for index, (sample, output) in enumerate(zip(part.samples, outputs)):
            found = decode(output, _SCORE_THRESHOLD, _MOST)
            samples.append(sample)
            predictions[sample.token] = Predictions(found.boxes, found.labels, found.scores)
            if picture is not None and number == 0 and index == middle:
                draw(picture, learner, part, index, output)
    metrics = evaluate_detections(samples, predictions)
    return {
        **metrics,
        'frames': len(samples),
        'boxes_per_frame': float(np.mean([len(entry.scores) for entry in predictions.values()])),
    }


def draw(path, learner, held_out, frame, outputs):
    """Write the overlay picture of a frame: what was found and said, and the ground truth."""
    shown = decode(outputs, **DECODE)
    captions = describe(learner.model, learner.language, outputs, shown)
    objects = [
        DrawnObject(box, CLASSES[label], float(score), '', caption)
        for box, label, score, caption in zip(shown.boxes, shown.labels, shown.scores, captions)
    ]
    scene = held_out.scene
    truth = [
        DrawnObject(box, CLASSES[label], 1.0, '', '')
        for box, label in zip(scene.boxes[frame], scene.labels[frame])
    ]
    images = {
        camera: scene.images[frame, slot]
        for slot, camera in enumerate(CAMERAS)
        if scene.present[frame, slot]
    }
    matrices = dict(zip(CAMERAS, scene.image_from_ego[frame]))
    image = draw_overlay(
        images,
        matrices,
        objects,
        truth,
        header=f'{scene.name} · {held_out.description}',
        width=1280,
    )
    write_atomically(path, cv2.imencode('.png', image[..., ::-1])[1].tobytes())


def predict_run(run, bags, frames, checkpoint=None, beams=1):
    """JudgedFrames of a training run on the first `frames` keyframes of each bag.

    checkpoint  last or best; None = best where there is one
    """
    if checkpoint is None:
        checkpoint = 'best' if (Path(run) / 'best.pt').is_file() else 'last'
    loaded = load_run(run, checkpoint)
    # One scene in memory at a time.
    held_out = (held_out_scene(read_scene(bag, loaded.recipe.model.image), bag) for bag in bags)
    return judge_scenes(loaded.model, loaded.language, held_out, frames, beams)

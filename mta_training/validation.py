"""Held-out detection metrics of a network while it trains: torch in, official nuScenes numbers
out."""

from typing import NamedTuple

import numpy as np
import torch

from mta_perception.detections import DetectorOutputs, decode
from mta_training.evaluate import Predictions, evaluate_detections
from mta_training.samples import Place, SceneArrays, make_batch

# The metric integrates over all scores, so that nothing is cut off that the node would drop.
_SCORE_THRESHOLD, _MOST = 0.02, 300


class HeldOut(NamedTuple):
    """A scene to be judged on, with its ground truth as the bag has it."""

    scene: SceneArrays
    samples: list          # T mta_perception.bag.Sample, same order


@torch.no_grad()
def predict_scene(model, scene, frames):
    """Detector outputs of the first frames of a scene, each with the memory of the one before."""
    bev = model.config.bev
    memory = torch.zeros(1, bev.channels, bev.cells, bev.cells)
    for frame in range(min(frames, len(scene.boxes))):
        batch = make_batch([scene], [Place(0, frame, frame > 0)])
        with torch.autocast('cpu', torch.bfloat16):
            result = model.detector(batch.images, batch.image_from_ego, batch.camera_mask, memory,
                                    batch.history_valid, batch.ego_prev_from_ego_now)
        memory = result.bev
        yield DetectorOutputs(*(output[0].float().numpy() for output in result[:4]))


def evaluate_model(model, held_out, frames=10):
    """dict of evaluate.evaluate_detections over the first `frames` frames of each HeldOut."""
    model.eval()
    samples, predictions = [], {}
    for part in held_out:
        for sample, outputs in zip(part.samples, predict_scene(model, part.scene, frames)):
            detections = decode(outputs, _SCORE_THRESHOLD, _MOST)
            samples.append(sample)
            predictions[sample.token] = Predictions(
                detections.boxes, detections.labels, detections.scores)
    metrics = evaluate_detections(samples, predictions)
    return {**metrics, 'frames': len(samples), 'boxes_per_frame': float(np.mean(
        [len(entry.scores) for entry in predictions.values()]))}

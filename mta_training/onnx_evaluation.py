"""Held-out metrics through the exported files: what the vehicle would compute, frame after
frame."""

import numpy as np

from mta_perception.bag import SceneBag
from mta_perception.detections import caption_inputs, decode
from mta_perception.memory import History
from mta_perception.runtime.captioner import OnnxCaptioner
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_training.caption_metrics import DescribedObjects, evaluate_captions
from mta_training.dataset import read_scene
from mta_training.evaluate import Predictions, evaluate_detections
from mta_training.samples import Place, make_batch

# The detection metric integrates over all scores; captions are those the node would publish.
_SCORE_THRESHOLD, _MOST = 0.02, 300


def evaluate_model_directory(directory, bags, frames, threads=2):
    """Metrics of an exported model on the first `frames` keyframes of each bag.

    Returns a dict of floats: mAP, NDS, the true-positive errors, CIDEr, BLEU_4, ROUGE_L and their
    `found_` variants (objects that were found alone), frames.
    """
    manifest = Manifest.load(directory)
    detector, captioner = OnnxDetector(manifest, threads), OnnxCaptioner(manifest, threads)
    samples, predictions, truth, described = [], {}, [], []
    for path in bags:
        scene, bag = read_scene(path, manifest.image), SceneBag(path)
        for sample, outputs in zip(bag.samples, _drive(detector, scene, frames)):
            found = decode(outputs, _SCORE_THRESHOLD, _MOST)
            samples.append(sample)
            predictions[sample.token] = Predictions(found.boxes, found.labels, found.scores)
            shown = decode(outputs, manifest.score_threshold, manifest.max_detections)
            captions = []
            if len(shown.scores):
                captions = captioner.caption(caption_inputs(outputs, shown))
            described.append(DescribedObjects(shown.boxes, shown.labels, shown.scores,
                                              [caption.text for caption in captions]))
            truth.append(DescribedObjects(sample.boxes, sample.labels,
                                          np.ones(len(sample.labels)), sample.captions))
    metrics = evaluate_detections(samples, predictions)
    if any(any(entry.captions) for entry in truth):
        metrics.update(evaluate_captions(truth, described))
    return {**metrics, 'frames': len(samples)}


def _drive(detector, scene, frames):
    """DetectorOutputs of one frame after the other, each remembering the one before."""
    before = None
    for frame in range(min(frames, len(scene.boxes))):
        batch = make_batch([scene], [Place(0, frame, frame > 0)])
        moved = batch.ego_prev_from_ego_now[0].numpy().astype(np.float64)
        history = (History(None, False, np.eye(4), 0.0) if before is None
                   else History(before, True, moved, 0.5))
        outputs = detector(batch.images[0].numpy(), batch.image_from_ego[0].numpy(),
                           batch.camera_mask[0].numpy(), history)
        before = outputs.bev
        yield outputs

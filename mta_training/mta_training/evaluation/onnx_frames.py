"""Held-out metrics through the exported files: what the vehicle would compute, frame after
frame."""

from mta_perception.bags.scene_bag import Sample, SceneBag
from mta_perception.config import MemoryConfig
from mta_perception.detections import caption_inputs, decode
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.speech import open_captioner
from mta_training.data.scene_cache import read_scene
from mta_training.data.scene_drive import drive_scene
from mta_training.evaluation.caption_matching import DescribedObjects
from mta_training.evaluation.nuscenes_metrics import Predictions
from mta_training.evaluation.report import JudgedFrame, judge

# The detection metric integrates over all scores; captions are those the node would publish.
_SCORE_THRESHOLD, _MOST = 0.02, 300


def judged_frames(directory, bags, frames, threads=2, language=None):
    """Yield a JudgedFrame for each of the first `frames` keyframes of each bag.

    `described` is None for a model without a captioner.  language: speech.LanguageSettings of a
    model that speaks with a foreign one.
    """
    manifest = Manifest.load(directory)
    detector = OnnxDetector(manifest, threads)
    memory = MemoryConfig.trained_at(manifest.history_step_s)
    captioner = open_captioner(manifest, threads, language) if manifest.captioner else None
    for path in bags:
        scene, bag = read_scene(path, manifest.image), SceneBag(path)
        drive = drive_scene(detector, scene, range(min(frames, len(scene.boxes))), memory)
        for sample, driven in zip(map(Sample.levelled, bag.samples), drive):
            outputs = driven.outputs
            found = decode(outputs, _SCORE_THRESHOLD, _MOST, manifest.calibration)
            shown = decode(
                outputs, manifest.score_threshold, manifest.max_detections, manifest.calibration
            )
            yield JudgedFrame(
                sample,
                bag.description,
                Predictions(found.boxes, found.labels, found.scores),
                _described(captioner, outputs, shown),
            )


def _described(captioner, outputs, shown):
    if captioner is None:
        return None
    captions = captioner.caption(caption_inputs(outputs, shown)) if len(shown.scores) else []
    return DescribedObjects(
        shown.boxes, shown.labels, shown.scores, [caption.text for caption in captions]
    )


def evaluate_model_directory(directory, bags, frames, threads=2, language=None):
    """Metrics of an exported model on the first `frames` keyframes of each bag, for its card.

    Returns a dict: evaluate.evaluate_detections' and, where the bags have captions, those of the
    strict protocol at 2 m (caption_metrics.strict_scores; METEOR only with Java), frames.
    """
    result = judge(
        judged_frames(directory, bags, frames, threads, language), protocols=('strict',)
    )
    metrics = dict(result['detection'])
    if result['captions'] is not None:
        metrics.update(
            {
                name: value
                for name, value in result['captions']['strict']['centre_2m'].items()
                if value is not None
            }
        )
    return {**metrics, 'frames': result['frames']}

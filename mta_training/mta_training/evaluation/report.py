"""Everything that is measured about a detector with captions, in one dict; one directory of
report.

in   JudgedFrame list: keyframes with what was said about them
out  `judge`'s dict; metrics.json, report.md, results.json and PNG plots by `write_report`
"""

import json
import os
from pathlib import Path

import numpy as np

from mta_perception.atomic_files import whole
from mta_perception.contract import CLASSES
from mta_training.evaluation.caption_matching import (
    MATCH_M,
    STRICT_IOUS,
    DescribedObjects,
    in_range,
    strict_pairs,
)
from mta_training.evaluation.distances import by_distance
from mta_training.evaluation.hallucination import hallucinations
from mta_training.evaluation.nuscenes_metrics import detections_and_curves
from mta_training.evaluation.report_plots import draw_plots
from mta_training.evaluation.report_text import markdown
from mta_training.evaluation.result_files import JudgedFrame, captioned_results
from mta_training.evaluation.subsets import group_means, judge_subsets

__all__ = ['JudgedFrame', 'described_truth', 'judge', 'write_report']
PROTOCOLS = ('strict', 'tod3cap')
CONFUSION_SCORE = 0.2  # boxes below it are not counted in the confusion of classes


def judge(frames, protocols=PROTOCOLS):
    """All metrics of JudgedFrames as a nested dict of plain numbers; None = cannot be measured.

    frames           how many
    detection        nuscenes_metrics.evaluate_detections
    subsets          'sunny', 'rainy', 'day', 'night' -> frames, mAP, NDS, mAP_present
    groups           'rare', 'common', 'frequent' -> mAP; groups_present: over classes that occur
    captions         'strict' -> 'iou_0.25', 'iou_0.5', 'centre_2m' -> `strict_scores`
                     'tod3cap' -> '0.25', '0.5' -> `tod3cap_scores`, both of caption_metrics;
                     None without captions on either side; `captions_absent` says why
    hallucination    hallucination.hallucinations, None with `captions`
    distances        distances.by_distance, None with `captions`
    confusion        classes, score, counts[true][said] at 2 m; last row and column: nothing there
    curves           class -> {'recall', 'precision'}, 101 each, at 2 m; None without ground truth
    Raises EvaluationError for no frames or boxes that are none.
    """
    unknown = sorted(set(protocols) - set(PROTOCOLS))
    if unknown:
        raise ValueError(f'protocols {unknown}; expected some of {list(PROTOCOLS)}.')
    frames = list(frames)
    samples = [frame.sample for frame in frames]
    predictions = {frame.sample.token: frame.predictions for frame in frames}
    detection, curves = detections_and_curves(samples, predictions)
    groups, present = group_means(detection['classes'])
    truth = [described_truth(sample) for sample in samples]
    absent = _why_no_captions(frames, truth)
    captions, hallucination, distances = None, None, None
    if not absent:
        said = [frame.described or _NOTHING for frame in frames]
        captions = _judge_captions(truth, said, protocols)
        hallucination = hallucinations(
            truth, [strict_pairs(*pair, within_m=MATCH_M) for pair in zip(truth, said)]
        )
        distances = by_distance(truth, said)
    return {
        'frames': len(frames),
        'detection': detection,
        'subsets': judge_subsets(samples, [frame.description for frame in frames], predictions),
        'groups': groups,
        'groups_present': present,
        'captions': captions,
        'captions_absent': absent,
        'hallucination': hallucination,
        'distances': distances,
        'confusion': confusion(frames, truth),
        'curves': curves,
    }


_NOTHING = DescribedObjects(np.zeros((0, 10)), np.zeros(0, int), np.zeros(0), [])


def described_truth(sample):
    """Ground truth that counts: as in the detection metric, lidar or radar has hit it."""
    rows = np.flatnonzero(sample.num_lidar_pts + sample.num_radar_pts > 0)
    return DescribedObjects(
        sample.boxes[rows],
        sample.labels[rows],
        np.ones(len(rows)),
        [sample.captions[row] for row in rows],
    )


def _why_no_captions(frames, truth):
    """A sentence, or None where captions can be judged."""
    if not any(entry.captions[row] for entry in truth for row in np.flatnonzero(in_range(entry))):
        return 'the ground truth has no captions'
    described = [frame.described for frame in frames if frame.described is not None]
    if not described:
        return 'the predictions have no captions'
    captions = [text for entry in described for text in entry.captions]
    # No objects at all is a model that finds nothing: it has captions, and they score 0.
    if captions and not any(captions):
        return 'all captions of the predictions are empty'
    try:
        import pycocoevalcap  # noqa: F401
    except ModuleNotFoundError:
        return 'pycocoevalcap is not installed (`make train-env` does)'
    return None


def _judge_captions(truth, said, protocols):
    # pycocoevalcap comes with `make train-env` only: see _why_no_captions.
    from mta_training.evaluation.caption_scores import (
        evaluate_captions,
        evaluate_captions_tod3cap,
        open_meteor,
    )

    result = {}
    with open_meteor() as meteor:
        if 'strict' in protocols:
            result['strict'] = {
                f'iou_{iou}': evaluate_captions(truth, said, meteor, iou=iou)
                for iou in STRICT_IOUS
            }
            result['strict']['centre_2m'] = evaluate_captions(truth, said, meteor)
        if 'tod3cap' in protocols:
            result['tod3cap'] = {
                str(iou): evaluate_captions_tod3cap(truth, said, iou, meteor)
                for iou in STRICT_IOUS
            }
    return result


def confusion(frames, truth):
    """Which class is taken for which: nearest pairs within 2 m, best score first, of any class.

    truth: DescribedObjects of each frame.  Returns classes (10 and 'none'), score (the least that
    counts), counts (11, 11) [true][said]: last column missed, last row false alarms.
    """
    nothing = len(CLASSES)
    counts = np.zeros((nothing + 1, nothing + 1), dtype=int)
    for frame, objects in zip(frames, truth):
        boxes, labels, scores = (np.asarray(column) for column in frame.predictions)
        said = np.flatnonzero(in_range(frame.predictions) & (scores >= CONFUSION_SCORE))
        true = list(np.flatnonzero(in_range(objects)))
        for row in said[np.argsort(-scores[said], kind='stable')]:
            away = np.hypot(*(objects.boxes[true, :2] - boxes[row, :2]).T)
            partner = nothing
            if len(true) and away.min() < MATCH_M:
                partner = objects.labels[true.pop(int(away.argmin()))]
            counts[partner, labels[row]] += 1
        for row in true:
            counts[objects.labels[row], nothing] += 1
    return {'classes': [*CLASSES, 'none'], 'score': CONFUSION_SCORE, 'counts': counts.tolist()}


def write_report(result, frames, out):
    """Write a report of `judge`'s dict into the directory `out`; returns the paths.

    metrics.json (the dict), report.md, results.json (official format, `caption` beside described
    boxes) and PNG plots.  All are written beside their places and put there together, report.md
    last: a directory with one is whole.
    """
    out = Path(out)
    plots = draw_plots(result)
    contents = {
        'metrics.json': json.dumps(result, indent=2).encode(),
        'results.json': json.dumps(captioned_results(frames)).encode(),
        **plots,
        'report.md': markdown(result, list(plots)).encode(),
    }
    out.mkdir(parents=True, exist_ok=True)
    with whole(out / 'report.md') as last:
        for name, content in contents.items():
            (last.parent / name).write_bytes(content)
        # All is written; from here to the end there are only renames.
        (out / 'report.md').unlink(missing_ok=True)
        for name in contents:
            if name != last.name:
                os.replace(last.parent / name, out / name)
    return [out / name for name in contents]

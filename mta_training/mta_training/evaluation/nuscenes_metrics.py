"""Official nuScenes detection metrics of boxes in the ego frame, against bags or a dataset.

The numbers are the devkit's own (`accumulate`, `calc_ap`, `calc_tp`, `DetectionMetrics`); this
file moves boxes into the global frame, filters them as `DetectionEval` does with its database, and
writes result files that `DetectionEval` reads.
"""

import contextlib
import io
import json
from pathlib import Path
import tempfile
from typing import NamedTuple

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
    load_prediction_of_sample_tokens,
)
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.constants import TP_METRICS
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionMetrics
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box
from nuscenes.utils.splits import get_scenes_of_split
from pyquaternion import Quaternion

from mta_perception.atomic_files import write_atomically
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.geometry import quaternion_from_rigid, rigid_from_yaw

METADATA = {
    'use_camera': True,
    'use_lidar': False,
    'use_radar': False,
    'use_map': False,
    'use_external': False,
}
_ERRORS = {
    'trans_err': 'mATE',
    'scale_err': 'mASE',
    'orient_err': 'mAOE',
    'vel_err': 'mAVE',
    'attr_err': 'mAAE',
}
# TP errors that the benchmark does not define (a cone has no front).
_UNDEFINED = {
    'traffic_cone': ('attr_err', 'vel_err', 'orient_err'),
    'barrier': ('attr_err', 'vel_err'),
}
_VEHICLES = ('car', 'truck', 'bus', 'trailer', 'construction_vehicle')


class Predictions(NamedTuple):
    """What a detector said about one keyframe."""

    boxes: np.ndarray  # (K, 10) contract.BoxCode, ego frame at the sample's stamp
    labels: np.ndarray  # (K,) int, index into contract.CLASSES
    scores: np.ndarray  # (K,) in 0..1


class EvaluationError(ValueError):
    """Results and ground truth do not belong together; the message says what is wrong."""


def guessed_attribute(class_name, speed):
    """Attribute of a box whose detector predicts none, from its speed [m/s] (BEVFormer's rule)."""
    moving = speed > 0.2
    if class_name in _VEHICLES:
        if class_name == 'bus':
            return 'vehicle.moving' if moving else 'vehicle.stopped'
        return 'vehicle.moving' if moving else 'vehicle.parked'
    if class_name in ('bicycle', 'motorcycle'):
        return 'cycle.with_rider' if moving else 'cycle.without_rider'
    if class_name == 'pedestrian':
        return 'pedestrian.moving' if moving else 'pedestrian.standing'
    return ''


def result_rows(sample, predictions):
    """Predictions about a sample as rows of the official result file, in the global frame.

    Boxes beyond the range of their class are left out, and all but the 500 best.  Raises
    EvaluationError for boxes that are none: not finite, or with a side of zero or less.
    """
    config = config_factory('detection_cvpr_2019')
    world_from_ego, rows = sample.world_from_ego, []
    _check_boxes(sample, np.asarray(predictions.boxes, dtype=np.float64))
    for index in np.argsort(-np.asarray(predictions.scores), kind='stable'):
        box = np.asarray(predictions.boxes[index], dtype=np.float64)
        class_name = CLASSES[int(predictions.labels[index])]
        if np.hypot(box[0], box[1]) > config.class_range[class_name]:
            continue
        yaw = np.arctan2(box[6], box[7])
        world_from_box = world_from_ego @ rigid_from_yaw(yaw, box[BoxCode.CENTER])
        x, y, z, w = quaternion_from_rigid(world_from_box).tolist()
        velocity = world_from_ego[:3, :3] @ [*np.nan_to_num(box[BoxCode.VELOCITY]), 0.0]
        length, width, height = box[BoxCode.SIZE].tolist()
        rows.append(
            {
                'sample_token': sample.token,
                'translation': world_from_box[:3, 3].tolist(),
                'size': [width, length, height],
                'rotation': [w, x, y, z],
                'velocity': velocity[:2].tolist(),
                'detection_name': class_name,
                'detection_score': float(predictions.scores[index]),
                'attribute_name': guessed_attribute(class_name, float(np.hypot(*velocity[:2]))),
            }
        )
    return rows[: config.max_boxes_per_sample]


def _check_boxes(sample, boxes):
    bad = ~np.isfinite(boxes[:, :8]).all(axis=1) | ~(boxes[:, BoxCode.SIZE] > 0).all(axis=1)
    if bad.any():
        raise EvaluationError(
            f'sample {sample.token}: {bad.sum()} of {len(bad)} predicted boxes '
            f'are none, e.g. {boxes[bad][0].round(3).tolist()}; expected finite '
            'numbers and positive sizes.'
        )


def results_json(samples, predictions):
    """The dict of an official result file: every sample is in it, also one without boxes.

    predictions: token -> Predictions.  Raises EvaluationError for tokens of other samples.
    """
    tokens = {sample.token for sample in samples}
    foreign = sorted(set(predictions) - tokens)
    if foreign:
        raise EvaluationError(
            f'{len(foreign)} predictions are about samples that are not judged, '
            f'the first is {foreign[0]}; expected some of {len(tokens)} tokens.'
        )
    empty = Predictions(np.zeros((0, BoxCode.WIDTH)), np.zeros(0, int), np.zeros(0))
    return {
        'meta': dict(METADATA),
        'results': {
            sample.token: result_rows(sample, predictions.get(sample.token, empty))
            for sample in samples
        },
    }


def write_results(path, samples, predictions):
    """Write the official result file; it appears whole or not at all."""
    write_atomically(path, json.dumps(results_json(samples, predictions)))


def ground_truth_boxes(sample):
    """The official ground-truth DetectionBoxes of a bag's sample, before any filter."""
    boxes = []
    for entry in sample.annotated:
        if entry['class_name'] not in CLASSES:
            continue
        velocity = [np.nan if value is None else value for value in entry['global']['velocity']]
        boxes.append(
            DetectionBox(
                sample_token=sample.token,
                translation=entry['global']['translation'],
                size=entry['global']['size'],
                rotation=entry['global']['rotation'],
                velocity=tuple(velocity),
                num_pts=entry['num_lidar_pts'] + entry['num_radar_pts'],
                detection_name=entry['class_name'],
                attribute_name=entry['attribute'],
            )
        )
    return boxes


def evaluate_detections(samples, predictions):
    """Metrics of predictions against the ground truth of bags.

    samples      iterable of mta_perception.bags.scene_bag.Sample
    predictions  sample token -> Predictions; a sample that is not there counts as without boxes
    Returns a dict as `summary` describes.  Raises EvaluationError.
    """
    return detections_and_curves(samples, predictions)[0]


def detections_and_curves(samples, predictions):
    """`evaluate_detections`' dict, and the curves of the matching at 2 m as class ->
    {'recall', 'precision'}, 101 numbers each; None without ground truth."""
    samples = list(samples)
    if not samples:
        raise EvaluationError('there are no samples to judge on; expected at least one keyframe.')
    config = config_factory('detection_cvpr_2019')
    rows = results_json(samples, predictions)['results']
    truth, found = EvalBoxes(), EvalBoxes()
    for sample in samples:
        truth.add_boxes(sample.token, kept_boxes(sample, ground_truth_boxes(sample), config))
        found.add_boxes(
            sample.token,
            kept_boxes(
                sample, [DetectionBox.deserialize(row) for row in rows[sample.token]], config
            ),
        )
    counts = {name: sum(box.detection_name == name for box in truth.all) for name in CLASSES}
    metrics, curves = DetectionMetrics(config), dict.fromkeys(CLASSES)
    for class_name in config.class_names:
        for threshold in config.dist_ths:
            data = accumulate(truth, found, class_name, config.dist_fcn_callable, threshold)
            metrics.add_label_ap(
                class_name, threshold, calc_ap(data, config.min_recall, config.min_precision)
            )
            if threshold == config.dist_th_tp:
                if counts[class_name]:
                    curves[class_name] = {
                        'recall': np.round(data.recall, 4).tolist(),
                        'precision': np.round(data.precision, 4).tolist(),
                    }
                for error in TP_METRICS:
                    undefined = error in _UNDEFINED.get(class_name, ())
                    metrics.add_label_tp(
                        class_name,
                        error,
                        np.nan if undefined else calc_tp(data, config.min_recall, error),
                    )
    return summary(metrics.serialize(), counts), curves


def kept_boxes(sample, boxes, config):
    """The boxes that count: in range, with points in them, no cycle inside a bicycle rack."""
    ego = sample.world_from_ego[:3, 3]
    racks = [
        Box(
            entry['global']['translation'],
            entry['global']['size'],
            Quaternion(entry['global']['rotation']),
        )
        for entry in sample.annotated
        if entry['category'] == 'static_object.bicycle_rack'
    ]
    kept = []
    for box in boxes:
        box.ego_translation = tuple(np.asarray(box.translation) - ego)
        racked = box.detection_name in ('bicycle', 'motorcycle') and any(
            points_in_box(rack, np.array(box.translation)[:, None]).any() for rack in racks
        )
        if (
            box.ego_dist < config.class_range[box.detection_name]
            and box.num_pts != 0
            and not racked
        ):
            kept.append(box)
    return kept


def summary(metrics, counts):
    """The devkit's serialised metrics in short; counts: class -> ground-truth boxes.

    Returns the numbers mAP, NDS, mATE [m], mASE, mAOE [rad], mAVE [m/s], mAAE and `mAP_present`,
    the mean over the classes that occur (the official mAP counts one without ground truth as 0),
    and `classes`: class -> AP, its errors (None where the benchmark has none), `ground_truth`.
    """
    classes = {}
    for name in CLASSES:
        errors = {
            short[1:]: float(metrics['label_tp_errors'][name][key])
            for key, short in _ERRORS.items()
        }
        classes[name] = {
            'AP': float(metrics['mean_dist_aps'][name]),
            **{key: None if np.isnan(value) else value for key, value in errors.items()},
            'ground_truth': int(counts[name]),
        }
    present = [entry['AP'] for entry in classes.values() if entry['ground_truth']]
    return {
        'mAP': float(metrics['mean_ap']),
        'NDS': float(metrics['nd_score']),
        **{name: float(metrics['tp_errors'][key]) for key, name in _ERRORS.items()},
        'mAP_present': float(np.mean(present)) if present else 0.0,
        'classes': classes,
    }


def evaluate_dataset(dataroot, version, results, split, out=None):
    """The official `DetectionEval` of a result file on a split of a dataset; `summary`'s dict.

    out: directory for the devkit's own metrics_summary.json and metrics_details.json, None = none.
    Where file and split have not the same samples, those in both are judged, and the dict has
    `samples`: how many were judged, the tokens that are `missing` and those that are `foreign`.
    Raises EvaluationError where file, dataset or split do not fit together.
    """
    results = Path(results)
    try:
        content = json.loads(results.read_text(encoding='utf-8'))
        tokens = set(content['results'])
    except FileNotFoundError:
        raise EvaluationError(
            f'{results} does not exist; expected a nuScenes result file.'
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f'{results} is no nuScenes result file ({error}); expected JSON '
            'with "meta" and "results".'
        ) from error
    nusc = _load(dataroot, version)
    expected = _split_tokens(nusc, split)
    common = tokens & expected
    if not common:
        raise EvaluationError(
            f'{results} has {len(tokens)} samples, 0 of the {len(expected)} of split {split}. '
            'Give the --split it was made for.'
        )
    # The devkit prints progress bars that nobody asked for.
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            arguments = (
                nusc,
                config_factory('detection_cvpr_2019'),
                str(results),
                split,
                scratch,
            )
            evaluation = (
                DetectionEval(*arguments, verbose=False)
                if tokens == expected
                else _CommonEval(*arguments, sorted(common))
            )
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise EvaluationError(
                f'{results}: the official evaluation refuses it: {error!r}'
            ) from error
        metrics = evaluation.main(plot_examples=0, render_curves=False)
        if out is not None:
            for written in sorted(Path(scratch).glob('*.json')):
                write_atomically(Path(out) / written.name, written.read_bytes())
    counts = {
        name: sum(box.detection_name == name for box in evaluation.gt_boxes.all)
        for name in CLASSES
    }
    if tokens == expected:
        return summary(metrics, counts)
    return {
        **summary(metrics, counts),
        'samples': {
            'judged': len(common),
            'missing': sorted(expected - tokens),
            'foreign': sorted(tokens - expected),
        },
    }


class _CommonEval(DetectionEval):
    """The devkit's evaluation of some samples: its own begins with all of a split, or refuses."""

    def __init__(self, nusc, config, results, split, out, tokens):
        self.nusc, self.cfg, self.eval_set = nusc, config, split
        self.result_path, self.output_dir, self.verbose = results, out, False
        self.plot_dir = str(Path(out) / 'plots')
        Path(self.plot_dir).mkdir(parents=True, exist_ok=True)
        predictions, self.meta = load_prediction_of_sample_tokens(
            results, config.max_boxes_per_sample, DetectionBox, sample_tokens=tokens
        )
        self.pred_boxes, self.gt_boxes = (
            filter_eval_boxes(nusc, add_center_dist(nusc, boxes), config.class_range)
            for boxes in (predictions, load_gt_of_sample_tokens(nusc, tokens, DetectionBox))
        )
        self.sample_tokens = self.gt_boxes.sample_tokens


def _load(dataroot, version):
    try:
        return NuScenes(version, str(dataroot), verbose=False)
    except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
        raise EvaluationError(
            f'{dataroot}/{version}: the official devkit cannot load it '
            f'({error!r}). Unpack metadata and map masks again.'
        ) from error


def _split_tokens(nusc, split):
    try:
        scenes = set(get_scenes_of_split(split, nusc))
    except ValueError as error:
        raise EvaluationError(f'split {split!r}: {error}') from error
    tokens = {
        sample['token']
        for sample in nusc.sample
        if nusc.get('scene', sample['scene_token'])['name'] in scenes
    }
    if not tokens:
        raise EvaluationError(f'no scene of split {split!r} is in {nusc.dataroot}/{nusc.version}.')
    return tokens

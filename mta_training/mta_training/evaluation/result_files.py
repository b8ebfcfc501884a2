"""Official nuScenes result files with a `caption` beside a box: written, and read back.

The devkit's own evaluation ignores the extra field, so the file can be handed in as it is.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pyquaternion import Quaternion

from mta_perception.bags.scene_bag import Sample, SceneBag
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.foreign_text import shown
from mta_perception.geometry import invert_rigid, rigid_from_yaw, transform_boxes
from mta_training.evaluation.caption_matching import DescribedObjects, in_range
from mta_training.evaluation.nuscenes_metrics import (
    METADATA,
    EvaluationError,
    Predictions,
    result_rows,
)

_LABELS = {name: label for label, name in enumerate(CLASSES)}


class JudgedFrame(NamedTuple):
    """One keyframe and what a model said about it."""

    sample: Sample  # with the ground truth
    description: str  # of the scene: weather and light stand there
    predictions: Predictions  # for the detection metric, down to low scores
    described: object  # DescribedObjects: those published, with captions, some of the
    #                           predictions; None = a model (or a file) that has no captions


class ResultFrames(NamedTuple):
    """What a result file and the bags have in common, and what only one of them has."""

    frames: list  # JudgedFrame, of the samples that are in both
    missing: list  # tokens of key frames of the bags that the file does not have
    foreign: list  # tokens of the file that no key frame of the bags has


def captioned_results(frames):
    """The dict of a result file of JudgedFrames; described boxes have a `caption`."""
    return {
        'meta': dict(METADATA),
        'results': {frame.sample.token: _rows(frame) for frame in frames},
    }


def _rows(frame):
    """Rows of one frame: the described boxes and the predictions that are none of them."""
    objects, described = frame.predictions, frame.described
    captions = [''] * len(objects.labels)
    if described is not None:
        told = {_key(described, index) for index in range(len(described.labels))}
        rest = [index for index in range(len(objects.labels)) if _key(objects, index) not in told]
        captions = [*described.captions, *[''] * len(rest)]
        objects = Predictions(
            *(
                np.concatenate([np.asarray(mine), np.asarray(column)[rest]])
                for mine, column in zip(described[:3], objects)
            )
        )
    # What `result_rows` would leave out goes first: then its rows are these, best score first.
    near = np.flatnonzero(in_range(objects))
    order = near[np.argsort(-np.asarray(objects.scores)[near], kind='stable')]
    rows = result_rows(
        frame.sample, Predictions(*(np.asarray(column)[order] for column in objects))
    )
    return [
        {**row, 'caption': captions[index]} if captions[index] else row
        for row, index in zip(rows, order)
    ]


def _key(objects, index):
    """What tells a box of a frame from the others: both lists come from one decoding."""
    return (
        int(objects.labels[index]),
        np.asarray(objects.boxes[index], dtype=np.float32).tobytes(),
    )


def read_results(path, bags, frames):
    """ResultFrames of a result file for the first `frames` keyframes of each bag.

    The global boxes go back into the ego frame of their sample.  `described` holds the boxes that
    have a caption; it is None in every frame where the file has no caption at all.  Samples that
    only the file or only the bags have are named, not judged.  Raises EvaluationError where it is
    no such file or nothing is in both.
    """
    path = Path(path)
    results = _content(path)
    scenes = [SceneBag(bag) for bag in bags]
    wanted = [(sample, scene.description) for scene in scenes for sample in scene.samples[:frames]]
    judged = [pair for pair in wanted if pair[0].token in results]
    if not judged:
        raise EvaluationError(
            f'{path} has {len(results)} samples, 0 of the {len(wanted)} keyframes of the bags. '
            'Give the bags it was made for.'
        )
    captioned = any(row.get('caption') for sample, _ in judged for row in results[sample.token])
    known = {sample.token for scene in scenes for sample in scene.samples}
    return ResultFrames(
        [
            _frame(path, sample, description, results[sample.token], captioned)
            for sample, description in judged
        ],
        [sample.token for sample, _ in wanted if sample.token not in results],
        [token for token in results if token not in known],
    )


def _content(path):
    try:
        results = json.loads(path.read_text(encoding='utf-8'))['results']
        fits = all(isinstance(row, dict) for rows in results.values() for row in rows)
    except FileNotFoundError:
        raise EvaluationError(f'{path} does not exist; expected a nuScenes result file.') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f'{path} is no nuScenes result file ({error!r}); expected JSON '
            'with "meta" and "results".'
        ) from error
    if not fits:
        raise EvaluationError(
            f'{path} is no nuScenes result file: "results" must map each '
            'sample token to a list of boxes.'
        )
    return results


def _frame(path, sample, description, rows, captioned):
    try:
        boxes = np.array([_global_box(row) for row in rows]).reshape(-1, BoxCode.WIDTH)
        labels = np.array([_LABELS[row['detection_name']] for row in rows], dtype=np.int64)
        scores = np.array([float(row['detection_score']) for row in rows])
    except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
        raise EvaluationError(
            f'{path}: a box of sample {sample.token} is not as the official '
            f'format has it: {shown(error)}. Expected translation, size, rotation, '
            'velocity, detection_name of the ten classes, detection_score.'
        ) from error
    boxes = transform_boxes(invert_rigid(sample.world_from_ego), boxes)
    # Roll and pitch of the car leave a heading a hair shorter than 1.
    boxes[:, BoxCode.HEADING] /= np.maximum(np.hypot(boxes[:, 6], boxes[:, 7]), 1e-9)[:, None]
    described = None
    if captioned:
        told = [index for index, row in enumerate(rows) if row.get('caption')]
        described = DescribedObjects(
            boxes[told],
            labels[told],
            scores[told],
            [str(rows[index]['caption']) for index in told],
        )
    return JudgedFrame(sample, description, Predictions(boxes, labels, scores), described)


def _global_box(row):
    """(10,) BoxCode in the global frame of one row."""
    width, length, height = map(float, row['size'])
    yaw = Quaternion(row['rotation']).yaw_pitch_roll[0]
    turned = rigid_from_yaw(yaw)
    vx, vy = (float('nan') if value is None else float(value) for value in row['velocity'])
    return [
        *map(float, row['translation']),
        length,
        width,
        height,
        turned[1, 0],
        turned[0, 0],
        vx,
        vy,
    ]

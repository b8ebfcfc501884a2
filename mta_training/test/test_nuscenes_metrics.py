"""Our way without a database against the official DetectionEval with one: the same numbers."""

import json

import numpy as np
import pytest
from tiny_dataset import VERSION

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CLASSES
from mta_training.evaluation.nuscenes_metrics import (
    EvaluationError,
    Predictions,
    evaluate_dataset,
    evaluate_detections,
    ground_truth_boxes,
    guessed_attribute,
    result_rows,
    results_json,
    write_results,
)

NUMBERS = ('mAP', 'NDS', 'mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE', 'mAP_present')


@pytest.fixture(scope='module')
def samples(bags):
    return [sample for bag in bags for sample in SceneBag(bag).samples]


def truth_as_predictions(samples):
    """Ground truth that counts; a prediction where no sensor has a point is a false alarm."""
    result = {}
    for sample in samples:
        seen = sample.num_lidar_pts + sample.num_radar_pts > 0
        result[sample.token] = Predictions(
            sample.boxes[seen], sample.labels[seen], np.linspace(0.9, 0.5, seen.sum())
        )
    return result


def disturbed(samples, seed=0):
    """Ground truth moved, turned, resized, partly lost, with false alarms among it."""
    rng, result = np.random.default_rng(seed), {}
    for sample in samples:
        kept = rng.random(len(sample.labels)) > 0.15
        boxes, labels = sample.boxes[kept].copy(), sample.labels[kept]
        boxes[:, :2] += rng.normal(0, 0.7, (len(boxes), 2))
        boxes[:, 3:6] *= rng.uniform(0.8, 1.2, (len(boxes), 3))
        yaw = np.arctan2(boxes[:, 6], boxes[:, 7]) + rng.normal(0, 0.3, len(boxes))
        boxes[:, 6], boxes[:, 7] = np.sin(yaw), np.cos(yaw)
        boxes[:, 8:] = np.nan_to_num(boxes[:, 8:]) + rng.normal(0, 0.5, (len(boxes), 2))
        alarms = rng.uniform(-55, 55, (6, 10))
        alarms[:, 3:6] = rng.uniform(0.5, 5, (6, 3))
        result[sample.token] = Predictions(
            np.vstack([boxes, alarms]),
            np.concatenate([labels, rng.integers(0, len(CLASSES), 6)]),
            rng.random(len(boxes) + 6).astype(np.float32),
        )
    return result


def assert_same(ours, official):
    for name in NUMBERS:
        assert ours[name] == pytest.approx(official[name], abs=1e-9), name
    assert ours['classes'] == official['classes']


@pytest.mark.parametrize('seed', [0, 1])
def test_both_ways_give_the_same_numbers(dataset, samples, tmp_path, seed):
    predictions = disturbed(samples, seed)
    ours = evaluate_detections(samples, predictions)
    write_results(tmp_path / 'results.json', samples, predictions)
    official = evaluate_dataset(dataset, VERSION, tmp_path / 'results.json', 'tiny_all')
    assert_same(ours, official)
    assert 0.05 < ours['mAP'] < 0.95  # neither trivially good nor bad


def test_ground_truth_fed_as_results_is_perfect(dataset, samples, tmp_path):
    predictions = truth_as_predictions(samples)
    ours = evaluate_detections(samples, predictions)
    write_results(tmp_path / 'results.json', samples, predictions)
    official = evaluate_dataset(
        dataset, VERSION, tmp_path / 'results.json', 'tiny_all', tmp_path / 'official'
    )
    assert_same(ours, official)
    assert official['mAP'] > 0.99 and ours['mAP_present'] > 0.99
    assert official['mATE'] < 1e-6 and official['mASE'] < 1e-6
    # Roll and pitch are lost in a box code, and with them a little of the heading and the speed.
    assert official['mAOE'] < 1e-3 and official['mAVE'] < 2e-3
    assert (tmp_path / 'official' / 'metrics_summary.json').is_file()


def test_a_smaller_split_is_judged_alone(dataset, samples, tmp_path):
    predictions = disturbed(samples)
    write_results(tmp_path / 'results.json', samples, predictions)
    half = [sample for sample in samples if sample.token.startswith('scene-0002')]
    official = evaluate_dataset(dataset, VERSION, tmp_path / 'results.json', 'tiny_val')
    ours = evaluate_detections(half, {sample.token: predictions[sample.token] for sample in half})
    assert_same(ours, official)


def test_filters_are_those_of_the_benchmark(samples):
    counts = {
        name: entry['ground_truth']
        for name, entry in evaluate_detections(samples, {})['classes'].items()
    }
    n = len(samples)
    assert counts['truck'] == n  # the other one has no points in it
    assert counts['bicycle'] == n  # the other one stands in a rack
    assert counts['barrier'] == 2  # annotated once a scene
    total = sum(len(sample.labels) for sample in samples)
    assert sum(counts.values()) < total


def test_without_predictions_everything_is_zero(samples):
    metrics = evaluate_detections(samples, {})
    assert metrics['mAP'] == 0.0 and metrics['NDS'] == 0.0 and metrics['mAP_present'] == 0.0
    assert metrics['classes']['traffic_cone']['AOE'] is None
    assert json.loads(json.dumps(metrics)) == metrics


def test_wrong_class_counts_for_nothing(samples):
    right = truth_as_predictions(samples)
    wrong = {
        token: entry._replace(labels=(entry.labels + 1) % len(CLASSES))
        for token, entry in right.items()
    }
    assert evaluate_detections(samples, wrong)['mAP'] < 0.05


def test_rows_are_global_in_nuscenes_order(samples):
    sample = samples[1]
    official = ground_truth_boxes(sample)
    for row, box in enumerate(sample.boxes):
        speed = np.nan_to_num(box[8:10])
        rows = result_rows(sample, Predictions(box[None], sample.labels[row : row + 1], [0.5]))
        if not rows:
            assert np.hypot(box[0], box[1]) > 30
            continue
        want = official[row]
        np.testing.assert_allclose(rows[0]['translation'], want.translation, atol=1e-6)
        np.testing.assert_allclose(rows[0]['size'], want.size, atol=1e-9)
        turn = abs(float(np.dot(rows[0]['rotation'], want.rotation)))
        assert turn > 0.9999  # but for roll and pitch
        if not np.isnan(want.velocity).any():
            np.testing.assert_allclose(rows[0]['velocity'], want.velocity, atol=2e-3)
        assert rows[0]['attribute_name'] == guessed_attribute(
            want.detection_name, np.hypot(*speed)
        )
        assert type(rows[0]['detection_score']) is float


def test_far_boxes_and_all_but_500_are_left_out(samples):
    boxes = np.zeros((600, 10))
    boxes[:, 0] = np.linspace(1, 29, 600)
    boxes[:, 3:6] = 1.0
    boxes[:, 7] = 1.0
    boxes[0, 0] = 30.5
    cones = np.full(600, CLASSES.index('traffic_cone'))
    rows = result_rows(samples[0], Predictions(boxes, cones, np.linspace(1, 0, 600)))
    assert len(rows) == 500
    scores = [row['detection_score'] for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[0] < 1.0


@pytest.mark.parametrize(
    ('class_name', 'speed', 'want'),
    [
        ('car', 0.1, 'vehicle.parked'),
        ('car', 0.3, 'vehicle.moving'),
        ('bus', 0.1, 'vehicle.stopped'),
        ('bus', 5.0, 'vehicle.moving'),
        ('trailer', 0.0, 'vehicle.parked'),
        ('construction_vehicle', 1.0, 'vehicle.moving'),
        ('truck', 0.2, 'vehicle.parked'),
        ('pedestrian', 0.1, 'pedestrian.standing'),
        ('pedestrian', 1.0, 'pedestrian.moving'),
        ('bicycle', 0.1, 'cycle.without_rider'),
        ('motorcycle', 3.0, 'cycle.with_rider'),
        ('barrier', 3.0, ''),
        ('traffic_cone', 0.0, ''),
    ],
)
def test_attribute_follows_the_speed(class_name, speed, want):
    assert guessed_attribute(class_name, speed) == want


def test_predictions_about_other_samples_are_refused(samples):
    predictions = truth_as_predictions(samples)
    with pytest.raises(EvaluationError, match='samples that are not judged'):
        evaluate_detections(samples[:2], predictions)
    with pytest.raises(EvaluationError, match='no samples'):
        evaluate_detections([], {})


@pytest.mark.parametrize(('column', 'value'), [(0, np.nan), (7, np.inf), (3, 0.0), (5, -1.0)])
def test_boxes_that_are_none_are_refused(samples, column, value):
    boxes = samples[0].boxes[:3].copy()
    boxes[1, column] = value
    predictions = Predictions(boxes, samples[0].labels[:3], np.ones(3))
    with pytest.raises(EvaluationError, match='1 of 3 predicted boxes'):
        result_rows(samples[0], predictions)


def test_every_sample_is_a_key_of_the_result_file(samples):
    content = results_json(samples, {})
    assert set(content['results']) == {sample.token for sample in samples}
    assert content['meta'] == {
        'use_camera': True,
        'use_lidar': False,
        'use_radar': False,
        'use_map': False,
        'use_external': False,
    }


def test_files_and_splits_that_do_not_fit_are_named(dataset, samples, tmp_path):
    path = tmp_path / 'results.json'
    with pytest.raises(EvaluationError, match='does not exist'):
        evaluate_dataset(dataset, VERSION, path, 'tiny_all')
    path.write_text('{"results": ')
    with pytest.raises(EvaluationError, match='no nuScenes result file'):
        evaluate_dataset(dataset, VERSION, path, 'tiny_all')
    path.write_text('{"meta": {}, "results": {"another": []}}')
    with pytest.raises(EvaluationError, match='0 of the 8'):
        evaluate_dataset(dataset, VERSION, path, 'tiny_all')
    with pytest.raises(EvaluationError, match="split 'tiny_test'"):
        evaluate_dataset(dataset, VERSION, path, 'tiny_test')
    with pytest.raises(EvaluationError, match="no scene of split 'mini_val'"):
        evaluate_dataset(dataset, VERSION, path, 'mini_val')
    rows = results_json(samples, truth_as_predictions(samples))
    next(iter(rows['results'].values()))[0]['detection_name'] = 'zebra'
    path.write_text(json.dumps(rows))
    with pytest.raises(EvaluationError, match='zebra'):
        evaluate_dataset(dataset, VERSION, path, 'tiny_all')


@pytest.mark.parametrize(('first', 'last', 'foreign'), [(0, 3, 0), (5, 8, 2), (0, 8, 1)])
def test_what_a_file_and_a_split_have_in_common_is_judged_and_the_rest_named(
    dataset, samples, tmp_path, first, last, foreign
):
    path, common = tmp_path / 'results.json', samples[first:last]
    predictions = disturbed(samples)
    content = results_json(common, {sample.token: predictions[sample.token] for sample in common})
    content['results'].update({f'another-{number}': [] for number in range(foreign)})
    path.write_text(json.dumps(content))
    official = evaluate_dataset(dataset, VERSION, path, 'tiny_all')
    ours = evaluate_detections(common, {s.token: predictions[s.token] for s in common})
    assert_same(ours, official)
    others = samples[:first] + samples[last:]
    assert official['samples'] == {
        'judged': len(common),
        'missing': sorted(sample.token for sample in others),
        'foreign': [f'another-{number}' for number in range(foreign)],
    }

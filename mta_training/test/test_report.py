"""The report of an evaluation on the hand-made dataset: numbers, files, and files read back."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('pycocoevalcap')

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CLASSES
from mta_training.evaluation import caption_scores, report
from mta_training.evaluation.caption_matching import DescribedObjects
from mta_training.evaluation.nuscenes_metrics import (
    EvaluationError,
    Predictions,
    evaluate_dataset,
    evaluate_detections,
)
from mta_training.evaluation.report import JudgedFrame, described_truth, judge, write_report
from mta_training.evaluation.result_files import captioned_results, read_results

CAR = CLASSES.index('car')


@pytest.fixture
def no_java(monkeypatch):
    """METEOR's process takes ten seconds."""
    monkeypatch.setenv('PATH', '/nowhere')
    caption_scores.java_runs.cache_clear()
    yield
    caption_scores.java_runs.cache_clear()


@pytest.fixture(scope='module')
def frames(bags):
    """Ground truth as a model would say it: seen objects alone, scores all different."""
    result = []
    for bag in bags:
        scene = SceneBag(bag)
        for sample in scene.samples:
            truth = described_truth(sample)
            scores = np.linspace(0.9, 0.5, len(truth.labels))
            result.append(
                JudgedFrame(
                    sample,
                    scene.description,
                    Predictions(truth.boxes, truth.labels, scores),
                    truth._replace(scores=scores),
                )
            )
    return result


@pytest.fixture(scope='module')
def judged(frames):
    return judge(frames)


def test_ground_truth_is_the_maximum_everywhere(frames, judged):
    detection = judged['detection']
    assert detection == evaluate_detections(
        [frame.sample for frame in frames],
        {frame.sample.token: frame.predictions for frame in frames},
    )
    assert detection['mAP'] > 0.99
    assert judged['groups'] == {
        name: pytest.approx(1.0, abs=0.01) for name in ('rare', 'common', 'frequent')
    }
    for scores in judged['captions']['strict'].values():
        assert scores['found'] == 1.0 and scores['objects'] > 60
        assert scores['BLEU_4'] == pytest.approx(1.0, abs=1e-6)
        assert scores['ROUGE_L'] == pytest.approx(1.0)
        assert scores['METEOR'] in (None, pytest.approx(1.0))
        assert scores['CIDEr'] == pytest.approx(10.0, abs=1e-6)
    counts = np.array(judged['confusion']['counts'])
    assert counts.sum() == np.trace(counts) > 60
    assert judged['hallucination']['wrong_class'] in (0.0, None)
    for ring in judged['distances']:
        assert ring['recall'] == ring['precision'] and ring['recall'] in (1.0, None)
        assert ring['objects'] == ring['boxes']
    assert judged['distances'][-1]['objects'] == sum(
        ring['objects'] for ring in judged['distances'][:-1]
    )
    assert json.loads(json.dumps(judged, allow_nan=False)) == judged


def test_subsets_follow_the_description(frames, judged, no_java):
    subsets = judged['subsets']  # every scene of the dataset is a dry night
    assert (subsets['night']['frames'], subsets['sunny']['frames']) == (8, 8)
    assert subsets['night']['mAP'] == judged['detection']['mAP']
    assert subsets['rainy'] == {'frames': 0, 'mAP': None, 'NDS': None, 'mAP_present': None}
    half = [
        frame if index < 4 else frame._replace(description='Rain')
        for index, frame in enumerate(frames)
    ]
    result = judge(half, protocols=('strict',))
    assert result['subsets']['rainy']['frames'] == result['subsets']['night']['frames'] == 4
    assert set(result['captions']) == {'strict'}


def test_wrong_captions_score_less_and_hallucinate(frames, judged, no_java):
    wrong = 'blue bus about 3 meters away in the right of the ego car is parked'
    said = [
        frame._replace(
            described=frame.described._replace(captions=[wrong] * len(frame.described.labels))
        )
        for frame in frames
    ]
    result = judge(said)
    right = judged['captions']['strict']['centre_2m']
    got = result['captions']['strict']['centre_2m']
    assert got['found'] == 1.0 and got['CIDEr'] < right['CIDEr'] / 4
    assert result['hallucination']['any'] > 0.9 and result['hallucination']['unparsable'] == 0.0
    assert result['detection'] == judged['detection']


def test_confusion_names_what_was_said_instead(frames):
    frame = frames[0]
    labels = np.where(
        frame.predictions.labels == CAR, CLASSES.index('bus'), frame.predictions.labels
    )[:-1]
    predictions = Predictions(frame.predictions.boxes[:-1], labels, frame.predictions.scores[:-1])
    counts = np.array(
        report.confusion(
            [frame._replace(predictions=predictions)], [described_truth(frame.sample)]
        )['counts']
    )
    assert counts[CAR, CLASSES.index('bus')] == 2 and counts[CAR, CAR] == 0
    assert counts[:, -1].sum() == 1  # the one that was left out
    assert counts[-1].sum() == 0


@pytest.mark.parametrize(
    ('described', 'words'),
    [
        (None, 'the predictions have no captions'),
        (
            DescribedObjects(
                np.array([[5.0, 0, 0, 4, 2, 2, 0, 1, 0, 0]]), np.zeros(1, int), np.ones(1), ['']
            ),
            'all captions of the predictions are empty',
        ),
    ],
)
def test_without_captions_detection_alone_is_judged(frames, tmp_path, described, words):
    silent = [frame._replace(described=described) for frame in frames]
    result = judge(silent)
    assert result['captions'] is None and result['hallucination'] is None
    assert result['captions_absent'] == words
    write_report(result, silent, tmp_path)
    assert f'Caption metrics are absent: {words}.' in (tmp_path / 'report.md').read_text()
    assert not (tmp_path / 'captions.png').exists()
    mute = [
        frame._replace(sample=frame.sample._replace(captions=[''] * len(frame.sample.labels)))
        for frame in frames
    ]
    assert judge(mute)['captions_absent'] == 'the ground truth has no captions'


def test_a_model_that_finds_nothing_scores_zero(frames, no_java):
    nothing = Predictions(np.zeros((0, 10)), np.zeros(0, int), np.zeros(0))
    result = judge(
        [
            frame._replace(predictions=nothing, described=DescribedObjects(*nothing, []))
            for frame in frames
        ]
    )
    assert result['captions']['strict']['iou_0.5']['CIDEr'] == 0.0
    assert result['captions']['tod3cap']['0.25']['predictions'] == 0
    assert result['hallucination']['objects'] == 0
    assert set(result['curves']['car']['precision']) == {0.0}


def test_report_has_all_its_files(frames, judged, tmp_path):
    out = tmp_path / 'new' / 'report'
    written = write_report(judged, frames, out)
    assert sorted(path.name for path in written) == sorted(path.name for path in out.iterdir())
    assert json.loads((out / 'metrics.json').read_text()) == judged
    text = (out / 'report.md').read_text()
    for words in (
        '| tod3cap | 0.5 |',
        '| strict | iou_0.25 |',
        '| rare |',
        '| rainy | 0 | - |',
        'names another class',
        '![pr_curves.png](pr_curves.png)',
        'centre_2m',
    ):
        assert words in text
    for name in ('pr_curves.png', 'confusion.png', 'classes.png', 'captions.png'):
        picture = cv2.imread(str(out / name))
        assert picture.shape[0] > 300 and picture.std() > 5


def test_meteor_without_java_is_said_to_be_absent(frames, tmp_path, no_java):
    result = judge(frames[:2])
    assert result['captions']['tod3cap']['0.5']['METEOR'] is None
    write_report(result, frames[:2], tmp_path)
    assert 'absent (no Java)' in (tmp_path / 'report.md').read_text()


def test_result_file_is_official_and_comes_back(dataset, frames, judged, bags, tmp_path, no_java):
    write_report(judged, frames, tmp_path)
    path = tmp_path / 'results.json'
    official = evaluate_dataset(dataset, 'v1.0-mini', path, 'tiny_all')
    assert official['mAP'] == pytest.approx(judged['detection']['mAP'], abs=1e-9)
    back, missing, foreign = read_results(path, bags, 100)
    assert missing == foreign == []
    assert [frame.sample.token for frame in back] == [frame.sample.token for frame in frames]
    for frame, want in zip(back, frames):
        # Objects beyond the range of their class are not in the file.
        rows = [
            index
            for index, box in enumerate(want.described.boxes)
            if any(np.allclose(box[:3], other[:3], atol=1e-6) for other in frame.predictions.boxes)
        ]
        assert len(rows) == len(frame.predictions.labels) >= 9
        # A box code is upright on the car, a row upright on the car too: roll and pitch stay.
        np.testing.assert_allclose(
            frame.predictions.boxes[:, :6], want.described.boxes[rows, :6], atol=1e-6
        )
        np.testing.assert_allclose(
            frame.predictions.boxes[:, 6:8], want.described.boxes[rows, 6:8], atol=1e-3
        )
        told = [row for row in rows if want.described.captions[row]]
        assert frame.described.captions == [want.described.captions[row] for row in told]
        np.testing.assert_array_equal(frame.described.labels, want.described.labels[told])
    again = judge(back)
    assert again['detection']['mAP'] == pytest.approx(judged['detection']['mAP'], abs=1e-6)
    assert again['captions']['strict'] == {
        name: pytest.approx(
            {key: None if 'METEOR' in key else value for key, value in scores.items()}, abs=1e-6
        )
        for name, scores in judged['captions']['strict'].items()
    }


def test_boxes_below_the_published_ones_have_no_caption(frames):
    frame = frames[0]
    few = DescribedObjects(*(column[:3] for column in frame.described))
    rows = captioned_results([frame._replace(described=few)])['results'][frame.sample.token]
    assert len(rows) == len(captioned_results([frame])['results'][frame.sample.token])
    assert sum('caption' in row for row in rows) == 3
    scores = [row['detection_score'] for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_foreign_and_broken_result_files_are_named(frames, bags, tmp_path):
    path = tmp_path / 'results.json'
    with pytest.raises(EvaluationError, match='does not exist'):
        read_results(path, bags, 9)
    for content in ('', '[]', '{"results": {"a": 3}}', '{"results": [1]}'):
        path.write_text(content)
        with pytest.raises(EvaluationError, match='no nuScenes result file'):
            read_results(path, bags, 9)
    results = captioned_results(frames[:3])
    path.write_text(json.dumps(results))
    next(iter(results['results'].values()))[0]['detection_name'] = 'zebra'
    path.write_text(json.dumps(results))
    with pytest.raises(EvaluationError, match='zebra'):
        read_results(path, bags[:1], 3)


@pytest.mark.parametrize('seed', range(6))
def test_samples_of_a_file_and_of_the_bags_that_are_not_in_both_are_named(
    frames, bags, tmp_path, seed
):
    rng = np.random.default_rng(seed)
    kept, foreign = rng.permutation([True, *(rng.random(7) < 0.5)]), rng.integers(4)
    path = tmp_path / 'results.json'
    results = captioned_results([frame for frame, there in zip(frames, kept) if there])
    results['results'].update({f'another-{number}': [] for number in range(foreign)})
    path.write_text(json.dumps(results))
    read = read_results(path, bags, 9)
    tokens = [frame.sample.token for frame in frames]
    assert [frame.sample.token for frame in read.frames] == [
        token for token, there in zip(tokens, kept) if there
    ]
    assert read.missing == [token for token, there in zip(tokens, kept) if not there]
    assert read.foreign == [f'another-{number}' for number in range(foreign)]
    if kept[0]:  # what --frames leaves out is neither missing nor foreign
        first = read_results(path, bags[:1], 1)
        assert len(first.frames) == 1 and not first.missing
        assert set(first.foreign).isdisjoint(tokens[:4])


def test_unknown_protocol_and_no_frames_are_refused(frames):
    with pytest.raises(ValueError, match='scan2cap'):
        judge(frames, protocols=('scan2cap',))
    with pytest.raises(EvaluationError, match='no samples'):
        judge([])

"""Caption metrics: known values, and a matching that cannot be cheated."""

import numpy as np
import pytest

pytest.importorskip('pycocoevalcap')

from mta_training.caption_metrics import (
    DescribedObjects,
    caption_scores,
    evaluate_captions,
    match_captions,
)

CAPTIONS = ['red car about 12 meters away in the front left of the ego car is moving quickly',
            'blue truck about 30 meters away in the back of the ego car is not moving',
            'traffic cone about 5 meters away in the right of the ego car is not moving',
            'white bus about 41 meters away in the front of the ego car is moving slowly']


def described(captions, offset=0.0, labels=(0, 1, 9, 3), scores=None):
    boxes = np.zeros((len(captions), 10))
    boxes[:, 0] = 7.0 * np.arange(len(captions)) + offset
    return DescribedObjects(boxes, np.array(labels[:len(captions)]),
                            np.ones(len(captions)) if scores is None else np.array(scores),
                            list(captions))


def test_perfect_captions_score_the_maximum():
    scores = caption_scores(CAPTIONS, CAPTIONS)
    assert scores['CIDEr'] == pytest.approx(10.0, abs=1e-6)
    assert scores['BLEU_4'] == pytest.approx(1.0, abs=1e-6)
    assert scores['ROUGE_L'] == pytest.approx(1.0)


def test_case_and_punctuation_do_not_count():
    noisy = [caption.capitalize() + '.' for caption in CAPTIONS]
    assert caption_scores(CAPTIONS, noisy)['CIDEr'] == pytest.approx(10.0, abs=1e-6)


def test_missed_objects_cost():
    truth = described(CAPTIONS)
    half = described(CAPTIONS[:2])
    result = evaluate_captions([truth], [half])
    assert result['found'] == 0.5
    assert result['found_BLEU_4'] == pytest.approx(1.0, abs=1e-6)
    assert result['CIDEr'] == pytest.approx(5.0, abs=1e-6)


def test_matching_needs_class_and_place():
    truth = described(CAPTIONS)
    assert all(not said for _, said in match_captions(truth, described(CAPTIONS, offset=2.5)))
    wrong = described(CAPTIONS, labels=(1, 0, 0, 0))
    assert all(not said for _, said in match_captions(truth, wrong))
    near = match_captions(truth, described(CAPTIONS, offset=1.5))
    assert [said for _, said in near] == CAPTIONS


def test_best_score_wins_and_takes_one_object_only():
    truth = described(CAPTIONS[:1])
    twice = DescribedObjects(np.zeros((2, 10)), np.zeros(2, int), np.array([0.3, 0.9]), ['a', 'b'])
    assert match_captions(truth, twice) == [(CAPTIONS[0], 'b')]


def test_unequal_lists_are_refused():
    with pytest.raises(ValueError, match='1 references and 2'):
        caption_scores(['a'], ['a', 'b'])

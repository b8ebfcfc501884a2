"""Caption metrics: pycocoevalcap's numbers, a slow CIDEr-D from the formula, known maxima."""

from collections import Counter
import math
import subprocess

import numpy as np
import pytest

pytest.importorskip('pycocoevalcap')

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mta_training.captions.grammar import COLOURS, MOTIONS, NOUNS, SECTORS, Facts, Thing, compose
from mta_training.evaluation.caption_scores import (
    DescribedObjects,
    caption_scores,
    evaluate_captions,
    evaluate_captions_tod3cap,
    java_runs,
    open_meteor,
    tod3cap_words,
    words,
)

CAPTIONS = [
    'red car about 12 meters away in the front left of the ego car is moving quickly',
    'blue truck about 30 meters away in the back of the ego car is not moving',
    'traffic cone about 5 meters away in the right of the ego car is not moving',
    'white bus about 41 meters away in the front of the ego car is moving slowly',
]


def described(captions, offset=0.0, labels=(0, 1, 9, 3), scores=None):
    boxes = np.zeros((len(captions), 10))
    boxes[:, 0] = 7.0 * np.arange(len(captions)) + offset
    boxes[:, 3:6], boxes[:, 7] = 2.0, 1.0
    return DescribedObjects(
        boxes,
        np.array(labels[: len(captions)]),
        np.ones(len(captions)) if scores is None else np.array(scores),
        list(captions),
    )


def random_captions(count, seed):
    rng = np.random.default_rng(seed)
    return [
        compose(
            Facts(
                Thing(str(rng.choice(list(NOUNS)[:6])), str(rng.choice(COLOURS)), None),
                int(rng.integers(3, 50)),
                str(rng.choice(SECTORS)),
                str(rng.choice(MOTIONS)),
                '',
                None,
            )
        )
        for _ in range(count)
    ]


def slow_cider(references, candidates):
    """CIDEr-D as it is written down, one reference a candidate."""

    def grams(text, n):
        tokens = text.split()
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    total = 0.0
    for reference, candidate in zip(references, candidates):
        for n in range(1, 5):
            r, c = grams(reference, n), grams(candidate, n)
            idf = {
                g: math.log(len(references))
                - math.log(max(1, sum(g in grams(other, n) for other in references)))
                for g in {*r, *c}
            }
            dot = sum(min(c[g], r[g]) * r[g] * idf[g] ** 2 for g in c)
            norm = math.sqrt(
                sum((c[g] * idf[g]) ** 2 for g in c) * sum((r[g] * idf[g]) ** 2 for g in r)
            )
            longer = sum(grams(candidate, 2).values()) - sum(grams(reference, 2).values())
            total += dot / norm * math.exp(-(longer**2) / 72.0) if norm else 0.0
    return 10.0 * total / 4.0 / len(references)


@pytest.mark.parametrize('seed', [0, 1])
def test_scores_are_those_of_pycocoevalcap(seed):
    references, candidates = random_captions(60, seed), random_captions(60, seed + 10)
    candidates[:20] = references[:20]
    ours = caption_scores(references, candidates)
    truth = {i: [text] for i, text in enumerate(references)}
    said = {i: [text] for i, text in enumerate(candidates)}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    for n in range(4):
        assert ours[f'BLEU_{n + 1}'] == pytest.approx(bleu[n], abs=1e-9)
    assert ours['ROUGE_L'] == pytest.approx(Rouge().compute_score(truth, said)[0], abs=1e-9)
    assert ours['CIDEr'] == pytest.approx(Cider().compute_score(truth, said)[0], abs=1e-9)
    assert ours['CIDEr'] == pytest.approx(slow_cider(references, candidates), abs=1e-9)


def test_perfect_captions_score_the_maximum():
    with open_meteor() as meteor:
        scores = caption_scores(CAPTIONS, CAPTIONS, meteor)
    assert scores['CIDEr'] == pytest.approx(10.0, abs=1e-6)
    assert scores['BLEU_4'] == pytest.approx(1.0, abs=1e-6)
    assert scores['ROUGE_L'] == pytest.approx(1.0)
    assert scores['METEOR'] == (None if meteor is None else pytest.approx(1.0))


@pytest.mark.skipif(not java_runs(), reason='METEOR needs Java')
def test_meteor_is_the_jars_and_its_process_ends():
    with open_meteor() as meteor:
        got = caption_scores(CAPTIONS[:2], [CAPTIONS[0], ''], meteor)['METEOR']
        want = meteor.compute_score(
            {0: [CAPTIONS[0]], 1: [CAPTIONS[1]]}, {0: [CAPTIONS[0]], 1: ['']}
        )[0]
        process = meteor.meteor_p
        assert process.poll() is None
    assert got == want and 0.3 < got < 0.7
    assert process.poll() is not None and process.stdout.closed
    assert isinstance(process, subprocess.Popen)


def test_without_java_meteor_is_none(monkeypatch):
    monkeypatch.setenv('PATH', '/nowhere')
    java_runs.cache_clear()
    try:
        with open_meteor() as meteor:
            assert meteor is None
            assert (
                evaluate_captions([described(CAPTIONS)], [described(CAPTIONS)], meteor)['METEOR']
                is None
            )
            tod3cap = evaluate_captions_tod3cap(
                [described(CAPTIONS)], [described(CAPTIONS)], 0.5, meteor
            )
            assert tod3cap['METEOR'] is None
    finally:
        java_runs.cache_clear()


def test_case_and_punctuation_count_under_tod3cap_only():
    noisy = [caption.capitalize() + '.' for caption in CAPTIONS]
    assert caption_scores(CAPTIONS, noisy)['CIDEr'] == pytest.approx(10.0, abs=1e-6)
    assert caption_scores(CAPTIONS, noisy, tokenise=tod3cap_words)['CIDEr'] < 9.0
    assert words('A red car, moving.') == 'a red car moving'
    assert tod3cap_words('A red car , moving .') == 'A red car moving'
    assert tod3cap_words('A red car, moving.') == 'A red car, moving.'


@pytest.mark.parametrize('iou', [None, 0.25, 0.5])
def test_ground_truth_is_the_maximum_and_missed_objects_cost(iou):
    truth = described(CAPTIONS)
    whole = evaluate_captions([truth], [truth], iou=iou)
    assert whole['found'] == 1.0 and whole['objects'] == 4
    assert whole['CIDEr'] == pytest.approx(10.0, abs=1e-6)
    for name in ('BLEU_1', 'BLEU_4', 'BLEU_4_corpus', 'ROUGE_L'):
        assert whole[name] == pytest.approx(1.0, abs=1e-6)
    half = evaluate_captions([truth], [described(CAPTIONS[:2])], iou=iou)
    assert half['found'] == 0.5
    for name in ('BLEU_1', 'BLEU_4', 'ROUGE_L', 'CIDEr'):
        assert half[name] == pytest.approx(whole[name] / 2, abs=1e-6)
        assert half[f'found_{name}'] == pytest.approx(whole[name], abs=1e-6)
    assert half['BLEU_4_corpus'] < 0.5  # brevity costs more than the share


def test_nothing_found_is_zero_and_nothing_to_find_is_refused():
    truth = described(CAPTIONS)
    result = evaluate_captions([truth], [described([])])
    assert result['found'] == 0.0 and result['CIDEr'] == 0.0 and 'found_CIDEr' not in result
    assert evaluate_captions_tod3cap([truth], [described([])], 0.25)['predictions'] == 0
    with pytest.raises(ValueError, match='no ground-truth object in range has a caption'):
        evaluate_captions([described(['', ''])], [truth])


def test_idf_does_not_depend_on_the_threshold():
    # The first is found at any threshold, the others at 0.25 only: what is found at both has the
    # same share of CIDEr.
    truth, said = described(CAPTIONS), described(CAPTIONS)
    said.boxes[1:, 0] += 1.0  # IoU 1/3
    low, high = (evaluate_captions([truth], [said], iou=iou) for iou in (0.25, 0.5))
    assert (low['found'], high['found']) == (1.0, 0.25)
    assert high['CIDEr'] == pytest.approx(low['CIDEr'] / 4, abs=1e-9)


def test_unequal_lists_are_refused():
    with pytest.raises(ValueError, match='1 references and 2'):
        caption_scores(['a'], ['a', 'b'])

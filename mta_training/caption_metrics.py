"""How good captions are: BLEU, ROUGE-L and CIDEr-D over matched objects, without Java.

Strict protocol: in each frame predictions, best score first, take the nearest free ground-truth
object of their class within 2 m (nuScenes' matching).  N is the number of ground-truth objects
with a caption; one that nobody found counts as an empty sentence, so that a model cannot gain by
keeping silent. Words are lower-cased runs of letters and digits: no PTB tokeniser, and therefore
no METEOR either.
"""

import re
from typing import NamedTuple

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mta_perception.contract import CLASS_RANGE_M, CLASSES

MATCH_M = 2.0


class DescribedObjects(NamedTuple):
    """Objects of one frame with their captions."""

    boxes: np.ndarray      # (n, 10) contract.BoxCode, ego frame
    labels: np.ndarray     # (n,) int
    scores: np.ndarray     # (n,) float; ones for ground truth
    captions: list         # n strings, '' = none


def words(caption):
    """'A red car, moving.' -> 'a red car moving'."""
    return ' '.join(re.findall(r"[a-z0-9']+", caption.lower()))


def caption_scores(references, candidates):
    """Corpus scores of candidates against one reference each, two lists of N strings.

    Returns a dict with BLEU_1 to BLEU_4 and ROUGE_L (0 to 1) and CIDEr (0 to 10).
    """
    if len(references) != len(candidates) or not references:
        raise ValueError(f'{len(references)} references and {len(candidates)} candidates; '
                         'expected equally many, at least one.')
    truth = {i: [words(text)] for i, text in enumerate(references)}
    said = {i: [words(text)] for i, text in enumerate(candidates)}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    rouge, _ = Rouge().compute_score(truth, said)
    cider, _ = Cider().compute_score(truth, said)
    scores = {f'BLEU_{n + 1}': float(value) for n, value in enumerate(bleu)}
    return {**scores, 'ROUGE_L': float(rouge), 'CIDEr': float(cider)}


def match_captions(truth, predicted):
    """Caption pairs of one frame: a list of (reference, candidate), candidate '' if not found."""
    ranges = np.array([CLASS_RANGE_M[name] for name in CLASSES])
    distance = np.hypot(truth.boxes[:, 0], truth.boxes[:, 1])
    wanted = [i for i, text in enumerate(truth.captions)
              if text and distance[i] < ranges[truth.labels[i]]]
    found = {}
    for index in np.argsort(-np.asarray(predicted.scores), kind='stable'):
        free = [i for i in wanted
                if i not in found and truth.labels[i] == predicted.labels[index]]
        if not free:
            continue
        offsets = truth.boxes[free, :2] - predicted.boxes[index, :2]
        nearest = int(np.argmin(np.hypot(*offsets.T)))
        if np.hypot(*offsets[nearest]) <= MATCH_M:
            found[free[nearest]] = predicted.captions[index]
    return [(truth.captions[i], found.get(i, '')) for i in wanted]


def evaluate_captions(truth_frames, predicted_frames):
    """Strict scores over many frames, and those of the found objects alone (`found_*`).

    Returns a dict: caption_scores, 'objects', 'found' (share), 'found_CIDEr', ...
    """
    pairs = [pair for truth, predicted in zip(truth_frames, predicted_frames)
             for pair in match_captions(truth, predicted)]
    if not pairs:
        raise ValueError('no ground-truth object has a caption; nothing can be scored.')
    result = caption_scores(*zip(*pairs))
    matched = [pair for pair in pairs if pair[1]]
    result['objects'], result['found'] = len(pairs), len(matched) / len(pairs)
    if matched:
        result.update({f'found_{name}': value
                       for name, value in caption_scores(*zip(*matched)).items()})
    return result

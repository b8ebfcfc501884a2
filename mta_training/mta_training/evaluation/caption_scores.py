"""How good captions are: BLEU, METEOR, ROUGE-L and CIDEr-D by pycocoevalcap, under two protocols.

strict    m@k = (1/N) sum_i m(c_i, c'_i) [found at k], N = ground truths in range with a caption
          (Scan2Cap's formula).  CIDEr and ROUGE-L are means over objects: who was not found adds
          0, and CIDEr's idf is that of all N references at every k.  BLEU and METEOR are corpus
          scores: that of the found pairs times found / N.  `found_*` is m@k * N / found.
tod3cap   each score over the kept pairs alone (idf too), times kept / predictions.

Words of the strict protocol are lower-cased runs of letters and digits: the PTB tokeniser, which
needs Java, gives the same for sentences of our grammar.  METEOR is the reference's jar or, without
Java, None: nothing else goes by its name.
"""

from contextlib import contextmanager
import functools
import re
import shutil
import subprocess

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

from mta_training.evaluation.caption_matching import (
    MATCH_M,
    DescribedObjects,
    strict_pairs,
    tod3cap_pairs,
)

__all__ = [
    'DescribedObjects',
    'caption_scores',
    'evaluate_captions',
    'open_meteor',
    'strict_scores',
    'tod3cap_scores',
]
_SCORES = ('BLEU_1', 'BLEU_2', 'BLEU_3', 'BLEU_4', 'METEOR', 'ROUGE_L', 'CIDEr')


def words(caption):
    """'A red car, moving.' -> 'a red car moving'."""
    return ' '.join(re.findall(r"[a-z0-9']+", caption.lower()))


def tod3cap_words(caption):
    """Split at spaces, without the free-standing tokens ',' and '.'; case stays."""
    return ' '.join(token for token in caption.split() if token not in (',', '.'))


@functools.cache
def java_runs():
    """Is there a Java that starts?  (macOS has one that does not.)"""
    java = shutil.which('java')
    return (
        java is not None
        and subprocess.run([java, '-version'], capture_output=True, check=False).returncode == 0
    )


@contextmanager
def open_meteor():
    """pycocoevalcap's Meteor with its Java process, ended afterwards; None without Java."""
    if not java_runs():
        yield None
        return
    meteor = Meteor()
    try:
        yield meteor
    finally:
        # Its own __del__ runs whenever and leaves the pipes open.
        meteor.meteor_p.kill()
        meteor.meteor_p.communicate()


def caption_scores(references, candidates, meteor=None, tokenise=words):
    """Corpus scores of candidates against one reference each, two lists of N strings.

    meteor: what `open_meteor` gives.  Returns a dict with BLEU_1 to BLEU_4, METEOR (None without
    Java) and ROUGE_L (0 to 1) and CIDEr (0 to 10).
    """
    if len(references) != len(candidates) or not references:
        raise ValueError(
            f'{len(references)} references and {len(candidates)} candidates; '
            'expected equally many, at least one.'
        )
    truth = {i: [tokenise(text)] for i, text in enumerate(references)}
    said = {i: [tokenise(text)] for i, text in enumerate(candidates)}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    rouge, _ = Rouge().compute_score(truth, said)
    cider, _ = Cider().compute_score(truth, said)
    return {
        **{f'BLEU_{n + 1}': float(value) for n, value in enumerate(bleu)},
        'METEOR': _meteor_score(meteor, truth, said),
        'ROUGE_L': float(rouge),
        'CIDEr': float(cider),
    }


def _meteor_score(meteor, truth, said):
    if meteor is None:
        return None
    try:
        return float(meteor.compute_score(truth, said)[0])
    except (BrokenPipeError, ValueError) as error:
        raise RuntimeError(
            f"METEOR's Java process answers nonsense or has ended ({error}); "
            'expected a number. Does it have 2 GB of memory?'
        ) from error


def strict_scores(pairs, meteor=None):
    """m@k over the strict Pairs of all frames, see the top of this file.

    Returns a dict: objects (N), found (share), _SCORES, the same over the found ones as `found_*`
    (where one was found), and BLEU_4_corpus: BLEU-4 over all N, a missing one an empty sentence.
    """
    if not pairs:
        raise ValueError('no ground-truth object in range has a caption; nothing can be scored.')
    found = [pair for pair in pairs if pair.kept]
    share = len(found) / len(pairs)
    every = caption_scores(*_sides(pairs))
    result = {
        'objects': len(pairs),
        'found': share,
        **_zeros(meteor),
        'BLEU_4_corpus': every['BLEU_4'],
    }
    if found:
        among = caption_scores(*_sides(found), meteor)
        # Means over objects: a miss has added 0 already, and the idf is that of all references.
        result.update(
            {name: None if among[name] is None else among[name] * share for name in _SCORES},
            ROUGE_L=every['ROUGE_L'],
            CIDEr=every['CIDEr'],
        )
        result.update(
            {
                f'found_{name}': None if result[name] is None else result[name] / share
                for name in _SCORES
            }
        )
    return result


def tod3cap_scores(pairs, meteor=None):
    """Scores over the tod3cap Pairs of all frames: predictions (N), kept (share), _SCORES."""
    kept = [pair for pair in pairs if pair.kept]
    result = {'predictions': len(pairs), 'kept': len(kept) / max(len(pairs), 1), **_zeros(meteor)}
    if kept:
        among = caption_scores(*_sides(kept), meteor, tod3cap_words)
        result.update(
            {
                name: None if value is None else value * result['kept']
                for name, value in among.items()
            }
        )
    return result


def _zeros(meteor):
    return {name: None if name == 'METEOR' and meteor is None else 0.0 for name in _SCORES}


def _sides(pairs):
    return [pair.reference for pair in pairs], [pair.candidate for pair in pairs]


def evaluate_captions(truth_frames, predicted_frames, meteor=None, *, iou=None):
    """`strict_scores` over many frames; found means within 2 m, or above a rotated 3D IoU."""
    limits = {'within_m': MATCH_M} if iou is None else {'iou': iou}
    return strict_scores(
        [
            pair
            for truth, predicted in zip(truth_frames, predicted_frames)
            for pair in strict_pairs(truth, predicted, **limits)
        ],
        meteor,
    )


def evaluate_captions_tod3cap(truth_frames, predicted_frames, iou, meteor=None):
    """`tod3cap_scores` over many frames at one threshold."""
    return tod3cap_scores(
        [
            pair
            for truth, predicted in zip(truth_frames, predicted_frames)
            for pair in tod3cap_pairs(truth, predicted, iou)
        ],
        meteor,
    )

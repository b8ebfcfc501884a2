"""What captions say that is not there: another class, another side of the car, another motion.

Judged is what was said about objects that were found (strict pairs within 2 m).  The facts of both
sentences come from the parser of the caption grammar; the class also from the object's label, the
side also from its box, so that references in other words (TOD3Cap's) still judge these two.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.contract import CLASSES
from mta_training.captions.grammar import NOUNS, SECTORS, parse, sector_of

BORDER_DEGREES = 5.0  # a neighbouring sector this near to the border is no hallucination
_STANDING = ('not moving', 'parked')
_TENTH = 0.1


class Statement(NamedTuple):
    """What one sentence of one found object gets wrong; None = cannot be judged."""

    unparsable: bool
    wrong_class: object
    wrong_sector: object
    wrong_motion: object
    reversed_motion: object  # a standing object is said to move, or the other way round
    right_colour: object  # None also where the reference names no colour
    distance_error: object  # [m], absolute
    near_distance: object  # within a tenth of the true distance (within 1 m below 10 m)


def judge_sentence(candidate, reference, box, label):
    """Statement about one found object.

    box    (10,) contract.BoxCode of the ground truth, ego frame
    label  index into contract.CLASSES of the ground truth
    """
    said, true = _facts(candidate), _facts(reference)
    if said is None:
        return Statement(True, *[None] * 7)
    sector = true.sector if true else sector_of(box[0], box[1])
    wrong_class = NOUNS[said.thing.noun][0] != CLASSES[label]
    wrong_sector = said.sector != sector and not _nearly_in(said.sector, box)
    if true is None:
        return Statement(False, wrong_class, wrong_sector, *[None] * 5)
    error = abs(said.distance - true.distance)
    return Statement(
        False,
        wrong_class,
        wrong_sector,
        said.motion != true.motion,
        (said.motion in _STANDING) != (true.motion in _STANDING),
        said.thing.colour == true.thing.colour if true.thing.colour else None,
        error,
        error <= max(1.0, _TENTH * true.distance),
    )


def _facts(sentence):
    try:
        return parse(sentence)
    except ValueError:
        return None


def _nearly_in(sector, box):
    """Is the box's bearing in the sector or within BORDER_DEGREES of it?"""
    bearing = np.degrees(np.arctan2(box[1], box[0]))
    off = (bearing - 45.0 * SECTORS.index(sector) + 180.0) % 360.0 - 180.0
    return abs(off) <= 22.5 + BORDER_DEGREES


def hallucinations(truth_frames, pair_frames):
    """Rates over the found objects of many frames.

    truth_frames  DescribedObjects of each frame
    pair_frames   strict Pairs of each frame; those not found are left out

    Returns a dict: `objects` judged; the shares `unparsable`, `wrong_class`, `wrong_sector`,
    `wrong_motion` and `any` of these four; for information, no hallucinations:
    `reversed_motion`, `colour_accuracy`, `distance_accuracy` (within a tenth),
    `distance_error_m` (mean).  Shares are of the objects for which the question has an answer;
    None where that is none.
    """
    statements = [
        judge_sentence(
            pair.candidate, pair.reference, truth.boxes[pair.truth], int(truth.labels[pair.truth])
        )
        for truth, pairs in zip(truth_frames, pair_frames)
        for pair in pairs
        if pair.kept
    ]
    result = {'objects': len(statements)}
    for name in ('unparsable', 'wrong_class', 'wrong_sector', 'wrong_motion'):
        result[name] = _mean([getattr(entry, name) for entry in statements])
    result['any'] = _mean(
        [
            bool(entry.unparsable or entry.wrong_class or entry.wrong_sector or entry.wrong_motion)
            for entry in statements
        ]
    )
    result['reversed_motion'] = _mean([entry.reversed_motion for entry in statements])
    result['colour_accuracy'] = _mean([entry.right_colour for entry in statements])
    result['distance_accuracy'] = _mean([entry.near_distance for entry in statements])
    result['distance_error_m'] = _mean([entry.distance_error for entry in statements])
    return result


def _mean(values):
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

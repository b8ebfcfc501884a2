"""What captions say that is not there: another class, another side of the car, another motion.

Judged is what was said about objects that were found (strict pairs within 2 m).  The facts of both
sentences come from the parser of the caption grammar; the class also from the object's label, the
side also from its box, so that references in other words (TOD3Cap's) still judge these two.

Two verdicts: `any` of class, side and motion, and `any_strict`, of these and colour, place and
relation as well.  What a sentence leaves out is no hallucination in either.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.contract import CLASSES
from mta_training.captions.grammar import NOUNS, SECTORS, parse, sector_of

BORDER_DEGREES = 5.0  # a neighbouring sector this near to the border is no hallucination
_STANDING = ('not moving', 'parked')
_TENTH = 0.1
_LOOSE = ('unparsable', 'wrong_class', 'wrong_sector', 'wrong_motion')
_STRICT = (*_LOOSE, 'wrong_colour', 'wrong_place', 'wrong_relation')


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
    wrong_colour: object = None  # of the object, where both sentences name one
    wrong_place: object = None  # in the lane, on the walkway, ..., where both say one
    wrong_relation: object = None  # another neighbour or side than the true one, or there is none


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
        _differ(said.thing.colour, true.thing.colour),
        _differ(said.place, true.place),
        _wrong_relation(said.relation, true.relation),
    )


def _differ(said, true):
    """Whether two words differ; None where either is missing."""
    return said != true if said and true else None


def _wrong_relation(said, true):
    """A relation that is not the true one; None where none is said.

    True sentences name the nearest neighbour within 10 m, so without one there is none.
    """
    if said is None:
        return None
    if true is None or said.side != true.side:
        return True
    one, other = said.neighbour, true.neighbour
    return one.noun != other.noun or bool(_differ(one.colour, other.colour))


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
    `wrong_motion` and `any` of these four; `wrong_colour`, `wrong_place`, `wrong_relation` and
    `any_strict` of all seven; for information, no hallucinations:
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
    for name in _STRICT:
        result[name] = _mean([getattr(entry, name) for entry in statements])
    for verdict, names in (('any', _LOOSE), ('any_strict', _STRICT)):
        result[verdict] = _mean(
            [any(getattr(entry, name) for name in names) for entry in statements]
        )
    result['reversed_motion'] = _mean([entry.reversed_motion for entry in statements])
    result['colour_accuracy'] = _mean([entry.right_colour for entry in statements])
    result['distance_accuracy'] = _mean([entry.near_distance for entry in statements])
    result['distance_error_m'] = _mean([entry.distance_error for entry in statements])
    return result


def _mean(values):
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

"""What a sentence about an object claims, and whether its box agrees: the truth contract.

A sentence is shown beside a box only while its class, sector, distance and motion fit that box;
otherwise the short form ('car, 14 m, front right') is, which is made from the box and always does.
Sentences of our grammar (docs/architecture.md) are read back into Claims.  Words of a language
model that does not speak it are not held against the box, whatever of them looks like a claim:
they hold until the object has moved by more than the tolerance, or they are too old.  Boxes are
(10,) contract.BoxCode in the ego frame: x forward, y left, metres.
"""

from collections.abc import Sequence
import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mta_perception.contract import BoxCode

Box = NDArray[np.floating[Any]]

NOUNS = {  # -> class
    'car': 'car',
    'truck': 'truck',
    'bus': 'bus',
    'trailer': 'trailer',
    'construction vehicle': 'construction_vehicle',
    'motorcycle': 'motorcycle',
    'bicycle': 'bicycle',
    'pedestrian': 'pedestrian',
    'child': 'pedestrian',
    'construction worker': 'pedestrian',
    'police officer': 'pedestrian',
    'traffic cone': 'traffic_cone',
    'barrier': 'barrier',
}
# 45 degrees each, counter-clockwise from the front
SECTORS = (
    'front',
    'front left',
    'left',
    'back left',
    'back',
    'back right',
    'right',
    'front right',
)
STANDING = ('not moving', 'parked')
MOVING = ('moving slowly', 'moving quickly', 'moving', 'crossing the road')
TOLERANCE_M, TOLERANCE_SHARE = 1.5, 0.15  # of a distance; the larger one holds
# Between the two an object may be called either; above the first its arrow is drawn.
MOVES_M_S, CANNOT_STAND_M_S = 0.5, 1.0
MAX_AGE_S = 3.0  # of words that are not our grammar's
KINDS = ('class', 'distance', 'sector', 'motion')  # of what a sentence claims


class Claims(NamedTuple):
    """What a sentence says that a box can deny; None: it says nothing that we can read."""

    class_name: str | None  # one of contract.CLASSES
    distance_m: float | None  # on the ground, from the ego's origin
    sector: str | None  # one of SECTORS
    moves: bool | None

    @property
    def of_our_grammar(self) -> bool:
        """It begins as each of our sentences does: what it is, and how many meters away.

        A noun or a motion alone may stand in anybody's words; a sentence of ours that breaks off
        behind its distance is one all the same.
        """
        return self.class_name is not None and self.distance_m is not None

    @property
    def complete(self) -> bool:
        """All was read."""
        return None not in self


class Said(NamedTuple):
    """A sentence, and the object as it was when the sentence was made."""

    text: str
    stamp_ns: int
    class_name: str
    xy: tuple[float, float]  # [m], ego frame at stamp_ns


def _any_of(words: Sequence[str]) -> str:
    return '|'.join(sorted(words, key=len, reverse=True))


_NOUN = re.compile(rf'(?:an? |the )?(?:[a-z]+ )?({_any_of(tuple(NOUNS))})\b')  # at the start
_DISTANCE = re.compile(r'\b(\d+) meters away')
_SECTOR = re.compile(rf'\bin the ({_any_of(SECTORS)}) of the ego car')
_MOTION = re.compile(rf'\bis ({_any_of((*STANDING, *MOVING))})\b')


def claims_of(text: str) -> Claims:
    """Claims of a sentence, whatever its case and stops; the first of each kind is the object's
    own, its neighbour is named later."""
    text = ' '.join(text.lower().replace('.', ' ').split())
    noun, distance = _NOUN.match(text), _DISTANCE.search(text)
    sector, motion = _SECTOR.search(text), _MOTION.search(text)
    return Claims(
        NOUNS[noun[1]] if noun else None,
        float(distance[1]) if distance else None,
        sector[1] if sector else None,
        motion[1] in MOVING if motion else None,
    )


def distance_of(box: Box) -> float:
    """Metres on the ground from the ego's origin to the box's centre."""
    return math.hypot(float(box[0]), float(box[1]))


def sector_of(box: Box) -> str:
    """The 45 degree sector the box's centre lies in."""
    angle = math.degrees(math.atan2(float(box[1]), float(box[0])))
    return SECTORS[math.floor(angle / 45.0 + 0.5) % 8]


def tolerance_m(distance_m: float) -> float:
    """By how much a said distance may differ from the true one."""
    return max(TOLERANCE_M, TOLERANCE_SHARE * distance_m)


def contradictions(claims: Claims, class_name: str, box: Box) -> list[str]:
    """The KINDS of claims that the box denies; a velocity that is not known denies nothing, and
    words that are not our grammar's claim nothing."""
    if not claims.of_our_grammar:
        return []
    distance = distance_of(box)
    vx, vy = (float(value) for value in box[BoxCode.VELOCITY])
    speed = math.hypot(vx, vy)
    denied = (
        claims.class_name not in (None, class_name),
        claims.distance_m is not None
        and abs(claims.distance_m - distance) > tolerance_m(distance),
        claims.sector not in (None, sector_of(box)),
        # Comparisons with NaN are false.
        (claims.moves is True and speed < MOVES_M_S)
        or (claims.moves is False and speed >= CANNOT_STAND_M_S),
    )
    return [kind for kind, wrong in zip(KINDS, denied) if wrong]


def fits(
    said: Said, class_name: str, box: Box, stamp_ns: int, max_age_s: float = MAX_AGE_S
) -> bool:
    """Whether what was said still holds for the object at `stamp_ns`."""
    if not said.text or stamp_ns < said.stamp_ns:
        return False
    claims = claims_of(said.text)
    if contradictions(claims, class_name, box):
        return False
    if claims.complete:
        return True
    moved = math.hypot(float(box[0]) - said.xy[0], float(box[1]) - said.xy[1])
    return (
        said.class_name == class_name
        and moved <= tolerance_m(distance_of(box))
        and stamp_ns - said.stamp_ns <= max_age_s * 1e9
    )


def short_form(class_name: str, box: Box) -> str:
    """'car, 14 m, front right': what is always true."""
    return f'{class_name.replace("_", " ")}, {distance_of(box):.0f} m, {sector_of(box)}'


def shown(
    said: Said | None, class_name: str, box: Box, stamp_ns: int, max_age_s: float = MAX_AGE_S
) -> str:
    """What may stand beside the box now: the sentence, or the short form while it is due."""
    if said is not None and fits(said, class_name, box, stamp_ns, max_age_s):
        return said.text
    return short_form(class_name, box)

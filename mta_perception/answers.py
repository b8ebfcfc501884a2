"""A question about the scene: what is remembered for it, and what comes back.

Boxes are contract.BoxCode.  The *level* frame of a moment is that of the bird's-eye view: origin
and heading of base_link, z along gravity (geometry.level_pose).
"""

from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from mta_perception.detections import Floats
from mta_perception.geometry import Array
from mta_perception.reasons import Reason

CANNOT_TELL = 'I cannot tell.'
MOST_ASKED = 500  # characters of a question
# The words of an answer about what is not there, and about what does not happen.
NONE, NEVER = 'there is no such object', 'that does not happen'
EGO_NUMBERS = 6  # of a frame: speed, yaw rate, place and heading; pipeline.scene_memory
MASK_SCALE = 4  # cells of a mask for one of the BEV, along each axis


class RememberedFrame(NamedTuple):
    """What is kept of one frame; K of the detector's objects, the best ones first."""

    stamp_ns: int
    world_from_level: Array  # (4, 4)
    world_from_ego: Array  # (4, 4)
    objects: NDArray[np.float16]  # (K, F) the detector's features
    boxes: Floats  # (K, 10) level frame of this moment
    class_logits: NDArray[np.float16]  # (K, classes)
    bev_mean: Floats  # (C,) over the cells
    track_ids: tuple[str, ...]  # K; '' where the object is not published


class SceneInputs(NamedTuple):
    """T remembered frames as the graphs take them, oldest first, the last one is now."""

    objects: Floats  # (1, T, K, F)
    own_boxes: Floats  # (1, T, K, 10) level frame of each frame
    boxes: Floats  # (1, T, K, 10) that of now
    class_logits: Floats  # (1, T, K, classes)
    bev_mean: Floats  # (1, T, C)
    ego: Floats  # (1, T, 6) speed, yaw rate, place and heading as seen from now
    bev: Floats  # (1, C, Y, X) of now


class SceneView(NamedTuple):
    """A moment of the memory, for one question."""

    frames: tuple[RememberedFrame, ...]  # oldest first, the last one is now
    bev: NDArray[np.float16]  # (C, Y, X) of now
    inputs: SceneInputs


class Raw(NamedTuple):
    """What the graphs say: level frame of now, frames by number.  None: that head was not asked,
    or says that there is nothing."""

    text: str  # without task tokens
    word_score: float  # geometric mean of the words' probabilities, in [0, 1]
    heads: tuple[str, ...]  # whose token was said, in this order
    pointed: int = -1  # row of the objects of now
    box: Optional[Floats] = None  # (10,)
    box_score: float = 0.0
    span: Optional[tuple[float, float]] = None  # begin, end in frames, 0..T
    span_score: float = 0.0
    saliency: Optional[Floats] = None  # (T,)
    mask: Optional[NDArray[np.bool_]] = None  # (Y, X) cells of the BEV, finer
    mask_score: float = 0.0  # IoU that the head expects
    track: Optional[Floats] = None  # (T, 10)
    track_rows: Optional[NDArray[np.int64]] = None  # (T,) row of the frame's objects, -1: not seen


class AnsweredBox(NamedTuple):
    """A box of an answer, in base_link at `stamp_ns`."""

    box: Floats  # (10,)
    label: str  # of contract.CLASSES
    score: float
    track_id: str  # of ~/detections; '' where it is none of them
    stamp_ns: int


class Answer(NamedTuple):
    """What is said to a question, and shown."""

    text: str
    why_not: Optional[Reason] = None  # None: it is answered
    stamp_ns: int = 0  # of the frame that it is about
    boxes: tuple[AnsweredBox, ...] = ()  # of now
    track: tuple[AnsweredBox, ...] = ()  # one for each frame in which it is seen, oldest first
    span_ns: Optional[tuple[int, int]] = None
    span_score: float = 0.0
    stamps_ns: tuple[int, ...] = ()  # of the frames that were looked at
    saliency: Optional[Floats] = None  # of each of these
    mask: Optional[NDArray[np.bool_]] = None  # [iy, ix] over the BEV's square, level frame of now
    mask_score: float = 0.0
    word_score: float = 0.0
    path: Optional[Floats] = None  # (n, 3) centres of the track, base_link of now
    ego_from_level: Optional[Array] = None  # (4, 4) of now; where the mask lies

    @property
    def success(self) -> bool:
        """Whether it is an answer."""
        return self.why_not is None


def refusal(why_not: Reason) -> Answer:
    """The Answer to what cannot be answered."""
    return Answer(CANNOT_TELL, why_not)

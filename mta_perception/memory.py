"""SKELETON memory.py — signatures fixed, bodies being written."""
from typing import NamedTuple

import numpy as np


class History(NamedTuple):
    """What the detector gets of the past."""
    bev: object                        # (C, Y, X) float32 in the ego frame of then, or None
    valid: bool
    ego_prev_from_ego_now: np.ndarray  # (4, 4); identity where there is none
    age_s: float                       # 0.0 where there is none


class MemoryState(NamedTuple):
    """For ~/history and diagnostics."""
    length: int          # remembered frames
    age_s: float         # age of the frame given to the network last, 0.0 where none was
    valid: bool          # the last recall found one
    resets: int
    last_reset_ns: int   # stamp of the frame at which the last reset happened, 0 = never
    last_reason: str

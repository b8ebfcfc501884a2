"""A camera that sends the same picture again and again, with new stamps, while the car moves.

A driver that hangs on its last buffer does that; the network would see a street that comes along.
A car that stands may well see the same picture twice (a simulator does), so only one that has
moved since tells a frozen camera.  Pure: no ROS, no clock.
"""

from typing import Any
import zlib

import numpy as np
from numpy.typing import ArrayLike

from mta_perception.frames import CameraImage
from mta_perception.geometry import Array
from mta_perception.reasons import Code, Reason

MOVED_M = 1.0  # since the picture came first
FEWEST = 3  # images with the same bytes
_SAMPLES = 65_536  # bytes that are compared, of all over the picture


class FrozenPictures:
    """Images of all cameras in, Reasons out for those that are frozen."""

    def __init__(self) -> None:
        # camera -> (fingerprint, images that have it, where the car was at the first of them)
        self._same: dict[str, tuple[int, int, Array]] = {}

    def fault(self, image: CameraImage, place: ArrayLike | None) -> Reason | None:
        """Why an image is not to be used, None where it may be.

        place  (3,) of the car [m] in the odometry's world, None while it is unknown
        """
        mark = fingerprint(image.data)
        known = self._same.get(image.camera)
        here = None if place is None else np.asarray(place, dtype=np.float64)
        if known is None or known[0] != mark or here is None:
            if here is None:
                self._same.pop(image.camera, None)
            else:
                self._same[image.camera] = mark, 1, here
            return None
        _, count, first = known
        self._same[image.camera] = mark, count + 1, first
        moved = float(np.linalg.norm(here - first))
        if count + 1 < FEWEST or moved < MOVED_M:
            return None
        return Reason(
            Code.FROZEN,
            f'{count + 1} images in a row have the same bytes, and the car has moved '
            f'{moved:.1f} m meanwhile. Restart the driver.',
        )

    def clear(self) -> None:
        """Forget all: odometry began anew."""
        self._same.clear()


def fingerprint(data: Any) -> int:
    """A number that another picture does not have: of the whole of small ones, of bytes from all
    over large ones."""
    if isinstance(data, np.ndarray):
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    else:
        flat = np.frombuffer(memoryview(data).cast('B'), np.uint8)
    step = max(1, len(flat) // _SAMPLES)
    return zlib.crc32(flat[::step].tobytes(), len(flat))

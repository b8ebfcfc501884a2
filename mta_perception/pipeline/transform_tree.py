"""A small tree of transforms: /tf_static, and the moving links of /tf by their newest value.

It answers one question, `target_from_source` along the links between two frames.  Chains of any
length are followed; time is not interpolated here: the ego motion itself goes, with its stamps,
into `mta_perception.pipeline.ego_motion`.  Imports no ROS.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.geometry import Array, invert_rigid
from mta_perception.reasons import Code, Refused


class _Link(NamedTuple):
    """What is above a frame."""

    parent: str
    parent_from_child: Array  # (4, 4)
    static: bool


class TransformTree:
    """Frames and the link from each to its parent."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}  # child -> link to its parent

    def set(self, parent: str, child: str, parent_from_child: Array, static: bool) -> bool:
        """Put in or replace the link above `child`; True where it is new or its value changed.

        Raises Refused for a frame above itself.
        """
        if not parent or not child or parent == child:
            raise Refused(
                Code.SAME_FRAMES,
                f'transform from "{child}" to "{parent}": expected two different, '
                'non-empty frame names.',
            )
        known = self._links.get(child)
        parent_from_child = np.asarray(parent_from_child, dtype=np.float64)
        self._links[child] = _Link(parent, parent_from_child, static)
        return (
            known is None
            or known.parent != parent
            or not np.allclose(known.parent_from_child, parent_from_child, rtol=0, atol=1e-9)
        )

    def frames(self) -> list[str]:
        """Every frame that has been named, sorted."""
        return sorted(set(self._links) | {link.parent for link in self._links.values()})

    def lookup(self, target: str, source: str) -> Array | None:
        """(4, 4) target_from_source, or None where nothing links the two frames."""
        above_source = self._to_root(source)
        above_target = self._to_root(target)
        common = next((frame for frame in above_source if frame in above_target), None)
        if common is None:
            return None
        return invert_rigid(above_target[common]) @ above_source[common]

    def moving_child_below(self, target: str, source: str) -> str | None:
        """The lowest frame on the way from `source` up to `target` whose link moves, or None.

        Its messages carry the stamps at which the pose of `source` is known.
        """
        frame = source
        for _ in range(len(self._links)):
            if frame == target or frame not in self._links:
                return None
            link = self._links[frame]
            if not link.static:
                return frame
            frame = link.parent
        return None

    def _to_root(self, frame: str) -> dict[str, Array]:
        """{frame above: (4, 4) above_from_frame}, from the frame itself up to its root."""
        above = {frame: np.eye(4)}
        current, current_from_frame = frame, np.eye(4)
        while current in self._links:
            parent, parent_from_current, _ = self._links[current]
            if parent in above:  # two publishers that disagree can close a ring
                break
            current_from_frame = parent_from_current @ current_from_frame
            above[parent] = current_from_frame
            current = parent
        return above

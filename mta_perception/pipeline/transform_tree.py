"""A small tree of transforms: /tf_static, and the moving links of /tf by their newest value.

It answers one question, `target_from_source` along the links between two frames.  Chains of any
length are followed; time is not interpolated here: the ego motion itself goes, with its stamps,
into `mta_perception.pipeline.ego_motion`.  Imports no ROS.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.geometry import Array, invert_rigid
from mta_perception.reasons import Code, Refused

_STILL = 1e-6  # a link that changes less has not moved: rounding


class _Link(NamedTuple):
    """What is above a frame."""

    parent: str
    parent_from_child: Array  # (4, 4)
    static: bool
    moved: bool  # it has had another value since its parent is this one


class TransformTree:
    """Frames and the link from each to its parent."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}  # child -> link to its parent
        self.shape = 0  # grows whenever a frame gets a parent, or another one

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
        if known is None or known.parent != parent:
            self._links[child] = _Link(parent, parent_from_child, static, False)
            self.shape += 1
            return True
        change = float(np.abs(known.parent_from_child - parent_from_child).max())
        moved = known.moved or change > _STILL
        self._links[child] = _Link(parent, parent_from_child, static, moved)
        return change > 1e-9

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

    def links_between(self, target: str, source: str) -> frozenset[str]:
        """The frames whose link to their parent `lookup` of the two uses."""
        return frozenset(self._to_root(source)) ^ frozenset(self._to_root(target))

    def moving_child_below(self, target: str, source: str) -> str | None:
        """The lowest frame on the way from `source` up to `target` whose link moves, or None.

        Its messages carry the stamps at which the pose of `source` is known.  A link that comes on
        /tf again and again with the same value, a mount, does not move, unless all of them do so:
        the car stands.
        """
        frame, found = source, []
        for _ in range(len(self._links)):
            if frame == target or frame not in self._links:
                break
            if not self._links[frame].static:
                found.append(frame)
            frame = self._links[frame].parent
        moving = [one for one in found if self._links[one].moved]
        return next(iter(moving or found), None)

    def _to_root(self, frame: str) -> dict[str, Array]:
        """{frame above: (4, 4) above_from_frame}, from the frame itself up to its root."""
        above = {frame: np.eye(4)}
        current, current_from_frame = frame, np.eye(4)
        while current in self._links:
            parent, parent_from_current = self._links[current][:2]
            if parent in above:  # two publishers that disagree can close a ring
                break
            current_from_frame = parent_from_current @ current_from_frame
            above[parent] = current_from_frame
            current = parent
        return above

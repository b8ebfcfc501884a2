"""Detections of one frame matched to those of the frames before: what stays with an object.

Each track is moved on by its own velocity in the world frame; detections and tracks that may be
one object are then paired at the least total distance (Hungarian method).  A track's class is what
most of its evidence says, its velocity the detector's own unless its way contradicts that.
"""

from collections import deque
from math import hypot, sqrt
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from mta_perception.config import TrackingConfig
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import Detections, Rows
from mta_perception.geometry import Array, transform_boxes


class _Kind(NamedTuple):
    """Classes a detector may confuse with one another, and how far one may be off."""

    classes: tuple[str, ...]
    gate_m: float  # prediction to detection at once
    gate_growth_m_s: float  # ... and more for every second since the track was seen


_KINDS = (
    _Kind(('car', 'truck', 'construction_vehicle', 'bus', 'trailer'), 2.0, 5.0),
    _Kind(('motorcycle', 'bicycle'), 1.5, 4.0),
    _Kind(('pedestrian',), 1.0, 2.0),
    _Kind(('barrier',), 1.0, 0.5),
    _Kind(('traffic_cone',), 0.8, 0.5),
)
KIND_OF_LABEL = np.array(
    [next(i for i, kind in enumerate(_KINDS) if name in kind.classes) for name in CLASSES]
)
_GATES_M = np.array([kind.gate_m for kind in _KINDS])
_GROWTHS_M_S = np.array([kind.gate_growth_m_s for kind in _KINDS])
# Pairs of unlike classes or velocities count as further apart: people cross without swapping ids.
_OTHER_CLASS_M = 0.5
_VELOCITY_WEIGHT_S = 0.2
_MOST_FOR_VELOCITY_M = 0.5
_IMPOSSIBLE = 1e6
# Evidence for a class: scores summed, older ones fading; another class must lead by this factor.
_FADING = 0.95
_LEAD = 1.2
# A straight line through the way of the last second, against the detector's velocity.
_WAY_S = 1.0
_SHORTEST_WAY_S, _FEWEST_POINTS = 0.35, 3
_PLACE_SIGMA_M, _PLACE_SIGMA_SHARE = 0.2, 0.03  # of a detection's place: at least, and of distance
_CONTRADICTED = 3.0  # standard deviations


class _Track:
    """One object over time, in the world frame."""

    def __init__(self, identifier: str) -> None:
        self.id = identifier
        self.trail: deque[tuple[int, float, float]] = deque()  # stamp_ns, x, y
        self.evidence: Array = np.zeros(len(CLASSES))
        self.label = -1

    def see(self, stamp_ns: int, box: Array, label: int, score: float, distance_m: float) -> None:
        self.xy, self.stamp_ns = box[:2], stamp_ns
        self.evidence *= _FADING
        self.evidence[label] += max(score, 1e-3)
        best = int(self.evidence.argmax())
        if self.label < 0 or self.evidence[best] > _LEAD * self.evidence[self.label]:
            self.label = best
        self.trail.append((stamp_ns, float(box[0]), float(box[1])))
        self.velocity = self._velocity(np.nan_to_num(box[BoxCode.VELOCITY]), distance_m)

    def _velocity(self, of_model: Array, distance_m: float) -> Array:
        """(2,) m/s in the world: the model's, or both weighed where the way contradicts it.

        A dozen points an object, some dozens of objects a frame: plain numbers cost less here
        than numpy's calls.
        """
        here_x, here_y = self.trail[-1][1:]
        way: list[tuple[float, float, float]] = []  # seconds, x, y from here; newest first
        for stamp_ns, x, y in reversed(self.trail):
            seconds = (stamp_ns - self.stamp_ns) / 1e9
            if seconds < -_WAY_S:
                break
            way.append((seconds, x - here_x, y - here_y))
        if len(way) < _FEWEST_POINTS or way[0][0] - way[-1][0] < _SHORTEST_WAY_S:
            return of_model
        middle = sum(point[0] for point in way) / len(way)
        spread = sum((point[0] - middle) ** 2 for point in way)
        of_way_x = sum((seconds - middle) * x for seconds, x, _ in way) / spread
        of_way_y = sum((seconds - middle) * y for seconds, _, y in way) / spread
        variance = max(_PLACE_SIGMA_M, _PLACE_SIGMA_SHARE * distance_m) ** 2 / spread
        differs = hypot(of_way_x - of_model[0], of_way_y - of_model[1])
        if differs < _CONTRADICTED * sqrt(variance):
            return of_model
        weight = differs**2 / (differs**2 + variance)  # the model is known to be off by so much
        both: Array = weight * np.array([of_way_x, of_way_y]) + (1 - weight) * of_model
        return both


class Tracker:
    """One `update` per frame.  One thread at a time."""

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self._tracks: list[_Track] = []
        self._born = 0
        self._stamp_ns: int | None = None
        self._seen: list[_Track] = []  # row for row with the detections of the last update

    def update(self, stamp_ns: int, world_from_ego: Array, detections: Detections) -> list[str]:
        """Match detections at `stamp_ns` and pose (4, 4) -> K ids, row for row.

        Ids are unique for the life of this object.  A stamp that is not newer than the last one,
        or one long after it, ends every track.
        """
        if self._stamp_ns is not None and not (
            0 < stamp_ns - self._stamp_ns <= self.config.max_gap_s * 1e9
        ):
            self.reset()
        self._stamp_ns = stamp_ns
        boxes_world = transform_boxes(world_from_ego, detections.boxes)
        known = self._match(stamp_ns, boxes_world, detections.labels)
        tracks = [known.get(row) or self._new_track() for row in range(len(boxes_world))]
        distance = np.linalg.norm(detections.boxes[:, :2], axis=1)
        for row, track in enumerate(tracks):
            track.see(
                stamp_ns,
                boxes_world[row],
                int(detections.labels[row]),
                float(detections.scores[row]),
                float(distance[row]),
            )
        self._seen = tracks
        self._forget(stamp_ns)
        return [track.id for track in tracks]

    def settled(self, world_from_ego: Array, detections: Detections) -> Detections:
        """The detections of the last `update` with class and velocity of their tracks."""
        if not self._seen:
            return detections
        boxes = detections.boxes.copy()
        world = np.stack([track.velocity for track in self._seen])
        boxes[:, BoxCode.VELOCITY] = world @ world_from_ego[:2, :2]
        labels = np.array([track.label for track in self._seen], np.int64)
        return detections._replace(boxes=boxes, labels=labels)

    def trails(self) -> dict[str, Array]:
        """id -> (n, 2) world x, y [m], oldest first, of the objects in the last frame."""
        return {
            track.id: np.array([point[1:] for point in track.trail])
            for track in self._tracks
            if track.stamp_ns == self._stamp_ns
        }

    def reset(self) -> None:
        """End every track."""
        self._tracks, self._seen = [], []
        self._stamp_ns = None

    def _match(self, stamp_ns: int, boxes: Array, labels: Rows) -> dict[int, _Track]:
        """Row of `boxes` -> track."""
        if not self._tracks or not len(boxes):
            return {}
        seconds = np.array([(stamp_ns - track.stamp_ns) / 1e9 for track in self._tracks])
        predicted = np.stack(
            [track.xy + track.velocity * dt for track, dt in zip(self._tracks, seconds)]
        )
        track_labels = np.array([track.label for track in self._tracks])
        distance = np.linalg.norm(predicted[:, None] - boxes[None, :, :2], axis=-1)
        kinds = KIND_OF_LABEL[track_labels]
        gate = _GATES_M[kinds] + _GROWTHS_M_S[kinds] * seconds
        possible = (distance <= gate[:, None]) & (kinds[:, None] == KIND_OF_LABEL[labels][None])
        velocities = np.stack([track.velocity for track in self._tracks])
        seen = np.nan_to_num(boxes[:, BoxCode.VELOCITY])
        turned = np.linalg.norm(velocities[:, None] - seen[None], axis=-1)
        cost = (
            distance
            + np.minimum(_VELOCITY_WEIGHT_S * turned, _MOST_FOR_VELOCITY_M)
            + _OTHER_CLASS_M * (track_labels[:, None] != labels[None])
        )
        rows, columns = linear_sum_assignment(np.where(possible, cost, _IMPOSSIBLE))
        return {
            int(column): self._tracks[row]
            for row, column in zip(rows, columns)
            if possible[row, column]
        }

    def _new_track(self) -> _Track:
        self._born += 1
        track = _Track(str(self._born))
        self._tracks.append(track)
        return track

    def _forget(self, stamp_ns: int) -> None:
        trail_start_ns = stamp_ns - self.config.trail_s * 1e9
        self._tracks = [
            track
            for track in self._tracks
            if stamp_ns - track.stamp_ns <= self.config.max_coast_s * 1e9
        ]
        if len(self._tracks) > self.config.max_tracks:
            self._tracks.sort(key=lambda track: -track.stamp_ns)
            del self._tracks[self.config.max_tracks :]
        for track in self._tracks:
            while len(track.trail) > 1 and track.trail[0][0] < trail_start_ns:
                track.trail.popleft()

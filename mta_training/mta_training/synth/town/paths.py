"""A polyline walked by arc length: what lanes, routes and walking paths are made of.

Points are (n, 2) in metres in the world; arc length s in metres from the first point.
"""

from dataclasses import dataclass

import numpy as np

STEP_M = 0.5


def resample(points, step=STEP_M):
    """(m, 2) points on the polyline (n, 2), evenly spaced by about `step` metres."""
    points = np.asarray(points, dtype=np.float64)
    lengths = np.hypot(*np.diff(points, axis=0).T)
    keep = np.r_[True, lengths > 1e-9]
    points, s = points[keep], np.r_[0.0, np.cumsum(lengths[lengths > 1e-9])]
    count = max(2, int(round(s[-1] / step)) + 1)
    even = np.linspace(0.0, s[-1], count)
    return np.stack([np.interp(even, s, points[:, 0]), np.interp(even, s, points[:, 1])], axis=1)


def normals(points):
    """(n, 2) unit normals to the left of the direction of travel."""
    tangent = np.gradient(points, axis=0)
    tangent /= np.maximum(np.hypot(*tangent.T)[:, None], 1e-9)
    return np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def offset(points, left):
    """The polyline moved `left` metres to its left (scalar or one value a point)."""
    return points + normals(points) * np.broadcast_to(left, len(points))[:, None]


def ribbon(points, left, right):
    """Counter-clockwise polygon between two left offsets (left > right) of a polyline."""
    return np.concatenate([offset(points, right), offset(points, left)[::-1]])


def bezier(start, start_direction, end, end_direction, reach=0.55):
    """(n, 2) cubic from start to end with the given unit directions, for turns in a junction."""
    distance = np.hypot(*(end - start))
    a, b = (
        start + start_direction * distance * reach * 0.75,
        end - end_direction * distance * reach * 0.75,
    )
    t = np.linspace(0.0, 1.0, max(8, int(distance / STEP_M) * 2))[:, None]
    return (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 * end


@dataclass(frozen=True)
class Path:
    """Evenly spaced points (n, 2); beyond either end it goes on straight."""

    points: np.ndarray
    step: float

    @staticmethod
    def through(points):
        """Path along the polyline `points`."""
        even = resample(points)
        return Path(even, float(np.hypot(*(even[1:] - even[:-1]).T).sum() / (len(even) - 1)))

    @property
    def length(self):
        return self.step * (len(self.points) - 1)

    def at(self, s):
        """Points (..., 2) at arc lengths s (...)."""
        position = np.asarray(s, dtype=np.float64) / self.step
        index = np.clip(np.floor(position).astype(int), 0, len(self.points) - 2)
        fraction = (position - index)[..., None]
        return self.points[index] * (1 - fraction) + self.points[index + 1] * fraction

    def chord(self, s, length):
        """Centre (..., 2) and heading (...) of a stick of `length` metres both of whose ends lie
        on the path, its middle at s: how a body on two axles stands in a bend."""
        half = max(length, 0.2) / 2
        front, rear = self.at(np.asarray(s) + half), self.at(np.asarray(s) - half)
        along = front - rear
        return (front + rear) / 2, np.arctan2(along[..., 1], along[..., 0])

    def curvature(self):
        """(n,) signed curvature [1/m], positive to the left, averaged over about three metres."""
        heading = np.unwrap(np.arctan2(*np.gradient(self.points, axis=0).T[::-1]))
        raw = np.gradient(heading) / self.step
        width = 2 * max(1, int(1.5 / self.step)) + 1
        return np.convolve(
            np.pad(raw, width // 2, mode='edge'), np.full(width, 1 / width), 'valid'
        )

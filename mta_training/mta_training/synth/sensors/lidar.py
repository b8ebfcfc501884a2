"""A 32-beam lidar on the ego's roof: rays against the ground, houses and the objects' boxes.

Boxes stand for objects: points lie on the boxes' faces, so counts are an upper estimate.
"""

import numpy as np

from mta_perception.geometry import invert_rigid

AZIMUTHS = 1084
ELEVATIONS = np.deg2rad(np.linspace(-30.67, 10.67, 32))
REACH_M = 70.0


def _box_ranges(origin, centre, yaw, half, columns, rows):
    """Ranges (rows, columns) at which rays hit an upright box; inf where they miss."""
    c, s = np.cos(yaw), np.sin(yaw)
    local = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    start = local @ (origin - centre)
    azimuth = 2 * np.pi * columns / AZIMUTHS - yaw
    elevation = ELEVATIONS[rows][:, None]
    near, far = np.full((len(rows), len(columns)), 0.0), np.full((len(rows), len(columns)), np.inf)
    directions = (
        np.cos(elevation) * np.cos(azimuth),
        np.cos(elevation) * np.sin(azimuth),
        np.sin(elevation) + 0.0 * azimuth,
    )
    for k, direction in enumerate(directions):
        safe = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
        a, b = (-half[k] - start[k]) / safe, (half[k] - start[k]) / safe
        near, far = np.maximum(near, np.minimum(a, b)), np.minimum(far, np.maximum(a, b))
    return np.where((near < far) & (near > 0.0), near, np.inf)


class Scan:
    """One turn of the lidar.

    ranges  (32, 1084) metres, inf where nothing is within reach; column k looks at world azimuth
            2 pi k / 1084
    owners  (32, 1084) instance hit; 0 = ground or house
    """

    def __init__(self, origin, states, buildings):
        self.origin = np.asarray(origin, dtype=np.float64)
        down = np.sin(ELEVATIONS)
        ground = np.where(down < -1e-3, -origin[2] / np.minimum(down, -1e-3), np.inf)
        self.ranges = np.repeat(ground[:, None], AZIMUTHS, axis=1)
        self.owners = np.zeros((len(ELEVATIONS), AZIMUTHS), dtype=np.int32)
        for building in buildings:
            middle = building.footprint.mean(axis=0)
            if np.hypot(*(middle - origin[:2])) < REACH_M + 20.0:
                self._add(middle, building.footprint, building.height, 0)
        for state in states:
            middle = state.world_from_object[:2, 3]
            if np.hypot(*(middle - origin[:2])) < REACH_M:
                length, width, height = state.size
                along, across = (state.world_from_object[:2, k] for k in (0, 1))
                footprint = np.array(
                    [
                        middle + along * i * length / 2 + across * j * width / 2
                        for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))
                    ]
                )
                self._add(middle, footprint, height, state.instance)

    def _add(self, middle, footprint, height, owner):
        side = footprint[1] - footprint[0]
        half = np.array([np.hypot(*side), np.hypot(*(footprint[2] - footprint[1])), height]) / 2
        centre = np.array([*middle, height / 2])
        away = footprint - self.origin[:2]
        distance = np.maximum(np.hypot(*away.T), 0.3)
        towards = np.arctan2(*(middle - self.origin[:2])[::-1])
        spread = (np.arctan2(away[:, 1], away[:, 0]) - towards + np.pi) % (2 * np.pi) - np.pi
        first, last = (
            int(np.floor((towards + e) * AZIMUTHS / (2 * np.pi)))
            for e in (spread.min(), spread.max())
        )
        columns = np.arange(first, last + 2) % AZIMUTHS
        # Elevations between its foot at the nearest point and its top at the nearest or farthest
        # one.
        axes = np.stack([side / (2 * half[0]), (footprint[2] - footprint[1]) / (2 * half[1])])
        beside = np.maximum(np.abs(axes @ (self.origin[:2] - middle)) - half[:2], 0.0)
        nearest = max(float(np.hypot(*beside)), 0.3)
        above = height - self.origin[2]
        low = np.arctan2(-self.origin[2], nearest)
        high = np.arctan2(above, nearest if above > 0 else distance.max())
        rows = np.flatnonzero((ELEVATIONS >= low - 0.03) & (ELEVATIONS <= high + 0.03))
        if not len(rows):
            return
        hit = _box_ranges(self.origin, centre, np.arctan2(side[1], side[0]), half, columns, rows)
        nearer = hit < self.ranges[np.ix_(rows, columns)]
        at = np.ix_(rows, columns)
        self.ranges[at] = np.where(nearer, hit, self.ranges[at])
        self.owners[at] = np.where(nearer, owner, self.owners[at])

    def counts(self):
        """dict instance -> number of points on it."""
        instances, numbers = np.unique(self.owners[self.ranges < REACH_M], return_counts=True)
        return dict(zip(instances.tolist(), numbers.tolist()))

    def points(self, world_from_lidar):
        """(n, 5) float32 as nuScenes stores them: x, y, z in the lidar frame, intensity, ring."""
        rows, columns = np.nonzero(self.ranges < REACH_M)
        reach = self.ranges[rows, columns][:, None]
        azimuth, elevation = 2 * np.pi * columns / AZIMUTHS, ELEVATIONS[rows]
        direction = np.stack(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ],
            axis=1,
        )
        lidar_from_world = invert_rigid(world_from_lidar)
        points = (self.origin + direction * reach) @ lidar_from_world[:3, :3].T + lidar_from_world[
            :3, 3
        ]
        intensity = np.where(self.owners[rows, columns] > 0, 40.0, 12.0)
        return np.concatenate([points, intensity[:, None], rows[:, None]], axis=1).astype(
            np.float32
        )

"""What the sensors see of each object at a keyframe: pixels, visible share, lidar points."""

from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.geometry import BOX_EDGES, box_corners, invert_rigid, yaw_from_rigid

NEAR_M = 0.1

# Least and most of a box's outline in the image that its object fills when nothing hides it:
# measured on rendered frames (20th and 90th percentile); it depends on the mesh and the direction.
FILL = {
    'car': (0.62, 0.75),
    'truck': (0.7, 0.88),
    'bus': (0.78, 0.86),
    'trailer': (0.72, 0.88),
    'construction_vehicle': (0.36, 0.48),
    'motorcycle': (0.3, 0.44),
    'bicycle': (0.24, 0.34),
    'pedestrian': (0.3, 0.46),
    'traffic_cone': (0.36, 0.48),
    'barrier': (0.3, 0.9),
}

# Visibility tokens of nuScenes: 0-40, 40-60, 60-80, 80-100 %.
_LEVELS = ((0.4, '1'), (0.6, '2'), (0.8, '3'), (np.inf, '4'))


class Sight(NamedTuple):
    """One object in the six images of a keyframe."""

    pixels: int  # visible in all cameras together
    area: float  # of its box's outlines in all images together [px]
    best_camera: str  # where most of it is seen
    rectangle: tuple  # x1, y1, x2, y2 of its box in that image [px], clipped


def fill_share(class_name, sights):
    """The share of its box's outline that an object fills unhidden: the best of its Sights, within
    what its class allows."""
    low, high = FILL[class_name]
    return float(np.clip(max(sight.pixels / max(sight.area, 1.0) for sight in sights), low, high))


def visibility(sight, fill):
    """nuScenes visibility token of a Sight of an object with that `fill_share`."""
    visible = sight.pixels / max(sight.area * fill, 1.0)
    return next(token for limit, token in _LEVELS if visible < limit)


def world_corners(state):
    """(8, 3) corners of an ObjectState's box in the world."""
    length, width, height = state.size
    x, y, z = state.world_from_object[:3, 3]
    yaw = yaw_from_rigid(state.world_from_object)
    return box_corners(
        np.array(
            [[x, y, z + height / 2, length, width, height, np.sin(yaw), np.cos(yaw), 0.0, 0.0]]
        )
    )[0]


def outline(corners_camera, calibration):
    """Convex outline (n, 2) float32 of a box (8, 3) in the camera frame, clipped to the image;
    None where none of it is in view."""
    depth = corners_camera[:, 2]
    if (depth <= NEAR_M).all():
        return None
    points = corners_camera[depth > NEAR_M]
    if len(points) < 8:
        a, b = corners_camera[BOX_EDGES[:, 0]], corners_camera[BOX_EDGES[:, 1]]
        crosses = (a[:, 2] > NEAR_M) != (b[:, 2] > NEAR_M)
        a, b = a[crosses], b[crosses]
        share = (NEAR_M - a[:, 2]) / (b[:, 2] - a[:, 2])
        points = np.concatenate([points, a + share[:, None] * (b - a)])
    pixels = (
        points[:, :2] / points[:, 2:] * calibration.intrinsics[0, 0]
        + calibration.intrinsics[:2, 2]
    )
    width, height = calibration.width, calibration.height
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    if high[0] < 0 or high[1] < 0 or low[0] > width - 1 or low[1] > height - 1:
        return None
    hull = cv2.convexHull(np.clip(pixels, -1e5, 1e5).astype(np.float32))
    frame = np.array(
        [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=np.float32
    )
    area, clipped = cv2.intersectConvexConvex(hull, frame)
    return None if area <= 0 or clipped is None else clipped.reshape(-1, 2)


def look(views, renderings, states_at):
    """Sights of one keyframe: dict instance -> Sight.

    views       dict camera -> (CameraCalibration, world_from_camera (4, 4))
    renderings  dict camera -> Rendering
    states_at   dict camera -> ObjectStates at that camera's stamp
    """
    pixels, areas, best = {}, {}, {}
    for camera, (calibration, world_from_camera) in views.items():
        counts = np.bincount(renderings[camera].instances.ravel())
        camera_from_world = invert_rigid(world_from_camera)
        for state in states_at[camera]:
            corners = world_corners(state) @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
            shape = outline(corners, calibration)
            if shape is None:
                continue
            key = state.instance
            seen = int(counts[key]) if key < len(counts) else 0
            pixels[key] = pixels.get(key, 0) + seen
            area = float(cv2.contourArea(shape))
            areas[key] = areas.get(key, 0.0) + area
            if (seen, area) > best.get(key, ((-1, -1.0),))[0]:
                low, high = shape.min(axis=0), shape.max(axis=0)
                best[key] = (seen, area), camera, tuple(round(float(v), 1) for v in (*low, *high))
    return {key: Sight(pixels[key], areas[key], *best[key][1:]) for key in pixels}

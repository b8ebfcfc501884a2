"""Overlay: time against what is on it; baseline is the picture without any box."""

from functools import partial

import numpy as np
from report import Row, report, timed

from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.drawing.bev_panel import SECTORS
from mta_perception.drawing.overlay import DrawnObject, draw_overlay
from mta_perception.geometry import invert_rigid, rigid, rigid_from_yaw

OPTICAL_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def rig(width, height):
    """Noise images and image_from_ego of six cameras that look around."""
    rng = np.random.default_rng(0)
    images, matrices = {}, {}
    for camera in CAMERAS:
        images[camera] = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        ego_from_camera = rigid_from_yaw(np.radians(SECTORS[camera][0]), (1.0, 0.0, 1.5)) @ rigid(
            OPTICAL_AXES, np.zeros(3)
        )
        focal = 0.79 * width
        intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        matrices[camera] = intrinsics @ invert_rigid(ego_from_camera)[:3]
    return images, matrices


def objects(count):
    rng = np.random.default_rng(1)
    found = []
    for k in range(count):
        angle, distance, yaw = rng.uniform(0, 2 * np.pi), rng.uniform(5, 50), rng.uniform(-3, 3)
        box = np.array(
            [
                distance * np.cos(angle),
                distance * np.sin(angle),
                0.8,
                4.2,
                1.9,
                1.6,
                np.sin(yaw),
                np.cos(yaw),
                *rng.uniform(-5, 5, 2),
            ]
        )
        found.append(
            DrawnObject(
                box,
                CLASSES[k % len(CLASSES)],
                0.6,
                str(k),
                'a car that drives ahead of us, about twenty metres away',
            )
        )
    return found


def main():
    half, half_matrices = rig(800, 450)
    full, full_matrices = rig(1600, 900)
    rows = [Row('no boxes, 800x450', timed(lambda: draw_overlay(half, half_matrices, []), 20))]
    for count in (10, 30, 100):
        shown = objects(count)
        rows.append(
            Row(
                f'{count} boxes, 800x450',
                timed(partial(draw_overlay, half, half_matrices, shown), 20),
            )
        )
    shown = objects(30)
    rows.append(
        Row('30 boxes, 1600x900', timed(lambda: draw_overlay(full, full_matrices, shown), 20))
    )
    report('Overlay, 1600 pixels wide', rows)


if __name__ == '__main__':
    main()

"""Toy drives for the training tests: flat-shaded boxes on a plane, drawn straight at model
size."""

import cv2
import numpy as np

from mta_perception.contract import CLASSES
from mta_perception.geometry import (
    box_corners,
    invert_rigid,
    project,
    rigid_from_yaw,
    transform_boxes,
)
from mta_training.data.scene_arrays import SceneArrays
from mta_training.export.graphs import surround_view

KINDS = {
    'car': (4.6, 1.9, 1.6),
    'truck': (8.0, 2.5, 3.2),
    'pedestrian': (0.7, 0.7, 1.75),
    'traffic_cone': (0.4, 0.4, 0.9),
    'bus': (11.0, 2.9, 3.4),
}
COLOURS = {
    'red': (200, 30, 30),
    'blue': (30, 50, 200),
    'white': (235, 235, 235),
    'green': (30, 160, 50),
}
SECTORS = (
    'front',
    'front left',
    'left',
    'back left',
    'back',
    'back right',
    'right',
    'front right',
)
_FACES = ((0, 1, 2, 3), (4, 5, 6, 7), (0, 3, 7, 4), (1, 2, 6, 5), (0, 1, 5, 4))


def toy_caption(colour, label, box):
    """A sentence of the form the real captions have."""
    sector = SECTORS[int(np.round(np.arctan2(box[1], box[0]) / (np.pi / 4))) % 8]
    motion = 'moving' if np.hypot(box[8], box[9]) > 0.5 else 'not moving'
    return (
        f'{colour} {CLASSES[label].replace("_", " ")} about {np.hypot(box[0], box[1]):.0f} '
        f'meters away in the {sector} of the ego car is {motion}'
    )


def toy_scene(config, frames=4, objects=10, seed=0):
    """SceneArrays of one drive with a moving, turning ego."""
    rng = np.random.default_rng(seed)
    world, names = _objects(rng, objects)
    colours = [rng.choice(list(COLOURS)) for _ in names]
    labels = np.array([CLASSES.index(name) for name in names], np.int64)
    image_from_ego = surround_view(config.image)
    speed, turn = rng.uniform(0, 8), rng.uniform(-0.1, 0.1)
    images, poses, boxes, captions, kept = [], [], [], [], []
    for frame in range(frames):
        seconds = 0.5 * frame
        world_from_ego = rigid_from_yaw(turn * seconds, (speed * seconds, 0.0, 0.0))
        moved = world.copy()
        moved[:, :2] += world[:, 8:10] * seconds
        ego_boxes = transform_boxes(invert_rigid(world_from_ego), moved).astype(np.float32)
        images.append(_draw(config.image, image_from_ego, ego_boxes, colours))
        poses.append(world_from_ego)
        inside = (np.abs(ego_boxes[:, :2]) < 50.0).all(1)
        boxes.append(ego_boxes[inside])
        kept.append(labels[inside])
        captions.append(
            [toy_caption(colours[i], labels[i], ego_boxes[i]) for i in np.flatnonzero(inside)]
        )
    return SceneArrays(
        name=f'toy-{seed}',
        images=np.stack(images),
        present=np.ones((frames, 6), bool),
        image_from_ego=np.repeat(image_from_ego[None], frames, 0),
        world_from_ego=np.stack(poses),
        sample_tokens=[f'{seed}-{i}' for i in range(frames)],
        boxes=boxes,
        labels=kept,
        captions=captions,
        stamps_ns=np.arange(frames) * 500_000_000,
    )


def _objects(rng, count):
    """World boxes (n, 10) that keep apart from each other and the ego, and their class names."""
    rows, names = [], []
    while len(rows) < count:
        xy = rng.uniform(-40, 40, 2)
        name = str(rng.choice(list(KINDS)))
        if np.hypot(*xy) < 6 or any(np.hypot(*(xy - row[:2])) < 6 for row in rows):
            continue
        size = np.array(KINDS[name]) * rng.uniform(0.9, 1.1)
        yaw = rng.uniform(-np.pi, np.pi)
        speed = rng.choice([0.0, rng.uniform(1, 8)]) if name != 'traffic_cone' else 0.0
        rows.append(
            [
                *xy,
                size[2] / 2,
                *size,
                np.sin(yaw),
                np.cos(yaw),
                speed * np.cos(yaw),
                speed * np.sin(yaw),
            ]
        )
        names.append(name)
    return np.array(rows), names


def _draw(image, image_from_ego, boxes, colours):
    """(6, H, W, 3) uint8 views of the boxes, far ones first."""
    views = []
    order = np.argsort(-np.hypot(boxes[:, 0], boxes[:, 1]))
    corners = box_corners(boxes)
    for matrix in image_from_ego:
        view = np.full((image.height, image.width, 3), (110, 110, 115), np.uint8)
        view[: image.height // 2] = 165, 195, 230
        for index in order:
            pixels, depth = project(matrix, corners[index])
            if (depth < 0.3).any():
                continue
            _draw_box(view, pixels, depth, np.array(COLOURS[colours[index]]))
        views.append(view)
    return np.stack(views)


def _draw_box(view, pixels, depth, colour):
    shades = (1.0, 0.45, 0.8, 0.8, 0.9)
    for face, shade in sorted(zip(_FACES, shades), key=lambda pair: -depth[list(pair[0])].mean()):
        points = np.clip(pixels[list(face)], -4000, 4000).round().astype(np.int32)
        cv2.fillConvexPoly(view, points, tuple(int(c * shade) for c in colour), cv2.LINE_AA)

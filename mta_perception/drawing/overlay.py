"""The picture people look at: six cameras with projected boxes, bird's-eye view, captions.

in   images          camera -> (h, w, 3) uint8 RGB, any subset of contract.CAMERAS
     image_from_ego  camera -> (3, 4), pixels of *those* images from metres in the ego frame
out  (H, W, 3) uint8 RGB, W as asked for

Layout, as nuScenes draws it: front left, front, front right; below back left, back, back right;
below that the bird's-eye view (forward is up) and the captions, nearest first.  Needs no ROS.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_perception.contract import CAMERAS, CLASS_COLOURS
from mta_perception.detections import SURE_SCORE
from mta_perception.drawing.bev_panel import Box, draw_bird_eye, draw_captions
from mta_perception.drawing.lettering import Colour, draw_text, text_width, wrap
from mta_perception.frames import Pixels
from mta_perception.geometry import BOX_EDGES, Array, box_corners

ROWS = (
    ('cam_front_left', 'cam_front', 'cam_front_right'),
    ('cam_back_left', 'cam_back', 'cam_back_right'),
)
GROUND_TRUTH_COLOUR = (0, 235, 235)

NEAR_M = 0.2
SUB_PIXEL_BITS = 4


class DrawnObject(NamedTuple):
    """One box with all that is written about it."""

    box: Box  # (10,) contract.BoxCode, ego frame
    class_name: str  # one of contract.CLASSES
    score: float  # 0..1
    track_id: str  # '' where there is none
    caption: str  # '' where there is none


def draw_overlay(
    images: Mapping[str, Pixels | None],
    image_from_ego: Mapping[str, NDArray[np.floating[Any]]],
    objects: Iterable[DrawnObject],
    ground_truth: Sequence[DrawnObject] = (),
    trails: Mapping[str, Array] | None = None,
    header: str = '',
    width: int = 1600,
    objects_are: str = 'predicted',
) -> Pixels:
    """The whole picture; see the head of this file.

    objects, ground_truth: DrawnObject, ego frame at the stamp shown.  trails: track_id -> (n, 2)
    past positions in the same ego frame, oldest first.  objects_are: their word in the legend.
    Objects below SURE_SCORE are published for those who weigh scores, but not drawn.
    A camera without an image shows 'no image' and its sector is shaded in the bird's-eye view.
    """
    tile_w, tile_h = width // 3, (width // 3) * 9 // 16
    bar_h, panel_h = max(28, width // 40), 2 * (width * 13 // 80)
    height = (bar_h + 2 * tile_h + panel_h + 1) // 2 * 2  # video codecs want even sizes
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    objects = [item for item in objects if item.score >= SURE_SCORE]
    _draw_header(canvas[:bar_h], header, f'{objects_are} {len(objects)}', len(ground_truth))
    for row, cameras in enumerate(ROWS):
        for column, camera in enumerate(cameras):
            top, left = bar_h + row * tile_h, column * tile_w
            tile = canvas[top : top + tile_h - 2, left : left + tile_w - 2]
            _draw_camera(
                tile, camera, images.get(camera), image_from_ego.get(camera), objects, ground_truth
            )
    missing = [camera for camera in CAMERAS if images.get(camera) is None]
    panel = canvas[bar_h + 2 * tile_h : bar_h + 2 * tile_h + panel_h]
    bev_w = panel_h + panel_h // 8
    draw_bird_eye(
        panel[:, : bev_w - 2], objects, ground_truth, trails or {}, missing, GROUND_TRUTH_COLOUR
    )
    draw_captions(panel[:, bev_w:], objects)
    return canvas


def _draw_header(bar: Pixels, header: str, objects_legend: str, n_ground_truth: int) -> None:
    """Title at the left, legend of the box colours at the right."""
    size = max(11, bar.shape[0] * 2 // 5)
    y = (bar.shape[0] - size) // 2 - 2
    legend = [(objects_legend, CLASS_COLOURS['car'])]
    if n_ground_truth:
        legend.append((f'ground truth {n_ground_truth}', GROUND_TRUTH_COLOUR))
    x = bar.shape[1] - 12
    for text, colour in reversed(legend):
        x -= text_width(text, size)
        draw_text(bar, text, (x, y), size, (200, 205, 212))
        x -= size + 6
        middle = bar.shape[0] // 2
        cv2.rectangle(bar, (x, middle - size // 2), (x + size, middle + size // 2), colour, 2)
        x -= 20
    for line in wrap(header, size, int(0.9 * (x - 24)), max_lines=1):  # bold runs wider
        draw_text(bar, line, (12, y), size, (235, 238, 242), bold=True)


def _draw_camera(
    tile: Pixels,
    camera: str,
    image: Pixels | None,
    image_from_ego: ArrayLike | None,
    objects: Sequence[DrawnObject],
    ground_truth: Sequence[DrawnObject],
) -> None:
    """One camera's tile: the image resized in, ground truth thin, predictions on top."""
    name = camera.removeprefix('cam_').replace('_', ' ')
    if image is None:
        _draw_no_image(tile, name)
        return
    tile_h, tile_w = tile.shape[:2]
    scale = np.array([tile_w / image.shape[1], tile_h / image.shape[0]])
    # Bilinear reads a 2x2 patch: enough down to half the size, and four times faster than area.
    cv2.resize(
        image,
        (tile_w, tile_h),
        dst=tile,
        interpolation=cv2.INTER_AREA if scale.min() < 0.5 else cv2.INTER_LINEAR,
    )
    if image_from_ego is not None:
        # Pixel centre i is at i: a scaled image keeps its *borders*, which lie at -0.5.
        tile_from_image: Array = np.array(
            [[scale[0], 0, 0.5 * scale[0] - 0.5], [0, scale[1], 0.5 * scale[1] - 0.5], [0, 0, 1]]
        )
        tile_from_ego = tile_from_image @ np.asarray(image_from_ego, dtype=np.float64)
        draw_boxes(tile, tile_from_ego, ground_truth, colour=GROUND_TRUTH_COLOUR, labels=False)
        draw_boxes(tile, tile_from_ego, objects)
    size = max(10, tile_w // 42)
    label_w = text_width(name, size, bold=True) + 12
    corner = tile[: size + 10, :label_w]
    corner[:] = corner // 3
    draw_text(tile, name, (6, 3), size, (255, 255, 255), bold=True)


def _draw_no_image(tile: Pixels, name: str) -> None:
    tile[:] = (34, 36, 42)
    h, w = tile.shape[:2]
    for x in range(-h, w, 28):
        cv2.line(tile, (x, h), (x + h, 0), (44, 47, 54), 2, cv2.LINE_AA)
    size = max(12, w // 24)
    for row, (text, colour) in enumerate([('no image', (230, 120, 110)), (name, (150, 155, 162))]):
        x = (w - text_width(text, size, bold=True)) // 2
        draw_text(tile, text, (x, h // 2 + int((row - 1) * 1.4 * size)), size, colour, bold=True)


def draw_boxes(
    image: Pixels,
    image_from_ego: Array,
    objects: Sequence[DrawnObject],
    colour: Colour | None = None,
    labels: bool = True,
) -> None:
    """Draw the wireframes of `objects` into `image` (h, w, 3), in place, far ones first.

    The front face is tinted and thicker.  colour None takes the class's; labels writes class and
    track id above what can be seen of the box.
    """
    if not len(objects):
        return
    h, w = image.shape[:2]
    boxes = np.stack([np.asarray(item.box, dtype=np.float64) for item in objects])
    homogeneous = box_corners(boxes) @ image_from_ego[:, :3].T + image_from_ego[:, 3]  # (K, 8, 3)
    near_last = np.argsort(-homogeneous[..., 2].mean(axis=1))
    segments, owners = visible_segments(homogeneous, (w, h))
    pieces = {k: segments[owners == k] for k in near_last}
    visible = [k for k in near_last if len(pieces[k])]
    thickness = max(1, round(w / 400)) if labels else 1
    if labels:
        _tint_front_faces(
            image,
            [homogeneous[k, :4] for k in visible],
            [_colour(objects[k], colour) for k in visible],
        )
    for k in visible:
        _draw_segments(image, pieces[k], _colour(objects[k], colour), thickness)
    if labels:
        _draw_labels(
            image,
            [(objects[k], pieces[k], _colour(objects[k], colour)) for k in reversed(visible)],
        )


def _colour(item: DrawnObject, colour: Colour | None) -> Colour:
    return colour if colour is not None else CLASS_COLOURS[item.class_name]


def visible_segments(
    homogeneous: Array, image_size: tuple[int, int]
) -> tuple[Array, NDArray[np.intp]]:
    """The parts of the boxes' edges that the image shows: (n, 2, 2) pixels, (n,) index of the box.

    homogeneous: (K, 8, 3) corners times the projection matrix, depth last.  Edges are cut at
    NEAR_M in front of the camera first (the pixels of a point behind it mean nothing), then at
    the border of the image of `image_size` (width, height).
    """
    ends = homogeneous[:, BOX_EDGES].reshape(-1, 2, 3)  # (K * 12, 2, 3)
    owners = np.repeat(np.arange(len(homogeneous)), len(BOX_EDGES))
    ends, owners = _cut(ends, owners, ends[..., 2] - NEAR_M)
    ends = ends[..., :2] / ends[..., 2:]
    for axis, size in enumerate(image_size):
        ends, owners = _cut(ends, owners, ends[..., axis] + 0.5)
        ends, owners = _cut(ends, owners, size - 0.5 - ends[..., axis])
    return ends, owners


def _cut(ends: Array, owners: NDArray[np.intp], inside: Array) -> tuple[Array, NDArray[np.intp]]:
    """Keep of each segment (n, 2, D) the part on the positive side of a plane, drop the rest.

    inside: (n, 2) signed distance of the two ends.
    """
    keep = (inside > 0).any(axis=1)
    ends, owners, inside = ends[keep], owners[keep], inside[keep]
    span = inside[:, 0] - inside[:, 1]
    fraction = inside[:, 0] / np.where(span == 0, 1.0, span)
    crossing = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * fraction[:, None]
    return np.where((inside > 0)[..., None], ends, crossing[:, None]), owners


def _fixed_point(pixels: ArrayLike) -> NDArray[np.int32]:
    rounded: Array = np.round(np.asarray(pixels) * (1 << SUB_PIXEL_BITS))
    return rounded.astype(np.int32)


def _draw_segments(image: Pixels, segments: Array, colour: Colour, thickness: int) -> None:
    cv2.polylines(
        image, list(_fixed_point(segments)), False, colour, thickness, cv2.LINE_AA, SUB_PIXEL_BITS
    )


def _tint_front_faces(
    image: Pixels, faces: Sequence[Array], colours: Sequence[Colour], strength: float = 0.35
) -> None:
    """Blend front faces ((4, 3) homogeneous) over the image; not those cut by the near plane."""
    whole = [
        (face[:, :2] / face[:, 2:], colour)
        for face, colour in zip(faces, colours)
        if (face[:, 2] > NEAR_M).all()
    ]
    h, w = image.shape[:2]
    for polygon, colour in whole:
        # Far outside the picture fixed-point coordinates would overflow.
        polygon = np.clip(polygon, -2.0 * max(h, w), 3.0 * max(h, w))
        low = np.maximum(np.floor(polygon.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(polygon.max(axis=0)).astype(int) + 1, [w, h])
        if (low >= high).any():
            continue
        part = image[low[1] : high[1], low[0] : high[0]]
        filled = part.copy()
        cv2.fillConvexPoly(
            filled, _fixed_point(polygon - low), colour, cv2.LINE_AA, SUB_PIXEL_BITS
        )
        part[:] = cv2.addWeighted(filled, strength, part, 1 - strength, 0)


def _draw_labels(image: Pixels, entries: Iterable[tuple[DrawnObject, Array, Colour]]) -> None:
    """Class and id on a plate over each box; entries (object, segments, colour), near ones first.

    Too small boxes and plates that would cover a nearer one's are left out.
    """
    size = max(9, image.shape[1] // 52)
    taken: list[tuple[int, int, int, int]] = []
    for item, segments, colour in entries:
        low, high = segments.min(axis=(0, 1)), segments.max(axis=(0, 1))
        if high[1] - low[1] < image.shape[0] / 24:
            continue
        text = f'{item.class_name.replace("_", " ")} {item.track_id}'.strip()
        w, h = text_width(text, size) + 6, size + 5
        x = int(np.clip(low[0], 0, max(0, image.shape[1] - w)))
        y = int(np.clip(low[1] - h - 1, 0, max(0, image.shape[0] - h)))
        if any(
            x < right and left < x + w and y < bottom and top < y + h
            for left, top, right, bottom in taken
        ):
            continue
        taken.append((x, y, x + w, y + h))
        plate = image[y : y + h, x : x + w]
        plate[:] = (plate * 0.25 + np.asarray(colour) * 0.5).astype(np.uint8)
        draw_text(image, text, (x + 3, y), size, (255, 255, 255))

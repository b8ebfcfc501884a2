"""The picture of an answer: six cameras with its boxes, bird's-eye view with its mask and track,
question and answer in words, and a bar of the time that was looked at.  RGB uint8.  Needs no ROS.

What the detector found is drawn thin, what the answer shows in the colour of its class.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mta_perception.answers import Answer
from mta_perception.contract import CAMERAS
from mta_perception.drawing.bev_panel import PANEL, TINT, draw_bird_eye, tint_cells
from mta_perception.drawing.lettering import draw_text, line_height, text_width, wrap
from mta_perception.drawing.overlay import ROWS, DrawnObject, draw_boxes
from mta_perception.frames import Pixels
from mta_perception.geometry import Array
from mta_perception.sentences import short_form

SEEN_COLOUR = (120, 128, 140)
LIGHT, DIM = (235, 238, 242), (150, 156, 166)
_MARGIN = 24
_BAR_H = 34  # pixels of the time bar


def draw_answer(
    question: str,
    answer: Answer,
    images: Mapping[str, Pixels],
    image_from_ego: Mapping[str, NDArray[np.floating[Any]]],
    seen: Sequence[DrawnObject],
    half_extent_m: float,
    width: int = 1600,
) -> Pixels:
    """(H, width, 3) RGB of an answer about the frame whose images are given.

    seen: the detections of that frame.  half_extent_m: of the mask's square.
    """
    tile_w, tile_h = width // 3, (width // 3) * 9 // 16
    bottom_h = width * 3 // 8
    canvas = np.zeros((2 * tile_h + bottom_h, width, 3), np.uint8)
    shown = _shown(answer)
    for row, cameras in enumerate(ROWS):
        for column, camera in enumerate(cameras):
            tile = canvas[row * tile_h :, column * tile_w :][: tile_h - 2, : tile_w - 2]
            _draw_camera(tile, camera, images, image_from_ego, shown)
    panel = canvas[2 * tile_h :]
    ground = panel[:, :bottom_h]
    missing = [camera for camera in CAMERAS if camera not in images]
    trails: dict[str, Array] = {}
    if answer.path is not None:
        trails[shown[0].track_id if shown else ''] = answer.path[:, :2].astype(np.float64)
    draw_bird_eye(ground, shown, seen, trails, missing, SEEN_COLOUR)
    if answer.mask is not None:
        tint_cells(ground, answer.mask, half_extent_m)
    _draw_words(panel[:, bottom_h + 2 :], question, answer)
    return canvas


def _shown(answer: Answer) -> list[DrawnObject]:
    """Boxes of now: those of the answer, and the track's where it is seen now."""
    now = [one for one in answer.track if one.stamp_ns == answer.stamp_ns]
    return [
        DrawnObject(one.box, one.label, 1.0, one.track_id, '') for one in (*answer.boxes, *now)
    ]


def _draw_camera(
    tile: Pixels,
    camera: str,
    images: Mapping[str, Pixels],
    image_from_ego: Mapping[str, NDArray[np.floating[Any]]],
    shown: Sequence[DrawnObject],
) -> None:
    size = max(10, tile.shape[1] // 42)
    name = camera.removeprefix('cam_').replace('_', ' ')
    if camera not in images:
        tile[:] = PANEL
        draw_text(tile, f'{name}: no image', (6, 3), size, DIM, bold=True)
        return
    image = images[camera]
    scale = np.array([tile.shape[1] / image.shape[1], tile.shape[0] / image.shape[0]])
    tile[:] = cv2.resize(image, (tile.shape[1], tile.shape[0]), interpolation=cv2.INTER_AREA)
    # Pixel centre i is at i: a scaled image keeps its *borders*, which lie at -0.5.
    tile_from_image: Array = np.diag([*scale, 1.0])
    tile_from_image[:2, 2] = 0.5 * scale - 0.5
    matrix: Array = tile_from_image @ np.asarray(image_from_ego[camera], dtype=np.float64)
    draw_boxes(tile, matrix, shown)
    tile[: size + 10, : text_width(name, size, bold=True) + 12] //= 3
    draw_text(tile, name, (6, 3), size, (255, 255, 255), bold=True)


def _draw_words(panel: Pixels, question: str, answer: Answer) -> None:
    panel[:] = PANEL
    size = max(12, panel.shape[0] // 22)
    inner, y = panel.shape[1] - 2 * _MARGIN, _MARGIN
    for line in wrap(question, size, inner, max_lines=3):
        draw_text(panel, line, (_MARGIN, y), size, LIGHT, bold=True)
        y += line_height(size)
    y += size // 2
    said = answer.text if answer.why_not is None else f'{answer.text} ({answer.why_not})'
    for line in wrap(said, size, inner, max_lines=4):
        draw_text(panel, line, (_MARGIN, y), size, TINT)
        y += line_height(size)
    y += size // 2
    for one in answer.boxes:
        text = f'{short_form(one.label, one.box)}, score {one.score:.2f}'
        draw_text(panel, text, (_MARGIN, y), size * 3 // 4, LIGHT)
        y += line_height(size)
    if answer.stamps_ns:
        bar = panel[panel.shape[0] - _MARGIN - 2 * _BAR_H :, _MARGIN : _MARGIN + inner]
        _draw_time(bar, answer, size * 3 // 4)


def _draw_time(bar: Pixels, answer: Answer, size: int) -> None:
    """What was looked at, oldest left; the span filled, how salient each frame is as a line."""
    begin, end = answer.stamps_ns[0], answer.stamp_ns
    length = max(1, end - begin)

    def column(stamp_ns: int) -> int:
        return int(round((stamp_ns - begin) / length * (bar.shape[1] - 1)))

    bar[:_BAR_H] = (44, 47, 54)
    if answer.span_ns is not None:
        left, right = map(column, answer.span_ns)
        bar[:_BAR_H, left : max(right, left + 2)] = TINT
    for stamp in answer.stamps_ns:
        bar[_BAR_H - 5 : _BAR_H, column(stamp)] = DIM
    if answer.saliency is not None and answer.span_ns is not None:
        level = answer.saliency - answer.saliency.min()  # it has no scale of its own
        level = level / max(float(level.max()), 1e-6)
        points = [
            (column(stamp), round((1.0 - float(one)) * (_BAR_H - 3)) + 1)
            for stamp, one in zip(answer.stamps_ns, level)
        ]
        cv2.polylines(bar, [np.array(points, np.int32)], False, LIGHT, 1, cv2.LINE_AA)
    draw_text(bar, f'{length / 1e9:.1f} s ago', (0, _BAR_H + 3), size, DIM)
    draw_text(bar, 'now', (bar.shape[1] - text_width('now', size), _BAR_H + 3), size, DIM)

"""The lower half of the overlay: bird's-eye view and captions.  RGB uint8, drawn in place.

In the bird's-eye view forward (ego x) is up and left (ego y) is left; RANGE_M metres lie between
the car and the upper border.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
import math
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_perception.contract import CLASS_COLOURS, BoxCode
from mta_perception.drawing.lettering import Colour, draw_text, line_height, text_width, wrap
from mta_perception.frames import Pixels
from mta_perception.geometry import Array, box_corners

Box = NDArray[np.floating[Any]]  # (10,) contract.BoxCode, of whichever precision

RANGE_M = 52.0
RINGS_M = (10, 20, 30, 40, 50)
EGO_SIZE_M = (4.1, 1.75)  # the nuScenes car; base_link is under its rear axle
EGO_CENTRE_X_M = 1.3
ROADWORK = ('barrier', 'traffic_cone')  # stand in long rows: their ids would cover each other
PANEL = (26, 28, 33)
TINT = (255, 200, 40)  # of a mask
SUB_PIXEL_BITS = 4

# Where each camera of a nuScenes-like rig looks and how wide: (azimuth, opening) in degrees.
SECTORS = {
    'cam_front': (0, 65),
    'cam_front_left': (55, 65),
    'cam_front_right': (-55, 65),
    'cam_back': (180, 90),
    'cam_back_left': (110, 65),
    'cam_back_right': (-110, 65),
}


class Drawn(Protocol):
    """What is drawn of an object: overlay.DrawnObject."""

    @property
    def box(self) -> Box: ...

    @property
    def class_name(self) -> str: ...

    @property
    def score(self) -> float: ...

    @property
    def track_id(self) -> str: ...

    @property
    def caption(self) -> str: ...


def draw_bird_eye(
    panel: Pixels,
    objects: Sequence[Drawn],
    ground_truth: Sequence[Drawn],
    trails: Mapping[str, Array],
    missing_cameras: Iterable[str],
    ground_truth_colour: Colour,
) -> None:
    """Boxes, headings, velocities (one second ahead), trails and blind sectors around the car."""
    view = _View(panel.shape[1], panel.shape[0])
    panel[:] = _ground(panel.shape[1], panel.shape[0])
    for camera in missing_cameras:
        _shade_sector(panel, view, camera)
    _draw_trails(panel, view, objects, trails)
    _draw_footprints(
        panel,
        view,
        [item.box for item in ground_truth],
        [ground_truth_colour] * len(ground_truth),
        filled=False,
    )
    _draw_footprints(
        panel,
        view,
        [item.box for item in objects],
        [CLASS_COLOURS[item.class_name] for item in objects],
        filled=True,
    )
    for item in objects:
        _draw_velocity(panel, view, item.box, CLASS_COLOURS[item.class_name])
    size = max(9, panel.shape[0] // 48)
    for item in objects:
        if item.track_id and item.class_name not in ROADWORK:
            x, y = view.pixels(item.box[:2])
            draw_text(
                panel, str(item.track_id), (x + size * 0.7, y - size * 1.6), size, (235, 238, 242)
            )


def tint_cells(panel: Pixels, cells: NDArray[np.bool_], half_extent_m: float) -> None:
    """Tint what a mask [iy, ix] covers of a square around the car, ego frame."""
    view = _View(panel.shape[1], panel.shape[0])
    rows, columns = np.mgrid[: panel.shape[0], : panel.shape[1]]
    x = (view.centre[1] - rows) / view.pixels_per_m  # (h, w) metres ahead
    y = (view.centre[0] - columns) / view.pixels_per_m
    index = [
        np.floor((metres + half_extent_m) / (2 * half_extent_m) * len(cells)).astype(int)
        for metres in (y, x)
    ]
    inside = np.logical_and.reduce([(0 <= i) & (i < len(cells)) for i in index])
    covered = np.zeros(inside.shape, bool)
    covered[inside] = cells[index[0][inside], index[1][inside]]
    panel[covered] = (0.45 * panel[covered] + 0.55 * np.array(TINT)).astype(np.uint8)


class _View:
    """Pixels of the panel from metres in the ego frame."""

    def __init__(self, width: int, height: int) -> None:
        self.centre = np.array([(width - 1) / 2, (height - 1) / 2])
        self.pixels_per_m = (height / 2) / RANGE_M

    def pixels(self, points_ego: ArrayLike) -> Array:
        """(..., >=2) metres -> (..., 2) pixels."""
        points = np.asarray(points_ego, dtype=np.float64)
        offset: Array = self.pixels_per_m * points[..., [1, 0]]
        return self.centre - offset

    def fixed_point(self, points_ego: ArrayLike) -> NDArray[np.int32]:
        rounded: Array = np.round(self.pixels(points_ego) * (1 << SUB_PIXEL_BITS))
        return rounded.astype(np.int32)


@lru_cache(maxsize=8)
def _ground(width: int, height: int) -> Pixels:
    """Rings, axes and our own car: the same in every picture."""
    view = _View(width, height)
    panel = np.full((height, width, 3), PANEL, dtype=np.uint8)
    centre = tuple(int(v) for v in np.round(view.centre * (1 << SUB_PIXEL_BITS)))
    size = max(9, height // 52)
    for angle in range(0, 360, 30):
        direction = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        cv2.polylines(
            panel,
            [view.fixed_point([5 * direction, RINGS_M[-1] * direction])],
            False,
            (36, 39, 45),
            1,
            cv2.LINE_AA,
            SUB_PIXEL_BITS,
        )
    for radius in RINGS_M:
        cv2.circle(
            panel,
            centre,
            round(radius * view.pixels_per_m * (1 << SUB_PIXEL_BITS)),
            (56, 60, 68),
            1,
            cv2.LINE_AA,
            SUB_PIXEL_BITS,
        )
        x, y = view.pixels([radius * math.cos(-0.55), radius * math.sin(-0.55)])
        draw_text(panel, f'{radius} m', (x + 2, y - size), size, (120, 126, 136))
    length, width_m = EGO_SIZE_M
    car = np.array([[0.5, 0.5], [0.5, -0.5], [-0.5, -0.5], [-0.5, 0.5]]) * [length, width_m]
    cv2.fillConvexPoly(
        panel,
        view.fixed_point(car + [EGO_CENTRE_X_M, 0]),
        (225, 228, 232),
        cv2.LINE_AA,
        SUB_PIXEL_BITS,
    )
    tip = np.array([[0.5, 0.0], [0.1, 0.35], [0.1, -0.35]]) * [length, width_m]
    cv2.fillConvexPoly(
        panel,
        view.fixed_point(tip + [EGO_CENTRE_X_M, 0]),
        (60, 64, 72),
        cv2.LINE_AA,
        SUB_PIXEL_BITS,
    )
    draw_text(
        panel, 'front', (view.centre[0] - text_width('front', size) / 2, 4), size, (120, 126, 136)
    )
    panel.setflags(write=False)
    return panel


def _shade_sector(panel: Pixels, view: _View, camera: str) -> None:
    """What a missing camera would have seen."""
    azimuth, opening = SECTORS[camera]
    angles = np.radians(np.linspace(azimuth - opening / 2, azimuth + opening / 2, 24))
    arc = RINGS_M[-1] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shade = panel.copy()
    cv2.fillPoly(
        shade,
        [view.fixed_point(np.vstack([[0.0, 0.0], arc]))],
        (190, 50, 45),
        cv2.LINE_AA,
        SUB_PIXEL_BITS,
    )
    panel[:] = cv2.addWeighted(shade, 0.3, panel, 0.7, 0)
    size = max(10, panel.shape[0] // 40)
    x, y = view.pixels(arc[len(arc) // 2] * 0.6)
    draw_text(
        panel,
        'blind',
        (x - text_width('blind', size) / 2, y - size / 2),
        size,
        (255, 170, 160),
        bold=True,
    )


def _draw_trails(
    panel: Pixels, view: _View, objects: Iterable[Drawn], trails: Mapping[str, Array]
) -> None:
    colours = {item.track_id: CLASS_COLOURS[item.class_name] for item in objects}
    for track_id, points in trails.items():
        if len(points) < 2:
            continue
        colour = np.array(colours.get(track_id, (120, 126, 136)))
        pixels = view.fixed_point(points)
        for piece, strength in zip(
            np.array_split(np.arange(len(points)), 4), (0.3, 0.45, 0.6, 0.8)
        ):
            if len(piece):
                faded = tuple(int(v) for v in colour * strength + np.array(PANEL) * (1 - strength))
                cv2.polylines(
                    panel,
                    [pixels[piece[0] : piece[-1] + 2]],
                    False,
                    faded,
                    2,
                    cv2.LINE_AA,
                    SUB_PIXEL_BITS,
                )


def _draw_footprints(
    panel: Pixels,
    view: _View,
    boxes: Sequence[Box],
    colours: Sequence[Colour],
    filled: bool,
) -> None:
    """Outlines from above; the front edge is thick, the inside of predictions tinted."""
    if not boxes:
        return
    corners = box_corners(np.stack(boxes))[:, [0, 1, 5, 4], :2]  # (K, 4, 2), front edge first
    pixels = view.fixed_point(corners)
    for outline, colour in zip(pixels, colours):
        if filled:
            inside = tuple(int(0.45 * c + 0.55 * p) for c, p in zip(colour, PANEL))
            cv2.fillConvexPoly(panel, outline, inside, cv2.LINE_AA, SUB_PIXEL_BITS)
        cv2.polylines(panel, [outline], True, colour, 1, cv2.LINE_AA, SUB_PIXEL_BITS)
        if filled:
            light = tuple(int(128 + c / 2) for c in colour)
            cv2.polylines(panel, [outline[:2]], False, light, 2, cv2.LINE_AA, SUB_PIXEL_BITS)


def _draw_velocity(panel: Pixels, view: _View, box: Box, colour: Colour) -> None:
    velocity = np.asarray(box[BoxCode.VELOCITY], dtype=np.float64)
    if not np.isfinite(velocity).all() or np.hypot(*velocity) < 0.5:
        return
    start = np.asarray(box[:2], dtype=np.float64)
    line = view.fixed_point([start, start + velocity])
    cv2.arrowedLine(
        panel,
        tuple(map(int, line[0])),
        tuple(map(int, line[1])),
        colour,
        2,
        cv2.LINE_AA,
        SUB_PIXEL_BITS,
        tipLength=0.25,
    )


def draw_captions(panel: Pixels, objects: Sequence[Drawn]) -> None:
    """What is said about the objects, nearest first, in two columns; the rest is counted."""
    panel[:] = PANEL
    size = max(10, panel.shape[0] // 37)
    distance = [float(np.hypot(*np.asarray(item.box[:2]))) for item in objects]
    nearest = sorted(range(len(objects)), key=lambda k: (not objects[k].caption, distance[k]))
    columns, gap = 2, 16
    column_w = (panel.shape[1] - (columns + 1) * gap) // columns
    column, y = 0, 10
    for position, k in enumerate(nearest):
        lines = wrap(objects[k].caption, size, column_w - 10, max_lines=3)
        entry_h = line_height(size) * (1 + len(lines)) + size * 2 // 3
        if y + entry_h > panel.shape[0] - line_height(size):
            column, y = column + 1, 10
        if column >= columns:
            draw_text(
                panel,
                f'and {len(nearest) - position} more',
                (panel.shape[1] - 110, panel.shape[0] - line_height(size) - 2),
                size,
                (120, 126, 136),
            )
            return
        x = gap + column * (column_w + gap)
        _draw_entry(panel[y : y + entry_h, x : x + column_w], objects[k], distance[k], lines, size)
        y += entry_h


def _draw_entry(
    area: Pixels, item: Drawn, distance: float, lines: Sequence[str], size: int
) -> None:
    """One object: coloured bar, what and where in bold, its sentence below."""
    colour = CLASS_COLOURS[item.class_name]
    area[: area.shape[0] - size * 2 // 3, :3] = colour
    title = f'{item.class_name.replace("_", " ")} {item.track_id}'.strip()
    draw_text(area, title, (10, 0), size, colour, bold=True)
    details = f'{distance:.0f} m   score {item.score:.2f}'
    draw_text(area, details, (18 + text_width(title, size, bold=True), 0), size, (135, 141, 150))
    for row, line in enumerate(lines, start=1):
        draw_text(area, line, (10, row * line_height(size)), size, (226, 229, 234))

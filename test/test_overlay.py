"""The overlay: what is cut where, what is drawn, what a missing camera looks like."""

import numpy as np
import pytest
import rigs

from mta_perception.contract import CAMERAS, CLASS_COLOURS
from mta_perception.drawing.bev_panel import RANGE_M, SECTORS
from mta_perception.drawing.lettering import draw_text, text_width, wrap
from mta_perception.drawing.overlay import (
    GROUND_TRUTH_COLOUR,
    NEAR_M,
    DrawnObject,
    draw_boxes,
    draw_overlay,
    visible_segments,
)
from mta_perception.geometry import BOX_EDGES, box_corners, project

WIDTH, HEIGHT = 800, 450


def camera_matrix(azimuth_deg=0.0):
    """image_from_ego of a camera 1.5 m above the rear axle."""
    return rigs.image_from_ego(rigs.pinhole(630.0, WIDTH, HEIGHT), azimuth_deg, (0.0, 0.0, 1.5))


def box(x, y, yaw=0.0, size=(4.0, 2.0, 1.5), velocity=(0.0, 0.0), z=0.75):
    return np.array([x, y, z, *size, np.sin(yaw), np.cos(yaw), *velocity])


def item(a_box, name='car', track='7', caption='a red car'):
    return DrawnObject(a_box, name, 0.8, track, caption)


def rig():
    return {camera: camera_matrix(SECTORS[camera][0]) for camera in CAMERAS}


def grey_images():
    return {camera: np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8) for camera in CAMERAS}


def corners_in_image(a_box):
    matrix = camera_matrix()
    return box_corners(a_box[None]) @ matrix[:, :3].T + matrix[:, 3]


def test_box_in_full_view_keeps_its_twelve_edges_and_its_corners():
    a_box = box(15.0, 1.0, yaw=0.4)
    segments, owners = visible_segments(corners_in_image(a_box), (WIDTH, HEIGHT))
    assert len(segments) == 12 and set(owners) == {0}
    expected, _ = project(camera_matrix(), box_corners(a_box[None])[0])
    ends = np.unique(np.round(segments.reshape(-1, 2), 6), axis=0)
    np.testing.assert_allclose(ends, np.unique(np.round(expected, 6), axis=0), atol=1e-5)


def test_box_behind_the_camera_draws_nothing():
    segments, owners = visible_segments(corners_in_image(box(-15.0, 0.0)), (WIDTH, HEIGHT))
    assert len(segments) == 0 and len(owners) == 0


@pytest.mark.parametrize('seed', range(5))
def test_visible_segments_agree_with_densely_sampled_edges(seed):
    """Slow and obvious: walk along every edge, keep what is in front and inside."""
    rng = np.random.default_rng(seed)
    a_box = box(rng.uniform(-2, 4), rng.uniform(-4, 4), rng.uniform(-3, 3), (6.0, 3.0, 3.0))
    corners = corners_in_image(a_box)
    segments, _ = visible_segments(corners, (WIDTH, HEIGHT))
    steps = np.linspace(0, 1, 4001)[:, None]
    walked = np.concatenate(
        [corners[0, a] * (1 - steps) + corners[0, b] * steps for a, b in BOX_EDGES]
    )
    walked = walked[walked[:, 2] > NEAR_M]
    pixels = walked[:, :2] / walked[:, 2:]
    inside = ((pixels > -0.5) & (pixels < [WIDTH - 0.5, HEIGHT - 0.5])).all(axis=1)
    assert bool(len(segments)) == bool(inside.any())
    if not inside.any():
        return
    assert (segments >= -0.5 - 1e-6).all()
    assert (segments <= np.array([WIDTH, HEIGHT]) - 0.5 + 1e-6).all()
    np.testing.assert_allclose(segments.min(axis=(0, 1)), pixels[inside].min(axis=0), atol=1.5)
    np.testing.assert_allclose(segments.max(axis=(0, 1)), pixels[inside].max(axis=0), atol=1.5)


def test_boxes_are_drawn_where_they_project_and_nowhere_else():
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    a_box = box(12.0, 2.0, yaw=0.3)
    draw_boxes(image, camera_matrix(), [item(a_box)], colour=(255, 255, 255), labels=False)
    rows, columns = np.nonzero(image.any(axis=2))
    corners = corners_in_image(a_box)[0]
    pixels = corners[:, :2] / corners[:, 2:]
    np.testing.assert_allclose([columns.min(), rows.min()], pixels.min(axis=0), atol=2)
    np.testing.assert_allclose([columns.max(), rows.max()], pixels.max(axis=0), atol=2)


def test_image_scale_does_not_move_the_box():
    """The same box through full-size and half-size images lands on the same place of the tile."""
    full = {'cam_front': np.zeros((2 * HEIGHT, 2 * WIDTH, 3), dtype=np.uint8)}
    half = {'cam_front': np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)}
    full_from_half = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    objects = [item(box(12.0, 1.0))]
    from_half = draw_overlay(half, {'cam_front': camera_matrix()}, objects)
    from_full = draw_overlay(full, {'cam_front': full_from_half @ camera_matrix()}, objects)
    np.testing.assert_array_equal(from_half, from_full)


def test_overlay_is_even_sized_and_leaves_its_inputs_alone():
    images = grey_images()
    for width in (801, 1280, 1600):
        picture = draw_overlay(images, rig(), [item(box(10, 0))], header='scene', width=width)
        assert picture.dtype == np.uint8
        assert picture.shape[1] == width and picture.shape[0] % 2 == 0
    assert all((image == 90).all() for image in images.values())


def test_each_camera_shows_the_box_in_front_of_it():
    tiles = {
        'cam_front_left': (0, 0),
        'cam_front': (0, 1),
        'cam_front_right': (0, 2),
        'cam_back_left': (1, 0),
        'cam_back': (1, 1),
        'cam_back_right': (1, 2),
    }
    plain = draw_overlay(grey_images(), rig(), [], width=1200)
    for camera, (azimuth, _) in SECTORS.items():
        angle = np.radians(azimuth)
        a_box = box(15 * np.cos(angle), 15 * np.sin(angle), size=(1.0, 1.0, 1.0), z=1.5)
        drawn = draw_overlay(grey_images(), rig(), [item(a_box)], width=1200)
        changed = (plain != drawn).any(axis=2)[30 : 30 + 2 * 225]
        counts = {
            name: changed[row * 225 : (row + 1) * 225, column * 400 : (column + 1) * 400].sum()
            for name, (row, column) in tiles.items()
        }
        assert max(counts, key=counts.get) == camera
        assert sum(counts.values()) == counts[camera] > 50


def test_missing_camera_is_named_and_its_sector_shaded():
    whole = draw_overlay(grey_images(), rig(), [])
    images = grey_images()
    images['cam_back'] = None
    partial = draw_overlay(images, rig(), [])
    bar, tile_w, tile_h = 40, 533, 299
    back = partial[bar + tile_h : bar + 2 * tile_h, tile_w : 2 * tile_w]
    assert (back != 90).any(axis=2).mean() > 0.9
    panel = (whole != partial).any(axis=2)[bar + 2 * tile_h :]
    rows, _ = np.nonzero(panel)
    assert panel.sum() > 1000 and np.median(rows) > panel.shape[0] / 2  # behind us is below


def test_bird_eye_view_has_forward_up_and_left_left():
    panel_top, panel_h, panel_w = 40 + 2 * 299, 520, 585
    plain = draw_overlay({}, {}, [])
    for x, y in ((30, 0), (0, 20), (-25, -15)):
        drawn = draw_overlay({}, {}, [item(box(x, y), caption='')])
        changed = (plain != drawn).any(axis=2)[panel_top : panel_top + panel_h, :panel_w]
        rows, columns = np.nonzero(changed)
        scale = panel_h / 2 / RANGE_M
        assert abs(np.median(rows) - (panel_h / 2 - x * scale)) < 12
        assert abs(np.median(columns) - (panel_w / 2 - y * scale)) < 12


def test_ground_truth_has_its_own_colour():
    def cyan(picture):
        red, green, blue = np.moveaxis(picture[40:340, 533:1066].astype(int), -1, 0)
        return int(((green - red > 60) & (blue - red > 60)).sum())

    truth = [item(box(14.0, 0.0), track='', caption='')]
    assert cyan(draw_overlay(grey_images(), rig(), [], ground_truth=truth)) > 100
    assert cyan(draw_overlay(grey_images(), rig(), truth)) == 0
    assert GROUND_TRUTH_COLOUR not in CLASS_COLOURS.values()


def test_captions_come_nearest_first_and_the_rest_is_counted():
    far_and_near = [
        item(box(40.0, 0.0), 'truck', '1', 'far'),
        item(box(5.0, 0.0), 'pedestrian', '2', 'near'),
    ]
    panel = draw_overlay({}, {}, far_and_near)[40 + 2 * 299 :, 585:]

    def first_row(name):
        return np.nonzero((panel == CLASS_COLOURS[name]).all(axis=2).any(axis=1))[0][0]

    assert first_row('pedestrian') < first_row('truck')
    many = [item(box(5.0 + i, 0.0), track=str(i), caption='word ' * 60) for i in range(60)]
    draw_overlay({}, {}, many)  # must not run out of its panel


def test_velocity_that_is_not_a_number_is_not_drawn():
    picture = draw_overlay({}, {}, [item(box(10.0, 0.0, velocity=(np.nan, np.nan)))])
    still = draw_overlay({}, {}, [item(box(10.0, 0.0))])
    np.testing.assert_array_equal(picture, still)


def test_wrapped_lines_fit_and_lose_nothing_that_fits():
    text = 'a white van parked at the right kerb behind the crossing, eleven metres ahead of us'
    lines = wrap(text, 14, 200, max_lines=9)
    assert ' '.join(lines) == text
    assert all(text_width(line, 14) <= 200 for line in lines)
    short = wrap(text, 14, 200, max_lines=2)
    assert len(short) == 2 and short[1].endswith('…') and text_width(short[1], 14) <= 200


@pytest.mark.parametrize('xy', [(-30, 5), (190, -4), (20, 35), (500, 500)])
def test_text_over_the_border_is_cut_off(xy):
    canvas = np.zeros((40, 200, 3), dtype=np.uint8)
    draw_text(canvas, 'pedestrian', xy, 16, (255, 255, 255))
    big = np.zeros((1200, 1200, 3), dtype=np.uint8)
    draw_text(big[200:, 200:], 'pedestrian', (0, 0), 16, (255, 255, 255))
    text_area = big[200:260, 200:400]
    for row, column in np.argwhere(canvas.any(axis=2))[:50]:
        np.testing.assert_array_equal(canvas[row, column], text_area[row - xy[1], column - xy[0]])

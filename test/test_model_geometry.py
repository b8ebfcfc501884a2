"""Projection, tall map and sampling against slow obvious versions."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import rigs

torch = pytest.importorskip('torch')

from mta_perception.geometry import project, rigid_from_yaw
from mta_perception.model.config import BevConfig
from mta_perception.model.deformable import attend, sample_map
from mta_perception.model.grid import BevGrid, cell_centres, metres_to_cells
from mta_perception.model.nano.bev_encoder import warp_history
from mta_perception.model.nano.projection import best_views, project_points, tall_map, tall_xy

SIZE, STRIDE = (224, 128), 8


def rig(seed=0):
    """image_from_ego (6, 3, 4) float32: six pinholes looking all around."""
    rng = np.random.default_rng(seed)
    intrinsics = rigs.pinhole(170.0, *SIZE)
    matrices = [
        rigs.image_from_ego(intrinsics, degrees, [1.0, 0.0, 1.5] + rng.uniform(-0.3, 0.3, 3))
        for degrees in rigs.AZIMUTH_DEG.values()
    ]
    return np.stack(matrices).astype(np.float32)


def bilinear(grid, x, y):
    """One reading (C,) of grid (C, h, w), zeros outside."""
    total = np.zeros(len(grid))
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < grid.shape[1] and 0 <= column < grid.shape[2]:
                total += grid[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_projection_agrees_with_numpy_geometry():
    matrices = rig()
    points = np.random.default_rng(1).uniform(-40, 40, (50, 3))
    seen = project_points(
        torch.tensor(points)[None, :, None],
        torch.tensor(matrices)[None],
        torch.ones(1, 6),
        SIZE,
        STRIDE,
    )
    compared = 0
    for camera, matrix in enumerate(matrices):
        pixels, depth = project(matrix, points)
        inside = (
            (depth > 0.1)
            & (pixels > -0.5).all(1)
            & (pixels[:, 0] < SIZE[0] - 0.5)
            & (pixels[:, 1] < SIZE[1] - 0.5)
        )
        np.testing.assert_array_equal(seen.visible[0, camera, :, 0].numpy(), inside)
        want = (pixels[inside] + 0.5) / STRIDE - 0.5
        np.testing.assert_allclose(seen.xy[0, camera, :, 0].numpy()[inside], want, atol=1e-3)
        compared += inside.sum()
    assert compared > 10


def test_masked_camera_sees_nothing_even_with_broken_calibration():
    matrices = torch.tensor(rig())[None]
    matrices[0, 2] = float('nan')
    mask = torch.ones(1, 6)
    mask[0, 2] = 0
    points = torch.rand(1, 200, 1, 3) * 60 - 30
    seen = project_points(points, matrices, mask, SIZE, STRIDE)
    assert not seen.visible[0, 2].any()
    assert torch.isfinite(seen.xy).all() and torch.isfinite(seen.depth).all()
    views = best_views(seen, 2)
    assert not ((views.camera == 2) & (views.valid > 0)).any()


def test_best_views_are_the_ones_that_see_most():
    centres = cell_centres(BevConfig(cells=20))
    pillars = torch.stack(
        [torch.cat([centres, torch.full((400, 1), z)], 1) for z in (0.0, 1.0, 3.0)], dim=1
    )[None]
    seen = project_points(pillars, torch.tensor(rig())[None], torch.ones(1, 6), SIZE, STRIDE)
    views = best_views(seen, 2)
    counts = seen.visible[0].sum(-1).numpy()  # (6, 400)
    for cell in range(400):
        picked = counts[views.camera[0, cell].numpy(), cell]
        np.testing.assert_array_equal(picked, np.sort(counts[:, cell])[::-1][:2])
        np.testing.assert_array_equal(views.valid[0, cell].numpy(), picked > 0)


def test_tall_map_keeps_cameras_apart():
    """A reading anywhere, also beyond the edges, equals the reading in that camera alone."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(1, 3, 4, 5, 7))
    camera = rng.integers(0, 3, (1, 300))
    xy = rng.uniform(-9, 15, (1, 300, 2))
    tall = tall_map(torch.tensor(features))
    got = sample_map(tall, tall_xy(torch.tensor(camera), torch.tensor(xy), 5))[0].numpy().T
    for index in range(300):
        want = bilinear(features[0, camera[0, index]], *xy[0, index])
        np.testing.assert_allclose(got[index], want, atol=1e-5)


def test_attend_equals_the_loop():
    rng = np.random.default_rng(3)
    value = rng.normal(size=(2, 6, 5, 4)).astype(np.float32)  # 2 heads of width 3
    xy = rng.uniform(-1, 5, (2, 7, 2, 3, 2)).astype(np.float32)
    weights = rng.random((2, 7, 2, 3)).astype(np.float32)
    got = attend(*(torch.tensor(array) for array in (value, xy, weights))).numpy()
    for b in range(2):
        for q in range(7):
            want = [
                sum(
                    weights[b, q, h, p] * bilinear(value[b, 3 * h : 3 * h + 3], *xy[b, q, h, p])
                    for p in range(3)
                )
                for h in range(2)
            ]
            np.testing.assert_allclose(got[b, q], np.concatenate(want), atol=1e-5)


@pytest.mark.parametrize(
    'yaw, shift',
    [(0.0, (0.0, 0.0)), (0.0, (4.096, -2.048)), (np.pi / 2, (2.048, 0.0)), (0.3, (1.0, 5.0))],
)
def test_history_moves_against_the_car(yaw, shift):
    """What stood at a world place then is found at the same world place now."""
    config = BevConfig(cells=50, channels=4, heads=2)
    centres = cell_centres(config)
    place_prev = torch.tensor([12.288 + 1.024, -8.192 + 1.024])  # a cell's centre then
    history = torch.exp(-(centres - place_prev).square().sum(1) / 18.0).view(1, 1, 50, 50)
    prev_from_now = torch.tensor(rigid_from_yaw(yaw, (*shift, 0.0)), dtype=torch.float32)[None]
    warped = warp_history(history, prev_from_now, centres, config).flatten()
    found = (centres * warped[:, None]).sum(0) / warped.sum()
    place_now = torch.linalg.inv(prev_from_now[0]) @ torch.tensor([*place_prev, 0.0, 1.0])
    assert torch.linalg.norm(found - place_now[:2]) < 0.15


@given(
    st.integers(2, 60),
    st.floats(5.0, 80.0),
    st.tuples(st.floats(-0.999, 0.999), st.floats(-0.999, 0.999)),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_place_lies_in_the_cell_that_is_said(cells, half_extent_m, share):
    grid = BevGrid(half_extent_m, cells)
    xy = torch.tensor(share, dtype=torch.float64) * half_extent_m
    ix, iy = metres_to_cells(xy, grid).round().long().clamp(0, cells - 1)
    centre = cell_centres(grid).view(cells, cells, 2)[iy, ix]
    assert (xy - centre).abs().max() <= 0.5 * grid.cell_m * (1 + 1e-4)
    back = metres_to_cells(centre, grid)
    np.testing.assert_allclose(back.numpy(), [ix, iy], atol=1e-3)

"""Depth as bins: what a lens does to it, and the maps of a pyramid."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from hypothesis import given
from hypothesis import strategies as st

from mta_perception.geometry import rigid_from_quaternion
from mta_perception.model.nano.pyramid import (
    FARTHEST_M,
    NEAREST_M,
    USUAL_FOCAL,
    Pyramid,
    bin_positions,
    focal_lengths,
    share_of_bins,
)

BINS, WIDTH = 32, 448
QUATERNION = st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4).filter(
    lambda values: np.linalg.norm(values) > 0.1
)


@given(QUATERNION, st.floats(50.0, 2000.0), st.floats(-300.0, 300.0), st.floats(-300.0, 300.0))
def test_focal_length_is_read_from_any_projection(quaternion, focal, cx, cy):
    camera_from_ego = rigid_from_quaternion(quaternion, [1.0, -2.0, 0.5])
    intrinsics = np.array([[focal, 0.0, cx], [0.0, 1.1 * focal, cy], [0.0, 0.0, 1.0]])
    matrix = torch.from_numpy(intrinsics @ camera_from_ego[:3])
    assert float(focal_lengths(matrix)) == pytest.approx(focal, rel=1e-6)


def test_a_missing_camera_has_none():
    assert float(focal_lengths(torch.zeros(3, 4))) == 0.0


@given(st.floats(0.1, 500.0), st.floats(0.3, 3.0))
def test_depth_by_focal_length_is_what_counts(depth, zoom):
    """Twice as far through twice the focal length looks the same."""
    usual = torch.tensor(USUAL_FOCAL * WIDTH)
    one = bin_positions(torch.tensor(depth), usual, WIDTH, BINS)
    other = bin_positions(torch.tensor(depth * zoom), usual * zoom, WIDTH, BINS)
    assert float(one) == pytest.approx(float(other), abs=1e-3)
    assert 0.0 <= float(one) <= BINS - 1


@given(st.floats(0.0, BINS - 1.0))
def test_shares_sum_to_one_and_give_the_place_back(place):
    shares = share_of_bins(torch.tensor(place), BINS)
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float((shares * torch.arange(BINS)).sum()) == pytest.approx(place, abs=1e-4)


def test_bins_end_at_the_nearest_and_the_farthest():
    usual = torch.tensor(USUAL_FOCAL * WIDTH)
    ends = bin_positions(torch.tensor([NEAREST_M, FARTHEST_M]), usual, WIDTH, BINS)
    torch.testing.assert_close(ends, torch.tensor([0.0, BINS - 1.0]))


@pytest.mark.parametrize('stride', [8, 16, 32])
def test_a_pyramid_gives_one_map_and_its_depth(stride):
    widths = (4, 6, 8, 10)
    levels = [torch.randn(2, w, 64 // 2**k, 96 // 2**k) for k, w in enumerate(widths)]
    features, depth = Pyramid(widths, 16, stride, refine=1, depth_bins=5)(levels)
    assert features.shape == (2, 16, 256 // stride, 384 // stride)
    assert depth.shape == (2, 5, 256 // stride, 384 // stride)
    assert Pyramid(widths, 16, stride)(levels)[1] is None

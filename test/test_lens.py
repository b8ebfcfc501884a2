"""CameraInfo after REP 104: which matrix holds, binning, regions, distortion models."""

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.frames import Distortion
from mta_perception.lens import lens_of
from mta_perception.reasons import Code, Refused

K = np.array([[1000.0, 0, 790.0], [0, 1010.0, 455.0], [0, 0, 1]])
P = np.array([[900.0, 0, 801.0, 0], [0, 905.0, 449.0, 0], [0, 0, 1, 0]])
PLUMB_BOB = [-0.3, 0.1, 0.0, 0.0, 0.01]


def info(roi=(0, 0, 0, 0), **change):
    """A CameraInfo; roi: x_offset, y_offset, width, height."""
    values = {
        'width': 1600,
        'height': 900,
        'k': K.ravel(),
        'p': P.ravel(),
        'd': PLUMB_BOB,
        'distortion_model': 'plumb_bob',
        'binning_x': 0,
        'binning_y': 0,
        **change,
    }
    names = ('x_offset', 'y_offset', 'width', 'height')
    return SimpleNamespace(roi=SimpleNamespace(**dict(zip(names, roi))), **values)


def test_raw_images_have_k_and_d():
    lens = lens_of(info(), rectified=False)
    np.testing.assert_array_equal(lens.intrinsics, K)
    assert lens.distortion == Distortion('plumb_bob', tuple(PLUMB_BOB))
    assert (lens.width, lens.height, lens.sensor, lens.rectified) == (1600, 900, None, False)


@pytest.mark.parametrize('k', [K.ravel(), np.zeros(9), np.full(9, np.nan)])
def test_rectified_images_have_p_and_no_distortion(k):
    for model in ('plumb_bob', 'a model nobody knows'):
        lens = lens_of(info(k=k, distortion_model=model), rectified=True)
        np.testing.assert_array_equal(lens.intrinsics, P[:, :3])
        assert lens.distortion is None and lens.rectified


@pytest.mark.parametrize('d', [[], [0.0] * 5])
def test_p_alone_means_rectified_images(d):
    lens = lens_of(info(k=np.zeros(9), d=d), rectified=False)
    np.testing.assert_array_equal(lens.intrinsics, P[:, :3])
    assert lens.rectified and lens.distortion is None


def test_k_alone_holds_for_rectified_images_without_distortion():
    lens = lens_of(info(p=np.zeros(12), d=[]), rectified=True)
    np.testing.assert_array_equal(lens.intrinsics, K)


@pytest.mark.parametrize(
    'change, rectified, words',
    [
        ({'k': np.zeros(9), 'p': np.zeros(12), 'd': []}, False, 'k ='),
        ({'k': np.zeros(9)}, False, 'k ='),  # distorted, and no k to take it out with
        ({'p': np.zeros(12)}, True, 'p ='),
        ({'k': np.full(9, np.nan)}, False, 'k ='),
        ({'width': 0}, False, '0x900'),
        ({'height': 0}, True, '1600x0'),
        ({'d': [np.nan] * 5}, False, 'finite'),
        ({'roi': (800, 0, 1000, 900)}, False, 'roi'),
        ({'roi': (0, 0, 1, 1), 'binning_x': 2}, False, 'roi'),
    ],
)
def test_what_cannot_be_is_refused(change, rectified, words):
    with pytest.raises(Refused, match=words) as caught:
        lens_of(info(**change), rectified)
    assert caught.value.reason.code is Code.IMPOSSIBLE_CALIBRATION


@given(
    st.integers(0, 700),
    st.integers(0, 400),
    st.integers(2, 900),
    st.integers(2, 500),
    st.integers(0, 4),
    st.integers(0, 4),
    st.booleans(),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_centre_of_a_bin_of_a_region_is_the_mean_of_its_pixels(
    x0, y0, width, height, bin_x, bin_y, rectified
):
    width, height = max(width, bin_x), max(height, bin_y)
    message = info((x0, y0, width, height), binning_x=bin_x, binning_y=bin_y)
    lens = lens_of(message, rectified)
    bins = np.array([max(bin_x, 1), max(bin_y, 1)])
    assert (lens.width, lens.height) == (width // bins[0], height // bins[1])
    assert lens.sensor == (1600, 900)
    matrix = P[:, :3] if rectified else K
    column_row = np.array([lens.width - 1, lens.height - 1])
    first = np.array([x0, y0]) + column_row * bins
    middle = (first + first + bins - 1) / 2  # of the sensor's pixels in that bin
    ray = np.linalg.solve(matrix, [*middle, 1.0])
    np.testing.assert_allclose((lens.intrinsics @ ray)[:2], column_row, atol=1e-9)


def test_binning_alone_is_no_region_and_zeros_mean_the_whole_sensor():
    lens = lens_of(info(binning_x=2, binning_y=2), rectified=False)
    assert (lens.width, lens.height, lens.sensor) == (800, 450, None)
    assert lens_of(info((0, 0, 1600, 900)), rectified=False).sensor is None


@pytest.mark.parametrize(
    'name, coefficients, model',
    [
        ('plumb_bob', [-0.3, 0.1, 0, 0], 'plumb_bob'),
        ('Plumb_Bob', PLUMB_BOB, 'plumb_bob'),
        ('radtan', [-0.3, 0.1, 0, 0], 'plumb_bob'),
        ('', PLUMB_BOB, 'plumb_bob'),
        ('rational_polynomial', [0.1] * 8, 'rational_polynomial'),
        ('rational_polynomial', [0.1] * 12, 'rational_polynomial'),
        ('rational_polynomial', [0.1] * 14, 'rational_polynomial'),
        ('', [0.1] * 8, 'rational_polynomial'),
        ('rational_polynomial', [0.1] * 5, 'rational_polynomial'),
        ('equidistant', [0.1, 0, 0, 0], 'equidistant'),
        ('fisheye', [0.1, 0, 0, 0], 'equidistant'),
        ('equidistant', [0.0] * 4, 'equidistant'),  # a fisheye all the same
        ('plumb_bob', [0.0] * 5, None),
        ('plumb_bob', [], None),
        ('rational_polynomial', [0.0] * 8, None),
        ('', [], None),
        ('none', [0.0] * 5, None),
    ],
)
def test_models_and_what_they_may_be_called(name, coefficients, model):
    found = lens_of(info(distortion_model=name, d=coefficients), rectified=False).distortion
    assert (found.model if found else None) == model
    assert found is None or found.coefficients == tuple(coefficients)


@pytest.mark.parametrize('model, most', [('plumb_bob', 5), ('equidistant', 4)])
def test_zeros_behind_the_coefficients_are_left_away(model, most):
    d = [0.1] * most + [0.0] * 3
    found = lens_of(info(distortion_model=model, d=d), rectified=False).distortion
    assert found == Distortion(model, (0.1,) * most)


@pytest.mark.parametrize(
    'name, coefficients',
    [
        ('thin_prism_fisheye', [0.1] * 8),
        ('thin_prism_fisheye', [0.0] * 8),
        ('omnidirectional', []),
        ('', [0.1] * 4),  # plumb_bob's or equidistant's
        ('none', [0.1] * 5),
        ('plumb_bob', [0.1] * 8),
        ('rational_polynomial', [0.1] * 6),
        ('equidistant', []),
        ('equidistant', [0.1] * 5),
    ],
)
def test_other_models_are_refused_by_name(name, coefficients):
    with pytest.raises(Refused, match='expected') as caught:
        lens_of(info(distortion_model=name, d=coefficients), rectified=False)
    assert caught.value.reason.code is Code.UNKNOWN_DISTORTION
    assert name in str(caught.value) and str(len(coefficients)) in str(caught.value)

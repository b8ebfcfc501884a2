"""Images of distorted lenses: a point lands in the model's image where a pinhole would see it."""

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import rigs

from mta_perception.frames import CameraCalibration, CameraImage, Distortion
from mta_perception.pipeline.camera_geometry import camera_geometry
from mta_perception.runtime.manifest import ImageSpec

SPEC = ImageSpec(448, 256, 0.28)
LENSES = {
    'plumb_bob': (-0.32, 0.12, 0.001, -0.0008, -0.02),
    'plumb_bob of four': (-0.3, 0.08, 0.001, -0.0008),
    'rational_polynomial': (0.4, -0.1, 0.0004, 0.0002, 0.01, 0.75, 0.02, 0.005),
    'rational_polynomial of 12': (-0.3, 0.1, 0.0, 0.0, 0.0, 0.01, 0, 0, 0.002, 0, 0.001, 0),
    'rational_polynomial of 14': (-0.3, 0.1, 0, 0, 0, 0.01, 0, 0, 0.002, 0, 0.001, 0, 0.02, 0.01),
    'equidistant': (0.02, -0.008, 0.003, -0.001),
    'equidistant of zeros': (0.0, 0.0, 0.0, 0.0),
}


def lens(name):
    return Distortion(name.split()[0], LENSES[name])


def calibration(distortion, focal=800.0, size=(1600, 900)):
    intrinsics = rigs.pinhole(focal, *size)
    return CameraCalibration(
        intrinsics, *size, rigs.ego_from_camera(0.0, (1.5, 0.0, 1.6)), distortion
    )


def seen_at(points, camera):
    """(n, 2) pixels of the raw image, by OpenCV's projection; points (n, 3) in the camera."""
    points = np.asarray(points, dtype=np.float64).reshape(-1, 1, 3)
    nothing = np.zeros(3)
    coefficients = np.array(camera.distortion.coefficients)
    if camera.distortion.model == 'equidistant':
        pixels, _ = cv2.fisheye.projectPoints(
            points, nothing, nothing, camera.intrinsics, coefficients
        )
    else:
        pixels, _ = cv2.projectPoints(points, nothing, nothing, camera.intrinsics, coefficients)
    return pixels.reshape(-1, 2)


def blob(at, size, radius):
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    grey = 250 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / radius**2)
    return np.repeat(grey[..., None], 3, -1).astype(np.uint8)


def centre_of(picture):
    weights = picture[..., 0].astype(float) ** 2
    x, y = np.meshgrid(np.arange(picture.shape[1]), np.arange(picture.shape[0]))
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.mark.parametrize('kind', ['rgb8', 'jpeg'])
@pytest.mark.parametrize('size', [(1600, 900), (1920, 1208), (640, 480), (1601, 901)])
@pytest.mark.parametrize('name', LENSES)
def test_a_point_lands_where_the_projection_says(name, size, kind):
    camera = calibration(lens(name), focal=0.55 * size[0], size=size)
    geometry = camera_geometry(camera, SPEC)
    for direction in ((0.0, 0.0, 1.0), (0.35, -0.15, 1.0), (-0.5, 0.2, 1.0), (0.5, 0.25, 1.0)):
        raw = seen_at([direction], camera)[0]
        rgb = blob(raw, size, 0.03 * size[1])
        data = cv2.imencode('.jpg', rgb)[1].tobytes() if kind == 'jpeg' else rgb
        out = np.empty((256, 448, 3), np.uint8)
        geometry.reader.read(CameraImage('cam_front', 0, data, kind), out)
        expected = geometry.image_from_camera @ direction
        # A round spot is not quite round once rectified: its centre moves a little.
        np.testing.assert_allclose(centre_of(out), expected[:2] / expected[2], atol=0.4)
    assert geometry.reader.facts() == {'rectified': name.split()[0]}


def test_without_rectifying_the_points_would_be_elsewhere():
    """What the tolerance above is worth."""
    for name in LENSES:
        camera = calibration(lens(name))
        pinhole = camera.intrinsics @ (0.5, 0.25, 1.0)
        apart = np.linalg.norm(seen_at([(0.5, 0.25, 1.0)], camera)[0] - pinhole[:2])
        assert 0.28 * apart > 3.0, f'{name}: {apart}'


@given(
    st.floats(-0.35, 0.3),
    st.floats(-0.1, 0.1),
    st.floats(-0.002, 0.002),
    st.sampled_from(['plumb_bob', 'equidistant']),
    st.floats(-0.4, 0.4),
    st.floats(-0.2, 0.2),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_mild_lens(k1, k2, p1, model, x, y):
    coefficients = (k1, k2, p1, -p1, 0.0) if model == 'plumb_bob' else (k1 / 5, k2 / 5, 0.0, 0.0)
    camera = calibration(Distortion(model, coefficients), 400.0, (640, 360))
    geometry = camera_geometry(camera, SPEC)
    raw = seen_at([(x, y, 1.0)], camera)[0]
    out = np.empty((256, 448, 3), np.uint8)
    geometry.reader.read(CameraImage('c', 0, blob(raw, (640, 360), 10.0), 'rgb8'), out)
    expected = geometry.image_from_camera @ (x, y, 1.0)
    np.testing.assert_allclose(centre_of(out), expected[:2], atol=0.4)


def test_images_scaled_after_the_calibration_are_rectified_alike():
    camera = calibration(lens('plumb_bob'))
    geometry = camera_geometry(camera, SPEC)
    scene = np.random.default_rng(0).integers(0, 255, (18, 32, 3), dtype=np.uint8)
    scene = cv2.resize(scene, (1600, 900), interpolation=cv2.INTER_CUBIC)
    whole, half = np.empty((2, 256, 448, 3), np.uint8)
    geometry.reader.read(CameraImage('c', 0, scene, 'rgb8'), whole)
    small = cv2.resize(scene, (800, 450), interpolation=cv2.INTER_AREA)
    geometry.reader.read(CameraImage('c', 0, small, 'rgb8'), half)
    assert np.abs(whole.astype(int) - half).mean() < 1.0


def test_a_polynomial_that_turns_back_shows_nothing_twice():
    """Fitted to the image alone, k1 leads pixels far outside back into it."""
    camera = calibration(Distortion('plumb_bob', (-0.6, 0.0, 0.0, 0.0, 0.0)), focal=400.0)
    geometry = camera_geometry(camera, SPEC)
    out = np.empty((256, 448, 3), np.uint8)
    white = np.full((900, 1600, 3), 255, np.uint8)
    geometry.reader.read(CameraImage('c', 0, white, 'rgb8'), out)
    x, y = np.meshgrid(np.arange(448), np.arange(252))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(geometry.image_from_camera).T
    radius = np.hypot(rays[..., 0], rays[..., 1])
    turn = 1 / np.sqrt(3 * 0.6)
    assert not out[:252][radius > turn + 0.01].any()
    assert (out[:252][radius < turn - 0.02] == 255).all()


def test_a_pinhole_is_not_touched():
    camera = calibration(None)
    scene = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), dtype=np.uint8)
    same = calibration(Distortion('plumb_bob', (1e-12,) * 5))
    plain, mapped = np.empty((2, 256, 448, 3), np.uint8)
    camera_geometry(camera, SPEC).reader.read(CameraImage('c', 0, scene, 'rgb8'), plain)
    reader = camera_geometry(same, SPEC).reader
    reader.read(CameraImage('c', 0, scene, 'rgb8'), mapped)
    assert reader.distortion is not None
    inner = np.abs(plain.astype(int) - mapped)[1:250, 1:-1]
    assert inner.mean() < 2.0  # both are bilinear; the maps in 32nds of a pixel

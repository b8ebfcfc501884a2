"""Paths, footprints, rig, outlines and lidar rays against slow, obvious versions."""

import numpy as np
import pytest
from shapely.geometry import MultiPoint, Polygon, box

from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraCalibration
from mta_perception.geometry import invert_rigid, project, rigid, rigid_from_yaw
from mta_training.synth.actors.traffic import hermite
from mta_training.synth.scene import Building, ObjectState
from mta_training.synth.sensors import observe
from mta_training.synth.sensors.lidar import AZIMUTHS, ELEVATIONS, Scan
from mta_training.synth.sensors.rig import TRIGGER_US, build_rig
from mta_training.synth.town.footprints import corners, overlap
from mta_training.synth.town.layout import without_holes
from mta_training.synth.town.paths import Path, offset, resample


def _circle(radius, count=400):
    angle = np.linspace(0, np.pi, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def test_path_keeps_arc_length_and_curvature():
    path = Path.through(_circle(20.0))
    assert path.length == pytest.approx(20 * np.pi, rel=1e-3)
    assert np.allclose(path.curvature()[20:-20], 1 / 20, rtol=0.02)
    s = np.linspace(5, 50, 200)
    assert np.allclose(np.hypot(*path.at(s).T), 20.0, atol=0.01)
    assert np.allclose(np.hypot(*np.diff(path.at(s), axis=0).T), np.diff(s), rtol=1e-2)


def test_path_goes_on_straight_beyond_its_ends():
    path = Path.through(np.array([[0.0, 0.0], [10.0, 0.0]]))
    assert np.allclose(path.at([-3.0, 12.0]), [[-3.0, 0.0], [12.0, 0.0]])


def test_chord_heading_is_the_tangent_of_a_circle():
    path = Path.through(_circle(20.0))
    centre, yaw = path.chord(np.array([15.0, 30.0]), 3.0)
    tangent = np.arctan2(centre[:, 1], centre[:, 0]) + np.pi / 2
    assert np.allclose(yaw, tangent, atol=2e-3)


def test_offset_keeps_its_distance_to_the_left():
    line = resample(_circle(20.0))
    assert np.allclose(np.hypot(*offset(line, 2.0).T), 18.0, atol=0.02)  # left of ccw is inwards


def test_hermite_meets_both_ends():
    s, v = hermite(np.array([0.0, 1.0]), 3.0, 4.0, 9.0, 11.0, 0.1)
    assert np.allclose(s, [3.0, 4.0]) and np.allclose(v, [9.0, 11.0])


def test_overlap_agrees_with_shapely():
    rng = np.random.default_rng(0)
    a, b = (
        np.concatenate(
            [
                rng.uniform(-4, 4, (500, 2)),
                rng.uniform(-4, 4, (500, 1)),
                rng.uniform(0.3, 6, (500, 2)),
            ],
            axis=1,
        )
        for _ in range(2)
    )
    expected = [Polygon(p).intersects(Polygon(q)) for p, q in zip(corners(a), corners(b))]
    assert 100 < sum(expected) < 400
    assert overlap(a, b).tolist() == expected


def test_without_holes_keeps_the_area():
    area = box(0, 0, 10, 10).difference(box(2, 2, 4, 4)).difference(box(6, 6, 8, 9))
    pieces = without_holes(area)
    assert not any(piece.interiors for piece in pieces)
    assert sum(piece.area for piece in pieces) == pytest.approx(area.area)


def test_rig_scales_with_the_image():
    full, half = (build_rig(np.random.default_rng(3), *size) for size in ((1600, 900), (800, 450)))
    points = np.array([[0.3, -0.2, 5.0], [-1.0, 0.5, 9.0]])
    for camera in CAMERAS:
        assert np.allclose(
            full.cameras[camera].ego_from_camera, half.cameras[camera].ego_from_camera
        )
        big, small = (
            project(np.c_[r.cameras[camera].intrinsics, np.zeros(3)], points)[0]
            for r in (full, half)
        )
        # pixel edges halve, not pixel centres
        assert np.allclose(small + 0.5, (big + 0.5) / 2)


def test_rig_looks_all_around_and_fires_in_turn():
    rig = build_rig(np.random.default_rng(0))
    for camera, yaw in {
        'cam_front': 0,
        'cam_front_left': 56,
        'cam_back_left': 108,
        'cam_back': 180,
        'cam_back_right': -110,
        'cam_front_right': -56,
    }.items():
        matrix = rig.cameras[camera].ego_from_camera
        forward, down = matrix[:3, 2], matrix[:3, 1]
        seen = np.degrees(np.arctan2(forward[1], forward[0]))
        assert abs((seen - yaw + 180) % 360 - 180) < 4
        assert down[2] < -0.99 and abs(forward[2]) < 0.05
        assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3))
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    order = sorted(TRIGGER_US, key=TRIGGER_US.get)
    assert order == [
        'cam_front_left',
        'cam_front',
        'cam_front_right',
        'cam_back_right',
        'cam_back',
        'cam_back_left',
    ]
    assert max(TRIGGER_US.values()) <= 0


CALIBRATION = CameraCalibration(
    np.array([[300.0, 0, 200], [0, 300, 110], [0, 0, 1]]), 400, 225, rigid(np.eye(3), np.zeros(3))
)


def _cube(centre, size=2.0):
    steps = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) * size / 2
    # two faces, each around: the order box_corners has
    order = [0, 4, 6, 2, 1, 5, 7, 3]
    return steps[order] + centre


@pytest.mark.parametrize(
    'centre', [(0, 0, 6), (3.5, 0.2, 5), (-1, 2, 4), (0.5, 0, 0.4), (2.0, 0, 0.9)]
)
def test_outline_is_the_hull_of_what_projects_into_the_image(centre):
    corners_camera = _cube(np.array(centre, dtype=float))
    rng = np.random.default_rng(1)
    # Points on the surface, those in front of the camera, projected one by one.
    points = rng.uniform(-1, 1, (60000, 3))
    axis = rng.integers(0, 3, len(points))
    points[np.arange(len(points)), axis] = rng.choice([-1, 1], len(points))
    points = points + centre
    points = points[points[:, 2] > observe.NEAR_M]
    pixels = points[:, :2] / points[:, 2:] * 300 + [200, 110]
    frame = box(0, 0, 399, 224)
    expected = MultiPoint(pixels).convex_hull.intersection(frame).area
    shape = observe.outline(corners_camera, CALIBRATION)
    assert Polygon(shape).area == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('centre', [(0, 0, -5), (60, 0, 5), (0, -40, 5)])
def test_outline_of_what_is_out_of_view_is_none(centre):
    assert observe.outline(_cube(np.array(centre, dtype=float)), CALIBRATION) is None


@pytest.mark.parametrize(
    'pixels, token', [(0, '1'), (39, '1'), (41, '2'), (59, '2'), (61, '3'), (81, '4'), (200, '4')]
)
def test_visibility_levels(pixels, token):
    assert observe.visibility(observe.Sight(pixels, 200.0, 'cam_front', ()), fill=0.5) == token


def _object(instance, x, y, yaw, size):
    return ObjectState(
        instance,
        'car',
        'vehicle.car',
        0,
        'red',
        (1, 0, 0),
        size,
        rigid_from_yaw(yaw, (x, y, 0)),
        (0.0, 0.0),
        0.0,
        0.0,
        False,
        False,
    )


def test_lidar_agrees_with_marching_along_each_ray():
    states = [
        _object(1, 8.0, 2.0, 0.4, (4.5, 1.9, 1.6)),
        _object(2, 14.0, 3.5, 0.0, (7.0, 2.5, 3.0)),
        _object(3, -5.0, -6.0, 2.0, (0.7, 0.7, 1.8)),
        _object(4, -9.0, 0.3, 3.0, (4.5, 1.9, 1.6)),
    ]
    house = Building(np.array([[-20.0, 10], [20, 10], [20, 18], [-20, 18]]), 9.0, 0)
    origin = np.array([0.3, -0.2, 1.84])
    scan = Scan(origin, states, [house])
    rng = np.random.default_rng(0)
    steps = np.arange(0.5, 40.0, 0.01)
    inverses = [(s.instance, invert_rigid(s.world_from_object), np.array(s.size)) for s in states]
    wrong, hits = 0, 0
    for row, column in zip(rng.integers(0, 32, 400), rng.integers(0, AZIMUTHS, 400)):
        azimuth, elevation = 2 * np.pi * column / AZIMUTHS, ELEVATIONS[row]
        ray = origin + steps[:, None] * [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
        first, owner = np.inf, 0
        for instance, inverse, size in inverses:
            local = ray @ inverse[:3, :3].T + inverse[:3, 3]
            inside = (
                (np.abs(local[:, :2]) <= size[:2] / 2).all(1)
                & (local[:, 2] >= 0)
                & (local[:, 2] <= size[2])
            )
            if inside.any() and steps[inside.argmax()] < first:
                first, owner = steps[inside.argmax()], instance
        walls = (
            (np.abs(ray[:, 0]) < 20)
            & (ray[:, 1] > 10)
            & (ray[:, 1] < 18)
            & (ray[:, 2] < 9)
            & (ray[:, 2] > 0)
        )
        for blocked in (walls, ray[:, 2] <= 0):
            if blocked.any() and steps[blocked.argmax()] < first:
                first, owner = steps[blocked.argmax()], 0
        hits += owner > 0
        ok = scan.owners[row, column] == owner and (
            scan.ranges[row, column] > 39
            if np.isinf(first)
            else abs(scan.ranges[row, column] - first) < 0.03
        )
        wrong += not ok
    assert hits > 15
    assert wrong <= 2  # rays that graze an edge


def test_lidar_points_lie_where_the_rays_end():
    scan = Scan(np.array([5.0, 7.0, 1.8]), [_object(1, 12.0, 7.0, 0.0, (4.0, 2.0, 1.5))], [])
    world_from_lidar = rigid_from_yaw(0.7, (5.0, 7.0, 1.8))
    points = scan.points(world_from_lidar)
    world = points[:, :3] @ world_from_lidar[:3, :3].T + world_from_lidar[:3, 3]
    assert points.dtype == np.float32 and points.shape[1] == 5
    on_car = points[:, 3] == 40
    assert on_car.sum() == scan.counts()[1] > 20
    assert np.abs(world[on_car, 0] - 10.0).max() < 2.01
    assert np.allclose(world[~on_car, 2], 0.0, atol=1e-3)

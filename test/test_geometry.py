"""Geometry and decoding by property: there and back, lengths kept, order kept, behind is
masked."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from mta_perception import geometry
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import DetectorOutputs, caption_inputs, decode

settings.register_profile('small', max_examples=60, deadline=None, derandomize=True)
settings.load_profile('small')

metres = st.floats(-1000.0, 1000.0, allow_subnormal=False)
quaternions = arrays.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 1e-3
)
rigids = st.builds(geometry.rigid_from_quaternion, quaternions, st.tuples(metres, metres, metres))
yaws = st.floats(-np.pi, np.pi)


def _boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-40, 40, (count, 10))
    boxes[:, BoxCode.SIZE] = rng.uniform(0.3, 10, (count, 3))
    yaw = rng.uniform(-np.pi, np.pi, count)
    boxes[:, 6], boxes[:, 7] = np.sin(yaw), np.cos(yaw)
    return boxes


@given(rigids)
def test_quaternion_there_and_back(target_from_source):
    quaternion = geometry.quaternion_from_rigid(target_from_source)
    assert quaternion[3] >= 0 and np.linalg.norm(quaternion) == pytest.approx(1)
    back = geometry.rigid_from_quaternion(quaternion, target_from_source[:3, 3])
    np.testing.assert_allclose(back, target_from_source, atol=1e-9)
    np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), back[:3, :3], atol=1e-9)


@given(rigids)
def test_inverse_and_lengths(target_from_source):
    source_from_target = geometry.invert_rigid(target_from_source)
    np.testing.assert_allclose(source_from_target @ target_from_source, np.eye(4), atol=1e-9)
    points = np.random.default_rng(0).uniform(-50, 50, (20, 3))
    moved = geometry.transform(target_from_source, points)
    np.testing.assert_allclose(geometry.transform(source_from_target, moved), points, atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(moved, axis=0), axis=1),
        np.linalg.norm(np.diff(points, axis=0), axis=1),
        atol=1e-9,
    )


@given(rigids, rigids)
def test_one_move_after_the_other_is_their_product(c_from_b, b_from_a):
    points = np.random.default_rng(0).uniform(-50, 50, (20, 3))
    np.testing.assert_allclose(
        geometry.transform(c_from_b @ b_from_a, points),
        geometry.transform(c_from_b, geometry.transform(b_from_a, points)),
        atol=1e-8,
    )
    image_from_c = np.array([[900.0, 0, 800, 0], [0, 900, 450, 0], [0, 0, 1, 0]])
    direct = geometry.project(image_from_c @ c_from_b @ b_from_a, points)
    moved = geometry.project(image_from_c, geometry.transform(c_from_b @ b_from_a, points))
    far = np.abs(direct[1]) > 0.1  # not beside the camera, where pixels run off
    np.testing.assert_allclose(direct[1], moved[1], atol=1e-8)
    np.testing.assert_allclose(direct[0][far], moved[0][far], rtol=1e-6, atol=1e-6)


@given(yaws, yaws, st.tuples(metres, metres, metres), st.tuples(metres, metres, metres))
def test_boxes_moved_twice_are_moved_by_the_product(first, second, there, onwards):
    b_from_a = geometry.rigid_from_yaw(first, there)
    c_from_b = geometry.rigid_from_yaw(second, onwards)
    boxes = _boxes(5)
    np.testing.assert_allclose(
        geometry.transform_boxes(c_from_b @ b_from_a, boxes),
        geometry.transform_boxes(c_from_b, geometry.transform_boxes(b_from_a, boxes)),
        atol=1e-8,
    )


def test_inverse_of_a_stack():
    stack = np.stack([geometry.rigid_from_yaw(yaw, (yaw, 2, 3)) for yaw in (0.1, 1.0, -2.0)])
    for one, inverse in zip(stack, geometry.invert_rigid(stack)):
        np.testing.assert_allclose(inverse, np.linalg.inv(one), atol=1e-12)


@given(rigids, rigids, st.floats(0, 1))
def test_interpolation_is_linear_and_slerp(world_from_a, world_from_b, fraction):
    between = geometry.interpolate_rigid(world_from_a, world_from_b, fraction)
    np.testing.assert_allclose(
        between[:3, 3],
        (1 - fraction) * world_from_a[:3, 3] + fraction * world_from_b[:3, 3],
        atol=1e-9,
    )
    rotations = Rotation.from_matrix(np.stack([world_from_a[:3, :3], world_from_b[:3, :3]]))
    if (rotations[0].inv() * rotations[1]).magnitude() > np.pi - 1e-3:
        return  # half a turn: both ways round are equally near
    expected = Slerp([0, 1], rotations)(fraction).as_matrix()
    np.testing.assert_allclose(between[:3, :3], expected, atol=1e-6)


def test_pose_at_a_stamp_lies_on_the_drive_and_stays_at_its_ends():
    """A car that turns at 0.3 rad/s while it drives 8 m/s, known at 10 Hz."""

    def world_from_ego(stamp):
        yaw, radius = 3e-10 * stamp, 8.0 / 0.3
        return geometry.rigid_from_yaw(yaw, (radius * np.sin(yaw), radius * (1 - np.cos(yaw)), 0))

    stamps = np.arange(5) * 100_000_000
    poses = np.stack([world_from_ego(stamp) for stamp in stamps])
    for stamp in [0, 100_000_000, 130_000_000, 399_999_999]:
        pose = geometry.pose_at(stamps, poses, stamp)
        np.testing.assert_allclose(pose, world_from_ego(stamp), atol=5e-3)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(geometry.pose_at(stamps, poses, stamps[2]), poses[2], atol=1e-12)
    np.testing.assert_array_equal(geometry.pose_at(stamps, poses, -1), poses[0])
    np.testing.assert_array_equal(geometry.pose_at(stamps, poses, 10**9), poses[-1])
    np.testing.assert_array_equal(geometry.pose_at(stamps[:1], poses[:1], 50), poses[0])


@given(yaws, st.tuples(metres, metres, metres))
def test_yaw_there_and_back(yaw, xyz):
    turned = geometry.yaw_from_rigid(geometry.rigid_from_yaw(yaw, xyz))
    assert np.cos(turned - yaw) == pytest.approx(1)


@pytest.mark.parametrize('quaternion', [(0, 0, 0, 0), (np.nan, 0, 0, 1), (0, 0, np.inf, 1)])
def test_what_is_no_rotation_is_refused(quaternion):
    with pytest.raises(ValueError, match='is not a rotation'):
        geometry.rigid_from_quaternion(quaternion, (0, 0, 0))


def test_projection_of_points_in_front_and_behind():
    image_from_camera = np.array([[1000.0, 0, 800, 0], [0, 1000, 450, 0], [0, 0, 1, 0]])
    points = np.array([[0, 0, 10], [1, -2, 10], [0, 0, -10], [0, 0, 0]], dtype=float)
    pixels, depth = geometry.project(image_from_camera, points)
    np.testing.assert_allclose(pixels[:2], [[800, 450], [900, 250]])
    np.testing.assert_allclose(depth, [10, 10, -10, 0])
    assert np.isnan(pixels[2:]).all()


def test_corners_of_a_turned_box():
    box = [10, 20, 1, 4, 2, 1.5, 1.0, 0.0, 0, 0]  # heads along +y
    corners = geometry.box_corners([box])[0]
    np.testing.assert_allclose(corners[0], [9, 22, 1.75])  # front left top
    np.testing.assert_allclose(corners[6], [11, 18, 0.25])  # rear right bottom
    np.testing.assert_allclose(corners.mean(0), [10, 20, 1])


@given(yaws, st.tuples(metres, metres, metres))
def test_moved_boxes_have_moved_corners(yaw, xyz):
    target_from_source, boxes = geometry.rigid_from_yaw(yaw, xyz), _boxes(5)
    moved = geometry.transform_boxes(target_from_source, boxes)
    np.testing.assert_allclose(
        geometry.box_corners(moved),
        geometry.transform(target_from_source, geometry.box_corners(boxes)),
        atol=1e-8,
    )
    np.testing.assert_allclose(
        np.linalg.norm(moved[:, BoxCode.VELOCITY], axis=1),
        np.linalg.norm(boxes[:, BoxCode.VELOCITY], axis=1),
    )
    back = geometry.transform_boxes(geometry.invert_rigid(target_from_source), moved)
    np.testing.assert_allclose(back, boxes, atol=1e-8)


def test_no_boxes():
    none = np.zeros((0, 10))
    assert geometry.box_corners(none).shape == (0, 8, 3)
    assert geometry.transform_boxes(np.eye(4), none).shape == (0, 10)


def _outputs(logits):
    count = len(logits)
    return DetectorOutputs(
        logits.astype(np.float32),
        _boxes(count).astype(np.float32),
        np.arange(count, dtype=np.float32)[:, None] * np.ones(4, np.float32),
        np.zeros((2, 3, 3), np.float32),
    )


@given(
    arrays.arrays(np.float32, (12, len(CLASSES)), elements=st.floats(-100, 100, width=32)),
    st.floats(0.01, 0.99),
    st.integers(1, 15),
)
def test_decoding_against_an_obvious_version(logits, threshold, most):
    outputs = _outputs(logits)
    found = decode(outputs, threshold, most)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    above = [query for query in range(12) if scores[query].max() >= threshold]
    expected = sorted(above, key=lambda query: -scores[query].max())[:most]
    np.testing.assert_array_equal(found.queries, expected)
    np.testing.assert_array_equal(found.labels, [logits[query].argmax() for query in expected])
    np.testing.assert_allclose(
        found.scores, [scores[query].max() for query in expected], rtol=1e-6
    )
    np.testing.assert_array_equal(found.boxes, outputs.boxes[expected])
    assert (np.diff(found.scores) <= 0).all()
    inputs = caption_inputs(outputs, found)
    np.testing.assert_array_equal(inputs.object_features[:, 0], found.queries)
    np.testing.assert_array_equal(inputs.class_logits, logits[expected])


def test_what_is_not_finite_is_no_detection():
    logits = np.full((4, len(CLASSES)), 2.0)
    logits[1, 3] = np.nan
    outputs = _outputs(logits)
    outputs.boxes[2, 4] = np.inf
    np.testing.assert_array_equal(decode(outputs, 0.5, 10).queries, [0, 3])


def test_nothing_found_keeps_its_shapes():
    found = decode(_outputs(np.full((4, len(CLASSES)), -9.0)), 0.5, 10)
    assert (found.boxes.shape, found.labels.shape, found.scores.shape) == ((0, 10), (0,), (0,))

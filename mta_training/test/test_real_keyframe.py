"""One real nuScenes keyframe through the converter: our geometry against the official devkit's."""

import json
from pathlib import Path

from engine_parity import check_engines_agree
import numpy as np
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility, view_points
import pytest

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CAMERAS, nuscenes_channel
from mta_perception.geometry import (
    box_corners,
    invert_rigid,
    project,
    rigid,
    rigid_from_yaw,
    transform,
)
from mta_perception.runtime import openvino_graph
from mta_training.conversion.convert import convert


@pytest.fixture(scope='module')
def scene(real_data, tmp_path_factory):
    (bag,) = convert(
        real_data / 'nuscenes_real', tmp_path_factory.mktemp('real'), workers=1, progress=False
    )
    return SceneBag(bag)


@pytest.fixture(scope='module')
def frame(real_data):
    return json.loads((real_data / 'nuscenes_keyframe' / 'frame.json').read_text())


def image_from_ego(scene, camera):
    """(3, 4) of docs/architecture.md: K camera_from_ego ego_at_image_from_ego_at_reference."""
    (sample,) = scene.samples
    stamps, poses = scene.ego_poses
    (row,) = np.flatnonzero(stamps == sample.image_stamps[camera])
    calibration = scene.calibrations[camera]
    moved = invert_rigid(poses[row]) @ sample.world_from_ego
    return calibration.intrinsics @ (invert_rigid(calibration.ego_from_camera) @ moved)[:3]


def unit_corners(size):
    return box_corners(np.array([[0, 0, 0, *size, 0, 1, 0, 0]]))[0]


def test_it_is_all_there(scene):
    (sample,) = scene.samples
    assert sample.token == 'ca9a282c9e77460f8360f564131a8af5' and len(sample.boxes) == 68
    assert scene.name == 'scene-0061' and scene.split == 'mini_train'
    assert scene.cameras == CAMERAS
    assert sample.stamp_ns == 1532402927647951000


@pytest.mark.parametrize('camera', CAMERAS)
def test_projection_is_the_devkits(real_data, scene, camera):
    """Every corner of every box in front of the camera, as NuScenes.get_sample_data gives it."""
    devkit = NuScenes('v1.0-mini', str(real_data / 'nuscenes_real'), verbose=False)
    token = devkit.sample[0]['data'][nuscenes_channel(camera)]
    _, boxes, intrinsic = devkit.get_sample_data(token, box_vis_level=BoxVisibility.NONE)
    (sample,) = scene.samples
    row_of = {token: row for row, token in enumerate(sample.annotations)}
    matrix, compared, worst = image_from_ego(scene, camera), 0, 0.0
    for box in boxes:
        row = row_of[box.token]
        corners = transform(sample.ego_from_box[row], unit_corners(sample.boxes[row, 3:6]))
        pixels, depth = project(matrix, corners)
        want = view_points(box.corners(), intrinsic, normalize=True)[:2].T
        front = depth > 0.5
        if not front.all():
            continue
        worst = max(worst, np.abs(pixels - want).max())
        compared += 1
    print(f'{camera}: {compared} boxes, largest difference {worst:.2e} px')
    assert compared >= 3
    assert worst < 1.0


@pytest.mark.parametrize('camera', CAMERAS)
def test_projection_from_the_lidar_frame_is_the_same(scene, frame, camera):
    """frame.json has boxes in LIDAR_TOP and camera_from_lidar: another way to the same pixels."""
    (sample,) = scene.samples
    entry = frame['cameras'][nuscenes_channel(camera)]
    camera_from_lidar = np.array(entry['camera_from_lidar'])
    image_from_lidar = np.array(entry['intrinsic']) @ camera_from_lidar[:3]
    matrix = image_from_ego(scene, camera)
    ego_from_lidar = np.array(frame['ego_from_lidar'])
    unmatched = list(range(len(sample.boxes)))
    compared, worst = 0, 0.0
    for box in frame['annotations']:
        at = transform(ego_from_lidar, np.array(box['center']))
        row = min(unmatched, key=lambda k: np.linalg.norm(sample.boxes[k, :3] - at))
        unmatched.remove(row)
        lidar_from_box = rigid_from_yaw(box['yaw'], box['center'])
        theirs, depth = project(
            image_from_lidar, transform(lidar_from_box, unit_corners(box['size_lwh']))
        )
        ours, _ = project(
            matrix, transform(sample.ego_from_box[row], unit_corners(sample.boxes[row, 3:6]))
        )
        if (depth > 0.5).all():
            worst = max(worst, np.abs(ours - theirs).max())
            compared += 1
    assert compared >= 3 and not unmatched
    assert worst < 1.0


def test_box_code_keeps_all_but_roll_and_pitch(scene):
    """The ten numbers of a box hold centre, size and yaw: what they lose is the tilt alone."""
    (sample,) = scene.samples
    for box, pose in zip(sample.boxes, sample.ego_from_box):
        yaw = np.arctan2(box[6], box[7])
        np.testing.assert_allclose(box[:3], pose[:3, 3])
        upright = rigid(rigid_from_yaw(yaw)[:3, :3], box[:3])
        tilt = np.arccos(np.clip((np.trace(upright[:3, :3].T @ pose[:3, :3]) - 1) / 2, -1, 1))
        assert tilt < 0.03  # the lidar of this car leans by 0.025 rad


def test_ego_pose_and_images_are_those_of_the_frame(real_data, scene, frame):
    (sample,) = scene.samples
    np.testing.assert_allclose(sample.world_from_ego, frame['global_from_ego'], atol=1e-4)
    for image in scene.images():
        entry = frame['cameras'][nuscenes_channel(image.camera)]
        assert image.stamp_ns == entry['timestamp_us'] * 1000
        assert bytes(image.data) == (real_data / 'nuscenes_keyframe' / entry['file']).read_bytes()
        np.testing.assert_allclose(
            scene.calibrations[image.camera].ego_from_camera, entry['ego_from_camera'], atol=1e-6
        )


@pytest.mark.skipif(not openvino_graph.installed(), reason='openvino is not installed')
def test_engines_agree_on_a_real_frame(scene):
    model = Path(__file__).resolve().parents[2] / 'models' / 'nano'
    check_engines_agree(model, scene.path, range(1))

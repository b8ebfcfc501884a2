"""One step after another through a real (tiny) ONNX model: what is masked, dropped, remembered,
forgotten."""

import json
import os
from pathlib import Path

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import rigs

from mta_perception.config import EgoMotionConfig, MemoryConfig, PipelineConfig
from mta_perception.contract import CAMERAS, nuscenes_channel
from mta_perception.frames import CameraCalibration, CameraImage, FrameSet
from mta_perception.geometry import (
    invert_rigid,
    project,
    rigid,
    rigid_from_yaw,
    transform,
    transform_boxes,
)
from mta_perception.pipeline.bev_memory import BevMemory
from mta_perception.pipeline.drive import DetectorFrame, drive
from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.pipeline.step import DroppedFrame, PerceptionPipeline
from mta_perception.reasons import Code, Reason
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector

pytest.importorskip('onnx', reason='onnx comes with the training environment')
from tiny_model import write_tiny_model

SECOND = 1_000_000_000
START = 1_532_402_927 * SECOND
BRIGHTNESS = dict(zip(CAMERAS, (20, 60, 100, 140, 180, 220)))
FIRED_MS = dict(zip(CAMERAS, (-35, -28, -43, -10, 0, -20)))
SILENT = Reason(Code.NO_IMAGE, 'for 2.0 s')
SHARED = Path(os.environ.get('MTA_SHARED', Path(__file__).parents[2] / 'shared'))
KEYFRAME = SHARED / 'data' / 'nuscenes_keyframe'


def _jpeg(camera, size=(1600, 900)):
    pixels = np.full((size[1], size[0], 3), BRIGHTNESS[camera], np.uint8)
    return cv2.imencode('.jpg', pixels)[1].tobytes()


JPEGS = {camera: _jpeg(camera) for camera in CAMERAS}


def _calibrations():
    intrinsics = rigs.pinhole(1260.0, 1600, 900)
    return {
        camera: CameraCalibration(
            intrinsics,
            1600,
            900,
            rigs.ego_from_camera(rigs.AZIMUTH_DEG[camera], (1.5, 0.0, 1.6)),
        )
        for camera in CAMERAS
    }


def _pose(seconds):
    return rigid_from_yaw(0.3 * seconds, (10.0 * seconds, 2.0 * seconds, 0.0))


def _ego_motion(until_s=10.0):
    ego = EgoMotion(EgoMotionConfig(keep_s=60.0))
    for index in range(-5, int(until_s * 50)):
        ego.add(START + index * SECOND // 50, _pose(index / 50))
    return ego


def _frames(seconds, without=(), **replaced):
    """FrameSet at `seconds`; replaced: camera -> bytes."""
    stamp = START + round(seconds * SECOND)
    images = {
        camera: CameraImage(
            camera,
            stamp + FIRED_MS[camera] * 1_000_000,
            replaced.get(camera, JPEGS[camera]),
            'jpeg',
        )
        for camera in CAMERAS
        if camera not in without
    }
    return FrameSet(stamp, images, dict.fromkeys(without, SILENT))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    manifest = Manifest.load(write_tiny_model(tmp_path_factory.mktemp('models') / 'tiny'))
    return manifest, OnnxDetector(manifest, threads=1)


@pytest.fixture
def pipeline(model):
    made = PerceptionPipeline(*model, PipelineConfig())
    yield made
    made.close()


def _brightness(result):
    """What the model saw of each camera; the padding below the image counts as black."""
    return result.caption_inputs.object_features[0] * 48 / 36


def test_a_step(pipeline):
    result = pipeline.step(_frames(1.0), _calibrations(), _ego_motion())
    np.testing.assert_allclose(_brightness(result), list(BRIGHTNESS.values()), atol=1.5)
    assert result.stamp_ns == START + SECOND and result.blind == {}
    np.testing.assert_allclose(result.world_from_ego, _pose(1.0), atol=1e-9)
    np.testing.assert_array_equal(result.detections.labels, [0, 1])
    np.testing.assert_allclose(result.detections.scores, [0.9, 0.6], rtol=1e-5)
    assert len(set(result.track_ids)) == 2
    assert result.images.shape == (6, 48, 64, 3) and not result.images[:, 36:].any()
    assert set(result.timings_ms) == {'project', 'decode', 'memory', 'detector', 'track'}
    assert not result.history.valid and result.history.length == 1


def test_thresholds_of_the_configuration_win(model):
    for config, count in (
        (PipelineConfig(score_threshold=0.05), 3),
        (PipelineConfig(score_threshold=0.7), 1),
        (PipelineConfig(score_threshold=0.0, max_detections=2), 2),
    ):
        pipeline = PerceptionPipeline(*model, config)
        result = pipeline.step(_frames(1.0), _calibrations(), _ego_motion())
        assert len(result.detections.boxes) == len(result.caption_inputs.boxes) == count
        pipeline.close()


def test_each_image_is_projected_at_its_own_stamp(pipeline):
    result = pipeline.step(_frames(1.0), _calibrations(), _ego_motion())
    for index, camera in enumerate(CAMERAS):
        calibration = _calibrations()[camera]
        fired = 1.0 + FIRED_MS[camera] / 1000
        point_camera = np.array([1.0, -0.5, 12.0])
        point_world = transform(_pose(fired), transform(calibration.ego_from_camera, point_camera))
        point_ego = transform(invert_rigid(_pose(1.0)), point_world)
        pixel, depth = project(result.image_from_ego[index].astype(np.float64), point_ego)
        full_size = np.array([1260 / 12 + 800, -1260 * 0.5 / 12 + 450])
        np.testing.assert_allclose(pixel, (full_size + 0.5) * 0.04 - 0.5, atol=2e-3)
        assert depth == pytest.approx(12.0, abs=1e-3)


def test_history_is_a_training_step_old_and_in_its_own_frame(pipeline):
    ego, calibrations = _ego_motion(), _calibrations()
    for index in range(13):
        seconds = index / 12
        result = pipeline.step(_frames(seconds), calibrations, ego)
        if index < 3:
            assert not result.history.valid
        if index >= 6:
            assert result.history.age_s == pytest.approx(0.5)
            moved = (invert_rigid(_pose(seconds - 0.5)) @ _pose(seconds))[:3, 3]
            np.testing.assert_allclose(result.detections.boxes[0, :3], moved, atol=1e-3)
    # bev = 1 + previous / 2 along 0.0, 0.5, 1.0 s
    np.testing.assert_allclose(result.caption_inputs.bev, 1.75)


@pytest.mark.parametrize('rate_hz', [2, 12])
def test_a_drive_offline_has_the_memory_that_the_node_has(model, pipeline, rate_hz):
    """Evaluation, calibration and caption stage drive as the node does, also over a gap."""
    times = [*np.arange(0, 2, 1 / rate_hz), *np.arange(4, 5, 1 / rate_hz)]
    ego, calibrations = _ego_motion(), _calibrations()
    results = [pipeline.step(_frames(seconds), calibrations, ego) for seconds in times]
    frames = [
        DetectorFrame(
            result.stamp_ns,
            result.world_from_ego,
            result.images,
            result.image_from_ego,
            np.ones(len(CAMERAS), np.float32),
        )
        for result in results
    ]
    manifest, detector = model
    memory = BevMemory(MemoryConfig.trained_at(manifest.history_step_s))
    driven = list(drive(detector, frames, memory))
    assert {result.history.resets for result in results} == {0, 1}
    for result, one in zip(results, driven):
        assert one.history.valid == result.history.valid
        assert one.history.age_s == result.history.age_s
        np.testing.assert_array_equal(one.outputs.bev, result.caption_inputs.bev)


def _leaning(angle_deg):
    """ego_from_leaning (4, 4): a body that rolls to its right and dips its nose half as much."""
    roll, pitch = np.deg2rad(angle_deg), np.deg2rad(angle_deg / 2)
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]]
    )
    about_y = np.array(
        [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    )
    return rigid(about_y @ about_x, np.zeros(3))


def test_a_leaning_body_changes_nothing_in_the_world(model):
    """The same cameras over the same street, carried by a body that leans three degrees: the same
    objects in the world, the same memory, though every number in base_link is another."""
    lean = _leaning(3.0)
    upright, leaning = (
        EgoMotion(EgoMotionConfig(keep_s=60.0)),
        EgoMotion(EgoMotionConfig(keep_s=60.0)),
    )
    for index in range(-5, 100):
        upright.add(START + index * SECOND // 50, _pose(index / 50))
        leaning.add(START + index * SECOND // 50, _pose(index / 50) @ lean)
    carried = {
        camera: one._replace(ego_from_camera=invert_rigid(lean) @ one.ego_from_camera)
        for camera, one in _calibrations().items()
    }
    manifest, detector = model
    rigs_ = ((_calibrations(), upright, True), (carried, leaning, True), (carried, leaning, False))
    found = []
    for calibrations, motion, level in rigs_:
        pipeline = PerceptionPipeline(
            manifest, detector, PipelineConfig(score_threshold=0.0, level=level)
        )
        steps = [pipeline.step(_frames(second), calibrations, motion) for second in (0.5, 1.0)]
        pipeline.close()
        found.append(steps)
    for one, other in zip(*found[:2]):
        assert one.history.valid == other.history.valid
        world = [transform_boxes(s.world_from_ego, s.detections.boxes) for s in (one, other)]
        np.testing.assert_allclose(world[0], world[1], atol=2e-3)
        assert one.track_ids == other.track_ids
        # Boxes and projections go out in the same frame, the body's.
        np.testing.assert_allclose(
            other.image_from_ego, one.image_from_ego @ lean, rtol=1e-4, atol=1e-2
        )
    assert not np.allclose(found[1][1].detections.boxes, found[2][1].detections.boxes, atol=1e-2)


def test_ids_and_trails_stay(pipeline):
    ego, calibrations = _ego_motion(), _calibrations()
    ids = [
        tuple(pipeline.step(_frames(index / 12), calibrations, ego).track_ids)
        for index in range(2)
    ]
    assert ids[0] == ids[1]
    assert set(pipeline.tracker.trails()) == set(ids[0])


@pytest.mark.parametrize(
    'data, code, detail',
    [
        (JPEGS['cam_back'][:3000], Code.TRUNCATED_IMAGE, 'jpeg'),
        (b'', Code.CORRUPT_IMAGE, 'without a header'),
        (_jpeg('cam_back', (800, 600)), Code.WRONG_IMAGE_SIZE, '800x600, expected 1600x900'),
    ],
    ids=['truncated', 'empty', 'other size'],
)
def test_a_bad_image_masks_its_camera_alone(pipeline, data, code, detail):
    result = pipeline.step(_frames(1.0, cam_back=data), _calibrations(), _ego_motion())
    assert list(result.blind) == ['cam_back']
    assert result.blind['cam_back'].code is code and detail in result.blind['cam_back'].detail
    expected = [0 if camera == 'cam_back' else value for camera, value in BRIGHTNESS.items()]
    np.testing.assert_allclose(_brightness(result), expected, atol=1.5)
    assert not result.images[3].any() and not result.image_from_ego[3].any()
    assert pipeline.masked == {code: 1}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.text(), min_size=3, max_size=3))
def test_rewording_what_is_missing_changes_no_count(model, details):
    made, frames = PerceptionPipeline(*model), _frames(1.0, without=CAMERAS[:3])
    worded = {camera: Reason(Code.NO_IMAGE, detail) for camera, detail in zip(CAMERAS, details)}
    with pytest.raises(DroppedFrame) as caught:
        made.step(frames._replace(missing=worded), _calibrations(), _ego_motion(2.0))
    made.close()
    assert caught.value.reason.code is Code.TOO_FEW_CAMERAS
    assert made.dropped == {Code.TOO_FEW_CAMERAS: 1} and made.masked == {}


def test_missing_cameras_are_blind(pipeline):
    result = pipeline.step(
        _frames(1.0, without=('cam_front', 'cam_back')), _calibrations(), _ego_motion()
    )
    assert result.blind == {'cam_front': SILENT, 'cam_back': SILENT}
    assert _brightness(result)[0] == 0 and _brightness(result)[1] > 0


def test_too_few_cameras(pipeline):
    without = ('cam_front', 'cam_back')
    with pytest.raises(
        DroppedFrame, match='3 usable, min_cameras is 4.*cam_back_left.*truncated'
    ) as caught:
        pipeline.step(
            _frames(1.0, without, cam_back_left=JPEGS['cam_back'][:3000]),
            _calibrations(),
            _ego_motion(),
        )
    assert caught.value.reason.code is Code.TOO_FEW_CAMERAS
    assert pipeline.dropped == {Code.TOO_FEW_CAMERAS: 1} and pipeline.memory.state.length == 0
    pipeline.step(_frames(1.1), _calibrations(), _ego_motion())


def lens(fx=1266.0, cx=800.0):
    return np.array([[fx, 0.0, cx], [0.0, 1266.0, 450.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    'change, reason',
    [
        ({'intrinsics': np.full((3, 3), np.nan)}, 'not finite'),
        ({'intrinsics': np.zeros((3, 3))}, 'not calibrated'),
        ({'intrinsics': np.ones((3, 3))}, 'last row'),
        ({'ego_from_camera': np.eye(4) * 2}, 'not a rotation'),
        ({'ego_from_camera': np.diag([-1.0, 1, 1, 1])}, 'not a rotation'),
        ({'ego_from_camera': np.eye(3)}, 'shapes'),
        ({'width': 0}, '0x900'),
        ({'intrinsics': lens(fx=1e300)}, 'no camera of 1600 px has'),
        ({'intrinsics': lens(fx=1e-300)}, 'no camera of 1600 px has'),
        ({'intrinsics': lens(cx=1e300)}, 'principal point'),
        ({'intrinsics': lens(cx=-4000.0)}, 'principal point'),
        ({'ego_from_camera': rigid_from_yaw(0.0, (1e9, 0.0, 1.5))}, 'mounted 1e+09 m'),
    ],
)
def test_a_calibration_that_cannot_be_true_masks_its_camera(pipeline, change, reason):
    calibrations = _calibrations()
    calibrations['cam_front'] = calibrations['cam_front']._replace(**change)
    result = pipeline.step(_frames(1.0), calibrations, _ego_motion())
    assert list(result.blind) == ['cam_front']
    assert result.blind['cam_front'].code is Code.IMPOSSIBLE_CALIBRATION
    assert reason in result.blind['cam_front'].detail


def test_a_calibration_that_never_comes(pipeline):
    calibrations = _calibrations()
    del calibrations['cam_front_left']
    result = pipeline.step(_frames(1.0), calibrations, _ego_motion())
    assert result.blind['cam_front_left'].code is Code.NO_CALIBRATION


def test_a_calibration_that_changes_drops_the_history(pipeline):
    ego, calibrations = EgoMotion(EgoMotionConfig(max_gap_s=5.0)), _calibrations()
    for seconds in (-1, 3):  # the car stands: only calibrations can change
        ego.add(START + seconds * SECOND, np.eye(4))
    for seconds in (0.0, 0.5):
        result = pipeline.step(_frames(seconds), calibrations, ego)
    assert result.history.valid
    before = result.image_from_ego
    same = {
        camera: calibration._replace(  # what a transform published anew may differ by
            intrinsics=calibration.intrinsics.copy(),
            ego_from_camera=calibration.ego_from_camera + 4e-7,
        )
        for camera, calibration in calibrations.items()
    }
    assert pipeline.step(_frames(1.0), same, ego).history.valid
    calibrations['cam_back'] = calibrations['cam_back']._replace(
        intrinsics=rigs.pinhole(1300.0, 1600, 900)
    )
    result = pipeline.step(_frames(1.5), calibrations, ego)
    assert not result.history.valid
    assert result.history.last_reason == Reason(Code.CALIBRATION_CHANGED, 'of cam_back')
    changed = np.abs(result.image_from_ego - before).max(axis=(1, 2)) > 1e-3
    np.testing.assert_array_equal(changed, [camera == 'cam_back' for camera in CAMERAS])


def test_cameras_of_any_size(pipeline):
    calibrations = _calibrations()
    calibrations['cam_front'] = CameraCalibration(
        np.array([[1512.0, 0, 960], [0, 1512, 600], [0, 0, 1]]),
        1920,
        1200,
        calibrations['cam_front'].ego_from_camera,
    )
    data = _jpeg('cam_front', (1920, 1200))
    result = pipeline.step(_frames(1.0, cam_front=data), calibrations, _ego_motion())
    assert result.blind == {}
    assert result.images[0, :40].min() > 15 and not result.images[0, 40:].any()


@pytest.mark.parametrize(
    'seconds, code', [(11.0, Code.ODOMETRY_TOO_OLD), (-2.0, Code.STAMP_BEFORE_ODOMETRY)]
)
def test_no_pose_no_frame(pipeline, seconds, code):
    with pytest.raises(DroppedFrame) as caught:
        pipeline.step(_frames(seconds), _calibrations(), _ego_motion())
    assert caught.value.reason.code is code and pipeline.dropped == {code: 1}
    with pytest.raises(DroppedFrame) as caught:
        pipeline.step(_frames(1.0), _calibrations(), EgoMotion())
    assert caught.value.reason.code is Code.NO_ODOMETRY


def _after_two_steps(pipeline, ego):
    for seconds in (3.0, 3.5):
        result = pipeline.step(_frames(seconds), _calibrations(), ego)
    assert result.history.valid
    return result


def test_a_clock_jump_starts_anew(pipeline):
    ego = _ego_motion()
    before = _after_two_steps(pipeline, ego)
    result = pipeline.step(_frames(1.0), _calibrations(), ego)
    assert not result.history.valid
    assert result.history.last_reason == Reason(Code.CLOCK_JUMPED_BACK, 'by 2.50 s')
    assert not set(result.track_ids) & set(before.track_ids)


def test_a_gap_starts_anew(pipeline):
    ego = _ego_motion()
    _after_two_steps(pipeline, ego)
    result = pipeline.step(_frames(6.0), _calibrations(), ego)
    assert not result.history.valid
    assert result.history.last_reason.code is Code.GAP_BETWEEN_FRAMES
    assert result.history.last_reason.detail.startswith('2.50 s')


def test_a_pose_jump_starts_anew(pipeline):
    """Too small to be seen from frame to frame, plain to see from pose to pose."""
    ego = _ego_motion(3.6)
    before = _after_two_steps(pipeline, ego)
    for index in range(180, 210):
        jumped = _pose(index / 50)
        jumped[1, 3] += 6.0
        ego.add(START + index * SECOND // 50, jumped)
    result = pipeline.step(_frames(4.0), _calibrations(), ego)
    assert not result.history.valid
    assert result.history.last_reason.code is Code.POSE_JUMPED
    assert result.history.last_reason.detail.startswith('by 6')
    assert not set(result.track_ids) & set(before.track_ids)


def test_a_reset_that_was_asked_for(pipeline):
    ego = _ego_motion()
    _after_two_steps(pipeline, ego)
    asked = Reason(Code.RESET_REQUESTED)
    pipeline.reset(asked)
    result = pipeline.step(_frames(4.0), _calibrations(), ego)
    assert not result.history.valid and result.history.last_reason == asked


def test_a_network_that_says_nan_is_not_remembered(model):
    manifest, detector = model
    state = {'broken': False}

    def failing(*inputs):
        outputs = detector(*inputs)
        return outputs._replace(bev=outputs.bev * np.nan) if state['broken'] else outputs

    pipeline = PerceptionPipeline(manifest, failing)
    ego = _ego_motion()
    _after_two_steps(pipeline, ego)
    state['broken'] = True
    with pytest.raises(DroppedFrame, match='not finite'):
        pipeline.step(_frames(4.0), _calibrations(), ego)
    state['broken'] = False
    result = pipeline.step(_frames(4.5), _calibrations(), ego)
    assert not result.history.valid and np.isfinite(result.caption_inputs.bev).all()
    pipeline.close()


@pytest.mark.parametrize(
    'values',
    [
        {'min_cameras': 0},
        {'min_cameras': 7},
        {'score_threshold': 1.5},
        {'max_detections': 0},
        {'decode_threads': 0},
        {'history_max_gap_s': -1.0},
    ],
)
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        PipelineConfig(**values)


@pytest.mark.skipif(not KEYFRAME.is_dir(), reason='the real key frame is not there (MTA_SHARED)')
def test_the_real_key_frame_is_projected_as_its_own_calibration_says(pipeline):
    facts = json.loads((KEYFRAME / 'frame.json').read_text())
    world_from_lidar = np.array(facts['global_from_ego']) @ np.array(facts['ego_from_lidar'])
    poses, calibrations, images = {}, {}, {}
    for camera in CAMERAS:
        facts_of = facts['cameras'][nuscenes_channel(camera)]
        stamp = facts_of['timestamp_us'] * 1000
        ego_from_camera = np.array(facts_of['ego_from_camera'])
        poses[stamp] = (
            world_from_lidar
            @ invert_rigid(facts_of['camera_from_lidar'])
            @ invert_rigid(ego_from_camera)
        )
        calibrations[camera] = CameraCalibration(
            np.array(facts_of['intrinsic']), facts_of['width'], facts_of['height'], ego_from_camera
        )
        images[camera] = CameraImage(
            camera, stamp, (KEYFRAME / f'{nuscenes_channel(camera)}.jpg').read_bytes(), 'jpeg'
        )
    ego = EgoMotion()
    for stamp in sorted(poses):
        ego.add(stamp, poses[stamp])
    reference = max(poses)
    result = pipeline.step(FrameSet(reference, images, {}), calibrations, ego)
    assert result.blind == {}
    centres = np.array([box['center'] for box in facts['annotations']])  # lidar frame
    centres_ego = transform(invert_rigid(poses[reference]), transform(world_from_lidar, centres))
    seen = 0
    for index, camera in enumerate(CAMERAS):
        facts_of = facts['cameras'][nuscenes_channel(camera)]
        camera_from_lidar = np.array(facts_of['camera_from_lidar'])
        pixels, depth = project(calibrations[camera].intrinsics @ camera_from_lidar[:3], centres)
        visible = (depth > 1) & (pixels >= 0).all(1) & (pixels < (1600, 900)).all(1)
        ours, _ = project(result.image_from_ego[index].astype(np.float64), centres_ego[visible])
        full_size = (ours + 0.5) / 0.04 - 0.5
        np.testing.assert_allclose(full_size, pixels[visible], atol=0.1)
        seen += visible.sum()
    assert seen >= 60

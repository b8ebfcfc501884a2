"""Cameras and calibrations as people have them, over real DDS: used, or named in /diagnostics.

One node process; every test begins with a fresh activation of it.
"""

import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from ros_car import HEIGHT, WIDTH, Car, start_node, wait_until

from mta_perception.commands.processes import free_domain
from mta_perception.contract import CAMERAS
from mta_perception.geometry import quaternion_from_rigid, rigid_from_yaw

ERROR, WARN, OK = 2, 1, 0
PARAMETERS = {
    'dead_after_s': 2.0,
    'max_captions': 1,
    'base_frame': '/base_link',
    'min_cameras': 3,
}
PACE_S = 0.25


class OwnCar(Car):
    """A car whose camera_info and mountings a test may change."""

    def __init__(self, *arguments, **options):
        self.info_changes, self.looks_like = {}, {}
        super().__init__(*arguments, **options)

    def camera_info(self, camera, stamp_ns, **options):
        message = super().camera_info(camera, stamp_ns, **options)
        for name, value in self.info_changes.get(camera, {}).items():
            setattr(message, name, value)
        return message

    def mounting(self, camera):
        message = super().mounting(self.looks_like.get(camera, camera))
        message.child_frame_id = self.frame.format(camera)
        return message

    def publish_mountings(self):
        from tf2_msgs.msg import TFMessage

        self.static.publish(TFMessage(transforms=[self.mounting(camera) for camera in CAMERAS]))


@pytest.fixture(scope='module')
def domain():
    return free_domain()


@pytest.fixture(scope='module')
def node(domain, tmp_path_factory):
    with start_node(tmp_path_factory.mktemp('node'), domain, PARAMETERS) as child:
        yield child


@pytest.fixture(scope='module')
def shared_car(node, domain):
    made = OwnCar(domain)
    made.listen_to_node()
    made.wait_for_node()
    yield made
    made.close()


@pytest.fixture
def car(shared_car, node):
    shared_car.info_changes, shared_car.looks_like = {}, {}
    shared_car.frame = '{}_optical'
    shared_car.publish_mountings()
    assert shared_car.change_state('deactivate', 'activate')
    shared_car.wait_for_node()
    yield shared_car
    assert shared_car.statuses()['process'][2]['unexpected_errors'] == '0'
    assert node.running()


def say_until(car, component, condition, **options):
    """Rounds until a status is as condition(level, message, values) wants it; returns that."""
    found = []

    def is_there():
        car.say(**options)
        time.sleep(PACE_S)
        status = car.statuses().get(component)
        if status is not None and condition(*status):
            found.append(status)
        return found

    wait_until(is_there, 20.0, lambda: f'not so: {car.statuses().get(component)}, {car.words()}')
    return found[0]


def test_a_distorted_camera_is_undistorted_and_an_unknown_one_named(car, node):
    car.info_changes = {
        'cam_back': {'distortion_model': 'equidistant', 'd': [0.01, 0.0, 0.0, 0.0]},
        'cam_front': {'distortion_model': 'omni', 'd': [0.1]},
    }
    level, _, values = say_until(
        car, 'camera cam_back', lambda level, _, values: 'image_rectified' in values
    )
    assert level == OK and values['image_rectified'] == 'equidistant'
    assert values['images_are'] == 'raw (topic /cam_back/image_raw/compressed)'
    level, words, _ = say_until(car, 'camera cam_front', lambda level, *_: level == ERROR)
    assert words.startswith("unknown distortion: camera_info has distortion_model 'omni'")
    assert 'unknown distortion' in node.output()


def test_padded_scaled_and_deep_images(car, node):
    small = cv2.resize(car.images['cam_back'], (WIDTH // 2, HEIGHT // 2))
    deep = car.images['cam_front'].astype(np.uint16) << 4
    data = {
        'cam_back': cv2.imencode('.jpg', small)[1].tobytes(),
        'cam_back_right': car.jpegs['cam_back_right'].ljust(WIDTH * HEIGHT * 3, b'\0'),
        'cam_front': cv2.imencode('.png', deep)[1].tobytes(),
        'cam_front_left': cv2.imencode('.jpg', car.images['cam_back'][:-60])[1].tobytes(),
    }
    level, words, _ = say_until(car, 'camera cam_back', lambda level, *_: level == WARN, data=data)
    assert f'images are {WIDTH // 2}x{HEIGHT // 2}, camera_info is of {WIDTH}x{HEIGHT}' in words
    statuses = car.statuses()
    assert statuses['camera cam_front'][2]['image_bits'] == '12 of 16'
    level, words, values = statuses['camera cam_back_right']
    assert level == OK and values['decode_errors'] == '0', words
    level, words, _ = say_until(
        car,
        'camera cam_front_left',
        lambda _, words, values: 'masked/wrong image size' in values and 'same aspect' in words,
        data=data,
    )
    assert level == WARN
    assert node.output().count('its intrinsics are scaled') == 1  # no storm


def test_a_body_frame_and_swapped_cameras_are_named_with_the_mend(car, node):
    car.looks_like = {'cam_front_left': 'cam_front_right', 'cam_front_right': 'cam_front_left'}
    car.frame = 'own_{}'
    car.publish_mountings()
    body = car.mounting('cam_back')
    rotation = body.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = map(
        float, quaternion_from_rigid(rigid_from_yaw(np.pi))
    )
    from tf2_msgs.msg import TFMessage

    car.static.publish(TFMessage(transforms=[body]))
    level, words, _ = say_until(car, 'camera cam_back', lambda level, *_: level == ERROR)
    assert 'not an optical frame' in words and '"own_cam_back" looks up' in words
    level, words, _ = say_until(car, 'camera cam_front_left', lambda level, *_: level == WARN)
    assert 'camera out of place' in words and 'in the place of cam_front_right' in words
    assert 'cam_front_left: camera out of place' in node.output()


def test_leading_slashes_everywhere(car):
    """In the parameter base_frame too; see PARAMETERS."""
    car.frame = '/slashed_{}'
    mountings = [car.mounting(camera) for camera in CAMERAS]
    for message in mountings:
        message.header.frame_id = '/base_link'
    from tf2_msgs.msg import TFMessage

    car.static.publish(TFMessage(transforms=mountings))
    before = len(car.detections)

    def detected():
        odometry = car.odometry_message(car.stamp_ns + int(car.period_s * 1e9), car.world_xy)
        odometry.header.frame_id, odometry.child_frame_id = '/odom', '/base_link'
        car.say(odometry=odometry)
        time.sleep(PACE_S)
        return len(car.detections) > before

    wait_until(detected, 20.0, car.words)
    assert car.detections[-1].header.frame_id == 'base_link'
    assert car.statuses()['camera cam_front'][0] == OK

"""Mounts, odometry and stamps as vehicles have them, over real DDS: used, or named once.

One node process per source of ego motion; every test begins with a fresh activation of it.
"""

import math
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from ros_car import SECOND_NS, Car, jpeg, stamp_ns, start_node, wait_until

from mta_perception.commands.processes import free_domain
from mta_perception.contract import CAMERAS

ERROR, WARN, OK = 2, 1, 0
PACE_S = 0.25


class OtherCar(Car):
    """A car that may also publish its mounts and its motion on /tf."""

    def __init__(self, *arguments, **options):
        self.mounts_on_tf, self.moves_on_tf, self.child = False, False, 'base_link'
        self.odometry_off_ns = 0
        super().__init__(*arguments, **options)

    def say_tf(self):
        """Mounts, as a driver publishes them again and again; motion, at the next stamp."""
        from tf2_msgs.msg import TFMessage

        transforms = []
        if self.mounts_on_tf:
            transforms += [self.mounting(camera) for camera in CAMERAS]
        if self.moves_on_tf:
            message = self.mounting('cam_front')
            message.header = self.header(self.stamp_ns + int(self.period_s * SECOND_NS), 'odom')
            message.child_frame_id = 'base_link'
            move = message.transform
            move.translation.x, move.translation.y = map(float, self.world_xy)
            move.translation.z = 0.0
            move.rotation.x = move.rotation.y = move.rotation.z = 0.0
            move.rotation.w = 1.0
            transforms.append(message)
        self.transforms.publish(TFMessage(transforms=transforms))

    def odometry_message(self, stamp_ns, xy):
        message = super().odometry_message(stamp_ns + self.odometry_off_ns, xy)
        message.child_frame_id = self.child
        return message

    def publish_static(self, parent, child, xyz=(0.0, 0.0, 0.0), yaw=0.0):
        from tf2_msgs.msg import TFMessage

        message = self.mounting('cam_front')
        message.header.frame_id, message.child_frame_id = parent, child
        t, q = message.transform.translation, message.transform.rotation
        t.x, t.y, t.z = xyz
        q.x = q.y = 0.0
        q.z, q.w = math.sin(yaw / 2), math.cos(yaw / 2)
        self.static.publish(TFMessage(transforms=[message]))


@pytest.fixture(scope='module', params=['odom', 'tf'])
def running(request, tmp_path_factory):
    """(node, car, source) of one process."""
    domain = free_domain()
    parameters = {'ego_motion_source': request.param, 'max_captions': 1, 'dead_after_s': 2.0}
    with start_node(tmp_path_factory.mktemp(request.param), domain, parameters) as node:
        car = OtherCar(domain)
        car.listen_to_node()
        car.wait_for_node()
        yield node, car, request.param
        car.close()


@pytest.fixture
def car(running):
    node, car, source = running
    car.mounts_on_tf, car.moves_on_tf, car.child = False, source == 'tf', 'base_link'
    car.odometry_off_ns, car.frame, car.freezes = 0, '{}_optical', False
    assert car.change_state('deactivate', 'activate')
    car.wait_for_node()
    yield car
    assert car.statuses()['process'][2]['unexpected_errors'] == '0'
    assert node.running()


@pytest.fixture
def only_odom(running):
    if running[2] != 'odom':
        pytest.skip('about the topic odom')


def rounds_until(car, done, **options):
    def is_done():
        car.say_tf()
        car.say(odometry=not car.moves_on_tf, **options)
        time.sleep(PACE_S)
        return done()

    wait_until(is_done, 20.0, lambda: f'{car.words()}')


def status(car, name):
    return car.statuses().get(name, (None, '', {}))


@pytest.mark.parametrize('early', [False, True])
def test_mounts_that_come_again_and_again_on_tf(car, early):
    """From before the first image on, or after some of them."""
    car.frame = f'{"early" if early else "late"}_{{}}'
    car.mounts_on_tf = early
    if early:
        for _ in range(3):
            car.say_tf()
            time.sleep(0.1)
    else:
        rounds_until(car, lambda: 'no transform' in status(car, 'camera cam_back')[1])
        car.mounts_on_tf = True
    before = len(car.detections)
    rounds_until(car, lambda: len(car.detections) > before + 3)
    level, words, values = status(car, 'camera cam_back')
    assert level == OK, words
    assert values['calibration_changes'] == '0'
    assert status(car, 'odometry')[2]['resets'] == '0'


def test_odometry_of_another_frame_of_the_car(car, only_odom):
    """Named while its mount is unknown; taken from then on, with what came before, no jump."""
    car.child = 'imu_link'
    rounds_until(car, lambda: 'imu_link' in status(car, 'odometry')[1])
    level, words, _ = status(car, 'odometry')
    assert level == ERROR and 'odometry of an unknown frame' in words and '/tf_static' in words
    assert (
        not [
            one
            for one in car.detections
            if stamp_ns(one.header.stamp) > car.stamp_ns - 10 * SECOND_NS
        ]
        or 'no odometry' in status(car, 'frames')[1]
    )
    car.publish_static('base_link', 'imu_link', (1.2, -0.3, 0.8), math.pi / 2)
    before = len(car.detections)
    rounds_until(car, lambda: len(car.detections) > before + 2)
    level, words, values = status(car, 'odometry')
    assert values['resets'] == '0' and int(values['poses']) >= 3
    assert status(car, 'memory')[2]['resets'] == '0'


def test_odometry_with_empty_names_and_broken_rotations(car, only_odom):
    car.child = ''
    before = len(car.detections)
    rounds_until(car, lambda: len(car.detections) > before + 1)
    for rotation in ((0.0, 0.0, 0.0, 0.0), (math.nan, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 2.0)):
        message = car.odometry_message(car.stamp_ns + SECOND_NS // 100, car.world_xy)
        q = message.pose.pose.orientation
        q.x, q.y, q.z, q.w = rotation
        car.odometry.publish(message)
    before = len(car.detections)
    rounds_until(car, lambda: len(car.detections) > before + 1)
    rounds_until(car, lambda: status(car, 'odometry')[1])
    values = status(car, 'odometry')[2]
    assert values['refused/pose is not finite'] == '1'
    assert values['refused/quaternion is not of length 1'] == '2'
    assert values['resets'] == '0'


@pytest.mark.parametrize('seconds, words', [(37, 'TAI'), (7200, 'time zone')])
def test_a_constant_offset_of_the_clocks_is_named(car, only_odom, seconds, words):
    car.odometry_off_ns = -seconds * SECOND_NS
    rounds_until(car, lambda: words in status(car, 'frames')[1])
    level, text, _ = status(car, 'frames')
    assert level == ERROR and f'{seconds}.' in text and 'ahead of the newest odometry' in text
    assert status(car, 'frames')[2]['sync/resets'] == '0'


@pytest.mark.parametrize('kind', ['still', 'whole seconds', 'zero'])
def test_stamps_that_stand_still_are_named_and_reset_nothing(car, running, only_odom, kind):
    node, before = running[0], len(car.detections)
    lines = node.output().count('stamp stands still')
    period_s, now_ns = car.period_s, car.stamp_ns

    def stamped():
        if kind == 'whole seconds':
            return (now_ns // SECOND_NS + 2 + int((time.monotonic() - began) // 1)) * SECOND_NS
        return 0 if kind == 'zero' else now_ns + SECOND_NS

    try:
        car.period_s, began = 0.0, time.monotonic()
        while time.monotonic() - began < 4.0:
            car.stamp_ns = stamped()
            car.say(odometry=kind != 'zero')
            time.sleep(PACE_S)
        level, words, values = status(car, 'camera cam_back')
    finally:
        car.period_s, car.stamp_ns = period_s, now_ns + 20 * SECOND_NS
    assert int(values['dropped/stamp stands still']) >= 6
    if kind != 'whole seconds':  # there it moves on now and then
        assert level == ERROR and 'stamp stands still' in words and 'nanoseconds' in words
    stamps = [stamp_ns(message.header.stamp) for message in car.detections[before:]]
    assert len(stamps) == len(set(stamps)) and len(stamps) <= (6 if kind == 'whole seconds' else 1)
    assert status(car, 'frames')[2]['sync/resets'] == '0'
    assert 0 < node.output().count('stamp stands still') - lines <= 6  # once a camera


def test_a_frozen_camera_is_named_and_not_used(car, running, only_odom):
    """The others go on; with its first other picture it is back."""
    lines, car.freezes = running[0].output().count('cam_back: frozen'), True
    still, moving = car.jpegs['cam_back'], [0]

    def pictures():
        moving[0] += 1
        images = {
            camera: jpeg(np.roll(image, 3 * moving[0], axis=1))
            for camera, image in car.images.items()
        }
        return {**images, 'cam_back': still}

    def done(condition):
        car.say(data=pictures())
        time.sleep(PACE_S)
        return condition()

    def frozen():
        return 'frozen' in status(car, 'camera cam_back')[1]

    wait_until(lambda: done(frozen), 20.0, lambda: f'{car.words()}')
    level, words, _ = status(car, 'camera cam_back')
    assert level == ERROR and 'same bytes' in words and 'sector back is blind' in words
    before = len(car.detections)
    wait_until(lambda: done(lambda: len(car.detections) > before + 1), 20.0, f'{car.words()}')
    assert running[0].output().count('cam_back: frozen') - lines == 1
    still = jpeg(np.roll(car.images['cam_back'], 7, axis=0))
    wait_until(lambda: done(lambda: not frozen()), 20.0, lambda: f'{car.words()}')


def test_a_parked_car_and_a_mount_on_tf_above_base_link(car, running):
    """odom -> base_footprint moves; base_footprint -> base_link comes again and again."""
    if running[2] != 'tf':
        pytest.skip('about /tf')
    from tf2_msgs.msg import TFMessage

    def say_chain():
        stamp = car.stamp_ns + int(car.period_s * SECOND_NS)
        message, mount = car.mounting('cam_front'), car.mounting('cam_front')
        for one, parent, child, ahead in (
            (mount, 'base_footprint', 'base_link', SECOND_NS // 2),
            (message, 'odom', 'base_footprint', 0),
        ):
            one.header = car.header(stamp + ahead, parent)
            one.child_frame_id = child
            q = one.transform.rotation
            q.x, q.y, q.z, q.w = 0.0, 0.0, 0.0, 1.0
            t = one.transform.translation
            t.x, t.y, t.z = 0.0, 0.0, 0.3
        message.transform.translation.x = float(car.world_xy[0])
        car.transforms.publish(TFMessage(transforms=[mount, message]))

    before = len(car.detections)

    def done():
        say_chain()
        car.say(odometry=False, xy=car.world_xy + np.array([0.5, 0.0]))
        time.sleep(PACE_S)
        return len(car.detections) > before + 4

    wait_until(done, 20.0, lambda: f'{car.words()}')
    assert status(car, 'odometry')[2]['resets'] == '0', car.words()

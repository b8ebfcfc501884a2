"""Degraded modes over real DDS: what goes wrong is named in /diagnostics and the node lives on.

One node process; every test begins with a fresh activation of it.
"""

import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from ros_car import SECOND_NS, Car, jpeg, stamp_ns, start_node, wait_until

from mta_perception.commands.processes import free_domain
from mta_perception.contract import CAMERAS

# Short enough that a dead camera is seen soon, long enough for the lockstep of `Car.step`.
PARAMETERS = {'dead_after_s': 2.0, 'max_captions': 1}
ERROR, WARN, OK = 2, 1, 0
PACE_S = 0.25  # above Car.period_s: a busy machine keeps up


@pytest.fixture(scope='module')
def domain():
    return free_domain()


@pytest.fixture(scope='module')
def node(domain, tmp_path_factory):
    with start_node(tmp_path_factory.mktemp('node'), domain, PARAMETERS) as child:
        yield child


@pytest.fixture(scope='module')
def shared_car(node, domain):
    made = Car(domain)
    made.listen_to_node()
    made.wait_for_node()
    yield made
    made.close()


@pytest.fixture
def car(shared_car, node):
    """The car with a freshly activated node; afterwards the node must still do its work."""
    assert shared_car.change_state('deactivate', 'activate')
    shared_car.wait_for_node()
    yield shared_car
    shared_car.step()
    status = shared_car.statuses()['process']
    assert status[2]['unexpected_errors'] == '0', status
    assert node.running()


def start(car, rounds=3):
    for _ in range(rounds):
        car.step()


def rounds(car, count, **options):
    """Rounds at the pace of real cameras, which wait for nobody."""
    for _ in range(count):
        car.say(**options)
        time.sleep(PACE_S)


def settle(car):
    """Rounds until one is detected in: images may come before what they need."""
    before = len(car.detections)

    def detected():
        rounds(car, 1)
        return len(car.detections) > before

    wait_until(detected, 20.0, 'no detections again')


def dropped_for(reason):
    """Condition on the status of the frames: some were dropped, and that is why."""
    return lambda level, words, values: (
        level != OK and counts(values, 'dropped').get(reason, 0) >= 1
    )


def counts(values, prefix):
    """{code: count} of the keys that begin with `prefix`/."""
    return {
        key.partition('/')[2]: int(value)
        for key, value in values.items()
        if key.startswith(f'{prefix}/')
    }


def test_dead_camera_is_masked_and_its_sector_reported_blind(car):
    start(car)
    for _ in range(3):
        message = car.step(without=['cam_back'])  # waits for it, then goes on without
        assert len(message.detections) > 0
    wait_until(
        lambda: (
            not car.step(without=['cam_back']) or car.statuses()['camera cam_back'][0] == ERROR
        ),
        10.0,
        'never reported',
    )
    level, words, values = car.statuses()['camera cam_back']
    assert level == ERROR and 'dead' in words
    assert values['blind_sector'] == 'back' and float(values['age_s']) > 2.0
    # Known to be dead, it is not waited for.
    stages = car.statuses()['stages'][2]
    assert float(stages['queue_p50_ms']) < 1000
    assert car.statuses()['camera cam_front'][2]['blind_sector'] == ''
    start(car, 4)  # it comes back
    assert (
        car.status_where('camera cam_back', lambda level, *_: level == OK)[2]['blind_sector'] == ''
    )


def test_below_min_cameras_frames_are_dropped_until_they_are_back(car):
    start(car)
    gone = ['cam_back', 'cam_front', 'cam_back_left']
    before = len(car.detections)
    rounds(car, 12, without=gone)
    _, words, _ = car.status_where('frames', dropped_for('too few cameras'))
    assert 'min_cameras' in words
    assert len(car.detections) == before
    settle(car)
    car.step()


def test_corrupt_image_masks_its_camera_for_that_frame_only(car):
    start(car)
    good = car.jpegs['cam_front_left']
    flipped = bytearray(good)
    flipped[len(good) // 2 : len(good) // 2 + 400] = b'\xff\x01' * 200
    damaged = {
        'truncated': good[: len(good) // 2],
        'flipped': bytes(flipped),
        'no image': b'this is no image' * 100,
        'empty': b'',
        'wrong size': jpeg(car.images['cam_front_left'][:100, :200]),
    }
    for count, (kind, data) in enumerate(damaged.items(), start=1):
        assert car.step(data={'cam_front_left': data}).detections, kind
        values = car.statuses()['camera cam_front_left'][2]
        assert values['decode_errors'] == str(count), kind
        car.step()
    values = car.status_where('camera cam_front_left', lambda level, *_: level == OK)[2]
    assert values['decode_errors'] == str(len(damaged)) and values['blind_sector'] == ''
    assert values['masked/truncated image'] == '1' and values['masked/wrong image size'] == '1'
    assert car.statuses()['camera cam_back'][2]['decode_errors'] == '0'


@pytest.mark.parametrize('seconds', [-100.0, -3.0, 100.0])
def test_clock_jump_drops_the_memory_and_goes_on(car, seconds):
    """A bag that loops jumps back; a clock that was set jumps either way."""
    start(car, 4)
    assert car.history[-1].length >= 3
    car.stamp_ns += int(seconds * SECOND_NS)
    first = car.stamp_ns
    rounds(car, 8)  # some may be lost over the jump
    car.step()
    assert any(0 < stamp - first <= 2 * SECOND_NS for stamp in car.detection_stamps()[-8:])
    resets = [
        message
        for message in car.history
        if message.resets == 1 and stamp_ns(message.header.stamp) > first
    ]
    assert resets and car.history[-1].resets == 1
    words = resets[-1].last_reset_reason
    assert 'clock' in words or 'gap' in words, words
    assert car.history[-1].length >= 2  # and it fills again
    assert int(car.statuses()['memory'][2]['resets']) == 1


def test_nan_odometry_is_refused_and_counted(car):
    start(car)
    broken = car.odometry_message(car.stamp_ns + int(car.period_s * SECOND_NS), (np.nan, 0.0))
    car.step(odometry=broken)  # placed by extrapolation
    for _ in range(3):  # ... but not for ever
        car.say(odometry=car.odometry_message(car.stamp_ns + 1, (np.nan, np.nan)))
        time.sleep(PACE_S)
    level, *_ = car.status_where(
        'odometry',
        lambda level, words, values: values.get('refused/pose is not finite') == '4',
    )
    assert level != OK
    car.status_where('frames', dropped_for('odometry too old'))
    car.step()
    assert np.isfinite(car.history[-1].age_s)


def test_without_odometry_frames_are_dropped_and_it_is_said(car):
    rounds(car, 4, odometry=False)
    level, *_ = car.status_where('frames', dropped_for('no odometry'))
    assert level == ERROR
    level, words, _ = car.statuses()['odometry']
    assert level == ERROR and 'odom' in words
    settle(car)
    start(car)


def test_pose_jump_drops_the_memory(car):
    start(car)
    car.step(xy=(5000.0, 300.0))
    # Images and odometry race.  Where the images won, that frame was placed from the odometry
    # before it, and the memory goes with the next one.
    car.step()
    state = car.history[-1]
    assert state.resets == 1 and 'jump' in state.last_reset_reason
    assert state.length <= 2


def test_gap_drops_the_memory(car):
    start(car)
    time.sleep(1.5)  # the clock goes on as the stamps do: a gap, no jump
    car.stamp_ns += int(1.5 * SECOND_NS)
    rounds(car, 3)
    car.step()
    resets = {message.resets: message.last_reset_reason for message in car.history}
    assert car.history[-1].resets == 1 and 'gap' in resets[1]


def test_camera_info_that_changes_is_used_and_named(car):
    start(car)
    for camera in CAMERAS:
        car.info_publishers[camera].publish(car.camera_info(camera, car.stamp_ns, focal=520.0))
    for camera in CAMERAS:  # another topic than the images': no order is promised
        car.status_where(
            f'camera {camera}', lambda level, words, values: values['calibration_changes'] == '1'
        )
    car.step(infos=False)
    statuses = car.statuses()
    assert statuses['camera cam_back'][2]['calibration_changes'] == '1'
    assert 'camera_info of cam_back: calibration changed' in statuses['inputs'][2]
    assert car.history[-1].resets == 1 and 'calibration' in car.history[-1].last_reset_reason


def test_camera_info_that_never_comes_or_is_nonsense(car):
    for _ in range(4):
        car.say(infos=False)
        bad = car.camera_info('cam_front', car.stamp_ns, focal=0.0)
        car.info_publishers['cam_front'].publish(bad)
        time.sleep(PACE_S)
    car.status_where(
        'inputs',
        lambda level, words, values: (
            values.get('camera_info of cam_front: impossible calibration') == '4'
        ),
    )
    car.status_where('frames', dropped_for('too few cameras'))
    level, words, _ = car.statuses()['camera cam_back']
    assert level == ERROR and 'camera_info' in words
    settle(car)
    start(car)


def test_images_without_a_transform_are_named(car):
    frame, car.frame = car.frame, 'unknown_{}'
    rounds(car, 4)
    car.frame = frame
    car.status_where(
        'camera cam_front',
        lambda level, words, _: 'no transform: from unknown_cam_front to base_link' in words,
    )
    settle(car)
    start(car)


def test_images_on_the_other_transport_are_pointed_out(node, domain, shared_car):
    """The mistake of a first start: the cameras publish raw, the node listens to compressed."""
    other = free_domain()
    assert other != domain
    assert shared_car.change_state('deactivate', 'activate')
    compressed = list(shared_car.image_publishers.values())
    for publisher in compressed:
        shared_car.node.destroy_publisher(publisher)
    raw = Car(domain, transport='raw')
    try:
        shared_car.status_where(
            'camera cam_front',
            lambda level, words, _: (
                level == ERROR and 'set the parameter transport to raw' in words
            ),
            10.0,
        )
        assert 'wrong transport' in node.output()
    finally:
        raw.close()
        shared_car.make_publishers(True)
        shared_car.wait_for_node()
        start(shared_car)


def test_a_camera_dies_while_everything_runs_in_real_time(car):
    """As the dead camera above, but without lockstep: five times a second, detections go on."""
    car.drive(2.0)
    before = len(car.detections)
    stamps = set(car.drive(4.0, without=['cam_front_right']))
    wait_until(
        lambda: max(car.detection_stamps(), default=0) >= max(stamps) - 2 * SECOND_NS,
        5.0,
        lambda: f'no detections to the end of {sorted(stamps)}: {car.detection_stamps()[-3:]}',
    )
    came = [stamp for stamp in car.detection_stamps()[before:] if stamp in stamps]
    assert len(came) >= 3 and max(came) >= max(stamps) - 2 * SECOND_NS
    assert len(set(came)) == len(came) and came == sorted(came)


def test_memory_of_the_process_stays_flat(car):
    start(car)
    begin = float(car.statuses()['process'][2]['rss_mb'])
    car.drive(4.0)
    end = float(car.statuses()['process'][2]['rss_mb'])
    assert end < 1200 and end - begin < 60, (begin, end)

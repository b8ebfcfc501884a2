"""The stages of a frame as a node over DDS stamps them: in /diagnostics and on ~/latency."""

import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from diagnostic_msgs.msg import DiagnosticArray
from ros_car import Car, _statuses, stamp_ns, start_node, wait_until

from mta_perception.commands.processes import free_domain
from mta_perception.contract import CAMERAS

PATIENT = {'dead_after_s': 5.0, 'odometry_wait_s': 1.0}
STAGES = ('complete', 'decoded', 'inferred', 'boxes')


@pytest.fixture
def drive(tmp_path):
    """Function (parameters) -> (car, what comes on ~/latency) of a node that runs."""
    cars, nodes = [], []

    def begin(**parameters):
        domain = free_domain()
        nodes.append(start_node(tmp_path, domain, {**PATIENT, **parameters}))
        nodes[-1].__enter__()
        cars.append(Car(domain))
        cars[-1].listen_to_node()
        heard = cars[-1].listen(DiagnosticArray, '/mta_perception/latency')
        cars[-1].wait_for_node()
        return cars[-1], heard

    yield begin
    for car in cars:
        car.close()
    for node in nodes:
        node.__exit__(None, None, None)


def frames_told(heard):
    """stamp -> {key: value} of ~/latency; what came for a frame later adds to it."""
    frames = {}
    for message in list(heard):
        values = _statuses(message)['latency'][2]
        frames.setdefault(stamp_ns(message.header.stamp), {}).update(values)
    return frames


def test_a_recording_played_without_clock_has_durations_and_no_ages(drive):
    car, heard = drive()
    for _ in range(4):
        car.step()
    wait_until(lambda: car.captions, 10.0, 'no sentence came')
    stamp = stamp_ns(car.captions[-1].header.stamp)
    wait_until(
        lambda: 'sentences_ms' in frames_told(heard).get(stamp, {}), 5.0, 'no time of sentences'
    )
    told = frames_told(heard)[stamp]
    times = [float(told[f'{stage}_ms']) for stage in (*STAGES, 'sentences')]
    assert 0 <= min(times) and times[2:] == sorted(times[2:]) and times[1] < times[2]
    assert 'behind the clock' in told['image_stamps']
    assert not [key for key in told if 'after_stamp' in key]
    _, words, values = car.status_where('latency', lambda *status: 'boxes_p50_ms' in status[2])
    assert 'behind the clock' in words
    for stage in (*STAGES, 'sentences'):
        p50, p90, most = (float(values[f'{stage}_{key}_ms']) for key in ('p50', 'p90', 'max'))
        assert 0 <= p50 <= p90 <= most
    assert not [key for key in values if 'after_stamp' in key]


def test_stamps_of_this_machine_give_ages(drive):
    car, heard = drive()
    for _ in range(3):
        car.stamp_ns = time.time_ns() - int(car.period_s * 1e9)  # the next is of now
        car.step()
    told = list(frames_told(heard).values())[-1]
    received, boxes = (float(told[f'{name}_after_stamp_ms']) for name in ('received', 'boxes'))
    assert 0 <= received < 1000 and told['image_stamps'] == 'of the clock of this machine'
    ahead = int(car.statuses()['frames'][2]['decoded_ahead'])
    assert len(CAMERAS) <= ahead <= 2 * len(CAMERAS)  # nothing is known of the first set's cameras
    assert boxes == pytest.approx(received + float(told['boxes_ms']), abs=0.01)


def test_with_the_time_of_a_replay_stamps_are_not_measured_against(drive):
    car, heard = drive(use_sim_time=True)
    car.stamp_ns = time.time_ns()
    car.step()
    wait_until(lambda: frames_told(heard), 8.0, 'no ~/latency of a frame')
    told = list(frames_told(heard).values())[-1]
    assert 'use_sim_time' in told['image_stamps'] and float(told['boxes_ms']) > 0
    assert not [key for key in told if 'after_stamp' in key]

"""`~/ask` over DDS: every field of an answer, what is no question, the busy and the late."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')
pytest.importorskip('onnx')

from mta_msgs.srv import Ask
from ros_car import SECOND_NS, Car, stamp_ns, start_node, wait_until
from tiny_asking import write_tiny_asking
from visualization_msgs.msg import Marker, MarkerArray

from mta_perception.answers import CANNOT_TELL
from mta_perception.commands.processes import free_domain
from mta_perception.reasons import Code

SERVICE = 'mta_perception/ask'
PATIENT = {'dead_after_s': 5.0, 'odometry_wait_s': 1.0, 'history_max_gap_s': 5.0}
# A model whose every graph takes a while, so that two questions meet and a deadline passes.
SLOW_S = 0.3
SLOW_NODE = f"""
import sys, time
from mta_perception.runtime.asking import OnnxAsker
quick = OnnxAsker.run
def slow(self, *given):
    time.sleep({SLOW_S})
    return quick(self, *given)
OnnxAsker.run = slow
from mta_perception.ros.node import main
sys.exit(main())
"""


def ask(car, text, timeout_s=15.0):
    return car.call(Ask, SERVICE, Ask.Request(instruction=text), timeout_s=timeout_s)


def start_car(domain):
    car = Car(domain, period_s=0.5)
    car.listen_to_node()
    car.wait_for_node()
    return car


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_asking(tmp_path_factory.mktemp('models') / 'tiny')


@pytest.fixture(scope='module')
def car(model, tmp_path_factory):
    """A car whose node remembers four frames, half a second and a metre apart."""
    domain = free_domain()
    parameters = {**PATIENT, 'model': model, 'ask_timeout_s': 10.0}
    with start_node(tmp_path_factory.mktemp('asking'), domain, parameters):
        car = start_car(domain)
        try:
            empty = ask(car, 'where is the car')
            assert not empty.success and Code.NOTHING_REMEMBERED.value in empty.message
            car.markers = car.listen(MarkerArray, 'mta_perception/answer_markers')
            for _ in range(4):
                car.step()
            yield car
        finally:
            car.close()


def test_a_box_has_every_field(car):
    detections = car.step()
    answer = ask(car, 'Where is the car?')
    assert answer.success and not answer.message and answer.text == ''
    assert answer.boxes.header == detections.header
    (box,) = answer.boxes.detections
    assert box.header == detections.header and box.id
    assert box.results[0].hypothesis.class_id == 'car'
    same = next(one for one in detections.detections if one.id == box.id)
    assert box.bbox.size == same.bbox.size
    assert box.bbox.center.position.x == pytest.approx(same.bbox.center.position.x, abs=1e-4)
    assert 0.5 < box.results[0].hypothesis.score <= 1.0
    assert stamp_ns(answer.span_start) == stamp_ns(answer.span_end) == 0
    assert not answer.bev_mask.data and answer.bev_mask.info.width == 0
    wait_until(lambda: car.markers, 5.0, 'no markers')
    first, cube, words = car.markers[-1].markers
    assert first.action == Marker.DELETEALL and cube.type == Marker.CUBE
    assert cube.pose.position.x == pytest.approx(box.bbox.center.position.x)
    assert cube.lifetime.sec > 1 and words.text == 'here'


def test_a_mask_lies_level_around_the_car(car):
    answer = ask(car, 'cover the car')
    grid = answer.bev_mask
    assert answer.success and not answer.boxes.detections
    assert grid.header == answer.boxes.header and grid.header.frame_id == 'base_link'
    assert (grid.info.width, grid.info.height) == (16, 16)
    assert grid.info.resolution == pytest.approx(6.4)
    origin = grid.info.origin
    assert (origin.position.x, origin.position.y) == pytest.approx((-51.2, -51.2))
    assert origin.orientation.w == pytest.approx(1.0)
    cells = np.array(grid.data).reshape(16, 16)
    assert (cells[:, 8:] == 100).all() and (cells[:, :8] == 0).all()


def test_a_span_is_in_stamps_of_frames(car):
    newest = car.stamp_ns
    answer = ask(car, 'when is it')
    assert answer.success
    assert newest - 5 * SECOND_NS < stamp_ns(answer.span_start) < stamp_ns(answer.span_end)
    assert stamp_ns(answer.span_end) == newest


def test_a_track_has_a_box_for_each_frame_with_its_own_stamp(car):
    answer = ask(car, 'follow the car')
    stamps = [stamp_ns(box.header.stamp) for box in answer.boxes.detections]
    assert len(stamps) >= 4 and stamps == sorted(set(stamps)) and stamps[-1] == car.stamp_ns
    wait_until(
        lambda: any(m.ns == 'track' for m in car.markers[-1].markers), 5.0, 'no line of the track'
    )


@pytest.mark.parametrize(
    'text, code',
    [
        ('', Code.NO_QUESTION),
        ('car ' * 2500, Code.QUESTION_TOO_LONG),
        ('where is\x1b[2J the car', Code.CONTROL_CHARACTERS),
        ('wo ist der wagen', Code.UNKNOWN_WORDS),
    ],
)
def test_what_is_no_question_is_refused_and_harms_nothing(car, text, code):
    answer = ask(car, text)
    assert not answer.success and answer.message.startswith(code.value)
    assert answer.message.isprintable() and answer.text == CANNOT_TELL
    assert not answer.boxes.detections and not answer.bev_mask.data
    _, _, values = car.status_where(
        'questions', lambda level, words, values: int(values.get(f'refused/{code}', 0)) >= 1
    )
    assert int(values['remembered_frames']) >= 4
    assert ask(car, 'where is the car').success


def test_after_a_gap_it_says_that_nothing_is_remembered(car):
    from std_srvs.srv import Trigger

    assert car.call(Trigger, 'mta_perception/reset_history', Trigger.Request()).success
    car.step()
    answer = ask(car, 'when is it')
    assert answer.success  # one frame is a memory
    _, _, values = car.status_where('questions', lambda *_: True)
    assert values['remembered_frames'] == '1'


def test_one_question_at_a_time_within_its_deadline_and_detections_go_on(model, tmp_path):
    domain = free_domain()
    parameters = {**PATIENT, 'model': model, 'ask_timeout_s': 1.0, 'history_max_gap_s': 1.5}
    program = ('-c', SLOW_NODE)
    with start_node(tmp_path, domain, parameters, program=program):
        car = start_car(domain)
        try:
            for _ in range(2):
                car.step()
            answers = []
            threads = [
                threading.Thread(target=lambda: answers.append(ask(car, 'where is the car')))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
                time.sleep(0.2)
            car.step()  # while the first is at it
            for thread in threads:
                thread.join()
            first, second = sorted(answers, key=lambda one: one.message)
            assert first.message.startswith(Code.ASKED_MEANWHILE.value)
            assert second.message.startswith(Code.DEADLINE_PASSED.value)
            assert not first.success and not second.success
            wait_until(
                lambda: ask(car, '').message.startswith(Code.NO_QUESTION.value), 5.0, 'still busy'
            )
            time.sleep(2.0)
            late = ask(car, 'where is the car')
            assert late.message.startswith(Code.NO_FRESH_FRAME.value)
            assert car.change_state('deactivate')
            asleep = ask(car, 'where is the car')
            assert not asleep.success and Code.NOT_RUNNING.value in asleep.message
        finally:
            car.close()

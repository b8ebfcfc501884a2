"""A node that nobody listens to works on, makes nothing, and is there for who comes later."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from diagnostic_msgs.msg import DiagnosticArray
from mta_msgs.msg import HistoryState
from ros_car import Car, start_node, wait_until

from mta_perception.commands.processes import free_domain


def test_sentences_are_made_when_somebody_listens_and_the_memory_is_kept_meanwhile(tmp_path):
    domain = free_domain()
    with start_node(tmp_path, domain, {'dead_after_s': 5.0, 'odometry_wait_s': 1.0}):
        car = Car(domain)
        try:
            car.diagnostics = car.listen(DiagnosticArray, '/diagnostics')
            car.wait_for_node()
            processed = 0
            while processed < 4:
                car.drive(1.0)
                processed = int(car.statuses()['frames'][2]['processed'])
            _, _, captions = car.statuses()['captions']
            assert captions['captions'] == '0' and captions['backlog'] == '0'
            assert float(car.statuses()['latency'][2]['boxes_p50_ms']) > 0

            history = car.listen(HistoryState, '/mta_perception/history')
            car.drive(1.0)
            wait_until(lambda: history, 10.0, 'no state of the memory')
            assert history[0].length >= 2  # of frames that nobody heard of

            car.listen_to_node()
            car.drive(2.0)
            wait_until(lambda: car.captions and car.detections, 10.0, 'no sentence came')
            assert int(car.status_where('captions', lambda *_: True)[2]['captions']) > 0
        finally:
            car.close()

"""How the node ends, and that two of one name see each other."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from ros_car import Car, start_node, wait_until

from mta_perception.commands.processes import free_domain, ros_environment

ERROR = 2
START = (sys.executable, '-m', 'mta_perception.ros.start')


@pytest.mark.parametrize(
    'transitions', [('active_shutdown',), ('deactivate', 'inactive_shutdown')]
)
def test_shutdown_ends_the_process(tmp_path, transitions):
    domain = free_domain()
    with start_node(tmp_path, domain) as node:
        car = Car(domain)
        try:
            assert car.change_state(*transitions)
            wait_until(lambda: not node.running(), 5.0, 'the process goes on')
            assert node.stop() == 0
        finally:
            car.close()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('after_s', [0.3, 0.6, 1.0, 2.0])
def test_a_signal_while_it_starts_ends_it_well(tmp_path, number, after_s):
    process = subprocess.Popen(
        [*START, '--ros-args', '-p', 'model:=nano'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **ros_environment(free_domain()), 'ROS_LOG_DIR': str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(after_s)
    process.send_signal(number)
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 0 and 'Traceback' not in output, output


def test_two_nodes_of_one_name_see_each_other(tmp_path):
    domain = free_domain()
    with start_node(tmp_path, domain, name='first') as first:
        car = Car(domain)
        car.listen_to_node()
        try:
            time.sleep(1.0)
            assert 'the name of this one' not in car.statuses()['process'][1]
            with start_node(tmp_path, domain, name='second'):
                wait_until(lambda: 'the name of this one' in first.output(), 10.0, 'not seen')
                level, words, _ = car.status_where('process', lambda level, *_: level == ERROR)
                assert '1 other node has the name' in words
            car.status_where('process', lambda level, words, _: 'the name' not in words, 20.0)
        finally:
            car.close()

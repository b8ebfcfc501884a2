"""Two hundred starts and ends, of the life cycle and of the process: nothing is left behind."""

from pathlib import Path
import random
import signal
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from ros_car import Car, start_node
from soak import sample

from mta_perception.commands.processes import free_domain

LIFECYCLES, PROCESSES = 160, 40
ENDS_WITHIN_S = 2.0


def shared_memory():
    return {path.name for path in Path('/dev/shm').glob('*fast*')}


@pytest.mark.slow
def test_lifecycles_leave_no_threads_handles_or_memory(tmp_path):
    domain = free_domain()
    with start_node(tmp_path, domain) as node:
        car = Car(domain)
        car.listen_to_node()
        car.wait_for_node()
        samples = []
        try:
            for number in range(LIFECYCLES):
                again = ('deactivate', 'activate')
                if number % 4 == 3:
                    again = ('deactivate', 'cleanup', 'configure', 'activate')
                assert car.change_state(*again), number
                car.say()
                if number % 10 == 9:
                    car.wait_for_node()
                    car.step()
                    samples.append(sample(node.pid, number))
        finally:
            car.close()
    warm = samples[2:]
    assert max(one.threads for one in warm) - min(one.threads for one in warm) <= 1, samples
    assert max(one.handles for one in warm) - min(one.handles for one in warm) <= 3, samples
    assert warm[-1].rss_mb - warm[0].rss_mb < 60, samples


@pytest.mark.slow
def test_processes_end_in_time_whatever_they_are_doing(tmp_path):
    chosen, before, slowest = random.Random(5), shared_memory(), 0.0
    for number in range(PROCESSES):
        domain = free_domain()
        with start_node(tmp_path, domain, name=f'node{number}') as node:
            car = Car(domain)
            try:
                # During inference, at any moment of it.
                end = time.monotonic() + chosen.uniform(0.2, 1.0)
                while time.monotonic() < end:
                    car.say()
                    time.sleep(0.1)
                began = time.monotonic()
                node.signal(chosen.choice([signal.SIGINT, signal.SIGTERM]))
                while node.running() and time.monotonic() - began < 10.0:
                    time.sleep(0.01)
                slowest = max(slowest, time.monotonic() - began)
                assert node.stop() == 0, number
            finally:
                car.close()
    assert slowest < ENDS_WITHIN_S
    time.sleep(0.5)
    assert shared_memory() <= before

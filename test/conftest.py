"""Of the test process itself: threads of torch, and DDS, whose profile Fast DDS reads once, at the
first participant."""

import os

# Before torch is imported, and for child processes.  On a busy machine the threads of small
# tensors would spin, waiting for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import pytest

from mta_perception.ros.environment import prepare
from mta_perception.ros.shared_memory import remove_abandoned


def pytest_configure(config):
    """The shared-memory profile that the node uses: without it raw images lose parts."""
    prepare()


def pytest_unconfigure(config):
    """Some tests kill processes, which then leave their shared memory behind."""
    remove_abandoned()


@pytest.fixture(autouse=True)
def no_log_repeats_its_reason():
    """Of every node that a test starts."""
    import ros_car

    ros_car.LOGS.clear()
    yield
    for log in ros_car.LOGS:
        if log.is_file():
            assert not ros_car.lines_that_repeat(log.read_text(errors='replace'))

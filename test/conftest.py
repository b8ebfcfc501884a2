"""DDS of the test process itself: Fast DDS reads its profile once, at the first participant."""

from mta_perception.ros.environment import prepare
from mta_perception.ros.shared_memory import remove_abandoned


def pytest_configure(config):
    """The shared-memory profile that the node uses: without it raw images lose parts."""
    prepare()


def pytest_unconfigure(config):
    """Some tests kill processes, which then leave their shared memory behind."""
    remove_abandoned()

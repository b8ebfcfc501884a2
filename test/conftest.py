"""DDS of the test process itself: Fast DDS reads its profile once, at the first participant."""

from mta_perception.ros.environment import prepare


def pytest_configure(config):
    """The shared-memory profile that the node uses: without it raw images lose parts."""
    prepare()

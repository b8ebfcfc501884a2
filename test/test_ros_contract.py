"""Faults put to a real node by the real player: what is promised in contract.py is kept.

Ten of them here, all in `make test-all`; `make contract` writes what it measured into the docs.
"""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

from contract import PROMISES, broken, patience, run_contract
from ros_car import model_directory
import soak

from mta_perception.bags.faults import shipped_faults

# One after the other within a minute: neighbours speak through different statuses.
TEN = (
    'one_camera_dead',
    'odometry_nan',
    'images_cut',
    'odometry_turns',
    'camera_frozen',
    'clock_back',
    'all_cameras_dead',
    'odometry_missing',
    'images_frame_changed',
    'clocks_mixed',
)


def check(folder, promises, *window):
    model_directory()  # skips without one
    found = run_contract(folder, promises, *window)
    longer = patience(found)
    print(f'patience: {longer:.1f}')
    complaints = [
        f'{promise.fault}: {complaint}; it said {one.words!r}'
        for promise, one in zip(promises, found)
        if (complaint := broken(promise, one, longer))
    ]
    assert not complaints, '\n'.join(complaints)


def test_ten_faults_are_said_in_time_and_over_in_time(tmp_path):
    chosen = {promise.fault: promise for promise in PROMISES}
    check(tmp_path, [chosen[name] for name in TEN], 6.0, 1.2)


@pytest.mark.slow
def test_every_fault_is_said_in_time_and_over_in_time(tmp_path):
    check(tmp_path, PROMISES, 11.0)


def test_every_shipped_fault_has_a_promise():
    assert sorted(promise.fault for promise in PROMISES) == shipped_faults()


@pytest.mark.slow
def test_two_minutes_of_faults_leave_nothing_behind(tmp_path):
    model_directory()
    found = soak.figures(soak.soak(tmp_path, 120.0), 120.0)
    assert found['unexpected_errors'] == 0 and found['exit_code'] == 0
    assert len(found['threads']) == 1, found
    assert found['handles'][1] - found['handles'][0] <= 2, found
    assert found['rss_mb'][1] - found['rss_mb'][0] < 60, found
    assert found['detections'] > 120, found

"""Stamps that stand still, and rounds that take long: what the pattern of a rig may be."""

from camera_streams import MS, START, Drive, check_sets
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mta_perception.contract import CAMERAS
from mta_perception.frames import CameraImage
from mta_perception.reasons import Code


@pytest.mark.parametrize('hz', [5, 12, 30])
@pytest.mark.parametrize('kind', ['zero', 'still', 'whole seconds'])
def test_stamps_that_do_not_advance_reset_nothing_and_are_named(kind, hz):
    drive = Drive()
    start, count = START // 10**9 * 10**9, 5 * hz
    for index in range(count):
        after_ns = {'zero': -start, 'still': 0}.get(kind, index // hz * 10**9)
        for camera in CAMERAS:
            drive.wait_until(drive.now_ns + 1000)
            image = CameraImage(camera, start + after_ns, b'', 'jpeg')
            drive.take(drive.sync.add(image, drive.now_ns))
        drive.wait_until(drive.now_ns + 10**9 // hz)
    drive.wait_until(drive.now_ns + 400 * MS)
    assert drive.sync.resets == 0
    stamps = [frames.stamp_ns for _, frames in drive.sets]
    assert len(stamps) == {'zero': 0, 'still': 1}.get(kind, 5) and len(stamps) == len(set(stamps))
    dropped = drive.sync.dropped[Code.STAMP_STANDS] + drive.sync.dropped[Code.DUPLICATE_IMAGE]
    assert dropped == 6 * (count - len(stamps))
    fault = drive.sync.stamp_fault('cam_back')
    if hz <= 10 or fault:  # a tenth of a second is a repeated message
        words = {'zero': 'no stamp (0)', 'still': 'have the stamp'}.get(kind, 'in whole seconds')
        assert fault.code is Code.STAMP_STANDS and words in fault.detail


@given(
    st.lists(st.sampled_from([0, 0, 1, 1, 5, 40, -30, 1000, 2000]), min_size=4, max_size=40),
    st.integers(1, 200),
)
@settings(max_examples=200, deadline=None)
def test_no_stamp_goes_out_twice_on_one_timeline(steps_ms, pause_ms):
    """Whatever the clock of the cameras does, as long as no reset says that it jumped."""
    drive, stamp, resets = Drive(), START, 0
    seen = set()
    for step in steps_ms:
        stamp += step * MS
        for camera in CAMERAS:
            drive.take(drive.sync.add(CameraImage(camera, stamp, b'', 'jpeg'), drive.now_ns))
            if drive.sync.resets > resets:
                resets, seen = drive.sync.resets, set()
            for _, frames in drive.sets:
                assert frames.stamp_ns not in seen
                seen.add(frames.stamp_ns)
            drive.sets.clear()
        drive.wait_until(drive.now_ns + pause_ms * MS)
        for _, frames in drive.sets:
            assert frames.stamp_ns not in seen
            seen.add(frames.stamp_ns)
        drive.sets.clear()


PANDASET_MS = {
    'cam_back': -99.9,
    'cam_back_left': -81.2,
    'cam_front_left': -60.7,
    'cam_front': -49.9,
    'cam_front_right': -39.1,
    'cam_back_right': -18.6,
}


@pytest.mark.parametrize('jitter_ms', [0.1, 1.0, 4.0])
@pytest.mark.parametrize('stretch', [1.0, 2.0])
def test_a_round_that_takes_most_of_a_period_is_whole(stretch, jitter_ms):
    """PandaSet's cameras fire within 81 of 100 ms; the same at half the rate."""
    drive = Drive()
    offsets = {camera: offset * stretch for camera, offset in PANDASET_MS.items()}
    drive.play(drive.images(80, (100.0 * stretch,), offsets, jitter_ms))
    check_sets(drive)
    # Which camera is the first of a round is not given: front left ... back makes shorter ones.
    complete = [frames for _, frames in drive.sets if len(frames.images) == 6]
    assert len(complete) >= 78 and len(drive.sets) <= 81


def test_what_the_last_resort_cuts_says_how_long_the_round_takes():
    drive = Drive()
    offsets = {camera: offset * 5 for camera, offset in PANDASET_MS.items()}
    drive.play(drive.images(12, (500.0,), offsets))
    details = [
        reason.detail
        for _, frames in drive.sets
        for reason in frames.missing.values()
        if reason.code is Code.SPREAD
    ]
    assert details and 'max_spread_s=0.25' in details[-1] and 'raise it' in details[-1]

"""Frozen cameras, and pictures that are the same because nothing moves."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.frames import CameraImage
from mta_perception.pipeline.frozen_pictures import FEWEST, FrozenPictures, fingerprint
from mta_perception.reasons import Code


def drive(pictures, places, camera='cam_back'):
    """The codes of what was refused, image by image."""
    frozen, found = FrozenPictures(), []
    for index, (picture, place) in enumerate(zip(pictures, places)):
        image = CameraImage(camera, index, picture, 'jpeg')
        reason = frozen.fault(image, None if place is None else (place, 0.0, 0.0))
        found.append(None if reason is None else reason.code)
    return found


def test_the_same_picture_on_the_way_is_refused_and_another_one_is_taken():
    pictures = [b'a', b'b', b'b', b'b', b'b', b'c', b'c']
    found = drive(pictures, np.arange(7) * 0.6)
    assert found == [None, None, None, Code.FROZEN, Code.FROZEN, None, None]


def test_a_car_that_stands_may_see_the_same_picture():
    assert set(drive([b'a'] * 50, [5.0] * 50)) == {None}
    assert set(drive([b'a'] * 50, np.linspace(0.0, 0.9, 50))) == {None}


def test_without_a_place_nothing_is_frozen():
    assert set(drive([b'a'] * 20, [None] * 20)) == {None}
    assert drive([b'a'] * 4, [0.0, 2.0, None, 8.0]) == [None] * 4


def test_cameras_are_told_apart():
    frozen = FrozenPictures()
    for index in range(10):
        for camera, picture in (('cam_front', bytes([index])), ('cam_back', b'same')):
            reason = frozen.fault(CameraImage(camera, index, picture, 'jpeg'), (index, 0, 0))
            assert (reason is None) == (camera == 'cam_front' or index + 1 < FEWEST)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 299))
@settings(max_examples=200, deadline=None)
def test_any_other_bytes_are_another_picture(content, place):
    other = bytearray(content)
    other[place % len(content)] ^= 1
    assert fingerprint(content) != fingerprint(bytes(other))
    assert fingerprint(content) == fingerprint(bytearray(content))


@pytest.mark.parametrize('shape', [(900, 1600, 3), (4, 4)])
def test_noise_of_a_real_sensor_is_another_picture(shape):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, shape, dtype=np.uint8)
    noisy = picture + rng.integers(0, 2, shape, dtype=np.uint8)
    assert fingerprint(picture) != fingerprint(noisy)
    assert fingerprint(picture[::-1][::-1]) == fingerprint(picture)

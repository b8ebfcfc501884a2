"""What a difference between the clocks of images and odometry is called."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from mta_perception.pipeline.clock_words import clock_words
from mta_perception.pipeline.ego_motion import EgoMotion, EgoMotionError

NOW_S = 1_700_000_000


@pytest.mark.parametrize(
    'image_s, odometry_s, words',
    [
        (NOW_S + 37, NOW_S, '37.000 s ahead of the newest odometry: nearly 37 s, that of TAI'),
        (NOW_S - 37.3, NOW_S, 'behind the newest odometry: nearly 37 s'),
        (NOW_S + 18.1, NOW_S, 'that of GPS time'),
        (NOW_S + 7200.4, NOW_S, 'nearly 2 h, a time zone'),
        (NOW_S - 19800, NOW_S, 'nearly 5.5 h, a time zone'),
        (5000, NOW_S, 'the images count from the start of a machine'),
        (NOW_S, 5000, 'the odometry count'),
        (NOW_S - 3e7, NOW_S, 'one of them is of a recording'),
        (NOW_S + 5, NOW_S, 'their clocks differ'),
        (NOW_S + 0.3, NOW_S, ''),
    ],
)
def test_known_differences_have_a_name(image_s, odometry_s, words):
    said = clock_words(round(image_s * 1e9), round(odometry_s * 1e9))
    assert words in said and bool(words) == bool(said)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_any_two_stamps_have_one_line(image_ns, odometry_ns):
    said = clock_words(image_ns, odometry_ns)
    assert len(said.splitlines()) == (abs(image_ns - odometry_ns) >= 10**9)


def test_an_image_of_another_clock_is_refused_with_its_name():
    motion = EgoMotion()
    for index in range(20):
        motion.add_quaternion(NOW_S * 10**9 + index * 10**8, (index, 0, 0), (0, 0, 0, 1))
    with pytest.raises(EgoMotionError, match='TAI'):
        motion.world_from_ego((NOW_S + 38) * 10**9 + 9 * 10**8)

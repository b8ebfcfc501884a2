"""Stages of a frame, stamped: which durations are told, and of which clock image stamps are."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.frames import CameraImage, FrameSet
from mta_perception.workers.latency import (
    MOST_AGE_S,
    OF_STAMPS,
    SAME,
    SIM_TIME,
    Latency,
    Moments,
    clock_of_stamps,
    received_s,
)

STEADY_MINUS_WALL_S = 5_000.0 - 1_700_000_000.0
RECEIVED = 5_000.0  # steady clock
MOMENTS = Moments(RECEIVED, 5_000.001, 5_000.004, 5_000.084, 5_000.086)


def stamp(age_s):
    """[ns] of an image that old when it was received, on this machine's wall clock."""
    return round((1_700_000_000.0 - age_s) * 1e9)


def told(latency, age_s, is_sim_time=False, moments=MOMENTS):
    return latency.frame(stamp(age_s), moments, STEADY_MINUS_WALL_S, is_sim_time)


def test_stages_are_told_after_the_last_image_came():
    spans = told(Latency(), age_s=0.030)
    expected = {
        'complete': 1.0,
        'decoded': 4.0,
        'inferred': 84.0,
        'boxes': 86.0,
        'received_after_stamp': 30.0,
        'boxes_after_stamp': 116.0,
    }
    assert spans == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    'age_s, is_sim_time, words',
    [
        (0.030, True, SIM_TIME),
        (-0.004, False, '0.004 s ahead'),
        (-37.0, False, '37.000 s ahead'),
        (200_000_000.0, False, '200000000 s behind'),
    ],
)
def test_stamps_of_another_clock_are_named_and_not_measured_against(age_s, is_sim_time, words):
    latency = Latency()
    spans = told(latency, age_s, is_sim_time)
    assert words in latency.stamps and latency.stamps == latency.values()['image_stamps']
    assert not set(OF_STAMPS).intersection(spans)
    assert spans['boxes'] == pytest.approx(86.0, abs=1e-3)


def test_ages_of_a_clock_that_was_the_same_are_forgotten_when_it_is_not():
    latency = Latency()
    told(latency, 0.030)
    assert 'boxes_after_stamp_p50_ms' in latency.values()
    told(latency, 1e8)
    values = latency.values()
    assert 'boxes_after_stamp_p50_ms' not in values and 'boxes_p50_ms' in values
    told(latency, 0.050)
    assert latency.values()['received_after_stamp_max_ms'] == pytest.approx(50.0, abs=1e-3)


@given(ages=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20), sim=st.booleans())
@settings(max_examples=50, deadline=None)
def test_no_age_is_ever_negative_or_of_another_clock(ages, sim):
    latency = Latency()
    for age_s in ages:
        told(latency, age_s, sim)
        same = clock_of_stamps(age_s, sim) == SAME
        assert same == (not sim and 0 <= age_s <= MOST_AGE_S)
    for key, value in latency.values().items():
        if key.startswith('received_after_stamp'):
            assert 0 <= value <= 1e3 * MOST_AGE_S


def test_sentences_count_from_the_images_of_their_own_frame():
    latency = Latency()
    told(latency, 0.1)
    told(latency, 0.0, moments=Moments(*(moment + 0.1 for moment in MOMENTS)))
    assert latency.sentences(stamp(0.1), RECEIVED + 0.25)['sentences'] == pytest.approx(250.0)
    assert latency.sentences(stamp(0.0), RECEIVED + 0.25)['sentences'] == pytest.approx(150.0)
    assert latency.sentences(123, RECEIVED) == {}


def test_frames_without_sentences_fill_no_memory():
    latency = Latency()
    for number in range(1000):
        told(latency, -number * 0.1)
    assert latency.sentences(stamp(0.0), RECEIVED) == {}


def test_percentiles_are_those_of_the_frames():
    latency, boxes_ms = Latency(), np.arange(1.0, 101.0)
    for value in boxes_ms:
        told(latency, 1e8, moments=MOMENTS._replace(boxes=RECEIVED + value / 1e3))
    values = latency.values()
    for key, expected in (('p50', 50.5), ('p90', 90.1), ('max', 100.0)):
        assert values[f'boxes_{key}_ms'] == pytest.approx(expected, abs=1e-3)


def test_a_set_was_received_when_its_last_image_was():
    def image(camera, received_ns):
        return CameraImage(camera, 0, b'', 'jpeg', received_ns=received_ns)

    now_ns = time.monotonic_ns()
    images = {'a': image('a', now_ns), 'b': image('b', now_ns - 10**9)}
    assert received_s(FrameSet(0, images, {}), 1.0) == pytest.approx(now_ns / 1e9)
    assert received_s(FrameSet(0, {'a': image('a', 0)}, {}), 7.0) == 7.0  # out of a file

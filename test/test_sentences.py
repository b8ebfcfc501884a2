"""The truth contract: what a sentence claims, whether a box denies it, what is shown instead."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.bags.recording import RecordedCaption
from mta_perception.bags.shown_sentences import beside_boxes, truth_of_sentences
from mta_perception.sentences import (
    Claims,
    Said,
    claims_of,
    contradictions,
    distance_of,
    fits,
    sector_of,
    short_form,
    shown,
)
from mta_perception.workers.caption_book import CaptionBook

SENTENCE = (
    'red car about 12 meters away in the front left of the ego car is moving '
    'in the lane behind a white truck with a rider'
)


def box(x, y, speed=0.0):
    return np.array([x, y, 0.5, 4, 2, 1.5, 0, 1, speed, 0.0])


def sentence(distance, sector='front', motion='parked', noun='car'):
    return f'red {noun} about {distance} meters away in the {sector} of the ego car is {motion}'


@pytest.mark.parametrize(
    'text, expected',
    [
        (SENTENCE, Claims('car', 12.0, 'front left', True)),
        (SENTENCE.capitalize() + '.', Claims('car', 12.0, 'front left', True)),
        (sentence(3, 'back right', 'not moving'), Claims('car', 3.0, 'back right', False)),
        (
            'child in blue about 7 meters away in the left of the ego car is crossing the road',
            Claims('pedestrian', 7.0, 'left', True),
        ),
        (
            'bicycle without a rider about 9 meters away in the back of the ego car is parked',
            Claims('bicycle', 9.0, 'back', False),
        ),
        ('A red sedan waits 12 m ahead.', Claims(None, None, None, None)),
        ('', Claims(None, None, None, None)),
        ('truck about two meters away in the of the ego car', Claims('truck', None, None, None)),
        ('Parked 9 meters away, a bus.', Claims(None, 9.0, None, None)),
    ],
)
def test_words_of_the_grammar_are_read_back_and_others_are_not(text, expected):
    assert claims_of(text) == expected


@given(st.floats(-60, 60), st.floats(-60, 60), st.sampled_from([0.0, 0.2, 3.0, 9.0]))
def test_a_sentence_made_from_a_box_fits_it_and_another_sector_or_class_does_not(x, y, speed):
    here = box(x, y, speed)
    motion = 'moving' if speed >= 0.5 else 'not moving'
    claims = claims_of(sentence(round(distance_of(here)), sector_of(here), motion))
    assert contradictions(claims, 'car', here) == []
    assert contradictions(claims, 'truck', here) == ['class']
    turned = here * ([-1.0, -1.0] + [1.0] * 8)
    if distance_of(here) > 1e-3:
        assert contradictions(claims, 'car', turned) == ['sector']


@pytest.mark.parametrize(
    'distance, said, denied',
    [(5.0, 6, False), (5.0, 7, True), (40.0, 45, False), (40.0, 47, True), (0.0, 1, False)],
)
def test_a_distance_may_be_off_by_the_larger_of_15_percent_and_1_5_m(distance, said, denied):
    assert ('distance' in contradictions(claims_of(sentence(said)), 'car', box(distance, 0))) == (
        denied
    )


@pytest.mark.parametrize(
    'motion, speed, denied',
    [
        ('parked', 0.3, False),
        ('parked', 4.0, True),
        ('not moving', 1.2, True),
        ('moving slowly', 0.1, True),
        ('moving', 5.0, False),
        ('crossing the road', 0.0, True),
        ('parked', np.nan, False),
        ('moving', np.nan, False),
    ],
)
def test_what_stands_does_not_move(motion, speed, denied):
    claims = claims_of(sentence(10, motion=motion))
    assert contradictions(claims, 'car', box(10, 0, speed)) == (['motion'] if denied else [])


def test_words_of_others_hold_until_the_object_moves_or_they_are_old():
    said = Said('A red sedan waits ahead.', 1_000_000_000, 'car', (10.0, 0.0))
    assert fits(said, 'car', box(10.5, 0.5), 2_000_000_000)
    assert not fits(said, 'car', box(12.0, 0), 2_000_000_000)
    assert not fits(said, 'truck', box(10, 0), 2_000_000_000)
    assert not fits(said, 'car', box(10, 0), 4_100_000_000)
    assert fits(said, 'car', box(10, 0), 4_100_000_000, max_age_s=5.0)
    partly = Said('The car is parked at the kerb.', 1_000_000_000, 'car', (10.0, 0.0))
    assert fits(partly, 'car', box(10, 0, speed=5.0), 2_000_000_000), 'not our grammar'
    assert not fits(partly, 'car', box(12, 0), 2_000_000_000)
    assert not fits(said, 'car', box(10, 0), 900_000_000), 'the clock jumped back'


@pytest.mark.parametrize(
    'text, taken',
    [
        ('car in is parked the bus bus', True),  # words of ours, sentences of another
        ('The truck is moving in the front of the ego car', True),
        ('Parked 9 meters away, a bus.', True),
        ('red car about 30 meters away in the', False),  # ours, broken off
        (sentence(30, motion='moving'), False),
        (sentence(12, 'back'), False),
        (sentence(12, noun='bus'), False),
        (sentence(12), True),
        ('', False),
    ],
)
def test_only_sentences_of_our_grammar_are_held_against_the_box(text, taken):
    book, here = CaptionBook(), box(12, 0)
    said = Said(text, 1_000_000_000, 'car', (12.0, 0.0))
    assert book.put('7', said, here) == taken
    assert book.is_due('7', 'car', here, 1_500_000_000) != taken
    assert book.is_due('7', 'car', box(15, 0), 1_500_000_000), 'it moved by more than 1.5 m'


def test_the_short_form_stands_in_for_what_is_no_longer_true():
    said = Said(sentence(12), 0, 'car', (12.0, 0.0))
    assert shown(said, 'car', box(12, 0), 9_000_000_000) == said.text
    assert shown(said, 'car', box(14, -9), 1) == 'car, 17 m, front right'
    assert shown(None, 'traffic_cone', box(-3, 0), 1) == 'traffic cone, 3 m, back'
    assert short_form('car', box(14, 0)) == 'car, 14 m, front'


def markers_of(objects, stamp_s=1):
    """A MarkerArray's markers by hand; objects: (track, box, text)."""
    made = []
    head = SimpleNamespace(stamp=SimpleNamespace(sec=stamp_s, nanosec=0))
    for track, here, text in objects:
        x, y, z, length, width, height = here[:6]
        made.append(
            SimpleNamespace(
                ns='boxes',
                id=track,
                action=0,
                header=head,
                pose=SimpleNamespace(
                    position=SimpleNamespace(x=x, y=y, z=z),
                    orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0),
                ),
                scale=SimpleNamespace(x=length, y=width, z=height),
            )
        )
        made.append(SimpleNamespace(ns='captions', id=track, action=0, text=f'#{track} {text}'))
        if here[8]:
            points = [SimpleNamespace(x=x, y=y, z=z), SimpleNamespace(x=x + here[8], y=y, z=z)]
            made.append(SimpleNamespace(ns='velocity', id=track, action=0, points=points))
    return made


def test_the_reader_follows_the_screen_from_message_to_message():
    classes = {(second * 1_000_000_000, '1'): 'car' for second in (1, 2)}
    first = markers_of([(1, box(12, 0), 'words')])
    words_only = markers_of([(1, box(12, 0), 'better words')])[1:]
    moved = markers_of([(1, box(9, 0), '')], stamp_s=2)[:1]
    gone = [SimpleNamespace(ns='captions', id=1, action=2)]
    clear = [SimpleNamespace(ns='', id=0, action=3)]
    found = beside_boxes([first, words_only, moved, gone, clear], classes)
    assert [(one.box[0], one.text) for one in found] == [
        (12, 'words'),
        (12, 'better words'),
        (9, 'better words'),
        (9, ''),
    ]


def test_the_reader_of_a_recording_counts_every_kind_of_lie():
    objects = [
        (1, box(12, 0), sentence(12).replace(' about', '\nabout')),
        (2, box(12, 0), sentence(20)),
        (3, box(12, 0, speed=6.0), sentence(12)),
        (4, box(12, 0), sentence(12, noun='truck')),
        (5, box(12, 0), 'car, 12 m, front'),
        (6, box(12, 0), 'an old banger'),
        (7, box(12, 0), 'nobody said this'),
        (8, box(0, 40), sentence(40, 'right')),
        (9, box(12, 0), 'a new banger'),
    ]
    classes = {(1_000_000_000, str(k)): 'car' for k in range(1, 10)}
    captions = [
        RecordedCaption(500_000_000, 0, '1', 'car', sentence(12), (12.0, 0.0)),
        RecordedCaption(200_000_000, 0, '6', 'car', 'an old banger', (19.0, 0.0)),
        RecordedCaption(200_000_000, 0, '9', 'car', 'a new banger', (12.5, 0.0)),
    ]
    found = truth_of_sentences(beside_boxes([markers_of(objects)], classes), captions)
    assert found['sentences_shown'] == 8 and found['objects_without_sentence'] == 1
    assert found['sentences_wrong'] == 6
    assert found['sentences_wrong_by'] == {
        'class': 1,
        'distance': 1,
        'sector': 1,
        'motion': 1,
        'moved': 1,
        'never told': 1,
    }
    assert (found['objects_within_30_m'], found['of_these_with_true_sentence']) == (8, 2)
    assert found['sentence_age_s']['p50'] == pytest.approx(0.8)

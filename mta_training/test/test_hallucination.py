"""Hallucinations counted on sentences made by hand; groups and subsets of the long tail."""

import numpy as np
import pytest

from mta_perception.contract import CLASSES
from mta_training.evaluation.caption_matching import DescribedObjects, Pair
from mta_training.evaluation.hallucination import hallucinations, judge_sentence
from mta_training.evaluation.subsets import GROUPS, conditions, group_means

TRUE = 'red car about 20 meters away in the front of the ego car is moving at the roadside'


def at(degrees, metres=20.0):
    """Box of a car at a bearing, counter-clockwise from the front."""
    box = np.zeros(10)
    box[0], box[1] = metres * np.cos(np.radians(degrees)), metres * np.sin(np.radians(degrees))
    box[3:6], box[7] = (4.0, 2.0, 1.5), 1.0
    return box


def judged(candidate, reference=TRUE, degrees=0.0, label=0):
    return judge_sentence(candidate, reference, at(degrees), label)


def test_the_true_sentence_hallucinates_nothing():
    assert judged(TRUE) == (False,) * 5 + (True, 0, True, False, False, None)
    assert judged(f'  {TRUE.upper()}. ').wrong_class is False


def test_each_fact_is_judged_alone():
    assert judged(TRUE.replace('red car', 'red truck')).wrong_class
    assert judged(TRUE.replace('front', 'left')).wrong_sector
    assert judged(TRUE.replace('moving', 'parked'))[1:5] == (False, False, True, True)
    assert judged(TRUE.replace('moving', 'moving slowly'))[1:5] == (False, False, True, False)
    assert judged(TRUE.replace('red', 'blue')).right_colour is False
    assert judged(TRUE.replace('20', '23'))[6:8] == (3, False)
    assert judged(TRUE.replace('20', '22'))[6:8] == (2, True)


BESIDE = TRUE + ' behind a white truck'


@pytest.mark.parametrize(
    ('said', 'reference', 'wrong'),
    [
        (TRUE.replace('red', 'blue'), TRUE, 'colour'),
        (TRUE.replace('red ', ''), TRUE, ''),  # left out, not wrong
        (TRUE, TRUE.replace('red ', ''), ''),  # not known
        (TRUE.replace('at the roadside', 'in the lane'), TRUE, 'place'),
        (TRUE.replace(' at the roadside', ''), TRUE, ''),
        (BESIDE, BESIDE, ''),
        (TRUE, BESIDE, ''),
        (BESIDE, TRUE, 'relation'),  # there is no neighbour
        (BESIDE.replace('behind', 'ahead of'), BESIDE, 'relation'),
        (BESIDE.replace('truck', 'bus'), BESIDE, 'relation'),
        (BESIDE.replace('white', 'black'), BESIDE, 'relation'),
        (BESIDE.replace('white ', ''), BESIDE, ''),
        (TRUE.replace('moving', 'parked'), TRUE, 'motion'),
    ],
)
def test_strict_counts_colour_place_and_relation_too(said, reference, wrong):
    got = judged(said, reference)
    facts = ('class', 'sector', 'motion', 'colour', 'place', 'relation')
    assert [name for name in facts if getattr(got, f'wrong_{name}')] == [wrong] * bool(wrong)
    truth = DescribedObjects(np.array([at(0.0)]), np.zeros(1, int), np.ones(1), [reference])
    rates = hallucinations([truth], [[Pair(reference, said, 0, 0, True)]])
    assert rates['any_strict'] == bool(wrong) and rates['any'] == (wrong == 'motion')


def test_two_nouns_of_one_class_are_no_contradiction():
    label = CLASSES.index('pedestrian')
    sentence = 'child in red about 9 meters away in the front of the ego car is moving'
    other = sentence.replace('child', 'police officer')
    assert judged(other, sentence, label=label).wrong_class is False


@pytest.mark.parametrize(
    ('degrees', 'said', 'wrong'),
    [
        (20.0, 'front left', False),  # 2.5 degrees from the border
        (17.0, 'front left', True),  # 5.5 degrees
        (20.0, 'front right', True),  # the neighbour on the other side
        (-20.0, 'front right', False),
        (-20.0, 'left', True),
        (5.0, 'front', False),
    ],
)
def test_a_neighbouring_sector_near_the_border_is_forgiven(degrees, said, wrong):
    got = judged(TRUE.replace('the front', f'the {said}'), degrees=degrees)
    assert got.wrong_sector == wrong


def test_border_behind_the_car_is_one_too():
    reference = TRUE.replace('the front', 'the back')
    said = TRUE.replace('the front', 'the back left')
    assert not judged(said, reference, degrees=161.0).wrong_sector
    assert judged(said, reference, degrees=-161.0).wrong_sector


def test_foreign_references_still_judge_class_and_sector():
    got = judged(TRUE, 'A red car drives ahead of us.', degrees=90.0)
    assert got == (False, False, True) + (None,) * 8


def test_rates_are_over_found_objects():
    sentences = [
        TRUE,
        TRUE.replace('red car', 'bus'),
        'gibberish',
        '',
        TRUE.replace('front', 'back').replace('moving', 'parked'),
    ]
    truth = DescribedObjects(np.array([at(0.0)] * 6), np.zeros(6, int), np.ones(6), [TRUE] * 6)
    pairs = [Pair(TRUE, text, row, row, True) for row, text in enumerate(sentences)]
    pairs.append(Pair(TRUE, '', 5, -1, False))
    got = hallucinations([truth], [pairs])
    assert got['objects'] == 5
    assert got['unparsable'] == pytest.approx(2 / 5)
    assert got['wrong_class'] == got['wrong_sector'] == got['wrong_motion'] == pytest.approx(1 / 3)
    assert got['any'] == pytest.approx(4 / 5)
    assert got['colour_accuracy'] == pytest.approx(2 / 3)  # the bus has none
    assert got['distance_accuracy'] == 1.0 and got['distance_error_m'] == 0.0
    nothing = hallucinations([truth], [[pairs[-1]]])
    assert nothing['objects'] == 0 and nothing['any'] is None


@pytest.mark.parametrize(
    ('description', 'want'),
    [
        ('Night, rain, turn left', ('rainy', 'night')),
        ('Rainy, peds', ('rainy', 'day')),
        ('After Rain, parked cars', ('rainy', 'day')),
        ('raining at NIGHT', ('rainy', 'night')),
        ('train crossing, terrain, nightclub', ('sunny', 'day')),
        ('', ('sunny', 'day')),
    ],
)
def test_weather_and_light_are_whole_words(description, want):
    assert conditions(description) == want


def test_groups_are_the_ten_classes_once():
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(CLASSES)
    classes = {name: {'AP': 0.5, 'ground_truth': 3} for name in CLASSES}
    classes['bus'] = {'AP': 0.0, 'ground_truth': 0}
    official, present = group_means(classes)
    assert official == {'rare': pytest.approx(0.4), 'common': 0.5, 'frequent': 0.5}
    assert present == {'rare': 0.5, 'common': 0.5, 'frequent': 0.5}
    classes['car']['ground_truth'] = 0
    assert group_means(classes)[1]['frequent'] is None

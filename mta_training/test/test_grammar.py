"""The caption grammar: what is composed can be parsed, and says what is the case."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_training.captions import grammar
from mta_training.captions.grammar import Facts, Relation, Thing

few = settings(max_examples=100, deadline=None, derandomize=True)


def _things():
    def of(noun):
        colour = (
            st.just('') if grammar.NOUNS[noun][1] == 'none' else st.sampled_from(grammar.COLOURS)
        )
        rider = st.booleans() if noun in ('motorcycle', 'bicycle') else st.none()
        return st.builds(Thing, st.just(noun), colour, rider)

    return st.sampled_from(list(grammar.NOUNS)).flatmap(of)


FACTS = st.builds(
    Facts,
    _things(),
    st.integers(0, 99),
    st.sampled_from(grammar.SECTORS),
    st.sampled_from(grammar.MOTIONS),
    st.sampled_from(('', *grammar.PLACES)),
    st.none() | st.builds(Relation, st.sampled_from(grammar.RELATIONS), _things()),
)


@given(FACTS)
@few
def test_parse_inverts_compose(facts):
    sentence = grammar.compose(facts)
    assert grammar.parse(sentence) == facts
    assert len(sentence.split()) <= 34
    assert sentence == sentence.lower()


@given(FACTS, st.data())
@few
def test_a_sentence_with_one_other_word_is_another_sentence_or_none(facts, data):
    words = grammar.compose(facts).split()
    place = data.draw(st.integers(0, len(words) - 1))
    words[place] = data.draw(st.sampled_from(['', *grammar.vocabulary(), '7']))
    sentence = ' '.join(' '.join(words).split())
    try:
        read = grammar.parse(sentence)
    except ValueError:
        return
    assert grammar.compose(read) == sentence


@given(FACTS)
@few
def test_every_word_is_in_the_vocabulary(facts):
    words = set(grammar.compose(facts).split()) - {str(facts.distance)}
    assert words <= set(grammar.vocabulary())


def test_vocabulary_is_small():
    assert len(grammar.vocabulary()) < 100


def test_example_sentence():
    facts = Facts(
        Thing('car', 'red', None),
        12,
        'front left',
        'moving slowly',
        'in the lane',
        Relation('behind', Thing('truck', 'white', None)),
    )
    sentence = (
        'red car about 12 meters away in the front left of the ego car is moving slowly '
        'in the lane behind a white truck'
    )
    assert grammar.compose(facts) == sentence
    assert grammar.parse(sentence.capitalize() + '.') == facts


@pytest.mark.parametrize(
    'sentence',
    [
        '',
        'red car',
        'purple car about 3 meters away in the front of the ego car is parked',
        'red car about three meters away in the front of the ego car is parked',
        'red car about 3 meters away in the front of the ego car is flying',
        'red car about 3 meters away in the front of the ego car is parked behind',
    ],
)
def test_what_is_not_of_the_grammar_is_refused(sentence):
    with pytest.raises(ValueError, match='not a sentence'):
        grammar.parse(sentence)


@pytest.mark.parametrize(
    'degrees, sector',
    [
        (0, 'front'),
        (22, 'front'),
        (23, 'front left'),
        (90, 'left'),
        (135, 'back left'),
        (180, 'back'),
        (-180, 'back'),
        (-157, 'back right'),
        (-90, 'right'),
        (-45, 'front right'),
        (-22, 'front'),
    ],
)
def test_sectors(degrees, sector):
    angle = math.radians(degrees)
    assert grammar.sector_of(10 * math.cos(angle), 10 * math.sin(angle)) == sector


@pytest.mark.parametrize(
    'speed, attribute, crosses, motion',
    [
        (0.0, 'vehicle.parked', False, 'parked'),
        (0.1, 'vehicle.stopped', False, 'not moving'),
        (0.0, 'pedestrian.standing', True, 'not moving'),
        (1.4, 'pedestrian.moving', True, 'crossing the road'),
        (1.4, 'pedestrian.moving', False, 'moving slowly'),
        (5.0, 'vehicle.moving', False, 'moving'),
        (8.5, 'vehicle.moving', False, 'moving quickly'),
    ],
)
def test_motions(speed, attribute, crosses, motion):
    assert grammar.motion_of(speed, attribute, crosses) == motion


def test_relation_names_the_nearest_and_where_the_object_is_from_it():
    truck, car = Thing('truck', 'white', None), Thing('car', 'red', None)
    others = [(truck, (20.0, 0.0)), (car, (10.0, 8.0))]
    assert grammar.relation_of((12.0, 0.0), others) == Relation('behind', truck)
    assert grammar.relation_of((10.0, 3.0), others) == Relation('right of', car)
    assert grammar.relation_of((10.0, 12.0), others) == Relation('left of', car)
    assert grammar.relation_of((25.0, 1.0), others) == Relation('ahead of', truck)
    assert grammar.relation_of((-20.0, 0.0), others) is None


def test_unknown_category_is_named():
    with pytest.raises(ValueError, match='animal'):
        grammar.thing_of('animal', 'brown', False)


def test_tod3cap_entry_agrees_with_the_facts():
    facts = Facts(
        Thing('traffic cone', '', None), 7, 'back left', 'not moving', 'on the walkway', None
    )
    entry = grammar.tod3cap_entry(
        facts,
        sample_token='s',
        scene_name='scene-0001',
        annotation_token='a',
        cam_file='samples/x.jpg',
        rectangle=(1.0, 2.0, 3.0, 4.0),
        size_lwh=(0.4, 0.4, 1.0),
        xy=(-5.0, 5.0),
        velocity=(0.0, 0.0),
    )
    assert entry['final_caption'] == grammar.compose(facts)
    assert entry['relation_caption'] == 'none'
    assert entry['attribute_caption']['attribute_caption'] == 'traffic cone'
    assert (
        entry['localization_caption']['localization_caption'] == 'in the back left of the ego car'
    )
    assert entry['localization_caption']['localization_theta'] == 135.0
    assert round(entry['depth_caption']['depth']) == 7


def test_the_vehicle_reads_back_what_the_grammar_says():
    """mta_perception has a reader of its own, since it may not import this package."""
    from mta_perception import sentences

    assert {noun: entry[0] for noun, entry in grammar.NOUNS.items()} == sentences.NOUNS
    assert grammar.SECTORS == sentences.SECTORS
    assert set(grammar.MOTIONS) == {*sentences.STANDING, *sentences.MOVING}
    neighbour = grammar.Thing('motorcycle', 'red', True)
    number = 0
    for noun, (class_name, way) in grammar.NOUNS.items():
        colour = '' if way == 'none' else 'blue'
        rider = number % 2 == 0 if noun in ('motorcycle', 'bicycle') else None
        for sector in grammar.SECTORS:
            for motion in grammar.MOTIONS:
                number += 1
                facts = grammar.Facts(
                    grammar.Thing(noun, colour, rider),
                    number % 60,
                    sector,
                    motion,
                    ('', *grammar.PLACES)[number % 8],
                    grammar.Relation(grammar.RELATIONS[number % 4], neighbour)
                    if number % 3
                    else None,
                )
                claims = sentences.claims_of(grammar.compose(facts))
                assert claims == sentences.Claims(
                    class_name, number % 60, sector, motion in sentences.MOVING
                )
                assert claims.complete


@given(st.floats(-60, 60), st.floats(-60, 60))
def test_both_packages_have_the_same_sectors(x, y):
    from mta_perception import sentences

    assert sentences.sector_of(np.array([x, y])) == grammar.sector_of(x, y)

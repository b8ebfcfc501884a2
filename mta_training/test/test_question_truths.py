"""Answers about time and comparisons, in scenes told by hand; and three-valued conditions."""

import numpy as np
import pytest
from question_scenes import busy_scene, scene, track

from mta_training.questions import conditions as c
from mta_training.questions import predicates as p
from mta_training.questions.choices import OF_TIME
from mta_training.questions.conversation import conversation
from mta_training.questions.events import events_of
from mta_training.questions.grounded import grounded
from mta_training.questions.grounding import referring
from mta_training.questions.moments import moment
from mta_training.questions.reasoning import REASONINGS
from mta_training.questions.wordings import Voice


def voices(count=40, which='seen'):
    return [Voice(np.random.default_rng(seed), which) for seed in range(count)]


def all_of(generator, *arguments):
    """Questions that a generator makes with many seeds."""
    found = [generator(*arguments[:3], voice, *arguments[3:]) for voice in voices()]
    return [one for one in found if one is not None]


def test_three_values():
    assert c.every([True, None]) is None and c.every([None, False]) is False
    assert c.every([True, True]) is True and c.every([]) is True
    assert c.nearer(9.0, 10) is True and c.nearer(11.0, 10) is False
    assert c.nearer(9.7, 10) is None and c.nearer(10.4, 10) is None
    assert c.about(10.9, 10) is True and c.about(12.5, 10) is None and c.about(14.0, 10) is False
    bicycles = [track('bicycle', (5.0, 0.0), rider=rider) for rider in (True, False, None)]
    seen = c.seen_in(scene(*bicycles), 0)
    assert [c.is_a(one, 'cyclist') for one in seen] == [True, False, None]
    assert [c.is_a(one, 'bicycle') for one in seen] == [True] * 3


@pytest.mark.parametrize(
    'bearing, side',
    [
        (0, 'ahead of us'),
        (-19, 'ahead of us'),
        (22, None),
        (26, 'on the left'),
        (150, 'on the left'),
    ]
    + [(-90, 'on the right'), (-158, None), (179, 'behind us'), (-179, 'behind us')],
)
def test_sides_and_their_borders(bearing, side):
    assert c.side_of(bearing) == side


def test_motion_has_a_middle_in_which_nothing_is_said():
    speeds = [0.0, 0.2, 0.6, 1.0, 9.0, np.nan]
    seen = c.seen_in(
        scene(*[track('car', (5.0, 3.0 * k), speed=v) for k, v in enumerate(speeds)]), 0
    )
    assert [c.is_moving(one) for one in seen] == [False, False, None, True, True, None]


def test_a_relation_that_might_hold_for_two_is_unclear():
    def person(y, words):
        caption = (
            f'pedestrian in blue about 12 meters away in the front of the ego car is moving{words}'
        )
        return track('pedestrian', (10.0, y), captions=(caption,) * 12, instance=f'person {y}')

    truck = track('truck', (15.0, 0.0), colour='red')
    told = person(0.0, ' behind a red truck')
    near, far = person(1.0, ''), person(25.0, '')
    objects = c.seen_in(scene(told, near, far, truck), 0)
    relation = objects[0].facts.relation
    assert [c.related(one, relation, objects) for one in objects[:3]] == [True, None, False]


def test_one_hidden_frame_is_bridged_and_two_are_not():
    seen = np.array([1, 0, 1, 0, 0, 1], bool)
    one = track('car', (5.0, 0.0), frames=6, seen=seen)
    assert p.in_view(one).tolist() == [True, True, True, False, False, True]
    one.boxes[1] = np.nan  # not even annotated
    assert p.in_view(one).tolist() == seen.tolist()


def test_who_passes_whom():
    back, forth = np.linspace(8, -8, 12), np.linspace(-8, 8, 12)
    lane = np.full(12, 3.0)
    parked, overtaker = (track('truck', np.stack([x, lane], 1)) for x in (back, forth))
    overtaker = overtaker._replace(speed=np.full(12, 12.0))
    moving, standing = scene(parked, speed=8.0), scene(parked, speed=0.0)
    assert p.passed(moving, parked) == [6] and p.passes(moving, parked) == []
    assert p.passed(standing, parked) == [] and p.passes(standing, parked) == []
    assert p.passes(moving, overtaker) == [6] and p.passed(moving, overtaker) == []


def test_turns_of_the_ego_and_frames_of_the_scene():
    rate = np.where((np.arange(14) >= 5) & (np.arange(14) <= 8), 0.3, 0.0)
    facts = scene(track('car', (9.0, 0.0), frames=14), speed=5.0, yaw_rate=rate)
    asked = all_of(moment, facts, 2, 12, 'ego_turn')
    assert {one.spans for one in asked if ' left' in one.text} == {((5, 8),)}
    assert {one.spans for one in asked if ' right' in one.text} == {()}
    assert all(len(one.saliency) == 11 for one in asked)
    mirrored = facts._replace(yaw_rate=-rate)
    asked = all_of(moment, mirrored, 2, 12, 'ego_turn')
    assert {one.spans for one in asked if ' right' in one.text} == {((5, 8),)}


@pytest.mark.parametrize('metres', [-3.0, 0.0, 3.0])
def test_closer_and_farther(metres):
    x = 20.0 + metres / 2.0 * 0.5 * np.arange(12)  # over two seconds
    facts = scene(track('bus', np.stack([x, np.zeros(12)], 1)))
    words = {-3.0: 'it comes closer', 0.0: 'it stays as far away', 3.0: 'it goes away'}[metres]
    assert {one.answer for one in all_of(REASONINGS['closer'], facts, 0, 11)} == {words}
    chosen = all_of(OF_TIME['distance'], facts, 0, 11)
    assert {one.options[one.right] for one in chosen} == {words}


def test_where_it_was():
    xy = np.array([[10.0 + k, 0.0] for k in range(8)] + [[0.0, 9.0]] * 4)
    asked = all_of(REASONINGS['ago'], scene(track('bus', xy)), 0, 11)
    said = {(one.text.split('seconds')[0].split()[-1], one.answer) for one in asked}
    assert ('3', 'about 15 meters away in the front') in said
    assert all(
        one.answer == 'about 9 meters away in the left' for one in asked if '1 second' in one.text
    )


def test_orders_of_events():
    speed = np.r_[np.full(4, 5.0), np.zeros(6), np.full(6, 5.0)]
    bus = track('bus', (20.0, 3.0), frames=16, speed=speed)
    rate = np.where(np.arange(16) >= 13, 0.3, 0.0)
    facts = scene(bus, speed=5.0, yaw_rate=rate)
    order = ['the bus stops', 'the bus starts to move', 'the ego car turns left']
    assert [one.words for one in events_of(facts, 0, 15)] == order
    first = all_of(REASONINGS['first'], facts, 0, 15)
    for one in first:
        named = sorted((words for words in order if words in one.text), key=order.index)
        assert len(named) == 2 and one.answer == named[0]
    assert {one.answer for one in first} == set(order[:2])
    after = {(one.text, one.answer) for one in all_of(REASONINGS['after'], facts, 0, 15)}
    wordings = ('what does the bus do after the bus stops', 'it starts to move <time>')
    assert wordings in after
    assert ('what does the ego car do after the bus stops', 'it turns left <time>') in after
    assert ('what does the bus do after the bus starts to move', 'it keeps moving') in after
    before = {one.answer for one in all_of(REASONINGS['before'], facts, 0, 15)}
    assert before == {'it stops <time>', 'it starts to move <time>'}
    when = all_of(REASONINGS['when_after'], facts, 0, 15)
    assert {one.spans for one in when if 'turn left after' in one.text} == {((13, 15),)}
    assert {one.spans for one in when if 'stop after' in one.text} == {()}
    chosen = all_of(OF_TIME['first'], facts, 0, 15)
    assert {one.options[one.right] for one in chosen} == {order[0]}


def test_counts_on_a_side():
    cars = [track('car', (x, y)) for x, y in ((5, 9), (-5, 9), (6, -9), (30, 0))]
    asked = all_of(conversation, scene(*cars), 0, 11, 'count_side')
    said = {one.answer for one in asked if 'cars' in one.text}
    assert {'there are 2 cars on the left', 'there is 1 car ahead of us'} <= said
    unclear = scene(*cars, track('car', (10.0, 4.2)))  # at 22.8 degrees
    for one in all_of(conversation, unclear, 0, 11, 'count_side'):
        assert 'cars' not in one.text or 'left' not in one.text and 'ahead' not in one.text


def test_whether_something_is_there_is_not_asked_at_a_border():
    facts = scene(track('bus', (10.0, 4.2)))
    sides = {one.text.split('bus ')[-1] for one in all_of(grounded, facts, 0, 11, 'there')}
    assert sides <= {'on the right', 'behind us'}
    facts = scene(track('bus', (10.0, 9.0)))
    asked = all_of(grounded, facts, 0, 11, 'there')
    assert {one.answer for one in asked if one.text.endswith('on the left')} == {'yes <box>'}
    assert {one.answer for one in asked if one.text.endswith('on the right')} == {'no'}


def test_what_is_followed_was_seen_for_a_while():
    seen = np.r_[np.zeros(9), 1, 1, 1].astype(bool)
    brief = track('bus', (10.0, 9.0), seen=seen)
    for one in all_of(referring, scene(brief), 0, 11, 'track'):
        assert not one.instances
    asked = all_of(referring, busy_scene(1), 0, 20, 'track')
    assert {one.here in one.instances for one in asked if one.here} == {True}
    assert all(len(one.instances) < 2 for one in asked)


@pytest.mark.parametrize(
    'caption, said',
    [
        ('A Red  Car.', 'a red car'),
        ('a <box> car </s>', 'a car'),
        ('a\x1b[2J car\nhere', 'a\ufffd[2j car here'),
        ('<here>', ''),
    ],
)
def test_captions_of_others_become_harmless_answers(caption, said):
    told = track('car', (10.0, 0.0))._replace(captions=(caption,) * 12)
    answers = {one.answer for one in all_of(conversation, scene(told), 0, 11, 'caption_here')}
    assert answers == ({said} if said else set())
    long = told._replace(captions=('word ' * 3000,) * 12)
    for one in all_of(conversation, scene(long), 0, 11, 'caption_here'):
        assert len(one.answer) <= 400

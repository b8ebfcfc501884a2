"""Questions of scenes: answers against slow readings of the words, borders, wordings."""

import re

import numpy as np
import pytest
from question_scenes import busy_scene, scene, track

from mta_perception.answers import NONE
from mta_training.questions import conditions as c
from mta_training.questions import predicates as p
from mta_training.questions.choices import LETTERS
from mta_training.questions.events import events_of
from mta_training.questions.expressions import expression
from mta_training.questions.mixture import MIXTURE, questions_of_scene
from mta_training.questions.question import Question
from mta_training.questions.scene_facts import runs, saliency
from mta_training.questions.wordings import EXPRESSIONS, FAMILIES, Voice, split_of

SCENES = [busy_scene(seed) for seed in range(4)]


@pytest.fixture(scope='module')
def asked():
    """[(facts, its Questions)], of both sorts of wordings."""
    return [(one, questions_of_scene(one, 5, per_frame=9, wordings='both')) for one in SCENES]


def test_the_same_seed_asks_the_same_and_another_one_does_not():
    first, again, other = (questions_of_scene(SCENES[0], seed) for seed in (3, 3, 4))
    assert first == again and first != other


def side_of(bearing):
    """By angle alone, written once more."""
    off = abs(bearing)
    return (
        'ahead of us'
        if off < 22.5
        else 'behind us'
        if off > 157.5
        else ('on the left' if bearing > 0 else 'on the right')
    )


SLOW = re.compile(
    r'(?:where is|show me|find|point at|please find) the '
    r'(?P<order>closest|second closest|third closest|farthest)? ?'
    r'(?P<colour>red|blue|white)? ?'
    r'(?P<noun>car|truck|bus|bicycle|barrier|vehicle|cyclist|pedestrian)'
    r'(?: in (?P<clothes>red|blue|white))?'
    r'(?: (?P<side>ahead of us|behind us|on the left|on the right))?'
)


def slow_meaning(facts, question):
    """Instances that a text of SLOW's form names, read word by word; None for another form."""
    match = SLOW.fullmatch(question.text)
    if match is None:
        return None
    found = []
    for one in facts.seen_at(question.now):
        noun = match['noun']
        is_one = {
            'vehicle': one.name in ('car', 'truck', 'bus'),
            'cyclist': one.name == 'bicycle' and one.rider,
        }.get(noun, one.name == noun)
        colour = match['colour'] or match['clothes']
        side = side_of(one.bearing[question.now])
        if is_one and colour in (None, one.colour) and match['side'] in (None, side):
            found.append(one)
    found.sort(key=lambda one: one.distance[question.now])
    if match['order']:
        place = ['closest', 'second closest', 'third closest', 'farthest'].index(match['order'])
        found = found[-1:] if place == 3 else found[place : place + 1]
    return {one.instance for one in found}


def test_referring_expressions_mean_what_a_slow_reading_says():
    read = 0
    for facts in SCENES:
        for question in questions_of_scene(facts, 6, per_frame=10, mixture={'grounding': 1.0}):
            meaning = slow_meaning(facts, question)
            if meaning is not None:
                read += 1
                assert set(question.instances) == meaning, question.text
    assert read > 80


def test_counts_and_choices_agree_with_the_scene(asked):
    counted = 0
    for facts, questions in asked:
        for question in questions:
            if question.kind == 'choice':
                assert (
                    question.answer
                    == f'{LETTERS[question.right]} : ' + (question.options[question.right])
                )
                assert len(set(question.options)) == len(question.options) >= 2
                assert question.answer in question.text
            if question.family == 'choice/count' or question.family == 'conversation/count':
                noun = next(n for n in c.NOUNS if f'how many {c.plural(n)} ' in question.text)
                there = sum(one.name == noun for one in facts.seen_at(question.now))
                words = question.answer.split(' : ')[-1]
                said = 0 if ' no ' in words else int(re.search(r'\d+', words)[0])
                assert said == there, question
                counted += 1
    assert counted > 30


def test_moments_are_runs_of_what_they_say(asked):
    checked = 0
    for facts, questions in asked:
        for question in questions:
            if question.kind == 'time':
                assert len(question.saliency) == question.now - question.first + 1
                for a, b in question.spans:
                    assert question.first <= a < b <= question.now
            match = re.search(r' a (car|truck|bus|barrier|pedestrian) .*?(\d+) met', question.text)
            if match and question.family == 'moment/near':
                near = np.zeros(facts.frames, bool)
                for one in facts.objects:
                    if one.name == match[1]:
                        near |= p.in_view(one) & (one.distance < int(match[2]))
                window = near[question.first : question.now + 1]
                spanned = np.zeros(facts.frames, bool)
                for a, b in question.spans:
                    spanned[a : b + 1] = True
                spanned = spanned[question.first : question.now + 1]
                assert not (spanned & ~window).any()
                left = np.flatnonzero(window & ~spanned)  # runs of one frame alone
                assert not (np.diff(left) == 1).any()
                checked += 1
    assert checked >= 3


def test_every_group_and_no_such_object_are_there(asked):
    questions = [one for _, some in asked for one in some]
    assert {one.group for one in questions} == set(MIXTURE)
    for kind in ('box', 'mask', 'track', 'time'):
        own = [one for one in questions if one.kind == kind and one.group != 'qa']
        assert 0.05 < 1 - np.mean([one.answered for one in own]) < 0.45, kind
    none = [one for one in questions if one.kind in ('box', 'mask', 'track') and not one.answered]
    assert {one.answer for one in none} <= {NONE, 'no'}


def test_without_captions_colours_and_places_are_not_asked():
    grey = [one._replace(colour='') for one in SCENES[1].objects]
    for question in questions_of_scene(SCENES[1]._replace(objects=tuple(grey)), 1, per_frame=8):
        words = set(question.text.split()) - set(' '.join(question.options).split())
        assert not words & {'red', 'blue', 'white', 'crosswalk', 'walkway'}, question.text
        if question.family in ('qa/place', 'qa/colour', 'choice/colour'):
            assert question.answer == NONE


def test_an_empty_scene_and_a_single_frame_are_no_reason_to_fall():
    assert all(not one.instances for one in questions_of_scene(scene(), 0))
    one = track('car', (10.0, 2.0), frames=1)
    alone = scene(one, speed=np.nan, yaw_rate=np.nan)
    questions = questions_of_scene(alone, 0, per_frame=20)
    assert questions and {q.now for q in questions} == {0}
    assert not any('ego car is' in q.answer for q in questions)  # nobody can tell


def test_what_nobody_sees_is_not_asked_about():
    hidden = track('bus', (10.0, 5.0), seen=[False] * 12)
    facts = scene(hidden, track('car', (10.0, 0.0)), track('car', (-20.0, 0.0)))
    for question in questions_of_scene(facts, 0, per_frame=10):
        assert hidden.instance not in question.instances


@pytest.mark.parametrize(
    'other, form, clear',
    [
        ((10.0, 8.0), 'side', True),  # both on the left: two are meant, so no `the`
        ((10.0, -8.0), 'side', True),
        ((10.0, 4.2), 'side', False),  # 22.8 degrees: nobody can say on which side it is
    ],
)
def test_at_a_border_nothing_is_asked(other, form, clear):
    objects = c.seen_in(scene(track('car', (5.0, 8.0)), track('car', other)), 0)
    voice = Voice(np.random.default_rng(0))
    found = expression(voice, objects, form, objects[0], objects[0])
    if not clear or other[1] > 0:
        assert found is None
    else:
        assert [one.instance for one in found.meant] == [objects[0].instance]


def test_close_ranks_are_not_put_in_order():
    def ordered(*distances):
        tracks = [track('car', (metres, 0.0)) for metres in distances]
        objects = c.seen_in(scene(*tracks), 0)
        voices = (Voice(np.random.default_rng(seed)) for seed in range(30))
        found = [expression(one, objects, 'order', *objects[:1] * 2) for one in voices]
        return {(one.words, one.meant[0].distance) for one in found if one and one.meant}

    assert ('the second closest car', 12.0) in ordered(8.0, 12.0, 20.0)
    assert not any('second' in words for words, _ in ordered(8.0, 12.0, 12.5))


def test_stops_starts_and_passes_are_events():
    speed = np.r_[np.full(4, 5.0), 0.6, np.zeros(4), 2.0, 5.0, 5.0]
    xy = np.stack([np.linspace(10, -12, 12), np.full(12, 3.0)], axis=1)
    bus = track('bus', xy, speed=speed)
    facts = scene(bus, speed=np.zeros(12))
    assert p.stops(bus.speed, bus.seen) == [5]
    assert p.starts(bus.speed, bus.seen) == [9]
    assert [one.words for one in events_of(facts, 0, 11)] == [
        'the bus comes within 10 meters of us',
        'the bus stops',
        'the bus starts to move',
    ]
    facts = scene(track('truck', xy), speed=np.full(12, 6.0))
    assert 'the ego car passes the truck' in [one.words for one in events_of(facts, 0, 11)]
    flicker = np.r_[np.full(6, 5.0), 0.0, np.full(5, 5.0)]  # one slow frame is no stop
    assert p.stops(flicker, bus.seen) == []


def test_runs_and_saliency_by_hand():
    truth = [0, 1, 1, 0, 1, 0, 1, 1, 1]
    assert runs(truth) == ((1, 2), (6, 8)) and runs(truth, 10) == ((11, 12), (16, 18))
    assert runs([0, 0]) == () and runs([1, 1]) == ((0, 1),)
    np.testing.assert_allclose(saliency([0, 1, 1, 1, 0]), [0.25, 0.75, 1.0, 0.75, 0.25])


def test_held_out_wordings_are_told_apart_and_use_no_new_words():
    def words(side):
        tables = [*EXPRESSIONS.values(), *FAMILIES.values()]
        texts = ' '.join(text for table in tables for text in getattr(table, side))
        return {word for word in texts.split() if '{' not in word}

    assert words('unseen') <= words('seen')
    for name, table in {**EXPRESSIONS, **FAMILIES}.items():
        assert not set(table.seen) & set(table.unseen), name
    for which in ('seen', 'unseen'):
        questions = questions_of_scene(SCENES[2], 0, wordings=which)
        assert {split_of(one) for one in questions} == {which}


def test_wordings_and_mixtures_that_are_not_there_are_named():
    with pytest.raises(ValueError, match='wordings=.*old.*seen'):
        Voice(np.random.default_rng(0), 'old')
    with pytest.raises(ValueError, match='mixture.*boxes'):
        questions_of_scene(SCENES[0], 0, mixture={'boxes': 1.0})
    with pytest.raises(ValueError, match='kinds.*box2'):
        questions_of_scene(SCENES[0], 0, kinds=('box2',))
    only = questions_of_scene(SCENES[0], 0, mixture={'mask': 1.0})
    assert {one.group for one in only} == {'mask'}
    question = Question('s', 0, 1, 'where', 'it is here <box>', 'box', 'a/b', 'where', ('x',))
    with pytest.raises(ValueError, match="family 'a/b'"):
        split_of(question)


@pytest.mark.parametrize(
    'changed',
    [
        {'answer': 'it is here'},
        {'answer': 'it is <mask> here'},
        {'instances': ()},
        {'here': 'x'},
        {'text': 'where is <here>'},
        {'kind': 'boxes'},
        {'first': 3},
    ],
)
def test_a_question_that_contradicts_itself_is_refused(changed):
    fields = {
        'scene': 's',
        'first': 0,
        'now': 1,
        'text': 'where is the car',
        'answer': 'it is here <box>',
        'kind': 'box',
        'family': 'grounding/one',
        'wording': 'where is {object} | the {thing}',
        'instances': ('x',),
    }
    Question(**fields)
    with pytest.raises(ValueError):
        Question(**{**fields, **changed})

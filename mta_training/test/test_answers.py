"""Metrics of answers: against slow obvious versions and cases by hand."""

import numpy as np
import pytest

from mta_perception.geometry import box_corners
from mta_training.evaluation.answers_space import (
    GroundedAnswer,
    MaskAnswer,
    MaskTrack,
    TrackAnswer,
    bev_iou,
    boundary_f,
    grounding_scores,
    mask_scores,
    mask_track_scores,
    track_scores,
)
from mta_training.evaluation.answers_time import (
    AP_IOUS,
    MomentAnswer,
    average_precision,
    moment_scores,
    span_iou,
    window_spans,
)
from mta_training.evaluation.answers_words import (
    ChoiceAnswer,
    PlacedAnswer,
    TimedAnswer,
    WordsAnswer,
    choice_scores,
    chosen_option,
    placed_answer_scores,
    timed_answer_scores,
    words_scores,
)
from mta_training.questions.question import Question


def box(x=0.0, y=0.0, length=4.0, width=2.0, yaw=0.0):
    return np.array([x, y, 0.8, length, width, 1.6, np.sin(yaw), np.cos(yaw), 0.0, 0.0])


def test_rotated_overlap_against_counted_points():
    rng = np.random.default_rng(0)
    points = rng.uniform(-6, 6, (200_000, 2))

    def inside(one):
        off = points - one[:2]
        along = off @ [one[7], one[6]]
        across = off @ [-one[6], one[7]]
        return (np.abs(along) < one[3] / 2) & (np.abs(across) < one[4] / 2)

    for _ in range(6):
        a, b = (
            box(*rng.uniform(-1, 1, 2), *rng.uniform(1, 5, 2), rng.uniform(-3, 3)) for _ in 'ab'
        )
        counted = (inside(a) & inside(b)).sum() / (inside(a) | inside(b)).sum()
        np.testing.assert_allclose(bev_iou(a, b)[0, 0], counted, atol=0.01)
    assert box_corners(a[None])[:, :4].shape == (1, 4, 3)
    assert bev_iou(box(), box(length=-1.0))[0, 0] < 1e-3  # what a model may say is no error


def test_grounding_by_hand():
    none = np.zeros((0, 10))
    answers = [
        GroundedAnswer(box(0.3), 5, box()[None], (5, 7)),  # 0.3 m off, pointed right
        GroundedAnswer(box(3.0), 5, np.stack([box(), box(4.5)]), (7,)),  # 1.5 m from the second
        GroundedAnswer(box(9.0), -1, box()[None], ()),  # the detector did not find it
        GroundedAnswer(None, -1, box()[None], (1,)),  # said: none
        GroundedAnswer(None, -1, none, ()),
        GroundedAnswer(box(), 3, none, ()),
    ]
    scores = grounding_scores(answers)
    assert (scores['questions'], scores['found'], scores['absent']) == (4, 3, 2)
    assert [scores[f'acc_{d}m'] for d in ('0.5', '1', '2', '4')] == [0.25, 0.25, 0.5, 0.5]
    assert scores['acc_2m_found'] == pytest.approx(2 / 3)
    assert scores['pointer'] == pytest.approx(1 / 3)
    assert scores['none'] == 0.5 and scores['shown'] == 0.75
    # Overlaps: 3.7 / 4.3 and (1.5 m apart) 2.5 / 5.5.
    assert scores['iou_0.5'] == 0.25 and scores['iou_0.25'] == 0.5
    assert set(grounding_scores([]).values()) == {0, None}


def test_masks_by_hand():
    def mask(*cells):
        drawn = np.zeros((4, 4), bool)
        for cell in cells:
            drawn[cell] = True
        return drawn

    empty = mask()
    answers = [
        MaskAnswer(mask((0, 0), (0, 1)), mask((0, 1), (0, 2)), 'car'),  # 1 of 3
        MaskAnswer(mask((1, 1)), mask((1, 1)), 'bus'),
        MaskAnswer(empty, mask((1, 1)), 'car'),
        MaskAnswer(empty, empty, 'car'),
        MaskAnswer(mask((1, 1)), empty, 'car'),
    ]
    scores = mask_scores(answers)
    assert scores['iou'] == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert scores['ciou'] == pytest.approx(2 / 5)
    assert scores['iou_car'] == pytest.approx(1 / 6) and scores['iou_bus'] == 1.0
    assert scores['none'] == 0.5


def slow_boundary_f(mask, true):
    """The same by every pair of boundary pixels."""

    def edge(one):
        height, width = one.shape
        found = []
        for y in range(height):
            for x in range(width):
                below, right = min(y + 1, height - 1), min(x + 1, width - 1)
                if {one[y, right], one[below, x], one[below, right]} - {one[y, x]}:
                    found.append((y, x))
        return np.array(found, float).reshape(-1, 2)

    a, b = edge(mask), edge(true)
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    radius = np.ceil(0.008 * np.hypot(*mask.shape))
    off = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) <= radius
    precision, recall = off.any(1).mean(), off.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_boundary_f_against_every_pair_of_pixels():
    rng = np.random.default_rng(1)
    for _ in range(8):
        masks = np.zeros((2, 40, 50), bool)
        for one in masks:
            y, x = rng.integers(0, 30, 2)
            one[y : y + rng.integers(2, 12), x : x + rng.integers(2, 12)] = True
        assert boundary_f(*masks) == pytest.approx(slow_boundary_f(*masks))
    assert boundary_f(masks[0], masks[0]) == 1.0
    assert boundary_f(masks[0], np.zeros_like(masks[0])) == 0.0
    assert boundary_f(np.zeros((4, 4)), np.zeros((4, 4))) == 1.0


def test_masks_over_time():
    square = np.zeros((20, 20), bool)
    square[5:9, 5:9] = True
    moved = np.roll(square, 10, axis=1)
    scores = mask_track_scores([MaskTrack(np.stack([square, moved]), np.stack([square, square]))])
    assert scores['J'] == 0.5 and scores['F'] == 0.5 and scores['J&F'] == 0.5
    assert mask_track_scores([])['J&F'] is None


def test_tracks_by_hand():
    true = np.stack([box(), box(1.0), box(2.0), box(3.0)])
    said = np.stack([box(), box(2.0), box(2.0, 40.0), box(99.0)])
    shown, visible = np.array([1, 1, 1, 0], bool), np.array([1, 1, 1, 0], bool)
    scores = track_scores([TrackAnswer(said, shown, true, visible)])
    overlap = np.array([1.0, 3 / 5, 0.0])
    assert scores['overlap'] == pytest.approx(overlap.mean())
    assert scores['sr_0.5'] == pytest.approx(2 / 3) and scores['sr_0.75'] == pytest.approx(1 / 3)
    steps = [k / 20 for k in range(21)]
    slow = np.mean([[value > step for step in steps] for value in overlap])
    assert scores['success'] == pytest.approx(slow)
    # Off by nothing, by a quarter of the length, by twenty widths.
    near = [k / 100 for k in range(51)]
    slow = np.mean([[value <= step for step in near] for value in (0.0, 0.25, 20.0)])
    assert scores['normalised_precision'] == pytest.approx(slow)
    assert scores['absent'] == 1.0 and scores['none'] is None
    nowhere = TrackAnswer(said, shown, true, np.zeros(4, bool))
    assert track_scores([nowhere])['none'] == 0.0


def test_a_track_turned_as_its_object_is_judged_in_its_own_axes():
    turned = box(yaw=np.pi / 2)[None]
    along = turned + np.eye(10)[1] * 1.0  # along its length of 4 m
    across = turned + np.eye(10)[0] * 1.0  # across its width of 2 m
    one = np.ones(1, bool)
    near, far = (
        track_scores([TrackAnswer(said, one, turned, one)])['normalised_precision']
        for said in (along, across)
    )
    assert near == pytest.approx(26 / 51) and far == pytest.approx(1 / 51)


def moment(spans, true_spans, scores=None, shown=True, saliency=(0, 1, 0, 0)):
    scores = np.arange(len(spans), 0, -1) if scores is None else scores
    spans, true_spans = (np.array(one, float).reshape(-1, 2) for one in (spans, true_spans))
    return MomentAnswer(
        spans, scores, np.array(saliency), true_spans, np.array([0, 1, 0.5, 0]), shown
    )


def slow_average_precision(answer, least):
    """Precision at each recall, the best of all later ones; spans one by one."""
    order = sorted(range(len(answer.spans)), key=lambda k: -answer.scores[k])
    taken, points = set(), []
    for rank, k in enumerate(order, 1):
        best, fit = None, least
        for j, true in enumerate(answer.true_spans):
            a, b = answer.spans[k]
            shared = max(0.0, min(b, true[1]) - max(a, true[0]))
            iou = shared / ((b - a) + (true[1] - true[0]) - shared)
            if j not in taken and iou >= fit:
                best, fit = j, iou
        if best is not None:
            taken.add(best)
        points.append((len(taken) / len(answer.true_spans), len(taken) / rank))
    area, before = 0.0, 0.0
    for recall, _ in points:
        if recall > before:
            area += (recall - before) * max(p for r, p in points if r >= recall)
            before = recall
    return area


def test_average_precision_against_the_slow_one():
    rng = np.random.default_rng(2)
    for _ in range(40):
        starts = rng.uniform(0, 8, 6)
        spans = np.stack([starts, starts + rng.uniform(0.5, 4, 6)], 1)
        true = np.array([[1.0, 3.0], [5.0, 9.0]])
        answer = moment(spans, true, rng.random(6))
        for least in (0.3, *AP_IOUS[:3]):
            expected = slow_average_precision(answer, least)
            assert average_precision(answer, least) == pytest.approx(expected)


def test_moments_by_hand():
    answers = [
        moment([[0, 2], [4, 8]], [[4, 8]], scores=[0.1, 0.9]),  # the best one is exact
        moment([[0, 2]], [[1, 3]], saliency=(1, 0, 0, 0)),  # 1 of 3
        moment([[0, 2]], [[0, 2]], shown=False, saliency=(0, 0, 1, 0)),
        moment([[0, 2]], [], shown=False),
        moment([[0, 2]], []),
    ]
    scores = moment_scores(answers)
    assert (scores['questions'], scores['absent']) == (3, 2)
    assert scores['mIoU'] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert scores['R1@0.3'] == pytest.approx(2 / 3) and scores['R1@0.7'] == pytest.approx(1 / 3)
    assert scores['mAP'] == pytest.approx(1 / 3) and scores['mAP@0.5'] == pytest.approx(1 / 3)
    assert scores['HIT@1'] == pytest.approx(1 / 3) and scores['none'] == 0.5
    assert moment_scores([])['mAP'] is None


def test_spans_of_a_question_are_frames_of_its_window():
    question = Question(
        's', 3, 9, 'when', 'then <time>', 'time', 'a/b', 'when', spans=((4, 4), (8, 9))
    )
    np.testing.assert_array_equal(window_spans(question), [[1, 2], [5, 7]])
    assert span_iou(window_spans(question)[:1], [[1, 2]])[0, 0] == 1.0


def test_grounded_answers_by_hand():
    true = np.array([[2.0, 6.0], [8.0, 9.0]])
    answers = [
        TimedAnswer('yes <time>', 'yes <time>', (3.0, 5.0), true),  # all of it inside
        TimedAnswer('no', 'yes <time>', (2.0, 6.0), true),
        TimedAnswer('Yes <time>.', 'yes <time>', (0.0, 3.0), true),  # a third of it inside
        TimedAnswer('yes', 'yes <time>', None, true),
        TimedAnswer('no', 'no', None, np.zeros((0, 2))),
    ]
    scores = timed_answer_scores(answers)
    assert scores['accuracy'] == 0.8
    assert scores['Acc@GQA'] == 0.25 and scores['Acc@IoP'] == 0.5
    assert scores['mIoP'] == pytest.approx((1 + 1 + 1 / 3) / 4)
    assert scores['IoP@0.3'] == 0.75 and scores['IoP@0.5'] == 0.5
    assert scores['mIoU'] == pytest.approx((0.5 + 1 + 1 / 6) / 4) and scores['none'] == 1.0


def test_answers_with_a_place_by_hand():
    good, far = (GroundedAnswer(box(x), 0, box()[None], (0,)) for x in (1.0, 3.0))
    none = GroundedAnswer(None, -1, np.zeros((0, 10)), ())
    scores = placed_answer_scores(
        [
            PlacedAnswer('red <box>', 'red <box>', good),
            PlacedAnswer('blue <box>', 'red <box>', good),
            PlacedAnswer('red <box>', 'red <box>', far),
            PlacedAnswer('no', 'no', none),
        ]
    )
    assert scores['accuracy'] == 0.75 and scores['acc_and_2m'] == pytest.approx(1 / 3)
    assert scores['acc_2m'] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    'said, chosen',
    [
        ('b : blue', 1),
        ('b', 1),
        ('b: blue', 1),
        ('blue .', 1),
        ('a car', 2),  # the option, not the letter
        ('d : green', -1),
        ('', -1),
        ('maybe', -1),
    ],
)
def test_the_option_that_an_answer_names(said, chosen):
    assert chosen_option(said, ('red', 'blue', 'a car')) == chosen


def test_choices_by_length():
    options = ('red', 'blue')
    answers = [
        ChoiceAnswer('a', options, 0, 3, 40),
        ChoiceAnswer('b', options, 0, 4, 40),
        ChoiceAnswer('a', options, 0, 39, 40),
        ChoiceAnswer('a', options, 0, 40, 40),
    ]
    scores = choice_scores(answers)
    assert (scores['short'], scores['middle'], scores['whole']) == (1.0, 0.5, 1.0)
    assert scores['accuracy'] == 0.75 and scores['chance'] == 0.5
    assert words_scores([WordsAnswer('There is 1 car', 'there is 1 car')])['exact'] == 1.0
    assert words_scores([])['exact'] is None

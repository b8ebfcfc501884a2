"""Answers of a model, and what they are worth: right ones get full marks, wrong ones none."""

import io

import numpy as np
from PIL import Image
import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from toy_asked import FRAMES, ROWS, SCENE, toy_asked, toy_questions

from mta_perception.answers import MASK_SCALE
from mta_perception.model.asking import AskConfig, TaskModel
from mta_perception.model.config import MtaConfig
from mta_perception.model.language import LanguageModel
from mta_perception.model.tasks.config import MaskConfig, TasksConfig, TemporalConfig
from mta_training.tpo import evaluation
from mta_training.tpo.answering import Shown, answer, answer_all
from mta_training.tpo.batches import make_batch, true_mask, true_track
from mta_training.tpo.host import SmallHost, word_tokenizer
from mta_training.tpo.objective import Asker
from mta_training.tpo.pictures import answer_sheet, chosen_for_sheet
from mta_training.tpo.words import Vocabulary


def right_answers(questions, known):
    """What a perfect model shows."""
    window, shown = (0, FRAMES - 1), []
    for question in questions:
        head = {'box': 'region', 'time': 'temporal'}.get(question.kind, question.kind)
        part = {}
        if not question.answered:
            head = None
        elif head == 'region':
            track = known.facts.track(question.instances[0])
            row = known.found[track.instance][question.now][0]
            part = {'pointed': row, 'box': track.boxes[question.now]}
        elif head == 'temporal':
            part = {
                'spans': np.array([[2.0, 6.0], [0.0, 1.0]]),
                'scores': np.array([0.9, 0.1]),
                'saliency': np.array(question.saliency),
            }
        elif head == 'mask':
            cells = MASK_SCALE * known.frames.bev.shape[-1]
            part = {'mask': true_mask(known.facts, question, cells).numpy()}
        elif head == 'track':
            track, seen = true_track(known.facts, question)
            part = {'track': track, 'seen': seen}
        shown.append(Shown(question.answer, (head,) if head else (), window, **part))
    return shown


def test_right_answers_get_full_marks():
    known, questions = toy_asked(), toy_questions()
    metrics = evaluation.judge_answers(questions, right_answers(questions, known), {SCENE: known})
    assert metrics['assignment'] == dict.fromkeys(
        ('box', 'mask', 'track', 'time', 'talk', 'all'), 1.0
    )
    assert metrics['region']['acc_0.5m'] == metrics['region']['pointer'] == 1.0
    assert metrics['region']['none'] == 1.0 and metrics['region']['questions'] == 2
    assert metrics['temporal']['R1@0.7'] == metrics['temporal']['HIT@1'] == 1.0
    assert metrics['mask']['iou'] == metrics['mask']['iou_bus'] == 1.0
    assert metrics['track']['sr_0.75'] == metrics['track']['J'] == 1.0
    assert metrics['talk']['exact'] == 1.0


def test_saying_nothing_gets_none():
    known, questions = toy_asked(), toy_questions()
    shown = [Shown('i cannot tell', (), (0, FRAMES - 1)) for _ in questions]
    metrics = evaluation.judge_answers(questions, shown, {SCENE: known})
    assert metrics['assignment']['box'] == pytest.approx(1 / 3)  # of three, one is not there
    assert metrics['region']['acc_4m'] == 0.0 and metrics['region']['none'] == 1.0
    assert metrics['temporal']['R1@0.3'] == metrics['mask']['iou'] == 0.0
    assert metrics['track']['success'] < 0.1 and metrics['track']['J'] == 0.0
    assert metrics['talk']['exact'] == 0.0


def test_what_no_head_answers_is_not_judged():
    known, questions = toy_asked(), toy_questions()
    shown = right_answers(questions, known)
    metrics = evaluation.judge_answers(questions, shown, {SCENE: known}, ('region',))
    assert {'region', 'talk'} <= set(metrics)
    assert not {'temporal', 'mask', 'track', 'timed'} & set(metrics)


def test_spans_before_the_window_are_cut():
    question = toy_questions()[5]
    np.testing.assert_array_equal(evaluation.true_spans(question, (4, 8)), [[0.0, 2.0]])
    assert evaluation.true_spans(question, (6, 8)).shape == (0, 2)


@pytest.fixture(scope='module')
def asker():
    """Trained until it knows the toy's questions by heart."""
    torch.manual_seed(0)
    known, questions = toy_asked(), toy_questions()
    tokenizer = word_tokenizer([f'{q.text} {q.answer}' for q in questions])
    vocabulary = Vocabulary(tokenizer)
    toy = MtaConfig.toy()
    model = toy.to_dict()
    model['language']['vocab_size'] = tokenizer.get_vocab_size()
    model = MtaConfig.from_dict(model)
    tasks = TasksConfig(
        temporal=TemporalConfig(width=32, heads=4, feedforward=64, dropout=0.0, input_dropout=0.0),
        mask=MaskConfig(width=32, heads=4, feedforward=64),
    )
    config = AskConfig(memory=FRAMES, objects=ROWS, width=64, tasks=tasks)
    asker = Asker(TaskModel(config, model), SmallHost(LanguageModel(model.language), vocabulary))
    batch = make_batch(vocabulary, config.heads, questions, {SCENE: known}, FRAMES)
    optimizer = torch.optim.AdamW(asker.parameters(), 2e-3)
    asker.train()
    for _ in range(300):
        optimizer.zero_grad()
        asker(batch).total.backward()
        torch.nn.utils.clip_grad_norm_(asker.parameters(), 5.0)
        optimizer.step()
    return asker


@pytest.mark.slow
def test_answers_of_a_model_that_knows_them(asker):
    known, questions = toy_asked(), toy_questions()
    shown = answer_all(asker, questions, {SCENE: known})
    assert [one.said for one in shown] == [question.answer for question in questions]
    assert asker.training
    metrics = evaluation.judge_answers(questions, shown, {SCENE: known})
    assert metrics['assignment']['all'] == 1.0
    assert metrics['region']['pointer'] == metrics['region']['acc_1m'] == 1.0
    assert metrics['temporal']['R1@0.5'] == 1.0
    assert metrics['mask']['iou'] > 0.8
    assert metrics['track']['sr_0.5'] > 0.8


@pytest.mark.slow
@torch.no_grad()
def test_a_question_is_answered_alike_alone_and_among_others(asker):
    """Rows are padded and of different lengths: neither may be seen."""
    known, questions = toy_asked(), toy_questions()
    asker.eval()
    together = answer(asker, questions, {SCENE: known})
    for question, one in zip(questions, together):
        alone = answer(asker, [question], {SCENE: known})[0]
        assert alone.said == one.said and alone.pointed == one.pointed
        for name in ('box', 'spans', 'saliency', 'track'):
            if getattr(one, name) is not None:
                np.testing.assert_allclose(getattr(alone, name), getattr(one, name), atol=1e-3)


def test_a_sheet_shows_each_kind():
    known, questions = toy_asked(), toy_questions()
    chosen = chosen_for_sheet(questions, 5)
    assert all(questions[i].answered or questions[i].kind == 'talk' for i in chosen)
    assert {questions[i].kind for i in chosen} == {'box', 'mask', 'track', 'time', 'talk'}
    shown = right_answers(questions, known)
    data = answer_sheet([questions[i] for i in chosen], [shown[i] for i in chosen], {SCENE: known})
    assert Image.open(io.BytesIO(data)).size[0] > 1000

"""Files of questions: what is written is read again; what is wrong is named by line and field."""

import json

from command_line import one_line
import numpy as np
import pytest
from question_scenes import busy_scene

from mta_perception.bags.scene_bag import SceneBag
from mta_training.questions.files import QuestionFileError, read_questions, write_questions
from mta_training.questions.mixture import questions_of_scene
from mta_training.questions.scene_facts import ego_motion, scene_facts

GOOD = {
    'scene': 's',
    'first': 2,
    'now': 5,
    'text': 'when do we stop',
    'answer': 'it is then <time>',
    'kind': 'time',
    'family': 'moment/ego_stop',
    'wording': 'when do we stop',
    'spans': [[3, 4]],
    'saliency': [0, 0.5, 1, 0.25],
}


def test_what_is_written_is_read_again(tmp_path):
    questions = questions_of_scene(busy_scene(0), 0, per_frame=6, wordings='both')
    write_questions(tmp_path / 'q.jsonl', questions)
    assert read_questions(tmp_path / 'q.jsonl') == questions


@pytest.mark.parametrize(
    'changed, named',
    [
        ({'first': -1}, 'first=-1'),
        ({'first': True}, 'first=True'),
        ({'first': 1e3}, 'first=1000.0'),
        ({'now': '5'}, "now='5'"),
        ({'text': 'a\x1b[2J'}, 'text='),
        ({'text': 'x' * 5000}, 'text='),
        ({'answer': None}, 'answer=None'),
        ({'kind': 'box'}, 'answer'),
        ({'family': 'moment/other'}, 'moment/other'),
        ({'wording': 'when do they stop'}, 'when do they stop'),
        ({'spans': [[4, 3]]}, 'spans='),
        ({'spans': [[0, 3]]}, 'spans='),
        ({'spans': 3}, 'spans=3'),
        ({'saliency': [0, 2, 0, 0]}, 'saliency='),
        ({'saliency': [0.5]}, 'saliency has 1'),
        ({'instances': [1]}, 'instances='),
        ({'colour': 'red'}, "'colour' is unknown"),
        ({'reasoning': 1}, 'reasoning=1'),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path, changed, named):
    path = tmp_path / 'q.jsonl'
    path.write_text(json.dumps(GOOD) + '\n' + json.dumps({**GOOD, **changed}) + '\n')
    with pytest.raises(QuestionFileError) as error:
        read_questions(path)
    said = str(error.value)
    assert f'{path}, line 2: ' in said and named in said
    assert '\n' not in said and '\x1b' not in said and len(said) < 700


@pytest.mark.parametrize('line', [b'{', b'[]', b'3', b'\xff\xfe', b'[' * 5000, b'{"scene": "s"}'])
def test_what_is_no_question_is_named(tmp_path, line):
    path = tmp_path / 'q.jsonl'
    path.write_bytes(line + b'\n')
    with pytest.raises(QuestionFileError, match='q.jsonl'):
        read_questions(path)


def test_a_missing_field_is_named(tmp_path):
    path = tmp_path / 'q.jsonl'
    for name in ('scene', 'now', 'wording'):
        path.write_text(json.dumps({key: value for key, value in GOOD.items() if key != name}))
        with pytest.raises(QuestionFileError, match=f"line 1: no field '{name}'"):
            read_questions(path)


def test_facts_are_those_of_the_bag(bags):
    bag = SceneBag(bags[0])
    facts = scene_facts(bag)
    assert facts.frames == len(bag.samples)
    for frame, sample in enumerate(bag.samples):
        sample = sample.levelled()
        points = sample.num_lidar_pts + sample.num_radar_pts
        inside = (np.abs(sample.boxes[:, :2]) < 51.2).all(1)
        seen = {one.instance for one in facts.seen_at(frame)}
        assert seen == {
            name for name, good in zip(sample.instances, (points > 0) & inside) if good
        }
        assert len(seen) < len(sample.instances)  # one has no point at all
        for row, instance in enumerate(sample.instances):
            track = facts.track(instance)
            np.testing.assert_array_equal(track.boxes[frame], sample.boxes[row])
            assert track.label == sample.labels[row]
            assert track.captions[frame] == sample.captions[row]
            if not np.isnan(sample.boxes[row, 8]):
                speed = np.hypot(*sample.boxes[row, 8:10])
                assert track.speed[frame] == pytest.approx(speed)


def test_the_ego_motion_is_that_of_its_poses():
    seconds = np.arange(8) * 0.5
    angle = 0.2 * seconds
    poses = np.tile(np.eye(4), (8, 1, 1))
    poses[:, :2, :2] = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    ).transpose(2, 0, 1)
    poses[:, :2, 3] = np.stack([np.sin(angle), 1 - np.cos(angle)], 1) * 25.0  # 5 m/s, radius 25 m
    speed, yaw_rate = ego_motion((seconds * 1e9).astype(np.int64), poses)
    np.testing.assert_allclose(yaw_rate, 0.2, atol=1e-9)
    np.testing.assert_allclose(speed, 5.0, rtol=0.01)
    backwards, _ = ego_motion((seconds * 1e9).astype(np.int64), poses[::-1])
    np.testing.assert_allclose(backwards, -5.0, rtol=0.01)
    assert np.isnan(ego_motion(np.zeros(1), poses[:1])[0]).all()


def test_the_command_asks_the_scenes_of_bags(mta_train, bags, tmp_path):
    out = tmp_path / 'q.jsonl'
    code, text, _ = mta_train(
        'questions', '--bags', bags[0].parent, '--out', out, '--per-frame', 5, '--show', 3
    )
    assert code == 0 and 'by family' in text and text.count(' -> ') == 3
    questions = read_questions(out)
    assert f'{len(questions)} questions' in text and len({one.scene for one in questions}) == 2
    code, _, error = mta_train('questions', '--bags', bags[0], '--out', out, '--only', 'boxes')
    assert code == 1
    one_line(error, 'boxes', 'grounding')
    code, _, error = mta_train('questions', '--bags', tmp_path, '--out', out)
    assert code == 1
    one_line(error, tmp_path, 'no bags')

"""Questions without ROS: what is refused, what each head's answer becomes, by hand-made graphs."""

import numpy as np
import pytest
import yaml

pytest.importorskip('onnx')

from tiny_asking import FRAMES, WORDS, tasks, write_tiny_asking
from tiny_model import QUERIES, SCORES, write_tiny_model

from mta_perception.answers import CANNOT_TELL, NONE
from mta_perception.detections import DetectorOutputs
from mta_perception.geometry import rigid_from_yaw
from mta_perception.pipeline.answering import answer, span_ns
from mta_perception.pipeline.scene_memory import SceneMemory
from mta_perception.reasons import Code, Reason
from mta_perception.runtime.asking import OnnxAsker
from mta_perception.runtime.manifest import Manifest, ManifestError

SECOND_NS = 1_000_000_000


@pytest.fixture(scope='module')
def asker(tmp_path_factory):
    """The hand-made model's."""
    directory = write_tiny_asking(tmp_path_factory.mktemp('asking') / 'tiny')
    return OnnxAsker(Manifest.load(directory))


def outputs(shift=0.0):
    """Three objects, the first the surest: DetectorOutputs."""
    logits = np.full((QUERIES, 10), -9.0, np.float32)
    for query, score in enumerate(SCORES):
        logits[query, query] = np.log(score / (1 - score))
    boxes = np.zeros((QUERIES, 10), np.float32)
    boxes[:, 0] = np.arange(QUERIES) * 10.0 + 5.0 + shift
    boxes[:, 3:6] = 4.0, 2.0, 1.5
    boxes[:, 7] = 1.0
    features = np.zeros((QUERIES, 6), np.float32)
    return DetectorOutputs(logits, boxes, features, np.ones((2, 4, 4), np.float32))


def driven(frames=5, seconds=0.5, metres=2.0):
    """A SceneMemory after so many frames straight on; what is seen stands still."""
    memory = SceneMemory(QUERIES, FRAMES)
    for index in range(frames):
        pose = rigid_from_yaw(0.0, (index * metres, 0.0, 0.0))
        seen = outputs(-index * metres)
        memory.observe(round(index * seconds * SECOND_NS), pose, pose, seen, {0: '7', 2: '9'})
    return memory


def test_a_box_comes_with_its_class_its_track_and_the_frames_stamp(asker):
    found = answer(asker, driven(), 'Where is the car?')
    assert found.success and found.stamp_ns == 2 * SECOND_NS
    (shown,) = found.boxes
    assert shown.label == 'car' and shown.track_id == '7' and shown.stamp_ns == found.stamp_ns
    np.testing.assert_allclose(shown.box[:3], (-3.0, 0.0, 0.0), atol=1e-5)
    assert 0.5 < shown.score < 1.0
    assert not found.track and found.span_ns is None and found.mask is None


def test_a_box_is_in_base_link_where_the_car_leans(asker):
    memory = SceneMemory(QUERIES, FRAMES)
    level = rigid_from_yaw(0.3, (100.0, 50.0, 0.0))
    leans = level @ rigid_from_yaw(0.0, (0.0, 0.0, 0.5))  # half a metre above the level frame
    memory.observe(0, level, leans, outputs(), {})
    (shown,) = answer(asker, memory, 'where is the car').boxes
    np.testing.assert_allclose(shown.box[:3], (5.0, 0.0, -0.5), atol=1e-5)
    assert shown.track_id == ''


def test_none_is_an_answer_without_a_box(asker):
    found = answer(asker, driven(), 'where is nothing')
    assert found.success and not found.boxes and found.text == NONE


def test_a_span_is_in_stamps(asker):
    found = answer(asker, driven(frames=5), 'when is it')
    assert found.span_ns == (SECOND_NS, 2 * SECOND_NS)  # from the middle of the third frame
    assert found.span_score == pytest.approx(1 / (1 + np.exp(-6.0)))
    assert len(found.saliency) == len(found.stamps_ns) == 5


def test_frames_stand_for_the_time_to_halfway(asker):
    stamps = [10, 20, 40]
    assert span_ns(stamps, (0.0, 3.0)) == (10, 40)
    assert span_ns(stamps, (1.0, 2.0)) == (15, 30)
    assert span_ns([7], (0.0, 1.0)) == (7, 7)


def test_a_mask_is_of_cells(asker):
    found = answer(asker, driven(), 'cover the car')
    assert found.mask.shape == (16, 16) and found.mask[:, 8:].all() and not found.mask[:, :8].any()
    assert found.mask_score == 0.5


def test_a_track_has_a_box_at_each_frame_in_base_link_of_then(asker):
    found = answer(asker, driven(frames=4), 'follow the car')
    assert [one.stamp_ns for one in found.track] == [i * SECOND_NS // 2 for i in range(4)]
    for index, one in enumerate(found.track):
        assert one.box[0] == pytest.approx(5.0 - 2.0 * index, abs=0.05)  # float16 features


def test_words_alone_are_an_answer(asker):
    found = answer(asker, driven(), 'hello')
    assert found.success and found.text == 'it' and not found.boxes


@pytest.mark.parametrize(
    'text, code',
    [
        ('', Code.NO_QUESTION),
        ('  ?! ', Code.NO_QUESTION),
        ('where is the ' + 'car ' * 2500, Code.QUESTION_TOO_LONG),
        ('where is\x1b[2J the car', Code.CONTROL_CHARACTERS),
        ('where is the car\x00', Code.CONTROL_CHARACTERS),
        ('wo ist der wagen', Code.UNKNOWN_WORDS),
        ('哪里有车', Code.UNKNOWN_WORDS),
        ('<box> <box>', Code.UNKNOWN_WORDS),
        ('</s> <answer>', Code.UNKNOWN_WORDS),
        ('asdf qwer where', Code.UNKNOWN_WORDS),
    ],
)
def test_what_is_no_question_gets_no_box(asker, text, code):
    found = answer(asker, driven(), text)
    assert not found.success and found.why_not.code is code and found.text == CANNOT_TELL
    assert not found.boxes and not found.track and found.mask is None and found.span_ns is None


def test_an_empty_memory_says_why_it_is_empty(asker):
    memory = SceneMemory(QUERIES, FRAMES)
    found = answer(asker, memory, 'where is the car')
    assert found.why_not.code is Code.NOTHING_REMEMBERED and 'no frame' in str(found.why_not)
    memory = driven()
    memory.reset(Reason(Code.GAP_BETWEEN_FRAMES, '4 s'))
    found = answer(asker, memory, 'where is the car')
    assert 'gap between frames: 4 s' in str(found.why_not)


def test_a_deadline_stops_it_between_two_words(asker):
    calls = iter([True] * 3 + [False] * 99)
    found = answer(asker, driven(), 'where is the car', lambda: next(calls))
    assert found.why_not.code is Code.DEADLINE_PASSED and not found.boxes
    assert next(calls) is False


def test_words_that_are_not_likely_are_none(tmp_path):
    directory = write_tiny_asking(tmp_path / 'unsure', tasks=tasks(least_word=1.0))
    found = answer(OnnxAsker(Manifest.load(directory)), driven(), 'where is the car')
    assert found.why_not.code is Code.UNSURE and not found.boxes


# -- memory


def test_frames_are_half_a_second_apart_and_the_last_is_the_newest():
    memory = SceneMemory(QUERIES, FRAMES)
    for index in range(31):  # at 10 Hz
        pose = rigid_from_yaw(0.0, (index * 0.1, 0.0, 0.0))
        memory.observe(index * SECOND_NS // 10, pose, pose, outputs(), {})
        stamps = [frame.stamp_ns for frame in memory.view().frames]
        assert stamps[-1] == index * SECOND_NS // 10
        gaps = np.diff(stamps) / SECOND_NS
        assert len(gaps) == 0 or (gaps[:-1] == 0.5).all() and 0.1 <= gaps[-1] <= 0.75
    assert memory.state() == (7, 3.0)


def test_memory_ends_after_20_seconds_and_is_bounded():
    memory = SceneMemory(QUERIES, 41)
    sizes = []
    for index in range(100):
        memory.observe(index * SECOND_NS // 2, np.eye(4), np.eye(4), outputs(), {})
        sizes.append(memory.size_bytes())
    frames = memory.view().frames
    assert len(frames) == 41 and frames[-1].stamp_ns - frames[0].stamp_ns == 20 * SECOND_NS
    assert sizes[40] == sizes[-1]


def test_what_stands_still_stays_where_it_is_as_seen_from_now():
    inputs = driven(frames=6).view().inputs
    x = inputs.boxes[0, :, 0, 0]
    np.testing.assert_allclose(x, x[-1], atol=1e-5)
    np.testing.assert_allclose(inputs.ego[0, :, 0], 0.4, atol=1e-6)  # 4 m/s
    np.testing.assert_allclose(inputs.ego[0, :, 2] * 51.2, np.arange(-10.0, 1.0, 2.0), atol=1e-5)


# -- manifest


def test_a_model_without_heads_has_no_asker(tmp_path):
    manifest = Manifest.load(write_tiny_model(tmp_path / 'plain'))
    assert manifest.tasks is None
    with pytest.raises(ManifestError, match='no tasks'):
        OnnxAsker(manifest)


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'heads': {}}, 'tasks.heads'),
        ({'heads': {'smell': 3}}, 'tasks.heads'),
        ({'heads': {'region': len(WORDS)}}, 'tasks.heads.region'),
        ({'memory': 0}, 'tasks.memory'),
        ({'objects': 'many'}, 'tasks.objects'),
        ({'language': {'width': 2}}, 'tasks.language.layers'),
        ({'least_word': float('nan')}, 'tasks.least_word'),
    ],
)
def test_tasks_that_cannot_be_are_refused(tmp_path, changes, words):
    with pytest.raises(ManifestError, match=words):
        Manifest.load(write_tiny_asking(tmp_path / 'bad', tasks=tasks(**changes)))


@pytest.mark.parametrize(
    'changes, words', [({'objects': 4}, 'ask_prefix'), ({'frame_width': 3}, '"frames"')]
)
def test_graphs_of_other_sizes_are_refused(tmp_path, changes, words):
    directory = write_tiny_asking(tmp_path / 'bad', tasks=tasks(**changes))
    with pytest.raises(ManifestError, match=words):
        OnnxAsker(Manifest.load(directory))


def test_files_of_the_heads_are_held_against_their_hashes(tmp_path):
    directory = write_tiny_asking(tmp_path / 'model')
    (directory / 'ask_mask.onnx').write_bytes(b'something else')
    with pytest.raises(ManifestError, match='ask_mask.onnx has sha256'):
        Manifest.load(directory)
    values = yaml.safe_load((directory / 'manifest.yaml').read_text())
    del values['files']['ask_mask.onnx']
    (directory / 'manifest.yaml').write_text(yaml.safe_dump(values))
    with pytest.raises(ManifestError, match='files has no ask_mask.onnx'):
        Manifest.load(directory)

"""A TaskModel as graphs: what torch says, for any number of frames, and a manifest for it."""

from asking_models import FRAMES, OBJECTS, untrained, write_detector
import pytest
import yaml

from mta_perception.answers import SceneInputs
from mta_perception.model.asking import TASK_WORDS
from mta_perception.model.config import MtaConfig
from mta_perception.runtime import task_spec
from mta_perception.runtime.asking import OnnxAsker
from mta_perception.runtime.manifest import Manifest, ManifestError
from mta_training.export.task_graphs import MOST_APART, add_tasks, example_scene, task_parity

MODEL = MtaConfig.toy()


def test_heads_have_the_same_words_in_training_and_in_the_node():
    assert task_spec.TASK_WORDS == TASK_WORDS


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """(model directory, TaskModel, LanguageModel, Vocabulary, graph -> difference)."""
    folder = tmp_path_factory.mktemp('asking')
    tasks, language, vocabulary = untrained(MODEL)
    apart = add_tasks(
        tasks,
        language,
        vocabulary,
        MODEL,
        write_detector(folder / 'plain', MODEL),
        folder / 'asks',
    )
    return folder / 'asks', tasks, language, vocabulary, apart


@pytest.mark.slow
def test_graphs_say_what_torch_says(exported):
    apart = exported[-1]
    print({name: f'{value:.1e}' for name, value in apart.items()})
    assert set(apart) == {'prefix', 'language', 'region', 'temporal', 'mask', 'track'}
    assert max(apart.values()) < MOST_APART


@pytest.mark.slow
def test_other_weights_are_found(exported):
    directory, _, language, _, _ = exported
    other, _, _ = untrained(MODEL, seed=1)
    with pytest.raises(ValueError, match='differ by'):
        task_parity(other, language, MODEL, directory)


@pytest.mark.slow
def test_every_head_answers_where_its_token_is_said(exported):
    directory, _, language, vocabulary, _ = exported
    asker = OnnxAsker(Manifest.load(directory))
    scene = {k: v.numpy() for k, v in example_scene(MODEL, OBJECTS, FRAMES, seed=5).items()}
    scene = SceneInputs(boxes=scene['own_boxes'], **scene)
    raw = asker('where is the red car ?', scene)
    assert 0 <= raw.word_score <= 1 and '<' not in raw.text
    assert asker.fault('where is the red car?') is None
    assert asker.fault('wo ist der rote wagen').code.name == 'UNKNOWN_WORDS'


@pytest.mark.slow
def test_a_manifest_that_does_not_fit_its_graphs_is_refused(exported, tmp_path):
    directory = exported[0]
    for key, value, words in (
        ('objects', 13, 'ask_prefix.onnx'),
        ('frame_width', 33, 'frames'),
        ('heads', {'region': 10_000}, 'tasks.heads.region'),
        ('heads', {'smell': 3}, 'tasks.heads'),
        ('least_word', 2.0, 'from 0 to 1'),
    ):
        copy = tmp_path / f'{key}_{words}'
        copy.mkdir()
        for path in directory.iterdir():
            (copy / path.name).symlink_to(path)
        values = yaml.safe_load((directory / 'manifest.yaml').read_text())
        values['tasks'][key] = value
        (copy / 'manifest.yaml').unlink()
        (copy / 'manifest.yaml').write_text(yaml.safe_dump(values))
        with pytest.raises(ManifestError, match=words):
            OnnxAsker(Manifest.load(copy))


@pytest.mark.slow
def test_a_changed_file_is_refused(exported, tmp_path):
    directory = exported[0]
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / 'ask_region.onnx').write_bytes(b'another graph')
    with pytest.raises(ManifestError, match='sha256'):
        Manifest.load(tmp_path)

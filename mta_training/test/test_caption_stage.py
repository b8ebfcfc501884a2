"""The last stage changes captions and nothing else."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from toy_scenes import toy_scene
from training_cases import silent, small_recipe, toy_scenes

from mta_training.data.batches import Place, make_batch
from mta_training.language.text_embeddings import CaptionEmbeddings
from mta_training.runs import run_directory
from mta_training.training import loop
from mta_training.training.caption_stage import finish_captions, seen_objects
from mta_training.training.learner import Learner


@pytest.fixture(scope='module')
def scenes():
    return toy_scenes()


@pytest.fixture(scope='module')
def finished(scenes, tmp_path_factory):
    """A run of four steps, and the same with captions finished."""
    runs = []
    for steps in (0, 20):
        runs.append(tmp_path_factory.mktemp('run'))
        recipe = small_recipe(
            schedule={'steps': 4},
            caption_steps=steps,
            alignment={'dca': 'clip'},
            language={'pretrain_steps': 200},
        )
        for name in ('tokenizer.json', 'language.pt') if len(runs) > 1 else ():
            shutil.copy(runs[0] / name, runs[1] / name)  # not made twice
        loop.run(
            scenes,
            ['any'],
            runs[-1],
            recipe,
            threads=1,
            say=silent,
            evaluate=lambda *_: {'mAP': 0.1, 'NDS': 0.2},
        )
    return [run_directory.load_run(run) for run in runs]


def test_the_best_checkpoint_has_the_captions_too(scenes, tmp_path):
    """Where the last detector is the best one."""
    recipe = small_recipe(schedule={'steps': 2}, caption_steps=3)
    loop.run(
        scenes,
        ['any'],
        tmp_path,
        recipe,
        threads=1,
        say=silent,
        evaluate=lambda *_: {'mAP': 0.1, 'NDS': 0.2},
    )
    assert torch.get_num_threads() == 1  # as asked for, in the last stage too
    last, best = (run_directory.read_checkpoint(tmp_path, which) for which in ('last', 'best'))
    assert all(torch.equal(value, best['model'][name]) for name, value in last['model'].items())


def test_a_finished_run_that_is_resumed_does_not_repeat_them(scenes, tmp_path):
    """Nothing is learned twice; a recipe that asks for more gets the rest."""
    recipe, states, said = small_recipe(schedule={'steps': 2}, caption_steps=3), [], []
    for steps in (3, 3, 5):
        recipe = recipe.changed({'caption_steps': steps})
        resume = (tmp_path / 'last.pt').is_file()
        loop.run(scenes, [], tmp_path, recipe, resume=resume, threads=1, say=said.append)
        states.append(run_directory.read_checkpoint(tmp_path))
    assert sum('objects seen' in line for line in said) == 2
    first, second, third = (state['learner']['model.qformer.prefix.weight'] for state in states)
    assert torch.equal(first, second) and not torch.equal(second, third)
    assert [state['caption_steps'] for state in states] == [3, 3, 5]


def test_the_detector_and_the_language_model_stay_and_the_captioner_learns(finished):
    before, after = (loaded.model.state_dict() for loaded in finished)
    for name, value in before.items():
        same = torch.equal(value, after[name])
        assert same or not name.startswith('detector.'), name
    assert not torch.equal(before['qformer.prefix.weight'], after['qformer.prefix.weight'])
    one, two = (loaded.language.runtime_model().state_dict() for loaded in finished)
    for name, value in one.items():
        assert torch.equal(value, two[name]) != ('adapter' in name), name


def test_the_loss_goes_down(finished, scenes, tmp_path):
    """With both alignments on; they go on in this stage."""
    loaded = finished[0]
    recipe = loaded.recipe.changed({'alignment': {'bla': 'mse', 'dca': 'clip'}})
    texts = [text for scene in scenes for frame in scene.captions for text in frame]
    learner = Learner(
        loaded.model, loaded.language, recipe, CaptionEmbeddings.of(texts, 'minilm', tmp_path)
    )
    losses = []
    for steps in (1, 80):
        losses.append(
            finish_captions(
                learner, scenes, steps, frames=12, batch=16, learning_rate=2e-3, log_line=silent
            )
        )
    assert losses[1] < 0.7 * losses[0]


def test_what_is_learned_from_is_what_the_detector_sees(finished, scenes):
    model = finished[1].model
    seen, true = seen_objects(_learner(finished[1]), scenes[:1], 1, np.random.default_rng(0))
    counts = {len(frame) for frame in scenes[0].captions}
    assert len(true) == len(seen.texts) == len(seen.codes) and len(true) in counts
    frames = [
        index
        for index, boxes in enumerate(scenes[0].boxes)
        if torch.isin(true[:, 0], torch.from_numpy(boxes[:, 0])).all()
    ]
    batch = make_batch(scenes[:1], [Place(0, frames[0], False)])
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        result = model.detector(
            batch.images,
            batch.image_from_ego,
            batch.camera_mask,
            torch.zeros(1, *model.detector.memory_shape),
            batch.history_valid,
            batch.ego_prev_from_ego_now,
        )
    read = model.qformer.read_bev(true, result.bev[0].float())
    torch.testing.assert_close(seen.read.float(), read, atol=2e-2, rtol=1e-2)


def test_scenes_without_captions_are_named(finished):
    scene = toy_scene(finished[0].recipe.model, frames=2)
    mute = scene._replace(captions=[[''] * len(frame) for frame in scene.captions])
    with pytest.raises(ValueError, match='has a caption'):
        seen_objects(_learner(finished[0]), [mute], 2, np.random.default_rng(0))


def _learner(loaded):
    return Learner(loaded.model, loaded.language, loaded.recipe)

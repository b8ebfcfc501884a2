"""Recipes: round trip, YAML, and errors that name the value."""

import pytest

pytest.importorskip('torch', reason='torch is only in the training environment')

from mta_training.runs.recipe import Recipe
from mta_training.training.train import Progress, learning_rate

NAMES = ('nano', 'nano_joint', 'paper', 'smoke')


@pytest.mark.parametrize('name', NAMES)
def test_there_and_back(name):
    recipe = Recipe.load(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_the_paper_is_the_papers():
    """MTA section 4: ten epochs, 2e-4, weights 10, 1, 1, 0.01, eight blocks, BLA at the fourth."""
    recipe = Recipe.load('paper')
    assert recipe.schedule.epochs == 10 and recipe.schedule.learning_rate == 2e-4
    weights = recipe.weights
    assert (weights.detection, weights.language, weights.bla, weights.dca) == (10, 1, 1, 0.01)
    assert recipe.model.qformer.layers == 8 and recipe.bla_layer == 3
    assert (recipe.alignment.bla, recipe.alignment.dca) == ('mse', 'clip')


def test_a_yaml_file_changes_values(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(
        'base: nano_joint\nschedule: {epochs: 2}\nalignment:\n  bla_layer: -1\n'
        'model: {qformer: {layers: 6}}\n'
    )
    recipe = Recipe.load(str(path))
    assert recipe.schedule.epochs == 2 and recipe.schedule.steps == 0
    assert recipe.bla_layer == 5 and recipe.model.qformer.layers == 6
    assert recipe.schedule.freeze_norm  # the rest is the base's


@pytest.mark.parametrize(
    'text, words',
    [
        ('base: nano\nalignment: {blaa: mse}', 'alignment.blaa'),
        ('base: nano\nalignment: {bla: l1}', "bla='l1'; choose one of off, mse, cosine, clip"),
        ('base: nano\nalignment: {bla_layer: 9}', 'the Q-Former has 4 blocks'),
        ('base: nano\nschedule: {steps: 3, minutes: 2}', 'give just one of them'),
        ('base: nano\nschedule: {steps: many}', 'schedule.steps'),
        ('base: nano\nmodel: {bev: {heads: 3}}', 'bev.heads=3'),
        ('base: nano\nmodel: {qformer: {bev: shared, bev_stride: 7}}', 'bev_stride=7'),
        ('base: huge', 'nano, nano_joint, paper, smoke'),
        ('- 1\n- 2', 'expected names and values'),
        ('base: [', 'no YAML'),
        ('base: nano\ncaptions: {missing: 1.5}', 'missing=1.5'),
    ],
)
def test_bad_files_are_named(text, words, tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        Recipe.load(str(path))
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_no_such_recipe():
    with pytest.raises(ValueError, match='no file and none of nano'):
        Recipe.load('nanno')


def test_schedules():
    schedule = Recipe.load('paper').schedule
    progress = Progress(schedule, frames=800)
    assert progress.steps == 1000  # 10 epochs of 800 frames, 8 a step
    assert learning_rate(0.0, schedule) == pytest.approx(0.02 * 2e-4)
    assert learning_rate(schedule.warm_up, schedule) == pytest.approx(2e-4)
    assert learning_rate(1.0, schedule) == pytest.approx(0.01 * 2e-4)
    assert progress.share == 0.0 and progress.left_s is None
    progress.tick()
    assert progress.share == 0.001 and progress.left_s > 0

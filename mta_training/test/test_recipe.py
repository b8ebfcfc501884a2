"""Recipes: round trip, YAML, and errors that name the value."""

import copy
import json

import pytest

pytest.importorskip('torch', reason='torch is only in the training environment')

from mta_training.data.augmentation import Augmentation
from mta_training.runs.recipe import Recipe
from mta_training.tpo.recipe import TpoRecipe
from mta_training.training.schedule import RunProgress, learning_rate

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
        ('base: nano\nschedule: 5', 'schedule'),
        ('base: nano\nmodel: {bev: [1]}', 'model.bev'),
        ('base: nano\nalignment: {bla: l1}', "bla='l1'; choose one of off, mse, cosine, clip"),
        ('base: nano\nalignment: {bla_layer: 9}', 'the Q-Former has 4 blocks'),
        ('base: nano\nschedule: {steps: 3, minutes: 2}', 'give just one of them'),
        ('base: nano\nschedule: {steps: many}', 'schedule.steps'),
        ('base: nano\nmodel: {bev: {heads: 3}}', 'bev.heads=3'),
        ('base: nano\nmodel: {qformer: {bev: shared, bev_stride: 7}}', 'bev_stride=7'),
        ('base: huge', 'nano, street, nano_joint, mta, paper, smoke'),
        ('- 1\n- 2', 'expected names and values'),
        ('base: [', 'no YAML'),
        ('base: nano\ncaptions: {missing: 1.5}', 'missing=1.5'),
        ('base: nano\naugmentation: {grid_mask: 7}', 'grid_mask=7'),
        ('base: nano\naugmentation: {swirl: true}', 'augmentation.swirl'),
        ('base: nano\nschedule: {curve: step}', "curve='step'; choose cosine or bevformer"),
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


def test_what_is_wired_is_on_in_the_paper_and_off_in_nano():
    """BEVFormer's augmentation, groups and queues; and nano's as they always were."""
    nano, paper = Recipe.load('nano'), Recipe.load('paper')
    assert paper.augmentation == Augmentation(False, 0.0, photometric=True, grid_mask=0.7)
    assert (paper.schedule.history, paper.schedule.skip_empty) == ('queue', True)
    assert (paper.schedule.backbone_rate, paper.schedule.frozen_stages) == (0.1, 1)
    assert nano.augmentation == Augmentation(True, 0.15, photometric=False, grid_mask=0.0)
    assert (nano.schedule.frozen_stages, nano.schedule.offsets_rate) == (-1, 0.3)


def test_a_recipe_of_before_a_setting_existed_means_what_it_did_then():
    """Runs made before `augmentation` was a setting had nano's, also with the name `paper`."""
    values = Recipe.load('paper').to_dict()
    del values['augmentation']
    for name in ('frozen_stages', 'offsets_rate', 'decay_all', 'curve', 'skip_empty'):
        del values['schedule'][name]
    old, nano = Recipe.from_dict(values), Recipe.load('nano')
    assert old.augmentation == nano.augmentation and old.schedule.curve == 'cosine'
    assert old.schedule.offsets_rate == 0.3 and not old.schedule.skip_empty


def test_schedules():
    schedule = Recipe.load('nano').changed({'schedule': {'epochs': 10, 'batch': 8}}).schedule
    progress = RunProgress(schedule, frames=800)
    assert progress.steps == 1000  # 10 epochs of 800 frames, 8 a step
    assert learning_rate(schedule, 0.0, 0) == pytest.approx(0.02 * 8e-4)
    assert learning_rate(schedule, schedule.warm_up, 50) == pytest.approx(8e-4)
    assert learning_rate(schedule, 1.0, 1000) == pytest.approx(0.01 * 8e-4)
    assert progress.share == 0.0 and progress.left_s is None
    progress.tick()
    assert progress.share == 0.001 and progress.left_s > 0


BAD = (
    0,
    -1,
    0.5,
    1e300,
    10**29,
    float('inf'),
    float('nan'),
    True,
    None,
    'x',
    '',
    [],
    [1],
    {'a': 1},
)


def places(value, place=()):
    """Where the values of nested dicts and lists are, and these themselves."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        if isinstance(one, (dict, list)):
            yield from places(one, (*place, key))
        yield *place, key


def put(values, place, value):
    values = copy.deepcopy(values)
    part = values
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return values


@pytest.mark.parametrize(
    'kind, name',
    [
        (Recipe, 'nano'),
        pytest.param(Recipe, 'paper', marks=pytest.mark.slow),
        (TpoRecipe, 'tpo_nano'),
    ],
)
def test_every_value_is_taken_or_refused(kind, name):
    """Nothing but a ValueError, whatever stands in a recipe."""
    whole = json.loads(json.dumps(getattr(kind, name)().to_dict()))
    for place in places(whole):
        for bad in BAD:
            try:
                kind.from_dict(put(whole, place, bad))
            except ValueError as error:
                assert len(str(error)) < 5000, (place, bad)
            except Exception as error:
                raise AssertionError(f'{place} = {bad!r}') from error

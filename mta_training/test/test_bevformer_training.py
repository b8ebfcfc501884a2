"""What of BEVFormer's published training the recipe `paper` has: rates, queues, frozen stages."""

from dataclasses import replace
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from small_bevformer import drives, small_config, small_model, small_trainer
from training_cases import small_recipe

from mta_perception.model.config import MtaConfig
from mta_perception.model.mta_model import MtaModel
from mta_training.data.batches import QueueStream, choose
from mta_training.runs.recipe import Recipe
from mta_training.training.schedule import freeze_backbone, learning_rate, make_optimizer
from mta_training.training.trainer import make_stream

CONFIG = small_config()


@pytest.fixture(scope='module')
def scenes():
    return drives(CONFIG)


@pytest.fixture(scope='module')
def tiny():
    """MTA on BEVFormer tiny, its captioner at toy size."""
    toy = MtaConfig.toy()
    qformer = replace(toy.qformer, bev='shared')
    return MtaModel(
        replace(MtaConfig.bevformer('tiny_official'), qformer=qformer, language=toy.language)
    )


def test_one_of_three_is_dropped_evenly():
    rng = np.random.default_rng(0)
    drawn = [tuple(choose(10, rng)) for _ in range(3000)]
    counts = {queue: drawn.count(queue) for queue in set(drawn)}
    assert set(counts) == {(7, 8, 10), (7, 9, 10), (8, 9, 10)}
    assert all(900 < count < 1100 for count in counts.values())


def test_queues_stop_at_the_first_frame():
    rng = np.random.default_rng(0)
    assert {tuple(choose(0, rng)) for _ in range(20)} == {(0, 0, 0)}
    assert {tuple(choose(2, rng)) for _ in range(99)} == {(0, 0, 2), (0, 1, 2)}


def test_queues_with_an_empty_frame_are_drawn_again(scenes):
    empty = [scene._replace(boxes=list(scene.boxes)) for scene in scenes]
    empty[0].boxes[3] = np.zeros((0, 10), np.float32)
    far = empty[1].boxes[0].copy()
    far[:, 0] = 70.0  # objects out of range are no objects
    empty[1].boxes[0] = far
    recipe = small_recipe(schedule={'history': 'queue', 'skip_empty': True})
    stream, same = (make_stream(empty, recipe, 51.2) for _ in range(2))
    drawn = [queue for _ in range(60) for queue in stream.step()]
    assert not {(0, 3), (1, 0)} & {(place.scene, place.frame) for q in drawn for place in q}
    assert drawn == [queue for _ in range(60) for queue in same.step()]
    every = make_stream(empty, recipe.changed({'schedule': {'skip_empty': False}}), 51.2)
    seen = {(q[-1].scene, q[-1].frame) for _ in range(6) for q in every.step()}
    assert {(0, 3), (1, 0)} <= seen


def test_nothing_to_learn_is_said():
    stream = QueueStream([3], slots=1, empty=[(0, frame) for frame in range(3)])
    with pytest.raises(ValueError, match='3 of 3 frames have none'):
        stream.step()


def test_squares_are_cut_from_the_present_alone(scenes, tmp_path):
    """What the backbone sees: whole images twice in evaluation mode, then masked ones."""
    trainer = small_trainer(
        tmp_path,
        scenes,
        small_model(),
        augmentation={'grid_mask': 1.0, 'photometric': True},
        schedule={'history': 'queue', 'batch': 2},
    )
    network, seen = trainer.learner.model.detector.network, []
    network.backbone.register_forward_pre_hook(
        lambda _, given: seen.append(
            (network.training, float((given[0] == 0).all(1).float().mean()))
        )
    )
    trainer.learner.train()
    trainer.accumulate(share=0.0)
    padding = 1.0 - CONFIG.image.content_height / CONFIG.image.height
    assert [row[0] for row in seen] == [False, False, True]
    assert seen[0][1] == seen[1][1] == pytest.approx(padding)
    assert seen[2][1] > padding + 0.05


def test_gradient_reaches_every_parameter(scenes, tmp_path):
    trainer = small_trainer(
        tmp_path, scenes, small_model(), schedule={'history': 'queue', 'batch': 4}
    )
    trainer.batches.stream.order = [4, 9, 3, 8]  # neither is the first of its scene
    trainer.learner.train()
    trainer.accumulate(share=0.0)
    for name, parameter in trainer.learner.model.detector.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_a_broken_gradient_ends_the_run_before_it_reaches_the_weights(scenes, tmp_path):
    trainer = small_trainer(tmp_path, scenes, small_model(), schedule={'batch': 1})
    weight = trainer.learner.model.detector.network.decoder.start.weight
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: gradient * float('nan'))
    with pytest.raises(FloatingPointError, match='gradient of norm nan at step 1'):
        trainer.step()
    assert torch.equal(weight, before)


def test_the_published_groups(tiny):
    """Backbone at a tenth of the rate, its stem, first stage and norms frozen; decay for all."""
    schedule, backbone = Recipe.paper().schedule, tiny.detector.backbone
    freeze_backbone(backbone, schedule)
    groups = {group['rate']: group for group in make_optimizer(tiny, schedule).param_groups}
    assert set(groups) == {1.0, 0.1}
    assert all(group['weight_decay'] == 0.01 for group in groups.values())
    slow = {id(parameter) for parameter in groups[0.1]['params']}
    names = {name for name, parameter in backbone.named_parameters() if id(parameter) in slow}
    frozen = {name for name, _ in backbone.named_parameters()} - names
    assert {'conv1.weight', 'layer1.0.conv2.weight', 'layer4.2.bn3.bias'} <= frozen
    assert {'layer2.0.conv1.weight', 'layer4.2.conv3.weight'} <= names
    assert not any('layer1' in name or 'bn' in name for name in names)
    trained = [parameter for parameter in tiny.parameters() if parameter.requires_grad]
    assert sum(len(group['params']) for group in groups.values()) == len(trained)


def test_stages_that_start_at_random_are_not_frozen():
    model = MtaModel(MtaConfig.toy())
    with pytest.raises(ValueError, match='norms that learn'):
        freeze_backbone(model.detector.backbone, Recipe.paper().schedule)


def slow_rate(step, epochs, steps_an_epoch):
    """As the published code's schedule (cosine with warm-up) is written down."""
    if epochs:
        progress, last = step // steps_an_epoch, epochs
    else:
        progress, last = step, 24 * steps_an_epoch
    rate = 1e-3 + 0.5 * (1 - 1e-3) * (1 + math.cos(math.pi * progress / last))
    if step < 500:
        rate *= 1 - (1 - step / 500) * (1 - 1 / 3)
    return 2e-4 * rate


@pytest.mark.parametrize('epochs', [24, 0])
def test_rates(epochs):
    """Once an epoch, as published; at every step where the run's length is given in steps."""
    length = {'epochs': 24.0} if epochs else {'steps': 24 * 3517, 'epochs': 0.0}
    schedule = replace(Recipe.paper().schedule, **length)
    for step in [*range(0, 600, 37), 3516, 3517, 40000, 24 * 3517 - 1]:
        rate = learning_rate(schedule, step / (24 * 3517), step)
        assert rate == pytest.approx(slow_rate(step, epochs, 3517)), step
    assert learning_rate(schedule, 0.0, 0) == pytest.approx(2e-4 / 3)
    assert learning_rate(schedule, 1.0, 24 * 3517) == pytest.approx(2e-7)

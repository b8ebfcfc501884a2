"""Queues, history, gradients and rates of BEVFormer's training."""

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from small_bevformer import drives, small_config, small_model

from mta_perception.geometry import invert_rigid, rigid_from_yaw
from mta_perception.model.bevformer import BEVFormer, History
from mta_perception.model.bevformer.history import displacement
from mta_training.bevformer import training_step
from mta_training.bevformer.augmentation import GridMask
from mta_training.bevformer.optimiser import Schedule, descend, freeze_first_stages, make_optimiser
from mta_training.bevformer.queue import QueueSet, absolute_can_bus
from mta_training.bevformer.step import remember
from mta_training.data.batches import choose
from mta_training.losses.bevformer import detection_loss
from mta_training.losses.bevformer_codes import LIDAR_FROM_EGO

CONFIG = small_config()
torch.set_num_threads(1)


@pytest.fixture(scope='module')
def scenes():
    return drives(CONFIG)


@pytest.fixture(scope='module')
def queues(scenes):
    return QueueSet(scenes, CONFIG)


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


def test_can_bus_of_a_pose():
    pose = rigid_from_yaw(-0.5, (600.0, 1600.0, 0.3))
    vector = absolute_can_bus(pose)
    assert vector.dtype == torch.float64 and vector.shape == (18,)
    assert vector[:3].tolist() == [600.0, 1600.0, 0.3]
    np.testing.assert_allclose(vector[3:7], [math.cos(-0.25), 0, 0, math.sin(-0.25)], atol=1e-12)
    assert (vector[7:16] == 0).all()
    assert float(vector[16]) == pytest.approx(2 * math.pi - 0.5)
    assert float(vector[17]) == pytest.approx(360.0 - math.degrees(0.5))
    motion = np.arange(9.0)
    assert absolute_can_bus(pose, motion)[7:16].tolist() == motion.tolist()


def test_deltas_are_against_the_kept_frame_before(scenes, queues):
    """A point that stands, moved by what can_bus says, is where the frame before saw it."""
    frames, _ = queues.batch([[1, 3, 4], [0, 2, 5]])
    for position, before, now in ((1, (1, 0), (3, 2)), (2, (3, 2), (4, 5))):
        vector = frames[position].ego.can_bus
        for row in range(2):
            poses = [scenes[0].world_from_ego[index[row]] for index in (before, now)]
            moved = poses[1][:3, 3] - poses[0][:3, 3]
            np.testing.assert_allclose(vector[row, :3], moved, atol=1e-9)
            ahead = (invert_rigid(poses[1])[:3, :3] @ moved)[:2]  # ego axes, x forward
            np.testing.assert_allclose(displacement(vector)[row], [-ahead[1], ahead[0]], atol=1e-9)
            turned = math.degrees(math.atan2(*(invert_rigid(poses[0]) @ poses[1])[[1, 0], 0]))
            assert float(vector[row, 17]) == pytest.approx(turned, abs=1e-9)
    assert (frames[0].ego.can_bus[:, :3] == 0).all() and (frames[0].ego.can_bus[:, 17] == 0).all()


def test_another_scene_ends_the_history(queues):
    frames, targets = queues.batch([[4, 5, 6], [3, 4, 5], [5, 6, 8]])
    assert [frame.continues.tolist() for frame in frames] == [
        [False] * 3,
        [True, True, False],
        [False, True, True],
    ]
    jump = frames[2].ego.can_bus[0]
    assert (jump[:3] == 0).all() and jump[17] == 0
    assert targets[0] is queues.targets[6]


def test_a_first_frame_continues_itself(queues):
    """As published: the index stops at 0, and the frame there is its own history."""
    frames, _ = queues.batch([[0, 0, 1]])
    assert frames[1].continues.tolist() == [True]
    assert (frames[1].ego.can_bus[0, :3] == 0).all()


def test_matrices_project_lidar_points_as_ego_points(scenes, queues):
    frames, _ = queues.batch([[0, 1, 2]])
    point = np.array([9.0, 2.0, 0.5, 1.0])
    for camera in range(6):
        np.testing.assert_allclose(
            frames[2].image_from_lidar[0, camera].double()[:3] @ (LIDAR_FROM_EGO @ point),
            scenes[0].image_from_ego[2, camera] @ point,
            rtol=1e-4,
            atol=1e-3,
        )


def test_queues_with_an_empty_frame_are_refused(scenes):
    empty = [
        scene._replace(boxes=list(scene.boxes), labels=list(scene.labels)) for scene in scenes
    ]
    empty[0].boxes[3] = np.zeros((0, 10), np.float32)
    empty[0].labels[3] = np.zeros(0, np.int64)
    far = empty[1].boxes[0].copy()
    far[:, 0] = 70.0  # objects out of range are no objects
    empty[1].boxes[0] = far
    queues, rng = QueueSet(empty, CONFIG), np.random.default_rng(0)
    assert queues.accept(3, rng) is None and queues.accept(6, rng) is None
    assert queues.accept(2, rng) is not None
    for index in range(12):
        for _ in range(20):
            assert not {3, 6} & set(queues.draw(index, rng))


def test_nothing_to_learn_is_said(scenes):
    bare = [
        scene._replace(
            boxes=[np.zeros((0, 10), np.float32)] * 6, labels=[np.zeros(0, np.int64)] * 6
        )
        for scene in scenes
    ]
    with pytest.raises(ValueError, match='none of the 12 frames of 2 scenes'):
        QueueSet(bare, CONFIG)
    bare[0].boxes[0], bare[0].labels[0] = scenes[0].boxes[0], scenes[0].labels[0]
    alone = QueueSet([bare[1], bare[0]], CONFIG)
    with pytest.raises(ValueError, match='1000 queues in a row'):
        alone.draw(3, np.random.default_rng(0))


def test_light_varies_and_stored_images_do_not(scenes, queues):
    stored = scenes[0].images.copy()
    frames, _ = queues.batch([[0, 1, 2]], np.random.default_rng(0))
    assert all(frame.images.dtype == torch.float32 for frame in frames)  # history as well
    assert not torch.equal(frames[0].images[0], torch.from_numpy(stored[0]).float())
    np.testing.assert_array_equal(scenes[0].images, stored)


def test_history_is_a_chain_in_evaluation_mode(queues):
    """Equal to whole forward passes by hand; mode, statistics and gradients are untouched."""
    model = small_model().train()
    frames, _ = queues.batch([[1, 2, 4], [5, 6, 7]])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    bev = remember(model, frames[:2])
    assert model.training and not bev.requires_grad
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    model.eval()
    with torch.no_grad():
        first = model(frames[0].images, frames[0].image_from_lidar, frames[0].ego).bev
        second = model(
            frames[1].images,
            frames[1].image_from_lidar,
            frames[1].ego,
            History(first, torch.tensor([True, False])),
        ).bev
        alone = model(frames[1].images, frames[1].image_from_lidar, frames[1].ego).bev
    torch.testing.assert_close(bev, second, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bev[1], alone[1], atol=1e-5, rtol=1e-5)
    assert (bev[0] - alone[0]).abs().max() > 1e-3


def test_step_equals_its_parts(queues):
    """In evaluation mode (no dropout) a step is history, one forward pass and the loss."""
    model = small_model().eval()
    frames, targets = queues.batch([[1, 2, 4], [5, 6, 8]])
    mask = GridMask(probability=1.0).draw(64, 96, np.random.default_rng(1))
    loss = training_step(model, frames, targets, mask)
    images = model.normalise(frames[2].images) * torch.from_numpy(mask)
    output = model(
        images,
        frames[2].image_from_lidar,
        frames[2].ego,
        History(remember(model, frames[:2]), torch.tensor([True, True])),
    )
    expected = detection_loss(output, targets, model.code_weights)
    torch.testing.assert_close(loss.total, expected.total)
    whole = training_step(model, frames, targets)
    assert abs(float(whole.total.detach()) - float(loss.total.detach())) > 1e-3


def test_mask_is_for_the_present_alone(queues, monkeypatch):
    """What the backbone sees: whole images twice, then masked ones."""
    model, seen = small_model().train(), []
    model.backbone.register_forward_pre_hook(
        lambda _, given: seen.append(
            (model.training, float((given[0] == 0).all(1).float().mean()))
        )
    )
    frames, targets = queues.batch([[1, 2, 4]])
    mask = np.zeros((64, 96), np.float32)
    training_step(model, frames, targets, mask)
    assert [row[0] for row in seen] == [False, False, True]
    assert seen[0][1] < 0.5 and seen[1][1] < 0.5 and seen[2][1] == 1.0


def test_gradient_reaches_every_parameter_but_not_the_past(queues):
    model = small_model().train()
    frames, targets = queues.batch([[1, 2, 4], [7, 8, 9]], np.random.default_rng(0))
    frames = [
        frame._replace(images=model.normalise(frame.images).requires_grad_()) for frame in frames
    ]
    training_step(model, frames, targets).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name
    assert frames[0].images.grad is None and frames[1].images.grad is None
    assert (frames[2].images.grad != 0).any()


def test_groups_of_the_optimiser():
    model = small_model()
    optimiser = make_optimiser(model)
    rest, slow = optimiser.param_groups
    assert (rest['rate'], slow['rate']) == (2e-4, pytest.approx(2e-5))
    assert rest['weight_decay'] == slow['weight_decay'] == 0.01
    assert {id(p) for p in slow['params']} == {id(p) for p in model.backbone.parameters()}
    assert sum(p.numel() for group in (rest, slow) for p in group['params']) == sum(
        p.numel() for p in model.parameters()
    )


def test_frozen_stages_are_left_out_and_must_be_pretrained():
    from dataclasses import replace

    model = small_model()
    with pytest.raises(ValueError, match='norms that learn'):
        freeze_first_stages(model)
    config = small_config(backbone=replace(CONFIG.backbone, frozen_norm=True))
    model = BEVFormer(config)
    freeze_first_stages(model)
    trained = {id(p) for group in make_optimiser(model).param_groups for p in group['params']}
    names = {name for name, p in model.named_parameters() if id(p) not in trained}
    assert {'backbone.conv1.weight', 'backbone.layer1.0.conv2.weight'} <= names
    assert not any(name.startswith('backbone.layer2.0.conv') for name in names)


def slow_factor(iteration, schedule):
    """As the published code's schedule (cosine with warm-up) is written down."""
    if schedule.by_epoch:
        progress, last = iteration // schedule.iterations, schedule.epochs
    else:
        progress, last = iteration, schedule.epochs * schedule.iterations
    rate = 1e-3 + 0.5 * (1 - 1e-3) * (1 + math.cos(math.pi * progress / last))
    if iteration < 500:
        rate *= 1 - (1 - iteration / 500) * (1 - 1 / 3)
    return rate


@pytest.mark.parametrize('by_epoch', [True, False])
def test_rates(by_epoch):
    schedule = Schedule(by_epoch=by_epoch)
    for iteration in [*range(0, 600, 37), 3516, 3517, 40000, 24 * 3517 - 1]:
        assert schedule.factor(iteration) == pytest.approx(slow_factor(iteration, schedule))
    assert schedule.factor(0) == pytest.approx(1 / 3)
    assert schedule.factor(24 * 3517) == pytest.approx(1e-3)
    constant = schedule.factor(600) == schedule.factor(3000)
    assert constant == by_epoch
    with pytest.raises(ValueError, match='0 epochs'):
        Schedule(epochs=0)


def test_descent_follows_the_factor_and_survives_a_broken_gradient():
    model = small_model()
    optimiser = make_optimiser(model, decay=0.0)
    weight = model.decoder.start.weight
    before = weight.detach().clone()
    loss = 1e6 * (weight * torch.linspace(-1, 1, weight.numel()).view_as(weight)).sum()
    norm = descend(optimiser, loss, 0.5)
    assert norm > 35.0
    # Adam's first step is the rate, whatever the length of the gradient.
    moved = (weight - before).detach().abs()
    assert float(moved.max()) == pytest.approx(1e-4, rel=1e-3)
    assert float(weight.grad.norm()) == pytest.approx(35.0, rel=1e-3)
    before = weight.detach().clone()
    assert math.isnan(descend(optimiser, weight.sum() * float('nan'), 0.5))
    assert torch.equal(weight, before)

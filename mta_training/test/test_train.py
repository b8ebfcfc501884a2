"""The loop learns, resumes exactly, and streams scenes as it says."""

import csv

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from toy_scenes import toy_scene  # noqa: E402

from mta_perception.geometry import invert_rigid  # noqa: E402
from mta_perception.model.config import MtaConfig  # noqa: E402
from mta_perception.model.mta_model import MtaModel  # noqa: E402
from mta_training import train  # noqa: E402
from mta_training.samples import Place, SceneStream, make_batch  # noqa: E402
from mta_training.team import run_team  # noqa: E402

CONFIG = MtaConfig.toy()
torch.set_num_threads(1)              # small tensors: threads only wait for each other


@pytest.fixture(scope='module')
def scenes():
    return [toy_scene(CONFIG, frames=4, objects=8, seed=seed) for seed in range(3)]


def settings(**changes):
    return train.TrainConfig(**{'steps': 8, 'batch': 2, 'language_steps': 10, 'threads': 1,
                                'checkpoint_minutes': 1e-9, 'caption_start': 0.5,
                                'evaluate_minutes': 0, **changes})


def weights_of(run):
    model, _, state = train.load_model(run)
    return torch.cat([value.flatten().double() for value in model.state_dict().values()]), state


def test_stream_walks_each_scene_in_order():
    stream = SceneStream([5, 7, 3], slots=2, longest=4, seed=1)
    before, seen = [None, None], set()
    for _ in range(200):
        places = stream.step()
        for slot, place in enumerate(places):
            assert 0 <= place.frame < [5, 7, 3][place.scene]
            if place.continues:
                assert before[slot].scene == place.scene
                assert before[slot].frame + 1 == place.frame
            seen.add((place.scene, place.frame))
        before = places
    assert seen == {(s, f) for s, n in enumerate([5, 7, 3]) for f in range(n)}


def test_restored_stream_goes_on_alike():
    first = SceneStream([5, 7, 3], slots=2, seed=1)
    for _ in range(7):
        first.step()
    second = SceneStream([5, 7, 3], slots=2, seed=9)
    second.restore(first.state())
    assert [first.step() for _ in range(20)] == [second.step() for _ in range(20)]


def test_batch_moves_standing_objects_with_the_ego(scenes):
    """A point that stands in the world, moved by ego_prev_from_ego_now, is where it was before."""
    batch = make_batch(scenes, [Place(1, 2, True), Place(0, 0, False)])
    assert batch.history_valid.tolist() == [1.0, 0.0]
    assert torch.equal(batch.ego_prev_from_ego_now[1], torch.eye(4))
    point_world = np.array([11.0, -4.0, 0.0, 1.0])
    now, before = (invert_rigid(scenes[1].world_from_ego[frame]) @ point_world for frame in (2, 1))
    np.testing.assert_allclose(batch.ego_prev_from_ego_now[0].numpy() @ now, before, atol=1e-4)
    assert len(batch.captions[0]) == len(batch.targets[0].labels) == len(batch.targets[0].boxes)


def test_random_light_never_touches_the_stored_images(scenes):
    copy = np.array(scenes[0].images)
    rng = np.random.default_rng(0)
    dead = 0
    for _ in range(30):
        batch = make_batch(scenes, [Place(0, 1, False)], rng)
        masked = batch.camera_mask[0] == 0
        assert (batch.images[0][masked] == 0).all()
        dead += int(masked.sum())
    assert 0 < dead < 15
    np.testing.assert_array_equal(copy, scenes[0].images)


def test_resumed_run_ends_with_the_same_weights(scenes, tmp_path):
    train.run(scenes, [], tmp_path / 'whole', settings(), CONFIG, log_line=lambda line: None)

    class Killed(Exception):
        pass


    steps = train.Trainer.step
    count = []

    def counting_step(self):
        if len(count) == 5:
            raise Killed
        count.append(1)
        return steps(self)

    train.Trainer.step = counting_step
    try:
        with pytest.raises(Killed):
            train.run(scenes, [], tmp_path / 'killed', settings(), CONFIG,
                      log_line=lambda line: None)
    finally:
        train.Trainer.step = steps
    with pytest.raises(FileExistsError, match='--resume'):
        train.run(scenes, [], tmp_path / 'killed', settings(), CONFIG)
    train.run(scenes, [], tmp_path / 'killed', settings(), CONFIG, resume=True,
              log_line=lambda line: None)
    whole, first = weights_of(tmp_path / 'whole')
    killed, second = weights_of(tmp_path / 'killed')
    assert first['step'] == second['step'] == 8
    assert float((whole - killed).abs().max()) == 0.0


def test_frozen_language_model_and_log(scenes, tmp_path):
    train.run(scenes, [], tmp_path / 'run', settings(steps=20, caption_start=0.0), CONFIG,
              log_line=lambda line: None)
    model, tokenizer, _ = train.load_model(tmp_path / 'run')
    language = torch.load(tmp_path / 'run' / 'language.pt', weights_only=True)
    for name, value in model.language.state_dict().items():
        assert torch.equal(value, language[name]), name
    with open(tmp_path / 'run' / 'log.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]['step'] == '20' and float(rows[-1]['caption']) > 0
    assert tokenizer.token_to_id('<s>') == 1


def test_few_frames_are_learned_by_heart(tmp_path):
    """Every object of two frames is found within 2 m with its class, and little else."""
    scene = toy_scene(CONFIG, frames=2, objects=6, seed=4)
    train.run([scene], [], tmp_path / 'run',
              settings(steps=120, batch=2, caption_weight=0.0, learning_rate=3e-3,
                       checkpoint_minutes=9.0), CONFIG, log_line=lambda line: None)
    model, _, _ = train.load_model(tmp_path / 'run')
    batch = make_batch([scene], [Place(0, 0, False)])
    memory = torch.zeros(1, *model.detector.bev_encoder.embedding.shape[::-1]).view(1, 32, 20, 20)
    with torch.no_grad():
        result = model.detector(batch.images, batch.image_from_ego, batch.camera_mask, memory,
                                batch.history_valid, batch.ego_prev_from_ego_now)
    scores = result.class_logits[0].sigmoid()
    found = 0
    for box, label in zip(scene.boxes[0], scene.labels[0]):
        near = np.hypot(*(result.boxes[0, :, :2].numpy() - box[:2]).T) < 2.0
        found += bool((scores[torch.tensor(near), label] > 0.3).any())
    assert found >= len(scene.labels[0]) - 1, f'{found} of {len(scene.labels[0])}'
    assert int((scores.max(1).values > 0.3).sum()) < 3 * len(scene.labels[0])


def _two(team, out):
    scenes = [toy_scene(CONFIG, frames=3, objects=6, seed=seed) for seed in range(2)]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trainer = train.Trainer(MtaModel(CONFIG), None, scenes, settings(caption_weight=0.0), team)
    shown = [trainer.step()['loss'] for _ in range(3)]
    trainer.save(out / 'last.pt')
    weights = torch.cat([value.detach().flatten() for value in trainer.model.parameters()])
    torch.save({'weights': weights, 'shown': shown}, out / f'seen-{team.rank}.pt')


def test_two_processes_train_one_model_on_different_frames(tmp_path):
    run_team(2, _two, tmp_path)
    first, second = (torch.load(tmp_path / f'seen-{rank}.pt') for rank in range(2))
    assert torch.equal(first['weights'], second['weights'])
    assert first['shown'] != second['shown']
    assert len(torch.load(tmp_path / 'last.pt', weights_only=False)['members']) == 2

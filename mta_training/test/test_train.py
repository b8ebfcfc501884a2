"""Training: the stream of samples, memorising, and going on exactly after a kill."""

import csv
from dataclasses import replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from toy_scenes import toy_scene
from training_cases import silent, small_recipe, toy_scenes

from mta_perception.geometry import invert_rigid
from mta_training.data.batches import Place, QueueStream, SceneStream, make_batch, slot_generators
from mta_training.losses.described_objects import corrupted
from mta_training.process_group import ProcessGroup
from mta_training.runs import run_directory
from mta_training.training import loop

CASES = Path(__file__).with_name('training_cases.py')


@pytest.fixture(scope='module')
def scenes():
    return toy_scenes()


def test_stream_walks_each_scene_in_order():
    stream = SceneStream([5, 7, 3], slots=2, longest=4, seed=1)
    before, seen = [None, None], set()
    for _ in range(200):
        places = [place for (place,) in stream.step()]
        for slot, place in enumerate(places):
            assert 0 <= place.frame < [5, 7, 3][place.scene]
            if place.continues:
                assert before[slot].scene == place.scene
                assert before[slot].frame + 1 == place.frame
            seen.add((place.scene, place.frame))
        before = places
    assert seen == {(s, f) for s, n in enumerate([5, 7, 3]) for f in range(n)}


def test_queues_end_at_every_frame_once():
    """Two of the three frames before each, in their order; none before the scene's first."""
    stream, lengths, paces = QueueStream([5, 7, 3], slots=3, seed=1), [5, 7, 3], set()
    queues = [queue for _ in range(10) for queue in stream.step()]
    for turn in (queues[:15], queues[15:]):
        assert {(queue[-1].scene, queue[-1].frame) for queue in turn} == {
            (scene, frame) for scene, length in enumerate(lengths) for frame in range(length)
        }
    for queue in queues:
        assert len(queue) == 3 and len({place.scene for place in queue}) == 1
        assert not queue[0].continues
        for before, place in zip(queue, queue[1:]):
            assert place.continues == (place.frame > before.frame)
            if place.continues:
                assert place.frame - place.pace == before.frame
                paces.add(place.pace)
            else:
                assert place.frame == before.frame == 0
    assert paces == {1, 2}


def test_history_of_a_queue_is_what_the_network_at_work_has(scenes, tmp_path):
    """Frame by frame in evaluation mode, moved by how far the car went between the two."""
    recipe = small_recipe(schedule={'history': 'queue'})
    learner, _ = loop.build_learner(tmp_path, scenes, recipe, ProcessGroup())
    queue = [Place(0, 0, False), Place(0, 2, True, 2)]
    moved = make_batch(scenes, queue[1:]).ego_prev_from_ego_now[0].double().numpy()
    poses = scenes[0].world_from_ego
    np.testing.assert_allclose(poses[0] @ moved, poses[2], atol=1e-4)
    bev = learner.model.config.bev
    nothing = torch.zeros(1, bev.channels, bev.cells, bev.cells)
    learner.train()
    buffers = {name: buffer.clone() for name, buffer in learner.named_buffers()}
    found = learner.remember([make_batch(scenes, [place]) for place in queue], nothing)
    assert learner.training and not found.requires_grad
    assert all(torch.equal(value, buffers[name]) for name, value in learner.named_buffers())
    learner.eval()
    memory = nothing
    for place in queue:
        batch = make_batch(scenes, [place])
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            memory = learner.model.detector(
                batch.images,
                batch.image_from_ego,
                batch.camera_mask,
                memory,
                batch.history_valid,
                batch.ego_prev_from_ego_now,
            ).bev
    torch.testing.assert_close(found, memory)
    alone = learner.remember([make_batch(scenes, queue[1:])], nothing)
    assert (found - alone).abs().max() > 1e-3  # the first frame is remembered


@pytest.mark.parametrize('kind', [SceneStream, QueueStream])
def test_restored_stream_goes_on_alike(kind):
    first = kind([5, 7, 3], slots=2, seed=1)
    for _ in range(7):
        first.step()
    second = kind([5, 7, 3], slots=2, seed=9)
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
    dead = 0
    for step in range(30):
        batch = make_batch(scenes, [Place(0, 1, False)], slot_generators(0, step, [0]))
        masked = batch.camera_mask[0] == 0
        assert (batch.images[0][masked] == 0).all()
        dead += int(masked.sum())
    assert 0 < dead < 15
    np.testing.assert_array_equal(copy, scenes[0].images)


def test_a_slot_sees_the_same_whoever_holds_it(scenes):
    places = [Place(0, 1, False), Place(1, 2, True)]
    both = make_batch(scenes, places, slot_generators(5, 3, [0, 1]))
    second = make_batch(scenes, places[1:], slot_generators(5, 3, [1]))
    assert torch.equal(both.images[1], second.images[0])


def in_a_process(folder, out, recipe, resume=False):
    """A training in a Python of its own; returns the Popen."""
    folder.mkdir(exist_ok=True)
    words = folder / f'{out.name}-{resume}.json'
    words.write_text(
        json.dumps(
            {
                'out': str(out),
                'recipe': recipe.to_dict(),
                'resume': resume,
                'text_cache': str(folder),
            }
        )
    )
    return subprocess.Popen(
        [sys.executable, str(CASES), str(words)],
        stderr=subprocess.PIPE,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def curve(run):
    """What log.csv says of each step, but the time."""
    with open(run / 'log.csv', newline='') as file:
        return [
            {name: value for name, value in row.items() if name not in ('minutes', 'waited')}
            for row in csv.DictReader(file)
        ]


def step_of(checkpoint):
    try:
        return torch.load(checkpoint, weights_only=True)['step']
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize(
    'history, steps, kills',
    [('stream', 8, (2, 5)), pytest.param('queue', 6, (2,), marks=pytest.mark.slow)],
)
def test_a_killed_run_goes_on_with_the_same_curve(tmp_path, history, steps, kills):
    """kill -9 wherever it is, resume, kill again: losses, norms and weights are those of a run
    that nobody disturbed."""
    recipe = small_recipe(
        checkpoint_minutes=0.0,
        schedule={'steps': steps, 'history': history},
        alignment={'bla': 'mse', 'dca': 'clip'},
        gradient_norms_every=3,
    )
    whole = in_a_process(tmp_path / 'words', tmp_path / 'whole', recipe)
    assert whole.wait(120) == 0, whole.stderr.read().decode()
    for until in kills:
        resume = until != kills[0]
        child = in_a_process(tmp_path / 'words', tmp_path / 'killed', recipe, resume)
        deadline = time.monotonic() + 120
        while step_of(tmp_path / 'killed' / 'last.pt') < until:
            assert child.poll() is None, child.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
        assert until <= step_of(tmp_path / 'killed' / 'last.pt') < steps
    last = in_a_process(tmp_path / 'words', tmp_path / 'killed', recipe, True)
    assert last.wait(120) == 0, last.stderr.read().decode()
    first, second = curve(tmp_path / 'whole'), curve(tmp_path / 'killed')
    assert [row['step'] for row in first] == [str(step) for step in range(1, steps + 1)]
    assert first == second
    weights = [
        run_directory.read_checkpoint(tmp_path / name)['learner'] for name in ('whole', 'killed')
    ]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    assert (tmp_path / 'killed' / 'curves.png').stat().st_size > 10_000


def test_runs_do_not_overwrite_each_other(scenes, tmp_path):
    recipe = small_recipe(schedule={'steps': 2})
    loop.run(scenes, [], tmp_path / 'run', recipe, threads=1, say=silent)
    with pytest.raises(run_directory.RunError, match='--resume'):
        loop.run(scenes, [], tmp_path / 'run', recipe, threads=1, say=silent)
    other = small_recipe(schedule={'steps': 3}, weights={'bla': 2.0})
    with pytest.raises(run_directory.RunError, match='schedule, weights'):
        loop.run(scenes, [], tmp_path / 'run', other, resume=True, threads=1, say=silent)


def test_a_run_of_before_a_setting_existed_goes_on(scenes, tmp_path):
    """A recipe without the setting means its default."""
    recipe = small_recipe(schedule={'steps': 2})
    loop.run(scenes, [], tmp_path / 'run', recipe, threads=1, say=silent)
    state = run_directory.read_checkpoint(tmp_path / 'run')
    assert state['recipe']['schedule'].pop('history') == 'stream'
    assert state['recipe'].pop('augmentation')['relight']
    torch.save(state, tmp_path / 'run' / 'last.pt')
    loop.run(scenes, [], tmp_path / 'run', recipe, resume=True, threads=1, say=silent)


def test_a_run_of_before_the_pyramid_left_the_backbone_goes_on(scenes, tmp_path):
    """Its tensors had other names; the detector of such a run can start another, too."""
    recipe = small_recipe(schedule={'steps': 2})
    loop.run(scenes, [], tmp_path / 'run', recipe, threads=1, say=silent)
    path = tmp_path / 'run' / 'last.pt'
    state = torch.load(path, weights_only=False)

    def before(name):
        name = name.replace('.pyramid.lateral.', '.backbone.lateral.')
        return name.replace('heads.perspective.', 'perspective.')

    for part in ('learner', 'model'):
        state[part] = {before(name): value for name, value in state[part].items()}
    assert any('.backbone.lateral.' in name for name in state['model'])
    torch.save(state, path)
    loop.run(scenes, [], tmp_path / 'run', recipe, resume=True, threads=1, say=silent)
    started = replace(recipe, start=str(tmp_path / 'run'))
    loop.run(scenes, [], tmp_path / 'next', started, threads=1, say=silent)


def test_frozen_language_model_and_log(scenes, tmp_path):
    recipe = small_recipe(
        schedule={'steps': 20}, alignment={'bla': 'mse', 'dca': 'clip'}, gradient_norms_every=10
    )
    loop.run(scenes, [], tmp_path / 'run', recipe, threads=1, say=silent)
    loaded = run_directory.load_run(tmp_path / 'run')
    frozen = torch.load(tmp_path / 'run' / 'language.pt', weights_only=True)
    now = loaded.language.runtime_model().state_dict()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    gates = [value for name, value in now.items() if name.endswith('adapter_gate')]
    assert gates and all(value.abs() > 0 for value in gates)
    row = curve(tmp_path / 'run')[-1]
    assert row['step'] == '20'
    for name in (
        'language',
        'bla',
        'dca',
        'gradient_detection',
        'gradient_language',
        'gradient_bla',
        'gradient_dca',
        'dca_entropy_boxes',
        'dca_entropy_captions',
    ):
        assert float(row[name]) > 0, name
    assert list((tmp_path / 'run' / 'events').glob('events.*'))


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(scenes, tmp_path, monkeypatch):
    """A full disk, as the operating system reports it: RLIMIT_FSIZE in a process of its own."""
    recipe = small_recipe(checkpoint_minutes=0.0, schedule={'steps': 40})
    words = tmp_path / 'words.json'
    words.write_text(
        json.dumps({'out': str(tmp_path / 'run'), 'recipe': recipe.to_dict(), 'resume': False})
    )
    program = (
        'import resource, signal, sys, threading, time, pathlib\n'
        f'sys.path.insert(0, {str(CASES.parent)!r})\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        f'last = pathlib.Path({str(tmp_path / "run" / "last.pt")!r})\n'
        'def fill():\n'
        '    while not last.exists(): time.sleep(0.005)\n'
        '    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n'
        'threading.Thread(target=fill, daemon=True).start()\n'
        'from training_cases import run_from_file\n'
        f'run_from_file({str(words)!r})\n'
    )
    child = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, timeout=120, text=True
    )
    assert child.returncode == 1 and 'could not be written' in child.stderr, child.stderr[-2000:]
    state = run_directory.read_checkpoint(tmp_path / 'run')
    assert 1 <= state['step'] < 40
    assert not list((tmp_path / 'run').glob('.partial-*'))


def test_a_run_says_what_it_does(scenes, tmp_path, capsys):
    """Also without a terminal: what is to come, and how far each long step is."""
    train_two = small_recipe(schedule={'steps': 2}, caption_steps=2)
    loop.run(scenes, [], tmp_path / 'run', train_two, threads=1)
    said = capsys.readouterr()
    assert said.out.startswith('recipe smoke: 2 steps, 2 frames a step, 3 scenes, 12 keyframes')
    assert 'language model: 100 %, 10 of 10, loss' in said.err
    assert 'training: 100 %, step 2, ' in said.err and 'steps/s, loss' in said.err
    assert 'captions: 100 %, 2 of 2, loss' in said.err


def test_without_any_captions_the_data_is_named(scenes, tmp_path):
    mute = [
        scene._replace(captions=[[''] * len(frame) for frame in scene.captions])
        for scene in scenes
    ]
    with pytest.raises(run_directory.RunError, match='none of the training bags has captions'):
        loop.run(mute, [], tmp_path / 'run', small_recipe(), threads=1, say=silent)


def test_missing_and_wrong_captions_are_drawn_alike_each_time(scenes):
    captions = [scene.captions for scene in scenes]
    flat = [text for scene in captions for frame in scene for text in frame]
    once, again = (corrupted(captions, 0.3, 0.2, seed=1) for _ in range(2))
    assert once == again != corrupted(captions, 0.3, 0.2, seed=2)
    said = [text for scene in once for frame in scene for text in frame]
    assert len(said) == len(flat)
    gone = sum(not text for text in said) / len(flat)
    swapped = sum(bool(text) and text != true for text, true in zip(said, flat)) / len(flat)
    assert 0.2 < gone < 0.4 and 0.1 < swapped < 0.3
    assert corrupted(captions, 0.0, 0.0, seed=1) is captions


def test_a_scene_without_described_objects_trains_on(scenes, tmp_path):
    """Frames whose objects have no captions teach the detector all the same."""
    half = [
        scenes[0],
        scenes[1]._replace(captions=[[''] * len(frame) for frame in scenes[1].captions]),
    ]
    recipe = small_recipe(
        schedule={'steps': 6, 'batch': 1},
        checkpoint_minutes=0.0,
        alignment={'bla': 'mse', 'dca': 'clip'},
    )
    loop.run(half, [], tmp_path / 'run', recipe, threads=1, say=silent)
    rows = curve(tmp_path / 'run')
    counts = [float(row['captions']) for row in rows]
    assert min(counts) == 0.0 < max(counts), counts
    assert all(float(row['detection']) > 0 for row in rows)


def test_few_frames_are_learned_by_heart(tmp_path):
    """Every object of two frames is found within 2 m with its class, and little else."""
    recipe = small_recipe(
        captions={'start': 1.0},
        checkpoint_minutes=9.0,
        schedule={'steps': 120, 'learning_rate': 3e-3},
        weights={'detection': 1.0},
    )
    scene = toy_scene(recipe.model, frames=2, objects=6, seed=4)
    loop.run([scene], [], tmp_path / 'run', recipe, threads=1, say=silent)
    model = run_directory.load_run(tmp_path / 'run').model
    batch = make_batch([scene], [Place(0, 0, False)])
    with torch.no_grad():
        result = model.detector(
            batch.images,
            batch.image_from_ego,
            batch.camera_mask,
            torch.zeros(1, 32, 20, 20),
            batch.history_valid,
            batch.ego_prev_from_ego_now,
        )
    scores = result.class_logits[0].sigmoid()
    found = 0
    for box, label in zip(scene.boxes[0], scene.labels[0]):
        near = np.hypot(*(result.boxes[0, :, :2].numpy() - box[:2]).T) < 2.0
        found += bool((scores[torch.tensor(near), label] > 0.3).any())
    assert found >= len(scene.labels[0]) - 1, f'{found} of {len(scene.labels[0])}'
    assert int((scores.max(1).values > 0.3).sum()) < 3 * len(scene.labels[0])


def test_a_run_starts_from_another_ones_detector(scenes, tmp_path):
    first = small_recipe(schedule={'steps': 3})
    loop.run(scenes, [], tmp_path / 'first', first, threads=1, say=silent)
    second = small_recipe(
        schedule={'steps': 1, 'learning_rate': 1e-12}, start=str(tmp_path / 'first')
    )
    loop.run(scenes, [], tmp_path / 'second', second, threads=1, say=silent)
    one, two = (
        run_directory.read_checkpoint(tmp_path / name)['model'] for name in ('first', 'second')
    )
    for name, value in one.items():
        if name.startswith('detector.') and 'running' not in name and 'num_batches' not in name:
            torch.testing.assert_close(value, two[name], atol=1e-6, rtol=1e-6)
    assert run_directory.read_checkpoint(tmp_path / 'first')['origin'] == {}
    assert run_directory.read_checkpoint(tmp_path / 'second')['origin'] == {
        'detector_from': 'first: 3 steps, 3 scenes, 12 keyframes'
    }
    smaller = second.changed({'model': {'bev': {'channels': 64}}})
    with pytest.raises(ValueError, match='same network'):
        loop.run(scenes, [], tmp_path / 'third', smaller, threads=1, say=silent)
    nowhere = second.changed({'start': str(tmp_path / 'nowhere')})
    with pytest.raises(run_directory.RunError, match='nowhere'):
        loop.run(scenes, [], tmp_path / 'fourth', nowhere, threads=1, say=silent)

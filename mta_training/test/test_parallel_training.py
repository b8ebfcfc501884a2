"""Two processes with half the batch each are one process with the whole batch."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')
pytest.importorskip('accelerate')

from accelerate import Accelerator, DistributedDataParallelKwargs
from training_cases import silent, small_recipe, toy_scenes

from mta_training.process_group import ProcessGroup, gather_rows, run_processes
from mta_training.runs import run_directory
from mta_training.training import loop
from mta_training.training.trainer import Trainer


def _gradients(out, recipe, mute):
    """Gradients of one batch, and the loss of each process; mute: the second half of the batch
    has no captions."""
    accelerator = Accelerator(
        cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )
    processes = ProcessGroup(accelerator.device)
    scenes = toy_scenes(count=4)
    learner, recipe = loop.build_learner(out, scenes, recipe, processes)
    with torch.no_grad():  # gates that are shut hide the adapter
        for name, parameter in learner.named_parameters():
            if name.endswith('adaption_gate'):
                parameter.fill_(0.3)
    if mute:
        scenes = [
            scene
            if index < 2
            else scene._replace(captions=[[''] * len(frame) for frame in scene.captions])
            for index, scene in enumerate(scenes)
        ]
    trainer = Trainer(learner, scenes, recipe, accelerator)
    # Slot i shows scene i, so that the silent half is one process.
    trainer.batches.stream.step = lambda: [
        train_places(slot, recipe.schedule.history) for slot in range(recipe.schedule.batch)
    ]
    trainer.wrapped.train()
    trainer.accumulate(share=1.0)
    torch.save(
        {
            name: parameter.grad
            for name, parameter in learner.named_parameters()
            if parameter.requires_grad
        },
        out / f'gradients-{processes.size}-{processes.rank}.pt',
    )
    torch.save(None, out / f'done-{processes.rank}')


def train_places(slot, history):
    from mta_training.data.batches import Place

    if history == 'stream':
        return (Place(slot, slot % 3, False),)
    return Place(slot, 0, False), Place(slot, 1 + slot % 2, True, 1 + slot % 2)


@pytest.mark.parametrize(
    'bla, dca, mute, history',
    [
        pytest.param('mse', 'clip', False, 'stream', marks=pytest.mark.slow),
        pytest.param('clip', 'mse', False, 'queue', marks=pytest.mark.slow),
        ('clip', 'clip', True, 'stream'),
    ],
)
def test_two_processes_have_the_gradients_of_one(bla, dca, mute, history, tmp_path):
    recipe = small_recipe(
        alignment={'bla': bla, 'dca': dca, 'standard': True, 'oracle': True},
        captions={'box': 'predicted', 'class_gradient': True},
        schedule={'batch': 4, 'bf16': False, 'freeze_norm': True, 'history': history},
        weights={'dca': 1.0},
        # Each term's gradient by itself, too: there also nobody waits for one who has no captions.
        gradient_norms_every=1,
    )
    run_processes(1, _gradients, tmp_path, recipe, mute)
    run_processes(2, _gradients, tmp_path, recipe, mute)
    whole = torch.load(tmp_path / 'gradients-1-0.pt')
    for rank in range(2):
        half = torch.load(tmp_path / f'gradients-2-{rank}.pt')
        assert whole.keys() == half.keys()
        worst = 0.0
        for name, value in whole.items():
            if value is None:
                assert half[name] is None or half[name].abs().max() == 0.0, name
                continue
            size, difference = float(value.norm()), float((value - half[name]).norm())
            worst = max(worst, difference / (size + 1e-6))
            assert difference <= 2e-3 * size + 1e-6, (name, difference, size)
        print(f'rank {rank}: largest relative difference {worst:.1e}')
    for part in (
        'model.detector.',
        'model.qformer.',
        'adaption_prompt',
        'bla.',
        'dca.',
        'oracle.',
    ):
        assert any(
            part in name and value is not None and value.abs().max() > 0
            for name, value in whole.items()
        ), part


def _rows(out):
    Accelerator(cpu=True)
    processes = ProcessGroup()
    own = torch.arange(3.0 * (processes.rank + 1)).view(-1, 3) + 10 * processes.rank
    own.requires_grad_(True)
    rows = gather_rows(own, processes)
    (rows * torch.arange(len(rows)).view(-1, 1)).sum().backward()
    torch.save((own.detach(), rows.detach(), own.grad), out / f'{processes.rank}.pt')


def test_gathered_rows_of_unequal_length_find_their_gradients(tmp_path):
    run_processes(2, _rows, tmp_path)
    (one, rows, first), (two, same, second) = (
        torch.load(tmp_path / f'{rank}.pt') for rank in range(2)
    )
    assert torch.equal(rows, same) and torch.equal(rows, torch.cat([one, two]))
    # Both processes computed the loss: each row's gradient is there twice.
    assert torch.equal(
        torch.cat([first, second]), 2.0 * torch.arange(3.0).view(-1, 1).expand(3, 3)
    )


def _short_run(out, recipe):
    loop.run(toy_scenes(), [], out, recipe, threads=1, say=silent)


def test_a_run_may_be_resumed_by_more_processes(tmp_path):
    recipe = small_recipe(schedule={'steps': 2, 'batch': 4, 'freeze_norm': True, 'bf16': False})
    _short_run(tmp_path, recipe)
    state = run_directory.read_checkpoint(tmp_path)
    assert state['memory'].shape[0] == 4 and len(state['stream']['slots']) == 4
    run_processes(2, _resumed, tmp_path, recipe)
    both = [torch.load(tmp_path / f'memory-{rank}.pt') for rank in range(2)]
    assert torch.equal(torch.cat(both), state['memory'])


def _resumed(out, recipe):
    accelerator = Accelerator(cpu=True)
    processes = ProcessGroup()
    learner, recipe = loop.build_learner(out, toy_scenes(), recipe, processes)
    trainer = Trainer(learner, toy_scenes(), recipe, accelerator)
    trainer.load(out / 'last.pt')
    torch.save(trainer.memory, out / f'memory-{processes.rank}.pt')


@pytest.mark.slow
def test_accelerate_launch_trains_with_two_processes(bags, tmp_path):
    """The documented command, on real bags, with both alignments; and --resume."""
    folder = Path(bags[0]).parent
    command = [
        sys.executable,
        '-m',
        'accelerate.commands.launch',
        '--cpu',
        '--num_processes',
        '2',
        '--num_machines',
        '1',
        '--mixed_precision',
        'no',
        '--dynamo_backend',
        'no',
        '-m',
        'mta_training.commands.cli',
        'train',
        '--config',
        'smoke',
        '--bags',
        str(folder),
        '--out',
        str(tmp_path / 'run'),
        '--steps',
        '2',
        '--threads',
        '1',
    ]
    for more in ([], ['--resume']):
        done = subprocess.run(
            command + more,
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        assert done.returncode == 0, done.stderr[-3000:]
    state = run_directory.read_checkpoint(tmp_path / 'run')
    assert state['step'] == 2 and state['memory'].shape[0] == 2
    assert 'resumed at step 2' in done.stdout
    # What came out of it can be judged: two greedy frames, with a table at the end.
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'mta_training.commands.cli',
            'eval',
            '--run',
            str(tmp_path / 'run'),
            '--checkpoint',
            'last',
            '--bags',
            str(folder),
            '--frames',
            '1',
            '--beams',
            '2',
            '--out',
            str(tmp_path / 'report'),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0 and 'mAP' in done.stdout, done.stderr[-3000:]
    metrics = json.loads((tmp_path / 'report' / 'metrics.json').read_text())
    assert metrics['frames'] == len(bags) and 'tod3cap' in metrics['captions']

"""kill -9 at any moment of a command, then the same command again: it ends well and leaves what an
undisturbed one leaves, byte for byte, and nothing half-written looks whole; full disks; two at
once."""

import hashlib
import json
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys

import pytest
from test_pandaset import write_sequence
import yaml

HERE = Path(__file__).resolve().parent
SYNTH = ('--scenes', '1', '--seed', '3', '--seconds', '1', '--width', '64', '--no-sweeps')
RECIPE = {
    'base': 'smoke',
    'checkpoint_minutes': 0.0,
    'schedule': {'steps': 4},
    'language': {'pretrain_steps': 10},
    'alignment': {'bla': 'off', 'dca': 'off'},
    'gradient_norms_every': 0,
}
# (kills before an event, kills at a moment)
FEW = [pytest.param((1, 1)), pytest.param((20, 20), marks=pytest.mark.slow)]
FEWER = [pytest.param((1, 0)), pytest.param((20, 20), marks=pytest.mark.slow)]


class Nursery:
    """Where kill_cases.py forks the processes that are killed."""

    def __init__(self, *arguments, within=()):
        self.process = subprocess.Popen(
            [*within, sys.executable, str(HERE / 'kill_cases.py'), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                'OMP_NUM_THREADS': '1',
                'GIT_DIR': os.devnull,  # a model card has the revision, which may change meanwhile
                'PYTHONPATH': os.pathsep.join(path for path in sys.path if path),
            },
        )

    def run(self, *arguments, **kill):
        """The answer of kill_cases.run as a dict."""
        order = json.dumps({'arguments': list(map(str, arguments)), **kill})
        self.process.stdin.write(order + '\n')
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(120)
        self.process.stdout.close()


@pytest.fixture(scope='module')
def nursery():
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope='module')
def torch_nursery():
    pytest.importorskip('torch')
    made = Nursery('torch')
    yield made
    made.close()


def tree(folder):
    """Path -> digest of every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def killed_and_again(nursery, tmp_path, command, count, *, check, before=None, content=tree):
    """Run undisturbed; then kill before events and at moments, and run again.

    count    how many of each
    command  arguments but the last, the folder; before  what makes the folder that was there
    check    check(undisturbed, killed): asserts that what is there is whole
    content  function of a folder, the same after both
    """
    choice = random.Random(17)
    undisturbed = tmp_path / 'undisturbed' / 'out'
    for make in [before] * (before is not None):
        make(undisturbed)
    ended = nursery.run(*command, undisturbed)
    assert ended['code'] == 0, ended['said']
    expected = content(undisturbed)
    events = choice.sample(range(1, ended['events'] + 1), min(count[0], ended['events']))
    times = [choice.uniform(0.0, ended['seconds']) for _ in range(count[1])]
    kills = [{'event': event} for event in sorted(events)] + [{'after_s': s} for s in times]
    for number, kill in enumerate(kills):
        folder = tmp_path / f'killed{number}' / 'out'
        for make in [before] * (before is not None):
            make(folder)
        killed = nursery.run(*command, folder, **kill)
        assert killed['code'] in (-signal.SIGKILL, 0), killed['said']  # 0: it was done before
        check(undisturbed, folder)
        again = nursery.run(*command, folder)
        assert again['code'] == 0, (kill, again['said'])
        assert content(folder) == expected, kill
        assert os.listdir(folder.parent) == ['out'], kill
        shutil.rmtree(folder.parent)


def tables_are_whole(undisturbed, killed):
    for version in undisturbed.glob('v1.0-*'):
        if (killed / version.name).exists():
            assert tree(killed / version.name) == tree(version)


def bags_are_whole(undisturbed, killed):
    for bag in undisturbed.iterdir():
        if (killed / bag.name).exists():
            assert tree(killed / bag.name) == tree(bag)


def report_is_whole(undisturbed, killed):
    if (killed / 'report.md').exists():
        assert tree(killed).items() >= tree(undisturbed).items()


@pytest.mark.parametrize('count', FEWER)
def test_synth(nursery, tmp_path, count):
    command = 'synth', *SYNTH, '--workers', '1', '--out'
    killed_and_again(nursery, tmp_path, command, count, check=tables_are_whole)


@pytest.mark.slow
def test_synth_and_convert_with_workers(nursery, tmp_path):
    """Processes of a killed pool write no more."""
    synth = 'synth', *SYNTH, '--scenes', '3', '--workers', '2', '--out'
    killed_and_again(nursery, tmp_path / 'synth', synth, (3, 3), check=tables_are_whole)
    made = tmp_path / 'synth' / 'undisturbed' / 'out'
    convert = 'convert', made, '--workers', '2', '--out'
    killed_and_again(nursery, tmp_path / 'bags', convert, (3, 3), check=bags_are_whole)


@pytest.mark.parametrize('count', FEW)
def test_convert(nursery, dataset, tmp_path, count):
    command = 'convert', dataset, '--workers', '1', '--out'
    killed_and_again(nursery, tmp_path, command, count, check=bags_are_whole)


@pytest.mark.parametrize('count', FEW)
def test_import_pandaset(nursery, tmp_path, count):
    write_sequence(tmp_path / 'pandaset' / '007')
    command = 'import-pandaset', tmp_path / 'pandaset', '--out'
    killed_and_again(nursery, tmp_path, command, count, check=tables_are_whole)


def results_of(bags, path):
    """A result file of the true boxes."""
    from mta_perception.bags.scene_bag import SceneBag
    from mta_training.evaluation.nuscenes_metrics import Predictions, write_results

    samples = [sample for bag in bags for sample in SceneBag(bag).samples]
    write_results(
        path,
        samples,
        {one.token: Predictions(one.boxes, one.labels, one.labels * 0 + 0.5) for one in samples},
    )


@pytest.mark.slow
def test_eval(nursery, bags, tmp_path):
    results_of(bags, tmp_path / 'results.json')
    command = ('eval', '--results', tmp_path / 'results.json')
    command += ('--bags', bags[0].parent, '--out')
    killed_and_again(nursery, tmp_path, command, (10, 10), check=report_is_whole)


@pytest.mark.slow
def test_import_bevformer_over_another_one(torch_nursery, tmp_path):
    """At every moment there is the old one or the new one, whole."""
    from small_bevformer import small_config, small_model
    from test_published_checkpoint import published_state
    import torch

    config = small_config(name='small-test')
    for seed in (0, 1):
        torch.save(published_state(small_model(config, seed)), tmp_path / f'{seed}.pth')
    old = tmp_path / 'old'
    assert torch_nursery.run('import-small', tmp_path / '0.pth', old)['code'] == 0

    def check(undisturbed, killed):
        assert tree(killed) in (tree(old), tree(undisturbed))

    command = 'import-small', tmp_path / '1.pth'
    killed_and_again(
        torch_nursery,
        tmp_path,
        command,
        (12, 6),
        check=check,
        before=lambda folder: shutil.copytree(old, folder),
    )


@pytest.fixture(scope='module')
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('recipe') / 'recipe.yaml'
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def trained(folder):
    """What a run has learned, and its files but those named by the clock."""
    from mta_training.runs.run_directory import read_checkpoint

    learner = read_checkpoint(folder)['learner']
    names = {path for path in tree(folder) if not path.startswith(('events', 'cache'))}
    return names, {name: value.tolist() for name, value in learner.items()}


@pytest.mark.slow
def test_train(torch_nursery, bags, recipe_file, tmp_path):
    from mta_training.runs.run_directory import read_checkpoint

    def check(undisturbed, killed):
        if (killed / 'last.pt').exists():
            assert 1 <= read_checkpoint(killed)['step'] <= RECIPE['schedule']['steps']

    command = 'train', '--resume', '--bags', bags[0].parent, '--config', recipe_file
    command += '--val-scenes', bags[1].name, '--out'
    killed_and_again(torch_nursery, tmp_path, command, (5, 5), check=check, content=trained)


@pytest.mark.slow
def test_export_over_another_model(torch_nursery, bags, recipe_file, tmp_path):
    """At every moment there is the old one or the new one, whole."""
    pytest.importorskip('onnxscript')
    command = 'train', '--bags', bags[0].parent, '--config', recipe_file
    command += '--val-scenes', bags[1].name, '--out', tmp_path / 'run'
    assert torch_nursery.run(*command)['code'] == 0
    old = tmp_path / 'old'
    shutil.copytree(Path(__file__).parents[2] / 'models' / 'nano', old)

    def check(undisturbed, killed):
        assert tree(killed) in (tree(old), tree(undisturbed))

    killed_and_again(
        torch_nursery,
        tmp_path,
        ('export', '--run', tmp_path / 'run', '--out'),
        (3, 1),
        check=check,
        before=lambda folder: shutil.copytree(old, folder),
    )


@pytest.fixture
def small_disk(tmp_path, request):
    """(Nursery, folder that is a small disk for its processes alone)."""
    mount = tmp_path / 'disk'
    mount.mkdir()
    within = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']
    within += [f'mount -t tmpfs -o size=64k none {mount} && exec "$@"', 'sh']
    try:
        subprocess.run([*within, 'true'], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('no disk can be mounted here')
    made = Nursery(*getattr(request, 'param', ()), within=within)
    yield made, mount
    made.close()


def full_then_again(small_disk, tmp_path, command, check, sizes=('200k', '420k')):
    nursery, mount = small_disk
    undisturbed = tmp_path / 'out'
    assert nursery.run(*command, undisturbed)['code'] == 0
    for size in sizes:
        assert nursery.run('resize', size, mount)['code'] == 0
        failed = nursery.run(*command, mount / 'out')
        assert failed['code'] == 1, size
        last = failed['said'].strip().splitlines()[-1]
        assert last.startswith(f'mta-train: {mount / "out"}: no room to write (No space left'), (
            last
        )
        assert 'MB are free' in last and last.endswith('run the same command again.')
        assert 'Traceback' not in failed['said']
        assert nursery.run('copy', mount, tmp_path / size)['code'] == 0
        check(undisturbed, tmp_path / size / 'out')
        assert os.listdir(tmp_path / size) in ([], ['out'])
    assert nursery.run('resize', '50m', mount)['code'] == 0
    again = nursery.run(*command, mount / 'out')
    assert again['code'] == 0, again['said']
    assert nursery.run('copy', mount, tmp_path / 'again')['code'] == 0
    assert tree(tmp_path / 'again' / 'out') == tree(undisturbed)


def test_convert_on_a_full_disk(small_disk, dataset, tmp_path):
    command = 'convert', dataset, '--workers', '1', '--out'
    full_then_again(small_disk, tmp_path, command, bags_are_whole)


def test_import_pandaset_on_a_full_disk(small_disk, tmp_path):
    write_sequence(tmp_path / 'pandaset' / '007')
    command = 'import-pandaset', tmp_path / 'pandaset', '--out'
    full_then_again(small_disk, tmp_path, command, tables_are_whole, ('64k', '300k'))


@pytest.mark.slow
def test_synth_and_eval_on_a_full_disk(small_disk, bags, tmp_path):
    command = 'synth', *SYNTH, '--workers', '1', '--out'
    full_then_again(small_disk, tmp_path / 'synth', command, tables_are_whole, ('16k', '100k'))
    results_of(bags, tmp_path / 'results.json')
    command = ('eval', '--results', tmp_path / 'results.json')
    command += ('--bags', bags[0].parent, '--out')
    full_then_again(small_disk, tmp_path / 'eval', command, report_is_whole, ('8k', '100k'))


@pytest.mark.slow
@pytest.mark.parametrize('small_disk', [('torch',)], indirect=True)
def test_train_on_a_full_disk(small_disk, bags, recipe_file, tmp_path):
    """Wherever the disk gets full; what was saved before is gone on from."""
    pytest.importorskip('torch')
    nursery, mount = small_disk
    command = 'train', '--resume', '--bags', bags[0].parent, '--config', recipe_file
    command += '--val-scenes', bags[1].name, '--cache', tmp_path / 'cache', '--out'
    assert nursery.run(*command, tmp_path / 'out')['code'] == 0
    used = sum(path.stat().st_size for path in (tmp_path / 'out').rglob('*') if path.is_file())
    for share in (0.02, 0.3, 0.7):
        assert nursery.run('resize', f'{round(used * share / 1024)}k', mount)['code'] == 0
        failed = nursery.run(*command, mount / 'out')
        assert failed['code'] == 1, share
        last = failed['said'].strip().splitlines()[-1]
        assert last.startswith(f'mta-train: {mount / "out"}: no room to write (No space left'), (
            last
        )
        assert last.endswith('go on with --resume.') and 'Traceback' not in failed['said']
    assert nursery.run('resize', '200m', mount)['code'] == 0
    again = nursery.run(*command, mount / 'out')
    assert again['code'] == 0, again['said']
    assert nursery.run('copy', mount, tmp_path / 'again')['code'] == 0
    assert trained(tmp_path / 'again' / 'out') == trained(tmp_path / 'out')


def test_who_comes_second_changes_nothing(nursery, dataset, bags, tmp_path):
    """Every command that writes a folder, while another process writes there."""
    write_sequence(tmp_path / 'pandaset' / '007')
    results_of(bags, tmp_path / 'results.json')
    out = tmp_path / 'out'
    hold = (
        'import sys, time\n'
        'from mta_perception.directory_lock import sole_writer\n'
        'with sole_writer(sys.argv[1]):\n'
        "    print('mine', flush=True)\n"
        '    time.sleep(600)\n'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
    first = subprocess.Popen(
        [sys.executable, '-c', hold, str(out)], stdout=subprocess.PIPE, env=environment
    )
    try:
        assert first.stdout.readline() == b'mine\n'
        for command in (
            ('synth', *SYNTH),
            ('convert', dataset),
            ('import-pandaset', tmp_path / 'pandaset'),
            ('eval', '--results', tmp_path / 'results.json', '--bags', bags[0].parent),
        ):
            second = nursery.run(*command, '--out', out)
            assert second['code'] == 1, command
            (line,) = second['said'].strip().splitlines()
            assert line.startswith(f'mta-train: {out} is being written by another process'), line
            assert f'({first.pid}: ' in line and not out.exists()
    finally:
        first.kill()
        first.wait()
        first.stdout.close()

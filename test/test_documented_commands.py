"""Every command that README.md, CONTRIBUTING.md and docs/ show is run here, or says why it is not.

A command is a line of a ```bash block.  RUN and NOT_RUN name commands by how they begin; the
longest beginning counts; a command that neither knows fails the first test.  What is run is the
line as it is written, with small additions that make it take seconds, in a folder of its own; the
files that the documents speak of are made there by the documented commands themselves.
"""

import os
from pathlib import Path
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = ['README.md', 'CONTRIBUTING.md', *sorted((REPOSITORY / 'docs').glob('*.md'))]
PROGRAMS = {
    'mta': [sys.executable, '-m', 'mta_perception.commands.cli'],
    'mta-train': [sys.executable, '-m', 'mta_training.commands.cli'],
}


class Run(NamedTuple):
    """How a documented command is run."""

    more: str = ''  # arguments that make it small
    instead: tuple = ()  # pairs of words: this one for that one
    needs: tuple = ()  # files or folders, see MADE_BY
    modules: tuple = ()  # skipped where one of these is not installed
    stop_after_s: float = 0.0  # for what never ends: SIGINT then, and that is fine
    slow: bool = False


TORCH = ('torch', 'accelerate')
ROS = ('rclpy', 'mta_msgs', 'vision_msgs')
BAG = (('BAG', 'bags/scene-0001'),)
TOY = (('nano', 'smoke'), ('paper', 'smoke'))
NANO = (('models/nano', f'{REPOSITORY}/models/nano'),)
BOTH_BAGS = ('bags', 'held_out_bags')
TPO = ('torch', 'peft', 'transformers')
RUN = {
    'mta doctor': Run('', BAG, ('bags',), ROS),
    'mta play': Run('--wait 0', BAG, ('bags',), ROS, stop_after_s=6),
    'mta render': Run('--width 480', BAG, ('bags',)),
    'mta bench': Run('--only images', slow=True),
    'mta-train synth': Run('--seconds 2 --width 160 --no-sweeps', (('150', '2'),)),
    'mta-train convert': Run(needs=('data',)),
    'mta-train inspect': Run(needs=('bags',)),
    'mta-train questions': Run(needs=('bags',)),
    'mta-train train': Run(
        '--steps 4', TOY, ('bags', 'held_out_bags'), (*TORCH, 'transformers'), slow=True
    ),
    'mta-train eval --run': Run(
        '--frames 2', (), ('runs/nano', 'held_out_bags'), TORCH, slow=True
    ),
    'mta-train eval --model': Run(
        '--frames 2',
        (('models/nano', f'{REPOSITORY}/models/nano'),),
        ('held_out_bags',),
        ('torch',),
        slow=True,
    ),
    'mta-train eval --results': Run(needs=('results.json of held_out_bags',), slow=True),
    'mta-train eval results.json': Run(
        '', (('mini_val', 'synth_all'),), ('results.json of bags',), slow=True
    ),
    'mta-train ablate': Run(
        '--config smoke --steps 2 --seeds 1 --frames 2',
        (),
        ('bags', 'held_out_bags', 'runs/nano'),
        TORCH,
        slow=True,
    ),
    'mta-train export': Run(
        '--eval-frames 2',
        (('models/nano', 'new_model'),),
        ('runs/nano', 'held_out_bags'),
        (*TORCH, 'onnxscript'),
        slow=True,
    ),
    # With the toy recipe it starts from the toy run; as it is written it wants published weights.
    'mta-train train --config paper': Run(
        '--steps 4',
        (*TOY, ('models/bevformer_tiny', 'runs/nano')),
        ('bags', 'runs/nano'),
        (*TORCH, 'transformers'),
        slow=True,
    ),
    'mta-train tpo --stage': Run('--config tpo_smoke', NANO, BOTH_BAGS, TPO, slow=True),
    'mta-train tpo-eval': Run(
        '--per-frame 0.5', NANO, (*BOTH_BAGS, 'runs/tpo'), (*TPO, 'pycocoevalcap'), slow=True
    ),
    'mta-train tpo-table': Run(
        '--config tpo_smoke --seeds 1', NANO, BOTH_BAGS, (*TPO, 'pycocoevalcap'), slow=True
    ),
    'make': Run('--dry-run'),  # what the targets do has tests of its own
}
MADE_BY = {
    'data': 'mta-train synth --out data --scenes 2 --seed 1',
    'bags': 'mta-train convert data --out bags',
    'held_out_data': 'mta-train synth --out held_out_data --scenes 1 --seed 2',
    'held_out_bags': 'mta-train convert held_out_data --out held_out_bags',
    'runs/nano': 'mta-train train --config nano --bags bags --val-bags held_out_bags '
    '--out runs/nano',
    'runs/tpo': 'mta-train tpo --stage 3 --model models/nano --bags bags '
    '--val-bags held_out_bags --out runs/tpo',
}
MADE_FROM = {
    'bags': 'data',
    'held_out_bags': 'held_out_data',
    'runs/nano': 'bags',
    'runs/tpo': 'bags',
}
NOT_RUN = {
    'cd ': 'changes the folder for the next line',
    'source ': 'a ROS 2 from apt, or an environment; test_packaging.py sources what it builds',
    'rosdep ': 'needs root and a ROS 2 from apt',
    'ros2 ': 'needs a ROS 2 with ros2cli; test_ros_launch.py runs the launch file itself',
    'colcon ': 'test_packaging.py runs colcon',
    'python3 -m colcon ': 'test_packaging.py runs colcon',
    'pip install ': 'fetches from a registry; the lists are held together by a test of their own',
    'uv ': 'fetches from a registry',
    'make ros-env': 'needs a sourced ROS 2; its parts have tests of their own',
    'mta ask': 'needs a node or a model with task heads; test_ros_asking.py calls the service',
    'mta-train tpo-export': 'needs a trained run; test_task_graphs.py exports one',
    'mta rescue': 'needs a damaged bag; test_damaged_bags.py has them',
    'mta play BAG --faults': 'test_player.py plays one; test_faults.py reads the documented file',
    'mta-train export --run models/bevformer_tiny': 'needs published weights; '
    'test_published_checkpoint.py exports some of the same form',
    'mta-train import-bevformer': 'needs published weights; test_published_checkpoint.py runs '
    'it on small ones of the same form',
    'mta-train import-pandaset': 'needs PandaSet; test_pandaset.py imports a small sequence',
    'mta-train train --config street': 'draws and learns for hours, or minutes on a GPU; '
    'test_world_training.py has its parts',
    'mta-train ros-parity': 'plays a drive; test_real_drive.py runs it on the real one',
    'make contract': 'minutes of a node; test_ros_contract.py is the same',
    'make soak': 'an hour; test_ros_contract.py has two minutes of it',
    'mta-train eval --recorded': 'needs a recorded drive; the demo runs it',
    'make golden': 'needs the golden case; test_golden.py runs it where that is there',
    'accelerate ': 'needs GPUs or several machines; test_parallel_training.py trains in processes',
}
# Records of what was run once, for hours; only their options are looked at.
RECORDS = ('docs/results.md',)


class Command(NamedTuple):
    """One command as a document has it."""

    document: str
    line: str  # without comment, continuation and .venv/bin/

    def __str__(self):
        return f'{self.document}: {self.line}'


def documented_commands():
    """Commands of all ```bash blocks, in their order."""
    found = []
    for document in DOCUMENTS:
        path = REPOSITORY / document
        text = path.read_text(encoding='utf-8').replace('\\\n', ' ')
        for block in re.findall(r'^```bash\n(.*?)^```', text, re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                for part in re.sub(r'(^|\s)#.*', '', line).split('&&'):
                    words = ' '.join(part.replace('.venv/bin/', '').split())
                    if words:
                        name = path.relative_to(REPOSITORY).as_posix()
                        found.append(Command(name, words))
    return found


def longest_beginning(table, line):
    """The longest key with which the line begins; '' where there is none."""
    return max((key for key in table if f'{line} '.startswith(key)), key=len, default='')


def is_run(command):
    line = command.line
    mine, other = longest_beginning(RUN, line), longest_beginning(NOT_RUN, line)
    return len(mine) > len(other) and '...' not in line and command.document not in RECORDS


COMMANDS = documented_commands()


def test_every_documented_command_is_run_or_says_why_not():
    assert len(COMMANDS) > 30
    unknown = [
        str(command)
        for command in COMMANDS
        if not (longest_beginning(RUN, command.line) or longest_beginning(NOT_RUN, command.line))
        and command.document not in RECORDS
    ]
    assert unknown == [], 'name them in RUN or in NOT_RUN of this file'


def test_commands_stand_in_bash_blocks():
    """A block without a language is not looked at; so it must show no command of ours."""
    wrong = []
    for document in DOCUMENTS:
        text = (REPOSITORY / document).read_text(encoding='utf-8')
        for language, block in re.findall(r'^```(\w*)\n(.*?)^```', text, re.DOTALL | re.MULTILINE):
            if language != 'bash' and re.search(
                r'^(mta|mta-train|make|ros2) ', block, re.MULTILINE
            ):
                wrong.append(f'{document}: {block.splitlines()[0]}')
    assert wrong == []


@pytest.mark.parametrize(
    'command', [one for one in COMMANDS if one.line.startswith(('mta ', 'mta-train '))], ids=str
)
def test_documented_options_exist(command, tmp_path, monkeypatch):
    """Also of those that are not run: parsed by the program, in a folder where all paths exist."""
    import typer

    if command.line.startswith('mta-train'):
        pytest.importorskip('mta_training')
        from mta_training.commands.cli import app
    else:
        from mta_perception.commands.cli import app
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(re.sub(r'[][]', '', command.line)) if word != '...']
    for word in words[2:]:
        if not word.startswith('-') and re.fullmatch(r'[\w./-]+', word):
            path = tmp_path / word
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir(exist_ok=True)
    subcommand = typer.main.get_command(app).commands[words[1]]
    if '...' in command.line:  # shortened: what it requires may be what is left out
        for parameter in subcommand.params:
            parameter.required = False
    subcommand.make_context(words[1], words[2:])


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """The folder in which commands run."""
    return tmp_path_factory.mktemp('documented')


def provide(workspace, name):
    """Make a file or folder that documents speak of, by the commands that make it."""
    if name.startswith('results.json of '):
        write_truth(workspace, name.removeprefix('results.json of '))
    elif not (workspace / name).exists():
        if name in MADE_FROM:
            provide(workspace, MADE_FROM[name])
        execute(workspace, MADE_BY[name])


def write_truth(workspace, bags):
    """results.json: what a perfect detector says of these bags."""
    import numpy as np

    from mta_perception.bags.scene_bag import SceneBag
    from mta_training.evaluation.nuscenes_metrics import Predictions, write_results

    provide(workspace, bags)
    samples = [
        sample
        for path in sorted((workspace / bags).glob('*/metadata.yaml'))
        for sample in SceneBag(path.parent).samples
    ]
    found = {
        sample.token: Predictions(sample.boxes, sample.labels, np.ones(len(sample.labels)))
        for sample in samples
    }
    write_results(workspace / 'results.json', samples, found)


def execute(workspace, line):
    """Run a command as RUN says, in the workspace; fails with its output where it fails."""
    how = RUN[longest_beginning(RUN, line)]
    for module in how.modules:
        pytest.importorskip(module)
    for name in how.needs:
        provide(workspace, name)
    instead = dict(how.instead)
    program, *words = [instead.get(word, word) for word in shlex.split(line)]
    words += shlex.split(how.more)
    if words[0] == 'train':  # another document may have trained the run of this name
        shutil.rmtree(workspace / words[words.index('--out') + 1], ignore_errors=True)
    if program == 'make':
        if shutil.which('make') is None:
            pytest.skip('make is not installed')
        folder, command = REPOSITORY, ['make', *words]
    else:
        folder, command = workspace, [*PROGRAMS[program], *words]
    environment = {**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=how.stop_after_s or 600)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=30)
            assert how.stop_after_s, output
    assert process.returncode == 0, output


@pytest.mark.parametrize(
    'command',
    [
        pytest.param(
            one,
            id=str(one),
            marks=[pytest.mark.slow] if RUN[longest_beginning(RUN, one.line)].slow else [],
        )
        for one in dict.fromkeys(COMMANDS)
        if is_run(one)
    ],
)
def test_documented_command_runs(command, workspace):
    if command.line.startswith('mta-train'):
        pytest.importorskip('mta_training')
    execute(workspace, command.line)

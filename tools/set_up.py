"""Make `.venv` and everything in it: `python3 tools/set_up.py [--train]`; `make env` calls this.

Steps: a virtual environment, the pinned packages, the message packages, then mta_perception and
mta_training in editable mode; with --train also torch and the rest of the pins. What was done is
kept in `.venv/.mta/state.json`, so that a second call finds nothing to do in a tenth of a second,
and one that was killed half way is taken up.
Standard library alone. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import fcntl
import hashlib
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

import prerequisites
from prerequisites import PrerequisiteError
import progress

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENT = REPOSITORY / '.venv'
STATE_FOLDER = ENVIRONMENT / '.mta'
REQUIREMENTS = REPOSITORY / 'requirements'
PROJECTS = (REPOSITORY, REPOSITORY / 'mta_training')
# Written by uv from the lists beside them, with hashes (CONTRIBUTING.md); the first is the part of
# the second that the vehicle side needs.
VEHICLE_PINS = REQUIREMENTS / 'pins-vehicle.txt'
ALL_PINS = REQUIREMENTS / 'pins.txt'
TORCH = REQUIREMENTS / 'torch.txt'
PROJECT_FILES = ('setup.py', 'setup.cfg', 'pyproject.toml', 'package.xml')
LARGE_DOWNLOAD_MB = 20.0


class InstallError(Exception):
    """pip or venv failed; the message ends with what to look at."""


class KilledError(InstallError):
    """pip was killed by a signal."""


def main():
    """Set up the vehicle side, with --train also training and tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--train',
        action='store_true',
        help='also torch, the training packages and the tools for tests',
    )
    train = parser.parse_args().train
    # Another ROS or numpy on PYTHONPATH would look installed to pip and be found by the build.
    os.environ.pop('PYTHONPATH', None)
    try:
        prerequisites.check_machine()
        use_fitting_python()
        set_up(train)
    except KeyboardInterrupt:
        say('interrupted; the same command takes it up again')
        return 1
    except Exception as error:
        import interfaces

        if isinstance(error, (PrerequisiteError, InstallError, interfaces.BuildError, OSError)):
            say(str(error))
            return 1
        raise
    return 0


def use_fitting_python():
    """Go on under a Python that the wheels exist for, when this one is too old or too new."""
    python = prerequisites.fitting_python()
    if python != sys.executable:
        os.execv(python, [python, *sys.argv])


def set_up(train):
    """Bring the environment to what the files of this checkout ask for; quick when it is there."""
    if os.environ.get('MTA_ROS_IGNORED'):
        say(
            f'ROS 2 {os.environ["MTA_ROS_IGNORED"]} is sourced in this shell. `make` keeps to '
            'its own .venv and leaves it aside;\nto build with that ROS 2 instead: cd ros2_ws && '
            'colcon build (README.md, "On a machine with ROS 2").'
        )
    with (REPOSITORY / '.venv.lock').open('w') as lock:
        wait_for(lock)
        # A pip that outlives a killed set-up keeps the lock until it is done (close_fds=False).
        os.set_inheritable(lock.fileno(), True)
        wanted = wanted_state(train)
        done = read_state()
        torn = 'unfinished' in done
        if not torn and all(done.get(step) == content for step, content in wanted.items()):
            return
        import interfaces

        archive = interfaces.archive_path(wanted['interfaces'])
        build_needed = not interfaces.is_whole(archive)
        prerequisites.check_packages(build_needed)
        if build_needed:
            prerequisites.check_cache(archive.parent)
        if torn or done.get('environment') != wanted['environment']:
            make_environment(wanted['environment'])
            done = {'environment': wanted['environment']}
        for step, perform in steps(train):
            if done.get(step) != wanted[step]:
                perform_step(step, perform, wanted[step], done)
        say('ready: .venv/bin/perception_node, .venv/bin/mta, .venv/bin/mta-train')


def perform_step(step, perform, content, done):
    """Perform one step and note it in `done` and on the disk."""
    # A pip killed half way can leave a package that only looks installed: then all is made anew.
    # An error that pip itself reports leaves nothing half done, and the message packages look
    # after themselves.
    if step != 'interfaces':
        write_state({**done, 'unfinished': step})
    try:
        perform(content)
    except KilledError:
        raise
    except Exception:
        write_state(done)
        raise
    done[step] = content
    write_state(done)


def steps(train):
    """(name, function of its wanted content) in the order in which they build on each other."""
    import interfaces

    yield 'vehicle', lambda _: install_vehicle()
    yield 'interfaces', lambda key: interfaces.lay_in(ENVIRONMENT, STATE_FOLDER, key, say)
    yield 'projects', lambda _: install_projects()
    if train:
        yield 'train', lambda _: install_training()


def wanted_state(train):
    """What each step is to be done for: a hash of the files that decide it."""
    import interfaces

    python = '{}.{}.{}'.format(*sys.version_info[:3])
    wanted = {
        # The path is part of it: scripts and editable installs break when a checkout is moved.
        'environment': f'{python} {sys.base_prefix} {ENVIRONMENT}',
        'vehicle': hash_of([VEHICLE_PINS]),
        'interfaces': interfaces.content_key('cp{}{}'.format(*sys.version_info[:2]), VEHICLE_PINS),
        'projects': hash_of([project / name for project in PROJECTS for name in PROJECT_FILES]),
    }
    if train:
        wanted['train'] = hash_of([ALL_PINS, TORCH])
    return wanted


def hash_of(paths):
    """Hash of names and contents; a file that is not there counts as empty."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes() if path.exists() else b''
        digest.update(f'{path.relative_to(REPOSITORY)} {len(content)}\n'.encode() + content)
    return digest.hexdigest()[:24]


def read_state():
    """What is done; nothing when there is no environment or its state is not readable."""
    try:
        state = json.loads((STATE_FOLDER / 'state.json').read_text())
        return state if (ENVIRONMENT / 'bin' / 'python').exists() else {}
    except (OSError, ValueError):
        return {}


def write_state(state):
    """Replace the state in one step."""
    temporary = STATE_FOLDER / 'state.json.new'
    temporary.write_text(json.dumps(state, indent=2))
    os.replace(temporary, STATE_FOLDER / 'state.json')


def wait_for(lock):
    """One set-up at a time: `make demo` and `make test` may be started together."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say('another set-up is running in this checkout; waiting for it')
        fcntl.flock(lock, fcntl.LOCK_EX)


def make_environment(content):
    """A new, empty virtual environment in place of whatever is there."""
    say(f'making the virtual environment .venv (Python {content.split()[0]})')
    if ENVIRONMENT.exists():
        shutil.rmtree(ENVIRONMENT)
    made = subprocess.run(
        [sys.executable, '-m', 'venv', str(ENVIRONMENT)],
        close_fds=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        raise InstallError(
            f'{made.stdout}\nThe virtual environment {ENVIRONMENT} could not be made.'
        )
    STATE_FOLDER.mkdir()
    write_state({'environment': content})


def install_vehicle():
    """What `make env` needs, setuptools first: it builds the one package that is no wheel."""
    say(
        'installing ROS 2 and the vehicle packages (160 MB to fetch, 1.1 GB on the disk; one to '
        'three minutes)'
    )
    builder = STATE_FOLDER / 'setuptools.txt'
    builder.write_text(pinned('setuptools', VEHICLE_PINS))
    install_pins(builder)
    install_pins(VEHICLE_PINS)


def install_training():
    """The rest of the pins, then torch, whose wheel has no hash that is right everywhere."""
    say(
        'installing the training packages and the tools for tests (250 MB to fetch, 0.6 GB on the '
        'disk; a minute or two)'
    )
    install_pins(ALL_PINS)
    say(
        'installing torch unless it is there (for CUDA 2.7 GB to fetch, 4.5 GB on the disk, '
        'minutes; where pip has a build for CPUs 0.2 and 0.8 GB)'
    )
    pip(['--requirement', str(TORCH)])


def install_pins(pins):
    """Install exactly what the file pins and nothing else, every archive checked by its hash."""
    # No dependency is looked up, so that a bound in a package's own metadata (nuscenes-devkit:
    # numpy < 2) keeps nothing out that uv was told to let in.
    pip(
        ['--no-deps', '--require-hashes', '--requirement', str(pins)]
        + ['--only-binary', ':all:', '--no-binary', 'empy', '--no-build-isolation', '--use-pep517']
    )


def pinned(name, pins):
    """The lines of a pins file that pin one package."""
    return re.search(rf'^{name}==.*\n(?: .*\n)*', pins.read_text(), re.MULTILINE).group()


def install_projects():
    """Both packages in editable mode; their dependencies are there already."""
    say('installing mta_perception and mta_training in editable mode')
    editable = [argument for project in PROJECTS for argument in ('--editable', str(project))]
    pip(['--no-build-isolation', '--no-deps', *editable])


def pip(arguments):
    """Run pip install, naming large downloads as they begin; its whole output goes to a log."""
    log = STATE_FOLDER / 'pip.log'
    command = [
        str(ENVIRONMENT / 'bin' / 'python'),
        '-m',
        'pip',
        'install',
        '--disable-pip-version-check',
        '--progress-bar',
        'off',
        *arguments,
    ]
    counts = PipCounts()
    with log.open('a') as output, progress.signs_of_life(say, counts.line):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            cwd=str(REPOSITORY),
            close_fds=False,
        )
        for line in process.stdout:
            output.write(line)
            counts.read(line)
            if is_large_download(line):
                say(f'  {line.strip()}')
        code = process.wait()
    if code:
        tail = '\n'.join(log.read_text().splitlines()[-15:])
        raise (KilledError if code < 0 else InstallError)(
            f'{tail}\n\npip could not install what is needed ({progress.ending(code)}); its whole '
            f'output is in {log}. Behind a proxy, tell pip so (`pip help config`).'
        )


class PipCounts:
    """What pip has said that it has done so far, as a line."""

    def __init__(self):
        self.fetched = 0
        self.current = ''
        self.to_install = 0
        self.before = installed_packages()

    def read(self, line):
        """Take in one line of pip's output."""
        words = line.split()
        if words[:1] == ['Collecting']:
            self.fetched += 1
            self.current = words[1].split('=')[0]
        elif words[:3] == ['Installing', 'collected', 'packages:']:
            self.to_install = len(words) - 3

    def line(self):
        """How far it is."""
        if self.to_install:
            done = max(0, installed_packages() - self.before)
            return f'{done} of {self.to_install} packages installed'
        return f'{self.fetched} packages fetched, now {self.current}' if self.fetched else 'pip'


def installed_packages():
    """How many packages the environment has."""
    return len(list(ENVIRONMENT.glob('lib/python3.*/site-packages/*.dist-info')))


def is_large_download(line):
    """True for pip's line `  Downloading name (123.4 MB)` when it is worth telling."""
    words = line.split()
    if not words or words[0] != 'Downloading' or words[-1] != 'MB)':
        return False
    return float(words[-2].lstrip('(')) >= LARGE_DOWNLOAD_MB


def say(text):
    """Tell the person; on stderr, so that the output of the command itself stays clean."""
    print(f'[set-up] {text}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    sys.exit(main())

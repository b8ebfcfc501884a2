"""Make `.venv` and everything in it: `python3 tools/set_up.py [--train]`; `make env` calls this.

Steps: a virtual environment, the pinned packages, the message packages, then mta_perception and
mta_training in editable mode. What was done is kept in `.venv/.mta/state.json`, so that a second
call finds nothing to do in a tenth of a second, and one that was killed half way is taken up.
Standard library alone. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import fcntl
import hashlib
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

import prerequisites
from prerequisites import PrerequisiteError

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENT = REPOSITORY / '.venv'
STATE_FOLDER = ENVIRONMENT / '.mta'
REQUIREMENTS = REPOSITORY / 'requirements'
PROJECTS = (REPOSITORY, REPOSITORY / 'mta_training')
PROJECT_FILES = ('setup.py', 'setup.cfg', 'pyproject.toml', 'package.xml')
LARGE_DOWNLOAD_MB = 20.0


class InstallError(Exception):
    """pip or venv failed; the message ends with what to look at."""


def main():
    """Set up the vehicle side, with --train also training and tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--train',
        action='store_true',
        help='also torch, the training packages and the tools for tests',
    )
    train = parser.parse_args().train
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

        prerequisites.check_packages(
            build_needed=not interfaces.is_whole(interfaces.archive_path(wanted['interfaces']))
        )
        if torn or done.get('environment') != wanted['environment']:
            make_environment(wanted['environment'])
            done = {'environment': wanted['environment']}
        for step, perform in steps(train):
            if done.get(step) != wanted[step]:
                perform_step(step, perform, wanted[step], done)
        say('ready: .venv/bin/perception_node, .venv/bin/mta, .venv/bin/mta-train')


def perform_step(step, perform, content, done):
    """Perform one step and note it in `done` and on the disk."""
    # pip killed half way can leave a package that only looks installed: then all is made anew. An
    # error that pip itself reports leaves nothing half done, and the message packages look after
    # themselves.
    if step != 'interfaces':
        write_state({**done, 'unfinished': step})
    try:
        perform(content)
    except Exception:
        write_state(done)
        raise
    done[step] = content
    write_state(done)


def steps(train):
    """(name, function of its wanted content) in the order in which they build on each other."""
    import interfaces

    yield 'vehicle', lambda _: install(['vehicle.txt'], 'ROS 2 and the vehicle packages')
    yield 'interfaces', lambda key: interfaces.lay_in(ENVIRONMENT, STATE_FOLDER, key, say)
    yield 'projects', lambda _: install_projects()
    if train:
        yield (
            'train',
            lambda _: install(
                ['vehicle.txt', 'train.txt', 'dev.txt'],
                'torch, the training packages and the tools for tests',
            ),
        )


def wanted_state(train):
    """What each step is to be done for: a hash of the files that decide it."""
    import interfaces

    pins = REQUIREMENTS / 'pins.txt'
    python = '{}.{}.{}'.format(*sys.version_info[:3])
    wanted = {
        # The path is part of it: scripts and editable installs break when a checkout is moved.
        'environment': f'{python} {sys.base_prefix} {ENVIRONMENT}',
        'vehicle': hash_of([REQUIREMENTS / 'vehicle.txt', pins]),
        'interfaces': interfaces.content_key('cp{}{}'.format(*sys.version_info[:2]), pins),
        'projects': hash_of([project / name for project in PROJECTS for name in PROJECT_FILES]),
    }
    if train:
        wanted['train'] = hash_of(
            [REQUIREMENTS / name for name in ('vehicle.txt', 'train.txt', 'dev.txt')] + [pins]
        )
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


def install(lists, what):
    """Install the packages named in `lists`, each at its version in pins.txt."""
    say(f'installing {what} (a minute or two the first time)')
    arguments = ['--constraint', str(REQUIREMENTS / 'pins.txt')]
    for name in lists:
        arguments += ['--requirement', str(REQUIREMENTS / name)]
    pip(arguments)


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
    with log.open('w') as output:
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
            if is_large_download(line):
                say(f'  {line.strip()}')
    if process.wait():
        tail = '\n'.join(log.read_text().splitlines()[-15:])
        raise InstallError(
            f'{tail}\n\npip could not install what is needed; its whole output is '
            f'in {log}. Behind a proxy, tell pip so (`pip help config`).'
        )


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

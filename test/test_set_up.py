"""The set-up: what is built again when, what is said when something is missing, after a kill."""

import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time

import interfaces
from packaging.requirements import Requirement
import prerequisites
import progress
import pytest
import set_up

import mta_perception

ROOT = Path(mta_perception.__file__).resolve().parent.parent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MTA_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def copied_definitions(tmp_path, monkeypatch):
    """The interface packages copied to where a test may change them."""
    for package in interfaces.PACKAGES:
        shutil.copytree(package, tmp_path / package.relative_to(ROOT))
    (tmp_path / 'tools').mkdir()
    hook = shutil.copy(interfaces.CMAKE_HOOK, tmp_path / 'tools')
    script = shutil.copy(interfaces.__file__, tmp_path / 'tools')
    monkeypatch.setattr(interfaces, '__file__', script)
    monkeypatch.setattr(
        interfaces,
        'PACKAGES',
        tuple(tmp_path / package.relative_to(ROOT) for package in interfaces.PACKAGES),
    )
    monkeypatch.setattr(interfaces, 'REPOSITORY', tmp_path)
    monkeypatch.setattr(interfaces, 'CMAKE_HOOK', Path(hook))
    return tmp_path


def key(pins=ROOT / 'requirements' / 'pins-vehicle.txt', python='cp311'):
    return interfaces.content_key(python, pins)


def test_copies_have_the_key_of_the_originals(copied_definitions, tmp_path):
    copied = key()
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import interfaces; from pathlib import Path; print('
            'interfaces.content_key("cp311", Path("requirements/pins-vehicle.txt")))',
        ],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT / 'tools')},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == copied


@pytest.mark.parametrize(
    'change',
    [
        'ros2_ws/src/mta_msgs/msg/ObjectCaption.msg',
        'ros2_ws/src/mta_msgs/srv/Ask.srv',
        'ros2_ws/underlay/vision_msgs/CMakeLists.txt',
        'ros2_ws/underlay/tf2_msgs/package.xml',
        'tools/drop_dead_include_paths.cmake',
        'tools/interfaces.py',
    ],
)
def test_messages_are_built_again_after_a_change(copied_definitions, change):
    before = key()
    with (copied_definitions / change).open('a') as changed:
        changed.write('\n')
    assert key() != before


def test_messages_are_built_again_for_a_new_message_python_or_wheel(copied_definitions, tmp_path):
    pins = tmp_path / 'pins.txt'
    pins.write_text('rich==1\nros-rclpy==1\n')
    keys = [key(pins), key(pins, python='cp312')]
    pins.write_text('rich==1\nros-rclpy==2\n')
    keys.append(key(pins))
    (copied_definitions / 'ros2_ws/src/mta_msgs/msg/New.msg').write_text('bool x\n')
    keys.append(key(pins))
    assert len(set(keys)) == 4
    pins.write_text('rich==2\nros-rclpy==2\n')
    assert key(pins) == keys[-1], 'a package that messages do not depend on has changed the key'


def stored_build(archive, folder, files):
    """An archive as `interfaces.build` leaves it, of {name: content}."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, 'w:gz') as stored:
        for path in sorted(folder.iterdir()):
            stored.add(path, arcname=path.name)


def test_a_message_that_is_gone_leaves_the_environment(cache, tmp_path):
    environment, state = tmp_path / 'venv', tmp_path / 'venv' / '.mta'
    state.mkdir(parents=True)
    (environment / 'share').mkdir()
    (environment / 'share' / 'own.txt').write_text('not ours')
    stored_build(
        interfaces.archive_path('one'),
        tmp_path / 'one',
        {'share/msg/Kept.msg': '1', 'share/msg/Gone.msg': '1'},
    )
    stored_build(interfaces.archive_path('two'), tmp_path / 'two', {'share/msg/Kept.msg': '2'})
    said = []
    interfaces.lay_in(environment, state, 'one', said.append)
    assert (environment / 'share/msg/Gone.msg').exists()
    interfaces.lay_in(environment, state, 'two', said.append)
    assert (environment / 'share/msg/Kept.msg').read_text() == '2'
    assert not (environment / 'share/msg/Gone.msg').exists()
    assert (environment / 'share/own.txt').exists()
    assert said == [], 'it has built although the archive was there'


def test_a_truncated_archive_is_not_taken_for_whole(cache, tmp_path):
    archive = interfaces.archive_path('cut')
    assert not interfaces.is_whole(archive)
    stored_build(
        archive,
        tmp_path / 'cut',
        {f'share/{number}': os.urandom(99).hex() for number in range(50)},
    )
    assert interfaces.is_whole(archive)
    archive.write_bytes(archive.read_bytes()[:-500])
    assert not interfaces.is_whole(archive)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Function that puts a shell script into a PATH that holds nothing else."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))

    def put(name, script):
        path = folder / name
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(0o755)
        return str(path)

    return put


@pytest.fixture
def apt(command, monkeypatch):
    """Function that makes apt know the named packages and no others; the user is not root."""
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)

    def offer(*packages):
        known = ''.join(
            f'  {name}) printf "{name}:\\n  Installed: (none)\\n  Candidate: 1\\n";;\n'
            for name in packages
        )
        # As apt does for a name that another package mentions: there, but not to be had.
        unknown = '  *) printf "$name:\\n  Installed: (none)\\n  Candidate: (none)\\n";;\n'
        script = f'shift\nfor name in "$@"; do case $name in\n{known}{unknown}esac; done'
        command('apt-cache', script)

    return offer


def test_everything_missing_is_named_with_one_apt_line(apt, monkeypatch):
    monkeypatch.delenv('CXX', raising=False)
    apt('g++', 'cmake', 'libpython{}.{}-dev'.format(*sys.version_info[:2]))
    with pytest.raises(prerequisites.PrerequisiteError) as missing:
        prerequisites.check_packages(build_needed=True)
    assert 'C++ compiler' in str(missing.value)
    assert str(missing.value).endswith('    sudo apt install g++ cmake')


def test_a_cached_build_asks_for_a_python_that_makes_environments_and_nothing_else(
    apt, monkeypatch
):
    monkeypatch.delenv('CXX', raising=False)
    apt('g++', 'cmake', 'python3-venv')
    prerequisites.check_packages(build_needed=False)  # no compiler, no CMake: as it should be
    monkeypatch.setitem(sys.modules, 'ensurepip', None)  # as on Debian without python3-venv
    with pytest.raises(prerequisites.PrerequisiteError) as missing:
        prerequisites.check_packages(build_needed=False)
    assert 'Python module ensurepip' in str(missing.value)
    assert str(missing.value).endswith('    sudo apt install python3-venv')


@pytest.mark.parametrize(
    'offered, line',
    [
        (['python3.13', 'cmake'], 'sudo apt install python3.13 python3.13-venv'),
        (['python3.10', 'python3.12'], 'sudo apt install python3.12 python3.12-venv'),
        (['python3.9'], 'uv python install'),
    ],
)
def test_a_python_is_named_that_this_distribution_has(apt, monkeypatch, offered, line):
    apt(*offered)
    monkeypatch.setattr(sys, 'version_info', (3, 9, 2))
    with pytest.raises(prerequisites.PrerequisiteError) as wrong:
        prerequisites.fitting_python()
    assert line in str(wrong.value)
    assert ('apt install' in str(wrong.value)) == ('apt install' in line)


def test_parts_of_python_are_named_as_this_distribution_names_them(apt, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 12, 1))
    apt('python3-venv', 'python3.12-venv')
    assert prerequisites.python_package('venv') == 'python3.12-venv'
    apt('python3-venv', 'python3.13-venv')
    assert prerequisites.python_package('venv') == 'python3-venv'


def test_an_apt_line_for_root_without_package_lists(apt, monkeypatch):
    apt()
    monkeypatch.setattr(os, 'geteuid', lambda: 0)
    assert prerequisites.apt_line(['cmake']) == 'apt update && apt install cmake'


def test_headers_are_asked_for_where_apt_cannot_hand_them_over(apt, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 13, 5))
    monkeypatch.setattr(sysconfig, 'get_config_var', lambda name: str(tmp_path / name))
    apt('libpython3.13-dev')
    assert prerequisites.missing_headers() == []
    apt('python3.13-dev')
    ((_, package),) = prerequisites.missing_headers()
    assert package == 'python3.13-dev'
    (tmp_path / 'INCLUDEPY').mkdir()
    (tmp_path / 'INCLUDEPY' / 'Python.h').touch()
    assert prerequisites.missing_headers() == []


@pytest.mark.parametrize(
    'version, fits',
    [('3.16.3', False), ('3.18.4', False), ('3.22.1', True), ('4.0.2', True), ('unknown', False)],
)
def test_cmake_must_be_new_enough(command, version, fits):
    command('cmake', f'echo "cmake version {version}"')
    assert (prerequisites.missing_cmake() == []) == fits


def test_a_python_that_is_too_new_is_replaced_by_one_on_the_path(command, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 15, 0))
    command('python3.12', 'exit 127')
    with pytest.raises(prerequisites.PrerequisiteError):
        prerequisites.fitting_python()
    good = command('python3.10', 'echo 3 10')
    assert prerequisites.fitting_python() == good


def test_a_cache_that_cannot_be_written_to_names_mta_cache(tmp_path):
    prerequisites.check_cache(tmp_path / 'new' / 'folder')
    (tmp_path / 'file').touch()
    with pytest.raises(prerequisites.PrerequisiteError, match='export MTA_CACHE='):
        prerequisites.check_cache(tmp_path / 'file' / 'cache')


def pinned_versions(path, python):
    """{name: version} that a pins file gives to one Python; every one must have a hash."""
    environment = {
        'python_version': python,
        'python_full_version': f'{python}.0',
        'platform_machine': 'x86_64',
        'sys_platform': 'linux',
    }
    versions = {}
    for entry in re.findall(r'^\w.*\n(?: .*\n)*', path.read_text(), re.MULTILINE):
        requirement = Requirement(entry.split('\\')[0])
        assert '--hash=sha256:' in entry, f'{requirement} has no hash'
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in versions, f'{requirement.name} twice for {python}'
            versions[requirement.name] = str(requirement.specifier).removeprefix('==')
    return versions


def listed(name):
    """Requirements of a list in requirements/."""
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [Requirement(line.split('#')[0]) for line in lines if line.split('#')[0].strip()]


@pytest.mark.parametrize('python', ['{}.{}'.format(*python) for python in prerequisites.SUPPORTED])
def test_everything_wanted_is_pinned_with_a_hash(python):
    everything = pinned_versions(set_up.ALL_PINS, python)
    vehicle = pinned_versions(set_up.VEHICLE_PINS, python)
    assert vehicle.items() <= everything.items()
    assert {requirement.name for requirement in listed('vehicle.txt')} <= vehicle.keys()
    wanted = listed('vehicle.txt') + listed('train.txt') + listed('dev.txt')
    assert {requirement.name for requirement in wanted} <= everything.keys()


def test_the_dependencies_of_torch_and_the_devkit_are_named_for_the_wanted_version():
    """Where uv reads other dependencies than a package's own, it does so for one version."""
    text = (ROOT / 'pyproject.toml').read_text()
    written = dict(re.findall(r'dependency-metadata\]\]\nname = "(\S+)"\nversion = "(\S+)"', text))
    wanted = {
        requirement.name: str(requirement.specifier).removeprefix('==')
        for requirement in listed('vehicle.txt') + listed('torch.txt') + listed('dev.txt')
        if requirement.specifier
    }
    assert written == wanted


def test_a_long_step_gives_signs_of_life_and_stops(monkeypatch):
    monkeypatch.setattr(progress, 'INTERVAL', 0.01)
    said = []
    with progress.signs_of_life(said.append, lambda: 'at work'):
        while len(said) < 2:
            time.sleep(0.01)
    count = len(said)
    assert said[0].endswith(' s: at work')
    time.sleep(0.05)
    assert len(said) == count


def test_progress_of_pip_is_read_from_its_output(tmp_path, monkeypatch):
    monkeypatch.setattr(set_up, 'ENVIRONMENT', tmp_path)
    counts = set_up.PipCounts()
    counts.read('Collecting rich==15.0.0 (from -r pins.txt (line 3))\n')
    counts.read('  Downloading rich-15.0.0-py3-none-any.whl (243 kB)\n')
    assert counts.line() == '1 packages fetched, now rich'
    counts.read('Installing collected packages: mdurl, rich\n')
    (tmp_path / 'lib/python3.11/site-packages/mdurl-0.1.2.dist-info').mkdir(parents=True)
    assert counts.line() == '1 of 2 packages installed'


def test_a_killed_child_is_named_by_its_signal():
    done = subprocess.run([sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)'])
    assert progress.ending(done.returncode) == 'SIGKILL (often: not enough memory)'
    assert progress.ending(1) == 'exit code 1'


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An empty place for `.venv`; nothing is installed there, each step notes its name instead."""
    performed = []
    monkeypatch.setenv('MTA_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(set_up, 'ENVIRONMENT', tmp_path / '.venv')
    monkeypatch.setattr(set_up, 'STATE_FOLDER', tmp_path / '.venv' / '.mta')
    monkeypatch.setattr(prerequisites, 'check_packages', lambda build_needed: None)

    def make_environment(content):
        performed.append('environment')
        (tmp_path / '.venv' / '.mta').mkdir(parents=True, exist_ok=True)
        (tmp_path / '.venv' / 'bin').mkdir(exist_ok=True)
        (tmp_path / '.venv' / 'bin' / 'python').touch()
        set_up.write_state({'environment': content})

    def steps(train):
        for name in ('vehicle', 'interfaces', 'projects', *(('train',) if train else ())):
            yield name, lambda _, name=name: performed.append(name)

    monkeypatch.setattr(set_up, 'make_environment', make_environment)
    monkeypatch.setattr(set_up, 'steps', steps)
    return performed


def test_each_step_is_done_once(environment):
    set_up.set_up(train=False)
    assert environment == ['environment', 'vehicle', 'interfaces', 'projects']
    set_up.set_up(train=False)
    set_up.set_up(train=True)
    set_up.set_up(train=False)
    assert environment[4:] == ['train']


def test_a_killed_installation_is_made_anew(environment):
    set_up.set_up(train=True)
    state = json.loads((set_up.STATE_FOLDER / 'state.json').read_text())
    set_up.write_state({**state, 'unfinished': 'train'})
    environment.clear()
    set_up.set_up(train=False)
    assert environment == ['environment', 'vehicle', 'interfaces', 'projects']


def test_an_error_of_pip_is_taken_up_where_it_was(environment, monkeypatch):
    good_steps = set_up.steps

    def steps(train):
        yield from list(good_steps(train))[:2]
        yield 'projects', fail

    def fail(_):
        raise set_up.InstallError('no network')

    monkeypatch.setattr(set_up, 'steps', steps)
    with pytest.raises(set_up.InstallError):
        set_up.set_up(train=False)
    monkeypatch.setattr(set_up, 'steps', good_steps)
    environment.clear()
    set_up.set_up(train=False)
    assert environment == ['projects']


def test_a_pip_that_was_killed_leaves_an_environment_that_is_made_anew(environment, monkeypatch):
    good_steps = set_up.steps

    def steps(train):
        yield 'vehicle', be_killed

    def be_killed(_):
        raise set_up.KilledError('SIGKILL')

    monkeypatch.setattr(set_up, 'steps', steps)
    with pytest.raises(set_up.InstallError):
        set_up.set_up(train=False)
    monkeypatch.setattr(set_up, 'steps', good_steps)
    environment.clear()
    set_up.set_up(train=False)
    assert environment == ['environment', 'vehicle', 'interfaces', 'projects']

"""The set-up: what is built again when, what is said when something is missing, after a kill."""

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tarfile

import interfaces
import prerequisites
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


def key(pins=ROOT / 'requirements' / 'pins.txt', python='cp311'):
    return interfaces.content_key(python, pins)


def test_copies_have_the_key_of_the_originals(copied_definitions, tmp_path):
    copied = key()
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import interfaces; from pathlib import Path; print('
            'interfaces.content_key("cp311", Path("requirements/pins.txt")))',
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


def test_everything_missing_is_named_with_one_apt_line(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(prerequisites.PrerequisiteError) as missing:
        prerequisites.check_packages(build_needed=True)
    assert 'C++ compiler' in str(missing.value)
    assert str(missing.value).endswith('sudo apt install g++ cmake')


def test_no_compiler_is_asked_for_when_the_build_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    prerequisites.check_packages(build_needed=False)


@pytest.mark.parametrize(
    'version, fits',
    [('3.16.3', False), ('3.18.4', False), ('3.22.1', True), ('4.0.2', True), ('unknown', False)],
)
def test_cmake_must_be_new_enough(tmp_path, monkeypatch, version, fits):
    cmake = tmp_path / 'cmake'
    cmake.write_text(f'#!/bin/sh\necho "cmake version {version}"\n')
    cmake.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert (prerequisites.missing_cmake() == []) == fits


def test_a_python_that_is_too_new_is_replaced_by_one_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(sys, 'version_info', (3, 14, 0))
    broken = tmp_path / 'python3.12'
    broken.write_text('#!/bin/sh\nexit 127\n')
    broken.chmod(0o755)
    with pytest.raises(prerequisites.PrerequisiteError, match='sudo apt install'):
        prerequisites.fitting_python()
    good = tmp_path / 'python3.10'
    good.write_text('#!/bin/sh\necho 3 10\n')
    good.chmod(0o755)
    assert prerequisites.fitting_python() == str(good)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An empty place for `.venv`; nothing is installed there, each step notes its name instead."""
    performed = []
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

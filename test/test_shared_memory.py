"""Shared memory of killed processes is removed, that of living ones never."""

import fcntl
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.ros.shared_memory import YOUNG_S, remove_abandoned

LONG_AGO = time.time() - 60


def made(folder, *names):
    for name in names:
        (folder / name).write_bytes(b'x' * 4096)
        os.utime(folder / name, (LONG_AGO, LONG_AGO))
    return {folder / name for name in names}


def test_only_what_nobody_holds_is_removed(tmp_path):
    dead = made(tmp_path, 'fastdds_0123456789abcdef', 'fastdds_0123456789abcdef_el')
    dead |= made(tmp_path, 'fastrtps_port7411', 'fastrtps_port7411_sl')
    dead |= made(tmp_path, 'sem.fastrtps_port7411_mutex')
    living = made(tmp_path, 'fastdds_00000000000000aa', 'fastdds_00000000000000aa_el')
    living |= made(
        tmp_path, 'fastdds_port7000', 'fastdds_port7000_sl', 'sem.fastdds_port7000_mutex'
    )
    others = made(tmp_path, 'sem.mp-abc', 'my_segment', 'my_segment_el', 'fastdds_notes_el')
    with (
        open(tmp_path / 'fastdds_00000000000000aa_el') as alone,
        open(tmp_path / 'fastdds_port7000_sl') as shared,
    ):
        fcntl.flock(alone, fcntl.LOCK_EX)
        fcntl.flock(shared, fcntl.LOCK_SH)
        removed = remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == living | others
    assert removed.segments == 1 and removed.bytes == len(dead) * 4096


def test_a_segment_that_is_just_being_made_is_left_alone(tmp_path):
    made(tmp_path, 'fastdds_0123456789abcdef')
    (tmp_path / 'fastdds_0123456789abcdef_el').touch()  # its maker has not locked it yet
    assert remove_abandoned(tmp_path) == (0, 0)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_shared_memory_at_all_is_no_error(tmp_path):
    assert remove_abandoned(tmp_path / 'shm') == (0, 0)


PARTICIPANT = """
import time
from mta_perception.ros.environment import prepare
prepare()
import rclpy
rclpy.init()
node = rclpy.create_node('somebody')
print('a node is there', flush=True)
time.sleep(60)
"""


def owned_by(pid):
    """The files of /dev/shm that a process has made: those whose lock file it has open."""
    open_files = {os.readlink(path) for path in Path(f'/proc/{pid}/fd').iterdir()}
    locks = {Path(name) for name in open_files if name.endswith('_el')}
    return locks | {lock.with_name(lock.name.removesuffix('_el')) for lock in locks}


def test_a_killed_process_leaves_nothing_and_a_living_one_keeps_all(tmp_path):
    pytest.importorskip('rclpy')
    environment = ros_environment(free_domain())
    command = [sys.executable, '-c', PARTICIPANT]
    with (
        Child('killed', command, tmp_path / 'killed.log', environment) as killed,
        Child('living', command, tmp_path / 'living.log', environment) as living,
    ):
        killed.wait_for('a node is there', 30)
        living.wait_for('a node is there', 30)
        left, kept = owned_by(killed.pid), owned_by(living.pid)
        assert any(path.stat().st_size > 100_000_000 for path in left), 'our profile is not used'
        os.kill(killed.pid, signal.SIGKILL)
        time.sleep(YOUNG_S)
        remove_abandoned()
        assert not [path for path in left if path.exists()]
        assert all(path.exists() for path in kept) and living.running()


@pytest.mark.parametrize('before', ['', 'signal.signal(signal.SIGINT, signal.SIG_IGN)\n'])
def test_a_child_ends_with_its_parent(tmp_path, before):
    """Also where SIGINT is ignored, as for all that a script starts in the background."""
    code = (
        f'import signal, sys\n{before}'
        'from mta_perception.commands.processes import Child\n'
        'child = Child("sleeper", ["sleep", "60"], sys.argv[1])\n'
        'print(child.pid, flush=True)\n'
        'input()\n'
    )
    parent = subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path / 'log')],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(parent.stdout.readline())
    assert Path(f'/proc/{pid}').exists()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while _runs(pid):
        assert time.monotonic() < deadline, 'the child outlived its parent'
        time.sleep(0.05)


def _runs(pid):
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
    except OSError:
        return False
    return state != 'Z'


@pytest.mark.parametrize(
    'number, words', [('BUS', 'SIGBUS (most likely /dev/shm is full'), ('USR1', 'SIGUSR1;')]
)
def test_a_child_that_ends_by_a_signal_is_named_by_it(tmp_path, number, words):
    with Child('victim', ['sh', '-c', f'kill -{number} $$'], tmp_path / 'log') as victim:
        while victim.running():
            time.sleep(0.02)
        with pytest.raises(RuntimeError) as ended:
            victim.check()
    assert f'the victim process was ended by {words}' in str(ended.value)

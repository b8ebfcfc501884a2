"""Files and directories appear whole or not at all; one process writes a directory; full disks."""

import errno
import fcntl
import os
from pathlib import Path
import pickle
import resource
import signal
import subprocess
import sys
import time

import pytest

from mta_perception.atomic_files import renewed, swap_by_two_renames, whole, write_atomically
from mta_perception.directory_lock import BusyError, DiskFullError, disk_full, sole_writer

ROOT = Path(__file__).resolve().parents[1]
PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from mta_perception.atomic_files import renewed, whole
from mta_perception.directory_lock import sole_writer
path = Path(sys.argv[1])
"""
HOLD = PRELUDE + "with sole_writer(path):\n    print('mine', flush=True)\n    time.sleep(60)\n"


def start(program, path):
    """A Python process; its standard output is a pipe."""
    return subprocess.Popen(
        [sys.executable, '-c', program, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )


@pytest.fixture
def holder():
    """A function (directory) -> process that writes it until it is killed."""
    started = []

    def hold(directory):
        process = start(HOLD, directory)
        started.append(process)
        assert process.stdout.readline() == 'mine\n'
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def small_files():
    """No file of this process gets larger than 4 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_replaces_the_one_before(tmp_path):
    path = tmp_path / 'deep' / 'text.json'
    write_atomically(path, 'one')
    write_atomically(path, b'two')
    assert path.read_text() == 'two' and os.listdir(path.parent) == ['text.json']


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a.png'
    path.write_text('before')
    with pytest.raises(OSError, match='broken'), whole(path) as place:
        place.write_text('half')
        assert place.name == 'a.png' and path.read_text() == 'before'
        raise OSError('broken')
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['a.png']


def test_a_directory_appears_with_all_it_holds(tmp_path):
    with whole(tmp_path / 'bag') as place:
        place.mkdir()
        (place / 'data').write_text('x')
        assert not (tmp_path / 'bag').exists()
    assert (tmp_path / 'bag' / 'data').read_text() == 'x' and os.listdir(tmp_path) == ['bag']


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path):
    left = tmp_path / '.partial-bag' / 'bag'
    left.mkdir(parents=True)
    (left / 'half').write_text('x')
    with whole(tmp_path / 'bag') as place:
        place.mkdir()
    assert os.listdir(tmp_path) == ['bag'] and not os.listdir(tmp_path / 'bag')


def test_two_who_write_the_same_do_not_meet(tmp_path):
    path = tmp_path / 'a'
    with whole(path) as one, whole(path) as other:
        one.write_text('one')
        other.write_text('other')
        assert one != other
    assert path.read_text() == 'one' and os.listdir(tmp_path) == ['a']  # the last to end


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    path = tmp_path / 'a'
    program = """
with whole(path) as place:
    place.write_text('slow')
    print(place, flush=True)
    time.sleep(60)
"""
    other = start(PRELUDE + program, path)
    place = Path(other.stdout.readline().strip())
    with whole(path) as mine:
        mine.write_text('quick')
    assert place.read_text() == 'slow' and path.read_text() == 'quick'
    other.kill()
    other.wait()
    other.stdout.close()
    with whole(path) as mine:  # now that one is dead
        mine.write_text('again')
    assert os.listdir(tmp_path) == ['a']


def test_a_directory_is_not_replaced_unasked(tmp_path):
    write_atomically(tmp_path / 'bag' / 'data', 'old')
    with pytest.raises(FileExistsError, match='bag is there already'):
        with whole(tmp_path / 'bag') as place:
            place.mkdir()
    assert (tmp_path / 'bag' / 'data').read_text() == 'old'


@pytest.mark.parametrize('link', [False, True])
def test_a_directory_is_replaced_in_one_step(tmp_path, link):
    write_atomically(tmp_path / 'real' / 'data', 'old')
    path = tmp_path / 'real'
    if link:
        path = tmp_path / 'link'
        path.symlink_to('real')
    with whole(path, replace=True) as place:
        write_atomically(place / 'data', 'new')
        assert (path / 'data').read_text() == 'old'
    assert (path / 'data').read_text() == 'new' and path.is_symlink() == link
    assert not [name for name in os.listdir(tmp_path) if name.startswith('.')]


def test_killed_between_two_renames_the_one_before_comes_back(tmp_path):
    """Where the file system cannot exchange two names."""
    write_atomically(tmp_path / 'model' / 'data', 'old')
    program = """
from mta_perception import atomic_files
renames = []
def kill_at_the_second(event, arguments):
    if event == 'os.rename' and renames:
        os.kill(os.getpid(), signal.SIGKILL)
    renames.extend([event] * (event == 'os.rename'))
with whole(path, replace=True) as place:
    place.mkdir()
    sys.addaudithook(kill_at_the_second)
    atomic_files.swap_by_two_renames(place, path)
"""
    process = start(PRELUDE + program, tmp_path / 'model')
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not (tmp_path / 'model').exists()
    with pytest.raises(OSError, match='broken'), whole(tmp_path / 'model', replace=True):
        raise OSError('broken')
    assert (tmp_path / 'model' / 'data').read_text() == 'old'
    assert os.listdir(tmp_path) == ['model']


def test_what_can_neither_be_put_nor_brought_back_is_kept(tmp_path):
    model = tmp_path / 'model'
    write_atomically(model / 'data', 'old')
    with pytest.raises(OSError, match='broken'), whole(model, replace=True) as place:
        os.rename(model, place.with_name('.before'))
        raise OSError('broken')  # as the second rename, and the one back
    with pytest.raises(OSError, match='mended'), whole(model, replace=True):
        raise OSError('mended')
    assert (model / 'data').read_text() == 'old' and os.listdir(tmp_path) == ['model']


def test_two_renames_replace_a_directory(tmp_path):
    write_atomically(tmp_path / 'model' / 'data', 'old')
    write_atomically(tmp_path / 'draft' / 'model' / 'data', 'new')
    swap_by_two_renames(tmp_path / 'draft' / 'model', tmp_path / 'model')
    assert (tmp_path / 'model' / 'data').read_text() == 'new'


def test_a_renewed_directory_keeps_foreign_files_and_drops_old_parts(tmp_path):
    model = tmp_path / 'model'
    for name in ('graph', 'old graph', 'NOTICE'):
        write_atomically(model / name, 'old')
    with renewed(model, ('graph', 'old graph')) as draft:
        (draft / 'graph').write_text('new')
    found = {path.name: path.read_text() for path in model.iterdir()}
    assert found == {'graph': 'new', 'NOTICE': 'old'} and os.listdir(tmp_path) == ['model']


def test_killed_at_any_moment_a_renewed_directory_is_the_old_one_or_the_new_one(tmp_path):
    """SIGKILL before every single call that changes a directory or opens a file to write."""
    program = """
writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
changes = {'os.rename', 'os.mkdir', 'os.rmdir', 'os.remove'}

def renew(ends_at):
    done = []
    def look(event, arguments):
        if event in changes or event == 'open' and arguments[2] & writes:
            done.append(event)
            if len(done) == ends_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(look)
    with sole_writer(path), renewed(path, ('a', 'b')) as draft:
        for name in 'ab':
            (draft / name).write_text('new')

def content():
    return {file.name: file.read_text() for file in path.iterdir()}

new = {'a': 'new', 'b': 'new', 'foreign': 'mine'}
for ends_at in range(1, 1000):
    path.mkdir(exist_ok=True)
    for file in path.iterdir():
        file.unlink()
    old = {'a': 'old', 'b': 'old', 'foreign': 'mine'}
    for name, text in old.items():
        (path / name).write_text(text)
    child = os.fork()
    if not child:
        renew(ends_at)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert content() in (old, new) and code in (0, -9), (ends_at, content(), code)
    if code == 0:
        break
assert content() == new and os.listdir(path.parent) == ['model'], os.listdir(path.parent)
print(ends_at)
"""
    process = start(PRELUDE + program, tmp_path / 'model')
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and int(output) > 15


def test_a_directory_with_folders_is_not_renewed(tmp_path):
    write_atomically(tmp_path / 'home' / 'photographs' / 'a', 'x')
    with pytest.raises(ValueError, match='home .* holds photographs'):
        with renewed(tmp_path / 'home', ('graph',)):
            pass
    assert (tmp_path / 'home' / 'photographs' / 'a').exists()


def test_the_second_writer_is_told_who_is_first(tmp_path, holder):
    out = tmp_path / 'out'
    first = holder(out)
    with pytest.raises(BusyError) as refused, sole_writer(out):
        pass
    words = str(refused.value)
    assert f'{out} is being written' in words and f'({first.pid}: ' in words
    with pytest.raises(BusyError), sole_writer(tmp_path / 'x' / '..' / 'out'):
        pass
    with sole_writer(tmp_path / 'other'):
        pass


def test_a_lock_ends_with_its_process(tmp_path, holder):
    first = holder(tmp_path / 'out')
    first.kill()
    first.wait()
    with sole_writer(tmp_path / 'out'), sole_writer(tmp_path / 'out'):  # again within: nothing
        assert os.listdir(tmp_path) == ['.out.lock']
    assert os.listdir(tmp_path) == []


def test_without_locks_all_goes_on(tmp_path, monkeypatch):
    """Some network file systems have none."""

    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', none)
    with sole_writer(tmp_path / 'out'), whole(tmp_path / 'out' / 'a') as place:
        assert str(os.getpid()) in str(place)
        place.write_text('x')
    assert os.listdir(tmp_path) == ['out'] and os.listdir(tmp_path / 'out') == ['a']


def test_who_wants_to_wait_waits_and_says_so(tmp_path, holder):
    first, said = holder(tmp_path / 'out'), []

    def waiting(words):
        said.append(words)
        first.kill()

    with sole_writer(tmp_path / 'out', waiting=waiting):
        assert len(said) == 1 and 'waiting' in said[0]
    assert os.listdir(tmp_path) == []


def test_a_folder_in_one_that_cannot_be_written_is_locked_itself(tmp_path, holder):
    out = tmp_path / 'mounted' / 'out'
    out.mkdir(parents=True)
    (out.parent / '.out.lock').mkdir()  # no file can be made there, not even by root
    holder(out)
    with pytest.raises(BusyError, match='out is being written'), sole_writer(out):
        pass


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_that_names_the_directory(tmp_path, code):
    with pytest.raises(DiskFullError) as full, sole_writer(tmp_path / 'out', then='go on'):
        with whole(tmp_path / 'out' / 'deep' / 'file') as place:
            place.write_text('half')
            raise OSError(code, os.strerror(code))
    words = str(full.value)
    assert words.startswith(f'{tmp_path / "out"}: no room') and 'make room and go on' in words
    assert '\n' not in words and os.strerror(code) in words and 'MB are free' in words
    assert full.value.errno == errno.ENOSPC and not os.listdir(tmp_path / 'out' / 'deep')


def test_a_real_limit_is_one_too(tmp_path, small_files):
    with pytest.raises(DiskFullError, match='no room'), whole(tmp_path / 'file') as place:
        place.write_bytes(bytes(8192))
    assert os.listdir(tmp_path) == []


def test_what_libraries_say_of_a_full_disk_is_known(tmp_path):
    for words in ('No space left on device (os error 28)', 'database or disk is full'):
        with pytest.raises(DiskFullError), sole_writer(tmp_path / 'out'):
            raise Exception(words)
    with pytest.raises(ValueError, match='^other$'), sole_writer(tmp_path / 'out'):
        raise ValueError('other')


def test_a_full_disk_comes_through_a_pool(tmp_path):
    error = pickle.loads(pickle.dumps(disk_full(tmp_path, 'why')))
    assert str(error) == str(disk_full(tmp_path, 'why')) and error.errno == errno.ENOSPC


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / 'pool.py'
    script.write_text(
        'import multiprocessing, os, sys, time\n'
        'from concurrent.futures import ProcessPoolExecutor\n'
        'from mta_perception.orphans import end_with_parent\n'
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        '    with ProcessPoolExecutor(1, context, end_with_parent) as pool:\n'
        '        print(pool.submit(os.getpid).result(), flush=True)\n'
        '        pool.submit(time.sleep, 60).result()\n'
    )
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the resource tracker's
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while alive(worker):
        assert time.monotonic() < deadline, 'the worker is an orphan'
        time.sleep(0.02)


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False

"""What ended processes left in /dev/shm, Fast DDS' segments and ports: removed if nobody lives.

A participant keeps `fastdds_<id>` (`fastrtps_<id>` before Fast DDS 3), with our profile 134 MB,
and holds an exclusive lock on `<that>_el` as long as it lives.  A process that is killed cannot
remove its own, and nobody else does: after a few of them /dev/shm is full, and the next process
dies of SIGBUS.  The kernel drops a dead process's lock, whoever's it was and in whichever
container, so that an unlocked file is nobody's.  (`fastdds shm clean` goes by the same locks.)
Left alone, for nothing tells whether somebody has them: a port without a lock file (84 kB; Fast
DDS takes it up again), and data sharing segments, which ROS 2 makes only where a profile asks.
"""

from contextlib import contextmanager
import fcntl
import os
from pathlib import Path
import re
import time
from typing import NamedTuple

SHARED_MEMORY = Path('/dev/shm')
# fastdds_01f63062e704ca8e_el; fastdds_port7411_el, or _sl where several read from one port.
LOCK = re.compile(r'(fastdds|fastrtps)_([0-9a-f]{16}|port\d+)_[es]l')
YOUNG_S = 2.0  # a file is made a moment before it is locked


class Removed(NamedTuple):
    """What was there of ended processes."""

    segments: int
    bytes: int


def remove_abandoned(folder: Path = SHARED_MEMORY) -> 'Removed':
    """Remove what no living process holds; returns Removed.  What we may not remove stays."""
    segments, size = 0, 0
    for lock in _locks(folder):
        held = lock.with_name(lock.name[:-3])
        with _unused(lock) as unused:
            if not unused:
                continue
            mutex = held.with_name(f'sem.{held.name}_mutex')  # ports have one
            gone = [_removed_bytes(path) for path in (held, mutex, lock)]
            segments += gone[0] is not None and 'port' not in held.name
            size += sum(filter(None, gone))
    return Removed(segments, size)


def free_bytes(folder: Path = SHARED_MEMORY) -> int:
    """Room for segments; 0 where there is no shared memory."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize


def _locks(folder):
    try:
        return sorted(path for path in folder.iterdir() if LOCK.fullmatch(path.name))
    except OSError:  # no shared memory at all
        return []


@contextmanager
def _unused(lock):
    """True while we hold the lock ourselves and the file is still the one of that name."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        yield _is_free(descriptor, lock)
    finally:
        os.close(descriptor)


def _is_free(descriptor, lock):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, named = os.fstat(descriptor), lock.stat()
    except OSError:
        return False
    return ours.st_ino == named.st_ino and time.time() - named.st_mtime > YOUNG_S


def _removed_bytes(path):
    """Bytes that went with the file; None where it was not there or is not ours to remove."""
    try:
        size = path.stat().st_blocks * 512
        path.unlink()
    except OSError:
        return None
    return size

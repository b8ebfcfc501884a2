"""One process at a time writes a directory, and a full disk is named: one line for each.

A lock is `flock` on a file beside the directory (`.NAME.lock`), which is free again when its
process dies, however it dies.  What a killed process left of the file itself is no obstacle.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
import errno
import fcntl
import os
from pathlib import Path
import shutil
import sys

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that have no errno for it: tokenizers, sqlite3.
_NO_ROOM_WORDS = ('no space left', 'disk is full')
_FULL_BELOW = 1 << 16  # bytes; torch and OpenCV only say that they could not write
_held: set[Path] = set()  # by this process


class BusyError(RuntimeError):
    """Another process writes the directory; the message says which and what to do."""


class NoLocksError(OSError):
    """The file system has no locks."""


class DiskFullError(OSError):
    """There was no room for what was to be written; the message says where."""

    reason = ''

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


def disk_full(place: str | Path, reason: str, then: str = 'try again') -> DiskFullError:
    """The error for a place without room; `then`: what to do once there is some."""
    free_mb = shutil.disk_usage(_existing(Path(place))).free / 1e6
    error = DiskFullError(
        f'{place}: no room to write ({reason}); {free_mb:.1f} MB are free there. Nothing '
        f'half-written was put into place: make room and {then}.'
    )
    error.reason = reason
    return error


def claim(path: str | Path) -> int | None:
    """Make the file `path` ours until the descriptor returned is closed or this process dies.

    None while it is another process's.  The file is made if need be; who removes it does so before
    closing the descriptor.  Raises NoLocksError where a file system has none.
    """
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise NoLocksError(error.errno, error.strerror, str(path)) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its owner removed it between our two calls


def _opened(path: str | Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except PermissionError:  # left by another user
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


@contextmanager
def sole_writer(
    directory: str | Path,
    *,
    then: str = 'run the same command again',
    waiting: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """While the block runs, no other process writes `directory`, which need not exist yet.

    then     what to do after a disk was full and is not any more
    waiting  where another process is at work, wait for it and say so; without, BusyError
    Raises BusyError, and DiskFullError for whatever the block raises where there is no room.  In
    a process that holds it already, this does nothing.
    """
    directory = Path(directory).resolve()
    if directory in _held:
        yield
        return
    lock, descriptor = _locked(directory, waiting)
    _held.add(directory)
    try:
        with suppress(OSError):  # courtesy to who comes second
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _who_we_are().encode(), 0)
        yield
    except Exception as error:
        reason = no_room(error, directory)
        if reason:
            raise disk_full(directory, reason, then) from error
        raise
    finally:
        _held.discard(directory)
        if lock != directory:
            with suppress(OSError):
                os.unlink(lock)
        os.close(descriptor)


def _locked(directory: Path, waiting: Callable[[str], None] | None) -> tuple[Path, int]:
    """(what is locked, its descriptor)."""
    lock = directory.with_name(f'.{directory.name}.lock') if directory.name else directory
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = claim(lock)
    except NoLocksError:  # whoever wants it has it
        descriptor = _opened(lock)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise disk_full(directory, str(error.strerror)) from error
        if not directory.is_dir():
            raise OSError(error.errno, error.strerror, str(directory)) from error
        lock = directory  # nothing can be made beside it: a mounted folder, say
        descriptor = _claimed_directory(directory)
    if descriptor is None:
        words = f'{directory} is being written by another process{_who_has(lock)}'
        if waiting is None:
            raise BusyError(
                f'{words}. Wait until it has ended, or name another folder; nothing was changed.'
            )
        waiting(f'{words}; waiting for it')
        descriptor = _wait_for(lock)
    return lock, descriptor


def _claimed_directory(directory: Path) -> int | None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # no locks here
        pass
    return descriptor


def _wait_for(lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDONLY) if lock.is_dir() else _opened(lock)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)


def _who_we_are() -> str:
    return f'{os.getpid()}: {" ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])}'[:100]


def _who_has(lock: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        said = lock.read_text(encoding='utf-8')
        if said.isprintable() and said:
            return f' ({said})'
    return ''


def no_room(error: BaseException, place: str | Path) -> str:
    """Why there was no room at `place`, where that is what an error comes from; else ''."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DiskFullError):
            return link.reason
        if isinstance(link, OSError) and link.errno in _NO_ROOM:
            return os.strerror(link.errno)
        if any(words in str(link).lower() for words in _NO_ROOM_WORDS):
            return os.strerror(errno.ENOSPC)
        link = link.__cause__ or link.__context__
    with suppress(OSError):
        if shutil.disk_usage(_existing(Path(place))).free < _FULL_BELOW:
            return os.strerror(errno.ENOSPC)
    return ''


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(one for one in [path, *path.absolute().parents] if one.exists())

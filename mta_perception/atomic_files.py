"""Files and directories that appear whole or not at all, and the hash of a file."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
import ctypes
import errno
import hashlib
import itertools
import os
from pathlib import Path
import shutil

from mta_perception.directory_lock import DiskFullError, NoLocksError, claim, disk_full, no_room

Name = str | Path

_LOCK, _BEFORE = '.lock', '.before'  # in the folder that something is written in
_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def sha256(path: Name) -> str:
    """Hex digest of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def whole(path: Name, replace: bool = False) -> Iterator[Path]:
    """Where to write the file or directory `path`: it is moved into place as the block ends.

    A block that raises leaves what was there before; so does one whose process is killed, and what
    it left is removed by the next.  Several processes may write the same at a time, the last one
    stays.  The place has the final name, for what is named or chosen by it, and lies in a hidden
    folder beside it.  A directory that is there and not empty is an error, unless with `replace`:
    then the new one takes its place in one step.
    """
    path = Path(path).resolve() if replace else Path(path)
    folder, claimed = _own_folder(path)
    try:
        yield folder / path.name
        _put(folder / path.name, path, replace)
    except Exception as error:
        reason = '' if isinstance(error, DiskFullError) else no_room(error, folder)
        _remove(folder, path)
        if reason:
            raise disk_full(path, reason) from error
        raise
    finally:
        _remove(folder, path)
        os.close(claimed)


def _remove(folder: Path, path: Path) -> None:
    if not _took_away(folder, path):  # or the next `whole` brings it back
        shutil.rmtree(folder, ignore_errors=True)


def _took_away(folder: Path, path: Path) -> bool:
    return (folder / _BEFORE).is_dir() and not os.path.lexists(path)


def _own_folder(path: Path) -> tuple[Path, int]:
    """(empty folder beside `path` that no other process uses, descriptor that keeps it so)."""
    for number in itertools.count(1):
        folder = path.with_name(f'.partial-{path.name}' + (f'~{number}' if number > 1 else ''))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            claimed = claim(folder / _LOCK)
        except FileNotFoundError:  # its owner is just removing it
            claimed = None
        except NoLocksError:  # then by its number
            shutil.rmtree(folder, ignore_errors=True)
            folder = path.with_name(f'.partial-{path.name}~{os.getpid()}')
            folder.mkdir(exist_ok=True)
            claimed = os.open(folder, os.O_RDONLY)
        except OSError as error:
            with suppress(OSError):
                folder.rmdir()  # where it is empty
            reason = no_room(error, path.parent)
            if reason:
                raise disk_full(path, reason) from error
            raise
        if claimed is not None:
            _remove_left(folder, path)
            return folder, claimed
    raise AssertionError('there is always another number')


def _remove_left(folder: Path, path: Path) -> None:
    """Empty a folder that a killed process may have left; what it had taken away comes back."""
    if _took_away(folder, path):
        os.rename(folder / _BEFORE, path)
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif left.name != _LOCK:
            left.unlink()


def _put(new: Path, path: Path, replace: bool) -> None:
    try:
        os.replace(new, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not path.is_dir():
            raise
        if not replace:
            raise FileExistsError(f'{path} is there already and not empty.') from error
        if not _exchange(new, path):
            swap_by_two_renames(new, path)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step; False where kernel or file system cannot."""
    try:
        call = _LIBC.renameat2
    except AttributeError:  # an old C library
        return False
    places = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    return bool(call(*places, _RENAME_EXCHANGE) == 0)


def swap_by_two_renames(new: Path, path: Path) -> None:
    """Put the directory `new` at `path`; a process killed in between leaves the one before beside
    `new`, where the next `whole` of `path` finds it."""
    before = new.with_name(_BEFORE)
    os.rename(path, before)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(before, path)
        raise


@contextmanager
def renewed(directory: Name, parts: Collection[str]) -> Iterator[Path]:
    """An empty directory to write `parts` into: it takes the place of `directory` in one step.

    Files of other names that are there already are kept.  Raises ValueError for a directory that
    cannot be replaced: it holds folders, or is a mount point, or nothing can be made beside it.
    """
    directory = Path(directory).resolve()
    there = list(directory.iterdir()) if directory.is_dir() else []
    kept = [path for path in there if path.name not in parts]
    others = [path.name for path in kept if not (path.is_file() or path.is_symlink())]
    if others:
        raise ValueError(
            f'{directory} is replaced as a whole, and holds {others[0]}, which is no file and no '
            'part of it. Name a new folder.'
        )
    if directory.is_mount() or (there and not os.access(directory.parent, os.W_OK)):
        raise ValueError(
            f'{directory} is replaced as a whole, and nothing can be put beside it. Name a folder '
            'within it.'
        )
    with whole(directory, replace=True) as draft:
        draft.mkdir()
        yield draft
        for path in kept:
            with suppress(FileNotFoundError):  # removed meanwhile
                shutil.copy2(path, draft / path.name, follow_symlinks=False)


def write_atomically(path: Name, content: str | bytes) -> None:
    """Write a small file; folders above it are made."""
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)

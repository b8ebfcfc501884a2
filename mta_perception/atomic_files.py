"""Files and directories that appear whole or not at all, and the hash of a file."""

from collections.abc import Iterator
from contextlib import contextmanager
import hashlib
import os
from pathlib import Path
import shutil

Name = str | Path


def sha256(path: Name) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@contextmanager
def whole(path: Name, shared: bool = False) -> Iterator[Path]:
    """Where to write the file or directory `path`: it is moved into place as the block ends.

    A block that raises leaves what was there before.  The place has the final name, for what is
    named or chosen by it, and lies in a hidden folder beside it.  shared: several processes may
    write this at the same time, each in a folder that ends with its number.
    """
    path = Path(path)
    folder = path.with_name(f'.partial-{path.name}' + (f'-{os.getpid()}' if shared else ''))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Name, content: str | bytes) -> None:
    """Write a small file; folders above it are made."""
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)

"""Files that appear whole or not at all, and their hashes."""

import hashlib
import os
from pathlib import Path


def sha256(path):
    """Hex digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_atomically(path, text):
    """Write a small text file; it appears whole or not at all."""
    path = Path(path)
    partial = path.with_name(f'{path.name}.partial')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)

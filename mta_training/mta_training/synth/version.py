"""Which drives this code makes: while the version is the same, so are the bytes."""

import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# What a drive goes through on its way to a bag, below the package.
_FOLDERS = ('captions', 'synth', 'conversion')


def source_version(package=_PACKAGE):
    """Hash of all code that decides what a synthetic drive and its bag look like."""
    digest = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((Path(package) / folder).rglob('*.py')):
            content = path.read_bytes()
            digest.update(f'{path.relative_to(package).as_posix()} {len(content)}\n'.encode())
            digest.update(content)
    return digest.hexdigest()[:12]

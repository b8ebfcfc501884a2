"""Find Python.h for the message packages; without python3-dev, take it from apt, without root."""

import os
from pathlib import Path
import shutil
import subprocess
import sys
import sysconfig
import tempfile

import prerequisites

# Matches the triplet of the only machine there are wheels for.
MULTIARCH_INCLUDE = Path('usr/include/x86_64-linux-gnu')


def include_folders(cache, say):
    """The folder of Python.h, and further ones that it includes from when it is not installed.

    Raises PrerequisiteError with the apt line when they are neither installed nor to be had.
    """
    installed = Path(sysconfig.get_config_var('INCLUDEPY'))
    if (installed / 'Python.h').exists():
        return [installed]
    version = 'python{}.{}'.format(*sys.version_info[:2])
    root = cache / 'headers' / version
    if not root.exists():
        say(f'fetching the headers of {version} (python3-dev is not installed)')
        if not fetch(f'lib{version}-dev', root):
            raise prerequisites.PrerequisiteError(prerequisites.missing_headers_message(installed))
    return [root / 'usr' / 'include' / version, root / 'usr' / 'include', root / MULTIARCH_INCLUDE]


def fetch(package, root):
    """Unpack a Debian package under `root`; False when apt does not have it."""
    if not (shutil.which('apt-get') and shutil.which('dpkg-deb')):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(root.parent)) as scratch:
        # apt would download as a user of its own, who may not enter here; it says so and goes on.
        got = subprocess.run(
            ['apt-get', 'download', package],
            cwd=scratch,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        archives = list(Path(scratch).glob('*.deb'))
        if got.returncode or len(archives) != 1:
            return False
        unpacked = Path(scratch) / 'root'
        if subprocess.run(['dpkg-deb', '-x', str(archives[0]), str(unpacked)]).returncode:
            return False
        os.replace(unpacked, root)
    return True

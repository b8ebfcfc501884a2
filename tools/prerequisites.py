"""What must be on the machine before anything is installed, each with the apt line that mends it.

Standard library alone. Nothing here changes the machine.
"""

import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

SUPPORTED = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14))
CMAKE_AT_LEAST = (3, 19)  # cmake_language(DEFER) in drop_dead_include_paths.cmake


class PrerequisiteError(Exception):
    """Something is missing; the message names all of it and what to type."""


def fitting_python():
    """Path of a Python that the pinned wheels exist for: the running one, else one on the PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for version in reversed(SUPPORTED):
        candidate = shutil.which('python{}.{}'.format(*version))
        if candidate and version_of(candidate) == version:
            return candidate
    raise PrerequisiteError(
        f'python3 here is {platform.python_version()}, and no python3.10 to python3.14 is on the '
        f'PATH; ROS 2 has wheels for those alone. {how_to_get_python()}\n'
        'and type the same command again.'
    )


def how_to_get_python():
    """An apt line for the newest fitting Python that apt has; another way where it has none."""
    packages = ['python{}.{}'.format(*version) for version in reversed(SUPPORTED)]
    for package in offered_by_apt(packages):
        return f'Install one:\n    {apt_line([package, f"{package}-venv"])}'
    return (
        'The packages of this distribution have none of them as far as is known here; take one '
        'from elsewhere, for example with pyenv or uv (`uv python install 3.12`), put it on the '
        'PATH'
    )


def version_of(python):
    """(major, minor) of a Python executable; None when it does not start (an empty pyenv shim)."""
    try:
        answer = subprocess.run(
            [python, '-c', 'import sys; print(*sys.version_info[:2])'],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(number) for number in answer.stdout.split())


def check_machine():
    """Refuse machines for which no ROS 2 wheels exist."""
    if (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        raise PrerequisiteError(
            f'This machine is {platform.system()} on {platform.machine()}; the ROS 2 wheels are '
            'for Linux on x86_64 alone. Install ROS 2 Jazzy or Kilted from its own packages and '
            'build with colcon (README.md, "On a machine with ROS 2").'
        )


def check_packages(build_needed):
    """Refuse a machine that lacks a package, with one apt line for everything that is missing."""
    missing = missing_venv()
    if build_needed:
        missing += missing_compiler() + missing_cmake() + missing_headers()
    if missing:
        listing = '\n'.join(f'  - {reason}' for reason, _ in missing)
        raise PrerequisiteError(
            f'Missing on this machine:\n{listing}\nInstall it and type the same command again:\n'
            f'    {apt_line([package for _, package in missing])}'
        )


def check_cache(folder):
    """Refuse a cache folder that cannot be written to, before minutes have gone by."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(folder)):
            return
    except OSError as error:
        raise PrerequisiteError(
            f'The cache folder {folder} cannot be written to ({error.strerror}); the built '
            'message packages are kept there. Name one that can:\n'
            '    export MTA_CACHE=/a/folder/of/yours\n'
            'and type the same command again.'
        ) from error


def apt_line(packages):
    """What to type to install Debian packages on this machine, as the user who types."""
    sudo = '' if os.geteuid() == 0 else 'sudo '
    line = f'{sudo}apt install {" ".join(packages)}'
    # A fresh machine or container has no package lists yet.
    if shutil.which('apt-cache') and not offered_by_apt(packages[:1]):
        line = f'{sudo}apt update && {line}'
    return line


def offered_by_apt(packages):
    """Those of these Debian packages that apt can install on this machine, in the same order."""
    apt_cache = shutil.which('apt-cache')
    if apt_cache is None:
        return []
    answer = subprocess.run(
        [apt_cache, 'policy', *packages],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, 'LC_ALL': 'C'},
    )
    candidates = re.findall(r'^(\S+):\n.*\n  Candidate: (\S+)', answer.stdout, re.MULTILINE)
    offered = {package for package, version in candidates if version != '(none)'}
    return [package for package in packages if package in offered]


def python_package(kind):
    """Debian package with a part of the running Python: its own where there is one."""
    own = 'python{}.{}-{}'.format(*sys.version_info[:2], kind)
    return own if offered_by_apt([own]) else f'python3-{kind}'


def missing_venv():
    """The venv module comes without ensurepip on Debian until python3-venv is there."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        reason = f'the Python module {error.name} (to make a virtual environment)'
        return [(reason, python_package('venv'))]
    return []


def missing_compiler():
    """CMake takes $CXX, else what it finds; the C compiler comes with the C++ one on Debian."""
    wanted = os.environ.get('CXX')
    candidates = [wanted] if wanted else ['c++', 'g++', 'clang++']
    if any(shutil.which(name) for name in candidates):
        return []
    return [(f'a C++ compiler ({" or ".join(candidates)}; it builds the message packages)', 'g++')]


def missing_cmake():
    """CMake must be there and new enough."""
    cmake = shutil.which('cmake')
    needed = '.'.join(str(number) for number in CMAKE_AT_LEAST)
    if cmake is None:
        return [(f'cmake {needed} or newer (it builds the message packages)', 'cmake')]
    answer = subprocess.run([cmake, '--version'], stdout=subprocess.PIPE, text=True)
    found = re.search(r'(\d+)\.(\d+)', answer.stdout)
    if found and tuple(int(number) for number in found.groups()) >= CMAKE_AT_LEAST:
        return []
    version = found.group() if found else 'of unknown version'
    return [(f'cmake {needed} or newer; {cmake} is {version}', 'cmake')]


def missing_headers():
    """Python.h must be installed, or apt be able to hand it over (python_headers.py)."""
    installed = Path(sysconfig.get_config_var('INCLUDEPY')) / 'Python.h'
    to_be_had = offered_by_apt(['libpython{}.{}-dev'.format(*sys.version_info[:2])])
    if installed.exists() or to_be_had:
        return []
    reason = f'the Python headers ({installed}; they build the message packages)'
    return [(reason, python_package('dev'))]


def missing_headers_message(python_headers):
    """What to say when Python.h is neither installed nor to be had from apt without root."""
    return (
        f'Missing on this machine:\n  - the Python headers ({python_headers}/Python.h; they '
        'build the message packages)\nInstall them and type the same command again:\n'
        f'    {apt_line([python_package("dev")])}'
    )

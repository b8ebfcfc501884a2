"""What must be on the machine before anything is installed, each with the apt line that mends it.

Standard library alone. Nothing here changes the machine.
"""

import os
import platform
import re
import shutil
import subprocess
import sys

SUPPORTED = ((3, 10), (3, 11), (3, 12))
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
        f'python3 here is {platform.python_version()}, and no python3.10, python3.11 or '
        'python3.12 is on the PATH; ROS 2 has wheels for those three alone. Install one, for '
        'example\n'
        '    sudo apt install python3.12 python3.12-venv\n'
        'and type the same command again.'
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
        missing += missing_compiler() + missing_cmake()
    if missing:
        listing = '\n'.join(f'  - {reason}' for reason, _ in missing)
        packages = ' '.join(package for _, package in missing)
        raise PrerequisiteError(
            f'Missing on this machine:\n{listing}\nInstall it and type the '
            f'same command again:\n    sudo apt install {packages}'
        )


def missing_venv():
    """The venv module comes without ensurepip on Debian until python3-venv is there."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        package = 'python{}.{}-venv'.format(*sys.version_info[:2])
        return [(f'the Python module {error.name} (to make a virtual environment)', package)]
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


def missing_headers_message(python_headers):
    """What to say when Python.h is neither installed nor to be had from apt without root."""
    package = 'python{}.{}-dev'.format(*sys.version_info[:2])
    return (
        f'Missing on this machine:\n  - the Python headers ({python_headers}/Python.h; they '
        'build the message packages)\nInstall them and type the same command again:\n'
        f'    sudo apt install {package}'
    )

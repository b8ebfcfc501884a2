"""Set the ROS of the shell aside where our programs run from an environment that brings its own.

`make env` installs ROS 2 as Python packages into .venv.  A shell that has sourced another ROS 2
hands down variables that would mix the two: libraries of one, messages and numpy of the other, an
RMW that only one has.  `set_aside` keeps what both can share (ROS_DOMAIN_ID, DDS profiles,
PYTHONPATH entries that hide nothing of ours) and drops the rest, said in one line on stderr.

With a ROS 2 that is really installed (apt, conda, built from source; `make ros-env`) nothing is
touched, and neither is a program of somebody else that imports the package.  Standard library
only, and called before anything else is imported.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
import os
from pathlib import Path
import sys
import sysconfig

PROGRAMS = ('mta', 'mta-train', 'perception_node')
PACKAGES = ('mta_perception', 'mta_training')
# What sourcing sets and no program of ours reads.
TELLTALES = ('ROS_DISTRO', 'ROS_VERSION', 'ROS_PYTHON_VERSION')
# With it the wheels tell themselves that they have put their libraries into LD_LIBRARY_PATH.
BOOTSTRAP = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'
BUILD_PATHS = ('CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH')


def set_aside() -> None:
    """Clean os.environ and sys.path of another ROS; start again where libraries are in the way.

    Only in our own programs, before they import anything, and only beside our own wheels of ROS.
    """
    site = Path(sysconfig.get_path('purelib'))
    if not (is_our_program(sys.argv, sys.orig_argv) and has_ros_wheels(site)):
        return
    wanted = cleaned(os.environ, Path(sys.prefix), site)
    changed = [name for name in os.environ if os.environ[name] != wanted.get(name)]
    if not changed:
        return
    dropped = _dropped(changed, wanted)
    if dropped or 'ROS_DISTRO' in changed:
        print(_words(changed, dropped), file=sys.stderr, flush=True)
    # The linker has read LD_LIBRARY_PATH already: that takes a new start.
    restart = 'LD_LIBRARY_PATH' in changed
    gone = set(_parts(os.environ, 'PYTHONPATH')) - set(_parts(wanted, 'PYTHONPATH'))
    gone |= {os.path.abspath(entry) for entry in gone}
    os.environ.clear()
    os.environ.update(wanted)
    if restart:
        os.environ.pop(BOOTSTRAP, None)
        os.execv(sys.executable, sys.orig_argv)
    sys.path[:] = [entry for entry in sys.path if entry not in gone]


def is_our_program(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """True for `mta`, `mta-train`, `perception_node` and `python -m` with one of our modules.

    argv: sys.argv, whose first is still '-m' while the parent packages of a module are imported.
    """
    if argv and argv[0] == '-m':
        return any(word.removeprefix('-m').split('.')[0] in PACKAGES for word in orig_argv[1:])
    return bool(argv) and Path(argv[0]).name in PROGRAMS


def has_ros_wheels(site: Path) -> bool:
    """True where ROS 2 is in this environment as wheels: no other kind has this metadata."""
    return any(site.glob('ros_rclpy-*.dist-info'))


def cleaned(environment: Mapping[str, str], prefix: Path, site: Path) -> dict[str, str]:
    """`environment` without what belongs to another ROS.

    prefix: sys.prefix of an environment with ROS wheels; site: its site-packages.
    """
    wanted = dict(environment)
    prefixes = _parts(environment, 'AMENT_PREFIX_PATH')
    others = [entry for entry in prefixes if entry != str(prefix)]
    sourced = 'ROS_DISTRO' in environment or any(not _is_overlay(entry) for entry in others)
    if sourced:
        for name in (*TELLTALES, *BUILD_PATHS):
            wanted.pop(name, None)
    if others:
        kept = [] if sourced else others  # workspaces built on our own wheels
        wanted['AMENT_PREFIX_PATH'] = os.pathsep.join([*kept, str(prefix)])
    if not (prefix / 'lib' / f'lib{environment.get("RMW_IMPLEMENTATION")}.so').is_file():
        wanted.pop('RMW_IMPLEMENTATION', None)
    ours = {path.name for path in site.iterdir()} - set(PACKAGES) - {'__pycache__'}
    libraries = _names(prefix / 'lib')
    if not sourced:  # a workspace built on our own wheels has its own mta_msgs
        ours = {name for name in ours if not name.startswith('mta_msgs')}
        libraries = {name for name in libraries if not name.startswith('libmta_msgs')}
    _keep(wanted, 'PYTHONPATH', lambda entry: not ours & _names(entry))
    _keep(
        wanted,
        'LD_LIBRARY_PATH',
        lambda entry: Path(entry).is_relative_to(prefix) or not libraries & _libraries(entry),
    )
    return wanted


def _is_overlay(prefix: str) -> bool:
    """True for a workspace: it is there and has no rcl of its own."""
    # Debian's multiarch puts libraries one folder deeper.
    rcl = [
        path
        for pattern in ('librcl.so*', '*/librcl.so*')
        for path in Path(prefix, 'lib').glob(pattern)
    ]
    return Path(prefix).is_dir() and not rcl


def _parts(environment: Mapping[str, str], name: str) -> list[str]:
    return [entry for entry in environment.get(name, '').split(os.pathsep) if entry]


def _names(folder: str | Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _libraries(folder: str) -> set[str]:
    return {name for name in _names(folder) if '.so' in name}


def _keep(
    environment: MutableMapping[str, str], name: str, condition: Callable[[str], bool]
) -> None:
    """Leave only the entries of a path variable that fulfil condition(entry)."""
    parts = _parts(environment, name)
    kept = [entry for entry in parts if condition(entry)]
    if kept != parts:
        environment.pop(name)
        if kept:
            environment[name] = os.pathsep.join(kept)


def _dropped(changed: Iterable[str], wanted: Mapping[str, str]) -> list[str]:
    """What of the environment is set aside, in words; nothing where a path was only added."""
    dropped = []
    for name in sorted(set(changed) - set(TELLTALES)):
        if name in wanted or name.endswith('PATH'):
            parts = [part for part in _parts(os.environ, name) if part not in _parts(wanted, name)]
            if parts:
                dropped.append(f'{parts[0]}{" and others" if parts[1:] else ""} in {name}')
        else:
            dropped.append(f'{name}={os.environ[name]}')
    return dropped


def _words(changed: Sequence[str], dropped: Sequence[str]) -> str:
    """One line: which program, whose ROS, what was set aside."""
    program = 'mta_perception' if sys.argv[0] == '-m' else Path(sys.argv[0]).name
    whose = (
        f'the ROS 2 {os.environ["ROS_DISTRO"]} of this shell' if 'ROS_DISTRO' in changed else ''
    )
    what = ': '.join(filter(None, (whose, ', '.join(dropped))))
    return f'{program}: this environment has its own ROS 2 and leaves aside {what}'

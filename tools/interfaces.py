"""Build the interface packages (vision_msgs, tf2_msgs, mta_msgs) and lay them into `.venv`.

The build is staged under a folder of its own and kept as one archive in the cache, named by a hash
of everything that decides its content: a second clone, or a new environment, only unpacks it.
Nothing in the archive names an absolute path. Standard library alone: this runs before anything is
installed.
"""

import hashlib
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import tarfile
import tempfile

import progress
import python_headers

REPOSITORY = Path(__file__).resolve().parent.parent
CMAKE_HOOK = REPOSITORY / 'tools' / 'drop_dead_include_paths.cmake'
# In the order of their dependencies.
PACKAGES = (
    REPOSITORY / 'ros2_ws' / 'underlay' / 'vision_msgs',
    REPOSITORY / 'ros2_ws' / 'underlay' / 'tf2_msgs',
    REPOSITORY / 'ros2_ws' / 'src' / 'mta_msgs',
)
# Pins whose change makes the built packages stale: what they link to and what generates them.
BUILD_PINS = ('ros-', 'numpy=', 'empy=', 'lark-parser=')
INSTALLED_FILES = 'interface_files.json'


class BuildError(Exception):
    """A build step failed; the message names the package, the log and what to look at."""


def sources():
    """Every file that takes part in the build, sorted."""
    files = [CMAKE_HOOK, Path(__file__).resolve()]
    for package in PACKAGES:
        files += [
            path
            for path in package.rglob('*')
            if path.suffix in ('.msg', '.srv', '.action', '.xml', '.txt')
        ]
    return sorted(files)


def content_key(python_tag, pins):
    """Hash of the sources, the Python they are built for and the pins they are built with."""
    digest = hashlib.sha256(f'{python_tag} {os.uname().machine}\n'.encode())
    for line in pins.read_text().splitlines():
        if line.startswith(BUILD_PINS):
            digest.update(f'{line}\n'.encode())
    for path in sources():
        digest.update(f'{path.relative_to(REPOSITORY)}\0'.encode() + path.read_bytes() + b'\0')
    return digest.hexdigest()[:24]


def cache_folder():
    """What outlives a clone: $MTA_CACHE, else a folder in the user's cache directory."""
    if os.environ.get('MTA_CACHE'):
        return Path(os.environ['MTA_CACHE'])
    user_cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(user_cache) / 'mta_perception'


def archive_path(key):
    """Where the built packages with this content key are kept."""
    return cache_folder() / 'interfaces' / f'{key}.tar.gz'


def lay_in(environment, state_folder, key, say):
    """Put the packages with this content key into `environment`; build them if need be."""
    archive = archive_path(key)
    if not is_whole(archive):
        say(
            'building the message packages vision_msgs, tf2_msgs, mta_msgs (one to three minutes, '
            'once)'
        )
        build(environment, archive, say)
    remove_installed(environment, state_folder)
    with tarfile.open(archive) as stored:
        names = [member.name for member in stored.getmembers() if not member.isdir()]
        # The list comes first: after an interruption, the next run knows what to remove.
        (state_folder / INSTALLED_FILES).write_text(json.dumps(names))
        stored.extractall(environment)


def is_whole(archive):
    """True when the archive is there and can be read to its end."""
    if not archive.exists():
        return False
    try:
        with tarfile.open(archive) as stored:
            return bool(stored.getnames())
    except (tarfile.TarError, OSError, EOFError):
        return False


def remove_installed(environment, state_folder):
    """Take out what an earlier `lay_in` has put there, so that a deleted message is gone."""
    listing = state_folder / INSTALLED_FILES
    if not listing.exists():
        return
    for name in json.loads(listing.read_text()):
        (environment / name).unlink(missing_ok=True)
    listing.unlink()


def build(environment, archive, say):
    """Configure, compile and stage all packages, then store them as `archive` in one step."""
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f'the cache {archive.parent} cannot be made ({error.strerror}): set MTA_CACHE to a '
            'folder that can be written to, e.g. MTA_CACHE=/var/tmp/mta_cache.'
        ) from error
    headers = python_headers.include_folders(cache_folder(), say)
    with tempfile.TemporaryDirectory(prefix='mta_interfaces_') as scratch:
        stage = Path(scratch) / 'stage'
        for package in PACKAGES:
            say(f'  {package.name}')
            log = Path(scratch) / f'{package.name}.log'
            log.touch()
            with progress.signs_of_life(say, lambda log=log: compiled(log)):
                folder = Path(scratch) / 'build' / package.name
                build_package(package, folder, stage, environment, headers, log)
        remove_what_names_the_prefix(stage)
        check_relocatable(stage)
        half_written = archive.with_name(f'{archive.name}.{os.getpid()}')
        with tarfile.open(half_written, 'w:gz', compresslevel=3) as stored:
            for path in sorted(stage.iterdir()):
                stored.add(path, arcname=path.name)
        os.replace(half_written, archive)


def build_package(package, build_folder, stage, environment, headers, log):
    """Run cmake and ninja for one package, with `stage` as its install prefix."""
    prefixes = [str(stage), str(environment)]
    variables = {
        **os.environ,
        'PATH': f'{environment}/bin{os.pathsep}{os.environ["PATH"]}',
        'AMENT_PREFIX_PATH': os.pathsep.join(prefixes),
        'CMAKE_PREFIX_PATH': os.pathsep.join(prefixes),
        'CPATH': os.pathsep.join(str(folder) for folder in headers),
        # A rosidl in the user's own site-packages must not take the place of the pinned one.
        'PYTHONNOUSERSITE': '1',
    }
    python = environment / 'bin' / 'python'
    purelib = site_packages(environment).relative_to(environment)
    configure = [
        'cmake',
        '-S',
        str(package),
        '-B',
        str(build_folder),
        '-G',
        'Ninja',
        f'-DCMAKE_INSTALL_PREFIX={stage}',
        f'-DCMAKE_PROJECT_INCLUDE={CMAKE_HOOK}',
        f'-DPython3_EXECUTABLE={python}',
        f'-DPYTHON_INSTALL_DIR={purelib}',
        f'-DPython3_INCLUDE_DIR={headers[0]}',
        '-DCMAKE_INSTALL_LIBDIR=lib',
        '-DCMAKE_BUILD_TYPE=Release',
        '-DBUILD_TESTING=OFF',
        '-Wno-dev',
    ]
    build_folder.mkdir(parents=True)
    for command in (configure, ['cmake', '--build', str(build_folder), '--target', 'install']):
        with log.open('a') as output:
            done = subprocess.run(command, env=variables, stdout=output, stderr=output)
        if done.returncode:
            kept = cache_folder() / f'failed_{package.name}.log'
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, kept)
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-25:])
            raise BuildError(
                f'{tail}\n\n{package.name}: `{" ".join(command[:2])}` ended with '
                f'{progress.ending(done.returncode)}. The whole log is in {kept}.'
            )


def compiled(log):
    """How far ninja is, after the `[12/34]` that it begins its lines with."""
    counts = re.findall(r'^\[(\d+)/(\d+)\]', log.read_text(errors='replace'), re.MULTILINE)
    return 'compiled {} of {} files'.format(*counts[-1]) if counts else 'cmake configures'


def remove_what_names_the_prefix(stage):
    """Take out hooks for sourcing (a venv is not sourced) and compiled Python."""
    for hook in stage.glob('share/*/local_setup.*'):
        hook.unlink()
    shutil.rmtree(stage / 'share' / 'ament_index' / 'resource_index' / 'parent_prefix_path')
    for compiled in list(stage.rglob('__pycache__')):
        shutil.rmtree(compiled)


def check_relocatable(stage):
    """Refuse an install tree whose files name the scratch folder: it would break once moved."""
    for path in stage.rglob('*'):
        if path.is_file() and not path.is_symlink():
            if str(stage).encode() in path.read_bytes():
                raise BuildError(
                    f'{path.relative_to(stage)} names the build folder {stage}; it '
                    'cannot be used from the cache. Please report this with your '
                    'cmake version.'
                )


def site_packages(environment):
    """The folder that holds the Python modules of `environment`."""
    found = sorted((environment / 'lib').glob('python3.*/site-packages'))
    if len(found) != 1:
        raise BuildError(
            f'{environment}/lib has {len(found)} site-packages folders, one was '
            'expected. Run `make clean` and try again.'
        )
    return found[0]

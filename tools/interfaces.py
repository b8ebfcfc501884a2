"""Build the interface packages (vision_msgs, tf2_msgs, mta_msgs) and lay them into the environment.

The build is staged under a folder of its own and kept as one archive in the cache, named by a hash of
everything that decides its content: a second clone, or a new environment, only unpacks it. Nothing in the
archive names an absolute path. Standard library alone: this runs before anything is installed.
"""
import hashlib
import json
import os
from pathlib import Path
import shutil
import subprocess
import tarfile
import tempfile

REPOSITORY = Path(__file__).resolve().parent.parent
CMAKE_HOOK = REPOSITORY / 'tools' / 'drop_dead_include_paths.cmake'
# In the order of their dependencies.
PACKAGES = (
    REPOSITORY / 'ros2_ws' / 'underlay' / 'vision_msgs',
    REPOSITORY / 'ros2_ws' / 'underlay' / 'tf2_msgs',
    REPOSITORY / 'ros2_ws' / 'src' / 'mta_msgs',
)
INSTALLED_FILES = 'interface_files.json'


class BuildError(Exception):
    """A build step failed; the message names the package, the log and what to look at."""


def sources():
    """Every file that takes part in the build, sorted."""
    files = [CMAKE_HOOK, Path(__file__).resolve()]
    for package in PACKAGES:
        files += [path for path in package.rglob('*')
                  if path.suffix in ('.msg', '.srv', '.action', '.xml', '.txt')]
    return sorted(files)


def content_key(python_tag, requirements_hash):
    """Hash of the sources, of the Python they are built for and of the pinned wheels they link to."""
    digest = hashlib.sha256(f'{python_tag} {os.uname().machine} {requirements_hash}'.encode())
    for path in sources():
        digest.update(f'{path.relative_to(REPOSITORY)}\0'.encode() + path.read_bytes() + b'\0')
    return digest.hexdigest()[:24]


def cache_folder():
    """Where built archives are kept: MTA_CACHE, else the user's cache directory."""
    base = os.environ.get('MTA_CACHE')
    if base:
        return Path(base) / 'interfaces'
    user_cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(user_cache) / 'mta_perception' / 'interfaces'


def lay_in(environment, state_folder, key, say):
    """Put the interface packages with this content key into `environment`, building them if need be."""
    archive = cache_folder() / f'{key}.tar.gz'
    if not is_whole(archive):
        say('building the message packages vision_msgs, tf2_msgs, mta_msgs (about a minute, once)')
        build(environment, archive, say)
    remove_installed(environment, state_folder)
    with tarfile.open(archive) as stored:
        names = [member.name for member in stored.getmembers() if not member.isdir()]
        # The list comes first: if the unpacking is interrupted, the next run still knows what to remove.
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
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='mta_interfaces_') as scratch:
        stage = Path(scratch) / 'stage'
        for package in PACKAGES:
            say(f'  {package.name}')
            build_package(package, Path(scratch) / 'build' / package.name, stage, environment)
        remove_what_names_the_prefix(stage)
        check_relocatable(stage)
        half_written = archive.with_name(f'{archive.name}.{os.getpid()}')
        with tarfile.open(half_written, 'w:gz', compresslevel=3) as stored:
            for path in sorted(stage.iterdir()):
                stored.add(path, arcname=path.name)
        os.replace(half_written, archive)


def build_package(package, build_folder, stage, environment):
    """Run cmake and ninja for one package; its install prefix is `stage`."""
    prefixes = [str(stage), str(environment)]
    variables = {
        **os.environ,
        'PATH': f'{environment}/bin{os.pathsep}{os.environ["PATH"]}',
        'AMENT_PREFIX_PATH': os.pathsep.join(prefixes),
        'CMAKE_PREFIX_PATH': os.pathsep.join(prefixes),
        # rosidl of one package reads the Python modules of its generators from the environment only.
        'PYTHONNOUSERSITE': '1',
    }
    python = environment / 'bin' / 'python'
    purelib = site_packages(environment).relative_to(environment)
    configure = [
        'cmake', '-S', str(package), '-B', str(build_folder), '-G', 'Ninja',
        f'-DCMAKE_INSTALL_PREFIX={stage}', f'-DCMAKE_PROJECT_INCLUDE={CMAKE_HOOK}',
        f'-DPython3_EXECUTABLE={python}', f'-DPYTHON_INSTALL_DIR={purelib}',
        '-DCMAKE_INSTALL_LIBDIR=lib', '-DCMAKE_BUILD_TYPE=Release', '-DBUILD_TESTING=OFF',
        '-Wno-dev',
    ]
    build_folder.mkdir(parents=True)
    log = build_folder.parent / f'{package.name}.log'
    for command in (configure, ['cmake', '--build', str(build_folder), '--target', 'install']):
        with log.open('a') as output:
            done = subprocess.run(command, env=variables, stdout=output, stderr=output)
        if done.returncode:
            kept = cache_folder().parent / f'failed_{package.name}.log'
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, kept)
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-25:])
            raise BuildError(f'{tail}\n\n{package.name}: `{" ".join(command[:2])}` failed with exit '
                             f'code {done.returncode}. The whole log is in {kept}.')


def remove_what_names_the_prefix(stage):
    """Take out what names the prefix: hooks for sourcing (a venv is not sourced), compiled Python."""
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
                raise BuildError(f'{path.relative_to(stage)} names the build folder {stage}; it cannot '
                                 'be used from the cache. Please report this with your cmake version.')


def site_packages(environment):
    """The folder that holds the Python modules of `environment`."""
    found = sorted((environment / 'lib').glob('python3.*/site-packages'))
    if len(found) != 1:
        raise BuildError(f'{environment}/lib has {len(found)} site-packages folders, one was expected. '
                         'Run `make clean` and try again.')
    return found[0]

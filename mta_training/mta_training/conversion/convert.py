"""nuScenes-format dataset -> one rosbag2 (mcap) directory a scene, as docs/bags.md describes.

Scenes are written in parallel processes, each streaming its images from disk, into a hidden
directory that is renamed once it is whole: a killed conversion leaves nothing that looks like a
bag, and the same command goes on with the scenes that are not there yet.

Images that the tables name and the disk does not have (key frames only, partial downloads, single
damaged files) are left out and counted in the bag; a scene of which none is there gets no bag.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed
import multiprocessing
import os
from pathlib import Path
import shutil
import signal
from typing import NamedTuple

from rosbags.rosbag2 import StoragePlugin, Writer
from ruamel.yaml import YAML, YAMLError

from mta_perception.atomic_files import whole
from mta_perception.directory_lock import DiskFullError, sole_writer
from mta_perception.orphans import end_with_parent
from mta_perception.progress import Progress
from mta_training.conversion.nuscenes_scene import NuScenesScene, rebuilt_caption
from mta_training.conversion.scene_writer import SceneWriter
from mta_training.conversion.table_fields import DatasetError
from mta_training.conversion.table_index import (
    TableIndex,
    build_index,
    check_tables,
    find_version,
    scene_rows,
)

# What the bag says it was made from; grows whenever the same scene gives another bag.
FORMAT = 'mta bag 2'


class Lost(NamedTuple):
    """Images of a scene that are not in its bag."""

    images: int  # lost
    of: int  # in the tables
    first: str  # sentence about the first one, '' where none is lost


class _SceneLost(Exception):
    """No image of a scene is there."""


def convert(
    dataroot,
    out,
    *,
    version=None,
    scenes=None,
    workers=None,
    progress=True,
    strict=False,
    follow_links=False,
    say=lambda line: None,
):
    """Convert the scenes of a dataset into bags below `out`; returns the list of bag directories.

    version  name of the folder with the tables, None = the only one there
    scenes   names to convert, None = all
    workers  processes, None = one per core
    strict   a lost image is an error
    follow_links  images may lie outside the dataset, where its links lead to
    say      called with sentences about what was left out
    Bags that are there already are kept.  Raises DatasetError where the dataset is not complete
    or `out` cannot be written, or no image of any scene is there; BusyError where another process
    converts into `out`.
    """
    out = Path(out)
    version = version or find_version(dataroot)
    folder = check_tables(dataroot, version)
    rows = scene_rows(folder)
    chosen = _chosen(rows, scenes, folder)
    try:
        with sole_writer(out):
            out.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(out)
            todo = [row for row in chosen if not _is_there(out / row['name'], row['token'])]
            if todo:
                settings = out, strict, follow_links
                _convert_all(Path(dataroot), version, todo, workers, progress, settings)
    except DiskFullError as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise DatasetError(f'{error.filename or out}: {error.strerror or error}.') from error
    bags = [out / row['name'] for row in chosen if (out / row['name'] / 'metadata.yaml').is_file()]
    _tell_lost(dataroot, chosen, bags, strict, say)
    return bags


def _tell_lost(dataroot, chosen, bags, strict, say):
    """Say what is not in the bags, of earlier runs too; DatasetError for no bag or `strict`."""
    if not bags:
        raise DatasetError(
            f'none of the images of {len(chosen)} scenes is in {dataroot}; expected the folders '
            'samples and sweeps beside the tables. Unpack the images there.'
        )
    losses = {bag: lost_images(bag) for bag in bags}
    losses = {bag: lost for bag, lost in losses.items() if lost.images}
    if losses:
        bag, lost = next(iter(losses.items()))
        words = (
            f'{sum(one.images for one in losses.values())} of '
            f'{sum(one.of for one in losses.values())} images of {len(losses)} scenes are lost '
            f'and not in their bags ({bag.name}: {lost.first})'
        )
        if strict:
            raise DatasetError(f'{words} Remove these bags after mending, or leave out --strict.')
        say(f'{words} Once they are there, remove the bags and convert again.')
    without = sorted({row['name'] for row in chosen} - {bag.name for bag in bags})
    if without:
        say(
            f'{len(without)} of {len(chosen)} scenes have no bag, because no image of them is '
            f'there: {", ".join(without[:3])}{" ..." if len(without) > 3 else ""}'
        )


def lost_images(bag):
    """Lost of a bag, as its conversion noted it."""
    noted = _noted(bag)
    return Lost(
        int(noted.get('images_lost', 0)),
        int(noted.get('images', 0)),
        str(noted.get('first_lost', '')),
    )


def _chosen(rows, names, folder):
    if not rows:
        raise DatasetError(f'{folder / "scene.json"} lists no scenes: nothing to convert.')
    there = [row['name'] for row in rows]
    unknown = sorted(set(names or ()) - set(there))
    if unknown:
        raise DatasetError(
            f'scene {", ".join(unknown)} is not in {folder}; it has '
            f'{", ".join(there[:10])}{" ..." if len(there) > 10 else ""}.'
        )
    return [row for row in rows if not names or row['name'] in names]


def _is_there(bag, scene_token):
    """Is `bag` the whole bag of this scene?  Raises DatasetError where it is something else."""
    if not bag.exists() or (bag.is_dir() and not any(bag.iterdir())):
        return False
    noted = _noted(bag)
    if noted.get('format') == FORMAT and noted.get('scene_token') == scene_token:
        return True
    raise DatasetError(
        f'{bag} is there already and is no bag of this scene made by this version. '
        'Remove it, or choose another --out.'
    )


def _noted(bag):
    """What the conversion that made a bag wrote into it, {} where that cannot be read."""
    try:
        text = (bag / 'metadata.yaml').read_text(encoding='utf-8')
        return YAML(typ='safe').load(text)['rosbag2_bagfile_information']['custom_data'] or {}
    except (OSError, YAMLError, KeyError, TypeError):
        return {}


def _convert_all(dataroot, version, todo, workers, show, settings):
    """settings: the last arguments of `convert_scene`, out first."""
    out = settings[0]
    index = out / '.index.sqlite'
    with Progress('scenes', len(todo), show=show) as bar:
        try:
            build_index(
                dataroot,
                version,
                index,
                rebuilt_caption,
                lambda name: bar.update(0, f'reading {name}'),
            )
            bar.update(0, 'converting')
            jobs = [(index, dataroot, version, row, *settings) for row in todo]
            for _ in _results(jobs, min(workers or os.cpu_count() or 1, len(todo))):
                bar.advance()
        finally:
            index.unlink(missing_ok=True)


def _results(jobs, workers):
    """Do all jobs, yield as each is done; the first failure ends the rest."""
    if workers == 1:
        yield from (convert_scene(*job) for job in jobs)
        return
    # Fresh interpreters: the progress bar has a thread, with which forking is not safe.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _begin_work) as pool:
        futures = [pool.submit(_convert_interruptibly, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin_work():
    end_with_parent()
    _ignore_interrupts()


def _ignore_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _convert_interruptibly(*job):
    # Ctrl-C reaches every process; one that waits for work would only print where it waits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return convert_scene(*job)
    finally:
        _ignore_interrupts()


def _remove_leftovers(out):
    """Delete what killed conversions left."""
    for path in [*out.glob('.partial-*'), *out.glob('.index*')]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def convert_scene(index_path, dataroot, version, scene_row, out, strict=True, follow_links=False):
    """Write one scene's bag into `out`; returns its directory, or None where no image is there.

    Raises DatasetError, OSError.
    """
    index = TableIndex(index_path)
    target = Path(out) / scene_row['name']
    try:
        scene = NuScenesScene(index, dataroot, version, scene_row, follow_links)
        lost = {} if strict else scene.lost_keyframes()
        with whole(target) as partial:
            with Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
                writer.set_custom_data('format', FORMAT)
                writer.set_custom_data('scene_token', scene_row['token'])
                written = SceneWriter(writer, scene, lost, strict)
                written.write()
                if written.lost:
                    writer.set_custom_data('images_lost', str(len(written.lost)))
                    writer.set_custom_data('images', str(len(written.lost) + written.written))
                    writer.set_custom_data('first_lost', written.lost[0])
            if not written.written:
                raise _SceneLost
            _sync_to_disk(partial)
        return target
    except _SceneLost:
        return None
    finally:
        index.close()


def _sync_to_disk(directory):
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

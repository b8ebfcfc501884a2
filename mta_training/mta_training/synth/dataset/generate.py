"""`synthesise`: a whole synthetic dataset, scenes in parallel, resumable."""

from concurrent.futures import ProcessPoolExecutor, wait
import json
import multiprocessing
from multiprocessing.managers import SyncManager
import os
from pathlib import Path
import queue

import cv2

from mta_perception.atomic_files import write_atomically
from mta_perception.directory_lock import DiskFullError, sole_writer
from mta_perception.orphans import end_with_parent
from mta_perception.progress import Progress
from mta_training.conversion.dataset_writer import assemble, dump
from mta_training.synth.actors.scenario import MAX_SCENES, WORLDS, scene_name
from mta_training.synth.dataset import record
from mta_training.synth.render.renderer import Renderer

SETTINGS_FILE = 'synth.json'
GENERATOR_VERSION = 2  # grows whenever the same seed gives other bytes


class SynthesisError(RuntimeError):
    """The dataset cannot be made; the message says why and what to do."""


def synthesise(
    out,
    scenes,
    seed,
    *,
    workers=None,
    image_size=(1600, 900),
    sweeps=True,
    seconds=20.0,
    lidar=True,
    world='level',
    version='v1.0-mini',
    progress=True,
):
    """Render `scenes` scenes of the world with this seed as a nuScenes v1.0 dataset in `out`.

    workers     processes; None = one per core
    image_size  (width, height), height = width * 9 / 16; intrinsics are scaled along
    sweeps      images at 12 Hz; without them only the keyframes (2 Hz)
    seconds     length of each scene, keyframes at 0, 0.5, ... below it
    lidar       write the keyframes' points; without them the rows name files that are not there
    world       `level`, or `street`, which is less kind (docs/training.md)
    version     name of the table folder; `splits.json` in it has synth_train, synth_val, synth_all

    A call with the same settings goes on where the last one stopped and may ask for more scenes.
    The bytes of tables and images depend on the settings alone, not on the number of workers.
    Raises SynthesisError; BusyError where another process writes `out`.
    """
    out = Path(out)
    width, height = image_size
    settings = record.Settings(
        int(seed), int(width), int(height), float(seconds), bool(sweeps), bool(lidar), str(world)
    )
    _check(scenes, settings, version)
    try:
        with sole_writer(out):
            _prepare(out, settings)
            parts = [record.part_path(out, scene_name(k)) for k in range(scenes)]
            todo = [k for k, part in enumerate(parts) if not part.exists()]
            title = f'rendering {len(todo)} of {scenes} scenes, frames'
            frames = len(todo) * record.frame_count(settings)
            with Progress(title, frames, show=progress) as bar:
                _render_all(out, todo, settings, workers, bar.advance)
            assemble(out, version, parts)
    except DiskFullError as error:
        raise SynthesisError(str(error)) from error
    except OSError as error:
        raise SynthesisError(
            f'{error.filename or out}: {error.strerror or error}. Is {out} a folder one can '
            'write to?'
        ) from error
    return out


def _check(scenes, settings, version):
    if not 1 <= scenes <= MAX_SCENES:
        raise SynthesisError(f'{scenes} scenes asked for; expected 1 to {MAX_SCENES}.')
    if settings.seconds < 1.0:
        raise SynthesisError(
            f'scenes of {settings.seconds} s are too short; expected at least 1 s.'
        )
    if settings.world not in WORLDS:
        raise SynthesisError(f'world {settings.world!r} is none of {", ".join(WORLDS)}.')
    if settings.seed < 0:
        raise SynthesisError(f'seed {settings.seed} is negative; expected 0 or more.')
    if settings.width < 64 or settings.height != round(settings.width * 9 / 16):
        raise SynthesisError(
            f'images of {settings.width}x{settings.height} do not show what the cameras see; '
            f'expected width x width*9/16, e.g. 1600x900 or 800x450.'
        )
    if not version or '/' in version or version.startswith('.'):
        raise SynthesisError(f'version {version!r} is no folder name; expected e.g. v1.0-mini.')


def _prepare(out, settings):
    """Make `out`, or make sure that what is in it was begun with the same settings."""
    noted = {'generator_version': GENERATOR_VERSION, **settings._asdict()}
    path = out / SETTINGS_FILE
    if path.exists():
        try:
            there = {'world': 'level', **json.loads(path.read_text())}
        except ValueError:
            there = {}
        different = sorted(key for key in noted if there.get(key) != noted[key])
        if different:
            listed = ', '.join(f'{key} {there.get(key)} (now {noted[key]})' for key in different)
            raise SynthesisError(
                f'{out} holds a synthetic dataset made with other settings: {listed}. '
                'Choose another folder, or remove this one.'
            )
        return
    # What a process left that was killed while it wrote the settings is none of these.
    if out.is_dir() and any(not path.name.startswith('.partial-') for path in out.iterdir()):
        raise SynthesisError(
            f'{out} is not empty and no synthetic dataset ({SETTINGS_FILE} is missing). '
            'Choose an empty or a new folder.'
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, dump(noted))


def _render_all(out, todo, settings, workers, report):
    workers = min(workers or os.cpu_count() or 1, len(todo))
    if workers <= 1:
        for index in todo:
            record.record_scene(out, index, settings, Renderer, report)
        return
    # Fresh interpreters: a forked one would inherit OpenCV's threads in whatever state they are.
    context = multiprocessing.get_context('spawn')
    manager = SyncManager(ctx=context)
    manager.start(end_with_parent)
    with manager:
        finished = manager.Queue()
        with ProcessPoolExecutor(workers, context, _start_worker, (finished,)) as pool:
            futures = [pool.submit(_work, out, index, settings) for index in todo]
            try:
                _follow(futures, finished, report)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _follow(futures, finished, report):
    """Pass progress on until all is done; raise what a worker raised as soon as it did."""
    waiting = set(futures)
    while waiting:
        try:
            report(finished.get(timeout=0.2))
        except queue.Empty:
            pass
        done, waiting = wait(waiting, timeout=0)
        for future in done:
            future.result()
    while not finished.empty():
        report(finished.get())


_finished = None  # the worker's end of the progress queue


def _start_worker(finished):
    global _finished
    _finished = finished
    end_with_parent()
    cv2.setNumThreads(1)


def _work(out, index, settings):
    record.record_scene(out, index, settings, Renderer, _finished.put)

"""Bags -> SceneArrays: keyframes decoded once to model size, kept in a cache that is
memory-mapped.

A scene's cache is a directory with `images.npy` (uint8) and `facts.npz`; its name holds what it
depends on, and it is renamed into place when it is whole.  2 MB a frame at nano size.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
import hashlib
import json
import multiprocessing
from pathlib import Path

import cv2
import numpy as np

from mta_perception.bags.bag_files import METADATA, BagError, bag_storage
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.contract import CAMERAS
from mta_perception.frames import ImageError
from mta_perception.orphans import end_with_parent
from mta_perception.pipeline.camera_geometry import camera_geometry
from mta_perception.progress import Progress
from mta_training.data.scene_arrays import SceneArrays, save_scene

_CACHE_VERSION = 4  # grows when the same bag gives other arrays


def read_scene(path, image):
    """SceneArrays of one bag, all in memory; the ego frame is level (geometry.level_pose)."""
    bag = SceneBag(path)
    samples = [sample.levelled() for sample in bag.samples]
    frames = len(samples)
    images = np.zeros((frames, len(CAMERAS), image.height, image.width, 3), np.uint8)
    present = np.zeros((frames, len(CAMERAS)), bool)
    wanted = {
        (camera, stamp): index
        for index, sample in enumerate(samples)
        for camera, stamp in sample.image_stamps.items()
    }
    geometry = {
        camera: camera_geometry(calibration, image)
        for camera, calibration in bag.calibrations.items()
    }
    for picture in bag.images():
        index = wanted.get((picture.camera, picture.stamp_ns))
        reader = geometry[picture.camera].reader
        if index is None or reader is None:
            continue
        slot = CAMERAS.index(picture.camera)
        try:
            # The node prepares its images with the same two calls.
            reader.read(picture, images[index, slot])
        except ImageError:
            continue  # counts as a dead camera, as in the node
        present[index, slot] = True
    matrices = np.stack([_image_from_ego(bag, sample, geometry) for sample in samples])
    kept = [np.flatnonzero(sample.num_lidar_pts + sample.num_radar_pts > 0) for sample in samples]
    return SceneArrays(
        bag.name,
        images,
        present,
        matrices.astype(np.float32),
        np.stack([sample.world_from_ego for sample in samples]),
        [sample.token for sample in samples],
        [sample.boxes[rows].astype(np.float32) for sample, rows in zip(samples, kept)],
        [sample.labels[rows] for sample, rows in zip(samples, kept)],
        [[sample.captions[row] for row in rows] for sample, rows in zip(samples, kept)],
        np.array([sample.stamp_ns for sample in samples], np.int64),
    )


def _image_from_ego(bag, sample, geometry):
    """(6, 3, 4): each camera at its own stamp, points in the ego frame at the sample's."""
    matrices = np.zeros((len(CAMERAS), 3, 4))
    for slot, camera in enumerate(CAMERAS):
        if camera in sample.image_stamps and camera in geometry and not geometry[camera].fault:
            world_from_ego_then = bag.world_from_ego_at(sample.image_stamps[camera])
            matrices[slot] = geometry[camera].image_from_ego(
                world_from_ego_then, sample.world_from_ego
            )
    return matrices


def cache_path(bag, cache, image):
    """Where a bag's cache lies; changes with bag, image size and this code's version."""
    bag = Path(bag)
    storage = bag_storage(bag)
    stat = (storage / METADATA if storage.is_dir() else storage).stat()
    key = json.dumps(
        [
            _CACHE_VERSION,
            image.width,
            image.height,
            image.scale,
            str(bag.resolve()),
            stat.st_mtime_ns,
            stat.st_size,
        ]
    )
    return Path(cache) / f'{bag.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}'


def cache_scene(bag, cache, image):
    """Decode a bag into its cache unless that is there; returns the cache's directory."""
    target = cache_path(bag, cache, image)
    if target.is_dir():
        return target
    cv2.setNumThreads(1)
    return save_scene(read_scene(bag, image), target)


def cache_scenes(bags, cache, image, workers=2):
    """Caches of many bags, decoded in parallel; their directories in order."""
    Path(cache).mkdir(parents=True, exist_ok=True)
    missing = [bag for bag in bags if not cache_path(bag, cache, image).is_dir()]
    if len(missing) > 1 and workers > 1:
        _decode_together(missing, cache, image, workers)
    return [cache_scene(bag, cache, image) for bag in bags]


def _decode_together(bags, cache, image, workers):
    # Fresh interpreters: threads of torch may hold locks that forked copies would wait for.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, end_with_parent) as pool:
        try:
            futures = [pool.submit(cache_scene, bag, cache, image) for bag in bags]
            with Progress('decoding', len(bags)) as progress:
                for future in as_completed(futures):
                    future.result()
                    progress.advance()
        except BrokenProcessPool as error:
            raise BagError(
                f'a process that decoded bags into {cache} was killed, most likely for '
                'want of memory. What is decoded is kept: run again, or with fewer '
                'processes at work beside it.'
            ) from error

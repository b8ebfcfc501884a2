"""Bags -> SceneArrays: keyframes decoded once to model size, kept in a cache that is
memory-mapped.

A scene's cache is a directory with `images.npy` (uint8) and `facts.npz`; its name holds what it
depends on, and it is renamed into place when it is whole.  2 MB a frame at nano size.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np

from mta_perception.atomic_files import whole
from mta_perception.bags.scene_bag import BagError, SceneBag
from mta_perception.contract import CAMERAS
from mta_perception.pipeline.camera_geometry import camera_geometry
from mta_perception.pipeline.images import ImageError, model_image
from mta_perception.progress import Progress
from mta_training.data.batches import SceneArrays

_CACHE_VERSION = 3  # grows when the same bag gives other arrays


def read_scene(path, image):
    """SceneArrays of one bag, all in memory."""
    bag = SceneBag(path)
    samples = bag.samples
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
        plan = geometry[picture.camera].plan
        if index is None or plan is None:
            continue
        slot = CAMERAS.index(picture.camera)
        try:
            # The node prepares its images with the same two calls.
            model_image(picture, plan, images[index, slot])
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
    stat = (bag / 'metadata.yaml').stat()
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
    scene = read_scene(bag, image)
    try:
        with whole(target, shared=True) as partial:
            partial.mkdir()
            np.save(partial / 'images.npy', scene.images)
            np.savez(
                partial / 'facts.npz',
                present=scene.present,
                image_from_ego=scene.image_from_ego,
                world_from_ego=scene.world_from_ego,
                stamps_ns=scene.stamps_ns,
                boxes=np.concatenate(scene.boxes),
                labels=np.concatenate(scene.labels),
                counts=np.array([len(labels) for labels in scene.labels]),
                words=np.array(json.dumps([scene.name, scene.sample_tokens, scene.captions])),
            )
    except OSError:
        if not target.is_dir():  # another process may have been faster
            raise
    return target


def load_scene(directory):
    """SceneArrays of a cache directory; its images stay on disk, memory-mapped."""
    directory = Path(directory)
    with np.load(directory / 'facts.npz') as facts:
        name, tokens, captions = json.loads(str(facts['words']))
        ends = np.cumsum(facts['counts'])[:-1]
        return SceneArrays(
            name,
            np.load(directory / 'images.npy', mmap_mode='r'),
            facts['present'],
            facts['image_from_ego'],
            facts['world_from_ego'],
            tokens,
            np.split(facts['boxes'], ends),
            np.split(facts['labels'], ends),
            captions,
            facts['stamps_ns'],
        )


def cache_scenes(bags, cache, image, workers=2):
    """Caches of many bags, decoded in parallel; their directories in order."""
    Path(cache).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(max(1, workers)) as pool:
        try:
            futures = [pool.submit(cache_scene, bag, cache, image) for bag in bags]
            with Progress('decoding', len(bags)) as progress:
                for future in as_completed(futures):
                    future.result()
                    progress.advance()
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise BagError(
                f'a process that decoded bags into {cache} was killed, most likely for '
                'want of memory. What is decoded is kept: run again, or with fewer '
                'processes at work beside it.'
            ) from error

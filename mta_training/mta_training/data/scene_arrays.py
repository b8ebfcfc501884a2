"""One drive as arrays, and the directory that keeps it: `images.npy` (uint8) is memory-mapped,
`facts.npz` holds the rest.  Imports no torch: who draws or decodes has no use for it.
"""

from contextlib import contextmanager
import json
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile
import zlib

import numpy as np

from mta_perception.atomic_files import whole

STEP_S = 0.5  # between the key frames of nuScenes; what a detector's history is trained with
# What numpy, zip and JSON say of damaged files.
_DAMAGE = (
    *(ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile, zlib.error),
    *(NotImplementedError, RuntimeError, AttributeError, MemoryError),  # packed in another way
)


class SceneArrays(NamedTuple):
    """One drive, decoded: T frames 0.5 s apart, cameras in contract order."""

    name: str
    images: np.ndarray  # (T, 6, H, W, 3) uint8 RGB, model size; usually memory-mapped
    present: np.ndarray  # (T, 6) bool, image was there
    image_from_ego: np.ndarray  # (T, 6, 3, 4) float32, model-size pixels, ego at reference stamp
    world_from_ego: np.ndarray  # (T, 4, 4) float64 at the reference stamps
    sample_tokens: list  # T strings
    boxes: list  # T arrays (n, 10) float32 contract.BoxCode, ego frame
    labels: list  # T arrays (n,) int64
    captions: list  # T lists of n strings, '' where there is none
    stamps_ns: np.ndarray  # (T,) int64, the reference stamps
    depth: object = (
        None  # (T, 6, H / 8, W / 8) float16 metres along the axis, 0 = unknown; or None
    )


def save_scene(scene, target):
    """Write SceneArrays as a cache directory; returns it."""
    depth = {} if scene.depth is None else {'depth': scene.depth}
    try:
        with whole(target) as partial:
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
                **depth,
            )
    except OSError:
        if not target.is_dir():  # another process may have been faster
            raise
    return target


class CacheError(ValueError):
    """A cached scene cannot be read; the message names it."""


def load_scene(directory):
    """SceneArrays of a cache directory; its images stay on disk, memory-mapped.

    Raises CacheError for one that is damaged; nothing in it is unpickled.
    """
    directory = Path(directory)
    with named_damage(f'{directory}: the cached scene', 'Remove this directory'):
        return _load_scene(directory)


@contextmanager
def named_damage(what, mend):
    """Turns every error of reading a damaged cache file into a CacheError of one line.

    what: is damaged; mend: what to do, after which the next run makes it again
    """
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CacheError(
            f'{what} is damaged ({reason}). {mend}; the next run makes it again from its bag.'
        ) from None


def _load_scene(directory):
    with np.load(directory / 'facts.npz', allow_pickle=False) as facts:
        name, tokens, captions = json.loads(str(facts['words']))
        ends = np.cumsum(facts['counts'])[:-1]
        return SceneArrays(
            name,
            np.lib.format.open_memmap(directory / 'images.npy', mode='r'),
            facts['present'],
            facts['image_from_ego'],
            facts['world_from_ego'],
            tokens,
            np.split(facts['boxes'], ends),
            np.split(facts['labels'], ends),
            captions,
            facts['stamps_ns'],
            facts['depth'] if 'depth' in facts else None,
        )


def step_indices(stamps_ns, step_s=STEP_S):
    """Indices of the frames that lie a step or more apart, from the first on."""
    kept, last = [], None
    for index, stamp_ns in enumerate(np.asarray(stamps_ns).tolist()):
        if last is None or stamp_ns - last >= 0.8 * step_s * 1e9:
            kept.append(index)
            last = stamp_ns
    return kept


def every_step(scene, step_s=STEP_S):
    """The frames of a scene that lie a step or more apart, from its first on: all of nuScenes',
    every fifth of key frames at 10 Hz.  Training takes the frame before as what was half a second
    ago."""
    kept = step_indices(scene.stamps_ns, step_s)
    if len(kept) == len(scene.stamps_ns):
        return scene
    return scene._replace(
        images=scene.images[kept],
        present=scene.present[kept],
        image_from_ego=scene.image_from_ego[kept],
        world_from_ego=scene.world_from_ego[kept],
        sample_tokens=[scene.sample_tokens[index] for index in kept],
        boxes=[scene.boxes[index] for index in kept],
        labels=[scene.labels[index] for index in kept],
        captions=[scene.captions[index] for index in kept],
        stamps_ns=scene.stamps_ns[kept],
        depth=None if scene.depth is None else scene.depth[kept],
    )

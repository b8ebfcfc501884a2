"""What a detector sees of a scene, once for all questions: its best objects and BEV of each frame.

The detector is a model directory or a run; it drives through the bag with its memory, as in
evaluation.  Cached as one npz a bag and detector; 0.7 MB a frame at nano size, of which the BEV
is nine tenths.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mta_perception.atomic_files import whole
from mta_perception.config import MemoryConfig
from mta_perception.geometry import invert_rigid, transform_boxes
from mta_perception.model.asking import Scene
from mta_perception.pipeline.scene_memory import ego_numbers
from mta_perception.progress import Progress
from mta_training.data.scene_arrays import every_step, named_damage
from mta_training.data.scene_cache import cache_path, read_scene
from mta_training.data.scene_drive import drive_scene

_VERSION = 1  # grows when the same bag and detector give other arrays
MATCH_M = 2.0  # an object is found where a query of its class lies within this


class SceneFrames(NamedTuple):
    """T key frames of a scene, as a detector sees them; the ego frame is level."""

    name: str
    stamps_ns: np.ndarray  # (T,) int64
    world_from_ego: np.ndarray  # (T, 4, 4)
    objects: np.ndarray  # (T, K, F) float16, best first
    boxes: np.ndarray  # (T, K, 10) float32, ego frame of each frame
    class_logits: np.ndarray  # (T, K, classes) float16
    bev: np.ndarray  # (T, C, Y, X) float16
    bev_mean: np.ndarray  # (T, C) float32, over the cells


_STORED = SceneFrames._fields[:-1]


def _with_means(*stored):
    """SceneFrames of what is stored; the means are made once, not for every question."""
    return SceneFrames(*stored, stored[-1].mean((2, 3), dtype=np.float32))


def scene_frames(bag, engine, image, identity, cache, count, memory=None):
    """SceneFrames of a bag, from the cache where it is there.

    engine    a pipeline.drive.DetectorEngine
    identity  what the cache knows the detector by
    count     K
    """
    key = hashlib.sha256(f'{_VERSION} {identity} {count}'.encode()).hexdigest()[:12]
    path = Path(cache) / f'{cache_path(bag, cache, image).name}-{key}.npz'
    if not path.is_file():
        Path(cache).mkdir(parents=True, exist_ok=True)
        frames = see(every_step(read_scene(bag, image)), engine, count, memory)
        with whole(path) as partial, open(partial, 'wb') as file:
            np.savez(file, **{name: getattr(frames, name) for name in _STORED})
    return read_frames(path)


def read_frames(path):
    """SceneFrames of a file of the cache; CacheError for a damaged one, nothing is unpickled."""
    with (
        named_damage(f'{path}: what was seen of a scene', 'Remove this file'),
        np.load(path, allow_pickle=False) as found,
    ):
        return _with_means(str(found['name']), *(found[name] for name in _STORED[1:]))


def see(scene, engine, count, memory=None):
    """SceneFrames of SceneArrays."""
    rows = []
    for driven in drive_scene(engine, scene, range(len(scene.boxes)), memory or MemoryConfig()):
        seen = driven.outputs
        best = np.argsort(-seen.class_logits.max(1), kind='stable')[:count]
        rows.append(
            (
                seen.object_features[best].astype(np.float16),
                seen.boxes[best].astype(np.float32),
                seen.class_logits[best].astype(np.float16),
                seen.bev.astype(np.float16),
            )
        )
    return _with_means(
        scene.name, scene.stamps_ns, scene.world_from_ego, *(np.stack(part) for part in zip(*rows))
    )


def all_frames(bags, engine, image, identity, cache, count, memory=None):
    """{name of the bag: SceneFrames} of bags."""
    progress = Progress('scenes seen', len(bags))
    found = [
        scene_frames(bag, engine, image, identity, cache, count, memory)
        for bag in progress.over(bags)
    ]
    return {
        Path(bag).name: frames._replace(name=Path(bag).name) for bag, frames in zip(bags, found)
    }


def scene_tensors(windows, memory):
    """Scene of B windows [(SceneFrames, first, now)], padded to the longest, at most `memory`."""
    longest = min(memory, max(now - first + 1 for _, first, now in windows))
    parts = [_window(frames, max(first, now - longest + 1), now) for frames, first, now in windows]
    padded = []
    for part in parts:
        missing = longest - len(part[0])
        padded.append(
            [np.concatenate([np.zeros((missing, *x.shape[1:]), x.dtype), x]) for x in part[:-1]]
            + [part[-1]]
        )
    tensors = [torch.from_numpy(np.stack(column)) for column in zip(*padded)]
    return Scene(*(x if x.dtype == torch.bool else x.float() for x in tensors))


def _window(frames, first, now):
    rows = slice(first, now + 1)
    poses = frames.world_from_ego
    now_from_world = invert_rigid(poses[now])
    boxes = np.stack(
        [
            transform_boxes(now_from_world @ poses[t], frames.boxes[t])
            for t in range(first, now + 1)
        ]
    )
    return [
        frames.objects[rows],
        frames.boxes[rows],
        boxes.astype(np.float32),
        frames.class_logits[rows],
        frames.bev_mean[rows],
        ego_numbers(poses[rows], frames.stamps_ns[rows]),
        np.ones(now + 1 - first, bool),
        frames.bev[now],
    ]


def matches(frames, index, boxes, labels):
    """For each true box (n, 10) of a frame: rows of the frame's objects that found it.

    Of its class or its best three, within MATCH_M on the ground, each object for its nearest box.
    """
    found = [[] for _ in boxes]
    if not len(boxes):
        return found
    offsets = frames.boxes[index][:, None, :2] - boxes[None, :, :2]
    apart = np.linalg.norm(offsets, axis=-1)  # (K, n)
    ranks = np.argsort(-frames.class_logits[index], axis=1)[:, :3]
    same = (ranks[:, :, None] == labels[None, None]).any(1)
    apart = np.where(same, apart, np.inf)
    for row in range(len(apart)):
        nearest = int(apart[row].argmin())
        if apart[row, nearest] <= MATCH_M:
            found[nearest].append(row)
    return found

"""With cameras dead, how much of what the others see is still found?  Needs the training packages.

For every set of dead cameras the same frames go through the same exported model, those images
masked as the node masks them.  Judged are the true objects whose centre a living camera sees:
found is what has a box of its class above the published threshold within 2 m.
"""

import argparse
from itertools import combinations
from pathlib import Path
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from mta_perception.bags.scene_bag import SceneBag, find_bags
from mta_perception.config import MemoryConfig
from mta_perception.contract import CAMERAS, BoxCode
from mta_perception.detections import decode
from mta_perception.pipeline.duplicates import distinct
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.share import model_directory
from mta_training.data.scene_cache import read_scene
from mta_training.data.scene_drive import drive_scene
from mta_training.evaluation.caption_matching import MATCH_M, in_range
from mta_training.evaluation.report import described_truth


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bags', type=Path, required=True, help='made by `mta-train convert`')
    parser.add_argument('--model', default='nano')
    parser.add_argument('--frames', type=int, default=sys.maxsize, help='of each bag')
    options = parser.parse_args()
    manifest = Manifest.load(model_directory(options.model))
    detector = OnnxDetector(manifest, 2)
    dead = [(), *((camera,) for camera in CAMERAS), *_pairs()]
    found = {cameras: [] for cameras in dead}  # booleans of all objects of all frames
    seen = []  # (objects, 6) booleans
    for path in find_bags(options.bags):
        scene, bag = read_scene(path, manifest.image), SceneBag(path)
        count = min(options.frames, len(scene.boxes))
        truth = [described_truth(sample.levelled()) for sample in bag.samples[:count]]
        for index, objects in enumerate(truth):
            seen.append(_seen(scene, index, objects.boxes) & in_range(objects)[:, None])
        for cameras in dead:
            outputs = drive_scene(
                detector,
                _without(scene, cameras),
                range(count),
                MemoryConfig.trained_at(manifest.history_step_s),
            )
            for objects, driven in zip(truth, outputs):
                found[cameras].append(_found(manifest, driven.outputs, objects))
    _show(dead, {cameras: np.concatenate(rows) for cameras, rows in found.items()}, seen)


def _pairs():
    """Two dead cameras: side by side, and opposite."""
    ring = [
        'cam_front',
        'cam_front_right',
        'cam_back_right',
        'cam_back',
        'cam_back_left',
        'cam_front_left',
    ]
    return [
        pair
        for pair in combinations(ring, 2)
        if ring.index(pair[1]) - ring.index(pair[0]) in (1, 3)
    ]


def _without(scene, cameras):
    columns = [CAMERAS.index(camera) for camera in cameras]
    images, present = np.array(scene.images), scene.present.copy()
    images[:, columns], present[:, columns] = 0, False
    return scene._replace(images=images, present=present)


def _seen(scene, index, boxes):
    """(objects, 6) whether a camera sees a box's centre."""
    height, width = scene.images.shape[2:4]
    centres = np.concatenate([boxes[:, BoxCode.CENTER], np.ones((len(boxes), 1))], axis=1)
    pixels = np.einsum('cij,kj->kci', scene.image_from_ego[index].astype(np.float64), centres)
    depth = pixels[..., 2]
    x, y = (pixels[..., axis] / np.maximum(depth, 1e-6) for axis in (0, 1))
    return (depth > 0.5) & (x >= 0) & (x < width) & (y >= 0) & (y < height)


def _found(manifest, outputs, objects):
    """(objects,) whether a published box of its class lies within MATCH_M."""
    boxes = distinct(
        decode(outputs, manifest.score_threshold, manifest.max_detections, manifest.calibration)
    )
    apart = np.linalg.norm(objects.boxes[:, None, :2] - boxes.boxes[None, :, :2], axis=2)
    apart[objects.labels[:, None] != boxes.labels[None]] = np.inf
    return apart.min(axis=1, initial=np.inf) < MATCH_M


def _show(dead, found, seen):
    seen = np.concatenate(seen)
    table = Table(title='Recall of what the living cameras see', title_justify='left')
    for column in ('dead', 'objects', 'healthy', 'now', 'ratio'):
        table.add_column(column)
    for cameras in dead:
        alive = [index for index, camera in enumerate(CAMERAS) if camera not in cameras]
        rows = seen[:, alive].any(axis=1)
        healthy, now = found[()][rows].mean(), found[cameras][rows].mean()
        table.add_row(
            ', '.join(cameras) or 'none',
            str(rows.sum()),
            f'{healthy:.3f}',
            f'{now:.3f}',
            f'{now / healthy:.3f}',
        )
    Console(width=110).print(table)


if __name__ == '__main__':
    main()

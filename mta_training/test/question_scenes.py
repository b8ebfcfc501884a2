"""A scene told by hand: where each object is in each frame, how the ego moves."""

import numpy as np

from mta_perception.contract import CLASSES
from mta_perception.geometry import rigid_from_yaw
from mta_training.captions.grammar import parse
from mta_training.questions.scene_facts import ObjectTrack, SceneFacts


def track(name, xy, *, frames=12, speed=0.0, seen=None, colour='', instance=None, **more):
    """ObjectTrack of a class at one place, or at (T, 2) places, in ego axes."""
    boxes = np.zeros((frames, 10))
    boxes[:, :2] = xy
    boxes[:, 3:6], boxes[:, 7] = (4.0, 2.0, 1.5), 1.0
    captions = more.get('captions', ('',) * frames)
    return ObjectTrack(
        instance=instance or f'{name}-{np.round(boxes[0, :2], 1).tolist()}',
        label=CLASSES.index(name),
        colour=colour,
        rider=more.get('rider'),
        boxes=boxes,
        speed=np.broadcast_to(np.asarray(speed, float), (frames,)).copy(),
        seen=np.ones(frames, bool) if seen is None else np.asarray(seen, bool),
        attributes=(more.get('attribute', ''),) * frames,
        told=tuple(parse(one) if one else None for one in captions),
        captions=tuple(captions),
    )


def scene(*tracks, speed=0.0, yaw_rate=0.0):
    """SceneFacts of tracks of as many frames."""
    frames = len(tracks[0].seen) if tracks else 12
    return SceneFacts(
        'told',
        np.arange(frames) * 500_000_000,
        np.stack([rigid_from_yaw(0.0, (0.5 * k, 0.0, 0.0)) for k in range(frames)]),
        np.broadcast_to(np.asarray(speed, float), (frames,)).copy(),
        np.broadcast_to(np.asarray(yaw_rate, float), (frames,)).copy(),
        tuple(tracks),
    )


def busy_scene(seed, frames=30, objects=14):
    """SceneFacts of objects that stand or go straight, drawn by a seed, around a moving ego."""
    rng = np.random.default_rng(seed)
    tracks = []
    for number in range(objects):
        name = str(rng.choice(['car', 'car', 'truck', 'bus', 'pedestrian', 'bicycle', 'barrier']))
        start, goes = rng.uniform(-40, 40, 2), rng.choice([0.0, rng.uniform(1.5, 8)])
        goes = 0.0 if name == 'barrier' else goes
        way = rng.uniform(-np.pi, np.pi)
        steps = np.arange(frames)[:, None] * 0.5
        stop = int(rng.integers(frames // 3, 2 * frames))
        moved = np.minimum(steps, 0.5 * stop) * goes * [np.cos(way), np.sin(way)]
        speed = np.where(np.arange(frames) < stop, goes, 0.0)
        xy = start + moved - steps * [4.0, 0.0]
        colour = str(rng.choice(['red', 'blue', 'white'])) if name != 'barrier' else ''
        tracks.append(
            track(
                name,
                xy,
                frames=frames,
                speed=speed,
                colour=colour,
                rider=bool(rng.integers(2)) if name == 'bicycle' else None,
                seen=(np.abs(xy) < 51.2).all(1) & (rng.random(frames) < 0.95),
                instance=f'{name}-{number}',
                attribute='vehicle.parked' if name in ('car', 'truck', 'bus') and not goes else '',
            )
        )
    turns = np.where((np.arange(frames) // 8) % 3 == 1, 0.2, 0.0)
    return scene(*tracks, speed=np.full(frames, 8.0), yaw_rate=turns)

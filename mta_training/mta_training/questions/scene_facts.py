"""What is true in a scene, from its bag: tracks over the key frames, the ego's motion, what
captions say.

T frames 0.5 s apart (`step_indices`), K objects.  Boxes are (.., 10) contract.BoxCode in the level
ego frame of their own frame, NaN where the object is not annotated.  Colour, place and relation
are known only where a caption of our grammar says them.  An object is `seen` in a frame in which a
lidar or radar point is on it and its centre lies on the bird's-eye view; only what is seen is
asked about.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.contract import CLASSES
from mta_perception.geometry import invert_rigid, transform, yaw_from_rigid
from mta_training.captions.grammar import parse
from mta_training.data.scene_arrays import STEP_S, step_indices

HALF_EXTENT_M = 51.2  # of the bird's-eye view
TURN_RADPS = 0.1  # a yaw rate above which the ego turns


class ObjectTrack(NamedTuple):
    """One object over the T frames of its scene."""

    instance: str
    label: int  # index into contract.CLASSES
    colour: str  # one of captions' COLOURS, '' unknown
    rider: object  # True, False; None unknown or none possible
    boxes: np.ndarray  # (T, 10)
    speed: np.ndarray  # (T,) over ground [m/s], NaN unknown
    seen: np.ndarray  # (T,) bool
    attributes: tuple  # T nuScenes attributes, '' for none
    told: tuple  # T captions.grammar.Facts, None where no caption of the grammar is
    captions: tuple  # T sentences, '' for none

    @property
    def name(self):
        """Class name."""
        return CLASSES[self.label]

    @property
    def distance(self):
        """(T,) metres on the ground from the ego's origin."""
        return np.hypot(self.boxes[:, 0], self.boxes[:, 1])

    @property
    def bearing(self):
        """(T,) degrees, 0 ahead, 90 left, -180 to 180."""
        return np.degrees(np.arctan2(self.boxes[:, 1], self.boxes[:, 0]))


class SceneFacts(NamedTuple):
    """A scene: its frames, the ego's motion, the objects."""

    name: str
    stamps_ns: np.ndarray  # (T,) int64
    world_from_ego: np.ndarray  # (T, 4, 4) level
    speed: np.ndarray  # (T,) of the ego [m/s], along its axis
    yaw_rate: np.ndarray  # (T,) of the ego [rad/s], to the left
    objects: tuple  # K ObjectTracks

    @property
    def frames(self):
        """How many there are."""
        return len(self.stamps_ns)

    def seen_at(self, frame):
        """ObjectTracks that are seen in a frame."""
        return [track for track in self.objects if track.seen[frame]]

    def track(self, instance):
        """ObjectTrack of an instance token."""
        return next(track for track in self.objects if track.instance == instance)


def scene_facts(bag):
    """SceneFacts of a SceneBag."""
    kept = step_indices([sample.stamp_ns for sample in bag.samples])
    samples = [bag.samples[index].levelled() for index in kept]
    stamps = np.array([sample.stamp_ns for sample in samples], np.int64)
    poses = np.array([sample.world_from_ego for sample in samples])
    speed, yaw_rate = ego_motion(stamps, poses)
    rows = {}  # instance -> {frame: row of its sample}
    for frame, sample in enumerate(samples):
        for row, instance in enumerate(sample.instances):
            rows.setdefault(instance, {})[frame] = row
    # Without any point in the whole scene nobody counted them: then all that is annotated counts.
    counted = any((s.num_lidar_pts + s.num_radar_pts).any() for s in samples)
    objects = [_track(name, places, samples, counted) for name, places in rows.items()]
    return SceneFacts(bag.name, stamps, poses, speed, yaw_rate, tuple(objects))


def ego_motion(stamps_ns, world_from_ego):
    """(speed (T,) [m/s] along the ego's axis, yaw rate (T,) [rad/s]), between the frames around
    each; NaN where there is one frame alone."""
    count = len(stamps_ns)
    speed, yaw_rate = np.full(count, np.nan), np.full(count, np.nan)
    if count < 2:
        return speed, yaw_rate
    for frame in range(count):
        a, b = max(frame - 1, 0), min(frame + 1, count - 1)
        seconds = (stamps_ns[b] - stamps_ns[a]) / 1e9
        a_from_b = invert_rigid(world_from_ego[a]) @ world_from_ego[b]
        speed[frame] = np.copysign(np.hypot(*a_from_b[:2, 3]), a_from_b[0, 3]) / seconds
        yaw_rate[frame] = yaw_from_rigid(a_from_b) / seconds
    return speed, yaw_rate


def _track(instance, places, samples, counted):
    count = len(samples)
    boxes = np.full((count, 10), np.nan)
    seen = np.zeros(count, bool)
    attributes, captions, told = [''] * count, [''] * count, [None] * count
    for frame, row in places.items():
        sample = samples[frame]
        boxes[frame] = sample.boxes[row]
        points = sample.num_lidar_pts[row] + sample.num_radar_pts[row]
        seen[frame] = (points > 0 or not counted) and (
            np.abs(boxes[frame, :2]) < HALF_EXTENT_M
        ).all()
        attributes[frame], captions[frame] = sample.attributes[row], sample.captions[row] or ''
        told[frame] = _parsed(captions[frame])
    first = next(iter(places))
    riders = {attribute for attribute in attributes if attribute.startswith('cycle.')}
    return ObjectTrack(
        instance,
        int(samples[first].labels[places[first]]),
        _most([facts.thing.colour for facts in told if facts is not None]),
        None if len(riders) != 1 else riders == {'cycle.with_rider'},
        boxes,
        _speed(boxes, samples),
        seen,
        tuple(attributes),
        tuple(told),
        tuple(captions),
    )


def _parsed(caption):
    if not caption:
        return None
    try:
        return parse(caption)
    except ValueError:
        return None


def _most(words):
    """The most frequent of the words, '' for none."""
    words = [word for word in words if word]
    return max(sorted(set(words)), key=words.count) if words else ''


def _speed(boxes, samples):
    """(T,) the annotated speed; where it is unknown, that of the centres in the world."""
    speed = np.hypot(boxes[:, 8], boxes[:, 9])
    world = np.array(
        [transform(sample.world_from_ego, box[None, :3])[0] for sample, box in zip(samples, boxes)]
    )
    for frame in np.flatnonzero(~np.isnan(boxes[:, 0]) & np.isnan(speed)):
        around = [k for k in (frame - 1, frame, frame + 1) if 0 <= k < len(boxes)]
        around = [k for k in around if not np.isnan(world[k, 0])]
        if len(around) > 1:
            seconds = (samples[around[-1]].stamp_ns - samples[around[0]].stamp_ns) / 1e9
            moved = world[around[-1], :2] - world[around[0], :2]
            speed[frame] = np.hypot(*moved) / seconds
    return speed


def runs(truth, first=0, at_least_s=1.0):
    """Maximal runs (first, last) of true frames, inclusive, each as long as `at_least_s`."""
    edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(truth, np.int8), 0]))
    found = zip(edges[::2].tolist(), (edges[1::2] - 1).tolist())
    return tuple((a + first, b + first) for a, b in found if (b - a + 1) * STEP_S >= at_least_s)


def saliency(truth):
    """(T,) 0 to 1: how much of a frame and its neighbours is in a run, weights 1/4, 1/2, 1/4."""
    padded = np.pad(np.asarray(truth, np.float64), 1, mode='edge')
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]

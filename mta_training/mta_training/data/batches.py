"""Training samples: frames of scenes as arrays, a few scenes side by side.

Streamed: each slot of a batch walks along one scene and then jumps to another; the BEV of its last
step is the history of the next, so that learning to use a memory costs nothing (SOLOFusion's and
StreamPETR's streaming training).  Queued: frames in any order, each with two of the three before
it, as BEVFormer is trained; that costs two more forward passes, but half a second to a second and
a half lie between a frame and its history.
"""

from typing import NamedTuple

import numpy as np
import torch

from mta_perception.geometry import invert_rigid
from mta_training.data.augmentation import Augmentation, augment
from mta_training.data.mirror import MIRRORED_CAMERAS, View, mirrored, mirrored_motion
from mta_training.data.targets import Targets

_NANO = Augmentation()
_TRIES = 1000  # queues that may be refused in a row


class Place(NamedTuple):
    """What one slot of a batch shows."""

    scene: int
    frame: int
    continues: bool  # the slot showed this scene's frame - pace just before
    pace: int = 1  # frames since then
    mirrored: bool = False  # left and right exchanged


class Batch(NamedTuple):
    """Inputs of the detector but the history itself, and what is to be learned."""

    images: torch.Tensor  # (B, 6, H, W, 3) RGB, uint8 or float32 of the same scale
    image_from_ego: torch.Tensor  # (B, 6, 3, 4)
    camera_mask: torch.Tensor  # (B, 6)
    history_valid: torch.Tensor  # (B,)
    ego_prev_from_ego_now: torch.Tensor  # (B, 4, 4)
    targets: list  # B Targets
    captions: list  # B lists of strings
    depth: object = None  # (B, 6, H / 8, W / 8) float32 metres, 0 = unknown; None: of no frame

    def to(self, device):
        """The same with its tensors on a device; the targets stay where they are."""
        depth = self.depth if self.depth is None else self.depth.to(device, non_blocking=True)
        tensors = (part.to(device, non_blocking=True) for part in self[:5])
        return Batch(*tensors, self.targets, self.captions, depth)


class SceneStream:
    """An endless walk through scenes; the same seed and state give the same walk.

    lengths  frames of each scene; where there are more scenes, theirs repeat
    alive    function from the number of frames shown so far to the scenes to choose from (a
             range); None = those of `lengths`
    mirror   every other walk goes through a mirrored scene
    """

    def __init__(self, lengths, slots, longest=8, seed=0, alive=None, mirror=False):
        if not lengths or min(lengths) < 1:
            raise ValueError(
                f'scene lengths {lengths} leave nothing to walk; expected one or '
                'more scenes with at least one frame.'
            )
        self.lengths, self.longest, self.mirror = list(lengths), longest, mirror
        self.alive = alive or (lambda shown: range(len(self.lengths)))
        self.rng = np.random.default_rng(seed)
        self.slots = [(0, 0, 0, False)] * slots  # scene, frame, frames left, mirrored
        self.order, self.shown = [], 0

    def step(self):
        """The next Place of every slot, each in a tuple of its own."""
        places = []
        for index, (scene, frame, left, mirror) in enumerate(self.slots):
            continues = left > 0 and frame + 1 < self._length(scene)
            if continues:
                frame, left = frame + 1, left - 1
            else:
                scene, frame, left = self._jump()
                mirror = self.mirror and bool(self.rng.random() < 0.5)
            self.slots[index] = scene, frame, left, mirror
            places.append((Place(scene, frame, continues, mirrored=mirror),))
        self.shown += len(places)
        return places

    def _length(self, scene):
        return self.lengths[scene % len(self.lengths)]

    def _jump(self):
        alive = self.alive(self.shown)
        while self.order and self.order[-1] not in alive:
            self.order.pop()
        if not self.order:
            # Every scene once before any comes again.
            self.order = (alive.start + self.rng.permutation(len(alive))).tolist()
        scene = self.order.pop()
        left = int(self.rng.integers(0, self.longest))
        return scene, int(self.rng.integers(0, max(1, self._length(scene) - left))), left

    def state(self):
        """What `restore` needs to go on exactly here."""
        return {
            'slots': list(self.slots),
            'order': list(self.order),
            'shown': self.shown,
            'rng': self.rng.bit_generator.state,
        }

    def restore(self, state):
        """Go on where `state` was taken."""
        # Runs begun before there were mirrored walks wrote three values.
        self.slots = [(*slot, False)[:4] for slot in state['slots']]
        self.order, self.shown = list(state['order']), state.get('shown', 0)
        self.rng.bit_generator.state = state['rng']


class QueueStream:
    """Endless queues of Places, oldest first, whose last are all frames in a random order.

    Interface and exactness as SceneStream's.  Where a scene has not begun yet its first frame
    stands, without a history, as in BEVFormer's dataset.  There, too, another queue is drawn where
    one has a frame with nothing to learn: `empty` holds these as (scene, frame).
    """

    def __init__(self, lengths, slots, seed=0, empty=()):
        self.places = [
            (scene, frame) for scene, length in enumerate(lengths) for frame in range(length)
        ]
        if not self.places:
            raise ValueError(f'scene lengths {lengths} have no frame; expected some.')
        self.count, self.order, self.empty = slots, [], frozenset(empty)
        self.rng = np.random.default_rng(seed)

    def step(self):
        """The next queue of every slot: three Places, of which the last is learned."""
        return [self._queue() for _ in range(self.count)]

    def _queue(self):
        if not self.order:
            self.order = self.rng.permutation(len(self.places)).tolist()
        index = self.order.pop()
        for _ in range(_TRIES):
            scene, frame = self.places[index]
            frames = choose(frame, self.rng)
            if not any((scene, chosen) in self.empty for chosen in frames):
                break
            index = int(self.rng.integers(len(self.places)))
        else:
            raise ValueError(
                f'{_TRIES} queues in a row had a frame without objects: {len(self.empty)} of '
                f'{len(self.places)} frames have none; expected scenes whose neighbouring frames '
                'have some.'
            )
        paces = [0, *np.diff(frames).tolist()]
        return tuple(
            Place(scene, chosen, pace > 0, max(pace, 1)) for chosen, pace in zip(frames, paces)
        )

    def state(self):
        """What `restore` needs to go on exactly here."""
        return {'order': list(self.order), 'rng': self.rng.bit_generator.state}

    def restore(self, state):
        """Go on where `state` was taken."""
        self.order = list(state['order'])
        self.rng.bit_generator.state = state['rng']


def choose(index, rng, length=3):
    """Indices of a queue that ends at `index`: one of the `length` before it is left out."""
    before = np.arange(index - length, index)
    kept = np.delete(before, rng.integers(length))
    return [*np.maximum(kept, 0).tolist(), index]


def slot_generators(seed, step, slots):
    """A random generator for every slot of a step: what a slot sees depends on nothing else.

    So a run that is resumed, or has its slots spread over more processes, stays the same run.
    """
    return [np.random.default_rng([seed, step, slot]) for slot in slots]


def make_batch(scenes, places, generators=None, augmentation=_NANO):
    """Batch of the frames at `places`; with a generator a place, made harder as `augmentation`
    says."""
    rows = [
        _sample(scenes[place.scene], place, rng, augmentation)
        for place, rng in zip(places, generators or [None] * len(places))
    ]
    images, matrices, masks, motions = (
        torch.from_numpy(np.stack(part)) for part in list(zip(*rows))[:4]
    )
    valid = torch.tensor([float(place.continues) for place in places])
    return Batch(
        images,
        matrices,
        masks,
        valid,
        motions,
        [row[4] for row in rows],
        [row[5] for row in rows],
        _depth(scenes, places, masks),
    )


def _depth(scenes, places, masks):
    """Depth (B, 6, h, w) of the frames at `places`, unknown in missing cameras; None where no
    scene has any."""
    maps = [_depth_at(scenes[place.scene].depth, place) for place in places]
    known = [one for one in maps if one is not None]
    if not known:
        return None
    empty = np.zeros_like(known[0])
    depth = np.stack([empty if one is None else one for one in maps]).astype(np.float32)
    return torch.from_numpy(depth) * masks[:, :, None, None]


def _depth_at(depth, place):
    if depth is None:
        return None
    return depth[place.frame][MIRRORED_CAMERAS, :, ::-1] if place.mirrored else depth[place.frame]


def _sample(scene, place, rng, augmentation):
    frame = place.frame
    shown = View(
        np.array(scene.images[frame]),
        scene.present[frame].astype(np.float32),
        scene.image_from_ego[frame],
        scene.boxes[frame],
        scene.captions[frame],
    )
    if place.mirrored:
        shown = mirrored(shown)
    images, mask = shown.images, shown.camera_mask
    if rng is not None:
        images, mask = augment(images, mask, rng, augmentation)
    images[mask == 0] = 0
    motion = np.eye(4)
    if place.continues:
        before = scene.world_from_ego[frame - place.pace]
        motion = invert_rigid(before) @ scene.world_from_ego[frame]
        if place.mirrored:
            motion = mirrored_motion(motion)
    targets = Targets(torch.from_numpy(shown.boxes), torch.from_numpy(scene.labels[frame]))
    return (
        images,
        shown.image_from_ego,
        mask,
        motion.astype(np.float32),
        targets,
        shown.captions,
    )

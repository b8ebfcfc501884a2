"""Training samples: a frame and two of the three before it.

One of the three is dropped at random, so that the past is half a second to a second and a half
away and the network learns to read how far the car moved.  Only the present frame is judged; the
two before it make its history, in evaluation mode and without gradient (step.py).
"""

from typing import NamedTuple

import numpy as np
import torch

from mta_perception.geometry import invert_rigid, quaternion_from_rigid
from mta_perception.model.bevformer import Ego
from mta_perception.model.bevformer.history import relative_can_bus
from mta_training.bevformer.augmentation import distort_cameras
from mta_training.data.batches import choose
from mta_training.losses.bevformer import Targets
from mta_training.losses.bevformer_codes import LIDAR_FROM_EGO, in_range, lidar_codes

_TRIES = 1000


class Frame(NamedTuple):
    """One moment of a batch: what the network is given, and whether the history goes on."""

    images: torch.Tensor  # (B, N, H, W, 3) uint8 or float32 RGB, model size
    image_from_lidar: torch.Tensor  # (B, N, 4, 4) float32
    ego: Ego  # can_bus (B, 18) float64, relative to the frame before
    continues: torch.Tensor  # (B,) bool, the frame before is of the same scene


def absolute_can_bus(world_from_ego, motion=None):
    """(18,) float64: place, quaternion w x y z, motion, yaw [rad], yaw [degrees].

    motion  (9,) acceleration, rotation rate, velocity of the CAN bus; zeros where it has no data
    """
    x, y, z, w = quaternion_from_rigid(world_from_ego)
    yaw = float(np.arctan2(world_from_ego[1, 0], world_from_ego[0, 0]) % (2.0 * np.pi))
    return torch.tensor(
        [
            *world_from_ego[:3, 3],
            w,
            x,
            y,
            z,
            *(np.zeros(9) if motion is None else motion),
            yaw,
            np.degrees(yaw),
        ],
        dtype=torch.float64,
    )


class QueueSet:
    """Queues of SceneArrays, scenes one after the other in the order of their time.

    `motion[scene][frame]` is what absolute_can_bus takes, None = there is no CAN data.
    Raises ValueError where no frame has objects to learn.
    """

    def __init__(self, scenes, config, lidar_from_ego=LIDAR_FROM_EGO, motion=None):
        self.scenes, self.config, self.motion = scenes, config, motion
        self.lidar_from_ego = lidar_from_ego
        self.places = [
            (scene, frame)
            for scene, arrays in enumerate(scenes)
            for frame in range(len(arrays.boxes))
        ]
        self.targets = [self._targets(*place) for place in self.places]
        if not any(len(frame.labels) for frame in self.targets):
            raise ValueError(
                f'none of the {len(self.places)} frames of {len(scenes)} scenes has '
                f'objects inside {config.range_m}; expected some to learn from.'
            )

    def __len__(self):
        return len(self.places)

    def _targets(self, scene, frame):
        boxes, labels = self.scenes[scene].boxes[frame], self.scenes[scene].labels[frame]
        inside = in_range(boxes, self.config, self.lidar_from_ego)
        return Targets(
            torch.from_numpy(lidar_codes(boxes[inside], self.lidar_from_ego)),
            torch.from_numpy(labels[inside]),
        )

    def accept(self, index, rng):
        """Indices of a queue that ends at `index`, or None: one of its frames has no objects."""
        chosen = choose(index, rng)
        return chosen if all(len(self.targets[i].labels) for i in chosen) else None

    def draw(self, index, rng):
        """The queue at `index`, or, where it is refused, one at another index.

        Raises ValueError when a thousand were refused.
        """
        for _ in range(_TRIES):
            chosen = self.accept(index, rng)
            if chosen is not None:
                return chosen
            index = int(rng.integers(len(self)))
        raise ValueError(
            f'{_TRIES} queues in a row had a frame without objects; expected '
            'scenes whose neighbouring frames have some.'
        )

    def batch(self, queues, rng=None):
        """List of Frame, oldest first, and the Targets of the last, for queues of one length.

        With an `rng`, light and colours of every camera of every frame vary at random.
        """
        frames = []
        for position in range(len(queues[0])):
            rows = [
                self._row(queue[position], queue[position - 1] if position else None, rng)
                for queue in queues
            ]
            images, matrices, masks, can_bus, continues = zip(*rows)
            frames.append(
                Frame(
                    torch.from_numpy(np.stack(images)),
                    torch.from_numpy(np.stack(matrices)),
                    Ego(torch.stack(can_bus), torch.from_numpy(np.stack(masks))),
                    torch.tensor(continues),
                )
            )
        return frames, [self.targets[queue[-1]] for queue in queues]

    def _row(self, index, before, rng):
        scene, frame = self.places[index]
        arrays = self.scenes[scene]
        images = np.array(arrays.images[frame])
        if rng is not None:
            images = distort_cameras(images, rng)
        mask = arrays.present[frame].astype(np.float32)
        matrices = np.tile(np.eye(4), (len(mask), 1, 1))
        matrices[:, :3] = arrays.image_from_ego[frame]
        matrices = (matrices @ invert_rigid(self.lidar_from_ego)).astype(np.float32)
        continues = before is not None and self.places[before][0] == scene
        vector = relative_can_bus(
            self._can_bus(index),
            self._can_bus(before) if continues else None,
            self.config.quirks.raw_degrees,
        )
        return images, matrices, mask, vector, continues

    def _can_bus(self, index):
        scene, frame = self.places[index]
        return absolute_can_bus(
            self.scenes[scene].world_from_ego[frame],
            None if self.motion is None else self.motion[scene][frame],
        )

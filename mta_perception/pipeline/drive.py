"""A drive through a detector with its memory: frame after frame, as on the road.

For whoever has the frames at hand: evaluation in torch and in ONNX, calibration of int8, the
caption stage.  The memory is the vehicle's and decides by stamps and poses what a frame gets of
the past.  `PerceptionPipeline.step` makes the same three calls, recall, detector, store, between
its own checks; `test_pipeline.py` holds the two together.

It lies on the vehicle side because memory and engines do, and needs neither torch nor ROS.  What
learns from queues or slots of several drives at once (`mta_training/training/learner.py`) has its
own way: there a batch of pasts is rebuilt with the weights of the moment.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

from mta_perception.detections import Floats
from mta_perception.frames import Pixels
from mta_perception.geometry import Array
from mta_perception.pipeline.bev_memory import BevMemory, History

Outputs = TypeVar('Outputs', covariant=True)


class DetectorFrame(NamedTuple):
    """What a detector gets of one moment, but for the past."""

    stamp_ns: int
    world_from_ego: Array  # (4, 4) at the stamp
    images: Pixels  # (6, H, W, 3) RGB, model size, zeros where masked
    image_from_ego: Floats  # (6, 3, 4), pixels of `images`
    camera_mask: Floats  # (6,), 1 = present


class DetectorEngine(Protocol[Outputs]):
    """What runs a detector: runtime.onnx.OnnxDetector, runtime.torch_detector.TorchDetector."""

    def __call__(
        self,
        images: Pixels,
        image_from_ego: Floats,
        camera_mask: Floats,
        history: History,
    ) -> Outputs:
        """DetectorOutputs, or anything else with a `bev`, which comes back in a History."""


class DrivenFrame(NamedTuple):
    """One frame of a drive and what the detector made of it."""

    frame: DetectorFrame
    history: History  # what it was given of the past
    outputs: Any  # what the engine returned


def drive(
    detector: DetectorEngine[Any], frames: Iterable[DetectorFrame], memory: BevMemory
) -> Iterator[DrivenFrame]:
    """Yield a DrivenFrame for each DetectorFrame, in the order of time.

    The memory is used up: give each drive a new one.
    """
    for frame in frames:
        history = memory.recall(frame.stamp_ns, frame.world_from_ego)
        outputs = detector(frame.images, frame.image_from_ego, frame.camera_mask, history)
        memory.store(frame.stamp_ns, frame.world_from_ego, outputs.bev)
        yield DrivenFrame(frame, history, outputs)

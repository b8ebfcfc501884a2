"""A scene's keyframes through a detector, with the memory that the vehicle has."""

from mta_perception.config import MemoryConfig
from mta_perception.pipeline.bev_memory import BevMemory
from mta_perception.pipeline.drive import DetectorFrame, drive
from mta_training.data.batches import Place, make_batch


def detector_frame(scene, index):
    """DetectorFrame of one keyframe of SceneArrays."""
    batch = make_batch([scene], [Place(0, index, False)])
    return DetectorFrame(
        int(scene.stamps_ns[index]),
        scene.world_from_ego[index],
        batch.images[0].numpy(),
        batch.image_from_ego[0].numpy(),
        batch.camera_mask[0].numpy(),
    )


def drive_scene(detector, scene, frames, config=None):
    """Yield a DrivenFrame for each keyframe in `frames`, indices in the order of time.

    detector  a pipeline.drive.DetectorEngine
    config    MemoryConfig; None = keyframes half a second apart, as training has them
    """
    memory = BevMemory(config or MemoryConfig())
    return drive(detector, (detector_frame(scene, index) for index in frames), memory)

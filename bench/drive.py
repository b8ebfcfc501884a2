"""What several benchmarks share: a short synthetic drive (cached), and the model under test."""

import os

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.commands.demo import synthetic_bag
from mta_perception.config import SyncConfig
from mta_perception.contract import CAMERAS
from mta_perception.pipeline.camera_sync import CameraSync
from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.runtime.manifest import Manifest
from mta_perception.share import model_directory

DRIVE_S = 5.0


def drive():
    """SceneBag of a short synthetic drive at full resolution."""
    return SceneBag(synthetic_bag(seed=0, seconds=DRIVE_S))


def model():
    """Manifest of the model that `mta bench --model` names."""
    return Manifest.load(model_directory(os.environ.get('MTA_BENCH_MODEL', 'nano')))


def frame_sets(scene):
    """(FrameSet, EgoMotion that reaches beyond it) in order, as the node would see them."""
    sync, ego_motion = CameraSync(CAMERAS, SyncConfig()), EgoMotion()
    poses = list(zip(*scene.ego_poses))
    for image in scene.images():
        while poses and poses[0][0] <= image.stamp_ns + 50_000_000:
            ego_motion.add(*poses.pop(0))
        for frames in sync.add(image, image.stamp_ns):
            yield frames, ego_motion

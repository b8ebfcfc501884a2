"""A drive of the simulated world as arrays: drawn at the network's size, straight into training.

No file in between, no lidar: what `synth`, `convert` and the cache of a bag make of the same
scene, but for what only files have (JPEG of the full picture, key frames' lidar points).  Beside
that it has what no bag has: the depth of every place in the images.
"""

import os

import cv2
import numpy as np

from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.geometry import invert_rigid, level_pose, transform_boxes, yaw_from_rigid
from mta_perception.orphans import end_with_parent
from mta_training.captions import grammar
from mta_training.data.scene_arrays import SceneArrays, save_scene
from mta_training.synth.actors.scenario import build_scenario
from mta_training.synth.dataset.narrate import Places, facts_of
from mta_training.synth.dataset.tables import attribute_of
from mta_training.synth.render.look import scene_looks
from mta_training.synth.render.renderer import Renderer
from mta_training.synth.scene import KEYFRAME_S, CameraView
from mta_training.synth.sensors.rig import TRIGGER_US

DEPTH_STRIDE = 8
LEARNED_M = 60.0  # farther objects are nobody's business
_MOST_DEPTH_M = 200.0
_LEAST_PIXELS = 4  # of an object, in all images together


def draw_drive(seed, index, image, seconds=20.0, **world):
    """SceneArrays of the index-th scene of the world with this seed.

    image  model.camera_image.ImageConfig
    world  further settings of build_scenario

    The ego frame is level: z up along gravity, whatever the body does (docs/architecture.md).
    Same arguments, same arrays.
    """
    width, height = image.width, image.width * 9 // 16
    scenario = build_scenario(seed, index, seconds, width, height, **world)
    renderer = Renderer(scenario.town.static, scenario.weather, detail=_detail(width))
    frames, cameras = int(seconds / KEYFRAME_S), len(CAMERAS)
    images = np.zeros((frames, cameras, image.height, image.width, 3), np.uint8)
    places = image.height // DEPTH_STRIDE, image.width // DEPTH_STRIDE
    depth = np.zeros((frames, cameras, *places), np.float16)
    matrices = np.zeros((frames, cameras, 3, 4), np.float32)
    poses, boxes, labels, captions = [], [], [], []
    namer = Places(scenario.town)
    looks = scene_looks(seed, scenario)
    for frame in range(frames):
        time = frame * KEYFRAME_S
        world_from_level = level_pose(scenario.traffic.world_from_ego(time))
        pixels = np.zeros(len(scenario.traffic.agents) + 1, np.int64)  # of each, in all images
        for slot, camera in enumerate(CAMERAS):
            shot = _Shot(scenario, camera, time)
            noise = (seed * 1_000_003 + index * 10_007 + frame * 6 + slot) % (1 << 31)
            rendering = renderer.render(shot.view(noise), shot.states, shot.world_from_ego)
            shown = rendering.image[: image.height]
            if looks:
                shown = looks[camera](shown)
            images[frame, slot, : len(shown)] = shown
            metres = _depth(rendering, shot)
            depth[frame, slot, : len(metres)] = metres
            matrices[frame, slot] = shot.image_from_world() @ world_from_level
            pixels += np.bincount(rendering.instances.ravel(), minlength=len(pixels))
        seen = [
            state
            for state in scenario.traffic.states(time)
            if _is_seen(state, pixels[state.instance], world_from_level)
        ]
        poses.append(world_from_level)
        boxes.append(_boxes(seen, world_from_level))
        labels.append(np.array([CLASSES.index(state.class_name) for state in seen], np.int64))
        captions.append(_captions(scenario, seen, world_from_level, namer))
    return SceneArrays(
        f'{scenario.name}-of-{seed}',
        images,
        np.ones((frames, cameras), bool),
        matrices,
        np.stack(poses),
        [f'{seed}-{index}-{frame}' for frame in range(frames)],
        boxes,
        labels,
        captions,
        scenario.start_us * 1000 + np.arange(frames) * int(KEYFRAME_S * 1e9),
        depth,
    )


def begin_drawing():
    """What a process does before its first drive: it leaves the cores to who learns."""
    end_with_parent()
    cv2.setNumThreads(1)
    os.nice(10)


def draw_into(folder, seed, index, image, seconds, **world):
    """Draw a drive and save it below a folder; returns its directory.  What a process is asked."""
    return save_scene(draw_drive(seed, index, image, seconds, **world), folder / str(index))


def _detail(width):
    """Detail of the ground for pictures so many pixels wide."""
    return min(1.0, max(0.5, width / 1600.0))


class _Shot:
    """One camera at the moment it fires, a little before the frame's own time."""

    def __init__(self, scenario, camera, time):
        time = time + TRIGGER_US[camera] / 1e6
        self.calibration = scenario.rig.cameras[camera]
        self.exposure = scenario.rig.exposures[camera]
        self.world_from_ego = scenario.traffic.world_from_ego(time)
        self.states = scenario.traffic.states(time)
        self.world_from_camera = self.world_from_ego @ self.calibration.ego_from_camera

    def view(self, seed):
        """The CameraView that is drawn."""
        lens = self.calibration
        return CameraView(
            lens.intrinsics, lens.width, lens.height, self.world_from_camera, self.exposure, seed
        )

    def image_from_world(self):
        """(3, 4)."""
        return self.calibration.intrinsics @ invert_rigid(self.world_from_camera)[:3]


def _depth(rendering, shot):
    """Depth (h, w) [m] at the middles of the cells; 0 = sky, or too far to tell."""
    middle = slice(DEPTH_STRIDE // 2, None, DEPTH_STRIDE)
    nearness = rendering.nearness[middle, middle]
    rows, columns = np.indices(nearness.shape) * DEPTH_STRIDE + DEPTH_STRIDE // 2
    rays = (
        np.stack([columns, rows, np.ones_like(rows)], axis=-1)
        @ np.linalg.inv(shot.calibration.intrinsics).T
    )  # of depth 1, optical axes
    down = rays @ shot.world_from_camera[2, :3]  # metres of height for each of depth
    ground = np.where(down < -1e-3, -shot.world_from_camera[2, 3] / np.minimum(down, -1e-3), 0.0)
    depth = np.where(nearness > 0, 1.0 / np.maximum(nearness, 1e-6), ground)
    return np.where(depth < _MOST_DEPTH_M, depth, 0.0)


def _is_seen(state, pixels, world_from_level):
    offset = state.world_from_object[:2, 3] - world_from_level[:2, 3]
    return pixels >= _LEAST_PIXELS and np.hypot(*offset) <= LEARNED_M


def _boxes(states, world_from_level):
    """(n, 10) float32 contract.BoxCode in the level frame."""
    boxes = np.zeros((len(states), 10))
    for box, state in zip(boxes, states):
        yaw = yaw_from_rigid(state.world_from_object)
        box[:3] = state.world_from_object[:3, 3]
        box[2] += state.size[2] / 2
        box[3:6] = state.size
        box[6:] = np.sin(yaw), np.cos(yaw), *state.velocity
    return transform_boxes(invert_rigid(world_from_level), boxes).astype(np.float32)


def _captions(scenario, states, world_from_level, places):
    agents = scenario.traffic.agents
    attributes = [
        attribute_of(agents[state.instance - 1], float(np.hypot(*state.velocity)))
        for state in states
    ]
    told = facts_of(states, attributes, world_from_level, places)
    return [grammar.compose(facts) for facts, _, _ in told]

"""Drive one scene through the renderer: images, lidar points, map mask, CAN bus and table rows
on disk.
"""

from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.atomic_files import write_atomically
from mta_perception.contract import nuscenes_channel
from mta_perception.geometry import invert_rigid, level_pose, quaternion_from_rigid
from mta_training.captions import grammar
from mta_training.conversion.dataset_writer import dump
from mta_training.synth.actors.scenario import build_scenario
from mta_training.synth.dataset.narrate import Places, facts_of
from mta_training.synth.dataset.tables import (
    SceneTables,
    Shot,
    attribute_of,
    log_name,
    write_map_mask,
)
from mta_training.synth.render.look import scene_looks
from mta_training.synth.scene import CameraView
from mta_training.synth.sensors import observe
from mta_training.synth.sensors.lidar import Scan
from mta_training.synth.sensors.rig import TRIGGER_US

KEYFRAME_US = 500_000
SWEEPS_PER_KEYFRAME = 6  # 12 Hz
JPEG_QUALITY = 90
ANNOTATED_M = 70.0
CAN_HZ = 50


class Settings(NamedTuple):
    """What a dataset is made with."""

    seed: int
    width: int
    height: int
    seconds: float
    sweeps: bool
    lidar: bool
    world: str = 'level'  # of actors.scenario.WORLDS


class Seen(NamedTuple):
    """One object that cameras and lidar see at a keyframe."""

    state: object  # ObjectState at the keyframe's stamp
    sight: object  # observe.Sight
    lidar_points: int


def part_path(out, name):
    """Where the finished rows of a scene lie."""
    return out / '.scenes' / f'{name}.json'


def frame_count(settings):
    """Six-camera frames in a scene."""
    keyframes = int(settings.seconds * 2)
    return (keyframes - 1) * SWEEPS_PER_KEYFRAME + 1 if settings.sweeps else keyframes


def record_scene(out, index, settings, make_renderer, report=lambda frames: None):
    """Render the index-th scene into `out`; its row file appears last, when all else is there.

    make_renderer  function of (StaticWorld, Weather) to an object with
                   `render(view, objects, world_from_ego)`
    report         called with the number of frames finished since the last call
    """
    scenario = build_scenario(
        settings.seed, index, settings.seconds, settings.width, settings.height, settings.world
    )
    recorder = _Recorder(
        out, settings, scenario, make_renderer(scenario.town.static, scenario.weather)
    )
    step = 1 if settings.sweeps else SWEEPS_PER_KEYFRAME
    keyframes = int(settings.seconds * 2)
    for tick in range(0, (keyframes - 1) * SWEEPS_PER_KEYFRAME + 1, step):
        recorder.frame(tick)
        report(1)
    rows, sentences = recorder.finish(keyframes)
    write_map_mask(out / 'maps' / f'{scenario.name}.png', scenario.town.static)
    write_atomically(out / 'can_bus' / f'{scenario.name}_pose.json', dump(can_bus_poses(scenario)))
    write_atomically(part_path(out, scenario.name), dump({'rows': rows, 'captions': sentences}))


class _Recorder:
    """State of one scene being written."""

    def __init__(self, out, settings, scenario, renderer):
        self.out, self.settings, self.scenario, self.renderer = out, settings, scenario, renderer
        self.tables = SceneTables(settings.seed, scenario)
        self.shots = {camera: [] for camera in scenario.rig.cameras}
        self.looks = scene_looks(settings.seed, scenario)
        # `seen`: a list of Seen a keyframe
        self.scans, self.seen, self.image_names, self.fills = [], [], {}, {}

    def frame(self, tick):
        """Render the six images of one tick; at a keyframe also look at who is visible."""
        keyframe, on_the_way = -(-tick // SWEEPS_PER_KEYFRAME), tick % SWEEPS_PER_KEYFRAME != 0
        stamp_us = self.scenario.start_us + round(tick * KEYFRAME_US / SWEEPS_PER_KEYFRAME)
        views, renderings, states = {}, {}, {}
        for camera, calibration in self.scenario.rig.cameras.items():
            shot_us = stamp_us + TRIGGER_US[camera]
            time = (shot_us - self.scenario.start_us) / 1e6
            world_from_ego = self.scenario.traffic.world_from_ego(time)
            states[camera] = self.scenario.traffic.states(time)
            views[camera] = calibration, world_from_ego @ calibration.ego_from_camera
            noise = (
                self.settings.seed * 1_000_003
                + self.scenario.index * 10_007
                + tick * 6
                + len(views)
            ) % (1 << 31)
            renderings[camera] = self.renderer.render(
                CameraView(
                    calibration.intrinsics,
                    calibration.width,
                    calibration.height,
                    views[camera][1],
                    self.scenario.rig.exposures[camera],
                    noise,
                ),
                states[camera],
                world_from_ego,
            )
            self._write_image(camera, shot_us, keyframe, not on_the_way, renderings[camera].image)
        if not on_the_way:
            self._keyframe(keyframe, stamp_us, views, renderings, states)

    def _write_image(self, camera, stamp_us, keyframe, is_key_frame, image):
        channel = nuscenes_channel(camera)
        folder = 'samples' if is_key_frame else 'sweeps'
        name = f'{folder}/{channel}/{log_name(self.scenario)}__{channel}__{stamp_us}.jpg'
        look = self.looks.get(camera)
        image, quality = (look.processed(image), look.quality) if look else (image, JPEG_QUALITY)
        # numpy's turning round of the channels takes three times as long as the encoding.
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        write_atomically(self.out / name, encoded.tobytes())
        self.shots[camera].append(
            Shot(channel, stamp_us, keyframe, is_key_frame, name, image.shape[1], image.shape[0])
        )
        if is_key_frame:
            self.image_names[camera, keyframe] = name

    def _keyframe(self, keyframe, stamp_us, views, renderings, states_at):
        time = (stamp_us - self.scenario.start_us) / 1e6
        world_from_ego = self.scenario.traffic.world_from_ego(time)
        states = self.scenario.traffic.states(time)
        world_from_lidar = world_from_ego @ self.scenario.rig.ego_from_lidar
        scan = Scan(world_from_lidar[:3, 3], states, self.scenario.town.static.buildings)
        name = f'samples/LIDAR_TOP/{log_name(self.scenario)}__LIDAR_TOP__{stamp_us}.pcd.bin'
        if self.settings.lidar:
            write_atomically(self.out / name, scan.points(world_from_lidar).tobytes())
        self.scans.append(Shot('LIDAR_TOP', stamp_us, keyframe, True, name, 0, 0))
        counts, sights = scan.counts(), observe.look(views, renderings, states_at)
        self.seen.append([])
        for state in states:
            if np.hypot(*(state.world_from_object[:2, 3] - world_from_ego[:2, 3])) > ANNOTATED_M:
                continue
            sight, points = sights.get(state.instance), counts.get(state.instance, 0)
            # As in nuScenes, no box without a point in it; and none that no camera shows.
            if points and sight is not None and sight.pixels:
                self.seen[-1].append(Seen(state, sight, points))

    def finish(self, keyframes):
        """(rows of the scene, caption entries by annotation token)."""
        self.tables.add_samples(
            [self.scenario.start_us + k * KEYFRAME_US for k in range(keyframes)]
        )
        for shots in (*self.shots.values(), self.scans):
            self.tables.add_shots(shots)
        sentences, places, sights = {}, Places(self.scenario.town), {}
        for seen in (seen for chain in self.seen for seen in chain):
            sights.setdefault((seen.state.instance, seen.state.class_name), []).append(seen.sight)
        self.fills = {key[0]: observe.fill_share(key[1], views) for key, views in sights.items()}
        for keyframe, chain in enumerate(self.seen):
            self._annotate(keyframe, chain, places, sentences)
        return self.tables.finish(), sentences

    def _annotate(self, keyframe, chain, places, sentences):
        agents = self.scenario.traffic.agents
        attributes = [
            attribute_of(agents[seen.state.instance - 1], float(np.hypot(*seen.state.velocity)))
            for seen in chain
        ]
        world_from_ego = self.scenario.traffic.world_from_ego(keyframe * KEYFRAME_US / 1e6)
        if self.scenario.traffic.lean:
            world_from_ego = level_pose(world_from_ego)  # distances and sides are the ground's
        told = facts_of([seen.state for seen in chain], attributes, world_from_ego, places)
        for seen, attribute, (facts, xy, velocity) in zip(chain, attributes, told):
            visibility = observe.visibility(seen.sight, self.fills[seen.state.instance])
            self.tables.add_annotation(
                keyframe, seen.state, attribute, visibility, seen.lidar_points
            )
            token = self.tables.annotation_token(seen.state.instance, keyframe)
            sentences[token] = grammar.tod3cap_entry(
                facts,
                sample_token=self.tables.token('sample', keyframe),
                scene_name=self.scenario.name,
                annotation_token=token,
                cam_file=self.image_names[seen.sight.best_camera, keyframe],
                rectangle=seen.sight.rectangle,
                size_lwh=seen.state.size,
                xy=xy,
                velocity=velocity,
            )


def _small_turn(turned, step):
    """Rates [rad/s] about x and y of a small rotation over two steps."""
    return (
        float((turned[2, 1] - turned[1, 2]) / (4 * step)),
        float((turned[0, 2] - turned[2, 0]) / (4 * step)),
    )


def can_bus_poses(scenario):
    """nuScenes CAN bus 'pose' messages at 50 Hz: velocity, acceleration (gravity included) and
    rotation rate in the ego frame."""
    step = 1.0 / CAN_HZ
    times = np.arange(-0.1, scenario.seconds + step / 2, step)
    poses = [
        scenario.traffic.world_from_ego(time)
        for time in np.r_[times[0] - step, times, times[-1] + step]
    ]
    velocities = np.stack([(b[:3, 3] - a[:3, 3]) / (2 * step) for a, b in zip(poses, poses[2:])])
    accelerations = np.gradient(velocities, step, axis=0)
    messages = []
    for k, time in enumerate(times):
        before, pose, after = poses[k : k + 3]
        ego_from_world = pose[:3, :3].T
        turned = invert_rigid(before) @ after
        x, y, z, w = quaternion_from_rigid(pose).tolist()
        messages.append(
            {
                'accel': (ego_from_world @ (accelerations[k] + [0.0, 0.0, 9.81])).tolist(),
                'orientation': [w, x, y, z],
                'pos': pose[:3, 3].tolist(),
                'rotation_rate': [
                    *(_small_turn(turned, step) if scenario.traffic.lean else (0.0, 0.0)),
                    float(np.arctan2(turned[1, 0], turned[0, 0]) / (2 * step)),
                ],
                'utime': scenario.start_us + int(round(time * 1e6)),
                'vel': (ego_from_world @ velocities[k]).tolist(),
            }
        )
    return messages

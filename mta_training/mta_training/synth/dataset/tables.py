"""nuScenes' rows of one synthetic scene; `conversion.dataset_writer` makes a dataset of them.

Sizes are w, l, h and quaternions w, x, y, z here, as nuScenes has them.
"""

from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.atomic_files import write_atomically
from mta_perception.contract import nuscenes_channel
from mta_training.conversion.dataset_writer import PER_SCENE, pose_fields, token
from mta_training.synth.actors.catalogue import KINDS

MAP_RESOLUTION_M = 0.1  # of map masks, the devkit's default


def attribute_of(agent, speed):
    """Attribute name of an agent at a speed [m/s], '' for what has none (nuScenes' rules)."""
    class_name = KINDS[agent.look.kind].class_name
    if class_name in ('traffic_cone', 'barrier'):
        return ''
    if class_name in ('bicycle', 'motorcycle'):
        return 'cycle.with_rider' if agent.look.has_rider else 'cycle.without_rider'
    if class_name == 'pedestrian':
        return 'pedestrian.moving' if speed > 0.2 else 'pedestrian.standing'
    if agent.parked:
        return 'vehicle.parked'
    return 'vehicle.moving' if speed > 0.2 else 'vehicle.stopped'


class Shot(NamedTuple):
    """One file of one sensor."""

    channel: str
    stamp_us: int
    keyframe: int  # of this keyframe, or on the way to it
    is_key_frame: bool
    filename: str
    width: int  # 0 for the lidar
    height: int


class SceneTables:
    """Collects the rows of one scene."""

    def __init__(self, seed, scenario):
        self.seed, self.scenario = seed, scenario
        self.rows = {table: [] for table in PER_SCENE}
        self.annotation_counts = {}
        log, name = self.token('log'), scenario.name
        self.rows['log'].append(
            {
                'token': log,
                'logfile': log_name(scenario),
                'vehicle': 'synthetic',
                'date_captured': '2020-09-13',
                'location': 'synthetic-town',
            }
        )
        self.rows['map'].append(
            {
                'token': self.token('map'),
                'log_tokens': [log],
                'category': 'semantic_prior',
                'filename': f'maps/{name}.png',
            }
        )
        for camera, calibration in scenario.rig.cameras.items():
            self._sensor(
                nuscenes_channel(camera),
                calibration.ego_from_camera,
                calibration.intrinsics.tolist(),
            )
        self._sensor('LIDAR_TOP', scenario.rig.ego_from_lidar, [])

    def token(self, *parts):
        """A token of this scene."""
        return token(self.seed, self.scenario.name, *parts)

    def _sensor(self, channel, ego_from_sensor, intrinsics):
        self.rows['calibrated_sensor'].append(
            {
                'token': self.token('calibrated', channel),
                'sensor_token': token('sensor', channel),
                **pose_fields(ego_from_sensor),
                'camera_intrinsic': intrinsics,
            }
        )

    def add_samples(self, stamps_us):
        """The scene and its keyframes."""
        tokens = [self.token('sample', k) for k in range(len(stamps_us))]
        for k, stamp in enumerate(stamps_us):
            self.rows['sample'].append(
                {
                    'token': tokens[k],
                    'timestamp': stamp,
                    'prev': tokens[k - 1] if k else '',
                    'next': tokens[k + 1] if k + 1 < len(tokens) else '',
                    'scene_token': self.token('scene'),
                }
            )
        self.rows['scene'].append(
            {
                'token': self.token('scene'),
                'log_token': self.token('log'),
                'nbr_samples': len(tokens),
                'first_sample_token': tokens[0],
                'last_sample_token': tokens[-1],
                'name': self.scenario.name,
                'description': self.scenario.description,
            }
        )

    def add_shots(self, shots):
        """All files of one channel, in the order of their stamps, each with its ego pose."""
        tokens = [self.token(shot.channel, shot.stamp_us) for shot in shots]
        for k, shot in enumerate(shots):
            time = (shot.stamp_us - self.scenario.start_us) / 1e6
            pose = self.scenario.traffic.world_from_ego(time)
            self.rows['ego_pose'].append(
                {'token': tokens[k], 'timestamp': shot.stamp_us, **pose_fields(pose)}
            )
            self.rows['sample_data'].append(
                {
                    'token': tokens[k],
                    'sample_token': self.token('sample', shot.keyframe),
                    'ego_pose_token': tokens[k],
                    'calibrated_sensor_token': self.token('calibrated', shot.channel),
                    'timestamp': shot.stamp_us,
                    'fileformat': 'jpg' if shot.width else 'pcd',
                    'is_key_frame': shot.is_key_frame,
                    'height': shot.height,
                    'width': shot.width,
                    'filename': shot.filename,
                    'prev': tokens[k - 1] if k else '',
                    'next': tokens[k + 1] if k + 1 < len(tokens) else '',
                }
            )

    def annotation_token(self, instance, keyframe):
        """Token of one object's annotation in one keyframe."""
        return self.token('annotation', instance, keyframe)

    def add_annotation(self, keyframe, state, attribute, visibility, lidar_points):
        """One object (an ObjectState at the keyframe's stamp)."""
        length, width, height = state.size
        pose = pose_fields(state.world_from_object)
        x, y, z = pose['translation']
        self.rows['sample_annotation'].append(
            {
                'token': self.annotation_token(state.instance, keyframe),
                'sample_token': self.token('sample', keyframe),
                'instance_token': self.token('instance', state.instance),
                'visibility_token': visibility,
                'attribute_tokens': [token('attribute', attribute)] if attribute else [],
                'translation': [x, y, z + height / 2],
                'size': [width, length, height],
                'rotation': pose['rotation'],
                'prev': '',
                'next': '',
                'num_lidar_pts': lidar_points,
                'num_radar_pts': 0,
            }
        )
        self.annotation_counts.setdefault(state.instance, (state.category, []))[1].append(
            self.rows['sample_annotation'][-1]
        )

    def finish(self):
        """Chain the annotations of each object; the rows are complete then."""
        for instance, (category, chain) in sorted(self.annotation_counts.items()):
            for a, b in zip(chain, chain[1:]):
                a['next'], b['prev'] = b['token'], a['token']
            self.rows['instance'].append(
                {
                    'token': self.token('instance', instance),
                    'category_token': token('category', category),
                    'nbr_annotations': len(chain),
                    'first_annotation_token': chain[0]['token'],
                    'last_annotation_token': chain[-1]['token'],
                }
            )
        return self.rows


def log_name(scenario):
    """Name that stands before every file of the scene, as nuScenes' log names do."""
    return f'synthetic-{scenario.name}'


def write_map_mask(path, static):
    """Black and white PNG: where one may drive or walk; pixel (x, height - y) / 0.1 m."""
    x_max, y_max = (int(np.ceil(value / MAP_RESOLUTION_M)) for value in static.extent[2:])
    mask = np.zeros((y_max, x_max), dtype=np.uint8)
    for polygon in (*static.drivable_area, *static.walkway):
        pixels = polygon / MAP_RESOLUTION_M * [1.0, -1.0] + [0.0, y_max]
        cv2.fillPoly(mask, [np.round(pixels).astype(np.int32)], 255)
    encoded = cv2.imencode('.png', mask, [cv2.IMWRITE_PNG_BILEVEL, 1])[1]
    write_atomically(path, encoded.tobytes())

"""nuScenes' thirteen tables: fixed rows, the rows of one scene, and a whole dataset put together.

Sizes are w, l, h and quaternions w, x, y, z here, as nuScenes has them.
"""

from contextlib import ExitStack
import hashlib
import json
import shutil
from typing import NamedTuple

import cv2
import numpy as np

from mta_perception.atomic_files import whole, write_atomically
from mta_perception.contract import CAMERAS, nuscenes_channel
from mta_perception.geometry import quaternion_from_rigid
from mta_training.synth.actors.catalogue import KINDS

TABLES = (
    'category',
    'attribute',
    'visibility',
    'instance',
    'sensor',
    'calibrated_sensor',
    'ego_pose',
    'log',
    'scene',
    'sample',
    'sample_data',
    'sample_annotation',
    'map',
)
PER_SCENE = (
    'instance',
    'calibrated_sensor',
    'ego_pose',
    'log',
    'scene',
    'sample',
    'sample_data',
    'sample_annotation',
    'map',
)
ATTRIBUTES = (
    'vehicle.moving',
    'vehicle.stopped',
    'vehicle.parked',
    'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.sitting_lying_down',
    'pedestrian.standing',
    'pedestrian.moving',
)
CATEGORIES = (
    'human.pedestrian.adult',
    'human.pedestrian.child',
    'human.pedestrian.wheelchair',
    'human.pedestrian.stroller',
    'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer',
    'human.pedestrian.construction_worker',
    'animal',
    'vehicle.car',
    'vehicle.motorcycle',
    'vehicle.bicycle',
    'vehicle.bus.bendy',
    'vehicle.bus.rigid',
    'vehicle.truck',
    'vehicle.construction',
    'vehicle.emergency.ambulance',
    'vehicle.emergency.police',
    'vehicle.trailer',
    'movable_object.barrier',
    'movable_object.trafficcone',
    'movable_object.pushable_pullable',
    'movable_object.debris',
    'static_object.bicycle_rack',
)
MAP_RESOLUTION_M = 0.1  # of map masks, the devkit's default


def token(*parts):
    """32 hexadecimal digits that depend on nothing but the parts."""
    return hashlib.md5('/'.join(str(part) for part in parts).encode()).hexdigest()


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


def fixed_rows():
    """Tables that are the same in every dataset."""
    visibility = [
        {'token': str(k + 1), 'level': f'v{level}', 'description': f'visibility {level} %'}
        for k, level in enumerate(('0-40', '40-60', '60-80', '80-100'))
    ]
    channels = [(nuscenes_channel(camera), 'camera') for camera in CAMERAS] + [
        ('LIDAR_TOP', 'lidar')
    ]
    return {
        'category': [
            {'token': token('category', name), 'name': name, 'description': '', 'index': k}
            for k, name in enumerate(CATEGORIES)
        ],
        'attribute': [
            {'token': token('attribute', name), 'name': name, 'description': ''}
            for name in ATTRIBUTES
        ],
        'visibility': visibility,
        'sensor': [
            {'token': token('sensor', channel), 'channel': channel, 'modality': modality}
            for channel, modality in channels
        ],
    }


def pose_fields(target_from_source):
    """translation and rotation (w, x, y, z) of a (4, 4) pose."""
    x, y, z, w = quaternion_from_rigid(target_from_source).tolist()
    return {'translation': target_from_source[:3, 3].tolist(), 'rotation': [w, x, y, z]}


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


def dump(value):
    """JSON bytes, the same for the same value."""
    return json.dumps(value, separators=(',', ':')).encode()


def splits_of(names, prefix='synth'):
    """Custom splits for the devkit (1.2 and later): every fifth scene, from the fifth on, is held
    out for validation.  Of fewer than five scenes the last one is; a single scene is in both."""
    held_out = names[4::5] or names[-1:]
    training = [name for name in names if name not in held_out] or list(names)
    return {f'{prefix}_train': training, f'{prefix}_val': held_out, f'{prefix}_all': list(names)}


def assemble(out, version, parts):
    """Put the tables of all scenes together in `out`/`version`, which appears whole or not at all.

    parts  paths of the scenes' row files, in order; one is in memory at a time
    """
    captions = out / 'captions' / 'final_caption_bbox_token.json'
    captions.parent.mkdir(exist_ok=True)
    with whole(out / version) as draft, whole(captions) as sentences:
        draft.mkdir()
        for table, rows in fixed_rows().items():
            (draft / f'{table}.json').write_bytes(dump(rows))
        names = _join(parts, draft, sentences)
        (draft / 'splits.json').write_bytes(dump(splits_of(names)))
        shutil.rmtree(out / version, ignore_errors=True)


def _join(parts, draft, sentences):
    """Write the rows of all scenes as tables in `draft`, their captions as `sentences`; returns
    the scenes' names."""
    names = []
    with ExitStack() as stack:
        files = {
            table: stack.enter_context(open(draft / f'{table}.json', 'wb')) for table in PER_SCENE
        }
        files['captions'] = stack.enter_context(open(sentences, 'wb'))
        for part in parts:
            content = json.loads(part.read_bytes())
            names.extend(scene['name'] for scene in content['rows']['scene'])
            for table, rows in {**content['rows'], 'captions': content['captions']}.items():
                inner = dump(rows)[1:-1]  # without the brackets
                if inner:
                    opening = b'{' if table == 'captions' else b'['
                    files[table].write((b',\n' if files[table].tell() else opening) + inner)
        for table, file in files.items():
            empty, closing = (b'{', b'}') if table == 'captions' else (b'[', b']')
            file.write(closing if file.tell() else empty + closing)
    return names

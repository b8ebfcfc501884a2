"""A small nuScenes v1.0 dataset, written by hand: two short drives, real JPEGs, every odd case.

Independent of the synthetic world on purpose: the converter is judged against these tables.
"""

import json

import cv2
import numpy as np
from pyquaternion import Quaternion

from mta_perception.contract import CAMERAS, nuscenes_channel

VERSION = 'v1.0-mini'
SIZE = (320, 180)
START_US = 1_600_000_000_000_000
KEYFRAMES = 4
SWEEP_US = 83_333
OFFSETS_US = {
    'cam_front_left': -43_000,
    'cam_front': -35_000,
    'cam_front_right': -28_000,
    'cam_back_right': -20_000,
    'cam_back': -10_000,
    'cam_back_left': -500,
}
_YAWS = {
    'cam_front': 0,
    'cam_front_right': -55,
    'cam_front_left': 55,
    'cam_back': 180,
    'cam_back_left': 110,
    'cam_back_right': -110,
}
# category, size w, l, h, attribute, ego-relative start x, y [m], world speed x, y [m/s]
OBJECTS = (
    ('vehicle.car', (1.9, 4.6, 1.6), 'vehicle.moving', (15, 3), (6.0, 0.5)),
    ('vehicle.car', (2.0, 4.8, 1.7), 'vehicle.parked', (-12, -6), (0.0, 0.0)),
    ('vehicle.truck', (2.6, 8.0, 3.1), 'vehicle.stopped', (28, -5), (0.0, 0.0)),
    ('human.pedestrian.adult', (0.6, 0.7, 1.8), 'pedestrian.moving', (8, -9), (0.3, 1.2)),
    ('movable_object.trafficcone', (0.4, 0.4, 0.9), '', (10, 6), (0.0, 0.0)),
    ('movable_object.barrier', (2.0, 0.6, 1.0), '', (-9, 8), (0.0, 0.0)),
    ('vehicle.bicycle', (0.6, 1.8, 1.3), 'cycle.without_rider', (18, 10), (0.0, 0.0)),
    ('static_object.bicycle_rack', (4.0, 4.0, 1.5), '', (18, 10), (0.0, 0.0)),
    ('vehicle.motorcycle', (0.8, 2.1, 1.5), 'cycle.with_rider', (-20, 2), (4.0, -1.0)),
    ('animal', (0.3, 0.8, 0.5), '', (6, 4), (0.0, 0.0)),
    ('vehicle.car', (1.9, 4.5, 1.6), 'vehicle.parked', (60, 0), (0.0, 0.0)),  # out of range
    ('vehicle.bus.rigid', (2.9, 11.0, 3.4), 'vehicle.moving', (-30, 12), (7.0, 0.0)),
    ('vehicle.truck', (2.5, 7.0, 3.0), 'vehicle.moving', (20, -14), (0.0, 5.0)),
    ('vehicle.bicycle', (0.6, 1.7, 1.4), 'cycle.with_rider', (12, -3), (3.0, 3.0)),
    ('vehicle.trailer', (2.9, 12.0, 3.8), 'vehicle.parked', (-25, -20), (0.0, 0.0)),
    ('vehicle.construction', (2.8, 6.5, 3.2), 'vehicle.parked', (5, 25), (0.0, 0.0)),
)
NO_POINTS = 2  # index of the object that neither lidar nor radar hits
ONCE = 5  # index of the object annotated in the first keyframe alone: no velocity
RACKED = 6  # index of the bicycle in the rack, which also has no caption
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


def write_dataset(root, scenes=2, seed=0, sweeps=True, captions=True, can_bus=True):
    """Write the dataset below `root`; returns root."""
    rng = np.random.default_rng(seed)
    tables = _fixed_tables()
    sentences = {}
    for number in range(scenes):
        _Scene(root, tables, sentences, f'scene-{number + 1:04d}', rng, sweeps, can_bus).write()
    for name, rows in tables.items():
        _dump(root / VERSION / f'{name}.json', rows)
    _dump(
        root / VERSION / 'splits.json',
        {
            'tiny_all': [row['name'] for row in tables['scene']],
            'tiny_val': [tables['scene'][-1]['name']],
        },
    )
    if captions:
        _dump(root / 'captions' / 'final_caption_bbox_token.json', sentences)
    return root


def _dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))


def _fixed_tables():
    tables = {
        name: []
        for name in (
            'calibrated_sensor',
            'ego_pose',
            'instance',
            'log',
            'map',
            'sample',
            'sample_annotation',
            'sample_data',
            'scene',
        )
    }
    tables['category'] = [
        {'token': f'category-{name}', 'name': name, 'description': '', 'index': k}
        for k, name in enumerate(sorted({entry[0] for entry in OBJECTS}))
    ]
    tables['attribute'] = [
        {'token': f'attribute-{name}', 'name': name, 'description': ''} for name in ATTRIBUTES
    ]
    tables['visibility'] = [
        {'token': str(k), 'level': level, 'description': ''}
        for k, level in enumerate(('v0-40', 'v40-60', 'v60-80', 'v80-100'), 1)
    ]
    tables['sensor'] = [
        {'token': f'sensor-{channel}', 'channel': channel, 'modality': modality}
        for channel, modality in [(nuscenes_channel(camera), 'camera') for camera in CAMERAS]
        + [('LIDAR_TOP', 'lidar')]
    ]
    return tables


class _Scene:
    """Rows and files of one scene."""

    def __init__(self, root, tables, sentences, name, rng, sweeps, can_bus):
        self.root, self.tables, self.sentences, self.name, self.rng = (
            root,
            tables,
            sentences,
            name,
            rng,
        )
        self.sweeps, self.can_bus = sweeps, can_bus
        self.start_us = START_US + 100_000_000 * int(name[-4:])
        self.speed, self.turn = float(rng.uniform(4, 9)), float(rng.uniform(0.1, 0.3))

    def pose(self, stamp_us):
        """Ego pose at a stamp: it turns, and leans a little as a real car does."""
        seconds = (stamp_us - self.start_us) / 1e6
        yaw = 0.7 + self.turn * seconds
        radius = self.speed / self.turn
        rotation = (
            Quaternion(axis=[0, 0, 1], radians=yaw)
            * Quaternion(axis=[0, 1, 0], radians=0.012)
            * Quaternion(axis=[1, 0, 0], radians=-0.008)
        )
        return (np.array([600 + radius * np.sin(yaw), 1600 - radius * np.cos(yaw), 0.0]), rotation)

    def write(self):
        log, scene = f'{self.name}-log', f'{self.name}-scene'
        self.tables['log'].append(
            {
                'token': log,
                'logfile': log,
                'vehicle': 'v1',
                'date_captured': '2020-01-01',
                'location': 'tiny-town',
            }
        )
        mask = self.root / 'maps' / f'{self.name}.png'
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), np.zeros((4, 4), np.uint8))
        self.tables['map'].append(
            {
                'token': f'{self.name}-map',
                'log_tokens': [log],
                'category': 'semantic_prior',
                'filename': f'maps/{mask.name}',
            }
        )
        stamps = [self.start_us + 500_000 * k for k in range(KEYFRAMES)]
        tokens = [f'{self.name}-sample-{k}' for k in range(KEYFRAMES)]
        self.tables['scene'].append(
            {
                'token': scene,
                'name': self.name,
                'description': f'Night, {self.name}, turn left',
                'log_token': log,
                'nbr_samples': KEYFRAMES,
                'first_sample_token': tokens[0],
                'last_sample_token': tokens[-1],
            }
        )
        for k, stamp in enumerate(stamps):
            self.tables['sample'].append(
                {
                    'token': tokens[k],
                    'timestamp': stamp,
                    'scene_token': scene,
                    'prev': tokens[k - 1] if k else '',
                    'next': tokens[k + 1] if k + 1 < KEYFRAMES else '',
                }
            )
        self._sensors()
        self._data(tokens, stamps)
        self._annotations(tokens, stamps)
        if self.can_bus:
            self._can_bus(stamps)

    def _sensors(self):
        optical = Quaternion(matrix=np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], dtype=float))
        for camera in CAMERAS:
            turned = Quaternion(axis=[0, 0, 1], degrees=_YAWS[camera]) * optical
            self._sensor(
                nuscenes_channel(camera),
                turned,
                [1.2, 0.3, 1.5],
                [[250.0, 0, 160.5], [0, 250.0, 91.0], [0, 0, 1]],
            )
        self._sensor('LIDAR_TOP', Quaternion(axis=[0, 0, 1], degrees=-90), [0.9, 0.0, 1.8], [])

    def _sensor(self, channel, rotation, translation, intrinsic):
        self.tables['calibrated_sensor'].append(
            {
                'token': f'{self.name}-{channel}',
                'sensor_token': f'sensor-{channel}',
                'translation': translation,
                'rotation': rotation.elements.tolist(),
                'camera_intrinsic': intrinsic,
            }
        )

    def _data(self, samples, stamps):
        for camera in CAMERAS:
            last = stamps[-1] if self.sweeps else stamps[0]
            ticks = range(0, last - stamps[0] + 1, SWEEP_US) if self.sweeps else [0]
            keyed = {stamp + OFFSETS_US[camera]: k for k, stamp in enumerate(stamps)}
            shots = sorted(
                {
                    *keyed,
                    *(
                        stamps[0] + tick + OFFSETS_US[camera]
                        for tick in ticks
                        if tick % 500_000 > 20_000
                    ),
                }
            )
            for stamp in shots:
                sample = samples[
                    min(-(-(stamp - OFFSETS_US[camera] - stamps[0]) // 500_000), KEYFRAMES - 1)
                ]
                self._datum(nuscenes_channel(camera), stamp, sample, stamp in keyed, 'jpg')
        for stamp, sample in zip(stamps, samples):
            self._datum('LIDAR_TOP', stamp, sample, True, 'pcd')

    def _datum(self, channel, stamp, sample, is_key_frame, fileformat):
        folder = 'samples' if is_key_frame else 'sweeps'
        filename = f'{folder}/{channel}/{self.name}__{channel}__{stamp}.{fileformat}'
        token = f'{self.name}-{channel}-{stamp}'
        translation, rotation = self.pose(stamp)
        self.tables['ego_pose'].append(
            {
                'token': token,
                'timestamp': stamp,
                'translation': translation.tolist(),
                'rotation': rotation.elements.tolist(),
            }
        )
        image = fileformat == 'jpg'
        self.tables['sample_data'].append(
            {
                'token': token,
                'sample_token': sample,
                'ego_pose_token': token,
                'calibrated_sensor_token': f'{self.name}-{channel}',
                'timestamp': stamp,
                'fileformat': fileformat,
                'is_key_frame': is_key_frame,
                'filename': filename,
                'width': SIZE[0] if image else 0,
                'height': SIZE[1] if image else 0,
                'prev': '',
                'next': '',
            }
        )
        if image:
            path = self.root / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = self.rng.integers(0, 255, (9, 16, 3), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(pixels, SIZE, interpolation=cv2.INTER_CUBIC))

    def _annotations(self, samples, stamps):
        position, rotation = self.pose(self.start_us)
        for number, (category, size, attribute, offset, speed) in enumerate(OBJECTS):
            instance = f'{self.name}-object-{number}'
            start = position + rotation.rotate([*offset, 0.0])
            yaw = np.arctan2(speed[1], speed[0]) if any(speed) else 0.4 * number
            frames = range(1) if number == ONCE else range(KEYFRAMES)
            tokens = [f'{instance}-{k}' for k in frames]
            for k in frames:
                seconds = (stamps[k] - stamps[0]) / 1e6
                centre = [
                    start[0] + speed[0] * seconds,
                    start[1] + speed[1] * seconds,
                    size[2] / 2,
                ]
                self.tables['sample_annotation'].append(
                    {
                        'token': tokens[k],
                        'sample_token': samples[k],
                        'instance_token': instance,
                        'visibility_token': str(1 + number % 4),
                        'attribute_tokens': [f'attribute-{attribute}'] if attribute else [],
                        'translation': centre,
                        'size': list(size),
                        'rotation': Quaternion(axis=[0, 0, 1], radians=yaw).elements.tolist(),
                        'prev': tokens[k - 1] if k else '',
                        'next': tokens[k + 1] if k + 1 < len(frames) else '',
                        'num_lidar_pts': 0 if number == NO_POINTS else 5 + number,
                        'num_radar_pts': 0 if number == NO_POINTS else number % 3,
                    }
                )
                if number != RACKED:  # 446 annotations of the real file have none
                    self.sentences[tokens[k]] = _caption(category, number)
            self.tables['instance'].append(
                {
                    'token': instance,
                    'category_token': f'category-{category}',
                    'nbr_annotations': len(tokens),
                    'first_annotation_token': tokens[0],
                    'last_annotation_token': tokens[-1],
                }
            )

    def _can_bus(self, stamps):
        messages = [
            {
                'utime': stamp,
                'pos': [0.0, 0.0, 0.0],
                'orientation': [1.0, 0.0, 0.0, 0.0],
                'vel': [self.speed, 0.0, 0.0],
                'accel': [0.1, 0.2, 9.8],
                'rotation_rate': [0.0, 0.0, self.turn],
            }
            for stamp in range(stamps[0] - 100_000, stamps[-1] + 100_000, 20_000)
        ]
        _dump(self.root / 'can_bus' / f'{self.name}_pose.json', messages)


def _caption(category, number):
    return {
        'attribute_caption': {
            'attribute_caption': f'red {category.split(".")[1]}' if '.' in category else category
        },
        'depth_caption': {'depth': 7.4 + number, 'depth_caption': 'near'},
        'localization_caption': {'localization_caption': 'in the front of the ego car'},
        'motion_caption': {'motion_caption': 'not moving'},
        'map_caption': {'map_caption': '' if number % 2 else 'in the walkway'},
        'relation_caption': 'none',
    }

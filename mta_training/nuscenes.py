"""nuScenes tables in our conventions, scene by scene; the only place that knows w, x, y, z and w, l, h.

Reads the JSON tables once (indices only hold what conversion needs).  Optional beside them:
`captions/final_caption_bbox_token.json` (TOD3Cap), `can_bus/<scene>_pose.json`, `<version>/splits.json`.
"""

from functools import cached_property
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mta_perception.contract import CAMERAS, nuscenes_channel
from mta_perception.geometry import invert_rigid, rigid_from_quaternion, transform_boxes

TABLES = ('attribute', 'calibrated_sensor', 'category', 'ego_pose', 'instance', 'log', 'map', 'sample',
          'sample_annotation', 'sample_data', 'scene', 'sensor', 'visibility')

# nuScenes category -> detection class (devkit detection/utils.py); others are carried, not scored.
DETECTION_CLASS = {
    'movable_object.barrier': 'barrier', 'vehicle.bicycle': 'bicycle', 'vehicle.bus.bendy': 'bus',
    'vehicle.bus.rigid': 'bus', 'vehicle.car': 'car', 'vehicle.construction': 'construction_vehicle',
    'vehicle.motorcycle': 'motorcycle', 'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'pedestrian', 'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian', 'movable_object.trafficcone': 'traffic_cone',
    'vehicle.trailer': 'trailer', 'vehicle.truck': 'truck',
}


class DatasetError(ValueError):
    """The dataset is not complete; the message names the file and what to do."""


class ImageRecord(NamedTuple):
    """One camera image on disk."""

    camera: str
    stamp_ns: int
    path: Path
    is_keyframe: bool


class Annotation(NamedTuple):
    """One box of one keyframe."""

    annotation_token: str
    instance_token: str
    category: str
    class_name: str          # contract class, '' for categories outside the ten
    box: np.ndarray          # (10,) contract.BoxCode in the ego frame at the sample; velocity may be NaN
    attribute: str           # '' for none
    visibility_token: str
    num_lidar_pts: int
    num_radar_pts: int
    caption: str             # '' for none


def rigid_from_record(record):
    """(4, 4) of an ego_pose, calibrated_sensor or annotation: rotation is w, x, y, z."""
    w, x, y, z = record['rotation']
    return rigid_from_quaternion([x, y, z, w], record['translation'])


def rebuilt_caption(entry):
    """One sentence of a TOD3Cap entry; the public file lacks `final_caption` (model_facts 2.5)."""
    if entry.get('final_caption'):
        return entry['final_caption']

    def words(group, key):
        text = (entry.get(group) or {}).get(key)
        return '' if text is None or str(text).strip().lower() == 'none' else str(text).strip()
    depth = (entry.get('depth_caption') or {}).get('depth')
    parts = [words('attribute_caption', 'attribute_caption'),
             '' if depth is None else f'about {round(float(depth))} meters away',
             words('localization_caption', 'localization_caption')]
    motion = words('motion_caption', 'motion_caption')
    parts += [f'is {motion}' if motion else '', words('map_caption', 'map_caption')]
    return ' '.join(part for part in parts if part)


class NuScenesTables:
    """The tables of one version, indexed by token."""

    def __init__(self, dataroot, version):
        self.dataroot, self.version = Path(dataroot), version
        folder = self.dataroot / version
        if not folder.is_dir():
            there = sorted(p.parent.name for p in self.dataroot.glob('*/scene.json'))
            raise DatasetError(f'{folder} does not exist; expected a nuScenes dataset with its tables '
                               f'there. Versions found: {", ".join(there) or "none"}.')
        self.tables = {name: self._table(folder, name) for name in TABLES}
        self.by_token = {name: {row['token']: row for row in rows}
                         for name, rows in self.tables.items()}

    def _table(self, folder, name):
        path = folder / f'{name}.json'
        if not path.is_file():
            raise DatasetError(f'{path} is missing; a nuScenes dataset has {len(TABLES)} tables. '
                               'Unpack the metadata again.')
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise DatasetError(f'{path} is no JSON ({error}); unpack the metadata again.') from error

    def get(self, table, token):
        """Row of a table by its token."""
        try:
            return self.by_token[table][token]
        except KeyError:
            raise DatasetError(f'{self.dataroot / self.version}: table {table} has no token '
                               f'{token!r} that another table refers to. Unpack the metadata '
                               'again.') from None

    @property
    def scenes(self):
        """Scene rows in the order of the table."""
        return self.tables['scene']

    @cached_property
    def _channel(self):
        return {row['token']: self.get('sensor', row['sensor_token'])['channel']
                for row in self.tables['calibrated_sensor']}

    @cached_property
    def _annotations_of(self):
        found = {}
        for row in self.tables['sample_annotation']:
            found.setdefault(row['sample_token'], []).append(row)
        return found

    @cached_property
    def _data_of(self):
        found = {}
        for row in self.tables['sample_data']:
            found.setdefault(row['sample_token'], []).append(row)
        return found

    @cached_property
    def _captions(self):
        path = self.dataroot / 'captions' / 'final_caption_bbox_token.json'
        return json.loads(path.read_text()) if path.is_file() else {}

    @cached_property
    def _split_of(self):
        path = self.dataroot / self.version / 'splits.json'
        if path.is_file():
            splits = json.loads(path.read_text())
            order = sorted(splits, key=lambda name: -len(splits[name]))
            return {scene: name for name in order for scene in splits[name]}
        from nuscenes.utils.splits import create_splits_scenes
        splits = create_splits_scenes()
        names = ('mini_train', 'mini_val') if self.version.endswith('mini') else (
            'train', 'val', 'test')
        return {scene: name for name in names for scene in splits[name]}

    def split(self, scene):
        """Split of a scene row, '' where none names it."""
        return self._split_of.get(scene['name'], '')

    def samples(self, scene):
        """Sample rows of a scene in time order."""
        token, rows = scene['first_sample_token'], []
        while token:
            rows.append(self.get('sample', token))
            token = rows[-1]['next']
        return rows

    def sensor_data(self, scene):
        """sample_data rows (all sensors, keyframes and sweeps) of a scene, in time order."""
        rows = [row for sample in self.samples(scene)
                for row in self._data_of.get(sample['token'], [])]
        return sorted(rows, key=lambda row: (row['timestamp'], row['filename']))

    def channel(self, data):
        """Sensor channel of a sample_data row."""
        return self._channel[data['calibrated_sensor_token']]

    def images(self, scene):
        """ImageRecords of a scene in time order."""
        by_channel = {nuscenes_channel(camera): camera for camera in CAMERAS}
        return [ImageRecord(by_channel[self.channel(row)], row['timestamp'] * 1000,
                            self.dataroot / row['filename'], row['is_key_frame'])
                for row in self.sensor_data(scene) if self.channel(row) in by_channel]

    def calibrations(self, scene):
        """channel -> calibrated_sensor row + image size, from the scene's first data of each."""
        found = {}
        for row in self.sensor_data(scene):
            channel = self.channel(row)
            if channel not in found:
                found[channel] = {**self.get('calibrated_sensor', row['calibrated_sensor_token']),
                                  'width': row['width'], 'height': row['height']}
        return found

    def ego_poses(self, scene):
        """(stamps_ns (n,), world_from_ego (n, 4, 4)) of all sensor data, sorted, one per stamp."""
        by_stamp = {}
        for row in self.sensor_data(scene):
            pose = self.get('ego_pose', row['ego_pose_token'])
            by_stamp.setdefault(pose['timestamp'] * 1000, pose)
        stamps = sorted(by_stamp)
        return (np.array(stamps, dtype=np.int64),
                np.array([rigid_from_record(by_stamp[stamp]) for stamp in stamps]))

    def reference_pose(self, sample):
        """world_from_ego (4, 4) of the sample: the LIDAR_TOP pose, or that of the newest camera."""
        rows = [row for row in self._data_of[sample['token']] if row['is_key_frame']]
        lidar = [row for row in rows if self.channel(row) == 'LIDAR_TOP']
        chosen = lidar[0] if lidar else max(rows, key=lambda row: row['timestamp'])
        return rigid_from_record(self.get('ego_pose', chosen['ego_pose_token']))

    def keyframe_stamps(self, sample):
        """camera -> stamp [ns] of the sample's own images."""
        by_channel = {nuscenes_channel(camera): camera for camera in CAMERAS}
        return {by_channel[self.channel(row)]: row['timestamp'] * 1000
                for row in self._data_of[sample['token']]
                if row['is_key_frame'] and self.channel(row) in by_channel}

    def annotations(self, sample):
        """Annotations of a sample in the ego frame."""
        ego_from_world = invert_rigid(self.reference_pose(sample))
        return [self._annotation(row, ego_from_world)
                for row in self._annotations_of.get(sample['token'], [])]

    def _annotation(self, row, ego_from_world):
        pose = rigid_from_record(row)
        width, length, height = row['size']
        yaw = np.arctan2(pose[1, 0], pose[0, 0])
        velocity = self.velocity(row)
        box = np.array([[*pose[:3, 3], length, width, height, np.sin(yaw), np.cos(yaw), *velocity]])
        category = self.get('category', self.get('instance', row['instance_token'])[
            'category_token'])['name']
        attributes = [self.get('attribute', token)['name'] for token in row['attribute_tokens']]
        caption = self._captions.get(row['token'])
        return Annotation(
            row['token'], row['instance_token'], category, DETECTION_CLASS.get(category, ''),
            transform_boxes(ego_from_world, box)[0], attributes[0] if attributes else '',
            row.get('visibility_token') or '', int(row['num_lidar_pts']), int(row['num_radar_pts']),
            rebuilt_caption(caption) if caption else '')

    def velocity(self, row):
        """(2,) global m/s by central difference, NaN where the neighbours are too far, as devkit."""
        first = self.get('sample_annotation', row['prev']) if row['prev'] else row
        last = self.get('sample_annotation', row['next']) if row['next'] else row
        if first is last:
            return np.array([np.nan, np.nan])
        seconds = 1e-6 * (self.get('sample', last['sample_token'])['timestamp']
                          - self.get('sample', first['sample_token'])['timestamp'])
        limit = 3.0 if row['prev'] and row['next'] else 1.5
        if seconds > limit:
            return np.array([np.nan, np.nan])
        step = np.array(last['translation'][:2]) - np.array(first['translation'][:2])
        return step / seconds

    def imu(self, scene):
        """CAN-bus pose messages of a scene between its first and last sample, [] where there are none."""
        path = self.dataroot / 'can_bus' / f'{scene["name"]}_pose.json'
        if not path.is_file():
            return []
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise DatasetError(f'{path} is no JSON ({error}); unpack the CAN bus again.') from error



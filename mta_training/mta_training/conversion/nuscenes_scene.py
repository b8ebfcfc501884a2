"""One nuScenes scene in our conventions; the only place that knows w, x, y, z and w, l, h.

Optional beside the tables: `captions/final_caption_bbox_token.json` (TOD3Cap),
`can_bus/<scene>_pose.json` and `<version>/splits.json`.
"""

from functools import cached_property
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mta_perception.contract import CAMERAS, BoxCode, nuscenes_channel
from mta_perception.foreign_text import shown
from mta_perception.geometry import invert_rigid, rigid_from_quaternion, yaw_from_rigid
from mta_training.conversion.jpeg_check import LostImage, read_jpeg
from mta_training.conversion.table_fields import CAN_BUS, DatasetError, below, small_json

# nuScenes category -> detection class (devkit eval/detection/utils.py); others are not scored.
DETECTION_CLASS = {
    'movable_object.barrier': 'barrier',
    'vehicle.bicycle': 'bicycle',
    'vehicle.bus.bendy': 'bus',
    'vehicle.bus.rigid': 'bus',
    'vehicle.car': 'car',
    'vehicle.construction': 'construction_vehicle',
    'vehicle.motorcycle': 'motorcycle',
    'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'pedestrian',
    'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian',
    'movable_object.trafficcone': 'traffic_cone',
    'vehicle.trailer': 'trailer',
    'vehicle.truck': 'truck',
}
MAX_GAP_S = 1.5  # between neighbours from which a velocity is taken; twice that for both
_CAMERA_OF = {nuscenes_channel(camera): camera for camera in CAMERAS}


class ImageRecord(NamedTuple):
    """One camera image on disk."""

    camera: str
    stamp_ns: int
    path: Path
    width: int  # as the tables have it [px]
    height: int


class Annotation(NamedTuple):
    """One box of one keyframe."""

    annotation_token: str
    instance_token: str
    category: str  # nuScenes category, e.g. human.pedestrian.adult
    class_name: str  # contract class, '' for categories outside the ten
    box: np.ndarray  # (10,) contract.BoxCode, ego frame; unknown velocity is NaN
    ego_from_box: np.ndarray  # (4, 4), with roll and pitch, which `box` cannot hold
    attribute: str  # '' for none
    visibility_token: str  # '1' to '4', '' for unknown
    num_lidar_pts: int
    num_radar_pts: int
    caption: str  # '' for none
    row: dict  # as annotated: translation, rotation (w, x, y, z), size (w, l, h)
    world_velocity: np.ndarray  # (2,) vx, vy [m/s] in world axes, NaN unknown


def rigid_from_record(row):
    """(4, 4) of an ego_pose, calibrated_sensor or annotation row: its rotation is w, x, y, z."""
    w, x, y, z = row['rotation']
    return rigid_from_quaternion([x, y, z, w], row['translation'])


def rebuilt_caption(entry):
    """One sentence from a TOD3Cap entry; the public file has the parts but no `final_caption`."""
    if entry.get('final_caption'):
        return entry['final_caption']

    def words(group, key):
        text = (entry.get(group) or {}).get(key)
        return '' if text is None or str(text).strip().lower() == 'none' else str(text).strip()

    depth = (entry.get('depth_caption') or {}).get('depth')
    motion = words('motion_caption', 'motion_caption')
    parts = (
        words('attribute_caption', 'attribute_caption'),
        '' if depth is None else f'about {round(float(depth))} meters away',
        words('localization_caption', 'localization_caption'),
        f'is {motion}' if motion else '',
        words('map_caption', 'map_caption'),
    )
    return ' '.join(part for part in parts if part)


def split_of(dataroot, version, scene_name):
    """Smallest split that has the scene, '' for none: of `splits.json`, else of the devkit."""
    path = Path(dataroot) / version / 'splits.json'
    if path.is_file():
        splits = small_json(path)
        if not isinstance(splits, dict) or not all(
            isinstance(scenes, list) for scenes in splits.values()
        ):
            raise DatasetError(
                f'{path} is {shown(splits)}, expected split names with lists of scene names; '
                'write it again or remove it.'
            )
    else:
        from nuscenes.utils.splits import create_splits_scenes

        known = (
            ('mini_train', 'mini_val') if version.endswith('mini') else ('train', 'val', 'test')
        )
        splits = {name: scenes for name, scenes in create_splits_scenes().items() if name in known}
    having = [name for name, scenes in splits.items() if scene_name in scenes]
    # A lone synthetic scene is in train and in val; the later, val, is the one it may be used as.
    return min(reversed(having), key=lambda name: len(splits[name]), default='')


class NuScenesScene:
    """All rows of one scene, in memory; small against its images."""

    def __init__(self, index, dataroot, version, scene_row, follow_links=False):
        """follow_links: files may lie outside the dataset, where links lead to."""
        self.index, self.dataroot, self.version = index, Path(dataroot), version
        self._follow_links = follow_links
        self.row = scene_row
        self.name = scene_row['name']
        self.samples = sorted(
            index.children('sample', scene_row['token']), key=lambda row: row['timestamp']
        )
        if not self.samples:
            raise DatasetError(f'{self.name} has no samples in {self.dataroot / version}.')
        data = [
            row
            for sample in self.samples
            for row in index.children('sample_data', sample['token'])
        ]
        # All sensors, keyframes and sweeps.
        self.data = sorted(data, key=lambda row: (row['timestamp'], row['filename']))
        self.pose_rows = index.get_all('ego_pose', [row['ego_pose_token'] for row in self.data])
        self._annotation_rows_of = {
            sample['token']: index.children('sample_annotation', sample['token'])
            for sample in self.samples
        }
        self.annotation_rows = {
            row['token']: row for rows in self._annotation_rows_of.values() for row in rows
        }
        self._stamp_us = {sample['token']: sample['timestamp'] for sample in self.samples}

    @cached_property
    def split(self):
        """Split that the scene belongs to, '' where none names it."""
        return split_of(self.dataroot, self.version, self.name)

    @cached_property
    def location(self):
        """Where it was driven, e.g. singapore-onenorth."""
        return self.index.get('log', self.row['log_token'])['location']

    @cached_property
    def _calibration_rows(self):
        return self.index.get_all(
            'calibrated_sensor', [row['calibrated_sensor_token'] for row in self.data]
        )

    @cached_property
    def _category_of(self):
        instances = self.index.get_all(
            'instance', [row['instance_token'] for row in self.annotation_rows.values()]
        )
        names = self.index.get_all(
            'category', [row['category_token'] for row in instances.values()]
        )
        return {token: names[row['category_token']]['name'] for token, row in instances.items()}

    @cached_property
    def _attribute_of(self):
        return {row['token']: row['name'] for row in self.index.rows('attribute')}

    @cached_property
    def _channel_of(self):
        return {
            token: self.index.get('sensor', row['sensor_token'])['channel']
            for token, row in self._calibration_rows.items()
        }

    def channel(self, data_row):
        """Sensor channel of a sample_data row."""
        return self._channel_of[data_row['calibrated_sensor_token']]

    def images(self):
        """ImageRecords in time order."""
        return [
            ImageRecord(
                _CAMERA_OF[self.channel(row)],
                row['timestamp'] * 1000,
                self._file(row),
                row['width'],
                row['height'],
            )
            for row in self.data
            if self.channel(row) in _CAMERA_OF
        ]

    def _file(self, row):
        told = f'table sample_data, token {row["token"]}, filename'
        return below(self.dataroot, row['filename'], told, self._follow_links)

    def lost_keyframes(self):
        """(camera, stamp_ns) -> sentence about each key frame image that is lost.

        A sample may be older than its images, so it must know before they are read.
        """
        keyframes = {row['filename'] for row in self.data if row['is_key_frame']}
        wanted = {self.dataroot / name for name in keyframes}
        lost = {}
        for image in self.images():
            if image.path in wanted:
                try:
                    read_jpeg(image.path, image.width, image.height)
                except LostImage as error:
                    lost[image.camera, image.stamp_ns] = str(error)
        return lost

    def calibrations(self):
        """channel -> calibrated_sensor row with `width` and `height` of its images.

        Raises DatasetError where a sensor moves within the scene: a bag has one static tree.
        """
        found = {}
        for row in self.data:
            channel, calibration = (
                self.channel(row),
                self._calibration_rows[row['calibrated_sensor_token']],
            )
            entry = {
                'translation': calibration['translation'],
                'rotation': calibration['rotation'],
                'camera_intrinsic': calibration['camera_intrinsic'],
                'width': row['width'],
                'height': row['height'],
            }
            if found.setdefault(channel, entry) != entry:
                raise DatasetError(
                    f'{self.name}: calibration or image size of {channel} changes '
                    f'within the scene (at {row["filename"]}); expected one per '
                    'scene, as nuScenes has. Split the scene there.'
                )
        return found

    def ego_poses(self):
        """(stamps_ns (n,), world_from_ego (n, 4, 4)) of all sensor data, sorted, one a stamp."""
        by_stamp = {}
        for row in self.data:
            pose = self.pose_rows[row['ego_pose_token']]
            by_stamp.setdefault(pose['timestamp'] * 1000, pose)
        stamps = sorted(by_stamp)
        return (
            np.array(stamps, dtype=np.int64),
            np.array([rigid_from_record(by_stamp[stamp]) for stamp in stamps]),
        )

    @cached_property
    def _keyframe_rows_of(self):
        found = {sample['token']: [] for sample in self.samples}
        for row in self.data:
            if row['is_key_frame']:
                found[row['sample_token']].append(row)
        return found

    def _keyframe_rows(self, sample):
        rows = self._keyframe_rows_of[sample['token']]
        if not rows:
            raise DatasetError(
                f'{self.name}: sample {sample["token"]} has no keyframe data in '
                'sample_data. Unpack the metadata again.'
            )
        return rows

    def reference_pose(self, sample):
        """world_from_ego (4, 4) of a sample: the pose of LIDAR_TOP, else of the newest image."""
        rows = self._keyframe_rows(sample)
        lidar = [row for row in rows if self.channel(row) == 'LIDAR_TOP']
        chosen = (lidar or rows)[-1]
        return rigid_from_record(self.pose_rows[chosen['ego_pose_token']])

    def keyframe_stamps(self, sample):
        """camera -> stamp [ns] of the sample's own images."""
        return {
            _CAMERA_OF[self.channel(row)]: row['timestamp'] * 1000
            for row in self._keyframe_rows(sample)
            if self.channel(row) in _CAMERA_OF
        }

    def annotations(self, sample):
        """Annotations of a sample, boxes in the ego frame of its reference pose."""
        ego_from_world = invert_rigid(self.reference_pose(sample))
        rows = self._annotation_rows_of[sample['token']]
        return [self._annotation(row, ego_from_world) for row in rows]

    def _annotation(self, row, ego_from_world):
        ego_from_box = ego_from_world @ rigid_from_record(row)
        width, length, height = row['size']
        yaw, world_velocity = yaw_from_rigid(ego_from_box), self.velocity(row)
        box = np.zeros(BoxCode.WIDTH)
        box[BoxCode.CENTER] = ego_from_box[:3, 3]
        box[BoxCode.SIZE] = length, width, height
        box[BoxCode.HEADING] = math.sin(yaw), math.cos(yaw)
        box[BoxCode.VELOCITY] = (ego_from_world[:3, :3] @ [*world_velocity, 0.0])[:2]
        category = self._category_of[row['instance_token']]
        attributes = [self._attribute(token) for token in row['attribute_tokens']]
        return Annotation(
            row['token'],
            row['instance_token'],
            category,
            DETECTION_CLASS.get(category, ''),
            box,
            ego_from_box,
            attributes[0] if attributes else '',
            row.get('visibility_token') or '',
            int(row['num_lidar_pts']),
            int(row['num_radar_pts']),
            self.index.caption(row['token']),
            row,
            world_velocity,
        )

    def _attribute(self, token):
        if token not in self._attribute_of:
            raise DatasetError(
                f'{self.name}: table attribute has no token {shown(token)}, to which an '
                'annotation refers. Unpack the metadata again.'
            )
        return self._attribute_of[token]

    def velocity(self, row):
        """(2,) vx, vy over ground in world axes, as NuScenes.box_velocity: NaN where unknown."""
        first = self._neighbour(row['prev']) or row
        last = self._neighbour(row['next']) or row
        if first is last:
            return np.array([np.nan, np.nan])
        seconds = (
            1e-6 * self._stamp_us[last['sample_token']]
            - 1e-6 * self._stamp_us[first['sample_token']]
        )
        if seconds <= 0:
            raise DatasetError(
                f'{self.name}: sample_annotation {shown(row["token"])} has neighbours in the '
                'wrong order of time (prev, next). Unpack the metadata again.'
            )
        if seconds > (2 * MAX_GAP_S if row['prev'] and row['next'] else MAX_GAP_S):
            return np.array([np.nan, np.nan])
        return (np.array(last['translation']) - np.array(first['translation']))[:2] / seconds

    def _neighbour(self, token):
        if not token:
            return None
        if token not in self.annotation_rows:
            raise DatasetError(
                f'{self.name}: sample_annotation {shown(token)}, the neighbour of '
                'another, is not in the scene. Unpack the metadata again.'
            )
        return self.annotation_rows[token]

    def imu(self):
        """CAN-bus pose messages of the scene, [] where there is no CAN bus."""
        name = f'can_bus/{self.name}_pose.json'
        path = below(self.dataroot, name, 'the CAN bus', self._follow_links)
        if not path.is_file():
            return []
        messages = small_json(path)
        for number, message in enumerate(messages if isinstance(messages, list) else [messages]):
            for field, kind in CAN_BUS.items():
                came = message.get(field) if isinstance(message, dict) else message
                if not kind.fits(came):
                    raise DatasetError(
                        f'{path} is damaged: message {number}: {field} is {shown(came)}, expected '
                        f'{kind.expected}. Unpack the CAN bus again.'
                    )
        return messages

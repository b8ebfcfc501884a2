"""One scene's bag (docs/bags.md), read back as arrays; no ROS needed.

The exact numbers of the ground truth (velocity, attributes, visibility, points) travel in the JSON
of /nuscenes/sample; /ground_truth/* carry the same for people and for ROS tools.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rosbags.interfaces import ConnectionExtRosbag2, Qos
from rosbags.rosbag2 import Reader

from mta_perception.bags.bag_files import BagError, bag_storage, is_bag, rescue_command
from mta_perception.bags.typestore import time_ns, typestore
from mta_perception.coded_images import compressed_encoding, declared_mosaic
from mta_perception.contract import BASE_FRAME, CAMERAS, CLASSES, BoxCode, optical_frame
from mta_perception.detections import Rows
from mta_perception.foreign_text import first_line
from mta_perception.frames import CameraCalibration, CameraImage, ImageError
from mta_perception.geometry import (
    Array,
    invert_rigid,
    level_pose,
    pose_at,
    rigid_from_quaternion,
    transform_boxes,
)
from mta_perception.lens import lens_of
from mta_perception.reasons import Refused

_RECORD_KEYS = {
    'sample_token',
    'stamp_ns',
    'scene',
    'description',
    'split',
    'image_stamps_ns',
    'world_from_ego',
    'annotations',
}


class Sample(NamedTuple):
    """Ground truth of one keyframe: the K objects of the ten classes, in base_link."""

    stamp_ns: int
    token: str  # nuScenes sample token
    boxes: Array  # (K, 10) float64 contract.BoxCode; unknown velocity is NaN
    labels: Rows  # (K,) int64, index into contract.CLASSES
    instances: list[str]  # K instance tokens
    annotations: list[str]  # K sample_annotation tokens
    captions: list[str]  # K sentences, '' where there is none
    num_lidar_pts: Rows  # (K,) int64
    num_radar_pts: Rows  # (K,) int64
    visibility: list[str]  # K tokens '1'..'4', '' unknown
    attributes: list[str]  # K attribute names, '' for none
    image_stamps: dict[str, int]  # camera -> stamp [ns] of the keyframe's image
    world_from_ego: Array  # (4, 4) at stamp_ns
    ego_from_box: Array  # (K, 4, 4), with the roll and pitch that `boxes` cannot hold
    # Every object as /nuscenes/sample has it: also those of other categories, with `global`
    # translation, rotation, size, velocity.
    annotated: list[dict[str, Any]]

    def levelled(self) -> 'Sample':
        """The same in the level frame, in which the bird's-eye view lies (geometry.level_pose)."""
        world_from_level = level_pose(self.world_from_ego)
        level_from_ego = invert_rigid(world_from_level) @ self.world_from_ego
        return self._replace(
            boxes=transform_boxes(level_from_ego, self.boxes),
            world_from_ego=world_from_level,
            ego_from_box=level_from_ego @ self.ego_from_box,
        )


def find_bags(directory: str | Path) -> list[Path]:
    """The bags below a directory (or the directory itself), sorted by name; BagError if none."""
    directory = Path(directory)
    if is_bag(directory):
        return [directory]
    inside = sorted(directory.iterdir()) if directory.is_dir() else []
    bags = [path for path in inside if is_bag(path) and not path.name.startswith('.')]
    if not bags:
        raise BagError(
            f'{directory} holds no bags (no */metadata.yaml, no .mcap). Make some with '
            '`mta-train convert`.'
        )
    return bags


def image_topic(camera: str) -> str:
    """Topic of a camera's JPEGs in a bag."""
    return f'/{camera}/image_raw/compressed'


class SceneBag:
    """A bag, opened once to check it; every property is read when first asked for.

    Raises BagError, also later where something that is asked for is not in the bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._storage = bag_storage(self.path)
        with self._reader() as reader:
            # Topics without messages are as good as not there.
            self.topics = {c.topic: c for c in reader.connections if c.msgcount}
            self.start_ns, self.end_ns = reader.start_time, reader.end_time
            self.message_count = reader.message_count
        if not self.message_count:
            raise BagError(f'{self.path} holds no messages. Convert the scene again.')

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        with self._damage_named(), Reader(self._storage) as reader:
            yield reader

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Whatever rosbags makes of a damaged file becomes a BagError."""
        try:
            yield
        except BagError:
            raise
        # Besides its own errors rosbags lets those of parsing nonsense through as they come, and
        # those of the libraries below it: apsw's, zstandard's, lz4's.
        except Exception as error:
            raise BagError(
                f'{self.path} cannot be read as a bag: {first_line(error)}. What is whole of it: '
                f'`{rescue_command(self.path)}`.'
            ) from error

    def require(self, *topics: str) -> None:
        """Raise BagError unless the bag has all these topics."""
        missing = [topic for topic in topics if topic not in self.topics]
        if missing:
            raise BagError(
                f'{self.path} has no topic {", ".join(missing)}; it has '
                f'{", ".join(sorted(self.topics))}. Expected a bag made by '
                '`mta-train convert`.'
            )

    def raw(
        self,
        topics: Iterable[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[tuple[str, str, int, bytes]]:
        """Iterate (topic, type, stamp_ns, serialized bytes) in time order."""
        topics = None if topics is None else set(topics)
        with self._reader() as reader:
            chosen = [c for c in reader.connections if topics is None or c.topic in topics]
            if not chosen:
                return
            messages = reader.messages(chosen, start=start_ns, stop=stop_ns)
            for connection, stamp_ns, data in messages:
                yield connection.topic, connection.msgtype, stamp_ns, data

    def messages(
        self,
        topics: Iterable[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[tuple[str, int, Any]]:
        """Iterate (topic, stamp_ns, message object) in time order."""
        store = typestore()
        for topic, name, stamp_ns, data in self.raw(topics, start_ns, stop_ns):
            with self._damage_named():
                content = store.deserialize_cdr(data, name)
            yield topic, stamp_ns, content

    def offered_qos(self, topic: str) -> list[Qos]:
        """QoS profiles the bag offers for a topic (rosbags.interfaces.Qos)."""
        extension = self.topics[topic].ext
        assert isinstance(extension, ConnectionExtRosbag2)
        return extension.offered_qos_profiles

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Contract cameras that have images in this bag."""
        return tuple(camera for camera in CAMERAS if image_topic(camera) in self.topics)

    @cached_property
    def calibrations(self) -> dict[str, CameraCalibration]:
        """camera -> CameraCalibration."""
        self.require('/tf_static', *(f'/{camera}/camera_info' for camera in self.cameras))
        from_camera = {}
        for _, _, tree in self.messages(['/tf_static']):
            for entry in tree.transforms:
                if entry.header.frame_id.lstrip('/') == BASE_FRAME:
                    from_camera[entry.child_frame_id.lstrip('/')] = _rigid(entry.transform)
        result = {}
        for camera in self.cameras:
            frame = optical_frame(camera)
            if frame not in from_camera:
                raise BagError(
                    f'{self.path}: /tf_static has no {BASE_FRAME} -> {frame}; it has '
                    f'{sorted(from_camera)}.'
                )
            info = next(self.messages([f'/{camera}/camera_info']))[2]
            try:
                lens = lens_of(info, rectified=False)
            except Refused as error:
                raise BagError(f'{self.path}: /{camera}/camera_info: {error}') from error
            result[camera] = CameraCalibration(
                lens.intrinsics,
                lens.width,
                lens.height,
                from_camera[frame],
                lens.distortion,
                lens.sensor,
            )
        return result

    @cached_property
    def ego_poses(self) -> tuple[Rows, Array]:
        """(stamps_ns (n,) int64, world_from_ego (n, 4, 4)) from /odom, in time order."""
        self.require('/odom')
        stamps, poses = [], []
        for _, _, odometry in self.messages(['/odom']):
            pose = odometry.pose.pose
            stamps.append(time_ns(odometry.header.stamp))
            poses.append(
                rigid_from_quaternion(
                    [
                        pose.orientation.x,
                        pose.orientation.y,
                        pose.orientation.z,
                        pose.orientation.w,
                    ],
                    [pose.position.x, pose.position.y, pose.position.z],
                )
            )
        return np.array(stamps, dtype=np.int64), np.array(poses)

    def world_from_ego_at(self, stamp_ns: int) -> Array:
        """(4, 4) at a stamp, between the two poses around it; the nearest one outside."""
        stamps_ns, poses = self.ego_poses
        return pose_at(stamps_ns, poses, stamp_ns)

    def image_stamps(self, camera: str) -> Rows:
        """(n,) int64 stamps [ns] of a camera's images, in time order."""
        topic = image_topic(camera)
        self.require(topic)
        # A bag's message has the stamp of its header.
        return np.array([stamp for _, _, stamp, _ in self.raw([topic])], dtype=np.int64)

    def images(
        self,
        cameras: str | Sequence[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[CameraImage]:
        """Iterate CameraImage (JPEG bytes as they were taken) in time order; stop is exclusive.

        cameras: a name, a sequence of names, or None for all.
        """
        names = (
            self.cameras
            if cameras is None
            else (cameras,)
            if isinstance(cameras, str)
            else tuple(cameras)
        )
        by_topic = {image_topic(camera): camera for camera in names}
        self.require(*by_topic)
        for topic, _, picture in self.messages(list(by_topic), start_ns, stop_ns):
            yield CameraImage(
                by_topic[topic],
                time_ns(picture.header.stamp),
                picture.data.data,
                *_coding(picture),
            )

    @cached_property
    def _sample_records(self) -> list[dict[str, Any]]:
        self.require('/nuscenes/sample')
        texts = [text.data for _, _, text in self.messages(['/nuscenes/sample'])]
        try:
            records = [json.loads(text) for text in texts]
        except ValueError as error:
            raise self._no_sample(error) from error
        for record in records:
            missing = _RECORD_KEYS - record.keys() if isinstance(record, dict) else _RECORD_KEYS
            if missing:
                raise self._no_sample(f'no {", ".join(sorted(missing))}')
        return records

    def _no_sample(self, what: object) -> BagError:
        return BagError(
            f'{self.path}: /nuscenes/sample is not as this version writes it: {what}. '
            'Convert the scene again.'
        )

    @cached_property
    def name(self) -> str:
        """Scene name, e.g. scene-0001."""
        return str(self._sample_records[0]['scene'])

    @cached_property
    def description(self) -> str:
        """The scene's description, e.g. 'Night, turn left'."""
        return str(self._sample_records[0]['description'])

    @cached_property
    def split(self) -> str:
        """Split the scene belongs to ('train', 'val', ...), '' where the dataset names none."""
        return str(self._sample_records[0]['split'])

    @cached_property
    def samples(self) -> list[Sample]:
        """Keyframes in time order."""
        try:
            return [_sample(record) for record in self._sample_records]
        except (LookupError, TypeError, ValueError) as error:
            raise self._no_sample(repr(error)) from error


def _coding(picture: Any) -> tuple[str, str]:
    """(encoding, mosaic) of a CompressedImage, as the node finds them; what is neither JPEG nor
    PNG keeps its format for an encoding and is refused when it is decoded."""
    try:
        return (
            compressed_encoding(picture.data.data, picture.format),
            declared_mosaic(picture.format),
        )
    except ImageError:
        return picture.format, ''


def _rigid(transform: Any) -> Array:
    rotation, shift = transform.rotation, transform.translation
    return rigid_from_quaternion(
        [rotation.x, rotation.y, rotation.z, rotation.w], [shift.x, shift.y, shift.z]
    )


def _sample(record: dict[str, Any]) -> Sample:
    objects = [entry for entry in record['annotations'] if entry['class_name'] in CLASSES]

    def column(key: str) -> list[Any]:
        return [entry[key] for entry in objects]

    boxes = np.array(
        [[np.nan if value is None else value for value in entry['box']] for entry in objects],
        dtype=np.float64,
    ).reshape(-1, BoxCode.WIDTH)
    return Sample(
        int(record['stamp_ns']),
        record['sample_token'],
        boxes,
        np.array([CLASSES.index(name) for name in column('class_name')], dtype=np.int64),
        column('instance_token'),
        column('annotation_token'),
        column('caption'),
        np.array(column('num_lidar_pts'), dtype=np.int64),
        np.array(column('num_radar_pts'), dtype=np.int64),
        column('visibility_token'),
        column('attribute'),
        {camera: int(stamp) for camera, stamp in record['image_stamps_ns'].items()},
        np.array(record['world_from_ego'], dtype=np.float64),
        np.array(column('ego_from_box'), dtype=np.float64).reshape(-1, 4, 4),
        record['annotations'],
    )

"""nuScenes-format dataset -> one rosbag2 (mcap) directory a scene, as docs/architecture.md lists.

Scenes are written in parallel processes, each streaming its images from disk, into a hidden directory
that is renamed when it is whole: a killed conversion leaves nothing that looks like a bag, and the same
command goes on with the scenes that are not there yet.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed
import errno
import json
import multiprocessing
import os
from pathlib import Path
import shutil
import struct

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rosbags.interfaces import (Qos, QosDurability, QosHistory, QosLiveliness, QosReliability,
                                QosTime)
from rosbags.rosbag2 import StoragePlugin, Writer

from mta_perception.bag import image_topic
from mta_perception.contract import BASE_FRAME, CAMERAS, nuscenes_channel, optical_frame
from mta_perception.geometry import invert_rigid, quaternion_from_rigid
from mta_perception.typestore import message, time_message, typestore
from mta_training.nuscenes import DatasetError, NuScenesTables, rigid_from_record

WORLD_FRAME = 'map'
_FOREVER = QosTime(2147483647, 4294967295)


def _qos(depth, durability):
    return Qos(QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, durability, _FOREVER, _FOREVER,
               QosLiveliness.AUTOMATIC, _FOREVER, False)


VOLATILE = _qos(10, QosDurability.VOLATILE)
LATCHED = _qos(1, QosDurability.TRANSIENT_LOCAL)


def convert(dataroot, out, *, version='v1.0-mini', scenes=None, workers=None, progress=True):
    """Convert the scenes of a dataset into bags below `out`; returns the list of bag directories.

    scenes   names to convert, None = all
    workers  processes, None = one per core
    Raises DatasetError for a dataset that is not complete; bags already there are kept.
    """
    out = Path(out)
    tables = NuScenesTables(dataroot, version)
    names = [scene['name'] for scene in tables.scenes]
    unknown = sorted(set(scenes or []) - set(names))
    if unknown:
        raise DatasetError(f'scenes {", ".join(unknown)} are not in {dataroot}/{version}; it has '
                           f'{", ".join(names[:10])}{" ..." if len(names) > 10 else ""}.')
    chosen = [name for name in names if not scenes or name in scenes]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for leftover in out.glob('.partial-*'):
            shutil.rmtree(leftover)
        todo = [name for name in chosen if not (out / name / 'metadata.yaml').is_file()]
        _convert_all(tables, todo, out, min(workers or os.cpu_count() or 1, max(1, len(todo))),
                     progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DatasetError(f'no space left on the disk of {out}. Free some and run the same '
                               'command again: it goes on with the scene it stopped in.') from error
        raise DatasetError(f'{error.filename or out}: {error.strerror or error}.') from error
    return [out / name for name in chosen]


def _convert_all(tables, todo, out, workers, show):
    columns = (TextColumn('converting'), BarColumn(), MofNCompleteColumn(), TextColumn('scenes'),
               TimeRemainingColumn())
    with Progress(*columns, disable=not show) as bar:
        task = bar.add_task('', total=len(todo))
        if workers == 1:
            for name in todo:
                convert_scene(tables, name, out)
                bar.advance(task)
            return
        # Forked workers share the tables, which take minutes to read for the full dataset.
        context = multiprocessing.get_context('fork')
        _touch_indices(tables)
        global _shared_tables
        _shared_tables = tables
        with ProcessPoolExecutor(workers, context) as pool:
            futures = [pool.submit(_convert_shared, name, out) for name in todo]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.advance(task)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


_shared_tables = None


def _convert_shared(name, out):
    return convert_scene(_shared_tables, name, out)


def _touch_indices(tables):
    for scene in tables.scenes[:1]:
        tables.split(scene)
        for sample in tables.samples(scene)[:1]:
            tables.annotations(sample)


def convert_scene(tables, name, out):
    """Write one scene's bag; returns its directory."""
    scene = next(row for row in tables.scenes if row['name'] == name)
    partial = Path(out) / f'.partial-{name}-{os.getpid()}'
    try:
        writer = Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP)
        with writer:
            _SceneWriter(writer, tables, scene).write()
        _sync_to_disk(partial)
        target = Path(out) / name
        if target.exists():                       # what stands there has no metadata: not a bag
            shutil.rmtree(target)
        os.replace(partial, target)
        return target
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _sync_to_disk(directory):
    for path in directory.iterdir():
        with open(path, 'rb') as file:
            os.fsync(file.fileno())


class _SceneWriter:
    """Everything one scene needs while its messages are merged in time order."""

    def __init__(self, writer, tables, scene):
        self.writer, self.tables, self.scene = writer, tables, scene
        self.store = typestore()
        self.calibrations = tables.calibrations(scene)
        self.cameras = [c for c in CAMERAS if nuscenes_channel(c) in self.calibrations]
        if not self.cameras:
            raise DatasetError(f'{scene["name"]} has no camera images; expected the channels '
                               f'{", ".join(map(nuscenes_channel, CAMERAS))}.')
        self.connections = {}
        self.info = {camera: self._camera_info(camera) for camera in self.cameras}

    def write(self):
        """All messages, in the order of their stamps."""
        self._open_topics()
        stamps, poses = self.tables.ego_poses(self.scene)
        samples = self.tables.samples(self.scene)
        first = min(int(stamps[0]), samples[0]['timestamp'] * 1000)
        self._put('/tf_static', first, self._static_tree(first))
        # (stamp, order among equals, writer, argument): poses before the images that need them.
        events = [(int(stamp), 0, self._put_pose, index) for index, stamp in enumerate(stamps)]
        self.twists = _twists(stamps, poses)
        self.stamps, self.poses = stamps, poses
        events += [(image.stamp_ns, 1, self._put_image, image)
                   for image in self.tables.images(self.scene)]
        events += [(sample['timestamp'] * 1000, 2, self._put_sample, sample) for sample in samples]
        last = max(event[0] for event in events)
        events += [(row['utime'] * 1000, 3, self._put_imu, row)
                   for row in self.tables.imu(self.scene) if first <= row['utime'] * 1000 <= last]
        for stamp, _, put, argument in sorted(events, key=lambda event: event[:2]):
            put(stamp, argument)

    def _open_topics(self):
        types = {'/tf_static': 'tf2_msgs/msg/TFMessage', '/tf': 'tf2_msgs/msg/TFMessage',
                 '/odom': 'nav_msgs/msg/Odometry',
                 '/ground_truth/detections': 'vision_msgs/msg/Detection3DArray',
                 '/ground_truth/captions': 'mta_msgs/msg/ObjectCaptionArray',
                 '/nuscenes/sample': 'std_msgs/msg/String'}
        if self.tables.imu(self.scene):
            types['/imu'] = 'sensor_msgs/msg/Imu'
        for camera in self.cameras:
            types[image_topic(camera)] = 'sensor_msgs/msg/CompressedImage'
            types[f'/{camera}/camera_info'] = 'sensor_msgs/msg/CameraInfo'
        for topic, name in types.items():
            self.connections[topic] = self.writer.add_connection(
                topic, name, typestore=self.store,
                offered_qos_profiles=[LATCHED if topic == '/tf_static' else VOLATILE])

    def _put(self, topic, stamp_ns, content):
        connection = self.connections[topic]
        self.writer.write(connection, stamp_ns,
                          self.store.serialize_cdr(content, connection.msgtype))

    def _put_image(self, stamp_ns, image):
        jpeg = _read_jpeg(image.path)
        frame = optical_frame(image.camera)
        self.writer.write(self.connections[image_topic(image.camera)], stamp_ns,
                          compressed_image_cdr(stamp_ns, frame, jpeg))
        info = self.info[image.camera]
        info.header.stamp = time_message(stamp_ns)
        self._put(f'/{image.camera}/camera_info', stamp_ns, info)

    def _put_pose(self, stamp_ns, index):
        pose = self.poses[index]
        header = _header(stamp_ns, WORLD_FRAME)
        twist = self.twists[index]
        self._put('/tf', stamp_ns, message('tf2_msgs/msg/TFMessage', transforms=[
            _transform(header, BASE_FRAME, pose)]))
        self._put('/odom', stamp_ns, message(
            'nav_msgs/msg/Odometry', header=header, child_frame_id=BASE_FRAME,
            pose=message('geometry_msgs/msg/PoseWithCovariance', pose=_pose(pose),
                         covariance=np.zeros(36)),
            twist=message('geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                          twist=message('geometry_msgs/msg/Twist', linear=_vector(twist[:3]),
                                        angular=_vector(twist[3:])))))

    def _put_imu(self, stamp_ns, row):
        w, x, y, z = row['orientation']
        self._put('/imu', stamp_ns, message(
            'sensor_msgs/msg/Imu', header=_header(stamp_ns, BASE_FRAME),
            orientation=message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w),
            orientation_covariance=np.zeros(9), angular_velocity=_vector(row['rotation_rate']),
            angular_velocity_covariance=np.zeros(9), linear_acceleration=_vector(row['accel']),
            linear_acceleration_covariance=np.zeros(9)))

    def _put_sample(self, stamp_ns, sample):
        annotations = self.tables.annotations(sample)
        scored = [annotation for annotation in annotations if annotation.class_name]
        header = _header(stamp_ns, BASE_FRAME)
        self._put('/ground_truth/detections', stamp_ns, message(
            'vision_msgs/msg/Detection3DArray', header=header,
            detections=[_detection(header, annotation) for annotation in scored]))
        self._put('/ground_truth/captions', stamp_ns, message(
            'mta_msgs/msg/ObjectCaptionArray', header=header,
            captions=[_caption(header, a) for a in scored if a.caption]))
        record = {
            'sample_token': sample['token'], 'stamp_ns': stamp_ns, 'scene': self.scene['name'],
            'description': self.scene['description'], 'split': self.tables.split(self.scene),
            'image_stamps_ns': self.tables.keyframe_stamps(sample),
            'world_from_ego': self.tables.reference_pose(sample).tolist(),
            'annotations': [self._annotation_record(a) for a in annotations]}
        self._put('/nuscenes/sample', stamp_ns,
                  message('std_msgs/msg/String', data=json.dumps(record)))

    def _annotation_record(self, annotation):
        row = self.tables.get('sample_annotation', annotation.annotation_token)
        return {**annotation._asdict(),
                'box': [None if np.isnan(value) else float(value) for value in annotation.box],
                # As annotated, w, x, y, z and w, l, h: exporting gives the official boxes back.
                'global': {key: row[key] for key in ('translation', 'size', 'rotation')}}

    def _camera_info(self, camera):
        calibration = self.calibrations[nuscenes_channel(camera)]
        k = np.array(calibration['camera_intrinsic'], dtype=np.float64)
        p = np.hstack([k, np.zeros((3, 1))])
        roi = message('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0,
                      do_rectify=False)
        return message(
            'sensor_msgs/msg/CameraInfo', header=_header(0, optical_frame(camera)),
            height=calibration['height'], width=calibration['width'],
            distortion_model='plumb_bob', d=np.zeros(5), k=k.flatten(), r=np.eye(3).flatten(),
            p=p.flatten(), binning_x=0, binning_y=0, roi=roi)

    def _static_tree(self, stamp_ns):
        header = _header(stamp_ns, BASE_FRAME)
        frames = {optical_frame(c): nuscenes_channel(c) for c in self.cameras}
        frames.update({channel.lower(): channel for channel in self.calibrations
                       if channel not in frames.values()})
        return message('tf2_msgs/msg/TFMessage', transforms=[
            _transform(header, frame, rigid_from_record(self.calibrations[channel]))
            for frame, channel in frames.items()])


def compressed_image_cdr(stamp_ns, frame_id, jpeg):
    """sensor_msgs/CompressedImage as little-endian CDR; bytes are copied once."""
    frame = frame_id.encode() + b'\0'
    head = struct.pack('<IiII', 0x00000100, stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000,
                       len(frame)) + frame
    head += b'\0' * (-(len(head) - 4) % 4) + struct.pack('<I', 5) + b'jpeg\0'
    head += b'\0' * (-(len(head) - 4) % 4) + struct.pack('<I', len(jpeg))
    return b''.join((head, jpeg))


def _read_jpeg(path):
    try:
        jpeg = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f'{path} is missing, but the tables name it. Unpack the images again, or '
                           'convert without this scene (--scene).') from None
    if jpeg[:2] != b'\xff\xd8' or jpeg.rstrip(b'\0')[-2:] != b'\xff\xd9':
        raise DatasetError(f'{path} is no whole JPEG ({len(jpeg)} bytes; it should begin with ff d8 '
                           'and end with ff d9). Unpack the images again.')
    return jpeg


def _twists(stamps, poses):
    """(n, 6) velocity and turn rate in the ego frame by central differences."""
    twists = np.zeros((len(stamps), 6))
    if len(stamps) < 2:
        return twists
    for index in range(len(stamps)):
        a, b = max(index - 1, 0), min(index + 1, len(stamps) - 1)
        seconds = (stamps[b] - stamps[a]) * 1e-9
        step = invert_rigid(poses[index]) @ poses[b][:, 3] - invert_rigid(poses[index]) @ poses[a][:, 3]
        turn = poses[index][:3, :3].T @ (poses[b][:3, :3] @ poses[a][:3, :3].T) @ poses[index][:3, :3]
        skew = (turn - turn.T) / 2.0
        twists[index] = [*(step[:3] / seconds), skew[2, 1] / seconds, skew[0, 2] / seconds,
                         skew[1, 0] / seconds]
    return twists


def _header(stamp_ns, frame_id):
    return message('std_msgs/msg/Header', stamp=time_message(stamp_ns), frame_id=frame_id)


def _vector(xyz):
    return message('geometry_msgs/msg/Vector3', x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def _quaternion(matrix):
    x, y, z, w = quaternion_from_rigid(matrix).tolist()
    return message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)


def _point(xyz):
    return message('geometry_msgs/msg/Point', x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def _pose(matrix):
    return message('geometry_msgs/msg/Pose', position=_point(matrix[:3, 3]),
                   orientation=_quaternion(matrix))


def _transform(header, child, target_from_source):
    return message('geometry_msgs/msg/TransformStamped', header=header, child_frame_id=child,
                   transform=message('geometry_msgs/msg/Transform',
                                     translation=_vector(target_from_source[:3, 3]),
                                     rotation=_quaternion(target_from_source)))


def _box_pose(box):
    yaw = np.arctan2(box[6], box[7])
    half = message('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=float(np.sin(yaw / 2)),
                   w=float(np.cos(yaw / 2)))
    return message('geometry_msgs/msg/Pose', position=_point(box[:3]), orientation=half)


def _detection(header, annotation):
    pose = _box_pose(annotation.box)
    hypothesis = message('vision_msgs/msg/ObjectHypothesis', class_id=annotation.class_name,
                         score=1.0)
    return message(
        'vision_msgs/msg/Detection3D', header=header, id=annotation.instance_token,
        results=[message('vision_msgs/msg/ObjectHypothesisWithPose', hypothesis=hypothesis,
                         pose=message('geometry_msgs/msg/PoseWithCovariance', pose=pose,
                                      covariance=np.zeros(36)))],
        bbox=message('vision_msgs/msg/BoundingBox3D', center=pose,
                     size=_vector(annotation.box[3:6])))


def _caption(header, annotation):
    velocity = np.nan_to_num(annotation.box[8:10])
    return message(
        'mta_msgs/msg/ObjectCaption', stamp=header.stamp, detection_id=annotation.instance_token,
        class_id=annotation.class_name, score=1.0, caption=annotation.caption, caption_score=1.0,
        position=_point(annotation.box[:3]), velocity=_vector([*velocity, 0.0]))

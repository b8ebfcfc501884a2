"""One scene as the messages of its bag, in the order of their stamps (docs/bags.md)."""

from mta_perception.bags.qos import offered_qos
from mta_perception.bags.scene_bag import image_topic
from mta_perception.bags.typestore import typestore
from mta_perception.contract import CAMERAS, nuscenes_channel, optical_frame
from mta_training.conversion import messages
from mta_training.conversion.jpeg_check import LostImage, read_jpeg
from mta_training.conversion.table_fields import DatasetError

VOLATILE = offered_qos(10)
LATCHED = offered_qos(1, latched=True)
_TYPES = {
    '/tf_static': 'tf2_msgs/msg/TFMessage',
    '/tf': 'tf2_msgs/msg/TFMessage',
    '/odom': 'nav_msgs/msg/Odometry',
    '/imu': 'sensor_msgs/msg/Imu',
    '/ground_truth/detections': 'vision_msgs/msg/Detection3DArray',
    '/ground_truth/captions': 'mta_msgs/msg/ObjectCaptionArray',
    '/nuscenes/sample': 'std_msgs/msg/String',
}


class SceneWriter:
    """One scene, its messages merged in time order.

    lost_keyframes  (camera, stamp_ns) -> sentence: key frame images that are known to be lost
    strict          LostImage ends it; else the image is left out
    """

    def __init__(self, writer, scene, lost_keyframes=None, strict=True):
        self.writer, self.scene, self.strict = writer, scene, strict
        self.known = lost_keyframes or {}
        self.lost, self.written = [], 0  # sentences; images
        calibrations = scene.calibrations()
        cameras = [camera for camera in CAMERAS if nuscenes_channel(camera) in calibrations]
        if not cameras:
            raise DatasetError(
                f'{scene.name} has no camera images; expected the channels '
                f'{", ".join(map(nuscenes_channel, CAMERAS))}.'
            )
        self.camera_info = {
            camera: messages.camera_info(camera, calibrations[nuscenes_channel(camera)])
            for camera in cameras
        }
        camera_of = {nuscenes_channel(camera): camera for camera in cameras}
        # Cameras are seen from their optical frame; lidar and radars have one frame.
        self.frames = {
            optical_frame(camera_of[channel]) if channel in camera_of else channel.lower(): row
            for channel, row in calibrations.items()
        }
        self.stamps, self.poses = scene.ego_poses()
        self.twists = messages.twists(self.stamps, self.poses)
        self.ego_messages = messages.EgoMessages()
        self.imu = scene.imu()
        self.connections = {}

    def write(self):
        """All messages in the order of their stamps."""
        self._open_topics()
        samples = [(row['timestamp'] * 1000, row) for row in self.scene.samples]
        first = min(int(self.stamps[0]), samples[0][0])
        last = max(int(self.stamps[-1]), samples[-1][0])
        # (stamp, order among equals, writer, argument): poses before the images that need them.
        events = [(int(stamp), 0, self._pose, row) for row, stamp in enumerate(self.stamps)]
        events += [(image.stamp_ns, 1, self._image, image) for image in self.scene.images()]
        events += [(stamp, 2, self._sample, row) for stamp, row in samples]
        events += [
            (row['utime'] * 1000, 3, self._imu, row)
            for row in self.imu
            if first <= row['utime'] * 1000 <= last
        ]
        # Again with each sample, for who begins in the middle (ros2 bag play --start-offset).
        tree = messages.static_tree(first, self.frames)
        events += [(stamp, -1, self._static, tree) for stamp in {first, *dict(samples)}]
        for stamp, _, put, argument in sorted(events, key=lambda event: event[:2]):
            put(stamp, argument)

    def _open_topics(self):
        types = {topic: name for topic, name in _TYPES.items() if topic != '/imu' or self.imu}
        for camera in self.camera_info:
            types[image_topic(camera)] = 'sensor_msgs/msg/CompressedImage'
            types[f'/{camera}/camera_info'] = 'sensor_msgs/msg/CameraInfo'
        for topic, name in types.items():
            self.connections[topic] = self.writer.add_connection(
                topic,
                name,
                typestore=typestore(),
                offered_qos_profiles=[LATCHED if topic == '/tf_static' else VOLATILE],
            )

    def _put(self, topic, stamp_ns, cdr):
        self.writer.write(self.connections[topic], stamp_ns, cdr)

    def _static(self, stamp_ns, tree):
        self._put('/tf_static', stamp_ns, tree)

    def _pose(self, stamp_ns, row):
        tree, odometry = self.ego_messages.at(stamp_ns, self.poses[row], self.twists[row])
        self._put('/tf', stamp_ns, tree)
        self._put('/odom', stamp_ns, odometry)

    def _image(self, stamp_ns, image):
        if (image.camera, stamp_ns) in self.known:
            self.lost.append(self.known[image.camera, stamp_ns])
            return
        try:
            jpeg = read_jpeg(image.path, image.width, image.height)
        except LostImage as error:
            if self.strict:
                raise
            self.lost.append(str(error))
            return
        self.written += 1
        # Before the image, so that who has the image knows its camera.
        self._put(
            f'/{image.camera}/camera_info',
            stamp_ns,
            messages.restamped(self.camera_info[image.camera], stamp_ns),
        )
        self._put(
            image_topic(image.camera),
            stamp_ns,
            messages.compressed_image(stamp_ns, optical_frame(image.camera), jpeg),
        )

    def _sample(self, stamp_ns, sample):
        annotations = self.scene.annotations(sample)
        self._put('/ground_truth/detections', stamp_ns, messages.detections(stamp_ns, annotations))
        self._put('/ground_truth/captions', stamp_ns, messages.captions(stamp_ns, annotations))
        self._put(
            '/nuscenes/sample',
            stamp_ns,
            messages.sample_record(
                stamp_ns, self.scene, sample, annotations, self._keyframe_stamps(sample)
            ),
        )

    def _keyframe_stamps(self, sample):
        """Of the key frame images that are in the bag."""
        stamps = self.scene.keyframe_stamps(sample)
        return {k: stamp for k, stamp in stamps.items() if (k, stamp) not in self.known}

    def _imu(self, stamp_ns, row):
        self._put('/imu', stamp_ns, messages.imu(stamp_ns, row))

"""A car for the tests of the node: six cameras, odometry, transforms over real DDS, and ears.

It is an ordinary rclpy program such as a user would write; nothing of the node is imported.
"""

import os
from pathlib import Path
import re
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import rigs

from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.contract import CAMERAS
from mta_perception.geometry import quaternion_from_rigid
from mta_perception.reasons import Code

SECOND_NS = 1_000_000_000
START_NS = 1_500_000_000 * SECOND_NS  # an old bag's clock, far from today's
WIDTH, HEIGHT, FOCAL = 640, 360, 500.0
REPOSITORY = Path(__file__).resolve().parents[1]
LOGS = []  # of the nodes that the running test started


def model_directory():
    """The model the tests run: MTA_TEST_MODEL, else models/nano; skips where there is none."""
    path = Path(os.environ.get('MTA_TEST_MODEL', REPOSITORY / 'models' / 'nano'))
    if not (path / 'manifest.yaml').is_file():
        pytest.skip(f'no model in {path}; name one in MTA_TEST_MODEL')
    return path


def start_node(
    folder,
    domain,
    parameters=None,
    arguments=(),
    wait_for='active:',
    name='node',
    program=('-m', 'mta_perception.ros.node'),
):
    """The node as a process; parameters: {name: value} over what the tests need anyway."""
    values = {
        'model': model_directory(),
        'score_threshold': 0.0,
        'max_captions': 2,
        'caption_rate': 4.0,
        'overlay_width': 480,
        'diagnostics_rate': 5.0,
        **(parameters or {}),
    }
    command = [sys.executable, *program, '--ros-args']
    for key, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ['-p', f'{key}:={text}']
    log = Path(folder) / f'{name}.log'
    child = Child(name, [*command, *arguments], log, ros_environment(domain))
    LOGS.append(log)
    if wait_for:
        child.wait_for(wait_for, 60.0)
    return child


def lines_that_repeat(text):
    """Lines of a log that give a reason twice ("late: late ...")."""
    codes = [code.value for code in Code if len(code.value) > 8]
    return [
        line
        for line in text.splitlines()
        if re.search(r'\b(\w[^:]{5,}): \1\b', line) or any(line.count(code) > 1 for code in codes)
    ]


def test_images(seed=0):
    """camera -> (HEIGHT, WIDTH, 3) uint8 BGR: smooth noise, so that JPEGs are small."""
    rng = np.random.default_rng(seed)
    return {
        camera: cv2.resize(
            rng.integers(0, 255, (9, 16, 3), dtype=np.uint8),
            (WIDTH, HEIGHT),
            interpolation=cv2.INTER_CUBIC,
        )
        for camera in CAMERAS
    }


test_images.__test__ = False  # a helper, in spite of its name


def jpeg(image):
    return cv2.imencode('.jpg', image)[1].tobytes()


class Car:
    """Publishes in one ROS domain and keeps what it hears, in a thread of its own."""

    def __init__(
        self,
        domain,
        namespace='',
        frame='{}_optical',
        reliable=True,
        period_s=0.2,
        transport='compressed',
    ):
        os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node(
            'test_car', namespace=namespace or None, context=self.context
        )
        self.namespace, self.frame, self.period_s = namespace, frame, period_s
        self.transport, self.heard, self.stamp_ns = transport, {}, START_NS
        self.world_xy = np.zeros(2)
        self.freezes = False  # whether a picture may come twice
        self.images = test_images()
        self.jpegs = {camera: jpeg(image) for camera, image in self.images.items()}
        self.make_publishers(reliable)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self):
        self._executor.shutdown()
        self._thread.join(5.0)
        self.node.destroy_node()
        self.context.try_shutdown()

    # -- what it says

    def make_publishers(self, reliable):
        from nav_msgs.msg import Odometry
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image
        from tf2_msgs.msg import TFMessage

        qos = QoSProfile(
            depth=10,
            reliability=(
                ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            ),
        )
        make = self.node.create_publisher
        kind, ending = (
            (Image, 'image_raw')
            if self.transport == 'raw'
            else (CompressedImage, 'image_raw/compressed')
        )
        self.image_publishers = {
            camera: make(kind, f'{camera}/{ending}', qos) for camera in CAMERAS
        }
        self.info_publishers = {
            camera: make(CameraInfo, f'{camera}/camera_info', qos) for camera in CAMERAS
        }
        self.odometry = make(Odometry, 'odom', qos)
        self.transforms = make(TFMessage, '/tf', qos)
        self.static = make(
            TFMessage,
            '/tf_static',
            QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
        self.static.publish(TFMessage(transforms=[self.mounting(camera) for camera in CAMERAS]))

    def mounting(self, camera):
        """base_link -> optical frame, as a TransformStamped."""
        from geometry_msgs.msg import TransformStamped

        message = TransformStamped(child_frame_id=self.frame.format(camera))
        message.header.frame_id = 'base_link'
        azimuth = rigs.AZIMUTH_DEG[camera]
        xyz = np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth)), 1.5
        t, q = message.transform.translation, message.transform.rotation
        t.x, t.y, t.z = map(float, xyz)
        q.x, q.y, q.z, q.w = map(float, quaternion_from_rigid(rigs.ego_from_camera(azimuth, xyz)))
        return message

    def camera_info(self, camera, stamp_ns, focal=FOCAL):
        from sensor_msgs.msg import CameraInfo

        message = CameraInfo(
            header=self.header(stamp_ns, self.frame.format(camera)),
            width=WIDTH,
            height=HEIGHT,
            distortion_model='plumb_bob',
        )
        message.k = rigs.pinhole(focal, WIDTH, HEIGHT).ravel().tolist()
        return message

    def image(self, camera, stamp_ns, data=None):
        from sensor_msgs.msg import CompressedImage, Image

        header = self.header(stamp_ns, self.frame.format(camera))
        if self.transport == 'raw':
            pixels = (self.images[camera] if data is None else data).copy()
            # No sensor sends the same picture twice.
            rng = np.random.default_rng(stamp_ns)
            pixels[0] = rng.integers(0, 255, pixels[0].shape, dtype=pixels.dtype)
            return Image(
                header=header,
                height=pixels.shape[0],
                width=pixels.shape[1],
                encoding='bgr8',
                step=pixels.shape[1] * 3,
                data=pixels.tobytes(),
            )
        content = self.jpegs[camera] if data is None else data
        # No sensor sends the same picture twice; what lies behind its end is nobody's business.
        content += b'' if self.freezes else stamp_ns.to_bytes(8, 'little')
        return CompressedImage(header=header, format='jpeg', data=content)

    def odometry_message(self, stamp_ns, xy):
        from nav_msgs.msg import Odometry

        message = Odometry(header=self.header(stamp_ns, 'odom'), child_frame_id='base_link')
        message.pose.pose.position.x, message.pose.pose.position.y = map(float, xy)
        message.pose.pose.orientation.w = 1.0
        return message

    @staticmethod
    def header(stamp_ns, frame_id):
        from std_msgs.msg import Header

        message = Header(frame_id=frame_id)
        message.stamp.sec, message.stamp.nanosec = divmod(stamp_ns, SECOND_NS)
        return message

    def say(self, without=(), data=None, odometry=True, infos=True, xy=None):
        """One round: six images with one stamp, their camera_info, odometry; returns the stamp.

        without: cameras that stay silent.  data: camera -> bytes (or pixels) to send instead.
        odometry: True, False, or an Odometry message to send instead.
        """
        self.stamp_ns += int(self.period_s * SECOND_NS)
        self.world_xy = self.world_xy + (1.0, 0.0) if xy is None else np.asarray(xy, float)
        stamp = self.stamp_ns
        for camera in CAMERAS:
            if camera not in without:
                if infos:
                    self.info_publishers[camera].publish(self.camera_info(camera, stamp))
                self.image_publishers[camera].publish(
                    self.image(camera, stamp, (data or {}).get(camera))
                )
        if odometry is True:
            odometry = self.odometry_message(stamp, self.world_xy)
        if odometry is not False:
            self.odometry.publish(odometry)
        return stamp

    def step(self, timeout_s=15.0, **options):
        """One round, and its detections: waits until they and the memory's state come."""
        stamp = self.say(**options)
        wait_until(
            lambda: stamp in self.detection_stamps(),
            timeout_s,
            lambda: (
                f'no detections for {stamp}; last came {self.detection_stamps()[-3:]}, '
                f'diagnostics say {self.words()}'
            ),
        )
        wait_until(
            lambda: stamp in [stamp_ns(message.header.stamp) for message in list(self.history)],
            5.0,
            f'detections but no state of the memory for {stamp}',
        )
        return next(
            message
            for message in reversed(list(self.detections))
            if stamp_ns(message.header.stamp) == stamp
        )

    def words(self):
        """The newest diagnostics in words, those that are not OK."""
        newest = self.diagnostics[-1].status if self.diagnostics else []
        return [f'{status.name}: {status.message}' for status in newest if status.level != b'\0']

    def drive(self, seconds, **options):
        """Rounds in real time; returns their stamps."""
        stamps, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            stamps.append(self.say(**options))
            time.sleep(max(0.0, self.period_s - (time.monotonic() - began)))
        return stamps

    # -- what it hears

    def listen(self, message_type, topic, latched=False):
        """Keep every message of `topic`; returns the list that grows."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        heard = self.heard.setdefault(topic, [])
        qos = QoSProfile(
            depth=100,
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            ),
        )
        self.node.create_subscription(message_type, topic, heard.append, qos)
        return heard

    def listen_to_node(self, node='mta_perception'):
        """Ears for detections, captions, history and diagnostics."""
        from diagnostic_msgs.msg import DiagnosticArray
        from mta_msgs.msg import HistoryState, ObjectCaptionArray
        from vision_msgs.msg import Detection3DArray

        prefix = f'{self.namespace}/{node}'
        self.detections = self.listen(Detection3DArray, f'{prefix}/detections')
        self.captions = self.listen(ObjectCaptionArray, f'{prefix}/captions')
        self.history = self.listen(HistoryState, f'{prefix}/history')
        self.diagnostics = self.listen(DiagnosticArray, '/diagnostics')

    def wait_for_node(self, timeout_s=20.0):
        """Until the node hears our images and odometry, and we hear its detections."""
        publishers = [*self.image_publishers.values(), *self.info_publishers.values()]
        wait_until(
            lambda: all(p.get_subscription_count() for p in publishers),
            timeout_s,
            'the node does not listen to the cameras',
        )
        # The other direction of the discovery shows nowhere.  What is said before is lost for
        # good, and 0.3 s were too short once in some runs.
        time.sleep(1.0)

    def detection_stamps(self):
        return [stamp_ns(message.header.stamp) for message in list(self.detections)]

    def statuses(self):
        """The next diagnostics: component -> (level, message, {key: value})."""
        seen = len(self.diagnostics)
        wait_until(lambda: len(self.diagnostics) > seen, 8.0, 'no diagnostics')
        return _statuses(self.diagnostics[-1])

    def status_where(self, component, condition, timeout_s=8.0):
        """The first status from now on that condition(level, message, values) accepts."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.statuses().get(component)
            if status is not None and condition(*status):
                return status
            if time.monotonic() > deadline:
                pytest.fail(f'no such status of {component}; last: {status}')

    def change_state(self, *transitions, node='mta_perception'):
        """Lifecycle transitions by name, one after the other; True where all succeed."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        for name in transitions:
            number = getattr(Transition, f'TRANSITION_{name.upper()}')
            request = ChangeState.Request(transition=Transition(id=number))
            if not self.call(
                ChangeState, f'{self.namespace}/{node}/change_state', request, timeout_s=30.0
            ).success:
                return False
        return True

    def call(self, service_type, name, request, timeout_s=5.0):
        """One service call; returns the response."""
        client = self.node.create_client(service_type, name)
        assert client.wait_for_service(timeout_s), f'no service {name}'
        future = client.call_async(request)
        wait_until(future.done, timeout_s, f'{name} did not answer')
        self.node.destroy_client(client)
        return future.result()


def _statuses(message):
    return {
        status.name.partition(': ')[2]: (
            status.level[0],
            status.message,
            {pair.key: pair.value for pair in status.values},
        )
        for status in message.status
    }


def wait_until(condition, timeout_s, complaint):
    """Wait for condition(); complaint: text, or function that makes it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(complaint if isinstance(complaint, str) else complaint())
        time.sleep(0.02)


def stamp_ns(stamp):
    return stamp.sec * SECOND_NS + stamp.nanosec


def new_domain():
    return free_domain()

"""A stranger's script: plain rclpy, six real JPEGs at 5 Hz, and what it gets back from the node.

Nothing here uses the helpers of the other tests: what a user writes from the README must do.
"""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

from mta_perception.commands.processes import free_domain

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get('MTA_SHARED', REPOSITORY.parent / 'shared'))
FRAME = SHARED / 'data' / 'nuscenes_keyframe'
MODEL = Path(os.environ.get('MTA_TEST_MODEL', REPOSITORY / 'models' / 'nano'))
PERIOD_S = 0.2
OK = 0
MOST_ROUNDS = 300  # a minute; on an idle machine two or three seconds do

pytestmark = [
    pytest.mark.skipif(not (FRAME / 'frame.json').is_file(), reason=f'no real frame in {FRAME}'),
    pytest.mark.skipif(not (MODEL / 'manifest.yaml').is_file(), reason=f'no model in {MODEL}'),
]


def same_stamp(now_ns, offset_ns):
    return now_ns


def own_trigger_stamp(now_ns, offset_ns):
    """Fired one after the other, as nuScenes' cameras are."""
    return now_ns + offset_ns


def stamp_of_publishing(now_ns, offset_ns):
    return time.time_ns()


class Script:
    """Publishes one key frame again and again, and keeps what comes back."""

    def __init__(self, domain, stamp):
        self.stamp, self.rounds, self.silent = stamp, [], set()
        self.detections, self.camera_words = [], {}
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('somebodys_script', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.read_frame()
        self.images = {
            camera: self.node.create_publisher(
                CompressedImage, f'/{camera}/image_raw/compressed', 10
            )
            for camera in self.cameras
        }
        self.infos = {
            camera: self.node.create_publisher(CameraInfo, f'/{camera}/camera_info', 10)
            for camera in self.cameras
        }
        self.odometry = self.node.create_publisher(Odometry, '/odom', 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.static = self.node.create_publisher(TFMessage, '/tf_static', latched)
        self.static.publish(TFMessage(transforms=[self.mounting(name) for name in self.cameras]))
        self.node.create_subscription(
            Detection3DArray, '/mta_perception/detections', self.detections.append, 10
        )
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self.hear_diagnostics, 10)

    def read_frame(self):
        frame = json.loads((FRAME / 'frame.json').read_text())
        self.cameras = {name.lower(): camera for name, camera in frame['cameras'].items()}
        self.jpegs = {
            name: (FRAME / camera['file']).read_bytes() for name, camera in self.cameras.items()
        }
        first_us = min(camera['timestamp_us'] for camera in self.cameras.values())
        self.offsets_ns = {
            name: 1000 * (camera['timestamp_us'] - first_us)
            for name, camera in self.cameras.items()
        }

    def mounting(self, name):
        ego_from_camera = np.array(self.cameras[name]['ego_from_camera'])
        message = TransformStamped(child_frame_id=name)
        message.header.frame_id = 'base_link'
        place, turn = message.transform.translation, message.transform.rotation
        place.x, place.y, place.z = ego_from_camera[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = (
            Rotation.from_matrix(ego_from_camera[:3, :3]).as_quat().tolist()
        )
        return message

    def hear_diagnostics(self, message):
        for status in message.status:
            part = status.name.partition(': ')[2]
            if part.startswith('camera '):
                self.camera_words[part[len('camera ') :]] = status.level[0], status.message

    def publish_round(self):
        now_ns, stamps = time.time_ns(), {}
        for name, camera in self.cameras.items():
            if name in self.silent:
                continue
            stamps[name] = self.stamp(now_ns, self.offsets_ns[name])
            image = CompressedImage(format='jpeg', data=self.jpegs[name])
            info = CameraInfo(
                width=camera['width'],
                height=camera['height'],
                k=np.ravel(camera['intrinsic']).tolist(),
            )
            for message in (image, info):
                set_stamp(message.header, stamps[name])
                message.header.frame_id = name
            self.infos[name].publish(info)
            self.images[name].publish(image)
        odometry = Odometry(child_frame_id='base_link')  # standing at the origin
        odometry.header.frame_id = 'odom'
        set_stamp(odometry.header, max(stamps.values()))
        self.odometry.publish(odometry)
        self.rounds.append(stamps)

    def run_until(self, condition, complaint):
        """Publish at 5 Hz and listen until condition()."""
        for _ in range(MOST_ROUNDS):
            next_round = time.monotonic() + PERIOD_S
            self.publish_round()
            while time.monotonic() < next_round:
                self.executor.spin_once(timeout_sec=max(0.0, next_round - time.monotonic()))
            if condition():
                return
        pytest.fail(
            f'{complaint}; {len(self.detections)} detections so far, cameras: {self.camera_words}'
        )

    def answered(self, rounds):
        """Those of `rounds` whose detections came: stamped like the newest image of the round."""
        came = {stamp_ns(message.header) for message in self.detections}
        return [stamps for stamps in rounds if max(stamps.values()) in came]

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


def set_stamp(header, nanoseconds):
    header.stamp.sec, header.stamp.nanosec = divmod(nanoseconds, 10**9)


def stamp_ns(header):
    return header.stamp.sec * 10**9 + header.stamp.nanosec


@pytest.fixture(scope='module')
def domain():
    return free_domain()


@pytest.fixture(scope='module', autouse=True)
def node(domain, tmp_path_factory):
    """The installed command, started as anybody would."""
    environment = {
        **os.environ,
        'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }
    path = tmp_path_factory.mktemp('node') / 'node.log'
    with path.open('wb') as log:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name('perception_node'),
                '--ros-args',
                '-p',
                f'model:={MODEL}',
            ],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield
    process.send_signal(signal.SIGTERM)
    code, output = process.wait(20), path.read_text()
    assert code == 0 and 'Traceback' not in output, output


@pytest.mark.parametrize('stamp', [same_stamp, own_trigger_stamp, stamp_of_publishing])
def test_a_plain_script_gets_detections_also_after_a_camera_stops(domain, stamp):
    script = Script(domain, stamp)

    def answered_from_now_on():
        """Publish until five more rounds have been answered."""
        before = len(script.rounds)
        script.run_until(
            lambda: len(script.answered(script.rounds[before:])) >= 5,
            f'no detections, silent: {script.silent}',
        )

    try:
        answered_from_now_on()
        script.silent = {'cam_front_left'}
        answered_from_now_on()
        script.run_until(
            lambda: 'dead' in script.camera_words['cam_front_left'][1],
            'the dead camera is not named',
        )
        assert script.camera_words['cam_back'][0] == OK
        answered_from_now_on()
        script.silent = set()
        script.run_until(
            lambda: script.camera_words['cam_front_left'][0] == OK, 'the camera did not come back'
        )
        answered_from_now_on()
    finally:
        script.close()
    assert {message.header.frame_id for message in script.detections} == {'base_link'}
    # The node may still answer what the script before this one sent last.
    first = min(script.rounds[0].values())
    stamps = [stamp_ns(message.header) for message in script.detections]
    stamps = [stamp for stamp in stamps if stamp >= first]
    assert stamps == sorted(set(stamps))
    assert set(stamps) <= {stamp for round_ in script.rounds for stamp in round_.values()}

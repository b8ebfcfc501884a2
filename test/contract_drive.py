"""A drive for faults to be put into: a bag of six cameras and odometry, straight on at 5 m/s.

Its pictures are smooth noise and no two are the same; what they show does not matter here.
"""

import numpy as np
import rigs
from ros_car import FOCAL, HEIGHT, SECOND_NS, START_NS, WIDTH, jpeg, test_images
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from mta_perception.bags.typestore import message, time_message, typestore
from mta_perception.contract import BASE_FRAME, CAMERAS, optical_frame
from mta_perception.geometry import quaternion_from_rigid

SPEED = 5.0  # m/s
ODOMETRY_HZ = 50
VARIANTS = 4  # of each camera's picture, in turn
TYPES = {
    'image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
    'camera_info': 'sensor_msgs/msg/CameraInfo',
    'odom': 'nav_msgs/msg/Odometry',
    'tf_static': 'tf2_msgs/msg/TFMessage',
}


def write_drive(folder, seconds, hz):
    """Write the bag; its images come `hz` times a second, all six with one stamp."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, stamp_ns, content in _messages(seconds, hz):
            kind = next(kind for ending, kind in TYPES.items() if topic.endswith(ending))
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, kind, typestore=typestore(), offered_qos_profiles=_qos(topic)
                )
            data = typestore().serialize_cdr(content, kind)
            writer.write(connections[topic], stamp_ns, data)
    return folder


def _messages(seconds, hz):
    jpegs = {
        camera: [jpeg(np.roll(image, 40 * k, axis=1)) for k in range(VARIANTS)]
        for camera, image in test_images().items()
    }
    yield '/tf_static', START_NS, message(TYPES['tf_static'], transforms=_mounts())
    times = [
        *((k / ODOMETRY_HZ, 'odom') for k in range(round(seconds * ODOMETRY_HZ))),
        *((k / hz + 0.1, 'images') for k in range(round(seconds * hz))),
    ]
    for at_s, what in sorted(times):
        stamp_ns = START_NS + round(at_s * SECOND_NS)
        if what == 'odom':
            yield '/odom', stamp_ns, _odometry(stamp_ns, SPEED * at_s)
            continue
        for camera in CAMERAS:
            header = _header(stamp_ns, optical_frame(camera))
            yield f'/{camera}/camera_info', stamp_ns, _camera_info(header)
            picture = jpegs[camera][round(at_s * hz) % VARIANTS]
            # No sensor sends the same picture twice; what lies behind its end changes nothing.
            data = np.frombuffer(picture + stamp_ns.to_bytes(8, 'little'), np.uint8)
            yield (
                f'/{camera}/image_raw/compressed',
                stamp_ns,
                message(TYPES['image_raw/compressed'], header=header, format='jpeg', data=data),
            )


def _header(stamp_ns, frame_id):
    return message('std_msgs/msg/Header', stamp=time_message(stamp_ns), frame_id=frame_id)


def _vector(kind, *values):
    return message(f'geometry_msgs/msg/{kind}', **dict(zip('xyzw', map(float, values))))


def _mounts():
    mounts = []
    for camera in CAMERAS:
        azimuth = rigs.AZIMUTH_DEG[camera]
        xyz = np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth)), 1.5
        rotation = quaternion_from_rigid(rigs.ego_from_camera(azimuth, xyz))
        transform = message(
            'geometry_msgs/msg/Transform',
            translation=_vector('Vector3', *xyz),
            rotation=_vector('Quaternion', *rotation),
        )
        mounts.append(
            message(
                'geometry_msgs/msg/TransformStamped',
                header=_header(START_NS, BASE_FRAME),
                child_frame_id=optical_frame(camera),
                transform=transform,
            )
        )
    return mounts


def _odometry(stamp_ns, x):
    nothing = _vector('Vector3', 0, 0, 0)
    pose = message(
        'geometry_msgs/msg/Pose',
        position=_vector('Point', x, 0, 0),
        orientation=_vector('Quaternion', 0, 0, 0, 1),
    )
    return message(
        TYPES['odom'],
        header=_header(stamp_ns, 'map'),
        child_frame_id=BASE_FRAME,
        pose=message('geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=np.zeros(36)),
        twist=message(
            'geometry_msgs/msg/TwistWithCovariance',
            twist=message('geometry_msgs/msg/Twist', linear=nothing, angular=nothing),
            covariance=np.zeros(36),
        ),
    )


def _camera_info(header):
    nothing = dict.fromkeys(('x_offset', 'y_offset', 'height', 'width'), 0)
    return message(
        TYPES['camera_info'],
        header=header,
        height=HEIGHT,
        width=WIDTH,
        distortion_model='plumb_bob',
        d=np.zeros(0),
        k=rigs.pinhole(FOCAL, WIDTH, HEIGHT).ravel(),
        r=np.zeros(9),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=message('sensor_msgs/msg/RegionOfInterest', **nothing, do_rectify=False),
    )


def _qos(topic):
    latched = topic == '/tf_static'
    forever = QosTime(9223372036, 854775807)
    return [
        Qos(
            QosHistory.KEEP_LAST,
            10,
            QosReliability.RELIABLE,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            forever,
            forever,
            QosLiveliness.AUTOMATIC,
            forever,
            False,
        )
    ]

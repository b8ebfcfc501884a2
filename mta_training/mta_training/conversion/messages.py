"""What stands in our bags: arrays and nuScenes rows -> serialised ROS messages (CDR)."""

import json
import struct

import numpy as np

from mta_perception.bags.typestore import message, time_message, typestore
from mta_perception.contract import BASE_FRAME, optical_frame
from mta_perception.geometry import invert_rigid, quaternion_from_rigid
from mta_training.conversion.nuscenes_scene import rigid_from_record

WORLD_FRAME = 'map'
TWIST_SPAN_S = 0.05  # poses this far before and after give the velocity


def serialised(content):
    """CDR bytes of a message object."""
    return bytes(typestore().serialize_cdr(content, content.__msgtype__))


def restamped(cdr, stamp_ns):
    """The same message with another stamp; its first field must be the header (or the stamp)."""
    # Four bytes say how it is encoded, then come seconds and nanoseconds.
    return b''.join((cdr[:4], struct.pack('<iI', *divmod(stamp_ns, 1_000_000_000)), cdr[12:]))


def compressed_image(stamp_ns, frame_id, jpeg):
    """sensor_msgs/CompressedImage; packed by hand because images are all that takes time."""
    frame = frame_id.encode() + b'\0'
    head = struct.pack('<IiII', 0x00000100, *divmod(stamp_ns, 1_000_000_000), len(frame)) + frame
    head += b'\0' * (-(len(head) - 4) % 4) + struct.pack('<I', 5) + b'jpeg\0'
    head += b'\0' * (-(len(head) - 4) % 4) + struct.pack('<I', len(jpeg))
    return b''.join((head, jpeg))


def camera_info(camera, calibration):
    """sensor_msgs/CameraInfo of a rectified camera at stamp 0.

    calibration: calibrated_sensor row with width and height, as NuScenesScene.calibrations has it.
    """
    k = np.array(calibration['camera_intrinsic'], dtype=np.float64)
    roi = message(
        'sensor_msgs/msg/RegionOfInterest',
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    return serialised(
        message(
            'sensor_msgs/msg/CameraInfo',
            header=_header(0, optical_frame(camera)),
            height=calibration['height'],
            width=calibration['width'],
            distortion_model='plumb_bob',
            d=np.zeros(5),
            k=k.flatten(),
            r=np.eye(3).flatten(),
            p=np.hstack([k, np.zeros((3, 1))]).flatten(),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )
    )


def static_tree(stamp_ns, frames):
    """tf2_msgs/TFMessage base_link -> sensors; frames: frame id -> calibrated_sensor row."""
    header = _header(stamp_ns, BASE_FRAME)
    return serialised(
        message(
            'tf2_msgs/msg/TFMessage',
            transforms=[
                _transform(header, frame, rigid_from_record(row)) for frame, row in frames.items()
            ],
        )
    )


class EgoMessages:
    """/tf and /odom of many poses: they differ in stamp and numbers alone, which stand at the end.

    Serialising them one by one took longer than all images of a scene.
    """

    def __init__(self):
        nothing = np.eye(4)
        self._tree = serialised(
            message(
                'tf2_msgs/msg/TFMessage',
                transforms=[_transform(_header(0, WORLD_FRAME), BASE_FRAME, nothing)],
            )
        )
        self._odometry = serialised(
            message(
                'nav_msgs/msg/Odometry',
                header=_header(0, WORLD_FRAME),
                child_frame_id=BASE_FRAME,
                pose=_unknown_covariance('PoseWithCovariance', pose=_pose(nothing)),
                twist=_unknown_covariance(
                    'TwistWithCovariance',
                    twist=message(
                        'geometry_msgs/msg/Twist',
                        linear=_vector(np.zeros(3)),
                        angular=_vector(np.zeros(3)),
                    ),
                ),
            )
        )

    def at(self, stamp_ns, world_from_ego, twist):
        """(tf2_msgs/TFMessage map -> base_link, nav_msgs/Odometry).

        twist (6,): velocity [m/s] and turn rate [rad/s] in base_link.
        """
        stamp = struct.pack('<iI', *divmod(stamp_ns, 1_000_000_000))
        pose = struct.pack('<7d', *world_from_ego[:3, 3], *quaternion_from_rigid(world_from_ego))
        tree = self._tree  # encoding, number of transforms, stamp, ..., pose
        odometry = self._odometry  # encoding, stamp, ..., pose, 36 zeros, twist, zeros
        zeros = bytes(8 * 36)
        return (
            b''.join((tree[:8], stamp, tree[16 : -len(pose)], pose)),
            b''.join(
                (
                    odometry[:4],
                    stamp,
                    odometry[12 : -8 * 85],
                    pose,
                    zeros,
                    struct.pack('<6d', *twist),
                    zeros,
                )
            ),
        )


def twists(stamps, poses):
    """(n, 6) velocity and turn rate in the ego frame at each of n poses, 0 for a single one."""
    span = int(TWIST_SPAN_S * 1e9)
    before = np.maximum(np.searchsorted(stamps, stamps - span, side='right') - 1, 0)
    after = np.minimum(np.searchsorted(stamps, stamps + span), len(stamps) - 1)
    seconds = np.maximum(stamps[after] - stamps[before], 1)[:, None] * 1e-9
    ego_from_world = invert_rigid(poses)[:, :3, :3]
    moved = ego_from_world @ (poses[after, :3, 3] - poses[before, :3, 3])[..., None]
    # R_ego (R_after R_before^T) R_ego^T is nearly 1 + [turn]x over such a span.
    turned = (
        ego_from_world
        @ poses[after, :3, :3]
        @ np.swapaxes(poses[before, :3, :3], 1, 2)
        @ poses[:, :3, :3]
    )
    turn = (turned - np.swapaxes(turned, 1, 2))[:, [2, 0, 1], [1, 2, 0]] / 2.0
    return np.hstack([moved[..., 0], turn]) / seconds


def imu(stamp_ns, row):
    """sensor_msgs/Imu from a CAN-bus pose message (ego frame, gravity included)."""
    w, x, y, z = map(float, row['orientation'])
    return serialised(
        message(
            'sensor_msgs/msg/Imu',
            header=_header(stamp_ns, BASE_FRAME),
            orientation=message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w),
            orientation_covariance=np.zeros(9),
            angular_velocity=_vector(row['rotation_rate']),
            angular_velocity_covariance=np.zeros(9),
            linear_acceleration=_vector(row['accel']),
            linear_acceleration_covariance=np.zeros(9),
        )
    )


def detections(stamp_ns, annotations):
    """vision_msgs/Detection3DArray of the annotations of the ten classes."""
    header = _header(stamp_ns, BASE_FRAME)
    return serialised(
        message(
            'vision_msgs/msg/Detection3DArray',
            header=header,
            detections=[_detection(header, one) for one in annotations if one.class_name],
        )
    )


def captions(stamp_ns, annotations):
    """mta_msgs/ObjectCaptionArray of those that have a sentence."""
    header = _header(stamp_ns, BASE_FRAME)
    return serialised(
        message(
            'mta_msgs/msg/ObjectCaptionArray',
            header=header,
            captions=[
                _caption(header, one) for one in annotations if one.class_name and one.caption
            ],
        )
    )


def sample_record(stamp_ns, scene, sample, annotations, image_stamps):
    """std_msgs/String: all of a keyframe that has no field in the other messages, as JSON.

    image_stamps  camera -> stamp [ns] of the key frame's images that are there
    """
    return serialised(
        message(
            'std_msgs/msg/String',
            data=json.dumps(
                {
                    'sample_token': sample['token'],
                    'stamp_ns': stamp_ns,
                    'scene': scene.name,
                    'scene_token': scene.row['token'],
                    'description': scene.row['description'],
                    'location': scene.location,
                    'split': scene.split,
                    'image_stamps_ns': image_stamps,
                    'world_from_ego': scene.reference_pose(sample).tolist(),
                    'annotations': [_annotation_record(one) for one in annotations],
                },
                allow_nan=False,
            ),
        )
    )


def _annotation_record(annotation):
    row = annotation.row
    return {
        'annotation_token': annotation.annotation_token,
        'instance_token': annotation.instance_token,
        'category': annotation.category,
        'class_name': annotation.class_name,
        'box': _finite_or_null(annotation.box),
        'ego_from_box': annotation.ego_from_box.tolist(),
        'attribute': annotation.attribute,
        'visibility_token': annotation.visibility_token,
        'num_lidar_pts': annotation.num_lidar_pts,
        'num_radar_pts': annotation.num_radar_pts,
        'caption': annotation.caption,
        # As annotated, rotation w, x, y, z and size w, l, h, so that exporting gives back the
        # official boxes and not something close to them.
        'global': {
            'translation': row['translation'],
            'rotation': row['rotation'],
            'size': row['size'],
            'velocity': _finite_or_null(annotation.world_velocity),
        },
    }


def _finite_or_null(values):
    return [float(value) if np.isfinite(value) else None for value in values]


def _header(stamp_ns, frame_id):
    return message('std_msgs/msg/Header', stamp=time_message(stamp_ns), frame_id=frame_id)


def _vector(xyz):
    return message('geometry_msgs/msg/Vector3', x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def _point(xyz):
    return message('geometry_msgs/msg/Point', x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def _quaternion(matrix):
    x, y, z, w = quaternion_from_rigid(matrix).tolist()
    return message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)


def _pose(matrix):
    return message(
        'geometry_msgs/msg/Pose', position=_point(matrix[:3, 3]), orientation=_quaternion(matrix)
    )


def _unknown_covariance(name, **fields):
    return message(f'geometry_msgs/msg/{name}', covariance=np.zeros(36), **fields)


def _transform(header, child, target_from_source):
    return message(
        'geometry_msgs/msg/TransformStamped',
        header=header,
        child_frame_id=child,
        transform=message(
            'geometry_msgs/msg/Transform',
            translation=_vector(target_from_source[:3, 3]),
            rotation=_quaternion(target_from_source),
        ),
    )


def _detection(header, annotation):
    pose = _pose(annotation.ego_from_box)
    hypothesis = message(
        'vision_msgs/msg/ObjectHypothesis', class_id=annotation.class_name, score=1.0
    )
    result = message(
        'vision_msgs/msg/ObjectHypothesisWithPose',
        hypothesis=hypothesis,
        pose=_unknown_covariance('PoseWithCovariance', pose=pose),
    )
    return message(
        'vision_msgs/msg/Detection3D',
        header=header,
        id=annotation.instance_token,
        results=[result],
        bbox=message(
            'vision_msgs/msg/BoundingBox3D', center=pose, size=_vector(annotation.box[3:6])
        ),
    )


def _caption(header, annotation):
    velocity = np.nan_to_num(annotation.box[8:10])
    return message(
        'mta_msgs/msg/ObjectCaption',
        stamp=header.stamp,
        detection_id=annotation.instance_token,
        class_id=annotation.class_name,
        score=1.0,
        caption=annotation.caption,
        caption_score=1.0,
        position=_point(annotation.box[:3]),
        velocity=_vector([*velocity, 0.0]),
    )

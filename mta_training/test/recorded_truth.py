"""A recording of a node that says the ground truth, for tests of what is made of recordings."""

import numpy as np
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import StoragePlugin, Writer

from mta_perception.bags.recording import boxes_moved_to
from mta_perception.bags.typestore import message, time_message, typestore
from mta_perception.contract import CLASSES


def pose(xyz, yaw):
    return message(
        'geometry_msgs/msg/Pose',
        position=message('geometry_msgs/msg/Point', x=xyz[0], y=xyz[1], z=xyz[2]),
        orientation=message(
            'geometry_msgs/msg/Quaternion',
            x=0.0,
            y=0.0,
            z=float(np.sin(yaw / 2)),
            w=float(np.cos(yaw / 2)),
        ),
    )


def header(stamp_ns):
    return message('std_msgs/msg/Header', stamp=time_message(stamp_ns), frame_id='base_link')


def detections(stamp_ns, boxes, labels, track_ids):
    items = []
    for box, label, track_id in zip(boxes.tolist(), labels, track_ids):
        centre = pose(box[:3], np.arctan2(box[6], box[7]))
        size = message('geometry_msgs/msg/Vector3', x=box[3], y=box[4], z=box[5])
        items.append(
            message(
                'vision_msgs/msg/Detection3D',
                header=header(stamp_ns),
                id=str(track_id),
                bbox=message('vision_msgs/msg/BoundingBox3D', center=centre, size=size),
                results=[
                    message(
                        'vision_msgs/msg/ObjectHypothesisWithPose',
                        hypothesis=message(
                            'vision_msgs/msg/ObjectHypothesis', class_id=CLASSES[label], score=1.0
                        ),
                        pose=message(
                            'geometry_msgs/msg/PoseWithCovariance',
                            pose=centre,
                            covariance=np.zeros(36),
                        ),
                    )
                ],
            )
        )
    return message('vision_msgs/msg/Detection3DArray', header=header(stamp_ns), detections=items)


def captions(stamp_ns, sample, track_ids):
    zero = message('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=0.0)
    return message(
        'mta_msgs/msg/ObjectCaptionArray',
        header=header(stamp_ns),
        captions=[
            message(
                'mta_msgs/msg/ObjectCaption',
                stamp=time_message(stamp_ns),
                detection_id=track_id,
                class_id=CLASSES[label],
                score=1.0,
                caption=sentence,
                caption_score=1.0,
                position=pose(box[:3].tolist(), 0.0).position,
                velocity=zero,
            )
            for box, label, sentence, track_id in zip(
                sample.boxes, sample.labels, sample.captions, track_ids
            )
            if sentence
        ],
    )


def frames_status(**values):
    pairs = [
        message('diagnostic_msgs/msg/KeyValue', key=key, value=str(value))
        for key, value in values.items()
    ]
    return message(
        'diagnostic_msgs/msg/DiagnosticArray',
        header=header(0),
        status=[
            typestore().types['diagnostic_msgs/msg/DiagnosticStatus'](
                level=0, name='mta_perception: frames', message='', hardware_id='', values=pairs
            )
        ],
    )


def hit(sample):
    """Objects that count: the benchmark leaves out those that no lidar or radar point is on."""
    return sample.num_lidar_pts + sample.num_radar_pts > 0


def record_ground_truth(scene, out, shift_ns=0):
    """A recording of perfect detections, made `shift_ns` beside each keyframe and moved there."""
    world_from_ego_at, arrival_ns = scene.world_from_ego_at, 10**18
    numbers = {}
    with Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}

        def write(topic, type_name, content):
            nonlocal arrival_ns
            arrival_ns += 10_000_000
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=typestore())
            assert isinstance(connections[topic].ext, ConnectionExtRosbag2)
            writer.write(
                connections[topic], arrival_ns, typestore().serialize_cdr(content, type_name)
            )

        for sample in scene.samples:
            stamp_ns = sample.stamp_ns + shift_ns
            boxes = boxes_moved_to(sample.boxes, sample.stamp_ns, stamp_ns, world_from_ego_at)
            ids = [str(numbers.setdefault(token, len(numbers))) for token in sample.instances]
            seen = hit(sample)
            write(
                '/mta_perception/detections',
                'vision_msgs/msg/Detection3DArray',
                detections(stamp_ns, boxes[seen], sample.labels[seen], np.array(ids)[seen]),
            )
            write(
                '/mta_perception/captions',
                'mta_msgs/msg/ObjectCaptionArray',
                captions(stamp_ns, sample, ids),
            )
        write(
            '/diagnostics',
            'diagnostic_msgs/msg/DiagnosticArray',
            frames_status(
                frames_in=9,
                processed=4,
                **{'dropped/overtaken by a newer frame': 5, 'sync/sets': 9},
            ),
        )
    return out

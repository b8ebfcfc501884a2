"""From a played bag and a recording of it to numbers and pictures, no processes needed: the ground
truth, recorded as if a node had said it, must be judged as perfect and drawn onto the objects."""

import cv2
import numpy as np
import pytest
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import StoragePlugin, Writer

from mta_perception.bags.recording import read_recording
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.bags.typestore import message, time_message, typestore
from mta_perception.commands.demo import _accuracy
from mta_perception.commands.summary import summarise
from mta_perception.contract import CLASSES
from mta_perception.drawing.film import GroundTruth, check_video, film
from mta_perception.geometry import transform

pytest.importorskip('nuscenes', reason='the official evaluation is not installed here')
HALF_S = 500_000_000


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """A bag of the hand-made drive in mta_training/test."""
    from tiny_dataset import write_dataset

    from mta_training.conversion.convert import convert

    root = write_dataset(tmp_path_factory.mktemp('dataset'), scenes=1)
    return convert(root, tmp_path_factory.mktemp('bags'), workers=1, progress=False)[0]


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
    from mta_perception.commands.summary import boxes_moved_to

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
            frames_status(frames_in=9, processed=4, **{'dropped/overtaken': 5, 'sync/sets': 9}),
        )
    return out


@pytest.mark.parametrize('shift_ns', [0, 90_000_000, -90_000_000])
def test_recorded_ground_truth_is_judged_as_perfect(bag, tmp_path, shift_ns):
    scene = SceneBag(bag)
    recording = read_recording(record_ground_truth(scene, tmp_path / 'recorded', shift_ns))
    judged = _accuracy(scene, recording)
    assert judged['keyframes_with_detections'] == judged['keyframes'] == len(scene.samples)
    # Velocities are not in the messages: a fast car's first box may come out half a metre beside.
    assert judged['mAP_present'] > (0.98 if shift_ns else 0.999)
    assert judged['mATE'] < 0.2 and judged['mASE'] < 1e-3 and judged['mAOE'] < 1e-3


def test_boxes_of_another_moment_are_not_judged_as_perfect(bag, tmp_path):
    """The test above can fail: the same boxes without the motion in between score worse."""
    scene = SceneBag(bag)
    recording = read_recording(record_ground_truth(scene, tmp_path / 'recorded'))
    late = [one._replace(stamp_ns=one.stamp_ns + 200_000_000) for one in recording.detections]
    good = _accuracy(scene, recording)
    assert _accuracy(scene, recording._replace(detections=late))['mATE'] > good['mATE'] + 0.3


def test_a_silent_node_scores_nothing(bag, tmp_path):
    scene = SceneBag(bag)
    recording = read_recording(record_ground_truth(scene, tmp_path / 'recorded'))
    judged = _accuracy(scene, recording._replace(detections=[]))
    assert judged['mAP'] == 0.0 and judged['keyframes_with_detections'] == 0
    with pytest.raises(ValueError, match='diagnostics'):
        summarise(scene, recording._replace(diagnostics=[]))


def test_summary_counts_what_was_recorded(bag, tmp_path):
    scene = SceneBag(bag)
    recording = read_recording(record_ground_truth(scene, tmp_path / 'recorded'))
    summary = summarise(scene, recording)
    assert (summary['frames_in'], summary['frames_processed']) == (9, 4)
    assert summary['dropped'] == {'overtaken': 5} and summary['unexplained'] == 0
    assert summary['detections'] == sum(hit(sample).sum() for sample in scene.samples)
    assert summary['captions'] == sum(
        bool(text) for sample in scene.samples for text in sample.captions
    )
    for camera in scene.cameras:
        assert summary['images'][camera]['played'] == len(scene.image_stamps(camera))


def test_ground_truth_meets_the_key_frames_and_moves_between_them(bag):
    scene = SceneBag(bag)
    truth = GroundTruth(scene)
    first, second = scene.samples[:2]
    for sample in (first, second):
        drawn = np.stack([item.box for item in truth.at(sample.stamp_ns)])
        # A box has a yaw alone: moving it through a pitched world costs some 1e-4.
        np.testing.assert_allclose(drawn, sample.boxes, atol=2e-3, equal_nan=True)
    middle = (first.stamp_ns + second.stamp_ns) // 2
    at_middle = np.stack([item.box for item in truth.at(middle)])
    world = transform(truth.world_from_ego_at(middle), at_middle[:, :3])
    ends = [
        dict(zip(sample.instances, transform(sample.world_from_ego, sample.boxes[:, :3])))
        for sample in (first, second)
    ]
    for token, place in zip(first.instances, world):
        if token in ends[1]:
            np.testing.assert_allclose(place, (ends[0][token] + ends[1][token]) / 2, atol=0.02)


def test_film_of_a_recording_plays_and_shows_boxes_where_the_objects_are(bag, tmp_path):
    scene = SceneBag(bag)
    recorded = record_ground_truth(scene, tmp_path / 'recorded')
    steps = []
    written = film(
        bag,
        tmp_path / 'out',
        recorded=recorded,
        fps=2.0,
        width=960,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    check_video(written.video, written.frames)
    assert steps[-1] == (written.frames, written.frames) == (len(steps), len(steps))
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(
        ['demo.mp4', *(path.name for path in written.stills)]
    )
    still = cv2.imread(str(written.stills[0]))
    plain = cv2.imread(str(film(bag, tmp_path / 'plain', fps=2.0, width=960).stills[0]))
    assert still.shape == plain.shape and still.shape[1] == 960
    # Ground truth alone, and under equal predictions: the boxes are at the same places.
    cameras = slice(30, 30 + 2 * 180)
    differ = np.abs(still[cameras].astype(int) - plain[cameras]).max(axis=2) > 60
    assert differ.mean() < 0.03


def test_video_that_is_cut_off_is_noticed(bag, tmp_path):
    written = film(bag, tmp_path / 'out', fps=4.0, width=480)
    with pytest.raises(ValueError, match='read|pictures'):
        check_video(written.video, written.frames + 1)


def test_nothing_to_draw_is_said_and_leaves_nothing(bag, tmp_path):
    with Writer(tmp_path / 'empty', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection(
            '/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', typestore=typestore()
        )
    with pytest.raises(ValueError, match='no detections'):
        film(bag, tmp_path / 'out', recorded=tmp_path / 'empty')
    assert not (tmp_path / 'out').exists()

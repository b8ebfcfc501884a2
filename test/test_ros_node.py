"""The node as a process over DDS, driven by an ordinary rclpy program: what comes out of it."""

import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

import rigs
from ros_car import (
    FOCAL,
    HEIGHT,
    SECOND_NS,
    WIDTH,
    Car,
    model_directory,
    stamp_ns,
    start_node,
    wait_until,
)

from mta_perception.commands.processes import free_domain
from mta_perception.config import PipelineConfig
from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.frames import CameraCalibration, CameraImage, FrameSet
from mta_perception.geometry import rigid, rigid_from_quaternion
from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.pipeline.step import PerceptionPipeline
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector

# The lockstep of `Car.step` is slower than real time on a busy machine; no camera is dead for it.
PATIENT = {'dead_after_s': 5.0, 'odometry_wait_s': 1.0}


@pytest.fixture(scope='module')
def domain():
    return free_domain()


@pytest.fixture(scope='module')
def node(domain, tmp_path_factory):
    with start_node(tmp_path_factory.mktemp('node'), domain, PATIENT) as child:
        yield child


@pytest.fixture(scope='module')
def car(node, domain):
    made = Car(domain)
    made.listen_to_node()
    made.wait_for_node()
    made.step()
    yield made
    made.close()


def rows(message):
    """Detection3DArray -> (K, 8): centre, size, sin and cos of the yaw."""
    result = []
    for detection in message.detections:
        centre, size = detection.bbox.center, detection.bbox.size
        yaw = 2 * np.arctan2(centre.orientation.z, centre.orientation.w)
        result.append(
            [
                centre.position.x,
                centre.position.y,
                centre.position.z,
                size.x,
                size.y,
                size.z,
                np.sin(yaw),
                np.cos(yaw),
            ]
        )
    return np.reshape(result, (-1, 8))


def test_detections_are_stamped_like_the_images_and_well_formed(car):
    message = car.step()
    assert message.header.frame_id == 'base_link'
    assert len(message.detections) > 0
    for detection in message.detections:
        assert detection.header == message.header
        hypothesis = detection.results[0].hypothesis
        assert hypothesis.class_id in CLASSES and 0 <= hypothesis.score <= 1
        assert min(detection.bbox.size.x, detection.bbox.size.y, detection.bbox.size.z) > 0
        q = detection.bbox.center.orientation
        assert np.hypot(q.z, q.w) == pytest.approx(1.0)
    ids = [detection.id for detection in message.detections]
    assert len(set(ids)) == len(ids) and '' not in ids


def test_node_says_what_the_offline_pipeline_says(car, node):
    """Same images, same poses, same boxes: the node adds nothing and loses nothing."""
    from std_srvs.srv import Trigger

    manifest = Manifest.load(model_directory())
    pipeline = PerceptionPipeline(
        manifest, OnnxDetector(manifest), PipelineConfig(score_threshold=0.0)
    )
    calibrations, ego_motion = {}, EgoMotion()
    for camera in CAMERAS:
        mounted = car.mounting(camera).transform
        t, q = mounted.translation, mounted.rotation
        calibrations[camera] = CameraCalibration(
            rigs.pinhole(FOCAL, WIDTH, HEIGHT),
            WIDTH,
            HEIGHT,
            rigid_from_quaternion((q.x, q.y, q.z, q.w), (t.x, t.y, t.z)),
        )
    assert car.call(Trigger, 'mta_perception/reset_history', Trigger.Request()).success
    largest = 0.0
    for _ in range(4):
        message = car.step()
        ego_motion.add(car.stamp_ns, rigid(np.eye(3), (*car.world_xy, 0.0)))
        images = {
            camera: CameraImage(camera, car.stamp_ns, car.jpegs[camera], 'jpeg')
            for camera in CAMERAS
        }
        result = pipeline.step(FrameSet(car.stamp_ns, images, {}), calibrations, ego_motion)
        expected = result.detections
        assert [CLASSES[label] for label in expected.labels] == [
            detection.results[0].hypothesis.class_id for detection in message.detections
        ]
        np.testing.assert_allclose(
            [detection.results[0].hypothesis.score for detection in message.detections],
            expected.scores,
            atol=1e-5,
        )
        heading = expected.boxes[:, 6:8] / np.linalg.norm(
            expected.boxes[:, 6:8], axis=1, keepdims=True
        )
        wanted = np.concatenate([expected.boxes[:, :6], heading], axis=1)
        largest = max(largest, np.abs(rows(message) - wanted).max())
    assert result.history.valid, 'the comparison never used the memory'
    pipeline.close()
    print(f'largest difference {largest:.2e}')
    assert largest < 1e-3


def test_captions_describe_detections_of_their_frame(car):
    from std_msgs.msg import String

    texts = car.listen(String, 'mta_perception/caption_text')
    before = len(car.captions)

    def captioned():
        car.step()
        return len(car.captions) > before + 1 and texts

    wait_until(captioned, 20.0, 'no captions')
    message = car.captions[-1]
    detections = next(
        found for found in car.detections if found.header.stamp == message.header.stamp
    )
    by_id = {detection.id: detection for detection in detections.detections}
    assert 0 < len(message.captions) <= 2  # max_captions
    for entry in message.captions:
        detection = by_id[entry.detection_id]
        # Of this frame, told as it will be when the words stand beside the box: the car drives.
        ahead_s = (stamp_ns(entry.stamp) - stamp_ns(message.header.stamp)) / SECOND_NS
        assert 0 <= ahead_s <= 1
        assert entry.class_id == detection.results[0].hypothesis.class_id
        centre, ego_m_s = detection.bbox.center.position, 1.0 / car.period_s
        x = centre.x + ahead_s * (entry.velocity.x - ego_m_s)
        y = centre.y + ahead_s * entry.velocity.y
        assert (entry.position.x, entry.position.y) == pytest.approx((x, y), abs=0.1)
        assert 0 < entry.caption_score <= 1 and np.isfinite(entry.velocity.x)
    # Nearest first, one line an object, with the short form where it has no sentence that fits.
    said = [line.split(', ')[1] for line in texts[-1].data.splitlines()]
    metres = [float(word.split(' m')[0]) for word in said]
    assert metres == sorted(metres)
    # Of a later frame it may be: a text has no stamp.
    assert len(metres) in {len(found.detections) for found in car.detections}


def test_markers_and_overlay_come_when_somebody_listens(car):
    from sensor_msgs.msg import CompressedImage
    from visualization_msgs.msg import Marker, MarkerArray

    markers = car.listen(MarkerArray, 'mta_perception/markers')
    overlays = car.listen(CompressedImage, 'mta_perception/overlay/compressed')

    def shown():
        car.step()
        return overlays and len(markers) >= 3

    wait_until(shown, 30.0, 'no markers or no overlay')
    picture = cv2.imdecode(np.frombuffer(overlays[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == 480 and picture.std() > 5
    assert stamp_ns(overlays[-1].header.stamp) in car.detection_stamps()
    alive = set()
    for message in markers:
        for marker in message.markers:
            key = marker.ns, marker.id
            if marker.action == Marker.DELETE:
                alive.remove(key)  # only what was there is deleted
            else:
                alive.add(key)
    last = next(
        found
        for found in car.detections
        if found.header.stamp == markers[-1].markers[-1].header.stamp
    )
    boxes = {number for namespace, number in alive if namespace == 'boxes'}
    assert boxes == {int(detection.id) for detection in last.detections}


def test_labels_are_latched(car):
    from vision_msgs.msg import LabelInfo

    labels = car.listen(LabelInfo, 'mta_perception/labels', latched=True)
    wait_until(lambda: labels, 5.0, 'no labels')
    assert [entry.class_name for entry in labels[0].class_map] == list(CLASSES)
    assert [entry.class_id for entry in labels[0].class_map] == list(range(len(CLASSES)))


def test_history_grows_and_is_reset_by_the_service(car):
    from std_srvs.srv import Trigger

    for _ in range(4):
        car.step()
    before = car.history[-1]
    assert before.length >= 3 and 0.2 <= before.age_s <= 0.8
    assert car.call(Trigger, 'mta_perception/reset_history', Trigger.Request()).success
    stamp = stamp_ns(car.step().header.stamp)
    wait_until(lambda: stamp_ns(car.history[-1].header.stamp) == stamp, 5.0, 'no history')
    after = car.history[-1]
    assert after.length == 1 and after.age_s == -1.0
    assert after.resets == before.resets + 1
    assert 'reset_history' in after.last_reset_reason
    assert stamp_ns(after.last_reset) == stamp


def test_ask_says_that_the_model_cannot_answer(car):
    from mta_msgs.srv import Ask

    answer = car.call(Ask, 'mta_perception/ask', Ask.Request(instruction='who goes first?'))
    assert not answer.success and 'no task heads' in answer.message
    long = '\x1b[2Jclear\n' + 'x' * 100_000
    answer = car.call(Ask, 'mta_perception/ask', Ask.Request(instruction=long))
    assert not answer.success and len(answer.message) < 1000 and answer.message.isprintable()
    assert 'the first 500 of 100010 characters' in answer.message


def test_diagnostics_name_cameras_stages_memory_captions_process(car):
    for _ in range(3):
        car.step()
    car.status_where(  # no frame is under way any more
        'frames',
        lambda level, words, values: (
            int(values['processed']) + int(values['dropped']) == int(values['frames_in'])
        ),
    )
    statuses = car.statuses()
    for camera in CAMERAS:
        level, _, values = statuses[f'camera {camera}']
        assert level == 0
        assert float(values['rate_hz']) == pytest.approx(1 / car.period_s, rel=0.05)
        assert int(values['images']) >= 4 and values['blind_sector'] == ''
        assert values['decode_errors'] == '0' and float(values['age_s']) >= 0
    stages = statuses['stages'][2]
    for stage in ('decode', 'detector', 'track', 'publish', 'total'):
        p50, p90, most = (float(stages[f'{stage}_{key}_ms']) for key in ('p50', 'p90', 'max'))
        assert 0 <= p50 <= p90 <= most
    frames = statuses['frames'][2]
    assert int(frames['processed']) + int(frames['dropped']) == int(frames['frames_in'])
    assert int(statuses['memory'][2]['length']) >= 1
    assert int(statuses['captions'][2]['backlog']) in (0, 1)
    level, _, process = statuses['process']
    assert level == 0 and process['unexpected_errors'] == '0'
    assert 50 < float(process['rss_mb']) < 2000


def test_parameters_are_described_and_refuse_changes_while_active(car):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import DescribeParameters, SetParameters

    described = car.call(
        DescribeParameters,
        'mta_perception/describe_parameters',
        DescribeParameters.Request(names=['min_cameras', 'max_spread_s']),
    )
    for descriptor in described.descriptors:
        assert len(descriptor.description) > 20
        assert descriptor.integer_range or descriptor.floating_point_range
    change = Parameter(
        name='min_cameras',
        value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=5),
    )
    answer = car.call(
        SetParameters, 'mta_perception/set_parameters', SetParameters.Request(parameters=[change])
    )
    assert not answer.results[0].successful and 'configured' in answer.results[0].reason


def test_sigint_ends_the_node_with_exit_code_0_within_3_s(car, node):
    """The last test of this module: it ends the shared node, in the middle of its work."""
    for _ in range(3):
        car.say()
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < 3.0
    assert 'Traceback' not in node.output()


def test_another_car_in_a_namespace_with_raw_images_and_tf(tmp_path):
    """Namespace, raw transport, ego motion from /tf over two moving links, chained static
    transforms, sim time with no clock at all, QoS overrides."""
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    domain = free_domain()
    parameters = {
        **PATIENT,
        'transport': 'raw',
        'ego_motion_source': 'tf',
        'odom_frame': 'map',
        'use_sim_time': True,
        'max_captions': 0,
    }
    parameters.update(
        {
            f'qos_overrides./ego/{camera}/image_raw.subscription.reliability': 'reliable'
            for camera in CAMERAS
        }
    )
    with start_node(tmp_path, domain, parameters, ('-r', '__ns:=/ego')) as child:
        car = Car(domain, namespace='/ego', frame='{}_lens', transport='raw')
        # base_link -> roof -> lenses, in two messages of /tf_static.
        roof = TransformStamped(child_frame_id='roof')
        roof.header.frame_id = 'base_link'
        roof.transform.translation.z, roof.transform.rotation.w = 1.0, 1.0
        lenses = [car.mounting(camera) for camera in CAMERAS]
        for lens in lenses:
            lens.header.frame_id = 'roof'
        car.static.publish(TFMessage(transforms=[roof]))
        car.static.publish(TFMessage(transforms=lenses))
        car.listen_to_node()
        car.wait_for_node()

        def move(stamp, x):
            links = []
            for parent, frame, metres in (('map', 'odom', 3.0), ('odom', 'base_link', x)):
                link = TransformStamped(header=car.header(stamp, parent), child_frame_id=frame)
                link.transform.translation.x, link.transform.rotation.w = float(metres), 1.0
                links.append(link)
            car.transforms.publish(TFMessage(transforms=links))

        for step in range(4):
            move(car.stamp_ns + int(car.period_s * SECOND_NS), step)
            message = car.step(odometry=False)  # the node waits for the transform
            assert len(message.detections) > 0
        assert car.statuses()['odometry'][2]['source'] == 'tf'
        car.close()
        assert child.stop() == 0


def test_lifecycle_without_autostart(tmp_path):
    from lifecycle_msgs.srv import GetState

    domain = free_domain()
    with start_node(tmp_path, domain, {**PATIENT, 'autostart': False}, wait_for=None) as child:
        car = Car(domain, reliable=False)
        car.listen_to_node()

        def state():
            return car.call(
                GetState, 'mta_perception/get_state', GetState.Request(), 30.0
            ).current_state.label

        assert state() == 'unconfigured'
        assert car.change_state('configure') and state() == 'inactive'
        assert not car.image_publishers['cam_front'].get_subscription_count()
        for _ in range(2):
            assert car.change_state('activate') and state() == 'active'
            car.wait_for_node()
            car.step()
            assert car.change_state('deactivate') and state() == 'inactive'
        assert car.change_state('cleanup') and state() == 'unconfigured'
        assert child.running()
        car.close()
        assert child.stop() == 0


@pytest.mark.parametrize(
    'parameters, code, words',
    [
        ({'model': '/nowhere/at/all'}, 1, 'no model "/nowhere/at/all"'),
        ({'min_cameras': 9}, 2, 'min_cameras'),
        ({'transport': 'pigeon'}, 1, 'expected one of: raw, compressed'),
        ({'engine': 'openvino', 'device': 'cuda'}, 1, 'it runs on the cpu'),
        ({'qos_overrides./mta_perception/detections.publisher.reliability': 'maybe'}, 2, 'maybe'),
    ],
)
def test_what_cannot_work_ends_with_one_clear_line(tmp_path, parameters, code, words):
    with start_node(tmp_path, free_domain(), parameters, wait_for=None) as child:
        wait_until(lambda: not child.running(), 30.0, 'the node went on')
        assert child.stop() == code
        assert words in child.output() and 'Traceback' not in child.output()

"""The recorder as a process over DDS: what was published is in the bag."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from mta_perception.bags.recording import read_recording
from mta_perception.bags.rescue import rescue
from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.ros.recorder import HEARS, READY

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')

STEPS = 15


@pytest.fixture
def domain(monkeypatch):
    number = free_domain()
    for name, value in ros_environment(number).items():
        monkeypatch.setenv(name, value)
    os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
    return number


@pytest.fixture
def node(domain):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    made = rclpy.create_node('somebody', context=context)
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


def detections_message(stamp_ns, count):
    from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

    message = Detection3DArray()
    message.header.frame_id = 'base_link'
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    for k in range(count):
        detection = Detection3D(id=f'track{k}')
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = 'car', 0.5 + k / 10
        detection.results.append(result)
        detection.bbox.center.position.x = 10.0 + k
        detection.bbox.center.orientation.w = 1.0
        detection.bbox.size.x, detection.bbox.size.y, detection.bbox.size.z = 4.0, 2.0, 1.5
        message.detections.append(detection)
    return message


def record_child(out, domain):
    return Child(
        'recorder',
        [sys.executable, '-m', 'mta_perception.ros.recorder', '--out', str(out)],
        f'{out}.log',
        ros_environment(domain),
    )


def wait_until_heard(recorder, *publishers):
    """Both sides are matched: what is published from now on reaches the recorder."""
    deadline = time.monotonic() + 30
    while any(publisher.get_subscription_count() == 0 for publisher in publishers):
        assert time.monotonic() < deadline, 'the recorder did not subscribe'
        time.sleep(0.05)
    for publisher in publishers:
        recorder.wait_for(f'{HEARS} {publisher.topic_name}\n', 30)


def test_what_is_published_is_in_the_bag(tmp_path, node, domain):
    from mta_msgs.msg import ObjectCaption, ObjectCaptionArray
    from rclpy.serialization import deserialize_message
    from rosbags.highlevel import AnyReader
    from sensor_msgs.msg import CameraInfo
    from vision_msgs.msg import Detection3DArray

    bag = tmp_path / 'bag'
    detections = node.create_publisher(Detection3DArray, '/mta_perception/detections', 10)
    captions = node.create_publisher(ObjectCaptionArray, '/mta_perception/captions', 10)
    infos = node.create_publisher(CameraInfo, '/cam_front/camera_info', 10)
    sent, sent_ns = [], []
    stamps = [1_600_000_000_000_000_000 + 100_000_000 * k for k in range(STEPS)]
    with record_child(bag, domain) as recorder:
        wait_until_heard(recorder, detections, captions, infos)
        for step, stamp in enumerate(stamps):
            message = detections_message(stamp, step % 4)
            sent.append(message)
            info = CameraInfo(width=1600, height=900)
            info.header.stamp = message.header.stamp
            image_sent_ns = time.time_ns()
            infos.publish(info)
            time.sleep(0.02)
            sent_ns.append((image_sent_ns, time.time_ns()))
            detections.publish(message)
            caption = ObjectCaption(detection_id='track0', class_id='car', caption=f'car {step}')
            caption.stamp = message.header.stamp
            captions.publish(ObjectCaptionArray(header=message.header, captions=[caption]))
            time.sleep(0.03)
        for publisher in (detections, captions):
            assert publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=30))
        assert not bag.exists()  # nothing looks whole before it is
        assert recorder.stop() == 0
    after = time.time_ns()
    assert sorted(path.name for path in bag.iterdir()) == ['bag.mcap', 'metadata.yaml']
    assert not bag.with_name('bag.partial').exists()
    with AnyReader([bag]) as reader:
        stored = [
            deserialize_message(bytes(raw), Detection3DArray)
            for connection, _, raw in reader.messages()
            if connection.topic == '/mta_perception/detections'
        ]
    assert stored == sent
    run = read_recording(bag)
    assert [message.stamp_ns for message in run.detections] == stamps
    assert [len(message.boxes) for message in run.detections] == [k % 4 for k in range(STEPS)]
    assert run.detections[3].track_ids == ['track0', 'track1', 'track2']
    np.testing.assert_allclose(
        run.detections[3].boxes[:, :8], [[10 + k, 0, 0, 4, 2, 1.5, 0, 1] for k in range(3)]
    )
    np.testing.assert_allclose(run.detections[3].scores, [0.5, 0.6, 0.7])
    assert [caption.caption for caption in run.captions] == [f'car {k}' for k in range(STEPS)]
    arrivals = [message.arrival_ns for message in run.detections]
    assert arrivals[-1] < after and arrivals == sorted(arrivals)
    # Of each message by itself, however late a busy machine lets the recorder look.
    came_ns = np.array([(run.image_arrivals[stamp], at) for stamp, at in zip(stamps, arrivals)])
    delays_ns = came_ns - sent_ns
    assert delays_ns.min() > 0 and np.median(delays_ns) < 100_000_000


def test_recording_never_overwrites(tmp_path, domain):
    bag = tmp_path / 'bag'
    bag.mkdir()
    with record_child(bag, domain) as recorder:
        with pytest.raises(RuntimeError, match='exists already'):
            recorder.wait_for(READY, 30)
    assert list(bag.iterdir()) == []


def test_two_recorders_do_not_meet(tmp_path, domain):
    bag = tmp_path / 'bag'
    with record_child(bag, domain) as first:
        first.wait_for(READY, 30)
        second = Child(
            'second',
            [sys.executable, '-m', 'mta_perception.ros.recorder', '--out', str(bag)],
            tmp_path / 'second.log',
            ros_environment(domain),
        )
        with second, pytest.raises(RuntimeError, match=f'bag is being .* process .{first.pid}: '):
            second.wait_for(READY, 30)
        assert first.stop() == 0
    assert sorted(path.name for path in bag.iterdir()) == ['bag.mcap', 'metadata.yaml']


def test_on_a_full_disk_the_recorder_says_how_to_get_what_it_has(tmp_path, node, domain):
    from vision_msgs.msg import Detection3DArray

    disk = tmp_path / 'disk'
    disk.mkdir()
    within = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']
    within += [f'mount -t tmpfs -o size=128k none {disk} && exec "$@"', 'sh']
    try:
        subprocess.run([*within, 'true'], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('no disk can be mounted here')
    publisher = node.create_publisher(Detection3DArray, '/mta_perception/detections', 10)
    command = [*within, sys.executable, '-m', 'mta_perception.ros.recorder']
    command += ['--out', str(disk / 'bag')]
    log, environment = tmp_path / 'recorder.log', ros_environment(domain)
    with Child('recorder', command, log, environment) as recorder:
        recorder.wait_for(f'{HEARS} /mta_perception/detections', 30)
        deadline = time.monotonic() + 30
        while recorder.running() and time.monotonic() < deadline:
            message = detections_message(time.time_ns(), 2)
            for detection in message.detections:
                detection.id = os.urandom(2000).hex()
            publisher.publish(message)
            time.sleep(0.02)
        assert recorder.stop() == 1, recorder.output()
    last = recorder.output().strip().splitlines()[-1]
    assert last.startswith(f'recorder: {disk / "bag"}: no room to write (No space left'), last
    assert f'mta rescue {disk / "bag.partial" / "bag"} --out' in last


def test_of_a_killed_recorder_all_but_the_last_second_is_kept(tmp_path, node, domain):
    """Nothing looks whole, the next recorder does not remove it, and a rescue brings it back."""
    import signal

    from vision_msgs.msg import Detection3DArray

    bag = tmp_path / 'bag'
    publisher = node.create_publisher(Detection3DArray, '/mta_perception/detections', 10)
    with record_child(bag, domain) as recorder:
        recorder.wait_for(f'{HEARS} /mta_perception/detections', 30)
        deadline = time.monotonic() + 30.0
        while not publisher.get_subscription_count() and time.monotonic() < deadline:
            time.sleep(0.05)
        for step in range(20):
            publisher.publish(detections_message(1_000_000_000 + step, 2))
            time.sleep(0.1)
        time.sleep(2.5)  # a second, and what a busy machine makes of it
        os.kill(recorder.pid, signal.SIGKILL)
        while recorder.running():
            time.sleep(0.05)
    assert not bag.exists()
    with pytest.raises(ValueError, match='metadata.yaml'):
        read_recording(bag)
    with record_child(bag, domain) as again:
        with pytest.raises(RuntimeError, match='mta rescue .*bag.partial'):
            again.wait_for(READY, 30)
    found = rescue(tmp_path / 'bag.partial' / 'bag', tmp_path / 'rescued')
    assert found.messages >= 19
    assert len(read_recording(tmp_path / 'rescued').detections) >= 19

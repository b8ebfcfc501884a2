"""The player over DDS with real processes: bytes, order, pace, clock, start, loop, Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from tiny_dataset import write_dataset

from mta_perception.bags.qos import offered_qos
from mta_perception.bags.scene_bag import BagError, SceneBag, image_topic
from mta_perception.bags.typestore import message, time_message, typestore
from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.contract import CAMERAS
from mta_training.conversion.convert import convert

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp('dataset'), scenes=1)
    return convert(root, tmp_path_factory.mktemp('bags'), workers=1, progress=False)[0]


@pytest.fixture(scope='module')
def domain():
    """A DDS domain of this module's own, also for its children."""
    from mta_perception.ros import environment

    patch = pytest.MonkeyPatch()
    number = free_domain()
    for name, value in ros_environment(number).items():
        patch.setenv(name, value)
    environment.prepare()
    yield number
    patch.undo()


class Listener:
    """Subscriptions on a node of its own; keeps what comes as (topic, arrival [s], message)."""

    def __init__(self, domain):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('listener', context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard = []

    def listen(self, cls, *topics, latched=False, reliable=True):
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        profile = QoSProfile(
            depth=500,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        for topic in topics:
            self.node.create_subscription(
                cls,
                topic,
                lambda message, topic=topic: self.heard.append((topic, time.monotonic(), message)),
                profile,
            )

    def spin_while(self, condition, timeout_s=60.0):
        deadline = time.monotonic() + timeout_s
        while condition():
            assert time.monotonic() < deadline, 'nothing more came'
            self.executor.spin_once(timeout_sec=0.05)

    def drain(self):
        """What is still under way."""
        quiet = time.monotonic() + 0.3
        while time.monotonic() < quiet:
            self.executor.spin_once(timeout_sec=0.05)

    def of(self, *topics):
        return [entry for entry in self.heard if entry[0] in topics]

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener(domain):
    made = Listener(domain)
    yield made
    made.close()


def player(bag, *arguments):
    return subprocess.Popen(
        [
            sys.executable,
            '-m',
            'mta_perception.commands.cli',
            'play',
            str(bag),
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    )


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def assert_paced(output, seconds):
    """The replay took as long as it should; the upper bound leaves room for a busy machine."""
    took = float(re.search(r'played \d+ messages in ([\d.]+) s', output).group(1))
    assert seconds - 0.02 <= took < seconds + 3.0


def test_everything_arrives_as_it_stands_in_the_bag(bag, listener):
    from mta_msgs.msg import ObjectCaptionArray
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import CameraInfo, CompressedImage
    from tf2_msgs.msg import TFMessage
    from vision_msgs.msg import Detection3DArray

    images = [image_topic(camera) for camera in CAMERAS]
    infos = [f'/{camera}/camera_info' for camera in CAMERAS]
    listener.listen(CompressedImage, *images)
    listener.listen(CameraInfo, *infos)
    listener.listen(Detection3DArray, '/ground_truth/detections')
    listener.listen(ObjectCaptionArray, '/ground_truth/captions')
    listener.listen(TFMessage, '/tf_static', latched=True)
    listener.listen(Clock, '/clock')
    process = player(bag, '--rate', 0.5)  # a busy machine has time to take everything
    listener.spin_while(lambda: process.poll() is None)
    listener.drain()
    output = process.stdout.read()
    assert process.returncode == 0, output
    assert '6 of 6 image topics have subscribers' in output

    scene = SceneBag(bag)
    wanted = {(image.camera, image.stamp_ns): bytes(image.data) for image in scene.images()}
    got = {
        (topic.split('/')[1], stamp_ns(message)): bytes(message.data)
        for topic, _, message in listener.of(*images)
    }
    assert got == wanted
    assert len(listener.of(*infos)) == len(wanted)
    sizes = [len(message.detections) for _, _, message in listener.of('/ground_truth/detections')]
    assert sizes == [len(sample.labels) for sample in scene.samples]
    told = [message.captions[0].caption for _, _, message in listener.of('/ground_truth/captions')]
    assert told == [sample.captions[0] for sample in scene.samples]

    # Latched before anything else, the clock forward and a hundred times a second.
    trees = SceneBag(bag).topics['/tf_static'].msgcount
    assert listener.heard[0][0] == '/tf_static' and len(listener.of('/tf_static')) == trees
    clock = np.array(
        [
            message.clock.sec * 10**9 + message.clock.nanosec
            for _, _, message in listener.of('/clock')
        ]
    )
    assert (np.diff(clock) > 0).all() and clock[0] >= scene.start_ns
    seconds = (scene.end_ns - scene.start_ns) / 1e9
    assert 80 < len(clock) / seconds < 102
    assert_paced(output, 2 * seconds)


def test_late_subscribers_get_the_static_tree(bag, listener):
    from rosgraph_msgs.msg import Clock
    from tf2_msgs.msg import TFMessage

    process = player(bag, '--wait', 0, '--loop')
    try:
        # The clock runs: the static tree was sent before it.
        listener.listen(Clock, '/clock')
        listener.spin_while(lambda: len(listener.of('/clock')) < 50, 60.0)
        listener.listen(TFMessage, '/tf_static', latched=True)
        listener.spin_while(lambda: not listener.of('/tf_static'), 20.0)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
    frames = {entry.child_frame_id for entry in listener.of('/tf_static')[0][2].transforms}
    assert 'cam_front_optical' in frames


def test_start_topics_and_rate(bag, listener):
    from nav_msgs.msg import Odometry
    from tf2_msgs.msg import TFMessage

    listener.listen(Odometry, '/odom')
    listener.listen(TFMessage, '/tf')
    listener.listen(TFMessage, '/tf_static', latched=True)
    process = player(
        bag, '--start', 0.9, '--topics', '/odom', '--topics', '/tf_static', '--rate', 0.5
    )
    listener.spin_while(lambda: process.poll() is None)
    listener.drain()
    output = process.stdout.read()
    assert process.returncode == 0, output
    scene = SceneBag(bag)
    stamps, _ = scene.ego_poses
    got = [stamp_ns(message) for _, _, message in listener.of('/odom')]
    assert got == [stamp for stamp in stamps.tolist() if stamp >= scene.start_ns + 900_000_000]
    assert not listener.of('/tf') and listener.heard[0][0] == '/tf_static'
    assert_paced(output, 2 * ((scene.end_ns - scene.start_ns) / 1e9 - 0.9))


def test_loop_goes_round_until_interrupted(bag, listener):
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import CompressedImage

    listener.listen(CompressedImage, image_topic('cam_front'))
    listener.listen(Clock, '/clock', reliable=False)
    process = player(bag, '--loop', '--rate', 4)
    expected = len(SceneBag(bag).image_stamps('cam_front'))
    listener.spin_while(lambda: len(listener.of(image_topic('cam_front'))) < 2.5 * expected)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert 'Traceback' not in output and re.search(r'stopped after \d+ messages', output)
    stamps = [stamp_ns(message) for _, _, message in listener.of(image_topic('cam_front'))]
    assert stamps[:expected] == stamps[expected : 2 * expected]
    clock = [
        message.clock.sec * 10**9 + message.clock.nanosec
        for _, _, message in listener.of('/clock')
    ]
    assert (np.diff(clock) < 0).sum() == 2


def test_nobody_listens(bag, domain):
    process = player(bag, '--wait', 0.7, '--rate', 10)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert 'nobody listens' in output and 'played' in output


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [(('--topics', '/no/such'), 'has no topic /no/such'), (('--start', 99), 'beyond its end')],
)
def test_what_does_not_fit_the_bag_is_one_line(bag, domain, arguments, words):
    output, _ = (process := player(bag, *arguments)).communicate(timeout=90)
    assert process.returncode == 1
    assert words in output and len(output.strip().splitlines()) == 1


@pytest.fixture(scope='module')
def many_publishers(tmp_path_factory):
    """/tf_static of five publishers of depth 1, a strange type, a clock of a second's length."""
    path = tmp_path_factory.mktemp('foreign') / 'bag'
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        tree = writer.add_connection(
            '/tf_static',
            'tf2_msgs/msg/TFMessage',
            typestore=typestore(),
            offered_qos_profiles=[offered_qos(1, latched=True)],
        )
        strange = writer.add_connection(
            '/strange', 'no_such_msgs/msg/Thing', msgdef='int32 x\n', rihs01='RIHS01_' + '1' * 64
        )
        texts = writer.add_connection('/text', 'std_msgs/msg/String', typestore=typestore())
        for k in range(5):
            writer.write(tree, 10**9 + k, mount(f'lens_{k}'))
        writer.write(strange, 10**9 + 10, b'\0\1\0\0\7\0\0\0')
        for k in range(11):
            data = message('std_msgs/msg/String', data=str(k))
            content = typestore().serialize_cdr(data, 'std_msgs/msg/String')
            writer.write(texts, 10**9 + k * 10**8 + 20, content)
    return path


def mount(child):
    header = message('std_msgs/msg/Header', stamp=time_message(0), frame_id='base_link')
    value = message(
        'geometry_msgs/msg/Transform',
        translation=message('geometry_msgs/msg/Vector3', x=1.0, y=0.0, z=0.0),
        rotation=message('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0),
    )
    one = message(
        'geometry_msgs/msg/TransformStamped', header=header, child_frame_id=child, transform=value
    )
    name = 'tf2_msgs/msg/TFMessage'
    return typestore().serialize_cdr(message(name, transforms=[one]), name)


def test_a_late_subscriber_gets_the_mounts_of_all_publishers(many_publishers, listener):
    """And a topic of an unknown type is left out with a word, not the whole bag."""
    from std_msgs.msg import String
    from tf2_msgs.msg import TFMessage

    listener.listen(String, '/text')
    process = player(many_publishers, '--wait', 0, '--start', 0.4, '--loop')
    try:
        listener.spin_while(lambda: len(listener.of('/text')) < 3, 60.0)
        listener.listen(TFMessage, '/tf_static', latched=True)
        listener.spin_while(lambda: len(listener.of('/tf_static')) < 5, 20.0)
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    trees = [tree for _, _, tree in listener.of('/tf_static')]
    frames = {one.child_frame_id for tree in trees for one in tree.transforms}
    assert frames == {f'lens_{k}' for k in range(5)}
    assert '/strange is left out' in output and 'no_such_msgs' in output


@pytest.mark.parametrize(
    'name',
    ['no_such_msgs/msg/X', 'std_msgs/msg/NoSuch', 'std_msgs/String', '../msg/X', 'a.b/msg/C', ''],
)
def test_a_type_that_is_not_known_here_is_named(name):
    """Whatever a bag calls it: what leaves a topic out must not end the replay."""
    from mta_perception.ros.message_classes import message_class

    with pytest.raises(RuntimeError, match=re.escape(name)):
        message_class(name)


def test_delay_and_a_node_that_is_waited_for(many_publishers, listener):
    from std_msgs.msg import String

    waiting = ('--wait', 30, '--delay', 1.5, '--wait-for', 'listener')
    process = player(many_publishers, *waiting, '--topics', '/text')
    time.sleep(3.0)
    assert process.poll() is None and not listener.heard
    listener.listen(String, '/text')
    began = time.monotonic()
    listener.spin_while(lambda: process.poll() is None)
    listener.drain()
    assert [message.data for _, _, message in listener.of('/text')] == list(map(str, range(11)))
    assert listener.of('/text')[0][1] - began > 1.4


def test_faults_reach_who_listens(many_publishers, listener, tmp_path):
    from std_msgs.msg import String

    (tmp_path / 'faults.yaml').write_text(
        'faults:\n'
        '  - {topic: /te*, do: drop, from: 0.25, to: 0.55}\n'
        '  - {topic: /text, do: duplicate, from: 0.95, seconds: 0.05}\n'
    )
    listener.listen(String, '/text')
    process = player(many_publishers, '--topics', '/text', '--faults', tmp_path / 'faults.yaml')
    listener.spin_while(lambda: process.poll() is None)
    listener.drain()
    said = [int(message.data) for _, _, message in listener.of('/text')]
    assert said == [0, 1, 2, 6, 7, 8, 9, 10, 10]


def test_damaged_bag_raises_before_ros_starts(tmp_path):
    from mta_perception.ros.player import play_bag

    with pytest.raises(BagError):
        play_bag(tmp_path)


def test_on_enter_nothing_is_played_before_the_word_comes(bag, domain, tmp_path):
    """Whoever records must be matched with every publisher first: what comes before is lost."""
    command = [sys.executable, '-m', 'mta_perception.commands.cli', 'play', str(bag)]
    with Child(
        'player',
        [*command, '--on-enter', '--wait', '0', '--rate', '4'],
        tmp_path / 'player.log',
        ros_environment(domain),
    ) as player:
        player.wait_for('waiting for Enter', 30.0)
        time.sleep(1.0)
        assert player.running() and 'played' not in player.output()
        player.enter()
        player.wait_for('played', 30.0)

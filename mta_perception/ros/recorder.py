"""Record topics as they arrive: `python -m mta_perception.ros.recorder --out BAG`.

The bag is a rosbag2 (mcap) of the serialised bytes that came over DDS, stamped with the wall clock
of their arrival at the middleware, not of the moment at which a busy machine let us look.  It is
written beside its place and moved there when the recorder stops (SIGINT or SIGTERM), so that no
half-written bag looks whole.

Subscriptions alone hear nothing: a publisher that already sees ours may be one that we have not
matched yet, and its first messages are lost.  So the recorder prints `hears TOPIC` when its own
side is matched; whoever wants all of a topic in the bag waits for that and for his own side.
"""

import argparse
import os
from pathlib import Path
import signal
import sys
import time
from typing import NamedTuple

from mta_perception.bags.bag_files import partial_bag, rescue_command
from mta_perception.bags.qos import offered_qos
from mta_perception.bags.typestore import typestore
from mta_perception.contract import CAMERAS
from mta_perception.directory_lock import sole_writer
from mta_perception.ros.environment import prepare
from mta_perception.ros.message_classes import message_class

QUEUE_DEPTH = 200
READY = 'ready, recording'  # printed once all subscriptions are there
HEARS = 'hears'  # printed with a topic once what its publisher says is recorded
HEARS_NODE = 'hears the node'  # printed once that holds for all that is expected of the node
FLUSH_S = 0.8  # a power cut costs at most this much of a recording
DRAIN_S = 1.0  # at most, to take what had come before the end


class RecordedTopic(NamedTuple):
    """What to subscribe to and how."""

    name: str
    type_name: str  # package/msg/Type
    reliable: bool  # a reliable reader hears no best-effort writer: sensors get False
    latched: bool  # transient_local: also what was said before we came


def node_topics(node='/mta_perception'):
    """What the perception node says, the clock, where the car was (so that RViz shows the bag),
    and camera_info: it comes with each image and tells when that came, at a thousandth of the
    bytes."""
    outputs = [
        RecordedTopic(f'{node}/detections', 'vision_msgs/msg/Detection3DArray', True, False),
        RecordedTopic(f'{node}/captions', 'mta_msgs/msg/ObjectCaptionArray', True, False),
        RecordedTopic(f'{node}/caption_text', 'std_msgs/msg/String', True, False),
        RecordedTopic(f'{node}/markers', 'visualization_msgs/msg/MarkerArray', True, False),
        RecordedTopic(
            f'{node}/overlay/compressed', 'sensor_msgs/msg/CompressedImage', True, False
        ),
        RecordedTopic(f'{node}/history', 'mta_msgs/msg/HistoryState', True, False),
        RecordedTopic(f'{node}/labels', 'vision_msgs/msg/LabelInfo', True, True),
        RecordedTopic('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', True, False),
        RecordedTopic('/clock', 'rosgraph_msgs/msg/Clock', False, False),
        RecordedTopic('/tf', 'tf2_msgs/msg/TFMessage', False, False),
        RecordedTopic('/tf_static', 'tf2_msgs/msg/TFMessage', True, True),
        RecordedTopic('/odom', 'nav_msgs/msg/Odometry', False, False),
    ]
    return outputs + [
        RecordedTopic(f'/{camera}/camera_info', 'sensor_msgs/msg/CameraInfo', False, False)
        for camera in CAMERAS
    ]


class Recorder:
    """Subscribes to topics on an rclpy node and writes what comes; `close` finishes the bag."""

    def __init__(self, node, topics, out):
        """out: directory of the bag, must not exist.  Raises FileExistsError, RuntimeError."""
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.out = Path(out)
        if self.out.exists():
            raise FileExistsError(
                f'{self.out} exists already; a recording never overwrites. '
                'Remove it or name another --out.'
            )
        bag = partial_bag(self.out)
        try:
            bag.parent.mkdir(parents=True)
        except FileExistsError:
            raise FileExistsError(
                f'{bag.parent} exists: a recording was killed there. What it has: '
                f'`{rescue_command(bag)}`; then remove it, or name another --out.'
            ) from None
        self.counts = {topic.name: 0 for topic in topics}
        classes = [message_class(topic.type_name) for topic in topics]
        self._bag = bag
        self._writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._node = node
        self._subscriptions = {
            topic.name: self._subscribe(node, topic, cls) for topic, cls in zip(topics, classes)
        }

    def _subscribe(self, node, topic, cls):
        connection = self._writer.add_connection(
            topic.name,
            topic.type_name,
            typestore=typestore(),
            offered_qos_profiles=[
                offered_qos(QUEUE_DEPTH, reliable=topic.reliable, latched=topic.latched)
            ],
        )

        def write(data, info):
            # 0 from a middleware that does not measure it.
            arrival_ns = info['received_timestamp'] or time.time_ns()
            self._writer.write(connection, arrival_ns, data)
            self.counts[topic.name] += 1

        return node.create_subscription(cls, topic.name, write, _subscription_qos(topic), raw=True)

    def hears(self, name):
        """Whether our subscription to topic `name` is matched with a publisher."""
        subscription = self._subscriptions[name]
        if hasattr(subscription, 'get_publisher_count'):
            return subscription.get_publisher_count() > 0
        return self._node.count_publishers(name) > 0  # Humble: discovered is all it can tell

    def flush(self):
        """Bring what has come to the disk: a power cut costs what came since."""
        storage = self._writer.storage
        if storage.chunk.bio.tell():
            storage.close_chunk()
            storage.bio.flush()
            os.fsync(storage.bio.fileno())

    def close(self):
        """Finish the bag and put it in its place."""
        self._writer.close()
        os.replace(self._bag, self.out)
        self._bag.parent.rmdir()


def _subscription_qos(topic):
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        depth=QUEUE_DEPTH,
        reliability=(
            ReliabilityPolicy.RELIABLE if topic.reliable else ReliabilityPolicy.BEST_EFFORT
        ),
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE
        ),
    )


def record(out, topics):
    """Record until SIGINT or SIGTERM; returns the number of messages per topic."""
    prepare()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    stop = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.append(True))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('mta_recorder')
    partial = partial_bag(out)
    try:
        with sole_writer(out, then=f'bring back what there is: `{rescue_command(partial)}`'):
            recorder = Recorder(node, topics, out)
            print(f'{READY} {len(topics)} topics', flush=True)
            silent = [topic.name for topic in topics]
            # Of the node; /tf_static comes with the drive.
            expected = {topic.name for topic in topics if topic.reliable} - {'/tf_static'}
            flushed = time.monotonic()
            while not stop:
                rclpy.spin_once(node, timeout_sec=0.1)
                if time.monotonic() - flushed > FLUSH_S:
                    recorder.flush()
                    flushed = time.monotonic()
                for name in [name for name in silent if recorder.hears(name)]:
                    silent.remove(name)
                    print(f'{HEARS} {name}', flush=True)
                    if name in expected and expected.isdisjoint(silent):
                        print(HEARS_NODE, flush=True)
            _drain(node, recorder)
            recorder.close()
    finally:
        node.destroy_node()
        rclpy.shutdown()
    return recorder.counts


def _drain(node, recorder):
    """Take what has come already, for DRAIN_S at most: /clock never ends."""
    import rclpy

    end, before = time.monotonic() + DRAIN_S, -1
    while time.monotonic() < end and sum(recorder.counts.values()) != before:
        before = sum(recorder.counts.values())
        rclpy.spin_once(node, timeout_sec=0.02)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True, help='bag to write; must not exist')
    parser.add_argument('--node', default='/mta_perception', help='full name of its node')
    arguments = parser.parse_args(argv)
    try:
        counts = record(arguments.out, node_topics(arguments.node))
    except (OSError, RuntimeError) as error:
        print(f'recorder: {error}', file=sys.stderr)
        return 1
    print(', '.join(f'{name} {count}' for name, count in counts.items() if count), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())

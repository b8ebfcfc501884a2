"""Six 1600x900 cameras at 12 Hz between two processes: default transport against ours.

Each cell runs a publisher and a subscriber process in a DDS domain of their own for a few seconds.
Prints the latency from stamp to callback, and the rate that came through.
"""

import argparse
from array import array
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

import numpy as np
from report import Row, quick, report

from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.contract import CAMERAS
from mta_perception.ros.environment import PROFILE_VARIABLES, transport_profile_path

RATE_HZ = 12.0
RAW_BYTES = 1600 * 900 * 3
JPEG_BYTES = 180_000  # a typical nuScenes JPEG


def message_of(kind):
    from sensor_msgs.msg import CompressedImage, Image

    payload = np.random.default_rng(0).integers(
        0, 255, RAW_BYTES if kind == 'raw' else JPEG_BYTES, dtype=np.uint8
    )
    data = array('B')
    data.frombytes(memoryview(payload))
    if kind == 'raw':
        return Image(width=1600, height=900, step=4800, encoding='bgr8', data=data)
    return CompressedImage(format='jpeg', data=data)


def qos():
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def start_ros(name):
    import rclpy

    os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
    rclpy.init()
    return rclpy.create_node(name)


def publish(kind, seconds):
    """All six cameras once a period; stamps are the wall clock."""
    node = start_ros('bench_publisher')
    message = message_of(kind)
    publishers = [
        node.create_publisher(type(message), f'/{camera}/image', qos()) for camera in CAMERAS
    ]
    deadline = time.monotonic() + 20
    while any(p.get_subscription_count() == 0 for p in publishers):
        if time.monotonic() > deadline:
            sys.exit('publisher: no subscriber within 20 s')
        time.sleep(0.05)
    begin = time.monotonic()
    for step in range(int(seconds * RATE_HZ)):
        for publisher in publishers:
            now = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
            publisher.publish(message)
        time.sleep(max(0.0, begin + (step + 1) / RATE_HZ - time.monotonic()))
    time.sleep(1.0)


def subscribe(kind, out):
    """Latency of each message in ms, written to `out` when stopped."""
    import rclpy

    node = start_ros('bench_subscriber')
    latencies = []

    def on_image(message):
        stamp = message.header.stamp
        latencies.append((time.time_ns() - stamp.sec * 1_000_000_000 - stamp.nanosec) / 1e6)

    cls = type(message_of(kind))
    subscriptions = [
        node.create_subscription(cls, f'/{camera}/image', on_image, qos()) for camera in CAMERAS
    ]
    try:
        while subscriptions:
            rclpy.spin_once(node, timeout_sec=0.2)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    Path(out).write_text(json.dumps(latencies), encoding='utf-8')


def run_cell(kind, profile, seconds):
    """Latencies [ms] and messages per camera and second."""
    environment = ros_environment(free_domain())
    for name in PROFILE_VARIABLES:
        environment.pop(name, None)
    if profile is not None:
        environment.update(dict.fromkeys(PROFILE_VARIABLES, str(profile)))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'latencies.json'
        this = [sys.executable, __file__, '--kind', kind]
        with Child(
            'subscriber', [*this, '--subscribe', str(out)], f'{folder}/subscriber.log', environment
        ) as subscriber:
            subprocess.run([*this, '--publish', str(seconds)], env=environment, check=True)
            subscriber.stop()
            if not out.is_file():
                raise RuntimeError(f'the subscriber wrote nothing: {subscriber.output()}')
        latencies = json.loads(out.read_text(encoding='utf-8'))
    return latencies, len(latencies) / len(CAMERAS) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kind', choices=('raw', 'jpeg'), default='raw')
    parser.add_argument('--publish', type=float, help='internal: publish for so many seconds')
    parser.add_argument('--subscribe', help='internal: write latencies to this file')
    parser.add_argument('--seconds', type=float, default=quick(3.0, 10.0))
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.kind, arguments.publish)
    elif arguments.subscribe:
        subscribe(arguments.kind, arguments.subscribe)
    else:
        latency_rows, rate_rows = [], []
        for kind in ('raw', 'jpeg'):
            for name, profile in (
                ('default profile', None),
                ('shared-memory profile', transport_profile_path()),
            ):
                latencies, rate = run_cell(kind, profile, arguments.seconds)
                latency_rows.append(Row(f'{kind}, {name}', latencies))
                rate_rows.append(Row(f'{kind}, {name}', [rate]))
        report('Transport, six cameras: latency', latency_rows)
        report('Transport, six cameras: received (sent at 12 Hz)', rate_rows, unit='Hz')


if __name__ == '__main__':
    main()

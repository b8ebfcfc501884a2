"""The node end to end over DDS: six 1600x900 cameras at 12 Hz, raw and as JPEG.

A process of its own drives: images of a synthetic drive, held in memory and sent again and again
with stamps of this machine's clock, cameras one after the other as nuScenes fires them, odometry
at 50 Hz.  It also listens: latency is from an image's stamp or receipt to the message, as
~/latency says of each frame and as ~/detections arrive.  Everything runs on the same cores, the
driver too.
"""

import argparse
from array import array
import json
import math
import os
from pathlib import Path
import sys
import tempfile
import threading
import time

import cv2
from drive import drive, model
from node_memory import resident_mb
import numpy as np
from report import Row, quick, report

from mta_perception.commands.demo import process_usage
from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.contract import CAMERAS
from mta_perception.ros.environment import prepare

HZ, ODOMETRY_HZ, SPEED_M_S = 12.0, 50.0, 5.0
SETS = 6  # of images held in memory: 155 MB raw
FIRED_MS = dict(zip(CAMERAS, (-35, -28, -43, -10, 0, -20)))  # nuScenes' round
KINDS = {'jpeg': 'image_raw/compressed', 'raw': 'image_raw'}
TRANSPORTS = {'jpeg': 'compressed', 'raw': 'raw'}
RUNS = {'jpeg': True, 'jpeg, no sentences': False, 'raw': True}  # -> whether it speaks
STAGES = ('decoded', 'inferred', 'boxes', 'sentences', 'boxes_after_stamp')
WARM_UP_S = 5.0  # after the first detections


def pictures(scene, kind):
    """camera -> SETS messages."""
    from sensor_msgs.msg import CompressedImage, Image

    found = {camera: [] for camera in CAMERAS}
    for image in scene.images():
        if len(found[image.camera]) == SETS:
            if all(len(messages) == SETS for messages in found.values()):
                break
            continue
        data = array('B')
        if kind == 'jpeg':
            # Eight bytes behind its end, so that no picture comes twice.
            data.frombytes(bytes(image.data) + bytes(8))
            message = CompressedImage(format='jpeg', data=data)
        else:
            pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
            data.frombytes(pixels)
            height, width, _ = pixels.shape
            message = Image(width=width, height=height, step=3 * width, encoding='bgr8', data=data)
        found[image.camera].append(message)
    return found


def constants(scene, topics):
    """topic -> its first message in the bag, as rclpy has it."""
    from rclpy.serialization import deserialize_message

    from mta_perception.ros.message_classes import message_class

    found = {}
    for topic, kind, _, data in scene.raw(topics):
        if topic not in found:
            found[topic] = deserialize_message(bytes(data), message_class(kind))
        if len(found) == len(topics):
            break
    return found


class Driver:
    """Sends, and hears what the node says."""

    def __init__(self, kind):
        import rclpy

        os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
        rclpy.init()
        self.node = rclpy.create_node('bench_driver')
        scene = drive()
        self._pictures = pictures(scene, kind)
        infos = [f'/{camera}/camera_info' for camera in CAMERAS]
        self._constants = constants(scene, [*infos, '/tf_static'])
        self._publishers(kind)
        self._sent = dict.fromkeys(CAMERAS, 0)
        self.detections, self.sentences, self.spans = [], 0, []

    def _publishers(self, kind):
        from diagnostic_msgs.msg import DiagnosticArray
        from mta_msgs.msg import ObjectCaptionArray
        from nav_msgs.msg import Odometry
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from tf2_msgs.msg import TFMessage
        from vision_msgs.msg import Detection3DArray

        sensors = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        make, latched = self.node.create_publisher, DurabilityPolicy.TRANSIENT_LOCAL
        self._images = {
            camera: make(type(messages[0]), f'/{camera}/{KINDS[kind]}', sensors)
            for camera, messages in self._pictures.items()
        }
        self._infos = {
            camera: make(
                type(self._constants[f'/{camera}/camera_info']), f'/{camera}/camera_info', sensors
            )
            for camera in CAMERAS
        }
        self._odometry = make(Odometry, '/odom', 10)
        self._static = make(TFMessage, '/tf_static', QoSProfile(depth=1, durability=latched))
        self._static.publish(self._constants['/tf_static'])
        node, hear = '/mta_perception', self.node.create_subscription
        self._heard = [
            hear(Detection3DArray, f'{node}/detections', self._on_detections, 10),
            hear(ObjectCaptionArray, f'{node}/captions', self._on_captions, 10),
            hear(DiagnosticArray, f'{node}/latency', self._on_latency, 10),
        ]

    def _on_detections(self, message):
        stamp = message.header.stamp
        now = time.time()
        self.detections.append((now, 1e3 * (now - stamp.sec - stamp.nanosec / 1e9)))

    def _on_captions(self, message):
        self.sentences += len(message.captions)

    def _on_latency(self, message):
        values = {one.key: one.value for one in message.status[0].values}
        self.spans.append(
            {stage: float(values[f'{stage}_ms']) for stage in STAGES if f'{stage}_ms' in values}
        )

    def drive(self, seconds):
        """Until `seconds` of it are measured; returns what was heard in these."""
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        listening = threading.Thread(target=executor.spin)
        listening.start()
        try:
            return self._drive(seconds)
        finally:
            executor.shutdown()
            listening.join()
            self.node.destroy_node()
            rclpy.shutdown()

    def _drive(self, seconds):
        began, end = time.time(), math.inf
        due = [[began + 1.0 + at_ms / 1e3, 1 / HZ, camera] for camera, at_ms in FIRED_MS.items()]
        due.append([began, 1 / ODOMETRY_HZ, 'odometry'])
        while time.time() < end:
            moment = min(due)
            time.sleep(max(0.0, moment[0] - time.time()))
            # A machine that is too slow loses pictures, as a car does, and not the time.
            while time.time() - moment[0] > moment[1]:
                moment[0] += moment[1]
            self._send(moment[2], moment[0], moment[0] - began)
            moment[0] += moment[1]
            if end < math.inf:
                continue
            if self.detections and time.time() - self.detections[0][0] > WARM_UP_S:
                print('measuring', flush=True)
                self.detections, self.sentences, self.spans = [], 0, []
                before, end = sum(self._sent.values()), time.time() + seconds
            elif time.time() - began > 120.0:
                sys.exit('no detections within 120 s')
        return {
            'sent': (sum(self._sent.values()) - before) / len(CAMERAS),
            'latencies_ms': [latency for _, latency in self.detections],
            'sentences': self.sentences,
            'spans': self.spans,
        }

    def _send(self, what, at_s, driven_s):
        sec, fraction = divmod(at_s, 1.0)
        stamp = int(sec), int(fraction * 1e9)
        if what == 'odometry':
            self._send_odometry(stamp, driven_s)
            return
        number = self._sent[what]
        self._sent[what] += 1
        message = self._pictures[what][number % SETS]
        message.data[-8:] = array('B', number.to_bytes(8, 'little'))
        info = self._constants[f'/{what}/camera_info']
        message.header.frame_id = info.header.frame_id
        for one in (message, info):
            one.header.stamp.sec, one.header.stamp.nanosec = stamp
        self._infos[what].publish(info)
        self._images[what].publish(message)

    def _send_odometry(self, stamp, driven_s):
        from nav_msgs.msg import Odometry

        message = Odometry(child_frame_id='base_link')
        message.header.frame_id = 'odom'
        message.header.stamp.sec, message.header.stamp.nanosec = stamp
        message.pose.pose.position.x = SPEED_M_S * driven_s
        message.twist.twist.linear.x = SPEED_M_S
        self._odometry.publish(message)


def measured(kind, seconds, speaks=True):
    """What the driver heard, and the node's memory [MB] over time and CPU seconds a second."""
    prepare()
    python = [sys.executable, '-m']
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'heard.json'
        environment = {**ros_environment(free_domain()), 'ROS_LOG_DIR': folder}
        node = [*python, 'mta_perception.ros.node', '--ros-args', '-p']
        node += [f'model:={model().directory}', '-p', f'transport:={TRANSPORTS[kind]}']
        node += ['-p', f'captions:={str(speaks).lower()}']
        this = [sys.executable, __file__, '--kind', kind, '--seconds', str(seconds)]
        with Child('node', node, f'{folder}/node.log', environment) as running:
            running.wait_for('active', 120)
            with Child(
                'driver', [*this, '--driver', str(out)], f'{folder}/driver.log', environment
            ) as driver:
                driver.wait_for('measuring', 180)
                began, before = time.monotonic(), process_usage(running.pid)['cpu_s']
                memory = []
                while driver.running():
                    memory.append(resident_mb(running.pid))
                    time.sleep(0.5)
                    running.check()
                driver.check()
            usage = process_usage(running.pid)
            busy = (usage['cpu_s'] - before) / (time.monotonic() - began)
            running.stop()
        heard = json.loads(out.read_text(encoding='utf-8'))
    return heard, memory, busy


def tables(found, seconds):
    """[(title, rows, unit)] of kind -> (heard, memory, busy)."""
    latency, rate, memory, busy = [], [], [], []
    for kind, (heard, resident, cores) in found.items():
        for stage in STAGES:
            spans = [span[stage] for span in heard['spans'] if stage in span]
            latency.append(Row(f'{kind}: {stage}', spans))
        latency.append(Row(f'{kind}: stamp to ~/detections heard', heard['latencies_ms']))
        rate.append(Row(f'{kind}: sets sent', [heard['sent'] / seconds]))
        rate.append(Row(f'{kind}: detections', [len(heard['latencies_ms']) / seconds]))
        rate.append(Row(f'{kind}: sentences', [heard['sentences'] / seconds]))
        third = max(1, len(resident) // 3)
        memory.append(Row(f'{kind}: first third', resident[:third]))
        memory.append(Row(f'{kind}: last third', resident[-third:]))
        busy.append(Row(kind, [cores]))
    return [
        ('Node at 12 Hz: latency', latency, 'ms'),
        ('Node at 12 Hz: messages', rate, 'a second'),
        ('Node at 12 Hz: memory', memory, 'MB'),
        ('Node at 12 Hz: CPU', busy, 's a second'),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kind', choices=tuple(KINDS), default='jpeg')
    parser.add_argument('--driver', help='internal: drive, and write there what was heard')
    parser.add_argument('--seconds', type=float, help='of each kind; else as MTA_BENCH_MINUTES')
    options = parser.parse_args()
    minutes = float(os.environ.get('MTA_BENCH_MINUTES') or quick(1 / 3, 10.0))
    seconds = options.seconds or 60.0 * minutes
    if options.driver:
        heard = Driver(options.kind).drive(seconds)
        Path(options.driver).write_text(json.dumps(heard), encoding='utf-8')
        return
    found = {name: measured(name.split(',')[0], seconds, speaks) for name, speaks in RUNS.items()}
    for title, rows, unit in tables(found, seconds):
        report(title, rows, unit)


if __name__ == '__main__':
    main()

"""Numbers of a recorded run: latency, rate, boxes moved to key frames, the machine; no ROS."""

from importlib import metadata
import os
import platform

import numpy as np

from mta_perception.contract import BoxCode
from mta_perception.geometry import interpolate_rigid, invert_rigid, transform_boxes

NEAREST_WITHIN_S = 0.25       # a key frame without a message that near counts as without detections
PACKAGES = ('numpy', 'opencv-python-headless', 'onnxruntime', 'rosbags', 'ros-rclpy', 'ros-fastdds')


def latencies_ms(recording):
    """End to end: from the arrival of the image that completes a frame set (its camera_info comes
    with it and has its stamp, the reference stamp) to the arrival of the set's detections, both
    at the recorder.  One value per detections message whose image arrival was seen."""
    return [(message.arrival_ns - recording.image_arrivals[message.stamp_ns]) / 1e6
            for message in recording.detections if message.stamp_ns in recording.image_arrivals]


def percentiles(samples):
    """p50, p90 and max as JSON wants them; None where there are no samples."""
    if not len(samples):
        return {'p50': None, 'p90': None, 'max': None}
    p50, p90 = np.percentile(samples, [50, 90])
    return {'p50': round(float(p50), 2), 'p90': round(float(p90), 2),
            'max': round(float(np.max(samples)), 2)}


def rate_hz(arrivals_ns):
    """Messages a second of wall time between the first and the last; None below two messages."""
    if len(arrivals_ns) < 2 or arrivals_ns[-1] <= arrivals_ns[0]:
        return None
    return round((len(arrivals_ns) - 1) * 1e9 / (arrivals_ns[-1] - arrivals_ns[0]), 3)


def nearest_detections(recording, stamp_ns):
    """The detections message whose stamp is nearest, or None farther than NEAREST_WITHIN_S."""
    if not recording.detections:
        return None
    nearest = min(recording.detections, key=lambda message: abs(message.stamp_ns - stamp_ns))
    return nearest if abs(nearest.stamp_ns - stamp_ns) <= NEAREST_WITHIN_S * 1e9 else None


def pose_lookup(stamps_ns, world_from_ego):
    """A function stamp [ns] -> (4, 4) world_from_ego, interpolated; clamped at the ends.

    stamps_ns: (n,) ascending; world_from_ego: (n, 4, 4).  Raises ValueError where n is 0.
    """
    if not len(stamps_ns):
        raise ValueError('the bag has no ego pose: /odom is empty; convert the scene again.')

    def world_from_ego_at(stamp_ns):
        after = int(np.clip(np.searchsorted(stamps_ns, stamp_ns), 0, len(stamps_ns) - 1))
        before = max(0, after - 1)
        span = max(1, int(stamps_ns[after]) - int(stamps_ns[before]))
        fraction = float(np.clip((stamp_ns - int(stamps_ns[before])) / span, 0.0, 1.0))
        return interpolate_rigid(world_from_ego[before], world_from_ego[after], fraction)
    return world_from_ego_at


def boxes_moved_to(boxes, stamp_ns, to_stamp_ns, world_from_ego_at):
    """(K, 10) boxes of the ego frame at `stamp_ns`, as predicted for the ego frame at `to_stamp_ns`.

    Each box goes on at its own velocity, then the ego motion is taken out.
    world_from_ego_at: stamp [ns] -> (4, 4).
    """
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, BoxCode.WIDTH)
    seconds = (to_stamp_ns - stamp_ns) / 1e9
    velocity = np.nan_to_num(boxes[:, BoxCode.VELOCITY])
    boxes[:, :2] += velocity * seconds
    to_from_now = invert_rigid(world_from_ego_at(to_stamp_ns)) @ world_from_ego_at(stamp_ns)
    return transform_boxes(to_from_now, boxes)


def machine():
    """What the numbers were measured on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {'cpu': _cpu_name(), 'cores': len(os.sched_getaffinity(0)),
            'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
            'system': platform.platform(), 'python': platform.python_version(),
            'packages': versions}


def _cpu_name():
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as lines:
            for line in lines:
                if line.startswith('model name'):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

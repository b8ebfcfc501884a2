"""Numbers of a recorded run: frames, latency, rate, the machine; no ROS."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import metadata
import os
import platform
from typing import Any

import numpy as np

from mta_perception.bags.recording import Recording
from mta_perception.bags.scene_bag import SceneBag, image_topic

Diagnostics = Mapping[str, Mapping[str, str]]  # component -> key -> value

PACKAGES = (
    'numpy',
    'opencv-python-headless',
    'onnxruntime',
    'rosbags',
    'ros-rclpy',
    'ros-fastdds',
)


def summarise(scene: SceneBag, recording: Recording) -> dict[str, Any]:
    """What was played, processed, dropped and said, as summary.json has it (README.md).

    scene: bag.SceneBag that was played.  Raises ValueError where the node said nothing.
    """
    if not recording.diagnostics:
        raise ValueError(
            'the recorded bag has no /diagnostics of the node: it never ran, or not '
            'in this DDS domain. See logs/node.log.'
        )
    frames = _frame_accounts(recording.diagnostics[-1][1])
    seconds = (scene.end_ns - scene.start_ns) / 1e9
    latencies = latencies_ms(recording)
    return {
        'seconds': round(seconds, 3),
        **frames,
        'recorded_messages': len(recording.detections),
        'images': _image_accounts(scene, recording.diagnostics[-1][1]),
        'detections': int(sum(len(message.boxes) for message in recording.detections)),
        'captions': len(recording.captions),
        'captions_per_s': _per_second(len(recording.captions), recording),
        'latency_ms': percentiles(latencies),
        'latency_samples': len(latencies),
        'rate_hz': rate_hz([message.arrival_ns for message in recording.detections]),
        'stages_ms': _stages(recording.diagnostics[-1][1], 'stages'),
        'clocks_ms': _stages(recording.diagnostics[-1][1], 'latency'),
        'image_stamps': recording.diagnostics[-1][1].get('latency', {}).get('image_stamps'),
        'machine': machine(),
    }


def _per_second(count: int, recording: Recording) -> float | None:
    """A count over the wall time in which images came; None without images."""
    arrivals = recording.image_arrivals.values()
    span_s = (max(arrivals) - min(arrivals)) / 1e9 if arrivals else 0.0
    return round(count / span_s, 3) if span_s > 0 else None


def _frame_accounts(diagnostics: Diagnostics) -> dict[str, Any]:
    """frames_in = frames_processed + all dropped + unexplained, from the node's own books."""
    values = diagnostics['frames']
    dropped = _counts(values, 'dropped/')
    frames_in, processed = int(values['frames_in']), int(values['processed'])
    return {
        'frames_in': frames_in,
        'frames_processed': processed,
        'dropped': dropped,
        'unexplained': frames_in - processed - sum(dropped.values()),
        'synchroniser': _counts(values, 'sync/'),
    }


def _image_accounts(scene: SceneBag, diagnostics: Diagnostics) -> dict[str, Any]:
    """Per camera: images in the bag, received by the node, dropped before a set, and why."""
    accounts = {}
    for camera in scene.cameras:
        values = diagnostics.get(f'camera {camera}', {})
        accounts[camera] = {
            'played': scene.topics[image_topic(camera)].msgcount,
            'received': int(values.get('images', 0)),
            'dropped': _counts(values, 'dropped/'),
            'masked': _counts(values, 'masked/'),
        }
    return accounts


def _counts(values: Mapping[str, str], prefix: str) -> dict[str, int]:
    return {
        key.removeprefix(prefix): int(value)
        for key, value in values.items()
        if key.startswith(prefix) and int(value)
    }


def _stages(diagnostics: Diagnostics, status: str) -> dict[str, dict[str, float]]:
    """stage -> p50, p90, max in ms, from the newest 300 steps; of a status of the diagnostics."""
    stages: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for key, value in diagnostics.get(status, {}).items():
        if key.endswith('_ms'):
            stage, which, _ = key.rsplit('_', 2)
            stages[stage][which] = round(float(value), 2)
    return dict(stages)


def latencies_ms(recording: Recording) -> list[float]:
    """End to end: from the arrival of the image that completes a frame set (its camera_info comes
    with it and has its stamp, the reference stamp) to the arrival of the set's detections, both
    at the recorder.  One value per detections message whose image arrival was seen."""
    return [
        (message.arrival_ns - recording.image_arrivals[message.stamp_ns]) / 1e6
        for message in recording.detections
        if message.stamp_ns in recording.image_arrivals
    ]


def percentiles(samples: Sequence[float]) -> dict[str, float | None]:
    """p50, p90 and max as JSON wants them; None where there are no samples."""
    if not len(samples):
        return {'p50': None, 'p90': None, 'max': None}
    p50, p90 = np.percentile(samples, [50, 90])
    return {
        'p50': round(float(p50), 2),
        'p90': round(float(p90), 2),
        'max': round(float(np.max(samples)), 2),
    }


def rate_hz(arrivals_ns: Sequence[int]) -> float | None:
    """Messages a second of wall time between the first and the last; None below two messages."""
    if len(arrivals_ns) < 2 or arrivals_ns[-1] <= arrivals_ns[0]:
        return None
    return round((len(arrivals_ns) - 1) * 1e9 / (arrivals_ns[-1] - arrivals_ns[0]), 3)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        'cpu': _cpu_name(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
        'system': platform.platform(),
        'python': platform.python_version(),
        'packages': versions,
    }


def _cpu_name() -> str:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as lines:
            for line in lines:
                if line.startswith('model name'):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

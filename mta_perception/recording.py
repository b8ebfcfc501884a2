"""What a node said, read back from a recorded bag; no ROS needed.

Stamps inside messages are in bag time; arrival times are the recorder's wall clock.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mta_perception.contract import BoxCode


class RecordedDetections(NamedTuple):
    """One ~/detections message."""

    stamp_ns: int          # reference stamp, bag time
    arrival_ns: int        # wall clock of the recorder
    boxes: np.ndarray      # (K, 10) contract.BoxCode, base_link at stamp_ns
    class_names: list      # K strings
    scores: np.ndarray     # (K,)
    track_ids: list        # K strings


class RecordedCaption(NamedTuple):
    """One entry of one ~/captions message."""

    stamp_ns: int          # of the frame it describes, bag time
    arrival_ns: int
    track_id: str
    class_name: str
    caption: str


class Recording(NamedTuple):
    """A recorded bag, message by message in order of arrival."""

    detections: list       # RecordedDetections
    captions: list         # RecordedCaption
    image_arrivals: dict   # stamp [ns] -> wall clock [ns] at which the first image so stamped came
    image_stamps: dict     # camera -> sorted list of stamps [ns]
    diagnostics: list      # (arrival_ns, {status name: {key: value}}), strings as they came


def read_recording(path, node='/mta_perception'):
    """Read a bag that `ros.recorder` wrote.  Raises ValueError where it is no such bag."""
    from rosbags.highlevel import AnyReader
    path = Path(path)
    if not (path / 'metadata.yaml').is_file():
        raise ValueError(f'{path} is no recorded bag: metadata.yaml is missing. Expected the '
                         'output_bag directory that `mta demo` writes.')
    recording = Recording([], [], {}, {}, [])
    with AnyReader([path]) as reader:
        for connection, arrival_ns, raw in reader.messages():
            topic = connection.topic
            if topic in (f'{node}/detections', f'{node}/captions', '/diagnostics') \
                    or topic.endswith('/camera_info'):
                _take(recording, topic, arrival_ns, reader.deserialize(raw, connection.msgtype))
    for stamps in recording.image_stamps.values():
        stamps.sort()
    return recording


def _take(recording, topic, arrival_ns, message):
    if topic.endswith('/detections'):
        recording.detections.append(detections_from_message(message, arrival_ns))
    elif topic.endswith('/captions'):
        recording.captions.extend(
            RecordedCaption(stamp_ns(entry.stamp), arrival_ns, entry.detection_id,
                            entry.class_id, entry.caption) for entry in message.captions)
    elif topic.endswith('/camera_info'):
        stamp = stamp_ns(message.header.stamp)
        camera = topic.strip('/').split('/')[-2]
        recording.image_arrivals.setdefault(stamp, arrival_ns)
        recording.image_stamps.setdefault(camera, []).append(stamp)
    else:
        values = {status.name: {'level': int.from_bytes(bytes([status.level]), 'little'),
                                'message': status.message,
                                **{pair.key: pair.value for pair in status.values}}
                  for status in message.status}
        recording.diagnostics.append((arrival_ns, values))


def stamp_ns(stamp):
    """builtin_interfaces/Time -> integer nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec

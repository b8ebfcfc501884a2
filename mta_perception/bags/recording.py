"""What a node said, read back from a recorded bag; no ROS needed.

Stamps inside messages are in bag time; arrival times are the recorder's wall clock.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mta_perception.bags.typestore import time_ns
from mta_perception.contract import BoxCode
from mta_perception.geometry import Array, invert_rigid, transform, transform_boxes

NODE = '/mta_perception'
CAPTION_MAX_AGE_S = 3.0  # an older sentence is no longer about what the object does
Poses = Callable[[int], Array]  # stamp [ns] -> (4, 4) world_from_ego
VELOCITY_WINDOW_S = 1.0  # how much of a track's past its velocity is fitted to


class RecordedDetections(NamedTuple):
    """One ~/detections message."""

    stamp_ns: int  # reference stamp, bag time
    arrival_ns: int  # wall clock of the recorder
    boxes: Array  # (K, 10) contract.BoxCode, base_link at stamp_ns; velocity is NaN:
    #                        Detection3D has no place for it (see with_track_velocities)
    class_names: list[str]  # K
    scores: Array  # (K,)
    track_ids: list[str]  # K


class RecordedCaption(NamedTuple):
    """One entry of one ~/captions message."""

    stamp_ns: int  # of the frame it was made for, bag time
    arrival_ns: int
    track_id: str
    class_name: str
    caption: str
    xy: tuple[float, float]  # of the object when it is true, in the ego frame of then [m]


class Recording(NamedTuple):
    """A recorded bag, message by message in order of arrival."""

    detections: list[RecordedDetections]
    captions: list[RecordedCaption]
    # stamp [ns] -> wall clock [ns] at which the first image so stamped came
    image_arrivals: dict[int, int]
    # (arrival_ns, {component: {key: value}}), strings as they came
    diagnostics: list[tuple[int, dict[str, dict[str, str]]]]


def read_recording(path: str | Path, node: str = NODE) -> Recording:
    """Read a bag that `ros.recorder` wrote.  Raises ValueError where it is no such bag."""
    from rosbags.highlevel import AnyReader, AnyReaderError

    path = Path(path)
    if not (path / 'metadata.yaml').is_file():
        raise ValueError(
            f'{path} is no recorded bag: metadata.yaml is missing. Expected the '
            'output_bag directory that `mta demo` writes.'
        )
    wanted = (f'{node}/detections', f'{node}/captions', '/diagnostics')
    recording = Recording([], [], {}, [])
    try:
        with AnyReader([path]) as reader:
            connections = [
                connection
                for connection in reader.connections
                if connection.topic in wanted or connection.topic.endswith('/camera_info')
            ]
            for connection, arrival_ns, raw in reader.messages(connections):
                message = reader.deserialize(raw, connection.msgtype)
                _take(recording, connection.topic, arrival_ns, message, node.strip('/'))
    except AnyReaderError as error:
        raise ValueError(f'{path} cannot be read as a bag: {error}. Record it again.') from error
    return recording


def _take(recording: Recording, topic: str, arrival_ns: int, message: Any, node: str) -> None:
    if topic.endswith('/detections'):
        recording.detections.append(detections_from_message(message, arrival_ns))
    elif topic.endswith('/captions'):
        recording.captions.extend(
            RecordedCaption(
                time_ns(message.header.stamp),
                arrival_ns,
                entry.detection_id,
                entry.class_id,
                entry.caption,
                (entry.position.x, entry.position.y),
            )
            for entry in message.captions
        )
    elif topic.endswith('/camera_info'):
        recording.image_arrivals.setdefault(time_ns(message.header.stamp), arrival_ns)
    else:
        prefix = f'{node}: '
        values = {
            status.name.removeprefix(prefix): {pair.key: pair.value for pair in status.values}
            for status in message.status
            if status.name.startswith(prefix)
        }
        if values:
            recording.diagnostics.append((arrival_ns, values))


def detections_from_message(message: Any, arrival_ns: int) -> RecordedDetections:
    """RecordedDetections of a vision_msgs/Detection3DArray as rosbags reads it."""
    boxes = np.full((len(message.detections), BoxCode.WIDTH), np.nan)
    for box, detection in zip(boxes, message.detections):
        centre, turn, size = (
            detection.bbox.center.position,
            detection.bbox.center.orientation,
            detection.bbox.size,
        )
        box[BoxCode.CENTER] = centre.x, centre.y, centre.z
        box[BoxCode.SIZE] = size.x, size.y, size.z
        # Sine and cosine of the yaw of a rotation about z, from its half angle.
        box[BoxCode.HEADING] = (
            2 * (turn.w * turn.z + turn.x * turn.y),
            1 - 2 * (turn.y**2 + turn.z**2),
        )
    best = [detection.results[0].hypothesis for detection in message.detections]
    return RecordedDetections(
        time_ns(message.header.stamp),
        arrival_ns,
        boxes,
        [hypothesis.class_id for hypothesis in best],
        np.array([hypothesis.score for hypothesis in best]),
        [detection.id for detection in message.detections],
    )


def with_track_velocities(
    messages: Iterable[RecordedDetections], world_from_ego_at: Poses
) -> list[RecordedDetections]:
    """The messages with velocities: a straight line through each track's last second in the world.

    A Detection3D carries no velocity; this is what a listener can know at that moment.  Tracks
    with one message so far keep NaN.  world_from_ego_at: stamp [ns] -> (4, 4).
    """
    # track id -> [(seconds, world xyz)]
    past: defaultdict[str, list[tuple[float, Array]]] = defaultdict(list)
    done = []
    for message in sorted(messages, key=lambda one: one.stamp_ns):
        world_from_ego = world_from_ego_at(message.stamp_ns)
        places = transform(world_from_ego, message.boxes[:, BoxCode.CENTER])
        boxes, now = message.boxes.copy(), message.stamp_ns / 1e9
        for box, place, track_id in zip(boxes, places, message.track_ids):
            track = past[track_id]
            track.append((now, place))
            track[:] = [entry for entry in track if now - entry[0] <= VELOCITY_WINDOW_S]
            if len(track) > 1:
                seconds = np.array([entry[0] for entry in track]) - now
                slope = np.polyfit(seconds, np.stack([entry[1] for entry in track]), 1)[0]
                box[BoxCode.VELOCITY] = (world_from_ego[:3, :3].T @ slope)[:2]
        done.append(message._replace(boxes=boxes))
    return done


def boxes_moved_to(
    boxes: ArrayLike, stamp_ns: int, to_stamp_ns: int, world_from_ego_at: Poses
) -> Array:
    """(K, 10) boxes of the ego frame at `stamp_ns`, predicted for the ego frame at `to_stamp_ns`.

    Each box goes on at its own velocity, then the ego motion is taken out.
    world_from_ego_at: stamp [ns] -> (4, 4).
    """
    moved = np.array(boxes, dtype=np.float64).reshape(-1, BoxCode.WIDTH)
    seconds = (to_stamp_ns - stamp_ns) / 1e9
    velocity = np.nan_to_num(moved[:, BoxCode.VELOCITY])
    moved[:, :2] += velocity * seconds
    to_from_now = invert_rigid(world_from_ego_at(to_stamp_ns)) @ world_from_ego_at(stamp_ns)
    return transform_boxes(to_from_now, moved)


def newest_captions(captions: Iterable[RecordedCaption], stamp_ns: int) -> dict[str, str]:
    """Track id -> its newest sentence at that stamp, at most CAPTION_MAX_AGE_S old."""
    return {
        caption.track_id: caption.caption
        for caption in captions
        if 0 <= stamp_ns - caption.stamp_ns <= CAPTION_MAX_AGE_S * 1e9
    }

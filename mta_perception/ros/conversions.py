"""Messages to arrays and back.  Nothing here is decoded, remembered or decided.

Incoming messages that cannot be understood raise reasons.Refused with what came and what was
expected; the node counts and names them.
"""

from array import array
import re

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion, Vector3
from mta_msgs.msg import HistoryState, ObjectCaption, ObjectCaptionArray
from nav_msgs.msg import OccupancyGrid
import numpy as np
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from mta_perception.coded_images import compressed_encoding, declared_mosaic
from mta_perception.contract import CLASSES
from mta_perception.frames import CameraImage
from mta_perception.geometry import quaternion_from_rigid, rigid_from_quaternion
from mta_perception.pipeline.raw_images import raw_pixels
from mta_perception.reasons import Code, Refused
from mta_perception.sentences import distance_of

SECOND_NS = 1_000_000_000


def stamp_ns(stamp):
    """builtin_interfaces/Time -> integer nanoseconds."""
    return stamp.sec * SECOND_NS + stamp.nanosec


def time_message(nanoseconds):
    """Integer nanoseconds -> builtin_interfaces/Time."""
    sec, nanosec = divmod(int(nanoseconds), SECOND_NS)
    return Time(sec=sec, nanosec=nanosec)


def header(nanoseconds, frame_id):
    return Header(stamp=time_message(nanoseconds), frame_id=frame_id)


def image_from_compressed(camera, message):
    """sensor_msgs/CompressedImage -> CameraImage with the bytes as they came, not copied."""
    data = np.frombuffer(message.data, np.uint8)
    return CameraImage(
        camera,
        stamp_ns(message.header.stamp),
        data,
        compressed_encoding(data, message.format),
        declared_mosaic(message.format),
    )


def image_from_raw(camera, message):
    """sensor_msgs/Image -> CameraImage whose pixels are a view without the padding of the rows."""
    pixels = raw_pixels(
        message.data,
        message.width,
        message.height,
        message.step,
        message.encoding,
        message.is_bigendian,
    )
    return CameraImage(camera, stamp_ns(message.header.stamp), pixels, message.encoding)


def shows_rectified(topic):
    """Whether an image topic is one of rectified images, by its name: image_rect,
    image_rect_color, left/rectified/image."""
    return re.search(r'(^|[/_])rect(ified)?($|[/_])', topic) is not None


def rigid_from_transform(transform):
    """geometry_msgs/Transform -> (4, 4)."""
    return rigid_from_position(transform.translation, transform.rotation)


def rigid_from_position(xyz, xyzw):
    """geometry_msgs Vector3 or Point [m] and Quaternion -> (4, 4)."""
    translation = np.array([xyz.x, xyz.y, xyz.z])
    if not np.isfinite(translation).all():
        raise Refused(Code.POSE_NOT_FINITE, f'position is {translation.tolist()}')
    try:
        return rigid_from_quaternion((xyzw.x, xyzw.y, xyzw.z, xyzw.w), translation)
    except ValueError as error:
        raise Refused(Code.POSE_NOT_RIGID, str(error)) from error


def detections_message(stamp, frame_id, boxes, class_names, scores, track_ids):
    """Detection3DArray: geometric centre, full length, width, height [m], yaw, one hypothesis.

    boxes: (K, 10) contract.BoxCode in `frame_id` at `stamp` [ns].
    """
    message = Detection3DArray(header=header(stamp, frame_id))
    for row, name, score, track_id in zip(
        np.asarray(boxes, dtype=np.float64).tolist(), class_names, scores, track_ids
    ):
        detection = Detection3D(header=message.header, id=str(track_id))
        x, y, z, length, width, height, sin, cos, _, _ = row
        _set_pose(detection.bbox.center, (x, y, z), np.arctan2(sin, cos))
        size = detection.bbox.size
        size.x, size.y, size.z = length, width, height
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = name
        result.hypothesis.score = float(score)
        result.pose.pose = detection.bbox.center
        detection.results.append(result)
        message.detections.append(detection)
    return message


def fill_answer(response, answer, frame_id, half_extent_m):
    """Fill an Ask response with an answers.Answer; half_extent_m: of the mask's square.

    Each box has the stamp of its own frame: a track has one for each frame of the memory in which
    the object is seen.  Without a span both ends are 0; without a mask the grid has no cells.
    """
    response.success, response.text = answer.success, answer.text
    response.message = '' if answer.why_not is None else str(answer.why_not)
    response.boxes = Detection3DArray(header=header(answer.stamp_ns, frame_id))
    for one in (*answer.boxes, *answer.track):
        response.boxes.detections += detections_message(
            one.stamp_ns, frame_id, one.box[None], [one.label], [one.score], [one.track_id]
        ).detections
    if answer.span_ns is not None:
        response.span_start, response.span_end = map(time_message, answer.span_ns)
    if answer.mask is not None:
        response.bev_mask = mask_message(answer, frame_id, half_extent_m)
    return response


def mask_message(answer, frame_id, half_extent_m):
    """OccupancyGrid of the mask of an answers.Answer: 100 inside, 0 outside; level by gravity."""
    cells = len(answer.mask)
    grid = OccupancyGrid(header=header(answer.stamp_ns, frame_id))
    grid.info.map_load_time = grid.header.stamp
    grid.info.resolution = 2.0 * half_extent_m / cells
    grid.info.width = grid.info.height = cells
    corner = answer.ego_from_level @ (-half_extent_m, -half_extent_m, 0.0, 1.0)
    origin = grid.info.origin
    origin.position = Point(x=float(corner[0]), y=float(corner[1]), z=float(corner[2]))
    q = quaternion_from_rigid(answer.ego_from_level)
    origin.orientation = Quaternion(x=float(q[0]), y=float(q[1]), z=float(q[2]), w=float(q[3]))
    grid.data = array('b', np.where(answer.mask, 100, 0).astype(np.int8).tobytes())
    return grid


def _set_pose(pose, xyz, yaw):
    pose.position.x, pose.position.y, pose.position.z = xyz
    pose.orientation.z, pose.orientation.w = float(np.sin(yaw / 2)), float(np.cos(yaw / 2))


def captions_message(stamp, frame_id, entries, true_ns=None):
    """ObjectCaptionArray of (track_id, class_name, score, caption, caption_score, box (10,)).

    stamp    of the frame whose detections they are [ns]
    true_ns  stamp at which sentences and boxes are true; None: that of the frame
    """
    message = ObjectCaptionArray(header=header(stamp, frame_id))
    true = time_message(stamp if true_ns is None else true_ns)
    for track_id, class_name, score, caption, caption_score, box in entries:
        x, y, z, *_, vx, vy = np.asarray(box, dtype=np.float64).tolist()
        message.captions.append(
            ObjectCaption(
                stamp=true,
                detection_id=str(track_id),
                class_id=class_name,
                score=float(score),
                caption=caption,
                caption_score=float(caption_score),
                position=Point(x=x, y=y, z=z),
                velocity=Vector3(x=vx, y=vy, z=0.0),
            )
        )
    return message


def caption_lines(objects):
    """What is said of overlay.DrawnObjects now, for people: one line each, nearest first."""
    return '\n'.join(
        f'{item.class_name} {item.track_id}, {distance_of(item.box):.1f} m: {item.caption}'
        for item in sorted(objects, key=lambda item: distance_of(item.box))
        if item.caption
    )


def labels_message(stamp, threshold):
    """LabelInfo: the numbers other tools may use for our class names."""
    return LabelInfo(
        header=header(stamp, ''),
        threshold=float(threshold),
        class_map=[
            VisionClass(class_id=index, class_name=name) for index, name in enumerate(CLASSES)
        ],
    )


def history_message(stamp, frame_id, length, age_s, resets, last_reset_ns, reason):
    """HistoryState; age_s None: no history was used; reason: Reason of the last reset or None."""
    return HistoryState(
        header=header(stamp, frame_id),
        length=length,
        age_s=-1.0 if age_s is None else float(age_s),
        resets=resets,
        last_reset=time_message(last_reset_ns or 0),
        last_reset_reason=str(reason or ''),
    )


def jpeg_message(stamp, frame_id, jpeg):
    """CompressedImage of encoded bytes."""
    message = CompressedImage(header=header(stamp, frame_id), format='jpeg')
    message.data.frombytes(memoryview(jpeg).cast('B'))
    return message

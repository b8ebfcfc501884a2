"""What RViz shows: a box, a heading line, a velocity arrow and a line of text for each object.

A marker that is not sent again stays on the screen: `Markers` remembers what it has sent and
deletes by name what is gone.
"""

from geometry_msgs.msg import Point, Vector3
import numpy as np
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from mta_perception.contract import CLASS_COLOURS, BoxCode
from mta_perception.ros.conversions import header

MIN_ARROW_M_S = 0.5  # slower things stand: their arrow would only show noise
ARROW_S = 1.0  # an arrow is as long as the way of one second
TEXT_HEIGHT_M = 0.6
LINE_WIDTH_M = 0.12


class Markers:
    """Makes MarkerArrays that follow one another."""

    def __init__(self):
        self._sent = set()  # (namespace, id) on the screen now

    def message(self, stamp_ns, frame_id, objects):
        """MarkerArray of overlay.DrawnObject with numeric track ids, stale markers deleted."""
        head = header(stamp_ns, frame_id)
        markers = []
        for item in objects:
            markers += _object_markers(head, item)
        sent = {(marker.ns, marker.id) for marker in markers}
        gone = [
            Marker(header=head, ns=namespace, id=number, action=Marker.DELETE)
            for namespace, number in sorted(self._sent - sent)
        ]
        self._sent = sent
        return MarkerArray(markers=gone + markers)

    def forget(self):
        """Delete everything: the MarkerArray for when the node is put to sleep."""
        self._sent = set()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def _object_markers(head, item):
    box = np.asarray(item.box, dtype=np.float64)
    number = int(item.track_id)
    x, y, z = box[BoxCode.CENTER].tolist()
    length, width, height = box[BoxCode.SIZE].tolist()
    yaw = float(np.arctan2(box[6], box[7]))
    colour = _colour(item.class_name, 0.35 + 0.45 * float(item.score))

    cube = Marker(header=head, ns='boxes', id=number, type=Marker.CUBE, color=colour)
    cube.pose.position = Point(x=x, y=y, z=z)
    cube.pose.orientation.z, cube.pose.orientation.w = np.sin(yaw / 2), np.cos(yaw / 2)
    cube.scale = Vector3(x=length, y=width, z=height)

    nose = length / 2 + 0.8
    heading = _line(
        head,
        'heading',
        number,
        _colour(item.class_name, 1.0),
        (x, y, z),
        (x + nose * np.cos(yaw), y + nose * np.sin(yaw), z),
    )
    text = Marker(
        header=head,
        ns='captions',
        id=number,
        type=Marker.TEXT_VIEW_FACING,
        color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
        text=_label(item),
    )
    text.pose.position = Point(x=x, y=y, z=z + height / 2 + TEXT_HEIGHT_M)
    text.scale.z = TEXT_HEIGHT_M
    markers = [cube, heading, text]

    vx, vy = box[BoxCode.VELOCITY].tolist()
    if np.hypot(vx, vy) >= MIN_ARROW_M_S:
        arrow = Marker(
            header=head,
            ns='velocity',
            id=number,
            type=Marker.ARROW,
            color=_colour(item.class_name, 1.0),
            points=[Point(x=x, y=y, z=z), Point(x=x + vx * ARROW_S, y=y + vy * ARROW_S, z=z)],
        )
        arrow.scale = Vector3(x=0.15, y=0.4, z=0.5)  # shaft, head width, head length [m]
        markers.append(arrow)
    return markers


def _line(head, namespace, number, colour, start, end):
    line = Marker(header=head, ns=namespace, id=number, type=Marker.LINE_STRIP, color=colour)
    line.scale.x = LINE_WIDTH_M
    line.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in (start, end)]
    return line


def _label(item):
    name = f'{item.class_name.replace("_", " ")} {item.track_id}'
    return f'{name}\n{item.caption}' if item.caption else name


def _colour(class_name, alpha):
    red, green, blue = (value / 255 for value in CLASS_COLOURS[class_name])
    return ColorRGBA(r=red, g=green, b=blue, a=min(1.0, alpha))

"""What RViz shows: a box, a heading line, a velocity arrow for each object, words for the nearest.

A marker that is not sent again stays on the screen: `Markers` remembers what it has sent and
deletes by name what is gone.  The first message deletes whatever an earlier node left there, and
every marker ends by itself after LIFETIME_S, so that a killed node leaves nothing either.
"""

import textwrap

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
import numpy as np
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from mta_perception.contract import CLASS_COLOURS, BoxCode
from mta_perception.detections import SURE_SCORE
from mta_perception.ros.conversions import header
from mta_perception.sentences import MOVES_M_S, distance_of

ARROW_S = 1.0  # an arrow is as long as the way of one second
TEXT_HEIGHT_M = 0.45  # of a line
LINE_PITCH = 1.15  # from line to line, in heights
WRAP_AT = 26  # characters
LINE_WIDTH_M = 0.12
LIFETIME_S = 2  # above the slowest rate of a CPU: nothing flickers
SILENT = ('barrier', 'traffic_cone')  # stand in long rows: their words would cover each other


class Markers:
    """Makes MarkerArrays that follow one another."""

    def __init__(self):
        self._sent = None  # set of (namespace, id) on the screen now; None: who knows

    def message(self, stamp_ns, frame_id, objects, most_captions=20):
        """MarkerArray of overlay.DrawnObject with numeric track ids, stale markers deleted.

        most_captions: as many objects have words, the nearest of the sure ones first.
        """
        head = header(stamp_ns, frame_id)
        markers = []
        for item in objects:
            markers += _object_markers(head, item)
        markers += [_words(head, item) for item in _telling(objects)[:most_captions]]
        sent = {(marker.ns, marker.id) for marker in markers}
        if self._sent is None:
            gone = [Marker(header=head, action=Marker.DELETEALL)]
        else:
            gone = [
                Marker(header=head, ns=namespace, id=number, action=Marker.DELETE)
                for namespace, number in sorted(self._sent - sent)
            ]
        self._sent = sent
        return _living(gone + markers)

    def words(self, stamp_ns, frame_id, objects, most_captions=20):
        """Only the words again, beside the boxes of the `message` of the same objects before."""
        head = header(stamp_ns, frame_id)
        return _living([_words(head, item) for item in _telling(objects)[:most_captions]])

    def forget(self):
        """Delete everything: the MarkerArray for when the node is put to sleep."""
        self._sent = None
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def _living(markers):
    for marker in markers:
        marker.lifetime = Duration(sec=LIFETIME_S)
    return MarkerArray(markers=markers)


def _telling(objects):
    """Those that may have words, in the order in which they get them."""
    return sorted(
        (item for item in objects if item.caption and item.class_name not in SILENT),
        key=lambda item: (item.score < SURE_SCORE, distance_of(item.box)),
    )


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
    markers = [cube, heading]

    vx, vy = box[BoxCode.VELOCITY].tolist()
    if np.hypot(vx, vy) >= MOVES_M_S:
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


def _words(head, item):
    """'#7 red car about 12 ...' above the box, wrapped; RViz centres the block at its position."""
    lines = textwrap.wrap(f'#{item.track_id} {item.caption}', WRAP_AT)
    text = Marker(
        header=head,
        ns='captions',
        id=int(item.track_id),
        type=Marker.TEXT_VIEW_FACING,
        color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
        text='\n'.join(lines),
    )
    x, y, z = np.asarray(item.box, dtype=np.float64)[BoxCode.CENTER].tolist()
    top = z + float(item.box[BoxCode.SIZE][2]) / 2
    raised = TEXT_HEIGHT_M * (0.5 + LINE_PITCH * len(lines) / 2)
    text.pose.position = Point(x=x, y=y, z=top + raised)
    text.scale.z = TEXT_HEIGHT_M
    return text


def _colour(class_name, alpha):
    red, green, blue = (value / 255 for value in CLASS_COLOURS[class_name])
    return ColorRGBA(r=red, g=green, b=blue, a=min(1.0, alpha))

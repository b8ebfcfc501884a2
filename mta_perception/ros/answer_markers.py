"""What RViz shows of an answer: its box, its mask on the ground, its track, and its words.

Everything ends by itself after LIFETIME_S, and an answer takes what is left of the one before.
"""

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
import numpy as np
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from mta_perception.contract import BoxCode
from mta_perception.geometry import transform
from mta_perception.ros.conversions import header

LIFETIME_S = 8
COLOUR = (1.0, 0.85, 0.1)
MARGIN_M = 0.3  # around the box of the detection itself
WORDS_UP_M, TEXT_HEIGHT_M = 1.2, 0.8
FLAT_M, LINE_M = 0.05, 0.25


def answer_markers(answer, frame_id, half_extent_m):
    """MarkerArray of an answers.Answer."""
    head = header(answer.stamp_ns, frame_id)
    markers = [_box(head, number, one.box) for number, one in enumerate(answer.boxes)]
    if answer.mask is not None:
        markers.append(_mask(head, answer, half_extent_m))
    if answer.path is not None and len(answer.path) > 1:
        markers.append(_path(head, answer.path))
    markers.append(_words(head, answer))
    for marker in markers:
        marker.lifetime = Duration(sec=LIFETIME_S)
    return MarkerArray(markers=[Marker(header=head, action=Marker.DELETEALL), *markers])


def seconds_ago(answer):
    """'4.0 to 1.5 s ago' of the span of an answers.Answer."""
    begin, end = ((answer.stamp_ns - stamp) / 1e9 for stamp in answer.span_ns)
    return f'{begin:.1f} to {max(end, 0.0):.1f} s ago'


def _box(head, number, box):
    box = np.asarray(box, dtype=np.float64)
    yaw = np.arctan2(box[6], box[7])
    marker = Marker(header=head, ns='boxes', id=number, type=Marker.CUBE, color=_colour(0.45))
    marker.pose.position = _point(box[BoxCode.CENTER])
    marker.pose.orientation.z = float(np.sin(yaw / 2))
    marker.pose.orientation.w = float(np.cos(yaw / 2))
    length, width, height = (box[BoxCode.SIZE] + MARGIN_M).tolist()
    marker.scale = Vector3(x=length, y=width, z=height)
    return marker


def _mask(head, answer, half_extent_m):
    cells = len(answer.mask)
    side = 2.0 * half_extent_m / cells
    iy, ix = np.nonzero(answer.mask)
    level = np.stack([(ix + 0.5) * side, (iy + 0.5) * side, np.zeros(len(ix))], axis=1)
    level[:, :2] -= half_extent_m
    marker = Marker(header=head, ns='mask', type=Marker.CUBE_LIST, color=_colour(0.6))
    marker.scale = Vector3(x=side, y=side, z=FLAT_M)
    marker.points = [_point(one) for one in transform(answer.ego_from_level, level)]
    return marker


def _path(head, path):
    marker = Marker(header=head, ns='track', type=Marker.LINE_STRIP, color=_colour(1.0))
    marker.scale.x = LINE_M
    marker.points = [_point(one) for one in path]
    return marker


def _words(head, answer):
    """Above what is shown, or above our own car."""
    lines = [answer.text] if answer.text else []
    if answer.span_ns is not None:
        lines.append(seconds_ago(answer))
    places = [(*one.box[:2], one.box[2] + one.box[5] / 2) for one in answer.boxes]
    if not places and answer.path is not None and len(answer.path):
        places = [tuple(answer.path[-1])]
    x, y, z = places[0] if places else (0.0, 0.0, 2.0)
    marker = Marker(header=head, ns='words', type=Marker.TEXT_VIEW_FACING, color=_colour(1.0))
    marker.text = '\n'.join(lines) or 'here'
    marker.pose.position = _point((x, y, z + WORDS_UP_M))
    marker.scale.z = TEXT_HEIGHT_M
    return marker


def _point(xyz):
    return Point(**dict(zip('xyz', map(float, xyz))))


def _colour(alpha):
    red, green, blue = COLOUR
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)

"""What stood beside the boxes on the screen, and how much of it was true; from a recorded bag.

Reads ~/markers (words, boxes, velocity arrows) and ~/detections (class, track) message by message
and knows nothing of what the node thought of its sentences.  A sentence is wrong where its box at
that moment contradicts it (sentences.contradictions); words that are not wholly our grammar's are
wrong also once the object has moved by more than the tolerance since it was
described, or has another class.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mta_perception.bags.recording import NODE, RecordedCaption, Recording
from mta_perception.bags.typestore import time_ns
from mta_perception.contract import BoxCode
from mta_perception.sentences import (
    KINDS,
    Box,
    claims_of,
    contradictions,
    distance_of,
    short_form,
    tolerance_m,
)

DELETE, DELETE_ALL = 2, 3  # visualization_msgs/Marker.action
WITHIN_M = 30.0  # what must have sentences
SILENT = ('barrier', 'traffic_cone')  # have no words in ~/markers


class Beside(NamedTuple):
    """One box of one ~/markers message, and the words beside it."""

    stamp_ns: int
    track_id: str
    class_name: str
    box: Box  # (10,) ego frame; velocity as its arrow shows it, 0 without one
    text: str  # as people read it, without the track id; '' where there is none


def read_beside(path: str | Path, recording: Recording, node: str = NODE) -> list[Beside]:
    """All that stood on the screen after each ~/markers message of a recorded bag; nothing where
    it has no such topic."""
    from rosbags.highlevel import AnyReader

    classes = {
        (message.stamp_ns, track_id): name
        for message in recording.detections
        for track_id, name in zip(message.track_ids, message.class_names)
    }
    with AnyReader([Path(path)]) as reader:
        wanted = [one for one in reader.connections if one.topic == f'{node}/markers']
        arrays = []
        for connection, _, raw in reader.messages(wanted) if wanted else ():
            message: Any = reader.deserialize(raw, connection.msgtype)
            arrays.append(message.markers)
    return beside_boxes(arrays, classes)


def beside_boxes(
    arrays: Iterable[Iterable[Any]], classes: dict[tuple[int, str], str]
) -> list[Beside]:
    """Of MarkerArrays in turn, what an RViz would show after each.

    classes: (stamp [ns], track id) -> class name, from ~/detections.
    """
    screen: dict[tuple[str, int], Any] = {}
    found: list[Beside] = []
    for markers in arrays:
        for marker in markers:
            if marker.action == DELETE_ALL:
                screen.clear()
            elif marker.action == DELETE:
                screen.pop((marker.ns, marker.id), None)
            else:
                screen[marker.ns, marker.id] = marker
        found.extend(_boxes_on(screen, classes))
    return found


def _boxes_on(
    screen: dict[tuple[str, int], Any], classes: dict[tuple[int, str], str]
) -> Iterator[Beside]:
    for (namespace, number), marker in screen.items():
        if namespace != 'boxes':
            continue
        stamp_ns, track_id = time_ns(marker.header.stamp), str(number)
        name = classes.get((stamp_ns, track_id))
        if name is None:  # the recorder missed that ~/detections
            continue
        box = np.zeros(BoxCode.WIDTH)
        centre, turn = marker.pose.position, marker.pose.orientation
        box[BoxCode.CENTER] = centre.x, centre.y, centre.z
        box[BoxCode.SIZE] = marker.scale.x, marker.scale.y, marker.scale.z
        box[BoxCode.HEADING] = 2 * turn.w * turn.z, 1 - 2 * turn.z**2
        arrow, words = screen.get(('velocity', number)), screen.get(('captions', number))
        if arrow is not None:
            tail, tip = arrow.points[:2]
            box[BoxCode.VELOCITY] = tip.x - tail.x, tip.y - tail.y
        text = ' '.join(words.text.split()) if words is not None else ''
        yield Beside(stamp_ns, track_id, name, box, text.removeprefix(f'#{track_id} '))


def truth_of_sentences(
    beside: Iterable[Beside], captions: Iterable[RecordedCaption]
) -> dict[str, Any]:
    """What summary.json has of the sentences shown (README.md).  Counts are boxes of messages."""
    told: dict[tuple[str, str], list[RecordedCaption]] = {}
    for caption in captions:
        words = ' '.join(caption.caption.split())
        told.setdefault((caption.track_id, words), []).append(caption)
    shown, without, near, near_true = 0, 0, 0, 0
    wrong_by = dict.fromkeys((*KINDS, 'moved', 'never told'), 0)
    wrong, ages_s = 0, []
    for one in beside:
        is_near = distance_of(one.box) <= WITHIN_M and one.class_name not in SILENT
        near += is_near
        if one.text in ('', short_form(one.class_name, one.box)):
            without += 1
            continue
        shown += 1
        source = _newest(told.get((one.track_id, one.text), ()), one.stamp_ns)
        faults = _faults(one, source)
        for fault in faults:
            wrong_by[fault] += 1
        wrong += bool(faults)
        near_true += is_near and not faults
        if source is not None:
            ages_s.append((one.stamp_ns - source.stamp_ns) / 1e9)
    return {
        'sentences_shown': shown,
        'sentences_wrong': wrong,
        'sentences_wrong_by': {kind: count for kind, count in wrong_by.items() if count},
        'objects_without_sentence': without,
        'objects_within_30_m': near,
        'of_these_with_true_sentence': near_true,
        'sentence_age_s': {
            name: round(float(np.percentile(ages_s, level)), 2) if ages_s else None
            for name, level in (('p50', 50), ('p90', 90))
        },
    }


def _newest(said: Iterable[RecordedCaption], stamp_ns: int) -> RecordedCaption | None:
    before = [one for one in said if one.stamp_ns <= stamp_ns]
    return max(before, key=lambda one: one.stamp_ns) if before else None


def _faults(one: Beside, source: RecordedCaption | None) -> list[str]:
    claims = claims_of(one.text)
    faults = contradictions(claims, one.class_name, one.box)
    if faults or claims.complete:
        return faults
    if source is None:
        return ['never told']
    moved = float(np.hypot(one.box[0] - source.xy[0], one.box[1] - source.xy[1]))
    if moved > tolerance_m(distance_of(one.box)):
        faults.append('moved')
    return faults + (['class'] if one.class_name != source.class_name else [])

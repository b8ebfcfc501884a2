"""/diagnostics, once a second: one status per camera, and one each for frames, stages, latency,
odometry, memory, captions, questions, inputs and process.

`message` says in words what is wrong; `values` carries the numbers and, one key per reasons.Code,
every count.
"""

import os
from pathlib import Path
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mta_perception.contract import CAMERAS
from mta_perception.foreign_text import printable
from mta_perception.reasons import UNREADABLE_IMAGE, Code
from mta_perception.ros.perception_workers import MEMORY
from mta_perception.ros.subscriptions import POSES

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RECENT_S = 10.0  # a fault this young still colours the status
MOST_REPEATED = 0.25  # of the images: some drivers send one again now and then
STOPPED_S = 3.0  # nothing for this long: it has stopped


def diagnostics_message(header, node_name, hardware_id, statuses):
    """DiagnosticArray of (component, level, message, {key: value})."""
    return DiagnosticArray(
        header=header,
        status=[
            DiagnosticStatus(
                name=f'{node_name}: {component}',
                hardware_id=hardware_id,
                level=level,
                message=printable(message),
                values=[
                    KeyValue(key=str(key), value=_text(value)) for key, value in values.items()
                ],
            )
            for component, level, message, values in statuses
        ],
    )


def _text(value):
    return f'{value:.3f}' if isinstance(value, float) else printable(str(value))


def _counted(what, counts):
    """{code: count} as 'what/code' -> count."""
    return {f'{what}/{code}': count for code, count in counts.items()}


def sector(camera):
    """'cam_front_left' -> 'front left'."""
    return camera.removeprefix('cam_').replace('_', ' ')


def running_statuses(inputs, perception, questions, wrong_transport):
    """All statuses of an active node.

    questions: QuestionWorker, None where the model answers none.

    wrong_transport: camera -> Reason, where the images come on the other topic.
    """
    return [
        *camera_statuses(inputs, perception, wrong_transport),
        _frames(inputs, perception),
        _stages(perception),
        _latency(perception),
        _odometry(inputs),
        _memory(perception),
        _captions(perception),
        _questions(perception, questions),
        _inputs(inputs),
    ]


def camera_statuses(inputs, perception, wrong_transport):
    """One status for each camera of the contract."""
    seen = inputs.sync.status(time.monotonic_ns())
    return [
        _camera(camera, seen[camera], inputs, perception, wrong_transport.get(camera))
        for camera in CAMERAS
    ]


def _camera(camera, seen, inputs, perception, wrong_transport):
    latest = perception.latest
    blind = latest.blind.get(camera) if latest else None
    masked = dict(perception.masked[camera])
    values = {
        'rate_hz': float(seen.rate_hz),
        'age_s': float(seen.age_s),
        'images': seen.images,
        'dropped': sum(seen.dropped.values()),
        'decode_errors': (
            inputs.unreadable[camera] + sum(masked.get(code, 0) for code in UNREADABLE_IMAGE)
        ),
        'blind_sector': sector(camera) if latest is None or blind or not seen.alive else '',
        'calibration_changes': inputs.rig.changes[camera],
        **_counted('dropped', seen.dropped),
        **_counted('masked', masked),
        **_image_facts(camera, inputs, perception),
    }
    warnings = perception.image_warnings(camera)
    level, message = _camera_state(camera, seen, inputs, wrong_transport, blind, warnings)
    return f'camera {camera}', level, message, values


def _image_facts(camera, inputs, perception):
    rectified, how = inputs.rectified[camera]
    lens = inputs.rig.lens(camera)
    if lens is not None and lens.rectified and not rectified:
        rectified, how = True, 'camera_info has p and no k'
    facts = {'images_are': f'{"rectified" if rectified else "raw"} ({how})'}
    return {**facts, **{f'image_{key}': text for key, text in perception.image_facts(camera)}}


def _camera_state(camera, seen, inputs, wrong_transport, blind, warnings):
    blind_words = f'sector {sector(camera)} is blind'
    missing = inputs.rig.missing.get(camera)
    if wrong_transport:
        return ERROR, f'{wrong_transport.detail}; {blind_words}'
    if not seen.images and camera not in inputs.rig.frames_seen():
        if inputs.unreadable[camera]:
            return ERROR, f'no image could be read; {blind_words}'
        return ERROR, f'{Code.NO_IMAGE_YET}; {blind_words}'
    fault = inputs.frozen.get(camera) or inputs.sync.stamp_fault(camera)
    if fault:
        return ERROR, f'{fault}; {blind_words}'
    if not seen.alive:
        return ERROR, f'dead: no image for {seen.age_s:.1f} s; {blind_words}'
    if missing:
        return ERROR, f'{missing}; {blind_words}'
    if blind:
        return WARN, f'not used in the last frame: {blind}; {blind_words}'
    if camera in inputs.rig.out_of_place:
        return WARN, str(inputs.rig.out_of_place[camera])
    if warnings:
        return WARN, '; '.join(warnings)
    if seen.repeated > MOST_REPEATED:
        return WARN, (
            f'{seen.repeated:.0%} of its images came again and are used once: is there a second '
            'publisher?'
        )
    return OK, f'{seen.rate_hz:.1f} Hz'


def _frames(inputs, perception):
    dropped = perception.dropped.counts()
    values = {
        'frames_in': inputs.frame_sets.total,
        'processed': perception.processed.total,
        'rate_hz': perception.processed.hz(),
        'dropped': sum(dropped.values()),
        **_counted('dropped', dropped),
        'decoded_ahead': perception.decoded_ahead,
        'sync/sets': inputs.sync.sets,
        'sync/incomplete sets': inputs.sync.incomplete_sets,
        'sync/resets': inputs.sync.resets,
        **_counted('sync', inputs.sync.dropped),
    }
    recent = perception.dropped.latest(RECENT_S)
    age_s = perception.processed.age_s()
    if age_s is None or age_s > STOPPED_S:
        since = 'so far' if age_s is None else f'for {age_s:.0f} s'
        why = recent or 'no images come together'
        return 'frames', ERROR, f'no frame processed {since}: {why}', values
    if recent and recent.key is not Code.OVERTAKEN:
        return 'frames', WARN, f'frames were dropped: {recent}', values
    return (
        'frames',
        OK,
        (f'{perception.processed.hz():.1f} Hz of the {inputs.frame_sets.hz():.1f} Hz that come'),
        values,
    )


def _stages(perception):
    values = {}
    for stage, (p50, p90, most) in perception.durations.percentiles().items():
        values.update(
            {
                f'{stage}_p50_ms': float(p50),
                f'{stage}_p90_ms': float(p90),
                f'{stage}_max_ms': float(most),
            }
        )
    total = values.get('total_p50_ms')
    return (
        'stages',
        OK,
        'nothing measured yet' if total is None else f'image to boxes {total:.0f} ms (median)',
        values,
    )


def _latency(perception):
    values = perception.latency.values()
    if 'boxes_p50_ms' not in values:
        return 'latency', OK, 'nothing measured yet', values
    words = f'boxes {values["boxes_p50_ms"]:.0f} ms after the last image came (median)'
    if 'boxes_after_stamp_p50_ms' in values:
        words += f', {values["boxes_after_stamp_p50_ms"]:.0f} ms after its stamp'
    else:
        words += f'; image stamps are {values["image_stamps"]}'
    return 'latency', OK, words, values


def _odometry(inputs):
    ego_motion = inputs.ego_motion
    age_s = inputs.odometry_rate.age_s()
    values = {
        'source': inputs.settings.ego_motion_source,
        'rate_hz': inputs.odometry_rate.hz(),
        'age_s': -1.0 if age_s is None else age_s,
        'poses': inputs.odometry_rate.total,
        'resets': ego_motion.resets,
        **_counted('refused', ego_motion.refused),
        **_counted('reset', ego_motion.reset_counts),
    }
    if ego_motion.last_reset:
        values['last_reset_reason'] = ego_motion.last_reset[1]
    refused = inputs.refused.latest_of(POSES, RECENT_S)
    why = f': {refused}' if refused else ''
    if age_s is None:
        words = f'no pose can be used{why}' if refused else _no_odometry(inputs)
        return 'odometry', ERROR, words, values
    if age_s > STOPPED_S:
        return 'odometry', ERROR, f'no valid pose for {age_s:.1f} s{why}', values
    if refused:
        return 'odometry', WARN, f'refused{why}', values
    return 'odometry', OK, f'{inputs.odometry_rate.hz():.1f} Hz', values


def _no_odometry(inputs):
    parameters = inputs.settings
    if parameters.ego_motion_source == 'odom':
        return 'no valid odometry on the topic odom: without it no frame can be placed'
    frames = ', '.join(inputs.rig.tree.frames()) or 'none'
    return (
        f'no transform from {parameters.base_frame} to {parameters.odom_frame} on /tf; frames '
        f'seen: {frames}'
    )


def _memory(perception):
    latest = perception.latest
    if latest is None:
        return 'memory', OK, 'empty', {'length': 0, 'resets': 0}
    memory = latest.history
    values = {
        'length': memory.length,
        'age_s': memory.age_s if memory.valid else -1.0,
        'resets': memory.resets,
        'last_reset_reason': memory.last_reason or '',
        **{f'reset/{key.code}': count for key, count in perception.resets.counts().items()},
    }
    recent = perception.resets.latest_of(MEMORY, RECENT_S)
    if recent:
        return 'memory', WARN, f'began anew: {recent}', values
    words = f'{memory.length} frames' + ('' if memory.valid else ', none used')
    return 'memory', OK, words, values


def _captions(perception):
    if not perception.says_sentences:
        return (
            'captions',
            OK,
            'no sentences: the model has no captioner, captions is false or max_captions 0',
            {'captions': 0},
        )
    waiting, busy_s, overtaken = perception.caption_backlog()
    values = {
        'backlog': waiting,
        'busy_s': busy_s,
        'overtaken': overtaken,
        'captions': perception.captioned.total,
        'contradictory': perception.contradictory,
        'empty': perception.empty,
        'rate_hz': perception.captioned.hz(),
    }
    for _, (p50, p90, most) in perception.caption_durations.percentiles().items():
        values.update({'p50_ms': float(p50), 'p90_ms': float(p90), 'max_ms': float(most)})
    if busy_s > RECENT_S:
        return 'captions', WARN, f'one pass has taken {busy_s:.0f} s', values
    return 'captions', OK, f'{perception.captioned.hz():.1f} per second', values


def _questions(perception, questions):
    if questions is None:
        return 'questions', OK, 'the model has no task heads: it answers none', {'asked': 0}
    frames, seconds = perception.scene.state()
    busy_s = questions.busy_s()
    values = {
        'asked': questions.asked,
        'answered': questions.answered,
        'busy_s': busy_s,
        'remembered_frames': frames,
        'remembered_s': seconds,
        'remembered_kb': perception.scene.size_bytes() / 1e3,
        **_counted('refused', questions.refused.counts()),
    }
    for _, (p50, p90, most) in questions.durations.percentiles().items():
        values.update({'p50_ms': float(p50), 'p90_ms': float(p90), 'max_ms': float(most)})
    if busy_s > RECENT_S:
        return 'questions', WARN, f'one question has taken {busy_s:.0f} s', values
    return 'questions', OK, f'{questions.answered} of {questions.asked} answered', values


def _inputs(inputs):
    values = dict(inputs.refused.counts())
    recent = inputs.refused.latest(RECENT_S)
    if recent:
        return 'inputs', WARN, str(recent), values
    return 'inputs', OK, 'every message was understood', values


def twin_words(twins):
    """What other nodes of the same name mean."""
    return (
        f'{twins} other node{"s have" if twins > 1 else " has"} the name of this one: both '
        'publish on its topics and answer its services. End one, or rename it (-r __node:=NAME)'
    )


def process_status(errors, began_s, twins=0):
    """The process itself; errors: tally.Tally of unexpected exceptions; twins: nodes of its
    name."""
    counts = errors.counts()
    values = {
        'rss_mb': _resident_mb(),
        'cpu_s': time.process_time(),
        'uptime_s': time.monotonic() - began_s,
        'unexpected_errors': sum(counts.values()),
        **counts,
    }
    recent = errors.latest(RECENT_S)
    if recent:
        return 'process', ERROR, f'unexpected error in {recent}', values
    if twins:
        return 'process', ERROR, twin_words(twins), values
    if counts:
        return 'process', WARN, f'{sum(counts.values())} unexpected errors since the start', values
    return 'process', OK, f'{values["rss_mb"]:.0f} MB', values


def _resident_mb():
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20

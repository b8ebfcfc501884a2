"""/diagnostics, once a second: one status a camera, and one each for frames, stages, odometry,
memory, captions, inputs and process.

`message` says in words what is wrong; `values` carries the numbers and, one key a reason, every
count.
"""

import os
from pathlib import Path
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mta_perception.contract import CAMERAS

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RECENT_S = 10.0  # a fault this young still colours the status
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
                message=message,
                values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
            )
            for component, level, message, values in statuses
        ],
    )


def _text(value):
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def sector(camera):
    """'cam_front_left' -> 'front left'."""
    return camera.removeprefix('cam_').replace('_', ' ')


def running_statuses(intake, perception, wrong_transport):
    """All statuses of an active node.

    wrong_transport: camera -> words, where the images come on the other topic.
    """
    return [
        *camera_statuses(intake, perception, wrong_transport),
        _frames(intake, perception),
        _stages(perception),
        _odometry(intake),
        _memory(perception),
        _captions(perception),
        _inputs(intake),
    ]


def camera_statuses(intake, perception, wrong_transport):
    """One status for each camera of the contract."""
    seen = intake.sync.status(time.monotonic_ns())
    return [
        _camera(camera, seen[camera], intake, perception, wrong_transport.get(camera))
        for camera in CAMERAS
    ]


def _camera(camera, seen, intake, perception, wrong_transport):
    latest = perception.latest
    blind = latest.blind.get(camera) if latest else 'no frame processed yet'
    masked = dict(perception.masked[camera])
    values = {
        'rate_hz': float(seen.rate_hz),
        'age_s': float(seen.age_s),
        'images': seen.images,
        'dropped': sum(seen.dropped.values()),
        'decode_errors': (
            intake.undecodable[camera]
            + sum(count for reason, count in masked.items() if _is_decode_error(reason))
        ),
        'blind_sector': sector(camera) if blind or not seen.alive else '',
        'calibration_changes': intake.rig.changes[camera],
        **{f'dropped/{reason}': count for reason, count in seen.dropped.items()},
        **{f'masked/{reason}': count for reason, count in masked.items()},
    }
    level, message = _camera_state(camera, seen, intake, wrong_transport, blind)
    return f'camera {camera}', level, message, values


def _camera_state(camera, seen, intake, wrong_transport, blind):
    blind_words = f'sector {sector(camera)} is blind'
    missing = intake.rig.missing.get(camera)
    if wrong_transport:
        return ERROR, f'{wrong_transport}; {blind_words}'
    if not seen.images and camera not in intake.rig.frames_seen():
        if intake.undecodable[camera]:
            return ERROR, f'no image could be read; {blind_words}'
        return ERROR, f'no image yet; {blind_words}'
    if not seen.alive:
        return ERROR, f'dead: no image for {seen.age_s:.1f} s; {blind_words}'
    if missing:
        return ERROR, f'{missing}; {blind_words}'
    if blind and blind != 'no frame processed yet':
        return WARN, f'not used in the last frame: {blind}; {blind_words}'
    if camera in intake.distorted:
        return WARN, (
            'camera_info has a distortion, which is not taken out: boxes will be off '
            'near the edges; publish rectified images'
        )
    return OK, f'{seen.rate_hz:.1f} Hz'


def _is_decode_error(reason):
    """Reasons that images.ImageError gives begin with what is wrong with the bytes."""
    return reason.startswith(('corrupt', 'truncated', 'image is'))


def _frames(intake, perception):
    dropped = perception.dropped.counts()
    values = {
        'frames_in': intake.frame_sets.total,
        'processed': perception.processed.total,
        'rate_hz': perception.processed.hz(),
        'dropped': sum(dropped.values()),
        **{f'dropped/{reason}': count for reason, count in dropped.items()},
        **{f'sync/{reason}': count for reason, count in intake.sync.counts.items()},
    }
    recent = perception.dropped.latest(RECENT_S)
    age_s = perception.processed.age_s()
    if age_s is None or age_s > STOPPED_S:
        since = 'so far' if age_s is None else f'for {age_s:.0f} s'
        reason = recent[1] if recent else 'no images come together'
        return 'frames', ERROR, f'no frame processed {since}: {reason}', values
    if recent and not recent[0].startswith('overtaken'):
        return 'frames', WARN, f'frames were dropped: {recent[1]}', values
    return (
        'frames',
        OK,
        (f'{perception.processed.hz():.1f} Hz of the {intake.frame_sets.hz():.1f} Hz that come'),
        values,
    )


def _stages(perception):
    values = {}
    for stage, (p50, p90, most) in perception.durations.summary().items():
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


def _odometry(intake):
    ego_motion = intake.ego_motion
    age_s = intake.odometry_rate.age_s()
    values = {
        'source': intake.parameters.ego_motion_source,
        'rate_hz': intake.odometry_rate.hz(),
        'age_s': -1.0 if age_s is None else age_s,
        'poses': intake.odometry_rate.total,
        'resets': ego_motion.resets,
        **{
            f'refused/{reason}': count
            for reason, count in ego_motion.counts.items()
            if reason != 'poses'
        },
    }
    if ego_motion.last_reset:
        values['last_reset_reason'] = ego_motion.last_reset[1]
    if age_s is None:
        return 'odometry', ERROR, _no_odometry(intake), values
    if age_s > STOPPED_S:
        return 'odometry', ERROR, f'no valid pose for {age_s:.1f} s', values
    recent = intake.refused.latest(RECENT_S)
    if recent and 'refused' in recent[0]:
        return 'odometry', WARN, recent[0], values
    return 'odometry', OK, f'{intake.odometry_rate.hz():.1f} Hz', values


def _no_odometry(intake):
    parameters = intake.parameters
    if parameters.ego_motion_source == 'odom':
        return 'no valid odometry on the topic odom: without it no frame can be placed'
    frames = ', '.join(intake.rig.tree.frames()) or 'none'
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
        'last_reset_reason': memory.last_reason,
        **{f'reset/{reason}': count for reason, count in perception.reset_reasons.items()},
    }
    words = f'{memory.length} frames' + ('' if memory.valid else ', none used')
    return 'memory', OK, words, values


def _captions(perception):
    waiting, busy_s, overtaken = perception.caption_backlog()
    values = {
        'backlog': waiting,
        'busy_s': busy_s,
        'overtaken': overtaken,
        'captions': perception.captioned.total,
        'rate_hz': perception.captioned.hz(),
    }
    for _, (p50, p90, most) in perception.caption_durations.summary().items():
        values.update({'p50_ms': float(p50), 'p90_ms': float(p90), 'max_ms': float(most)})
    if busy_s > RECENT_S:
        return 'captions', WARN, f'one pass has taken {busy_s:.0f} s', values
    return 'captions', OK, f'{perception.captioned.hz():.1f} a second', values


def _inputs(intake):
    values = dict(intake.refused.counts())
    recent = intake.refused.latest(RECENT_S)
    if recent:
        return 'inputs', WARN, f'{recent[0]}: {recent[1]}', values
    return 'inputs', OK, 'every message was understood', values


def process_status(errors, began_s):
    """The process itself; errors: tally.Tally of unexpected exceptions."""
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
        last_line = recent[1].strip().splitlines()[-1]
        return 'process', ERROR, f'unexpected error in {recent[0]}: {last_line}', values
    if counts:
        return 'process', WARN, f'{sum(counts.values())} unexpected errors since the start', values
    return 'process', OK, f'{values["rss_mb"]:.0f} MB', values


def _resident_mb():
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20

"""What the node promises when something fails, and a run that measures whether it keeps it.

`python test/contract.py` (`make contract`) plays every fault of params/faults to a real node, over
DDS, one after the other in one drive, and writes the table of docs/safety.md.
"""

import os
from pathlib import Path
import re
import sys
import tempfile
import textwrap
import threading
from typing import NamedTuple

from contract_drive import write_drive
import numpy as np
from ros_car import SECOND_NS, START_NS, start_node
import yaml

from mta_perception.bags.faults import faults_file
from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.plain_yaml import read_yaml

HZ = 5.0  # of the images
FROM_S, TO_S = 2.0, 5.0  # of every shipped fault
NOTHING = 'nothing'
MOST_WORDS = 140  # of a status, in the table
TABLE = '<!-- made by `make contract` -->'
DOCS = Path(__file__).resolve().parents[1] / 'docs' / 'safety.md'


class Promise(NamedTuple):
    """What happens when a fault comes."""

    fault: str  # of params/faults
    component: str  # of /diagnostics; '' where nothing has to be said
    words: str  # in its message, as a regular expression
    blind: tuple | None = ()  # not seen while it lasts; None: now and then
    publishes: bool = True  # detections while it lasts
    notices_s: float = 1.0
    back_s: float = 1.5


class Seen(NamedTuple):
    """What happened when it came; seconds since it began, or since it ended."""

    noticed_s: float | None  # /diagnostics said it
    words: str  # what it said
    share: float  # detections while it lasted, from `noticed` on, as part of the healthy rate
    blind: tuple  # sectors that were blind at its end
    back_s: float | None  # detections, with all six cameras
    healthy_hz: float  # detections before it came


class Said(NamedTuple):
    """One /diagnostics."""

    at_s: float
    statuses: dict  # component -> (level, message)
    blind: tuple


class Witness:
    """Ears in one ROS domain; everything has the bag time at which it came."""

    def __init__(self, domain):
        os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
        from diagnostic_msgs.msg import DiagnosticArray
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rosgraph_msgs.msg import Clock
        from vision_msgs.msg import Detection3DArray

        self.now_s = None  # since the begin of the bag
        self.said, self.detected = [], []
        self.latencies = []  # from stamp to detections [s], by /clock
        self._unexpected = 0
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node('witness', context=self._context)
        listen = self._node.create_subscription
        listen(Clock, '/clock', self._hear_clock, 10)
        listen(DiagnosticArray, '/diagnostics', self._hear_diagnostics, 50)
        listen(Detection3DArray, '/mta_perception/detections', self._hear_detections, 50)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self):
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    def unexpected_errors(self):
        """How many the node has told of."""
        return self._unexpected

    def _hear_clock(self, message):
        self.now_s = _since_begin(message.clock)

    def _hear_detections(self, message):
        if self.now_s is not None:
            self.detected.append(self.now_s)
            self.latencies.append(self.now_s - _since_begin(message.header.stamp))

    def _hear_diagnostics(self, message):
        if self.now_s is None:
            return
        statuses, blind = {}, []
        for status in message.status:
            for pair in status.values:
                if pair.key == 'unexpected_errors':
                    self._unexpected = int(pair.value)
            statuses[status.name.partition(': ')[2]] = (status.level[0], status.message)
            blind += [
                one.value for one in status.values if one.key == 'blind_sector' and one.value
            ]
        self.said.append(Said(self.now_s, statuses, tuple(sorted(blind))))


def _since_begin(stamp):
    return stamp.sec - START_NS // SECOND_NS + stamp.nanosec / SECOND_NS


def run_contract(folder, promises, window_s, lead_s=FROM_S):
    """Play the faults of all promises, a window each; returns [Seen].

    window_s  seconds of a fault and of the health before and behind it
    lead_s    of these, before it
    """
    folder = Path(folder)
    bag = write_drive(folder / 'drive', window_s * len(promises) + FROM_S, HZ)
    faults = [
        {
            **fault,
            **{key: fault[key] + number * window_s + lead_s - FROM_S for key in ('from', 'to')},
        }
        for number, promise in enumerate(promises)
        for fault in read_yaml(faults_file(promise.fault))['faults']
    ]
    (folder / 'faults.yaml').write_text(yaml.safe_dump({'faults': faults}), encoding='utf-8')
    domain = free_domain()
    play = [sys.executable, '-m', 'mta_perception.commands.cli', 'play', bag]
    witness = Witness(domain)
    try:
        with start_node(folder, domain, {'diagnostics_rate': 10.0}):
            with Child(
                'player',
                [*play, '--faults', folder / 'faults.yaml'],
                folder / 'player.log',
                ros_environment(domain),
            ) as player:
                player.wait_for('played ', window_s * len(promises) + 60.0)
    finally:
        witness.close()
    return [
        seen(promise, witness, number * window_s, window_s, lead_s)
        for number, promise in enumerate(promises)
    ]


def seen(promise, witness, begin_s, window_s, lead_s):
    """What the witness heard of one fault; its window in bag time."""
    fault_s, end_s = begin_s + lead_s, begin_s + window_s
    over_s = fault_s + TO_S - FROM_S
    said = [one for one in witness.said if fault_s <= one.at_s < end_s]
    noticed, words = None, ''
    for one in said if promise.component else ():
        words = told(promise, one)
        if words:
            noticed = one.at_s
            break
    before = [
        late_s
        for at_s, late_s in zip(witness.detected, witness.latencies)
        if begin_s + 0.2 <= at_s < fault_s
    ]
    # What was under way when it was noticed still comes, on a busy machine for a while.
    under_way_s = min(max(float(np.median(before)), 0.0), 1.0) if before else 0.0
    since = fault_s if noticed is None else min(noticed + under_way_s, over_s - 0.5)
    count = sum(since <= at_s < over_s for at_s in witness.detected)
    healthy = len(before) / (lead_s - 0.2)
    blind = next((one.blind for one in reversed(said) if one.at_s < over_s), ())
    return Seen(
        None if noticed is None else noticed - fault_s,
        words,
        count / (over_s - since) / max(healthy, 0.1),
        blind,
        _back(witness, said, over_s),
        healthy,
    )


def patience(found):
    """How much longer than promised all may take, 1 or more, by [Seen].

    What is promised is promised of a machine that keeps up with the cameras.  One that is too
    slow, or busy, detects less often when all is well, and is later by as much.
    """
    return max(1.0, 0.8 * HZ / max(float(np.median([one.healthy_hz for one in found])), 0.2))


def told(promise, said):
    """What /diagnostics says of a promise's fault, '' where it does not."""
    for component, (level, message) in said.statuses.items():
        if level and re.search(promise.component, component) and re.search(promise.words, message):
            return f'{component}: {message}'
    return ''


def _back(witness, said, over_s):
    """Seconds from a fault's end to detections behind which no sector is blind."""
    for at_s in witness.detected:
        if at_s < over_s:
            continue
        after = next((one for one in said if one.at_s > at_s), None)
        if after is not None and not after.blind:
            return at_s - over_s
    return None


def broken(promise, found, longer=1.0):
    """How a promise was broken, in words; '' where it was kept.

    longer: `patience`; where it is above 2, how many detections come within the three seconds of a
    fault, and when the first one after it, is not judged.
    """
    complaints, notices_s, back_s = [], longer * promise.notices_s, longer * promise.back_s
    if promise.component and (found.noticed_s is None or found.noticed_s > notices_s):
        complaints.append(f'said after {found.noticed_s} s, promised {notices_s} s')
    if longer > 2.0:
        return '; '.join(complaints)
    if promise.publishes and found.share < 0.4:
        complaints.append(f'detections at {found.share:.0%} of the healthy rate')
    if not promise.publishes and found.share > 0.34:
        complaints.append(f'detections at {found.share:.0%} of the healthy rate, promised none')
    if promise.blind is not None and set(found.blind) != set(promise.blind) and promise.publishes:
        complaints.append(f'blind are {found.blind}, promised {promise.blind}')
    if found.back_s is None or found.back_s > back_s:
        complaints.append(f'back after {found.back_s} s, promised {back_s} s')
    return '; '.join(complaints)


def table(promises, found):
    """Lines of the table in docs/safety.md."""
    lines = [
        '| fault | while it lasts | `/diagnostics` says | within | back after |',
        '|---|---|---|---|---|',
    ]
    for promise, one in zip(promises, found):
        about = read_yaml(faults_file(promise.fault))['about']
        boxes = f'boxes, {min(one.share, 1.0):.0%} of the rate' if promise.publishes else NOTHING
        blind = f'; blind: {", ".join(one.blind)}' if one.blind and promise.publishes else ''
        words = textwrap.shorten(one.words, MOST_WORDS, placeholder=' …')
        lines.append(
            f'| `{promise.fault}`: {about} | {boxes}{blind} | {words} | '
            f'{_frames(one.noticed_s)} | {_frames(one.back_s)} |'
        )
    return lines


def _frames(seconds):
    return '' if seconds is None else f'{seconds:.1f} s ({round(seconds * HZ)} frames)'


PROMISES = [
    Promise('one_camera_dead', 'camera cam_front$', 'dead|no image', ('front',)),
    Promise('odometry_missing', 'frames', 'odometry too old', publishes=False),
    Promise('images_cut', 'camera cam_front$', 'truncated|corrupt', ('front',)),
    Promise('clock_back', 'memory', 'clock jumped back'),
    Promise('camera_frozen', 'camera cam_front$', 'frozen', ('front',)),
    Promise('odometry_turns', 'odometry', 'jump'),
    Promise('all_cameras_dead', 'camera', 'dead', None, publishes=False),
    Promise('calibration_nan', 'inputs', 'impossible calibration'),
    Promise('clocks_mixed', 'frames', 'odometry too old', publishes=False),
    Promise('images_resized', 'camera cam_front$', '320x180'),
    Promise('odometry_nan', 'odometry', 'not finite', publishes=False),
    Promise('two_cameras_dead', 'camera', 'dead', ('back left', 'front left')),
    Promise('images_flood', 'camera cam_front$', 'came again'),
    Promise('images_late', 'camera cam_front$', 'late|no image|slower', ('front',)),
    Promise('three_cameras_dead', 'frames', 'too few', publishes=False),
    Promise('images_jitter', '', ''),
    Promise('odometry_jumps_once', 'odometry', 'jump'),
    Promise('images_lost', 'camera', 'not used', None, notices_s=2.0),
    Promise('odometry_jumps', 'odometry', 'jump'),
    Promise('images_twice', 'camera', 'came again', notices_s=2.5),
    Promise('images_corrupt', 'camera', 'corrupt|truncated', None),
    Promise('odometry_turns_once', 'odometry', 'jump'),
    Promise('images_empty', 'camera cam_front$', 'image', ('front',)),
    Promise('odometry_late', '', ''),
    Promise('images_oversized', '', '', None),
    Promise('odometry_10_hz', '', ''),
    Promise('calibration_zero', 'inputs', 'impossible calibration'),
    Promise('odometry_frame', 'odometry', 'unknown frame', publishes=False),
    Promise('images_of_another_kind', 'camera cam_front$', 'no image', ('front',)),
    Promise('images_frame_changed', 'camera cam_front$', 'no transform', ('front',)),
    Promise('odometry_an_hour_ahead', 'odometry', 'clock jumped forward'),
    Promise('calibration_changed', 'inputs', 'calibration changed'),
    Promise('stamps_stand', 'camera', 'stand', None, publishes=False),
    Promise('camera_clock_off', 'camera cam_front$', 'clock', ('front',)),
    Promise('odometry_some_late', 'odometry', 'stamp out of order'),
    Promise('clock_forward', 'memory', 'clock jumped|gap'),
]


def main():
    """Run all, print what is broken, write the table."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_contract(folder, PROMISES, 11.0)
    for promise, one in zip(PROMISES, found):
        complaint = broken(promise, one)
        print(f'{promise.fault}: {one}' + (f'\n  BROKEN: {complaint}' if complaint else ''))
    lines = table(PROMISES, found)
    before, mark, _ = DOCS.read_text(encoding='utf-8').partition(TABLE)
    if mark:
        DOCS.write_text('\n'.join([before + mark, *lines, '']), encoding='utf-8')
    else:
        print('\n'.join(lines))


if __name__ == '__main__':
    main()

"""`mta play`: a bag replayed over DDS in real time, serialised bytes as they stand in it.

Latched topics go out first, then the player waits until somebody listens to the images, then every
message goes out when it is due, and /clock in bag time a hundred times a second.
"""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
import select
import signal
import sys
import time
from typing import NamedTuple

from mta_perception.bags.faults import faults_file, faulty, read_faults
from mta_perception.bags.scene_bag import BagError, SceneBag
from mta_perception.ros import environment
from mta_perception.ros.message_classes import message_class

CLOCK_PERIOD_NS = 10_000_000  # bag time
LATE_NS = 20_000_000  # wall time behind which a message counts as late
AHEAD = 64  # messages read ahead of time, where there is time
SETTLE_S = 0.5  # no new subscriber for so long = all are there
MOST_LATCHED = 1000  # latched messages of a topic that a late subscriber gets
ACKNOWLEDGE_S = 2.0  # patience with slow reliable readers at the end


class Played(NamedTuple):
    """What a replay did."""

    messages: int
    late: int  # more than LATE_NS after they were due
    latest_ms: float  # largest delay
    seconds: float  # of wall time, without the waiting for subscribers
    finished: bool  # False: stopped by a signal


class Start(NamedTuple):
    """What a replay waits for before its first message."""

    wait_s: float  # at most, for subscribers
    nodes: tuple[str, ...]
    delay_s: float
    on_enter: bool


def play_bag(
    bag: str | Path,
    *,
    rate: float = 1.0,
    loop: bool = False,
    start_s: float = 0.0,
    topics: Iterable[str] | None = None,
    wait_s: float = 30.0,
    clock: bool = True,
    on_enter: bool = False,
    delay_s: float = 0.0,
    wait_for: Iterable[str] = (),
    faults: str | Path | None = None,
) -> Played:
    """Replay a bag until its end (or SIGINT, SIGTERM); returns Played.

    rate     speed, 1 = real time
    loop     begin again at the end; bag time jumps back then
    start_s  seconds of the bag to skip; latched messages from before are sent all the same
    topics   only these, None = all
    wait_s   seconds to wait for subscribers of the images; 0 = do not
    clock    publish /clock
    delay_s  seconds to wait before the first message, when all that is waited for is there
    wait_for nodes that must have subscribed before it begins, for at most wait_s: a recorder, say
    faults   faults to put into the messages: a file, or the name of a shipped one (bags/faults.py)
    on_enter begin when a line comes on standard input (or its end): Enter, or a program's word
    A topic of a type that is not installed here is left out, with a word.
    Raises BagError for what is wrong with the bag or does not fit to it, RuntimeError where no
    topic can be played.
    """
    scene = SceneBag(bag)
    chosen = _chosen_topics(scene, topics, clock)
    begin_ns = scene.start_ns + int(start_s * 1e9)
    if begin_ns >= scene.end_ns and start_s > 0:
        raise BagError(
            f'{scene.path} lasts {(scene.end_ns - scene.start_ns) / 1e9:.1f} s; '
            f'--start {start_s} is beyond its end.'
        )
    if rate <= 0:
        raise ValueError(f'rate {rate} is not positive; 1 plays in real time.')
    environment.prepare()
    classes = _classes(scene, chosen, topics)
    planned = read_faults(faults_file(faults)) if faults is not None else ([], 0)
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    stop = _StopOnSignal()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('mta_player')
    try:
        player = Player(node, scene, classes, clock, stop, planned)
        start = Start(wait_s, tuple(wait_for), delay_s, on_enter)
        return _run(player, scene, begin_ns, rate, loop, start)
    finally:
        stop.restore()
        node.destroy_node()
        rclpy.shutdown()


def _chosen_topics(scene, topics, clock):
    if topics:
        scene.require(*topics)
    # A recorded clock would run against ours.
    return [
        topic
        for topic in sorted(scene.topics)
        if (not topics or topic in topics) and not (clock and topic == '/clock')
    ]


def _classes(scene, chosen, wanted):
    """topic -> rclpy message class of all that can be played.

    wanted  topics asked for by name: what is wrong with one of them is an error
    """
    classes = {}
    for topic in chosen:
        try:
            classes[topic] = message_class(scene.topics[topic].msgtype)
        except RuntimeError as error:
            if wanted:
                raise
            _say(f'{topic} is left out: {error}')
    if not classes:
        raise RuntimeError(f'{scene.path}: none of its topics can be played here.')
    return classes


def _run(player, scene, begin_ns, rate, loop, start):
    seconds = (scene.end_ns - begin_ns) / 1e9
    _say(
        f'{scene.path.name}: {seconds:.1f} s, {len(player.publishers)} topics, rate {rate:g}'
        f'{", in a loop" if loop else ""}'
    )
    player.send_latched(begin_ns)
    if start.wait_s:
        player.wait_for_subscribers(start.wait_s)
        player.wait_for_nodes(start.nodes, start.wait_s)
    if start.on_enter:
        player.wait_for_enter()
    player.wait(start.delay_s)
    total = Played(0, 0, 0.0, 0.0, True)
    while True:
        played = player.play(begin_ns, rate)
        total = Played(
            total.messages + played.messages,
            total.late + played.late,
            max(total.latest_ms, played.latest_ms),
            total.seconds + played.seconds,
            played.finished,
        )
        if not (loop and played.finished):
            break
        _say(f'{total.messages} messages so far, from the beginning again')
    player.finish()
    _say(
        f'{"played" if total.finished else "stopped after"} {total.messages} messages in '
        f'{total.seconds:.2f} s, {total.late} late by over {LATE_NS // 1_000_000} ms '
        f'(at most {total.latest_ms:.0f} ms)'
    )
    return total


def _say(text):
    print(text, flush=True)


class _StopOnSignal:
    """True once SIGINT or SIGTERM has come."""

    def __init__(self):
        self._came = False
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _note(self, number, frame):
        self._came = True

    def __bool__(self):
        return self._came

    def restore(self):
        """Put the handlers back that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Player:
    """Publishers of a bag's topics, as the bag offers them, and the pacing."""

    def __init__(self, node, scene, classes, clock, stop=False, planned=([], 0)):
        """classes: topic -> rclpy message class.  stop: true once the replay is to end.  planned:
        faults and their seed."""
        from rosgraph_msgs.msg import Clock

        self._scene, self._stop, self._planned = scene, stop, planned
        self._node = node
        profiles = {
            topic: publisher_qos(scene.offered_qos(topic), scene.topics[topic].msgcount)
            for topic in classes
        }
        self.publishers = {
            topic: node.create_publisher(cls, topic, profiles[topic])
            for topic, cls in classes.items()
        }
        self._latched = [topic for topic, profile in profiles.items() if _is_latched(profile)]
        self._images = [
            topic
            for topic in classes
            if scene.topics[topic].msgtype
            in ('sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image')
        ]
        self._clock = node.create_publisher(Clock, '/clock', 10) if clock else None
        self._clock_message = Clock()

    def send_latched(self, begin_ns):
        """Latched messages from up to `begin_ns`: what holds when the replay begins."""
        if self._latched:
            for topic, _, _, data in self._scene.raw(self._latched, stop_ns=begin_ns + 1):
                self.publishers[topic].publish(bytes(data))

    def wait_for_subscribers(self, patience_s):
        """Wait until images (or whatever is played) have subscribers and no topic gets more."""
        topics = self._images or list(self.publishers)
        deadline = time.monotonic() + patience_s
        counts, since, told = None, time.monotonic(), False
        while not self._stop and time.monotonic() < deadline:
            # Of all topics: a recorder may want others than those that we wait for.
            found = {name: one.get_subscription_count() for name, one in self.publishers.items()}
            if found != counts:
                counts, since = found, time.monotonic()
            now = [found[topic] for topic in topics]
            if any(now) and time.monotonic() - since > SETTLE_S:
                _say(
                    f'{sum(count > 0 for count in now)} of {len(topics)} '
                    f'{"image topics" if self._images else "topics"} have subscribers'
                )
                return
            if not told and not any(now) and time.monotonic() - since > SETTLE_S:
                _say(
                    f'waiting up to {patience_s:.0f} s for subscribers of {topics[0]} and the like'
                )
                told = True
            time.sleep(0.05)
        if not self._stop:
            _say(
                f'nobody listens to {topics[0]} and the like after {patience_s:.0f} s; '
                'playing all the same'
            )

    def wait_for_nodes(self, names, patience_s):
        """Wait until each node of `names` (with or without namespace) listens to one of ours."""
        deadline, missing = time.monotonic() + patience_s, set(names)
        while missing and not self._stop and time.monotonic() < deadline:
            heard = {
                name
                for topic in self.publishers
                for info in self._node.get_subscriptions_info_by_topic(topic)
                for name in (
                    info.node_name,
                    f'{info.node_namespace.rstrip("/")}/{info.node_name}',
                )
            }
            missing -= heard
            time.sleep(0.1)
        if missing and not self._stop:
            _say(
                f'{", ".join(sorted(missing))} did not subscribe within {patience_s:.0f} s; '
                'playing all the same'
            )

    def wait(self, seconds):
        """Let time pass, or the signal to stop come."""
        end = time.monotonic() + seconds
        while not self._stop and time.monotonic() < end:
            time.sleep(min(0.05, max(0.0, end - time.monotonic())))

    def wait_for_enter(self):
        """Wait until standard input has a line, or ends."""
        _say('waiting for Enter')
        while not self._stop and not select.select([sys.stdin], [], [], 0.1)[0]:
            pass

    def _messages(self, begin_ns):
        """(topic, time [ns], serialised) of all that is to be sent, in the order of time."""
        plain = (
            (topic, stamp_ns, data)
            for topic, _, stamp_ns, data in self._scene.raw(
                list(self.publishers), start_ns=begin_ns
            )
        )
        faults, seed = self._planned
        if not faults:
            return plain
        whole = ((topic, stamp_ns, bytes(data)) for topic, stamp_ns, data in plain)
        types = {topic: self._scene.topics[topic].msgtype for topic in self.publishers}
        return faulty(whole, faults, self._scene.start_ns, seed, types)

    def play(self, begin_ns, rate):
        """All messages from `begin_ns` on, each when it is due; returns Played."""
        messages = self._messages(begin_ns)
        waiting, count, late, latest_ns = deque(), 0, 0, 0
        began = time.monotonic_ns()
        next_clock_ns, finished = begin_ns, False
        while not self._stop:
            finished = not waiting and not _fetch(messages, waiting)
            if finished:
                break
            topic, stamp_ns, data = waiting[0]
            if topic in self._latched and stamp_ns <= begin_ns:  # already sent
                waiting.popleft()
                continue
            next_ns = min(stamp_ns, next_clock_ns) if self._clock else stamp_ns
            due = began + int((next_ns - begin_ns) / rate)
            self._idle_until(due, messages, waiting)
            if self._clock and next_clock_ns <= stamp_ns:
                self._tick(next_clock_ns)
                next_clock_ns += CLOCK_PERIOD_NS
                continue
            self.publishers[topic].publish(data)
            waiting.popleft()
            delay_ns = time.monotonic_ns() - due
            count, late, latest_ns = (
                count + 1,
                late + (delay_ns > LATE_NS),
                max(latest_ns, delay_ns),
            )
        return Played(count, late, latest_ns / 1e6, (time.monotonic_ns() - began) / 1e9, finished)

    def _idle_until(self, due_ns, messages, waiting):
        """Use what time there is to read ahead, so that a slow disk delays nothing."""
        while (
            time.monotonic_ns() < due_ns - 3_000_000
            and len(waiting) < AHEAD
            and _fetch(messages, waiting)
        ):
            pass
        rest_ns = due_ns - time.monotonic_ns()
        while rest_ns > 0 and not self._stop:
            time.sleep(min(rest_ns / 1e9, 0.1))
            rest_ns = due_ns - time.monotonic_ns()

    def _tick(self, stamp_ns):
        self._clock_message.clock.sec, self._clock_message.clock.nanosec = divmod(
            stamp_ns, 1_000_000_000
        )
        self._clock.publish(self._clock_message)

    def finish(self):
        """Give reliable readers the time to take what is still on its way."""
        from rclpy.duration import Duration

        deadline = time.monotonic() + ACKNOWLEDGE_S
        for publisher in self.publishers.values():
            rest = max(0.0, deadline - time.monotonic())
            publisher.wait_for_all_acked(Duration(seconds=rest))


def _fetch(messages, waiting):
    """Append the next message to `waiting`; False at the end."""
    for topic, stamp_ns, data in messages:
        waiting.append((topic, stamp_ns, bytes(data)))
        return True
    return False


def publisher_qos(offered, messages=1):
    """rclpy QoSProfile of what a bag offers for a topic: a list of rosbags' Qos, maybe empty.

    messages  how many there are of it: latched ones may be of many publishers, each of which keeps
              its own, while we are one
    """
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    if not offered:
        return QoSProfile(depth=10)
    first = offered[0]
    latched = first.durability.name == 'TRANSIENT_LOCAL'
    return QoSProfile(
        depth=max(1, first.depth, min(messages, MOST_LATCHED) if latched else 1),
        reliability=ReliabilityPolicy.BEST_EFFORT
        if first.reliability.name == 'BEST_EFFORT'
        else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL
        if first.durability.name == 'TRANSIENT_LOCAL'
        else DurabilityPolicy.VOLATILE,
    )


def _is_latched(profile):
    from rclpy.qos import DurabilityPolicy

    return profile.durability == DurabilityPolicy.TRANSIENT_LOCAL

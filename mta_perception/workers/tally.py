"""Counting what goes wrong, and saying it without flooding the log.  Thread-safe, no ROS."""

from collections import Counter, deque
import threading
import time
import traceback
from typing import NamedTuple

import numpy as np

from mta_perception.reasons import Code

SAY_EVERY_S = 10.0
MOST_KEYS = 150  # keys that carry a varying text must not fill the memory


class Refusal(NamedTuple):
    """Which messages were refused and why: a key to count by."""

    source: str  # a topic, or what its messages are
    code: Code

    def __str__(self):
        return f'{self.source}: {self.code}'


class Latest(NamedTuple):
    """What was counted last."""

    key: object
    detail: str

    def __str__(self):
        return f'{self.key}: {self.detail}' if self.detail else str(self.key)


class Tally:
    """Counts by key: a reasons.Code, a Refusal or a string.

    A key is logged at once, then every SAY_EVERY_S seconds at most.
    """

    def __init__(self, say, clock=time.monotonic):
        """say: function (text) that writes to the log."""
        self._say, self._clock = say, clock
        self._lock = threading.Lock()
        self._counts, self._details, self._said, self._when = Counter(), {}, {}, {}

    def count(self, key, detail='', quiet=False, story=''):
        """One more of `key`; detail: of this one, for people; story: what the log gets instead."""
        now = self._clock()
        with self._lock:
            if key not in self._counts and len(self._counts) >= MOST_KEYS:
                key = 'other'
            self._counts[key] += 1
            self._details[key], self._when[key] = detail, now
            count, said = self._counts[key], self._said.get(key)
            speaks = not quiet and (said is None or now - said >= SAY_EVERY_S)
            if speaks:
                self._said[key] = now
        if speaks:
            times = '' if count == 1 else f' (number {count})'
            text = story or detail
            self._say(f'{key}{times}: {text}' if text else f'{key}{times}')

    def count_reason(self, reason, source=None, quiet=False):
        """One more of a Reason's code; source: see Refusal."""
        key = reason.code if source is None else Refusal(source, reason.code)
        self.count(key, reason.detail, quiet)

    def counts(self):
        """dict key -> count."""
        with self._lock:
            return dict(self._counts)

    def total(self):
        with self._lock:
            return sum(self._counts.values())

    def latest(self, within_s):
        """The Latest where it is not older than `within_s`, or None."""
        with self._lock:
            if not self._when:
                return None
            key = max(self._when, key=self._when.get)
            if self._clock() - self._when[key] > within_s:
                return None
            return Latest(key, self._details[key])


class Guard:
    """Keeps an unexpected exception of a callback or worker from ending the node."""

    def __init__(self, say, clock=time.monotonic):
        self.errors = Tally(say, clock)

    def __call__(self, name, function):
        """`function` that counts and logs what it raises, with its traceback, and goes on."""

        def guarded(*arguments):
            try:
                return function(*arguments)
            except Exception as error:  # the last line of defence: counted, shown as ERROR
                self.errors.count(
                    f'{name}: {type(error).__name__}', str(error), story=traceback.format_exc()
                )
                return None

        return guarded


class Durations:
    """The newest durations of each stage, for p50, p90 and max.  Thread-safe."""

    def __init__(self, keep=300):
        self._keep, self._lock, self._samples = keep, threading.Lock(), {}

    def add(self, timings_ms):
        """timings_ms: stage -> milliseconds of one step."""
        with self._lock:
            for stage, value in timings_ms.items():
                self._samples.setdefault(stage, deque(maxlen=self._keep)).append(value)

    def percentiles(self):
        """stage -> (p50, p90, max) in milliseconds, in the order the stages first came."""
        with self._lock:
            copies = {stage: np.array(values) for stage, values in self._samples.items()}
        return {
            stage: (*np.percentile(values, [50, 90]), values.max())
            for stage, values in copies.items()
        }


class Rate:
    """Events per second over the newest few seconds.  Thread-safe."""

    def __init__(self, window_s=5.0, clock=time.monotonic):
        self._window_s, self._clock = window_s, clock
        self._lock, self._times = threading.Lock(), deque(maxlen=2000)
        self._began, self._last = clock(), None
        self.total = 0

    def tick(self):
        with self._lock:
            self._last = self._clock()
            self._times.append(self._last)
            self.total += 1

    def hz(self):
        now = self._clock()
        with self._lock:
            while self._times and now - self._times[0] > self._window_s:
                self._times.popleft()
            # Shortly after the start the window is not full yet.
            return len(self._times) / min(self._window_s, max(now - self._began, 1e-3))

    def age_s(self):
        """Seconds since the newest event; None where none ever came."""
        with self._lock:
            return None if self._last is None else self._clock() - self._last

"""Counting what goes wrong, and saying it without flooding the log.  Thread-safe, no ROS."""

from collections import Counter, deque
import threading
import time
import traceback

import numpy as np

SAY_EVERY_S = 10.0
MOST_REASONS = 40  # a reason that carries a varying text must not fill the memory


class Tally:
    """Counts by reason; a reason is logged at once, then every SAY_EVERY_S seconds at most."""

    def __init__(self, say, clock=time.monotonic):
        """say: function (text) that writes to the log."""
        self._say, self._clock = say, clock
        self._lock = threading.Lock()
        self._counts, self._details, self._said, self._when = Counter(), {}, {}, {}

    def count(self, reason, detail='', quiet=False):
        """One more of `reason`; detail: the whole story of this one."""
        now = self._clock()
        with self._lock:
            if reason not in self._counts and len(self._counts) >= MOST_REASONS:
                reason = 'other'
            self._counts[reason] += 1
            self._details[reason], self._when[reason] = detail or reason, now
            count, said = self._counts[reason], self._said.get(reason)
            speaks = not quiet and (said is None or now - said >= SAY_EVERY_S)
            if speaks:
                self._said[reason] = now
        if speaks:
            times = '' if count == 1 else f' (number {count})'
            self._say(f'{reason}{times}: {detail}' if detail else f'{reason}{times}')

    def counts(self):
        """dict reason -> count."""
        with self._lock:
            return dict(self._counts)

    def total(self):
        with self._lock:
            return sum(self._counts.values())

    def latest(self, within_s):
        """(reason, detail) of the newest one not older than `within_s`, or None."""
        with self._lock:
            if not self._when:
                return None
            reason = max(self._when, key=self._when.get)
            if self._clock() - self._when[reason] > within_s:
                return None
            return reason, self._details[reason]


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
                self.errors.count(f'{name}: {type(error).__name__}', traceback.format_exc())
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

    def summary(self):
        """stage -> (p50, p90, max) in milliseconds, in the order the stages first came."""
        with self._lock:
            copies = {stage: np.array(values) for stage, values in self._samples.items()}
        return {
            stage: (*np.percentile(values, [50, 90]), values.max())
            for stage, values in copies.items()
        }


class Rate:
    """Events a second over the newest few seconds.  Thread-safe."""

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

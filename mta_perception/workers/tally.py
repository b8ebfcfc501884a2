"""Counting what goes wrong, and saying it without flooding the log.  Thread-safe, no ROS."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
import threading
import time
import traceback
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from mta_perception.foreign_text import printable
from mta_perception.reasons import Code, Reason

SAY_EVERY_S = 10.0
MOST_KEYS = 150  # keys that carry a varying text must not fill the memory

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')


class Refusal(NamedTuple):
    """Which messages were refused and why: a key to count by."""

    source: str  # a topic, or what its messages are
    code: Code

    def __str__(self) -> str:
        return f'{self.source}: {self.code}'


Key = Code | Refusal | str
Say = Callable[[str], object]
Clock = Callable[[], float]  # seconds, from anywhere


class Latest(NamedTuple):
    """What was counted last."""

    key: Key
    detail: str

    def __str__(self) -> str:
        return f'{self.key}: {self.detail}' if self.detail else str(self.key)


class Tally:
    """Counts by key.

    A key is logged at once, then every SAY_EVERY_S seconds at most.
    """

    def __init__(self, say: Say, clock: Clock = time.monotonic) -> None:
        """say: writes a text to the log."""
        self._say, self._clock = say, clock
        self._lock = threading.Lock()
        self._counts: Counter[Key] = Counter()
        self._details: dict[Key, str] = {}  # of the newest
        self._said: dict[Key, float] = {}  # when it was logged last
        self._when: dict[Key, float] = {}  # when it was counted last

    def count(self, key: Key, detail: str = '', quiet: bool = False, story: str = '') -> None:
        """One more of `key`; detail: of this one, for people; story: what the log gets instead."""
        detail = printable(detail)
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

    def count_reason(self, reason: Reason, source: str | None = None, quiet: bool = False) -> None:
        """One more of a Reason's code; source: see Refusal."""
        key = reason.code if source is None else Refusal(source, reason.code)
        self.count(key, reason.detail, quiet)

    def counts(self) -> dict[Key, int]:
        """Of all keys."""
        with self._lock:
            return dict(self._counts)

    def total(self) -> int:
        with self._lock:
            return sum(self._counts.values())

    def latest(self, within_s: float) -> Latest | None:
        """The Latest where it is not older than `within_s`, or None."""
        with self._lock:
            if not self._when:
                return None
            key = max(self._when, key=self._when.__getitem__)
            if self._clock() - self._when[key] > within_s:
                return None
            return Latest(key, self._details[key])

    def latest_of(self, source: str, within_s: float) -> Reason | None:
        """Why a message of `source` was refused last, where that is not older than `within_s`."""
        with self._lock:
            keys = [
                key
                for key, when in self._when.items()
                if isinstance(key, Refusal)
                and key.source == source
                and self._clock() - when <= within_s
            ]
            if not keys:
                return None
            key = max(keys, key=self._when.__getitem__)
            return Reason(key.code, self._details[key])


class Guard:
    """Keeps an unexpected exception of a callback or worker from ending the node."""

    def __init__(self, say: Say, clock: Clock = time.monotonic) -> None:
        self.errors = Tally(say, clock)

    def __call__(
        self, name: str, function: Callable[Arguments, Result]
    ) -> Callable[Arguments, Result | None]:
        """`function` that counts and logs what it raises, with its traceback, and goes on."""

        def guarded(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result | None:
            try:
                return function(*arguments, **named)
            except Exception as error:  # the last line of defence: counted, shown as ERROR
                self.errors.count(
                    f'{name}: {type(error).__name__}', str(error), story=traceback.format_exc()
                )
                return None

        return guarded


class Durations:
    """The newest durations of each stage, for p50, p90 and max.  Thread-safe."""

    def __init__(self, keep: int = 300) -> None:
        self._keep, self._lock = keep, threading.Lock()
        self._samples: dict[str, deque[float]] = {}  # by stage [ms]

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """timings_ms: stage -> milliseconds of one step."""
        with self._lock:
            for stage, value in timings_ms.items():
                self._samples.setdefault(stage, deque(maxlen=self._keep)).append(value)

    def forget(self, stages: Iterable[str]) -> None:
        """As if none of these had come."""
        with self._lock:
            for stage in stages:
                self._samples.pop(stage, None)

    def percentiles(self) -> dict[str, tuple[float, float, float]]:
        """stage -> (p50, p90, max) in milliseconds, in the order the stages first came."""
        with self._lock:
            copies = {stage: np.array(values) for stage, values in self._samples.items()}
        return {
            stage: (
                float(np.percentile(values, 50)),
                float(np.percentile(values, 90)),
                float(values.max()),
            )
            for stage, values in copies.items()
        }


class Rate:
    """Events per second over the newest few seconds.  Thread-safe."""

    def __init__(self, window_s: float = 5.0, clock: Clock = time.monotonic) -> None:
        self._window_s, self._clock = window_s, clock
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=2000)
        self._began = clock()
        self._last: float | None = None
        self.total = 0

    def tick(self) -> None:
        with self._lock:
            self._last = self._clock()
            self._times.append(self._last)
            self.total += 1

    def hz(self) -> float:
        now = self._clock()
        with self._lock:
            while self._times and now - self._times[0] > self._window_s:
                self._times.popleft()
            # Shortly after the start the window is not full yet.
            return len(self._times) / min(self._window_s, max(now - self._began, 1e-3))

    def age_s(self) -> float | None:
        """Seconds since the newest event; None where none ever came."""
        with self._lock:
            return None if self._last is None else self._clock() - self._last

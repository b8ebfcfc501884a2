"""Faults put into a bag's messages on purpose: what `mta play --faults FILE` does.  Pure.

A file of faults (docs/safety.md):

    seed: 1
    faults:
      - {topic: /cam_front/*, do: drop, from: 2.0, to: 5.0}
      - {topic: /odom, do: delay, seconds: 0.4, share: 0.3}

Times are seconds since the begin of the bag.  Messages are serialised (CDR, little endian); what
changes a stamp needs one that begins with a header, as images, camera_info, odometry and imu do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
import heapq
import math
from pathlib import Path
import struct
from typing import Any

import numpy as np

from mta_perception.foreign_text import shown
from mta_perception.plain_yaml import read_yaml

Message = tuple[str, int, bytes]  # topic, time [ns], serialised
KINDS = {
    'drop': 'is not sent',
    'delay': 'is sent `seconds` later',
    'duplicate': 'is sent again, `seconds` later',
    'freeze': 'has the content of the last one before, and its own stamp',
    'corrupt': 'has `bytes` random bytes behind its header',
    'restamp': 'has a stamp that is `seconds` off',
    'still': 'has the stamp of the first one in the span',
}
_STAMPED = ('freeze', 'restamp', 'still')
_HEAD = 12  # bytes: four of CDR, seconds, nanoseconds


class FaultsError(ValueError):
    """A file of faults that cannot be read; the message says where and what was expected."""


@dataclass(frozen=True)
class Fault:
    """What happens to messages of the topics that match, within a span of the bag."""

    topic: str  # * and ? as in file names
    do: str  # of KINDS
    begin_s: float = 0.0
    end_s: float = math.inf
    share: float = 1.0  # of the messages in the span
    seconds: float = 0.5
    bytes: int = 64

    def meets(self, topic: str, seconds: float) -> bool:
        """Whether it may happen to a message."""
        return self.begin_s <= seconds < self.end_s and fnmatchcase(topic, self.topic)


_NAMES = {'from': 'begin_s', 'to': 'end_s'}


def read_faults(path: str | Path) -> tuple[list[Fault], int]:
    """(faults, seed) of a file.  Raises FaultsError, YamlError."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get('faults'), list):
        raise FaultsError(f'{path} is {shown(content)}, expected `faults:` with a list.')
    strange = sorted(map(str, content.keys() - {'faults', 'seed'}))
    seed = content.get('seed', 0)
    if strange or type(seed) is not int or seed < 0:
        raise FaultsError(
            f'{path}: {strange or shown(seed)}: expected `faults` and a whole `seed`.'
        )
    return [_fault(path, number, one) for number, one in enumerate(content['faults'], 1)], seed


def _fault(path: str | Path, number: int, values: Any) -> Fault:
    where = f'{path}: fault {number}'
    if not isinstance(values, dict):
        raise FaultsError(f'{where} is {shown(values)}, expected names and values.')
    named: dict[str, Any] = {_NAMES.get(key, str(key)): value for key, value in values.items()}
    strange = named.keys() - {field.name for field in fields(Fault)}
    if strange or not isinstance(named.get('topic'), str) or named.get('do') not in KINDS:
        raise FaultsError(
            f'{where} is {shown(values)}, expected topic, do (one of {", ".join(KINDS)}) and '
            'perhaps from, to, share, seconds, bytes.'
        )
    for key in named.keys() - {'topic', 'do'}:
        value = named[key]
        kinds = (int,) if key == 'bytes' else (int, float)
        if type(value) not in kinds or not abs(value) < 1e9:
            raise FaultsError(f'{where}: {key} is {shown(value)}, expected a number.')
    fault = Fault(**named)
    if not (
        0 <= fault.share <= 1 and 0 < fault.bytes <= 1_000_000 and fault.begin_s < fault.end_s
    ):
        raise FaultsError(f'{where}: expected 0 <= share <= 1, bytes above 0, from before to.')
    if fault.do in ('delay', 'duplicate') and fault.seconds < 0:
        raise FaultsError(f'{where}: seconds is {fault.seconds}, expected 0 or more.')
    return fault


def faulty(
    messages: Iterable[Message], faults: list[Fault], start_ns: int, seed: int = 0
) -> Iterator[Message]:
    """The messages, in the order of time, with the faults in them.  Same seed, same faults.

    start_ns  begin of the bag
    Raises FaultsError for a stamp that is to change in a message without a header.
    """
    rng = np.random.default_rng(seed)
    contents = _Contents(rng)
    later: list[tuple[int, int, Message]] = []  # time, a number that keeps the order
    count = 0
    for topic, time_ns, data in messages:
        yield from _due(later, time_ns)
        seconds = (time_ns - start_ns) / 1e9
        met = [
            (number, fault)
            for number, fault in enumerate(faults)
            if fault.meets(topic, seconds) and rng.random() < fault.share
        ]
        content = contents.changed(topic, data, met)
        for at_ns in _times(time_ns, met):
            count += 1
            heapq.heappush(later, (at_ns, count, (topic, at_ns, content)))
        yield from _due(later, time_ns)
    yield from _due(later, None)


def _due(later: list[tuple[int, int, Message]], time_ns: int | None) -> Iterator[Message]:
    """Take out what is to be sent by a time, None: all."""
    while later and (time_ns is None or later[0][0] <= time_ns):
        yield heapq.heappop(later)[2]


def _times(time_ns: int, met: list[tuple[int, Fault]]) -> list[int]:
    """When a message is sent: at its time, later, twice or never."""
    first_ns, again = time_ns, []
    for _, fault in met:
        if fault.do == 'delay':
            first_ns += round(fault.seconds * 1e9)
        elif fault.do == 'duplicate':
            again.append(time_ns + round(fault.seconds * 1e9))
    dropped = any(fault.do == 'drop' for _, fault in met)
    return again if dropped else [first_ns, *again]


class _Contents:
    """What the messages hold with the faults in them; remembers what those need."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._last: dict[str, bytes] = {}  # topic -> the newest message that was left as it is
        self._first: dict[tuple[int, str], bytes] = {}  # fault, topic -> its first message

    def changed(self, topic: str, data: bytes, met: list[tuple[int, Fault]]) -> bytes:
        """The content of a message with all faults that meet it, in their order."""
        content = data
        for number, fault in met:
            if fault.do in _STAMPED:
                _check_header(topic, content)
            if fault.do == 'freeze':
                content = content[:_HEAD] + self._last.get(topic, content)[_HEAD:]
            elif fault.do == 'restamp':
                content = _moved(content, fault.seconds)
            elif fault.do == 'still':
                first = self._first.setdefault((number, topic), content)
                content = content[:4] + first[4:_HEAD] + content[_HEAD:]
            elif fault.do == 'corrupt':
                content = _corrupt(content, fault.bytes, self._rng)
        if content is data:
            self._last[topic] = data
        return content


def _check_header(topic: str, content: bytes) -> None:
    if len(content) < _HEAD + 8 or content[1] != 1:
        raise FaultsError(f'{topic}: its messages do not begin with a header that can be changed.')


def _moved(content: bytes, seconds: float) -> bytes:
    second, nano = struct.unpack_from('<iI', content, 4)
    stamp = max(0, second * 10**9 + nano + round(seconds * 1e9))
    moved = struct.pack('<iI', min(stamp // 10**9, 2**31 - 1), stamp % 10**9)
    return content[:4] + moved + content[_HEAD:]


def _corrupt(content: bytes, count: int, rng: np.random.Generator) -> bytes:
    """Random bytes in the second half: headers, formats and lengths stay whole."""
    damaged = bytearray(content)
    begin = len(damaged) // 2
    for place in rng.integers(begin, max(len(damaged), begin + 1), count).tolist():
        if place < len(damaged):
            damaged[place] = int(rng.integers(0, 256))
    return bytes(damaged)

"""Faults put into a bag's messages on purpose: what `mta play --faults FILE` does.  Pure.

A file of faults (docs/safety.md; shipped ones lie in params/faults):

    about: the front camera is dead for three seconds and poses come late
    seed: 1
    faults:
      - {topic: '*/cam_front/*', do: drop, from: 2.0, to: 5.0}
      - {topic: '*/odom', do: delay, seconds: 0.4, share: 0.3}

Times are seconds since the begin of the bag.  Messages are serialised (CDR).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
import heapq
import math
from pathlib import Path
from typing import Any

import numpy as np

from mta_perception.bags.faulty_contents import KINDS_OF_CONTENT, FaultsError, FaultyContents
from mta_perception.foreign_text import shown
from mta_perception.plain_yaml import read_yaml
from mta_perception.share import share_directories, share_file

Message = tuple[str, int, bytes]  # topic, time [ns], serialised
KINDS = {
    'drop': 'is not sent',
    'thin': 'is not sent where the one before was less than 1 / `hz` seconds ago',
    'delay': 'is sent `seconds` later',
    'duplicate': 'is sent `times` times more, each `seconds` later',
    **KINDS_OF_CONTENT,
}


@dataclass(frozen=True)
class Fault:
    """What happens to messages of the topics that match, within a span of the bag."""

    topic: str  # * and ? as in file names
    do: str  # of KINDS
    begin_s: float = 0.0
    end_s: float = math.inf
    share: float = 1.0  # of the messages in the span
    seconds: float = 0.5
    times: int = 1
    hz: float = 1.0
    bytes: int = 64
    keep: float = 0.5
    scale: float = 0.5
    field: str = ''
    value: Any = None

    def meets(self, topic: str, seconds: float) -> bool:
        """Whether it may happen to a message."""
        return self.begin_s <= seconds < self.end_s and fnmatchcase(topic, self.topic)

    def later(self, seconds: float) -> 'Fault':
        """The same in a span that begins and ends later."""
        return replace(self, begin_s=self.begin_s + seconds, end_s=self.end_s + seconds)


_NAMES = {'from': 'begin_s', 'to': 'end_s'}
_WHOLE = ('bytes', 'times')
_RANGES = {
    'share': (0.0, 1.0),
    'keep': (0.0, 1.0),
    'scale': (0.01, 8.0),
    'hz': (0.001, 1000.0),
    'bytes': (1, 200_000_000),
    'times': (1, 1000),
}


def shipped_faults() -> list[str]:
    """Names of the files in params/faults."""
    folders = [folder / 'params' / 'faults' for folder in share_directories()]
    return sorted({path.stem for folder in folders for path in folder.glob('*.yaml')})


def faults_file(name: str | Path) -> Path:
    """The file of that path, or the shipped one of that name.  Raises FaultsError."""
    path = Path(name)
    if path.is_file():
        return path
    if str(name) in shipped_faults():
        return share_file('params', 'faults', f'{name}.yaml')
    raise FaultsError(
        f'no file of faults {shown(str(name))}: neither a file nor one of those that came with '
        f'this program ({", ".join(shipped_faults()) or "there are none"}).'
    )


def read_faults(path: str | Path) -> tuple[list[Fault], int]:
    """(faults, seed) of a file.  Raises FaultsError, YamlError."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get('faults'), list):
        raise FaultsError(f'{path} is {shown(content)}, expected `faults:` with a list.')
    strange = sorted(map(str, content.keys() - {'about', 'faults', 'seed'}))
    seed = content.get('seed', 0)
    if strange or type(seed) is not int or seed < 0:
        raise FaultsError(
            f'{path}: {strange or shown(seed)}: expected `faults`, perhaps `about` and a whole '
            '`seed`.'
        )
    return [_fault(path, number, one) for number, one in enumerate(content['faults'], 1)], seed


def _fault(path: str | Path, number: int, values: Any) -> Fault:
    where = f'{path}: fault {number}'
    if not isinstance(values, dict):
        raise FaultsError(f'{where} is {shown(values)}, expected names and values.')
    named: dict[str, Any] = {_NAMES.get(key, str(key)): value for key, value in values.items()}
    known = [field.name for field in fields(Fault)]
    strange = named.keys() - set(known)
    texts = isinstance(named.get('topic'), str) and isinstance(named.get('do'), str)
    if strange or not texts or named['do'] not in KINDS:
        raise FaultsError(
            f'{where} is {shown(values)}, expected topic, do (one of {", ".join(KINDS)}) and '
            f'perhaps from, to, {", ".join(known[4:])}.'
        )
    for key in named.keys() - {'topic', 'do', 'field', 'value'}:
        _check_number(where, key, named[key])
    if not isinstance(named.get('field', ''), str):
        raise FaultsError(f'{where}: field is {shown(named["field"])}, expected a name.')
    fault = Fault(**named)
    _check(where, fault)
    return fault


def _check_number(where: str, key: str, value: Any) -> None:
    kinds = (int,) if key in _WHOLE else (int, float)
    if type(value) not in kinds or not abs(value) < 1e9:
        raise FaultsError(f'{where}: {key} is {shown(value)}, expected a number.')
    least, most = _RANGES.get(key, (-math.inf, math.inf))
    if not least <= value <= most:
        raise FaultsError(
            f'{where}: {key} is {shown(value)}, expected {least:g} <= {key} <= {most:g}.'
        )


def _check(where: str, fault: Fault) -> None:
    if fault.begin_s >= fault.end_s:
        raise FaultsError(f'{where}: from is {fault.begin_s}, expected it before to.')
    if fault.do in ('delay', 'duplicate') and fault.seconds < 0:
        raise FaultsError(f'{where}: seconds is {fault.seconds}, expected 0 or more.')
    if fault.do in ('set', 'add') and (not fault.field or fault.value is None):
        raise FaultsError(f'{where}: `{fault.do}` needs the name of a field and a value.')


def faulty(
    messages: Iterable[Message],
    faults: list[Fault],
    start_ns: int,
    seed: int = 0,
    types: Mapping[str, str] | None = None,
) -> Iterator[Message]:
    """The messages, in the order of time, with the faults in them.  Same seed, same faults.

    start_ns  begin of the bag
    types     topic -> type, e.g. 'sensor_msgs/msg/Image': for what changes a message's content
    Raises FaultsError for a message that lacks what a fault is to change.
    """
    rng = np.random.default_rng(seed)
    contents = FaultyContents(rng, types or {})
    sent = _Sent()
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
        for at_ns in sent.times(topic, time_ns, met):
            count += 1
            heapq.heappush(later, (at_ns, count, (topic, at_ns, content)))
        yield from _due(later, time_ns)
    yield from _due(later, None)


def _due(later: list[tuple[int, int, Message]], time_ns: int | None) -> Iterator[Message]:
    """Take out what is to be sent by a time, None: all."""
    while later and (time_ns is None or later[0][0] <= time_ns):
        yield heapq.heappop(later)[2]


class _Sent:
    """When messages are sent: at their time, later, several times or never."""

    def __init__(self) -> None:
        self._kept_ns: dict[tuple[int, str], int] = {}  # fault, topic -> when one was kept last

    def times(self, topic: str, time_ns: int, met: list[tuple[int, Fault]]) -> list[int]:
        """Of one message, with the faults that meet it."""
        first_ns, again = time_ns, []
        for _, fault in met:
            step_ns = round(fault.seconds * 1e9)
            if fault.do == 'delay':
                first_ns += step_ns
            elif fault.do == 'duplicate':
                again += [time_ns + k * step_ns for k in range(1, fault.times + 1)]
        dropped = [
            fault.do == 'drop' or self._thinned(n, topic, time_ns, fault) for n, fault in met
        ]
        return again if any(dropped) else [first_ns, *again]

    def _thinned(self, number: int, topic: str, time_ns: int, fault: Fault) -> bool:
        if fault.do != 'thin':
            return False
        kept_ns = self._kept_ns.get((number, topic))
        if kept_ns is not None and time_ns - kept_ns < 1e9 / fault.hz - 1:
            return True
        self._kept_ns[number, topic] = time_ns
        return False

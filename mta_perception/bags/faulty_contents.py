"""What a message holds when a fault met it: other bytes, stamps, pictures, values of fields.

Bytes stay bytes where that is enough; else the message is read with its type, changed and written.
"""

from collections.abc import Mapping
import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rosbags.serde import SerdeError

from mta_perception.bags.typestore import time_message, time_ns, typestore
from mta_perception.foreign_text import shown

if TYPE_CHECKING:
    from mta_perception.bags.faults import Fault

KINDS_OF_CONTENT = {
    'freeze': 'has the content of the last one before, and its own stamp',
    'corrupt': 'has `bytes` random bytes in its second half',
    'restamp': 'has stamps that are `seconds` off',
    'still': 'has the stamp of the first one in the span',
    'cut': 'has only the part `keep` of its `data`: of a picture, the upper part',
    'grow': 'has `bytes` zeros behind its `data`',
    'resize': 'has a picture of `scale` times the size',
    'set': 'has `value` in its field `field`',
    'add': 'has `value` added to its field `field`',
}
_HEAD = 12  # bytes: four of CDR, seconds, nanoseconds
_TRANSFORMS = 'tf2_msgs/msg/TFMessage'
_COMPRESSED, _RAW = 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image'
_MOST_NS = (2**31 - 1) * 10**9


class FaultsError(ValueError):
    """Faults that cannot be read or done; the message says where and what was expected."""


class FaultyContents:
    """What messages hold with the faults in them; remembers what those need."""

    def __init__(self, rng: np.random.Generator, types: Mapping[str, str]) -> None:
        """types: topic -> message type."""
        self._rng, self._types = rng, types
        self._last: dict[str, bytes] = {}  # topic -> the newest message that was left as it is
        self._first: dict[tuple[int, str], bytes] = {}  # fault, topic -> its first message

    def changed(self, topic: str, data: bytes, met: 'list[tuple[int, Fault]]') -> bytes:
        """The content of a message with all faults that meet it, in their order."""
        content = data
        for number, fault in met:
            if fault.do in KINDS_OF_CONTENT:
                content = self._with(number, fault, topic, content)
        if content is data:
            self._last[topic] = data
        return content

    def _with(self, number: int, fault: 'Fault', topic: str, content: bytes) -> bytes:
        if fault.do == 'corrupt':
            return _corrupt(content, fault.bytes, self._rng)
        if fault.do in ('freeze', 'still', 'restamp') and not self._stamped(fault, topic):
            return content
        if fault.do == 'freeze':
            return content[:_HEAD] + self._last.get(topic, content)[_HEAD:]
        if fault.do == 'still':
            first = self._first.setdefault((number, topic), content)
            return content[:4] + first[4:_HEAD] + content[_HEAD:]
        kind = self._types.get(topic, '')
        try:
            message = typestore().deserialize_cdr(content, kind)
            _CHANGES[fault.do](message, fault, kind)
            return bytes(typestore().serialize_cdr(message, kind))
        except FaultsError as error:
            raise FaultsError(f'{topic} ({kind}), `{fault.do}`: {error}') from None
        except (
            SerdeError,
            LookupError,
            TypeError,
            ValueError,
            OverflowError,
            struct.error,
        ) as error:
            words = ' '.join(str(error).split()) or type(error).__name__
            raise FaultsError(
                f'{topic} ({kind or "its type is not known"}), `{fault.do}`: {words}'
            ) from None

    def _stamped(self, fault: 'Fault', topic: str) -> bool:
        """Whether messages have a stamp to change; FaultsError where they were named for it."""
        kind = self._types.get(topic, '')
        names = [name for name, _ in typestore().fielddefs.get(kind, ((), ()))[1]]
        if names[:1] == ['header'] or (kind == _TRANSFORMS and fault.do == 'restamp'):
            return True
        if any(sign in fault.topic for sign in '*?['):
            return False
        raise FaultsError(
            f'{topic} ({kind or "its type is not known"}), `{fault.do}`: its messages '
            'do not begin with a header.'
        )


def _corrupt(content: bytes, count: int, rng: np.random.Generator) -> bytes:
    """Random bytes in the second half: headers, formats and lengths stay whole."""
    damaged = bytearray(content)
    begin = len(damaged) // 2
    for place in rng.integers(begin, max(len(damaged), begin + 1), count).tolist():
        if place < len(damaged):
            damaged[place] = int(rng.integers(0, 256))
    return bytes(damaged)


def _restamp(message: Any, fault: 'Fault', kind: str) -> None:
    for one in message.transforms if kind == _TRANSFORMS else [message]:
        moved = time_ns(one.header.stamp) + round(fault.seconds * 1e9)
        one.header.stamp = time_message(min(max(moved, 0), _MOST_NS))


def _cut(message: Any, fault: 'Fault', kind: str) -> None:
    data = _data(message)
    message.data = data[: int(len(data) * fault.keep)]


def _grow(message: Any, fault: 'Fault', kind: str) -> None:
    message.data = np.append(_data(message), np.zeros(fault.bytes, np.uint8))


def _data(message: Any) -> np.ndarray:
    data = getattr(message, 'data', None)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise FaultsError('it has no bytes in a field `data`.')
    return data


def _resize(message: Any, fault: 'Fault', kind: str) -> None:
    """A picture of another size: JPEG or PNG, or three bytes a pixel."""
    if kind == _COMPRESSED:
        picture = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise FaultsError('its data is no picture that can be read.')
        coding = '.png' if bytes(message.data[:4]) == b'\x89PNG' else '.jpg'
        message.data = cv2.imencode(coding, _scaled(picture, fault.scale))[1].ravel()
    elif kind == _RAW and message.step == 3 * message.width:
        picture = _scaled(message.data.reshape(message.height, message.width, 3), fault.scale)
        message.height, message.width = picture.shape[:2]
        message.step, message.data = 3 * message.width, picture.ravel()
    else:
        raise FaultsError('it is no compressed picture and none of three bytes a pixel.')


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _set(message: Any, fault: 'Fault', kind: str) -> None:
    holder, name = _holder(message, fault.field)
    setattr(holder, name, _like(getattr(holder, name), fault.value, fault.field))


def _add(message: Any, fault: 'Fault', kind: str) -> None:
    holder, name = _holder(message, fault.field)
    before = getattr(holder, name)
    if isinstance(before, (str, bool)) or not isinstance(before, (int, float, np.ndarray)):
        raise FaultsError(f'{fault.field} is no number.')
    added = _like(before, fault.value, fault.field)
    setattr(holder, name, before + added)


def _holder(message: Any, path: str) -> tuple[Any, str]:
    """What has the last name of 'pose.pose.position.x' (or 'transforms.0.header'), that name."""
    *way, name = path.split('.')
    at = message
    for part in way:
        at = at[int(part)] if isinstance(at, list) and part.isdigit() else _member(at, part, path)
    _member(at, name, path)
    return at, name


def _member(holder: Any, name: str, path: str) -> Any:
    names = getattr(holder, '__dataclass_fields__', {})
    if name not in names or name.startswith('_'):
        raise FaultsError(f'it has no {shown(path)}; at "{name}" there is {", ".join(names)}.')
    return getattr(holder, name)


def _like(before: Any, value: Any, path: str) -> Any:
    """A value of a YAML file as what stands in a field: number, text, array or message."""
    if isinstance(before, np.ndarray):
        array = np.asarray(value, before.dtype)
        return np.full_like(before, array) if array.ndim == 0 else array.ravel()
    if isinstance(before, (bool, str)) or (
        isinstance(before, (int, float)) and not isinstance(value, (int, float))
    ):
        if type(value) is not type(before):
            raise FaultsError(
                f'{path} is {shown(value)}, expected {type(before).__name__} as {shown(before)}.'
            )
        return value
    if isinstance(before, (int, float)):
        return type(before)(value)
    if not isinstance(value, dict):
        raise FaultsError(f'{path} is {shown(value)}, expected names and values.')
    for name, inner in value.items():
        was = _member(before, str(name), path)
        setattr(before, str(name), _like(was, inner, f'{path}.{name}'))
    return before


_CHANGES = {
    'restamp': _restamp,
    'cut': _cut,
    'grow': _grow,
    'resize': _resize,
    'set': _set,
    'add': _add,
}

"""`mta rescue`: what is whole of a damaged bag as a new one.

A recorder that was killed leaves a file without its end; a disk may lose a part of it.  Of an MCAP
file the records up to the damage are taken, chunks only with the right checksum; of an SQLite file
the rows that can still be read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
import sqlite3
import struct
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple

from rosbags.interfaces import Connection, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_mcap import decompress

from mta_perception.atomic_files import whole
from mta_perception.bags.bag_files import STORAGE, BagError, storage_files
from mta_perception.bags.typestore import typestore
from mta_perception.directory_lock import sole_writer
from mta_perception.foreign_text import first_line, shown

_MAGIC = b'\x89MCAP0\r\n'
_HEADER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x01, 0x03, 0x04, 0x05, 0x06, 0x0F
_KEPT = {_HEADER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK}
_LARGEST = 1 << 32  # a record above this is damage, not data
# data end without a checksum, footer without a summary
_END = bytes([_DATA_END]) + struct.pack('<QI', 4, 0) + b'\x02' + struct.pack('<QQQI', 20, 0, 0, 0)


class Rescued(NamedTuple):
    """What a rescue brought."""

    messages: int
    topics: int
    notes: list[str]  # what was lost, a sentence a file


class Found(NamedTuple):
    """One message of a damaged bag."""

    topic: str
    type_name: str
    definition: str  # text of the message definition, '' where the file has none
    qos: tuple[Qos, ...]
    stamp_ns: int
    data: bytes


def rescue(bag: str | Path, out: str | Path) -> Rescued:
    """Write the whole part of a bag (directory or file) into the new bag directory `out`.

    Raises BagError where nothing can be read, or `out` exists.
    """
    bag, out = Path(bag), Path(out)
    if out.exists():
        raise BagError(f'{out} exists already; a rescue never overwrites. Name another --out.')
    files = storage_files(bag) if bag.is_dir() else [bag]
    if not files or any(path.suffix not in STORAGE or not path.is_file() for path in files):
        raise BagError(f'{bag} has no file that ends with {" or ".join(STORAGE)}.')
    notes: list[str] = []
    count = 0
    connections: dict[tuple[str, str], Connection | None] = {}
    with sole_writer(out), whole(out) as partial:
        with Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            for path in files:
                for one in _messages(path, partial.parent, notes):
                    key = one.topic, one.type_name
                    if key not in connections:
                        connections[key] = _connect(writer, one, notes)
                    connection = connections[key]
                    if connection is not None:
                        writer.write(connection, one.stamp_ns, one.data)
                        count += 1
        if not count:
            raise BagError(f'{bag}: nothing in it can be read. {" ".join(notes)}')
    return Rescued(count, sum(one is not None for one in connections.values()), notes)


def _connect(writer: Writer, one: Found, notes: list[str]) -> Connection | None:
    try:
        return _connection(writer, one, notes)
    except Exception as error:  # names and definitions of a damaged file
        notes.append(f'{shown(one.topic)} is left out: {first_line(error)}.')
        return None


def _connection(writer: Writer, one: Found, notes: list[str]) -> Connection | None:
    known = one.type_name in typestore().types
    if known:
        return writer.add_connection(
            one.topic, one.type_name, typestore=typestore(), offered_qos_profiles=one.qos
        )
    if one.definition:
        # The hash of a type that is not known here is left open; nobody checks it on reading.
        return writer.add_connection(
            one.topic,
            one.type_name,
            msgdef=one.definition,
            rihs01='RIHS01_' + '0' * 64,
            offered_qos_profiles=one.qos,
        )
    notes.append(f'{one.topic} is left out: the file does not define {one.type_name}.')
    return None


def _messages(path: Path, scratch: Path, notes: list[str]) -> Iterator[Found]:
    """scratch: a folder for as much as the file has."""
    if path.suffix == '.db3':
        yield from _of_sqlite(path, notes)
        return
    with _whole_part(path, scratch, notes) as part:
        # rosbags has no error of its own for nonsense in whole records.
        try:
            reader = Reader(part)
            reader.open()
        except Exception as error:
            notes.append(f'{path.name} has no whole beginning ({first_line(error)}).')
            return
        try:
            yield from _scanned(reader)
        except Exception as error:
            notes.append(f'{path.name} is damaged within ({first_line(error)}).')
        finally:
            reader.close()


def _scanned(reader: Reader) -> Iterator[Found]:
    storage: Any = reader.storage
    # Not in the order of time within a chunk: the writer sorts it out with its index.
    for connection, stamp_ns, data in storage.messages_scan(reader.connections):
        definition = connection.msgdef
        yield Found(
            connection.topic,
            connection.msgtype,
            definition.data if definition.format is not MessageDefinitionFormat.NONE else '',
            tuple(connection.ext.offered_qos_profiles),
            stamp_ns,
            bytes(data),
        )


@contextmanager
def _whole_part(path: Path, scratch: Path, notes: list[str]) -> Iterator[Path]:
    """A copy of an MCAP file with its whole records and an end."""
    with TemporaryDirectory(dir=scratch) as folder:
        part = Path(folder) / 'part.mcap'
        size = path.stat().st_size
        with open(path, 'rb') as source, open(part, 'wb') as target:
            if source.read(8) != _MAGIC:
                raise BagError(f'{path} is no MCAP file: it does not begin like one.')
            target.write(_MAGIC)
            bad = 0
            for opcode, content in _records(source, size):
                if opcode == _CHUNK and not _is_whole(content):
                    bad += 1
                elif opcode in _KEPT:
                    target.write(bytes([opcode]) + struct.pack('<Q', len(content)) + content)
            lost = size - source.tell()
            target.write(_END + _MAGIC)
        if lost > 0:
            notes.append(f'{path.name} ends within a record: its last {lost} bytes are lost.')
        if bad:
            notes.append(f'{path.name}: {bad} damaged chunks are lost.')
        yield part


def _records(source: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """(opcode, content) up to the end of the data or the first record that is not whole; the
    file's position is then behind the last whole one."""
    while True:
        place = source.tell()
        head = source.read(9)
        if len(head) == 9:
            opcode, length = head[0], struct.unpack('<Q', head[1:])[0]
            if opcode == _DATA_END:
                source.seek(size)
                return
            if 0 < opcode < 0x80 and length <= min(_LARGEST, size - source.tell()):
                yield opcode, source.read(length)
                continue
        source.seek(place)
        return


def _is_whole(chunk: bytes) -> bool:
    """Whether a chunk's content can be unpacked and holds whole records."""
    try:
        _, _, length, checksum, words = struct.unpack_from('<QQQII', chunk)
        compression = chunk[32 : 32 + words].decode()
        (packed,) = struct.unpack_from('<Q', chunk, 32 + words)
        start = 40 + words
        content = decompress(chunk[start : start + packed], compression, length, checksum)
        inside = BytesIO(content)
        for opcode, _ in _records(inside, len(content)):
            if opcode == _CHUNK:
                return False
        return inside.tell() == len(content)
    # The unpackers have errors of their own for damage.
    except Exception:
        return False


def _of_sqlite(path: Path, notes: list[str]) -> Iterator[Found]:
    database = sqlite3.connect(f'file:{path}?mode=ro', uri=True)
    # Else SQLite opens no file that is shorter than it should be.
    database.execute('PRAGMA writable_schema=ON')
    database.text_factory = lambda value: value.decode('utf-8', 'replace')
    try:
        topics = {
            row[0]: row[1:]
            for row in database.execute(
                'SELECT id, name, type, offered_qos_profiles FROM topics'
            ).fetchall()
        }
        count = last = 0
        for number, topic, stamp_ns, data in database.execute(
            'SELECT id, topic_id, timestamp, data FROM messages'
        ):
            last = max(last, number)
            if topic in topics and isinstance(stamp_ns, int) and isinstance(data, bytes):
                count += 1
                name, kind, qos = topics[topic]
                yield Found(name, kind, '', tuple(_parsed(qos)), stamp_ns, data)
        if count < last:  # rows are numbered from 1; damage may hide some without an error
            notes.append(f'{path.name}: {last - count} of its {last} rows cannot be read.')
    except sqlite3.DatabaseError as error:
        notes.append(
            f'{path.name}: the rest cannot be read ({error}); '
            f'`sqlite3 {path} .recover` may bring more.'
        )
    finally:
        database.close()


def _parsed(text: str) -> list[Qos]:
    try:
        return parse_qos(text) if text else []
    except Exception:  # rosbags lets the errors of its parser through
        return []

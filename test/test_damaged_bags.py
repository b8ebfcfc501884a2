"""Bags as people have them: one file, no metadata, split, packed, cut off, from strangers."""

import os
from pathlib import Path
import shutil

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from mta_perception.bags.bag_files import BagError, is_bag
from mta_perception.bags.qos import offered_qos
from mta_perception.bags.rescue import rescue
from mta_perception.bags.scene_bag import SceneBag, find_bags
from mta_perception.bags.typestore import message, typestore

TEXT = 'std_msgs/msg/String'


def text(words):
    return typestore().serialize_cdr(message(TEXT, data=words), TEXT)


def write_bag(path, messages, plugin=StoragePlugin.MCAP, compression=None):
    """A bag of strings: [(topic, stamp, words)]."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic: writer.add_connection(
                topic, TEXT, typestore=typestore(), offered_qos_profiles=[offered_qos(5)]
            )
            for topic in dict.fromkeys(topic for topic, _, _ in messages)
        }
        for topic, stamp, words in messages:
            writer.write(connections[topic], stamp, text(words))
    return path


# Enough for several chunks of a megabyte, in no order within them.
MANY = [(f'/t{k % 3}', 10**9 + (k ^ 1) * 1000, f'{k}' * 2000) for k in range(1500)]


def said(path):
    return [(topic, stamp, content.data) for topic, stamp, content in SceneBag(path).messages()]


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp('many') / 'bag', MANY)


@pytest.fixture
def copy(many, tmp_path):
    return Path(shutil.copytree(many, tmp_path / 'bag'))


def file_of(bag):
    (path,) = bag.glob('*.mcap')
    return path


def test_one_file_alone_and_a_directory_without_metadata(copy):
    whole = said(copy)
    assert said(file_of(copy)) == whole and is_bag(file_of(copy))
    assert find_bags(file_of(copy)) == [file_of(copy)]
    (copy / 'metadata.yaml').unlink()
    assert said(copy) == whole
    assert find_bags(copy.parent) == [copy]
    assert SceneBag(copy).topics['/t0'].ext.offered_qos_profiles[0].depth == 5


@pytest.mark.parametrize('plugin', list(StoragePlugin))
@pytest.mark.parametrize('compression', [None, *CompressionMode])
def test_packed_bags(tmp_path, plugin, compression):
    if compression is CompressionMode.STORAGE and plugin is StoragePlugin.SQLITE3:
        pytest.skip('SQLite has no compressed chunks')
    messages = [(topic, stamp, words[:50]) for topic, stamp, words in MANY[:200]]
    bag = write_bag(tmp_path / 'bag', messages, plugin, compression)
    assert sorted(said(bag)) == sorted(messages)


def test_a_split_bag(tmp_path):
    """Two files, one directory, as ros2 bag record --max-bag-duration writes it."""
    first, second = MANY[:700], MANY[700:]
    for name, part in (('a', first), ('b', second)):
        write_bag(tmp_path / name, part)
    split = tmp_path / 'split'
    split.mkdir()
    for number, name in enumerate('ab'):
        shutil.copy(file_of(tmp_path / name), split / f'split_{number}.mcap')
    metadata = (tmp_path / 'a' / 'metadata.yaml').read_text()
    metadata = metadata.replace('- a.mcap', '- split_0.mcap\n  - split_1.mcap')
    (split / 'metadata.yaml').write_text(metadata)
    assert sorted(said(split)) == sorted(MANY)
    (split / 'metadata.yaml').unlink()
    with pytest.raises(BagError, match='mta rescue .*split --out .*split-rescued'):
        SceneBag(split)
    found = rescue(split, tmp_path / 'whole')
    assert found.messages == len(MANY) and not found.notes
    assert sorted(said(tmp_path / 'whole')) == sorted(MANY)


@given(st.floats(0.0, 1.0))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_of_a_bag_that_is_cut_off_all_whole_chunks_are_rescued(many, tmp_path_factory, share):
    folder = tmp_path_factory.mktemp('cut')
    content = file_of(many).read_bytes()
    cut = folder / 'bag.mcap'
    cut.write_bytes(content[: int(len(content) * share)])
    try:
        messages = said(cut)
    except BagError as error:
        assert f'mta rescue {cut} --out {folder / "bag-rescued"}' in str(error)
    else:
        assert share > 0.99 and sorted(messages) == sorted(MANY)
    try:
        found = rescue(cut, folder / 'out')
    except BagError as error:
        assert share < 0.4 and cut.name in str(error)
        assert not (folder / 'out').exists()
        return
    messages = said(folder / 'out')
    assert len(messages) == found.messages and set(messages) <= set(MANY)
    assert [stamp for _, stamp, _ in messages] == sorted(stamp for _, stamp, _ in messages)
    if share > 0.5:
        assert found.messages >= 0.3 * len(MANY)
    shutil.rmtree(folder)


def test_a_damaged_chunk_costs_only_itself(copy, tmp_path):
    """A length inside the records of a chunk: it cannot be walked any more."""
    path = file_of(copy)
    damaged = bytearray(path.read_bytes())
    place = damaged.index(b'\x05', len(damaged) // 2)
    while damaged[place + 3 : place + 9] != b'\0' * 6:
        place = damaged.index(b'\x05', place + 1)
    damaged[place + 1 : place + 9] = b'\xff' * 8
    path.write_bytes(damaged)
    found = rescue(copy, tmp_path / 'out')
    assert 'damaged chunk' in found.notes[0]
    assert len(MANY) / 2 < found.messages < len(MANY)
    assert set(said(tmp_path / 'out')) <= set(MANY)


def test_sqlite_is_rescued_as_far_as_it_can_be_read(tmp_path):
    bag = write_bag(tmp_path / 'bag', MANY, StoragePlugin.SQLITE3)
    (path,) = bag.glob('*.db3')
    (bag / 'metadata.yaml').unlink()
    assert sorted(said(bag)) == sorted(MANY)
    assert rescue(bag, tmp_path / 'whole').messages == len(MANY)
    damaged = bytearray(path.read_bytes())
    place = damaged.index(b'1200120012001200')
    damaged[place - 4096 : place - 1024] = b'\xff' * 3072
    path.write_bytes(damaged)
    found = rescue(bag, tmp_path / 'part')
    assert 0 < found.messages < len(MANY) and 'cannot be read' in found.notes[0]
    assert set(said(tmp_path / 'part')) <= set(MANY)
    path.write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(BagError, match='.recover'):
        rescue(bag, tmp_path / 'half')


@pytest.mark.parametrize('place', range(0, 4000, 97))
def test_a_database_with_damaged_pages_is_refused_by_name(tmp_path, place):
    bag = write_bag(tmp_path / 'bag', MANY[:40], StoragePlugin.SQLITE3)
    (file,) = bag.glob('*.db3')
    content = bytearray(file.read_bytes())
    content[place : place + 40] = b'\xff' * 40
    file.write_bytes(content)
    try:
        for _ in SceneBag(file).raw():
            pass
    except BagError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize('word', [b'ros2msg', b'std_msgs/msg/String', b'/t1', b'cdr'])
def test_a_rescue_survives_damaged_names(copy, tmp_path, word):
    file = file_of(copy)
    file.write_bytes(file.read_bytes().replace(word, b'\xff' * len(word)))
    try:
        found = rescue(file, tmp_path / 'rescued')
        assert found.messages >= 0
    except BagError as error:
        assert len(str(error).splitlines()) == 1


def test_a_rescue_never_overwrites(copy, tmp_path):
    (tmp_path / 'out').mkdir()
    with pytest.raises(BagError, match='exists already'):
        rescue(copy, tmp_path / 'out')
    for thing in (tmp_path / 'out', tmp_path / 'none.mcap'):
        with pytest.raises(BagError):
            rescue(thing, tmp_path / 'new')


def test_a_type_that_is_not_known_here_is_kept(tmp_path):
    writer = Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        strange = writer.add_connection(
            '/strange', 'other_msgs/msg/Thing', msgdef='int32 x\n', rihs01='RIHS01_' + '1' * 64
        )
        writer.write(strange, 5, b'\0\1\0\0\7\0\0\0')
    assert rescue(tmp_path / 'bag', tmp_path / 'out').topics == 1
    with Reader(tmp_path / 'out') as reader:
        (connection,) = reader.connections
        assert connection.msgtype == 'other_msgs/msg/Thing'
        assert [data for _, _, data in reader.messages()] == [b'\0\1\0\0\7\0\0\0']


def rename(metadata, names):
    """metadata.yaml with other relative_file_paths."""
    lines = []
    for line in metadata.splitlines():
        if not line.strip().startswith('- bag.mcap'):
            other = 'relative_file_paths' in line
            lines.append(f'  relative_file_paths: {names}' if other else line)
    return '\n'.join(lines) + '\n'


@pytest.mark.parametrize(
    'names, words',
    [
        ('[bag.mcap, bag.mcap, bag.mcap]', 'names bag.mcap more than once'),
        ('[pipe.mcap]', 'is a folder, pipe or device'),
        ('[folder.mcap]', 'is a folder, pipe or device'),
        ('7', 'relative_file_paths is 7'),
        ('[[bag.mcap]]', 'expected the names of files'),
        ('[none.mcap]', 'cannot be read as a bag'),
        ('{a: b}', 'expected the names of files'),
    ],
)
def test_files_that_metadata_names_are_looked_at_first(copy, names, words):
    """A pipe would be waited for; a file named three times would be three drives."""
    os.mkfifo(copy / 'pipe.mcap')
    (copy / 'folder.mcap').mkdir()
    metadata = copy / 'metadata.yaml'
    metadata.write_text(rename(metadata.read_text(), names))
    with pytest.raises(BagError, match=words):
        SceneBag(copy)


def test_a_file_outside_the_bag_is_not_opened(copy, tmp_path):
    shutil.copy(file_of(copy), tmp_path / 'outside.mcap')
    metadata = copy / 'metadata.yaml'
    metadata.write_text(rename(metadata.read_text(), '[../outside.mcap]'))
    with pytest.raises(BagError, match='cannot be read as a bag'):
        SceneBag(copy)


def test_a_file_name_longer_than_any_is_named(tmp_path):
    bag = tmp_path / 'bag'
    bag.mkdir()
    name = 'x' * 5000 + '.mcap'
    (bag / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information:\n  relative_file_paths:\n    - ' + name + '\n'
    )
    with pytest.raises(BagError, match='5005 characters, expected at most 255') as caught:
        list(SceneBag(bag).samples)
    assert len(str(caught.value)) < 1000

"""Files and directories appear whole or not at all."""

import os

import pytest

from mta_perception.atomic_files import whole, write_atomically


def test_a_file_replaces_the_one_before(tmp_path):
    path = tmp_path / 'deep' / 'text.json'
    write_atomically(path, 'one')
    write_atomically(path, b'two')
    assert path.read_text() == 'two' and os.listdir(path.parent) == ['text.json']


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a.png'
    path.write_text('before')
    with pytest.raises(OSError, match='full'), whole(path) as place:
        place.write_text('half')
        assert place.name == 'a.png' and path.read_text() == 'before'
        raise OSError('full')
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['a.png']


def test_a_directory_appears_with_all_it_holds(tmp_path):
    with whole(tmp_path / 'bag', shared=True) as place:
        place.mkdir()
        (place / 'data').write_text('x')
        assert not (tmp_path / 'bag').exists()
        assert place.parent.name == f'.partial-bag-{os.getpid()}'
    assert (tmp_path / 'bag' / 'data').read_text() == 'x' and os.listdir(tmp_path) == ['bag']


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path):
    left = tmp_path / '.partial-bag' / 'bag'
    left.mkdir(parents=True)
    (left / 'half').write_text('x')
    with whole(tmp_path / 'bag') as place:
        place.mkdir()
    assert os.listdir(tmp_path) == ['bag'] and not os.listdir(tmp_path / 'bag')

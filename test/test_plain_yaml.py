"""YAML from elsewhere: little that stands for much, what is none, values shown cut."""

import os
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import yaml

from mta_perception.plain_yaml import MOST_BYTES, YamlError, parse_yaml, read_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
)


def laughs(levels=9, of=9):
    lines = ['a0: &a0 [' + ','.join(['lol'] * of) + ']']
    for n in range(1, levels):
        lines.append(f'a{n}: &a{n} [' + ','.join([f'*a{n - 1}'] * of) + ']')
    return '\n'.join(lines)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_what_yaml_writes_is_read(value):
    assert parse_yaml(yaml.safe_dump(value)) == value


def test_aliases_are_read_where_they_are_few():
    shared = [1, 2]
    assert parse_yaml(yaml.safe_dump({'a': shared, 'b': shared})) == {'a': [1, 2], 'b': [1, 2]}


@pytest.mark.parametrize(
    'content',
    [
        laughs(),
        'a: &a [*a]',
        '[' * 5000,
        '!!python/object/apply:os.mkdir [x]',
        '!!python/name:os.system ',
        'a: b: c',
        'a: "\udc80',
        '\x00',
        '- 2026-99-99',
        '? [a]\n: b',
    ],
)
def test_what_is_no_settings_file_is_one_line_soon(tmp_path, content):
    path = tmp_path / 'settings.yaml'
    path.write_bytes(content.encode('utf-8', 'surrogateescape'))
    began = time.monotonic()
    with pytest.raises(YamlError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 600
    assert time.monotonic() - began < 20


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'any.yaml'
    path.write_bytes(content)
    try:
        read_yaml(path)
    except YamlError as error:
        assert len(str(error).splitlines()) == 1


def test_no_file_large_file_folder_and_pipe(tmp_path):
    os.mkfifo(tmp_path / 'pipe.yaml')
    (tmp_path / 'large.yaml').write_bytes(b'#' * (MOST_BYTES + 1))
    for name in ('pipe.yaml', 'large.yaml', 'none.yaml', '.'):
        with pytest.raises(YamlError, match=str(tmp_path)):
            read_yaml(tmp_path / name)

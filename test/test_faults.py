"""Faults on purpose: each kind does what docs/safety.md says, equal seeds alike."""

from pathlib import Path
import re
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mta_perception.bags.faults import KINDS, Fault, FaultsError, faulty, read_faults
from mta_perception.plain_yaml import YamlError

DOCS = Path(__file__).resolve().parents[1] / 'docs' / 'safety.md'
START = 10**18
TICK = 10**8


def message(k, words=b''):
    return b'\0\1\0\0' + struct.pack('<iI', k, 5) + b'content %3d' % k + words


def stream(count=50, topics=('/a', '/b')):
    return [
        (topic, START + k * TICK, message(k, topic.encode()))
        for k in range(count)
        for topic in topics
    ]


def run(*faults, messages=None, seed=0):
    return list(faulty(messages or stream(), list(faults), START, seed))


def stamps(found, topic='/a'):
    return [struct.unpack_from('<i', data, 4)[0] for name, _, data in found if name == topic]


def test_without_faults_nothing_changes():
    assert run() == stream()


def test_dropped_in_the_span_of_the_topics_that_match():
    found = run(Fault('/a*', 'drop', 1.0, 2.0))
    assert stamps(found) == [*range(10), *range(20, 50)] and stamps(found, '/b') == [*range(50)]


def test_delayed_messages_are_overtaken():
    found = run(Fault('/a', 'delay', 1.0, 1.1, seconds=0.25))
    assert stamps(found) == [*range(10), 11, 12, 10, *range(13, 50)]
    times = [time for _, time, _ in found]
    assert times == sorted(times)


def test_duplicates_come_again():
    found = run(Fault('/a', 'duplicate', 4.8, 4.9, seconds=3.0))
    assert stamps(found) == [*range(50), 48]


def test_frozen_content_has_new_stamps():
    found = [data for topic, _, data in run(Fault('/a', 'freeze', 1.0, 2.0)) if topic == '/a']
    assert [struct.unpack_from('<i', data, 4)[0] for data in found] == [*range(50)]
    assert {data[12:] for data in found[9:20]} == {message(9, b'/a')[12:]}
    assert found[20] == message(20, b'/a')


def test_stamps_move_and_stand_still():
    assert stamps(run(Fault('/a', 'restamp', 4.0, seconds=-37.0)))[40:] == [*range(3, 13)]
    assert stamps(run(Fault('/a', 'still', 1.0, 3.0)))[9:31] == [9, *[10] * 20, 30]


def test_corrupt_keeps_the_length_and_the_header():
    found = [data for topic, _, data in run(Fault('/a', 'corrupt', bytes=3)) if topic == '/a']
    assert all(len(data) == len(message(k, b'/a')) for k, data in enumerate(found))
    assert all(data[:12] == message(k, b'/a')[:12] for k, data in enumerate(found))
    assert sum(data != message(k, b'/a') for k, data in enumerate(found)) > 40


@given(
    st.lists(
        st.builds(
            Fault,
            st.sampled_from(['/a', '/b', '*', '/?']),
            st.sampled_from(sorted(KINDS)),
            st.floats(0, 3),
            st.floats(3.1, 9),
            st.floats(0, 1),
            st.floats(0, 2),
            st.integers(1, 99),
        ),
        max_size=4,
    ),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_any_faults_keep_the_order_of_time_and_equal_seeds_are_alike(faults, seed):
    found = run(*faults, seed=seed)
    assert found == run(*faults, seed=seed)
    times = [time for _, time, _ in found]
    assert times == sorted(times)
    twice = sum(fault.do == 'duplicate' for fault in faults)
    assert len(found) <= (1 + twice) * len(stream())
    if not any(fault.do in ('drop', 'duplicate') for fault in faults):
        assert len(found) == len(stream())


def test_a_message_without_a_header_is_named():
    with pytest.raises(FaultsError, match='/tf: its messages do not begin with a header'):
        run(Fault('/tf', 'restamp'), messages=[('/tf', START, b'\0\1\0\0\1')])


def test_the_documented_file_is_read(tmp_path):
    text = re.search(r'```yaml\n(.*?)```', DOCS.read_text(), re.DOTALL).group(1)
    (tmp_path / 'faults.yaml').write_text(text)
    faults, seed = read_faults(tmp_path / 'faults.yaml')
    assert seed == 1 and [fault.do for fault in faults] == ['drop', 'delay', 'freeze']
    assert faults[0] == Fault('/cam_front/*', 'drop', 2.0, 5.0)
    rows = re.findall(r'^\| `(\w+)` \| [a-z]', DOCS.read_text(), re.MULTILINE)
    assert set(rows) - {'do'} == set(KINDS)


@pytest.mark.parametrize(
    'text, words',
    [
        ('7', 'expected `faults:`'),
        ('faults: {}', 'expected `faults:`'),
        ('{faults: [], sed: 1}', 'sed'),
        ('{faults: [], seed: x}', 'whole `seed`'),
        ('faults: [7]', 'fault 1 is 7'),
        ('faults: [{topic: /a, do: explode}]', 'one of drop, delay'),
        ('faults: [{do: drop}]', 'expected topic'),
        ('faults: [{topic: /a, do: drop, when: 3}]', 'perhaps from, to'),
        ('faults: [{topic: /a, do: drop, from: x}]', "begin_s is 'x'"),
        ('faults: [{topic: /a, do: drop, from: 3, to: 2}]', 'from before to'),
        ('faults: [{topic: /a, do: corrupt, bytes: 1.5}]', 'bytes is 1.5'),
        ('faults: [{topic: /a, do: drop, share: 2}]', 'share'),
        ('faults: [{topic: /a, do: delay, seconds: -1}]', 'expected 0 or more'),
        ('faults: [', 'no YAML'),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, words):
    path = tmp_path / 'faults.yaml'
    path.write_text(text)
    with pytest.raises((FaultsError, YamlError), match=re.escape(words)) as caught:
        read_faults(path)
    assert 'faults.yaml' in str(caught.value) and len(str(caught.value).splitlines()) == 1

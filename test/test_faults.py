"""Faults on purpose: each kind does what docs/safety.md says, equal seeds alike."""

import math
from pathlib import Path
import re
import struct

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.bags.faults import (
    KINDS,
    Fault,
    faults_file,
    faulty,
    read_faults,
    shipped_faults,
)
from mta_perception.bags.faulty_contents import FaultsError
from mta_perception.bags.typestore import message as typed
from mta_perception.bags.typestore import time_message, typestore
from mta_perception.plain_yaml import YamlError

DOCS = Path(__file__).resolve().parents[1] / 'docs' / 'safety.md'
START = 10**18
TICK = 10**8
IMAGE = 'sensor_msgs/msg/CompressedImage'
TYPES = {'/a': IMAGE, '/b': IMAGE}
PICTURE = cv2.imencode('.png', np.full((4, 8, 3), 90, np.uint8))[1].tobytes()


def message(k, words=b''):
    """A stamped picture of its own, serialised; the stamp is k s and 5 ns."""
    return serialised(
        IMAGE,
        header=typed('std_msgs/msg/Header', stamp=time_message(k * 10**9 + 5), frame_id='camera'),
        format='png',
        data=np.frombuffer(PICTURE + b'content %3d' % k + words, np.uint8),
    )


def serialised(kind, **fields):
    return bytes(typestore().serialize_cdr(typed(kind, **fields), kind))


def read(data, kind=IMAGE):
    return typestore().deserialize_cdr(data, kind)


def stream(count=50, topics=('/a', '/b')):
    return [
        (topic, START + k * TICK, message(k, topic.encode()))
        for k in range(count)
        for topic in topics
    ]


def run(*faults, messages=None, seed=0, types=TYPES):
    return list(faulty(messages or stream(), list(faults), START, seed, types))


def only(fault, kind=IMAGE, **fields):
    """What one message of a type is after one fault."""
    data = message(3) if kind == IMAGE and not fields else serialised(kind, **fields)
    ((_, _, found),) = run(fault, messages=[('/a', START, data)], types={'/a': kind})
    return read(found, kind)


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
            st.sampled_from(sorted(KINDS.keys() - {'resize', 'set', 'add', 'thin'})),
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
@settings(max_examples=60, deadline=None)
def test_any_faults_keep_the_order_of_time_and_equal_seeds_are_alike(faults, seed):
    found = run(*faults, seed=seed)
    assert found == run(*faults, seed=seed)
    times = [time for _, time, _ in found]
    assert times == sorted(times)
    twice = sum(fault.times for fault in faults if fault.do == 'duplicate')
    assert len(found) <= (1 + twice) * len(stream())
    if not any(fault.do in ('drop', 'duplicate') for fault in faults):
        assert len(found) == len(stream())


def test_thinned_messages_keep_their_pace():
    assert stamps(run(Fault('/a', 'thin', hz=2.0))) == [*range(0, 50, 5)]


def test_many_duplicates():
    found = run(Fault('/a', 'duplicate', 1.0, 1.1, seconds=0.01, times=9))
    assert stamps(found).count(10) == 10 and stamps(found).count(11) == 1


def test_pictures_are_cut_grow_and_change_their_size():
    whole = bytes(read(message(3)).data)
    assert bytes(only(Fault('/a', 'cut', keep=0.25)).data) == whole[: len(whole) // 4]
    assert len(only(Fault('/a', 'cut', keep=0)).data) == 0
    assert bytes(only(Fault('/a', 'grow', bytes=500)).data) == whole + bytes(500)
    resized = cv2.imdecode(only(Fault('/a', 'resize', scale=2.0)).data, cv2.IMREAD_COLOR)
    assert resized.shape == (8, 16, 3) and (resized == 90).all()
    assert only(Fault('/a', 'resize')).header.stamp.sec == 3


def test_raw_pictures_change_their_size():
    header = typed('std_msgs/msg/Header', stamp=time_message(5), frame_id='camera')
    found = only(
        Fault('/a', 'resize'),
        'sensor_msgs/msg/Image',
        header=header,
        height=4,
        width=8,
        encoding='bgr8',
        is_bigendian=0,
        step=24,
        data=np.full(96, 90, np.uint8),
    )
    assert (found.height, found.width, found.step) == (2, 4, 12) and len(found.data) == 24


def pose():
    numbers = {'x': 1.0, 'y': 2.0, 'z': 3.0}
    return {
        'position': typed('geometry_msgs/msg/Point', **numbers),
        'orientation': typed('geometry_msgs/msg/Quaternion', **numbers, w=4.0),
    }


@pytest.mark.parametrize(
    'fault, what, expected',
    [
        (Fault('/a', 'set', field='position.x', value=-7), lambda m: m.position.x, -7.0),
        (Fault('/a', 'set', field='position.y', value=math.nan), lambda m: m.position.y, math.nan),
        (Fault('/a', 'add', field='position.z', value=100), lambda m: m.position.z, 103.0),
        (
            Fault('/a', 'set', field='orientation', value={'z': 1.0, 'w': 0}),
            lambda m: (m.orientation.x, m.orientation.z, m.orientation.w),
            (1.0, 1.0, 0.0),
        ),
    ],
)
def test_fields_are_set_and_added_to(fault, what, expected):
    found = what(only(fault, 'geometry_msgs/msg/Pose', **pose()))
    np.testing.assert_equal(found, expected)


def test_texts_and_arrays_are_set():
    assert only(Fault('/a', 'set', field='header.frame_id', value='x')).header.frame_id == 'x'
    assert bytes(only(Fault('/a', 'set', field='data', value=[1, 2])).data) == b'\1\2'
    assert set(only(Fault('/a', 'set', field='data', value=7)).data.tolist()) == {7}


@pytest.mark.parametrize(
    'fault, words',
    [
        (Fault('/a', 'set', field='pose.x', value=1), 'no \'pose.x\'; at "pose" there is header'),
        (Fault('/a', 'set', field='header.frame_id', value=1), 'expected str'),
        (Fault('/a', 'set', field='header', value=1), 'expected names and values'),
        (Fault('/a', 'set', field='header.stamp.sec', value='x'), 'expected'),
        (Fault('/a', 'set', field='data', value=['x']), 'invalid literal'),
        (Fault('/a', 'add', field='format', value='x'), 'format is no number'),
        (Fault('/a', 'set', field='header.stamp.sec', value=10**12), '/a'),
    ],
)
def test_values_that_do_not_fit_are_named(fault, words):
    with pytest.raises(FaultsError, match=re.escape(words)) as caught:
        run(fault)
    assert f'/a ({IMAGE}), `{fault.do}`' in str(caught.value)


def test_stamps_of_transforms_move_and_what_has_none_is_left_or_named():
    header = typed('std_msgs/msg/Header', stamp=time_message(9 * 10**9), frame_id='map')
    numbers = {'x': 0.0, 'y': 0.0, 'z': 0.0}
    transform = typed(
        'geometry_msgs/msg/TransformStamped',
        header=header,
        child_frame_id='base_link',
        transform=typed(
            'geometry_msgs/msg/Transform',
            translation=typed('geometry_msgs/msg/Vector3', **numbers),
            rotation=typed('geometry_msgs/msg/Quaternion', **numbers, w=1.0),
        ),
    )
    tree = 'tf2_msgs/msg/TFMessage'
    found = only(Fault('/a', 'restamp', seconds=-4), tree, transforms=[transform])
    assert found.transforms[0].header.stamp.sec == 5
    text = 'std_msgs/msg/String'
    assert only(Fault('*', 'restamp'), text, data='x').data == 'x'
    with pytest.raises(FaultsError, match='do not begin with a header'):
        only(Fault('/a', 'restamp'), text, data='x')


@pytest.mark.parametrize('name', shipped_faults())
def test_shipped_faults_can_be_read_and_say_what_they_are(name):
    faults, _ = read_faults(faults_file(name))
    assert faults and all(fault.begin_s == 2.0 for fault in faults)
    assert all(fault.topic == '*' or fault.topic.startswith('*/') for fault in faults)
    assert f'`{name}`' in DOCS.read_text(), 'not in docs/safety.md'


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(FaultsError, match='one_camera_dead'):
        faults_file('one_camera_ded')


def test_the_documented_file_is_read(tmp_path):
    text = re.search(r'```yaml\n(.*?)```', DOCS.read_text(), re.DOTALL).group(1)
    (tmp_path / 'faults.yaml').write_text(text)
    faults, seed = read_faults(tmp_path / 'faults.yaml')
    assert seed == 1 and [fault.do for fault in faults] == ['drop', 'delay', 'freeze']
    assert faults[0] == Fault('*/cam_front/*', 'drop', 2.0, 5.0)
    rows = re.findall(r'^\| `(\w+)` \| (?:is|has) ', DOCS.read_text(), re.MULTILINE)
    assert set(rows) == set(KINDS)


@pytest.mark.parametrize(
    'text, words',
    [
        ('7', 'expected `faults:`'),
        ('faults: {}', 'expected `faults:`'),
        ('{faults: [], sed: 1}', 'sed'),
        ('{faults: [], seed: x}', 'whole `seed`'),
        ('faults: [7]', 'fault 1 is 7'),
        ('faults: [{topic: /a, do: explode}]', 'one of drop, thin'),
        ('faults: [{do: drop}]', 'expected topic'),
        ('faults: [{topic: /a, do: [drop]}]', 'expected topic'),
        ('faults: [{topic: /a, do: drop, when: 3}]', 'perhaps from, to'),
        ('faults: [{topic: /a, do: drop, from: x}]', "begin_s is 'x'"),
        ('faults: [{topic: /a, do: drop, from: 3, to: 2}]', 'expected it before to'),
        ('faults: [{topic: /a, do: corrupt, bytes: 1.5}]', 'bytes is 1.5'),
        ('faults: [{topic: /a, do: drop, share: 2}]', 'share'),
        ('faults: [{topic: /a, do: delay, seconds: -1}]', 'expected 0 or more'),
        ('faults: [{topic: /a, do: set, value: 3}]', 'needs the name of a field'),
        ('faults: [{topic: /a, do: set, field: x}]', 'and a value'),
        ('faults: [{topic: /a, do: set, field: 7, value: 3}]', 'expected a name'),
        ('faults: [{topic: /a, do: grow, bytes: 900000000}]', 'bytes <= 2e+08'),
        ('faults: [{topic: /a, do: thin, hz: 0}]', '0.001 <= hz'),
        ('faults: [', 'no YAML'),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, words):
    path = tmp_path / 'faults.yaml'
    path.write_text(text)
    with pytest.raises((FaultsError, YamlError), match=re.escape(words)) as caught:
        read_faults(path)
    assert 'faults.yaml' in str(caught.value) and len(str(caught.value).splitlines()) == 1

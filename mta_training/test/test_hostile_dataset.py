"""Datasets from strangers: whatever their tables say, conversion reads and writes below the named
folders only, and ends well or with one line that names table, token and field."""

import json
import os
import shutil

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest
from tiny_dataset import VERSION

from mta_perception.bags.scene_bag import SceneBag
from mta_training.conversion.convert import convert
from mta_training.conversion.table_fields import TABLES, DatasetError

HUGE = 10**29
STRANGE = [
    *(None, True, 0, -1, HUGE, -HUGE, 1e300, -1e300, 0.5, float('nan'), float('inf')),
    *('', 'x', '../../x', '/etc/passwd', '\x00', '\ud800', 'x' * 10**5, '.hidden', 'a/b', '..'),
    *([], {}, [[]], [None] * 3, [float('nan')] * 3, [1e300] * 3, [0, 0, 0, 0], ['x'] * 4),
    *([[0, 0, 0]] * 3, [[float('nan')] * 3] * 3, [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]),
    *({'token': 'x'}, [{'a': 1}]),
]


@pytest.fixture
def copy(dataset, tmp_path):
    """The dataset in a folder of its own; images as links of the file system."""
    return shutil.copytree(dataset, tmp_path / 'root' / 'set', copy_function=os.link)


def edit(path, change):
    """Change the rows of a JSON file; a new file, because the old one is shared."""
    rows = json.loads(path.read_text())
    change(rows)
    path.unlink()
    path.write_text(json.dumps(rows))


def everything(folder):
    return sorted(path for path in folder.rglob('*'))


def refused(root, out, *words):
    """Conversion refuses in one line with these words and writes nothing outside `out`."""
    before = [path for path in everything(root.parent.parent) if out not in path.parents]
    with pytest.raises(DatasetError) as caught:
        convert(root, out, workers=1, progress=False)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and len(text) < 1500
    for word in words:
        assert word in text
    after = [path for path in everything(root.parent.parent) if out not in path.parents]
    assert [path for path in after if path != out] == [path for path in before if path != out]


@pytest.mark.parametrize(
    'name', ['../../x', '/x/y', 'a/b', '.', '..', '.partial-x', '', 'a\x00b', 'a\nb', 'x' * 300]
)
def test_a_scene_is_written_below_out_or_not_at_all(copy, tmp_path, name):
    edit(copy / VERSION / 'scene.json', lambda rows: rows[0].update(name=name))
    refused(copy, tmp_path / 'bags', 'scene.json', 'name is')


def test_two_scenes_of_one_name_are_refused(copy, tmp_path):
    edit(copy / VERSION / 'scene.json', lambda rows: rows[1].update(name=rows[0]['name']))
    refused(copy, tmp_path / 'bags', 'two scenes are called scene-0001')


@pytest.mark.parametrize('name', ['/dev/zero', '/etc/hostname', '../outside.jpg', 'a/../../x.jpg'])
def test_an_image_outside_the_dataset_is_not_read(copy, tmp_path, name):
    (copy.parent / 'outside.jpg').write_bytes(b'\xff\xd8 secret \xff\xd9')
    edit(copy / VERSION / 'sample_data.json', lambda rows: rows[3].update(filename=name))
    refused(copy, tmp_path / 'bags', 'sample_data.json', 'filename')


def camera_rows(root):
    rows = json.loads((root / VERSION / 'sample_data.json').read_text())
    return [row for row in rows if row['filename'].endswith('.jpg')]


@pytest.mark.parametrize('whole_folder', [False, True])
def test_a_link_out_of_the_dataset_is_not_followed(copy, tmp_path, whole_folder):
    place = copy / camera_rows(copy)[0]['filename']
    place = place.parent if whole_folder else place
    shutil.move(place, copy.parent / 'elsewhere')
    place.symlink_to(copy.parent / 'elsewhere')
    refused(copy, tmp_path / 'bags', 'sample_data', 'outside the dataset')
    bags = convert(copy, tmp_path / 'bags', workers=1, progress=False, follow_links=True)
    assert len(bags) == 2


def test_a_link_within_the_dataset_is_followed(copy, tmp_path):
    place = copy / camera_rows(copy)[0]['filename']
    shutil.move(place, copy / 'elsewhere.jpg')
    place.symlink_to(copy / 'elsewhere.jpg')
    bags = convert(copy, tmp_path / 'bags', workers=1, progress=False)
    assert len(bags) == 2


def test_a_can_bus_file_that_leads_outside_is_not_read(copy, tmp_path):
    place = copy / 'can_bus' / 'scene-0001_pose.json'
    shutil.move(place, copy.parent / 'pose.json')
    place.symlink_to(copy.parent / 'pose.json')
    refused(copy, tmp_path / 'bags', 'can_bus', 'outside the dataset')


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda rows: rows[2].update(accel=[0, float('nan'), 0]), 'accel'),
        (lambda rows: rows[2].update(utime='x'), 'utime'),
        (lambda rows: rows[2].pop('orientation'), 'orientation'),
        (lambda rows: rows.insert(0, 7), 'message 0: orientation is 7'),
    ],
)
def test_a_can_bus_message_that_cannot_be_is_named(copy, tmp_path, change, words):
    edit(copy / 'can_bus' / 'scene-0001_pose.json', change)
    refused(copy, tmp_path / 'bags', 'scene-0001_pose.json', words)


@pytest.mark.parametrize(
    'entry', [7, None, ['x'], 'x', {'final_caption': ['x']}, {'depth_caption': {'depth': 1e400}}]
)
def test_a_caption_that_cannot_be_is_named(copy, tmp_path, entry):
    path = copy / 'captions' / 'final_caption_bbox_token.json'
    edit(path, lambda entries: entries.update({next(iter(entries)): entry}))
    refused(copy, tmp_path / 'bags', path.name, 'caption')


@given(st.data())
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_field_of_any_table_may_hold_anything(dataset, tmp_path_factory, data):
    base = tmp_path_factory.mktemp('mutated')
    copy = shutil.copytree(dataset, base / 'root' / 'set', copy_function=os.link)
    table = data.draw(st.sampled_from(sorted(TABLES)))
    path = copy / VERSION / f'{table}.json'
    rows = json.loads(path.read_text())
    row = rows[data.draw(st.integers(0, len(rows) - 1))]
    field = data.draw(st.sampled_from(sorted(row)))
    if data.draw(st.integers(0, 5)) == 0:
        del row[field]
    else:
        row[field] = data.draw(st.sampled_from(STRANGE))
    path.unlink()
    path.write_text(json.dumps(rows))
    try:
        bags = convert(copy, base / 'bags', workers=1, progress=False)
    except DatasetError as error:
        text = str(error)
        assert len(text.splitlines()) == 1 and len(text) < 1500, text
    else:
        for bag in bags:
            assert bag.parent == base / 'bags'
            assert SceneBag(bag).samples
    assert {path.name for path in base.iterdir()} <= {'root', 'bags'}
    shutil.rmtree(base)

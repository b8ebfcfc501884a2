"""A small synthetic dataset through the official devkit: tables, evaluation, CAN bus, captions,
resuming.
"""

from collections import Counter
import hashlib
import json
import shutil

import cv2
import numpy as np
from nuscenes import NuScenes
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import BoxVisibility
from pyquaternion import Quaternion
import pytest

from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.geometry import level_pose
from mta_training.captions import grammar
from mta_training.conversion.dataset_writer import TABLES, splits_of
from mta_training.synth.dataset import generate, record
from mta_training.synth.dataset.generate import SynthesisError, synthesise
from mta_training.synth.render.renderer import Renderer

SEED = 55  # its first scene shows all ten classes
SMALL = {'image_size': (320, 180), 'sweeps': True, 'seconds': 3.0, 'progress': False}


@pytest.fixture(scope='module', params=['level', 'street'])
def world(request):
    return request.param


@pytest.fixture(scope='module')
def root(tmp_path_factory, world):
    out = tmp_path_factory.mktemp('synth') / 'set'
    return synthesise(out, 1, SEED, workers=1, world=world, **SMALL)


@pytest.fixture(scope='module')
def nusc(root):
    return NuScenes('v1.0-mini', str(root), verbose=False)


def test_devkit_loads_all_tables(root, nusc):
    assert all((root / 'v1.0-mini' / f'{table}.json').is_file() for table in TABLES)
    assert len(nusc.scene) == 1 and len(nusc.sample) == 6
    assert Counter(row['channel'] for row in nusc.sample_data) == {
        **{camera.upper(): 31 for camera in CAMERAS},
        'LIDAR_TOP': 6,
    }
    assert set(nusc.sample[0]['data']) == {*(camera.upper() for camera in CAMERAS), 'LIDAR_TOP'}
    assert nusc.map[0]['mask'].mask().max() > 0


def test_every_file_is_there_and_has_its_size(root, nusc):
    for row in nusc.sample_data:
        path = root / row['filename']
        assert path.is_file()
        if row['fileformat'] == 'jpg':
            image = cv2.imread(str(path))
            assert image.shape[:2] == (row['height'], row['width']) == (180, 320)
            assert row['is_key_frame'] == row['filename'].startswith('samples/')
            assert str(row['timestamp']) in row['filename']
    assert not list(root.rglob('.partial-*'))


def test_chains_and_stamps(nusc):
    for sample in nusc.sample:
        assert (
            nusc.get('sample_data', sample['data']['LIDAR_TOP'])['timestamp']
            == sample['timestamp']
        )
        offsets = [
            nusc.get('sample_data', sample['data'][camera.upper()])['timestamp']
            - sample['timestamp']
            for camera in CAMERAS
        ]
        assert sorted(offsets) == [-43000, -35000, -28000, -20000, -10000, -500]
    for table in ('sample', 'sample_data', 'sample_annotation'):
        for row in getattr(nusc, table):
            if row['next']:
                assert nusc.get(table, row['next'])['prev'] == row['token']
    for instance in nusc.instance:
        count, token = 0, instance['first_annotation_token']
        while token:
            row = nusc.get('sample_annotation', token)
            assert row['instance_token'] == instance['token']
            count, last, token = count + 1, token, row['next']
        assert (count, last) == (instance['nbr_annotations'], instance['last_annotation_token'])
    stamps = [row['timestamp'] for row in nusc.sample_data if row['channel'] == 'CAM_FRONT']
    assert np.allclose(np.diff(sorted(stamps)), 500000 / 6, atol=1)


def _truth_as_results(nusc, path):
    attributes = {row['token']: row['name'] for row in nusc.attribute}
    results = {sample['token']: [] for sample in nusc.sample}
    for row in nusc.sample_annotation:
        velocity = nusc.box_velocity(row['token'])[:2]
        results[row['sample_token']].append(
            {
                'sample_token': row['sample_token'],
                'translation': row['translation'],
                'size': row['size'],
                'rotation': row['rotation'],
                'velocity': np.nan_to_num(velocity).tolist(),
                'detection_name': category_to_detection_name(row['category_name']),
                'detection_score': 0.5,
                'attribute_name': ''.join(attributes[token] for token in row['attribute_tokens']),
            }
        )
    meta = {
        f'use_{source}': source == 'camera'
        for source in ('camera', 'lidar', 'radar', 'map', 'external')
    }
    path.write_text(json.dumps({'meta': meta, 'results': results}))
    return path


def test_ground_truth_fed_as_results_scores_full_marks(nusc, tmp_path):
    evaluation = DetectionEval(
        nusc,
        config_factory('detection_cvpr_2019'),
        str(_truth_as_results(nusc, tmp_path / 'truth.json')),
        'synth_val',
        str(tmp_path),
        verbose=False,
    )
    summary = evaluation.main(plot_examples=0, render_curves=False)
    assert {name for name, value in summary['mean_dist_aps'].items() if value > 0} == set(CLASSES)
    assert summary['mean_ap'] > 0.99 and summary['nd_score'] > 0.99
    attributes = summary['label_tp_errors']
    assert all(attributes[name]['attr_err'] == 0 for name in ('car', 'pedestrian', 'bicycle'))


def test_devkit_boxes_lie_on_the_objects_pixels(nusc, world):
    """Project boxes with the official code and compare with what the renderer drew there."""
    from mta_training.synth.actors.scenario import build_scenario
    from mta_training.synth.scene import CameraView

    scene = build_scenario(SEED, 0, 3.0, 320, 180, world)
    renderer, checked = Renderer(scene.town.static, scene.weather), 0
    sample = nusc.sample[2]
    for camera, calibration in scene.rig.cameras.items():
        row = nusc.get('sample_data', sample['data'][camera.upper()])
        time = (row['timestamp'] - scene.start_us) / 1e6
        states = {s.instance: s for s in scene.traffic.states(time)}
        pose = nusc.get('ego_pose', row['ego_pose_token'])
        world_from_ego = scene.traffic.world_from_ego(time)
        assert np.allclose(world_from_ego[:3, 3], pose['translation'])
        turned = Quaternion(pose['rotation']).rotation_matrix
        assert np.allclose(world_from_ego[:3, :3], turned, atol=1e-6)
        assert (abs(turned[2, 2] - 1.0) < 1e-9) == (world == 'level')  # the body leans
        view = CameraView(
            calibration.intrinsics,
            320,
            180,
            scene.traffic.world_from_ego(time) @ calibration.ego_from_camera,
            1.0,
            0,
        )
        ids = renderer.render(view, list(states.values())).instances
        _, boxes, intrinsics = nusc.get_sample_data(row['token'], box_vis_level=BoxVisibility.ALL)
        tokens = {box.token: box for box in boxes}
        for instance, state in states.items():
            still = np.hypot(*state.velocity) == 0
            token = record.SceneTables(SEED, scene).annotation_token(instance, 2)
            if not still or token not in tokens or (ids == instance).sum() < 60:
                continue
            corners = intrinsics @ tokens[token].corners()
            low, high = (
                (corners[:2] / corners[2]).min(axis=1),
                (corners[:2] / corners[2]).max(axis=1),
            )
            v, u = np.nonzero(ids == instance)
            assert u.min() >= low[0] - 2 and u.max() <= high[0] + 2, (camera, state.category)
            assert v.min() >= low[1] - 2 and v.max() <= high[1] + 2, (camera, state.category)
            checked += 1
    assert checked > 5


def test_lidar_points_are_what_the_annotations_count(root, nusc):
    compared = 0
    for sample in nusc.sample[:3]:
        row = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
        cloud = LidarPointCloud.from_file(str(root / row['filename']))
        _, boxes, _ = nusc.get_sample_data(row['token'])
        for box in boxes:
            local = Quaternion(box.orientation).inverse.rotation_matrix @ (
                cloud.points[:3] - box.center[:, None]
            )
            half = np.array([box.wlh[1], box.wlh[0], box.wlh[2]])[:, None] / 2 + 0.01
            inside = int((np.abs(local) <= half).all(axis=0).sum())
            count = nusc.get('sample_annotation', box.token)['num_lidar_pts']
            # Points of the ground under the box's edge, or of a neighbour, may fall within the
            # margin.
            assert count >= 1 and inside >= count and inside - count < 30 + count
            compared += 1
    assert compared > 30


def test_can_bus_agrees_with_the_ego_poses(root, nusc):
    messages = NuScenesCanBus(str(root)).get_messages('scene-0001', 'pose')
    times = np.array([m['utime'] for m in messages])
    assert np.all(np.diff(times) == 20000)
    row = nusc.get('sample_data', nusc.sample[3]['data']['LIDAR_TOP'])
    pose = nusc.get('ego_pose', row['ego_pose_token'])
    k = int(np.abs(times - row['timestamp']).argmin())
    assert times[k] == row['timestamp']
    assert np.allclose(messages[k]['pos'], pose['translation'])
    assert np.allclose(messages[k]['orientation'], pose['rotation'])
    moved = np.array(messages[k + 1]['pos']) - messages[k - 1]['pos']
    velocity = Quaternion(pose['rotation']).rotation_matrix @ messages[k]['vel']
    assert np.allclose(velocity, moved / 0.04, atol=1e-6)


def test_captions_are_true(root, nusc):
    entries = json.loads((root / 'captions' / 'final_caption_bbox_token.json').read_text())
    assert set(entries) == {row['token'] for row in nusc.sample_annotation}
    attributes = {row['token']: row['name'] for row in nusc.attribute}
    nouns = Counter()
    for token, entry in entries.items():
        row = nusc.get('sample_annotation', token)
        facts = grammar.parse(entry['final_caption'])
        assert len(entry['final_caption'].split()) <= 34
        lidar = nusc.get(
            'sample_data', nusc.get('sample', row['sample_token'])['data']['LIDAR_TOP']
        )
        pose = nusc.get('ego_pose', lidar['ego_pose_token'])
        world_from_ego = np.eye(4)
        world_from_ego[:3, :3] = Quaternion(pose['rotation']).rotation_matrix
        # Distances and sides are those of the level frame, whatever the body does.
        x, y, _ = level_pose(world_from_ego)[:3, :3].T @ (
            np.array(row['translation']) - pose['translation']
        )
        assert facts.distance == round(float(np.hypot(x, y)))
        assert facts.sector == grammar.sector_of(x, y)
        name = category_to_detection_name(row['category_name'])
        assert grammar.NOUNS[facts.thing.noun][0] == name
        attribute = ''.join(attributes[t] for t in row['attribute_tokens'])
        assert (facts.motion == 'parked') == (attribute == 'vehicle.parked')
        if attribute in ('vehicle.moving', 'pedestrian.moving'):
            assert facts.motion.startswith(('moving', 'crossing'))
        if attribute.startswith('cycle'):
            assert facts.thing.rider == (attribute == 'cycle.with_rider')
        assert (
            entry['cam_file'].startswith('samples/CAM_') and (root / entry['cam_file']).is_file()
        )
        x1, y1, x2, y2 = entry['2d_bbox']
        assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 180
        nouns[facts.thing.noun] += 1
    assert len(nouns) >= 10


def _digest(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


TINY = {'image_size': (128, 72), 'sweeps': False, 'seconds': 1.0, 'progress': False}


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers_nor_on_interruption(tmp_path):
    alone = synthesise(tmp_path / 'alone', 2, 5, workers=1, **TINY)
    together = synthesise(tmp_path / 'together', 2, 5, workers=2, **TINY)
    expected = _digest(alone)
    assert _digest(together) == expected
    # An interrupted run: the second scene is half there, there are no tables.
    shutil.rmtree(together / 'v1.0-mini')
    record.part_path(together, 'scene-0002').unlink()
    first = next((together / 'samples' / 'CAM_FRONT').glob('*scene-0002*'))
    first.unlink()
    untouched = next((together / 'samples' / 'CAM_FRONT').glob('*scene-0001*'))
    stamp = untouched.stat().st_mtime_ns
    synthesise(together, 2, 5, workers=1, **TINY)
    assert _digest(together) == expected
    assert untouched.stat().st_mtime_ns == stamp  # what was finished is not made again


@pytest.fixture
def full_disk(monkeypatch):
    """No image can be written."""

    class Broken(Renderer):
        def render(self, *arguments):
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(generate, 'Renderer', Broken)


def test_a_failing_scene_leaves_nothing_that_looks_whole(tmp_path, full_disk):
    with pytest.raises(SynthesisError, match='No space left on device'):
        synthesise(tmp_path / 'set', 1, 5, workers=1, **TINY)
    assert not (tmp_path / 'set' / 'v1.0-mini').exists()
    assert not record.part_path(tmp_path / 'set', 'scene-0001').exists()


@pytest.mark.parametrize(
    'change, words',
    [({'seed': 6}, 'seed 5 \\(now 6\\)'), ({'image_size': (160, 90)}, 'width 128 \\(now 160\\)')],
)
def test_a_folder_begun_otherwise_is_refused(tmp_path, full_disk, change, words):
    def begin(seed=5, **arguments):
        synthesise(tmp_path / 'set', 1, seed, workers=1, **arguments)

    with pytest.raises(SynthesisError, match='No space left'):
        begin(**TINY)
    with pytest.raises(SynthesisError, match=words):
        begin(**{**TINY, **change})


@pytest.mark.parametrize(
    'arguments, words',
    [
        ({'scenes': 0}, '0 scenes'),
        ({'scenes': 1, 'seed': -1}, 'negative'),
        ({'scenes': 1, 'image_size': (800, 600)}, '800x600'),
        ({'scenes': 1, 'seconds': 0.4}, 'too short'),
        ({'scenes': 1, 'version': 'a/b'}, 'folder name'),
    ],
)
def test_impossible_wishes_are_named(tmp_path, arguments, words):
    with pytest.raises(SynthesisError, match=words):
        synthesise(tmp_path / 'set', **{'seed': 1, **arguments})
    assert not (tmp_path / 'set').exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(SynthesisError, match='not empty'):
        synthesise(tmp_path, 1, 1, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


@pytest.mark.parametrize(
    'count, held_out', [(1, [1]), (2, [2]), (4, [4]), (5, [5]), (12, [5, 10])]
)
def test_splits(count, held_out):
    names = [f'scene-{k:04d}' for k in range(1, count + 1)]
    splits = splits_of(names)
    assert splits['synth_val'] == [f'scene-{k:04d}' for k in held_out]
    assert splits['synth_all'] == names
    assert set(splits['synth_train']) | set(splits['synth_val']) == set(names)
    assert count == 1 or not set(splits['synth_train']) & set(splits['synth_val'])

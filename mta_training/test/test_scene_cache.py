"""Bags become arrays: geometry of the real key frame, and a cache that gives back what went in."""

import os
from pathlib import Path
import shutil
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from toy_scenes import toy_scene

pytest.importorskip('torch')

from mta_perception.bags.scene_bag import BagError, SceneBag, find_bags
from mta_perception.bags.typestore import typestore
from mta_perception.contract import CAMERAS
from mta_perception.geometry import invert_rigid, transform
from mta_perception.model.config import ImageConfig, MtaConfig
from mta_training.conversion.convert import convert
from mta_training.data import scene_cache
from mta_training.data.scene_arrays import every_step, load_scene
from mta_training.data.scene_drive import drive_scene
from mta_training.training.bag_training import split_bags

IMAGE = ImageConfig(448, 256, 0.28)
SHARED = Path(os.environ.get('MTA_SHARED', Path(__file__).parents[3] / 'shared'))
REAL = SHARED / 'data' / 'nuscenes_real'


@pytest.fixture(scope='module')
def real_bag(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip(f'{REAL} is not there (set MTA_SHARED)')
    return convert(
        REAL, tmp_path_factory.mktemp('bags'), version='v1.0-mini', workers=1, progress=False
    )[0]


def test_camera_centres_project_from_where_the_cameras_are(real_bag):
    """The point 10 m before a camera's own centre falls on its scaled principal point."""
    scene, bag = scene_cache.read_scene(real_bag, IMAGE), SceneBag(real_bag)
    sample = bag.samples[0].levelled()
    for slot, camera in enumerate(CAMERAS):
        calibration = bag.calibrations[camera]
        world_from_ego_then = bag.world_from_ego_at(sample.image_stamps[camera])
        ahead = transform(
            invert_rigid(sample.world_from_ego)
            @ world_from_ego_then
            @ calibration.ego_from_camera,
            np.array([0.0, 0.0, 10.0]),
        )
        u, v, depth = scene.image_from_ego[0, slot].astype(float) @ [*ahead, 1.0]
        principal = (calibration.intrinsics[:2, 2] + 0.5) * IMAGE.scale - 0.5
        np.testing.assert_allclose([u / depth, v / depth], principal, atol=1e-2)
        assert depth == pytest.approx(10.0, abs=1e-3)


def test_images_fill_the_model_size_and_pad_below(real_bag):
    scene = scene_cache.read_scene(real_bag, IMAGE)
    assert scene.images.shape == (1, 6, 256, 448, 3) and scene.present.all()
    assert (scene.images[:, :, 252:] == 0).all()
    assert scene.images[:, :, :252].mean() > 20


def test_boxes_are_those_with_points(real_bag):
    scene = scene_cache.read_scene(real_bag, IMAGE)
    sample = SceneBag(real_bag).samples[0].levelled()
    kept = sample.num_lidar_pts + sample.num_radar_pts > 0
    assert 0 < len(scene.boxes[0]) == kept.sum() <= len(sample.boxes)
    np.testing.assert_allclose(scene.boxes[0], sample.boxes[kept], rtol=1e-5, equal_nan=True)


def test_cache_gives_back_the_scene_and_is_made_once(real_bag, tmp_path):
    first = scene_cache.cache_scene(real_bag, tmp_path, IMAGE)
    made = (first / 'images.npy').stat().st_mtime_ns
    assert scene_cache.cache_scene(real_bag, tmp_path, IMAGE) == first
    assert (first / 'images.npy').stat().st_mtime_ns == made
    loaded, direct = load_scene(first), scene_cache.read_scene(real_bag, IMAGE)
    assert isinstance(loaded.images, np.memmap)
    assert loaded.captions == direct.captions and loaded.sample_tokens == direct.sample_tokens
    for name in ('images', 'present', 'image_from_ego', 'world_from_ego', 'stamps_ns'):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(direct, name))
    for a, b in zip(loaded.boxes + loaded.labels, direct.boxes + direct.labels):
        np.testing.assert_array_equal(a, b)
    other = scene_cache.cache_path(real_bag, tmp_path, ImageConfig(224, 128, 0.14))
    assert other != first and not other.exists()


def stretched(scene, gap_s):
    return scene._replace(stamps_ns=np.arange(len(scene.boxes)) * round(gap_s * 1e9))


@pytest.mark.parametrize('gap_s, kept', [(0.5, 1), (0.45, 1), (0.1, 4), (1 / 12, 5), (2.0, 1)])
def test_training_takes_key_frames_half_a_second_apart(gap_s, kept):
    """Nuscenes' all, of those at 10 Hz every fourth: 0.4 s."""
    scene = stretched(toy_scene(MtaConfig.toy(), frames=12), gap_s)
    chosen = every_step(scene)
    assert chosen.sample_tokens == scene.sample_tokens[::kept]
    assert len(chosen.images) == len(chosen.boxes) == len(chosen.captions) == len(chosen.stamps_ns)
    assert (chosen is scene) == (kept == 1)


@pytest.mark.parametrize('gap_s', [0.5, 0.25, 0.1])
def test_evaluation_has_the_history_that_the_model_was_trained_with(gap_s):
    """Whatever the distance of a bag's key frames: the memory goes by stamps."""
    scene = stretched(toy_scene(MtaConfig.toy(), frames=16), gap_s)

    def detector(images, image_from_ego, camera_mask, history):
        return SimpleNamespace(bev=np.zeros((1, 2, 2), np.float32))

    ages = [one.history.age_s for one in drive_scene(detector, scene, range(16))]
    settled = ages[round(0.5 / gap_s) :]
    assert settled and all(abs(age - 0.5) < 1e-6 for age in settled)


def test_a_directory_without_bags_is_named(tmp_path):
    with pytest.raises(BagError, match='holds no bags'):
        find_bags(tmp_path)


def test_a_killed_decoder_is_named_and_what_is_decoded_stays(bags, tmp_path):
    """kill -9 of the workers, as the kernel does for want of memory."""
    program = (
        'import os, signal, sys, threading, time\n'
        'from pathlib import Path\n'
        'from mta_perception.model.config import ImageConfig\n'
        'from mta_training.data import scene_cache\n'
        'def kill():\n'
        '    while True:\n'
        '        for child in Path("/proc/self/task").glob("*/children"):\n'
        '            for number in child.read_text().split():\n'
        '                if b"spawn" b"_main" in Path(f"/proc/{number}/cmdline").read_bytes():\n'
        '                    os.kill(int(number), signal.SIGKILL)\n'
        '        time.sleep(0.01)\n'
        'threading.Thread(target=kill, daemon=True).start()\n'
        'scene_cache.cache_scenes(sys.argv[2:], sys.argv[1], ImageConfig(224, 128, 0.14))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, str(tmp_path), *map(str, bags)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert 'BagError' in done.stderr and 'was killed' in done.stderr


def test_bags_are_split_by_name_by_split_or_by_folder(bags, tmp_path):
    folder, names = Path(bags[0]).parent, sorted(Path(bag).name for bag in bags)
    training, held_out = split_bags(folder, [names[0]])
    assert [bag.name for bag in held_out] == names[:1]
    assert [bag.name for bag in training] == names[1:]
    training, held_out = split_bags(folder)
    assert all(SceneBag(bag).split.endswith('val') for bag in held_out)
    assert sorted(bag.name for bag in [*training, *held_out]) == names
    (tmp_path / 'other').mkdir()
    shutil.copytree(bags[0], tmp_path / 'other' / names[0])
    training, held_out = split_bags(folder, None, tmp_path / 'other')
    assert len(training) == len(bags) and held_out == [tmp_path / 'other' / names[0]]
    for arguments, words in (
        ((folder, ['scene-9']), 'has no bag scene-9'),
        ((folder, names), 'none is left to train on'),
        ((folder, None, folder), 'keep them apart'),
        ((tmp_path,), 'holds no bags'),
    ):
        with pytest.raises(BagError, match=words):
            split_bags(*arguments)


def rewritten(source, target, change):
    """A bag with the messages of another, each as change(topic, message) leaves it."""
    bag, store = SceneBag(source), typestore()
    with Writer(target, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, name, stamp, data in bag.raw():
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=store)
            content = store.deserialize_cdr(data, name)
            change(topic, content)
            writer.write(connections[topic], stamp, store.serialize_cdr(content, name))
    return target


def distorted(rgb, intrinsics, coefficients):
    """What a lens makes of a pinhole's picture, by OpenCV's inverse; black beyond the picture."""
    height, width = rgb.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    pixels = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    sources = cv2.fisheye.undistortPoints(pixels, intrinsics, coefficients, P=intrinsics)
    sources = sources.reshape(height, width, 2).astype(np.float32)
    return cv2.remap(rgb, sources[..., 0], sources[..., 1], cv2.INTER_CUBIC)


def test_a_bag_of_a_fisheye_reads_like_that_of_a_pinhole(bags, tmp_path):
    """Undistorted offline as in the node; with leading slashes and PNGs, as others write them."""
    source = bags[0]
    calibrations = SceneBag(source).calibrations
    coefficients = np.array([0.02, -0.008, 0.003, -0.001])

    def change(topic, content):
        camera = topic.split('/')[1]
        if topic.endswith('/camera_info'):
            content.distortion_model, content.d = 'equidistant', coefficients
        elif topic.endswith('/compressed'):
            rgb = cv2.imdecode(content.data, cv2.IMREAD_COLOR)
            seen = distorted(rgb, calibrations[camera].intrinsics, coefficients)
            content.data, content.format = cv2.imencode('.png', seen)[1], 'bgr8; png compressed'
        elif topic == '/tf_static':
            for entry in content.transforms:
                entry.header.frame_id = '/' + entry.header.frame_id
                entry.child_frame_id = '/' + entry.child_frame_id

    image = ImageConfig(160, 96, 0.5)
    fisheye = scene_cache.read_scene(rewritten(source, tmp_path / 'fisheye', change), image)
    pinhole = scene_cache.read_scene(source, image)
    np.testing.assert_array_equal(fisheye.present, pinhole.present)
    np.testing.assert_allclose(fisheye.image_from_ego, pinhole.image_from_ego, atol=1e-5)
    assert pinhole.present.any()
    rows, columns = slice(5, 85), slice(5, 155)  # the rim was lost in the fisheye's black
    difference = fisheye.images[..., rows, columns, :].astype(int)
    difference = np.abs(difference - pinhole.images[..., rows, columns, :])
    assert difference.mean() < 3.0, difference.mean()

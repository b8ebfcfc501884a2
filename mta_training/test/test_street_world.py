"""The world that is less kind: rigs, clutter, the cameras' processing, drives as arrays."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip('shapely')

from mta_perception.contract import CAMERAS
from mta_perception.model.config import ImageConfig
from mta_perception.pipeline.camera_geometry import place_faults
from mta_training.conversion.convert import convert
from mta_training.data.scene_cache import read_scene
from mta_training.synth.actors.catalogue import KINDS, draw
from mta_training.synth.actors.scenario import build_scenario
from mta_training.synth.dataset.drawn_drive import draw_drive
from mta_training.synth.dataset.generate import synthesise
from mta_training.synth.meshes.catalogue import variant_of
from mta_training.synth.render.look import random_looks, scene_looks
from mta_training.synth.render.own_body import own_bodies
from mta_training.synth.render.renderer import Renderer
from mta_training.synth.scene import CLUTTER, CameraView, ObjectState
from mta_training.synth.sensors.body import random_lean
from mta_training.synth.sensors.rig import build_rig

IMAGE = ImageConfig(320, 192, 0.2)


def test_every_rig_has_each_camera_in_its_place():
    """As the node judges it; heights and fields of view differ as those of real cars do."""
    heights, focals = [], []
    for seed in range(60):
        rig = build_rig(np.random.default_rng(seed), street=True)
        assert set(rig.cameras) == set(CAMERAS) and not place_faults(rig.cameras)
        heights.append(rig.cameras['cam_front'].ego_from_camera[2, 3])
        focals.append(rig.cameras['cam_back'].intrinsics[0, 0])
    assert 1.0 < min(heights) < 1.4 and 2.0 < max(heights) < 2.6
    assert min(focals) < 650 and max(focals) > 1000


def test_the_body_leans_as_cars_do():
    """Mostly below two degrees, and smoothly."""
    leans, jerks = [], []
    for seed in range(100):
        lean = random_lean(np.random.default_rng(seed))
        up = np.array([lean.ego_from_body(t)[2, 2] for t in np.arange(0.0, 5.0, 0.05)])
        angle = np.degrees(np.arccos(np.clip(up, -1.0, 1.0)))
        leans.append(angle.max())
        jerks.append(np.abs(np.diff(angle)).max())
    assert np.median(leans) < 3.0 and 1.0 < max(leans) < 7.0 and max(jerks) < 0.4


@pytest.fixture(scope='module')
def street():
    return build_scenario(3, 0, 3.0, 320, 180, 'street')


def seen_from(scene, static, camera, time=1.0):
    calibration = scene.rig.cameras[camera]
    world_from_ego = scene.traffic.world_from_ego(time)
    view = CameraView(
        calibration.intrinsics, 320, 180, world_from_ego @ calibration.ego_from_camera, 1.0, 0
    )
    states = scene.traffic.states(time)
    return Renderer(static, scene.weather).render(view, states, world_from_ego), states


def test_clutter_is_drawn_and_is_no_object(street):
    static = street.town.static
    bare = [pole for pole in static.poles if pole.kind not in CLUTTER]
    assert len(static.poles) - len(bare) > 20
    without = replace(static, poles=bare)
    changed = 0
    for camera in CAMERAS:
        full, states = seen_from(street, static, camera)
        empty, _ = seen_from(street, without, camera)
        drawn = np.abs(full.image.astype(int) - empty.image).max(axis=2) > 40
        nearer = full.nearness > empty.nearness * 1.05
        changed += (drawn & nearer).sum()
        known = {0, *(state.instance for state in states)}
        assert set(np.unique(full.instances)) <= known
        assert not full.instances[nearer].any()  # where clutter hides something, nothing is named
    assert changed > 200


def test_some_cameras_see_their_own_car():
    found = [own_bodies(np.random.default_rng(seed)) for seed in range(200)]
    share = np.mean([bool(bodies) for bodies in found])
    assert 0.25 < share < 0.5
    grey = np.full((96, 160, 3), 90, np.uint8)
    for bodies in found[:40]:
        for camera, body in bodies.items():
            assert camera in CAMERAS
            changed = (body(grey) != grey).any(-1)
            # A hump at the lower edge: nothing of it above its height, all of it below its top.
            assert not changed[: int(96 * (1.0 - body.height)) - 1].any()
            middle = changed[:, int(160 * body.middle)]
            assert middle[-1] or abs(body.paint * 90 / 110 - 90).max() < 1
            assert (grey == 90).all()


def test_less_detail_of_the_ground_looks_the_same_in_small_pictures():
    scenario = build_scenario(3, 1, 1.0, 448, 252, world='street')
    lens = scenario.rig.cameras['cam_front']
    ego = scenario.traffic.world_from_ego(0.0)
    view = CameraView(lens.intrinsics, lens.width, lens.height, ego @ lens.ego_from_camera, 1.0, 5)
    states = scenario.traffic.states(0.0)
    full, half = (
        Renderer(scenario.town.static, scenario.weather, detail).render(view, states, ego)
        for detail in (1.0, 0.5)
    )
    np.testing.assert_array_equal(full.instances, half.instances)
    difference = np.abs(full.image.astype(int) - half.image)
    assert 0 < difference.mean() < 3.0


def test_pickups_are_trucks_and_vans_are_cars():
    """As nuScenes' instructions have it."""
    rng = np.random.default_rng(0)
    assert KINDS['pickup'].class_name == 'truck' and KINDS['van'].class_name == 'car'
    for kind, variant in (('pickup', 1), ('van', 3)):
        spec = KINDS[kind]
        for _ in range(100):
            look = draw(rng, kind)
            state = ObjectState(
                *(1, spec.class_name, spec.category, look.style, look.colour_name, look.colour),
                *(look.size, np.eye(4), (0.0, 0.0), 0.0, 0.0, False, False),
            )
            assert variant_of(state) == variant


def test_a_level_scene_has_none_of_it():
    scene = build_scenario(3, 0, 3.0, 320, 180)
    assert not [pole for pole in scene.town.static.poles if pole.kind in CLUTTER]
    assert scene.traffic.world_from_ego(1.3)[2, 2] == pytest.approx(1.0, abs=1e-12)
    assert scene_looks(3, scene) == {}


def test_looks_change_colours_and_no_geometry():
    picture = np.full((120, 160, 3), 60, np.uint8)
    cv2.rectangle(picture, (40, 30), (99, 79), (210, 200, 190), -1)
    qualities = set()
    for seed in range(20):
        for look in random_looks(np.random.default_rng(seed), 2):
            shown = look(picture)
            assert shown.shape == picture.shape and shown.dtype == np.uint8
            grey = shown.astype(float).mean(axis=2)
            bright = grey > (grey.min() + grey.max()) / 2
            rows, columns = np.nonzero(bright)
            assert abs(rows.mean() - 54.5) < 0.5 and abs(columns.mean() - 69.5) < 0.5
            assert abs(bright.sum() - 3000) < 250
            qualities.add(look.quality)
    assert min(qualities) >= 60 and max(qualities) <= 95 and len(qualities) > 10


@pytest.mark.parametrize('world', [pytest.param('level', marks=pytest.mark.slow), 'street'])
def test_a_drawn_drive_is_what_synth_convert_and_the_cache_make_of_it(tmp_path, world):
    drawn = draw_drive(55, 0, IMAGE, 1.5, world=world)
    root = synthesise(
        tmp_path / 'set',
        1,
        55,
        workers=1,
        image_size=(320, 180),
        sweeps=False,
        seconds=1.5,
        world=world,
        progress=False,
    )
    (bag,) = convert(root, tmp_path / 'bags', workers=1, progress=False)
    read = read_scene(bag, IMAGE)
    assert len(read.boxes) == len(drawn.boxes) == 3
    np.testing.assert_allclose(read.world_from_ego, drawn.world_from_ego, atol=1e-6)
    for frame in range(3):
        for slot in range(6):
            pixels = []
            for scene in (read, drawn):
                u, v, w = scene.image_from_ego[frame, slot] @ (12.0, 3.0, 1.0, 1.0)
                pixels.append((u / w, v / w))
            assert np.allclose(*pixels, atol=0.1, rtol=1e-3)
        apart = np.abs(read.images[frame].astype(int) - drawn.images[frame]).mean()
        assert apart < (4.0 if world == 'level' else 8.0)  # JPEG of one, of both
        known = dict(zip(drawn.captions[frame], drawn.boxes[frame]))
        common = [
            (box, known[text])
            for text, box in zip(read.captions[frame], read.boxes[frame])
            if text in known
        ]
        assert len(common) > 0.7 * len(read.boxes[frame])
        same = sum(np.allclose(one, other, atol=0.05) for one, other in common)
        assert same > 0.8 * len(common)  # two objects may have one sentence

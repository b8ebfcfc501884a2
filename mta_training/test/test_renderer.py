"""The renderer against geometry: where things appear, what hides what, what weather changes."""

from dataclasses import replace

import numpy as np
import pytest

from mta_perception.contract import CLASSES
from mta_perception.geometry import invert_rigid, project, rigid, rigid_from_yaw
from mta_training.synth.meshes.catalogue import MESH_COUNT, mesh_of
from mta_training.synth.render.renderer import Renderer
from mta_training.synth.scene import (
    Building,
    CameraView,
    Marking,
    ObjectState,
    Pole,
    StaticWorld,
    Weather,
)

OPTICAL_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
WIDTH, HEIGHT = 480, 270
SIZES = {
    'car': (4.6, 1.9, 1.6),
    'truck': (7.0, 2.5, 2.9),
    'bus': (11.0, 2.8, 3.4),
    'trailer': (10.0, 2.6, 3.7),
    'construction_vehicle': (6.2, 2.6, 3.1),
    'motorcycle': (2.1, 0.8, 1.5),
    'bicycle': (1.75, 0.6, 1.3),
    'pedestrian': (0.72, 0.67, 1.75),
    'barrier': (0.5, 2.4, 1.0),
    'traffic_cone': (0.4, 0.4, 1.0),
}


def rectangle(x_min, y_min, x_max, y_max):
    return np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]], float)


def street(**changes):
    """A road along x with a white cross-bar of 1 m at x = 12, houses and furniture to the left."""
    world = StaticWorld(
        extent=(-60.0, -60.0, 60.0, 60.0),
        drivable_area=[rectangle(-60, -7, 60, 7)],
        walkway=[rectangle(-60, 7, 60, 11)],
        markings=[Marking(rectangle(11.5, -2, 12.5, 2), 0.0, 'white', (0, 0))],
        buildings=[Building(rectangle(5, 14, 25, 25), 9.0, 3)],
        poles=[
            Pole(kind, (4.0 * k, 9.0), -1.5, 3.0 + k, k)
            for k, kind in enumerate(('tree', 'lamp', 'traffic_light', 'sign', 'bush'))
        ],
    )
    return replace(world, **changes)


def camera(yaw=0.0, xyz=(0.0, 0.0, 1.5), exposure=1.0, seed=1):
    intrinsics = np.array([[380.0, 0, WIDTH / 2], [0, 380.0, HEIGHT / 2], [0, 0, 1]])
    world_from_camera = rigid_from_yaw(yaw, xyz) @ rigid(OPTICAL_AXES, np.zeros(3))
    return CameraView(intrinsics, WIDTH, HEIGHT, world_from_camera, exposure, seed)


def thing(
    class_name='car',
    x=12.0,
    y=0.0,
    yaw=0.6,
    instance=1,
    style=0,
    colour=(0.62, 0.06, 0.05),
    has_rider=False,
    velocity=(0.0, 0.0),
    braking=False,
    phase=0.7,
):
    return ObjectState(
        instance,
        class_name,
        f'vehicle.{class_name}',
        style,
        'red',
        colour,
        SIZES[class_name],
        rigid_from_yaw(yaw, (x, y, 0.0)),
        velocity,
        0.1,
        phase,
        braking,
        has_rider,
    )


def image_from_world(view):
    return view.intrinsics @ invert_rigid(view.world_from_camera)[:3]


def box_pixels(view, state):
    """Pixels (8, 2) of the corners of an object's box."""
    length, width, height = state.size
    corners = np.array(
        [
            [sx * length / 2, sy * width / 2, z]
            for sx in (-1, 1)
            for sy in (-1, 1)
            for z in (0.0, height)
        ]
    )
    matrix = state.world_from_object
    pixels, depth = project(image_from_world(view), corners @ matrix[:3, :3].T + matrix[:3, 3])
    assert (depth > 0.5).all()
    return pixels


@pytest.fixture(scope='module')
def day():
    return Renderer(street(), Weather(seed=3))


@pytest.fixture(scope='module')
def bare():
    """A road and nothing else, under an even sky."""
    return Renderer(street(buildings=[], poles=[]), Weather(overcast=True, seed=4))


@pytest.mark.parametrize(
    'yaw, xyz', [(0.0, (0.0, 0.0, 1.5)), (0.25, (2.0, -2.5, 1.8)), (np.pi, (21.0, 0.5, 1.5))]
)
def test_a_marking_is_where_the_projection_says(bare, yaw, xyz):
    view = camera(yaw, xyz)
    image = bare.render(view, []).image.astype(int).sum(-1)
    inside = np.array([[12.0, y, 0.0] for y in (-1.5, 0.0, 1.5)])
    outside = np.array([[x, y, 0.0] for x in (10.9, 13.1) for y in (-1.5, 0.0, 1.5)])
    beside = np.array([[12.0, y, 0.0] for y in (-2.4, 2.4)])

    def brightness(points):
        pixels, _ = project(image_from_world(view), points)
        columns, rows = np.round(pixels).astype(int).T
        kept = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
        assert kept.any()
        return image[rows[kept], columns[kept]]

    assert brightness(inside).min() > 1.25 * max(
        brightness(outside).max(), brightness(beside).max()
    )


def test_the_edge_of_a_marking_is_exact_to_a_pixel(bare):
    view = camera()
    image = bare.render(view, []).image.astype(float).sum(-1)
    pixels, _ = project(image_from_world(view), np.array([[11.5, 0.0, 0.0], [12.5, 0.0, 0.0]]))
    column = image[:, int(round(pixels[0, 0]))]
    near, far = int(np.ceil(pixels[0, 1])) + 3, int(pixels[1, 1]) - 3
    half = (column[near] + column[int(pixels[:, 1].mean())]) / 2
    painted = np.flatnonzero(column[far:near] > half) + far
    assert painted.max() + 0.5 == pytest.approx(pixels[0, 1], abs=1.2)
    assert painted.min() - 0.5 == pytest.approx(pixels[1, 1], abs=1.2)


def every_mesh():
    return [(name, variant) for name in CLASSES for variant in range(MESH_COUNT[name])]


@pytest.mark.parametrize('class_name, variant', every_mesh())
def test_meshes_fill_the_unit_box(class_name, variant):
    mesh = mesh_of(class_name, variant).solid
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    if class_name == 'pedestrian':  # the gait needs room at rest
        assert (low >= (-0.5, -0.5, 0.0)).all() and (high <= (0.5, 0.5, 1.02)).all()
        assert high[2] > 0.97 and high[1] - low[1] > 0.9
    else:
        np.testing.assert_allclose(low, (-0.5, -0.5, 0.0), atol=1e-6)
        np.testing.assert_allclose(high, (0.5, 0.5, 1.0), atol=1e-6)
    assert mesh.triangles.max() < len(mesh.vertices)
    assert (np.linalg.norm(mesh.normals, axis=-1) > 0).all()


@pytest.mark.parametrize('class_name', CLASSES)
@pytest.mark.parametrize('style, yaw', [(0, 0.6), (1, -2.2), (2, 1.57)])
def test_an_object_lies_in_its_box_and_fills_it(bare, class_name, style, yaw):
    size = SIZES[class_name]
    distance = max(6.0, 1.6 * size[0])
    state = thing(
        class_name,
        distance,
        0.3,
        yaw,
        instance=7,
        style=style,
        has_rider=class_name == 'bicycle' and style == 1,
    )
    view = camera()
    owner = bare.render(view, [state]).instances
    rows, columns = np.nonzero(owner == 7)
    pixels = box_pixels(view, state)
    low, high = pixels.min(0), pixels.max(0)
    assert columns.min() >= low[0] - 1.0 and columns.max() <= high[0] + 1.0
    assert rows.min() >= low[1] - 1.5 and rows.max() <= high[1] + 1.0
    # It reaches top and bottom, and covers a fair part of the hull.
    assert rows.max() - rows.min() > 0.7 * (high[1] - low[1])
    assert set(np.unique(owner)) == {0, 7}
    share = len(rows) / np.prod(high - low)
    solid = class_name in ('car', 'truck', 'bus', 'trailer')
    assert share > (0.45 if solid else 0.07), share


def test_the_nearer_object_hides_the_farther_in_any_order(bare):
    near, far = thing(x=9.0, yaw=1.57, instance=1), thing('bus', x=20.0, yaw=1.57, instance=2)
    first = bare.render(camera(), [near, far])
    second = bare.render(camera(), [far, near])
    np.testing.assert_array_equal(first.instances, second.instances)
    alone = bare.render(camera(), [far]).instances == 2
    car = bare.render(camera(), [near]).instances == 1
    np.testing.assert_array_equal(first.instances == 1, car)
    np.testing.assert_array_equal(first.instances == 2, alone & ~car)
    assert (alone & car).sum() > 200


def test_buildings_hide_objects(day):
    behind = thing('bus', x=15.0, y=32.0, yaw=0.0)
    view = camera(np.pi / 2, (15.0, 0.0, 1.5))
    assert (day.render(view, [behind]).instances == 0).all()
    assert (
        Renderer(street(buildings=[], poles=[]), Weather(seed=3)).render(view, [behind]).instances
        == 1
    ).sum() > 500


def test_equal_arguments_give_equal_bytes():
    states = [thing(), thing('pedestrian', 8.0, 2.0, instance=2)]
    pictures = [
        Renderer(street(), Weather(night=True, rain=True, seed=9)).render(camera(), states)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(pictures[0].image, pictures[1].image)
    np.testing.assert_array_equal(pictures[0].instances, pictures[1].instances)


def test_a_renderer_carries_nothing_from_picture_to_picture(day):
    before = day.render(camera(), [thing()]).image
    day.render(camera(1.0), [thing('bus', 5.0, 5.0), thing('trailer', -9.0, 0.0)])
    np.testing.assert_array_equal(day.render(camera(), [thing()]).image, before)


def test_the_seed_of_a_view_changes_the_noise_only(day):
    one, two = (day.render(camera(seed=k), []).image.astype(int) for k in (1, 2))
    assert 0 < np.abs(one - two).max() < 30 and abs((one - two).mean()) < 0.5


def test_exposure_and_night_change_the_brightness(day):
    mean = {k: day.render(camera(exposure=k), []).image.mean() for k in (0.5, 1.0, 1.6)}
    assert mean[0.5] < mean[1.0] - 10 and mean[1.0] < mean[1.6] - 10
    night = Renderer(street(), Weather(night=True, seed=3))
    dark = night.render(camera(), []).image
    assert dark.mean() < 0.4 * mean[1.0]
    lit = night.render(camera(), [], rigid_from_yaw(0.0)).image
    assert lit[HEIGHT // 2 + 30 :].mean() > 1.3 * dark[HEIGHT // 2 + 30 :].mean()


def test_brake_lights_shine_at_night():
    night = Renderer(street(poles=[], buildings=[]), Weather(night=True, seed=3))
    off, on = (
        night.render(camera(), [thing(yaw=0.0, colour=(0.05, 0.05, 0.05), braking=braking)])
        for braking in (False, True)
    )
    red = [k.image[k.instances == 1][:, 0].astype(int) for k in (off, on)]
    assert (red[1] > 150).sum() > (red[0] > 150).sum() + 20


def test_objects_throw_shadows(day):
    view = camera(-0.3)
    empty, full = day.render(view, []), day.render(view, [thing(x=10.0, y=-4.0)])
    ground = full.instances == 0
    darker = (empty.image.astype(int) - full.image).sum(-1)[ground] > 60
    assert darker.sum() > 300


@pytest.mark.parametrize(
    'name, rgb, strongest',
    [
        ('red', (0.62, 0.06, 0.05), 0),
        ('green', (0.08, 0.34, 0.14), 1),
        ('blue', (0.06, 0.16, 0.52), 2),
    ],
)
@pytest.mark.parametrize(
    'class_name', ['car', 'bus', 'truck', 'trailer', 'motorcycle', 'pedestrian']
)
def test_colours_are_seen(bare, class_name, name, rgb, strongest):
    distance = 14.0 if SIZES[class_name][0] > 6 else 6.0
    picture = bare.render(camera(), [thing(class_name, distance, colour=rgb)])
    pixels = picture.image[picture.instances == 1].astype(int)
    others = np.delete(pixels, strongest, axis=1).max(1)
    assert (pixels[:, strongest] > others + 25).mean() > 0.12


@pytest.mark.parametrize(
    'xyz',
    [(12.0, 0.0, 0.8), (10.2, 0.2, 1.0), (15.0, 20.0, 2.0), (0.0, 9.0, 3.0), (-59.0, 59.0, 0.3)],
)
@pytest.mark.parametrize('yaw', [0.0, 2.0])
def test_a_camera_inside_things_draws_on(day, xyz, yaw):
    states = [
        thing(yaw=0.1),
        thing('bus', 12.0, 0.5, instance=2),
        thing('bicycle', 10.2, 0.2, instance=3),
    ]
    picture = day.render(camera(yaw, xyz), states)
    assert picture.image.shape == (HEIGHT, WIDTH, 3) and picture.image.dtype == np.uint8
    assert picture.instances.shape == (HEIGHT, WIDTH) and picture.instances.dtype == np.int32
    assert picture.image.std() > 1.0


@pytest.mark.parametrize('pitch', [-1.4, 1.4])
def test_cameras_may_look_up_and_down(day, pitch):
    c, s = np.cos(pitch), np.sin(pitch)
    tilt = rigid(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), np.zeros(3))
    view = camera()._replace(world_from_camera=camera().world_from_camera @ tilt)
    above = day.render(view, []).image.reshape(-1, 3).mean(0)
    assert (above[2] > above[0] + 5) == (pitch > 0)  # blue sky, grey road


def test_an_empty_world_is_sky_and_grass():
    renderer = Renderer(StaticWorld(extent=(0.0, 0.0, 10.0, 10.0)), Weather(seed=1))
    picture = renderer.render(camera(), [])
    lower = picture.image[-40:].reshape(-1, 3).mean(0)
    assert (picture.instances == 0).all() and lower[1] > lower[0] and lower[1] > lower[2]


def test_rain_makes_the_road_mirror():
    def contrast(weather):
        renderer = Renderer(street(buildings=[], poles=[]), weather)
        state = thing('bus', 16.0, 0.0, 1.57, colour=(0.9, 0.05, 0.05))
        picture = renderer.render(camera(), [state])
        foot = np.nonzero(picture.instances == 1)[0].max()
        patch = picture.image[foot + 4 : foot + 16, WIDTH // 2 - 40 : WIDTH // 2 + 40].astype(int)
        return (patch[..., 0] - patch[..., 2]).mean()

    assert contrast(Weather(rain=True, seed=2)) > contrast(Weather(overcast=True, seed=2)) + 4


def test_an_unknown_class_is_named():
    renderer = Renderer(StaticWorld(extent=(0.0, 0.0, 10.0, 10.0)), Weather())
    with pytest.raises(ValueError, match='object 5 has class .tram.; expected one of car, truck'):
        renderer.render(camera(), [thing(instance=5)._replace(class_name='tram')])


def test_an_unknown_pole_is_named():
    with pytest.raises(ValueError, match="pole kind 'mast' cannot be drawn; expected .*lamp"):
        Renderer(street(poles=[Pole('mast', (0.0, 0.0), 0.0, 3.0, 0)]), Weather())

"""The simulated world: roads that join, traffic that neither jumps nor collides, weather
shares.
"""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from shapely.geometry import LineString, Point, Polygon
from shapely.ops import unary_union

from mta_perception.geometry import yaw_from_rigid
from mta_training.synth.actors.completing import classes_met
from mta_training.synth.actors.scenario import MAX_SCENES, build_scenario, scene_name, weather_of
from mta_training.synth.town import roads
from mta_training.synth.town.footprints import corners

SEED, SCENES, SECONDS = 11, (0, 1, 4), 10.0


@cache
def scenario(index):
    return build_scenario(SEED, index, SECONDS, 160, 90)


def cross(a, b):
    """Cross product of vectors in the plane (numpy 2 keeps its own for three dimensions)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@pytest.mark.parametrize('seed', range(4))
def test_turns_join_lanes_without_a_kink(seed):
    network = roads.build_network(np.random.default_rng(seed))
    assert {turn.kind for turn in network.turns} == {'straight', 'left', 'right'}
    for turn in network.turns:
        source, target = network.lanes[turn.source], network.lanes[turn.target]
        assert np.allclose(turn.points[0], source.points[-1]) and np.allclose(
            turn.points[-1], target.points[0]
        )
        for end, lane_end in (
            (turn.points[:2], source.points[-2:]),
            (turn.points[-2:], target.points[:2]),
        ):
            a, b = np.diff(end, axis=0)[0], np.diff(lane_end, axis=0)[0]
            assert a @ b / np.hypot(*a) / np.hypot(*b) > 0.995
        bend = cross(np.diff(turn.points[:2], axis=0)[0], np.diff(turn.points[-2:], axis=0)[0])
        assert {'left': bend > 0, 'right': bend < 0, 'straight': abs(bend) < 0.01}[turn.kind]


@pytest.mark.parametrize('seed', range(4))
def test_right_hand_traffic_until_mirrored(seed):
    network = roads.build_network(np.random.default_rng(seed))
    for mirrored, side in ((False, -1), (True, 1)):
        moved = network.moved(1.1, mirrored, (300.0, 200.0))
        for lane in moved.lanes:
            points = moved.to_world(lane.points)
            centre = LineString(moved.to_world(moved.roads[lane.road].centre))
            middle, ahead = points[len(points) // 2], points[len(points) // 2 + 1]
            to_centre = (
                np.array(centre.interpolate(centre.project(Point(middle))).coords[0]) - middle
            )
            # the road's centre line lies on the left of a lane in right-hand traffic
            assert np.sign(cross(ahead - middle, to_centre)) == -side


def test_lights_never_let_crossing_streets_go_together():
    junction = roads.build_network(np.random.default_rng(0)).junctions[0]
    for time in np.arange(-5.0, 80.0, 0.1):
        assert 'red' in (roads.light(junction, 0, time), roads.light(junction, 1, time))
    assert {roads.light(junction, axis, t) for axis in (0, 1) for t in np.arange(0, 40, 0.5)} == {
        'green',
        'amber',
        'red',
    }


@pytest.mark.parametrize('index', SCENES)
def test_static_polygons_are_simple_and_counter_clockwise(index):
    static = scenario(index).town.static
    for layer in (
        'drivable_area',
        'walkway',
        'ped_crossing',
        'carpark_area',
        'stop_line',
        'intersection',
    ):
        for points in getattr(static, layer):
            ring = Polygon(points)
            assert ring.is_valid and ring.exterior.is_ccw, layer
    for building in static.buildings:
        assert Polygon(building.footprint).exterior.is_ccw
    assert min(static.extent[:2]) >= 0  # map masks begin at 0, 0


@pytest.mark.parametrize('index', SCENES)
def test_houses_stand_clear_of_streets_and_each_other(index):
    static = scenario(index).town.static
    street = unary_union([Polygon(p).buffer(0) for p in static.drivable_area + static.walkway])
    houses = [Polygon(k.footprint) for k in static.buildings]
    assert len(houses) > 5
    assert unary_union(houses).intersection(street).area < 0.5
    assert unary_union(houses).area == pytest.approx(sum(h.area for h in houses), rel=1e-6)


@pytest.mark.parametrize('index', SCENES)
def test_nobody_overlaps_and_vehicles_stay_on_the_carriageway(index):
    scene = scenario(index)
    solids, road = scene.town.solids, scene.town.carriageway.buffer(0.6)
    groups = {k + 1: agent.group for k, agent in enumerate(scene.traffic.agents)}
    for time in np.arange(0.0, SECONDS, 0.5):
        boxes = {}
        for state in scene.traffic.states(time):
            x, y, _ = state.world_from_object[:3, 3]
            row = np.array([x, y, yaw_from_rigid(state.world_from_object), *state.size[:2]])
            boxes[state.instance] = Polygon(corners(row))
            agent = scene.traffic.agents[state.instance - 1]
            assert not solids.intersects(boxes[state.instance]), (time, agent.look.kind)
            if agent.role == 'driving':
                assert road.contains(Point(x, y)), (time, agent.look.kind)
        ego = scene.traffic.world_from_ego(time)
        middle = ego[:2, 3] + ego[:2, 0] * 1.3
        boxes[0] = Polygon(corners(np.array([*middle, yaw_from_rigid(ego), 4.08, 1.73])))
        for i, a in boxes.items():
            for j, b in boxes.items():
                together = i and j and groups[i] >= 0 and groups[i] == groups[j]
                assert i >= j or together or not a.intersects(b), (time, i, j)


@pytest.mark.parametrize('index', SCENES)
def test_motion_is_smooth_and_velocity_is_its_derivative(index):
    scene, step = scenario(index), 0.05
    before = {s.instance: s for s in scene.traffic.states(0.0)}
    for time in np.arange(step, SECONDS, step):
        now = {s.instance: s for s in scene.traffic.states(time)}
        for key in now.keys() & before.keys():
            moved = (now[key].world_from_object - before[key].world_from_object)[:2, 3] / step
            mean = (np.array(now[key].velocity) + before[key].velocity) / 2
            assert np.hypot(*(moved - mean)) < 0.35, (time, now[key].category)
            turned = yaw_from_rigid(now[key].world_from_object) - yaw_from_rigid(
                before[key].world_from_object
            )
            assert abs((turned + np.pi) % (2 * np.pi) - np.pi) < (
                0.45 if now[key].class_name == 'pedestrian' else 0.12
            )
        before = now


@pytest.mark.parametrize('index', SCENES)
def test_ego_drives_like_a_car(index):
    traffic = scenario(index).traffic
    times = np.arange(0.0, SECONDS, 0.02)
    poses = np.stack([traffic.world_from_ego(t) for t in times])
    velocity = np.diff(poses[:, :2, 3], axis=0) / 0.02
    speed = np.hypot(*velocity.T)
    acceleration = np.diff(np.convolve(speed, np.full(10, 0.1), 'valid')) / 0.02
    assert speed.max() < 15 and acceleration.max() < 2.5 and acceleration.min() > -6.5
    forward = poses[:-1, :2, 0]
    moving = speed > 1.0
    sideways = np.abs(cross(forward, velocity))[moving]
    assert sideways.max() < 0.03 * speed.max() + 0.05  # the rear axle does not slip


def test_batched_states_equal_each_agents_own_motion():
    scene = scenario(0)
    for time in (0.0, 3.33, 9.9):
        states = {s.instance: s for s in scene.traffic.states(time, reach_m=1e4)}
        assert len(states) == len(scene.traffic.agents)
        for k, agent in enumerate(scene.traffic.agents):
            if agent.motion is not None:
                centre, yaw = agent.motion.pose(time)
                pose = states[k + 1].world_from_object
                assert np.allclose(pose[:2, 3], centre, atol=1e-9)
                assert np.cos(yaw_from_rigid(pose) - yaw) == pytest.approx(1)


def _line_crossings(scene, motion, length):
    """(time, junction index, axis) whenever a vehicle's front passes a stop line after time 0."""
    for number, lane in enumerate(scene.town.network.lanes):
        if lane.end is None:
            continue
        mouth = scene.town.lanes[number][-1]
        distances = np.hypot(*(motion.path.points - mouth).T)
        if distances.min() < 0.3:
            line = int(distances.argmin()) * motion.path.step - roads.STOP_M
            front = motion.s + length / 2
            for tick in np.flatnonzero(
                (front[:-1] < line) & (front[1:] >= line) & (motion.times[:-1] > 0)
            ):
                yield motion.times[tick], lane.end, lane.axis


def test_nobody_passes_a_stop_line_at_red():
    passed = 0
    for index in SCENES:
        scene = scenario(index)
        for agent in scene.traffic.agents:
            if agent.role == 'driving':
                for time, junction, axis in _line_crossings(
                    scene, agent.motion, agent.look.size[0]
                ):
                    assert roads.light(scene.town.network.junctions[junction], axis, time) != 'red'
                    passed += 1
    assert passed > 3


def test_weather_shares_and_first_scene():
    weathers = [weather_of(5, k) for k in range(200)]
    assert not (weathers[0].night or weathers[0].rain or weathers[0].overcast)
    assert sum(w.night for w in weathers) == 30 and sum(w.rain for w in weathers) == 30
    assert sum(w.night and w.rain for w in weathers) == 10


def test_description_names_night_and_rain():
    for index in range(40):
        weather = weather_of(SEED, index)
        if weather.night and weather.rain:
            break
    text = build_scenario(SEED, index, 2.0, 160, 90).description
    assert 'Night' in text and 'Rain' in text
    assert 'Night' not in scenario(0).description and 'Rain' not in scenario(0).description


def test_scene_names_are_unique_and_have_can_data():
    names = [scene_name(k) for k in range(400)]
    assert len(set(names)) == 400 and names[0] == 'scene-0001'
    assert not {'scene-0161', 'scene-0310'} & set(names)
    assert scene_name(MAX_SCENES - 1) == 'scene-9999'


def test_same_seed_same_world_other_seed_other_world():
    again, other = (
        build_scenario(SEED, 0, SECONDS, 160, 90),
        build_scenario(SEED + 1, 0, SECONDS, 160, 90),
    )
    poses = [
        np.stack([s.world_from_object for s in x.traffic.states(4.0)])
        for x in (scenario(0), again)
    ]
    assert np.array_equal(*poses)
    assert not np.allclose(other.traffic.world_from_ego(0.0), again.traffic.world_from_ego(0.0))


@pytest.mark.parametrize('index', SCENES)
def test_a_drive_meets_nearly_every_class(index):
    scene = scenario(index)
    met = classes_met(scene.traffic, scene.town.static.buildings, np.arange(0.0, SECONDS, 0.5))
    assert len(met) >= 9


def test_class_frequencies_are_nuscenes_like():
    counts = Counter(
        state.class_name
        for index in SCENES
        for time in np.arange(0.0, SECONDS, 1.0)
        for state in scenario(index).traffic.states(time, reach_m=60.0)
    )
    share = {name: count / sum(counts.values()) for name, count in counts.items()}
    assert max(share, key=share.get) == 'car' and 0.2 < share['car'] < 0.65
    assert 0.08 < share['pedestrian'] < 0.4
    assert all(
        share[name] < 0.1 for name in ('bus', 'construction_vehicle', 'bicycle', 'motorcycle')
    )

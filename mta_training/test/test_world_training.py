"""Training on the simulated world itself: what is drawn, what a step sees, how a run goes on."""

from dataclasses import replace
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mta_perception.model.camera_image import ImageConfig
from mta_training.data.batches import SceneStream
from mta_training.losses.look import UNKNOWN, colour_of
from mta_training.runs.recipe import Recipe
from mta_training.runs.settings import World
from mta_training.synth.dataset.drawn_drive import draw_drive
from mta_training.training import world as worlds
from mta_training.training.prefetch import Prefetch

IMAGE = ImageConfig(224, 128, 0.14)


@pytest.fixture(scope='module')
def drive():
    return draw_drive(7, 2, IMAGE, seconds=1.5, world='street')


def test_the_same_seed_draws_the_same_drive(drive):
    again = draw_drive(7, 2, IMAGE, seconds=1.5, world='street')
    for name in ('images', 'image_from_ego', 'world_from_ego', 'depth'):
        np.testing.assert_array_equal(getattr(drive, name), getattr(again, name))
    assert drive.captions == again.captions
    other = draw_drive(8, 2, IMAGE, seconds=1.5, world='street')
    assert not np.array_equal(drive.images, other.images)


def test_the_frame_is_level_though_the_body_leans(drive):
    poses = drive.world_from_ego
    np.testing.assert_allclose(poses[:, 2, :3], np.tile([0.0, 0.0, 1.0], (len(poses), 1)))
    for boxes in drive.boxes:  # all stand on the ground
        np.testing.assert_allclose(boxes[:, 2] - boxes[:, 5] / 2, 0.0, atol=1e-4)


def test_depth_is_that_of_the_ground_under_the_camera_and_of_what_stands_in_front(drive):
    """Low in every image is road or something nearer, as far as the projection says."""
    _, _, rows, columns = drive.depth.shape
    for frame in range(len(drive.depth)):
        for slot in range(6):
            matrix = drive.image_from_ego[frame, slot].astype(float)
            row, column = rows - 4, columns // 2
            pixel = np.array([column * 8 + 4, row * 8 + 4, 1.0])
            ray = np.linalg.solve(matrix[:, :3], pixel)
            eye = -np.linalg.solve(matrix[:, :3], matrix[:, 3])
            ground = -eye[2] / ray[2]
            seen = float(drive.depth[frame, slot, row, column])
            assert 0.0 < seen <= ground * 1.01 + 0.05


def test_objects_are_where_their_depth_says(drive):
    """The nearest object of a place in the image hides what is behind it."""
    agree = []
    for frame, boxes in enumerate(drive.boxes):
        for box in boxes[boxes[:, 3:5].min(1) > 1.3]:  # a cell may look past a narrow one
            for slot in range(6):
                x, y, z = drive.image_from_ego[frame, slot] @ np.array([*box[:3], 1.0])
                if not 2.0 < z < 20.0 or not (8 < x / z < 216 and 8 < y / z < 118):
                    continue
                seen = float(drive.depth[frame, slot, int(y / z) // 8, int(x / z) // 8])
                agree.append(seen < z + 0.5 * np.hypot(*box[3:5]) + 1.0)
    assert len(agree) > 5 and np.mean(agree) > 0.85


def test_scenes_in_use_move_on_with_the_frames_shown():
    settings = World(seconds=5.0, window=4, times=2.0)
    assert settings.alive(0) == range(4)
    assert settings.alive(19) == range(4) and settings.alive(20) == range(1, 5)
    stream = SceneStream([settings.frames], 3, seed=1, alive=settings.alive)
    shown, counts = 0, {}
    for _ in range(400):
        for (place,) in stream.step():
            alive = settings.alive(shown)
            # A walk may end in a scene that has left the window meanwhile.
            assert alive.start - 2 <= place.scene < alive.stop
            counts[place.scene] = counts.get(place.scene, 0) + 1
        shown += 3
    middle = [counts.get(scene, 0) for scene in range(10, 50)]
    assert np.mean(middle) == pytest.approx(settings.frames * settings.times, rel=0.15)


def test_a_stream_goes_on_where_it_was():
    settings = World(seconds=5.0, window=4, times=2.0)
    stream = SceneStream([settings.frames], 3, seed=1, alive=settings.alive)
    for _ in range(50):
        stream.step()
    state = stream.state()
    expected = [stream.step() for _ in range(60)]
    other = SceneStream([settings.frames], 3, seed=9, alive=settings.alive)
    other.restore(state)
    assert [other.step() for _ in range(60)] == expected


@pytest.mark.parametrize('ahead', [0, 3])
def test_batches_made_ahead_are_the_same_and_resume_exactly(ahead):
    def made(ahead):
        stream = SceneStream([9, 9, 9], 2, seed=4)
        return Prefetch(stream, lambda number, places: (number, places), ahead)

    plain = made(0)
    expected = [plain.next() for _ in range(20)]
    first = made(ahead)
    assert [first.next() for _ in range(8)] == expected[:8]
    second = made(ahead)
    second.restore(first.state(), 8)
    assert [second.next() for _ in range(12)] == expected[8:]


def test_a_world_draws_in_processes_and_cleans_up(tmp_path):
    settings = World(seed=7, seconds=1.0, window=2, times=1.0)
    with worlds.World(settings, IMAGE, workers=1, folder=tmp_path, ahead=0) as world:
        drawn = world[1]
        alone = draw_drive(7, 1, IMAGE, seconds=1.0, world='street')
        np.testing.assert_array_equal(drawn.images, alone.images)
        np.testing.assert_array_equal(drawn.depth, alone.depth)
        assert drawn.captions == alone.captions
        assert len(world.first(2)) == 2 and 'world 7' in world.words
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_world_without_times_uses_all_that_is_drawn_and_drops_the_oldest(tmp_path):
    settings = World(seed=7, seconds=1.0, window=1, times=0.0, begin=1)
    assert settings.first == 1 and settings.last(1) == range(1) and settings.last(5) == range(4, 5)
    with worlds.World(settings, IMAGE, workers=1, folder=tmp_path, ahead=0) as world:
        stream, seen = world.stream(2, seed=0), set()
        end = time.monotonic() + 240.0
        while 3 not in seen and time.monotonic() < end:
            time.sleep(0.3)  # who draws is nice, and gets what is left
            for (place,) in stream.step():
                assert world[place.scene].boxes
                seen.add(place.scene)
        assert {0, 3} <= seen
        assert 0 not in world.drawn and not (world.folder / '0').exists()
        assert len(list(world.folder.glob('*/facts.npz'))) <= 1 + 1 + 2


def test_a_world_may_begin_with_some_of_its_window():
    settings = World(seconds=1.0, window=4, times=1.0, begin=2)
    assert settings.alive(0) == range(2)
    assert settings.alive(2 * settings.frames) == range(4)
    assert settings.alive(5 * settings.frames) == range(3, 7)
    with pytest.raises(ValueError, match='begin=5'):
        replace(settings, begin=5)


def test_the_command_needs_no_bags_and_no_devkit(tmp_path):
    """As on a machine that has torch and a compiler of numba, and nothing of ROS or nuScenes."""
    code = (
        'import sys\n'
        'class Absent:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.split('.')[0] in ('rosbags', 'nuscenes', 'rclpy', 'pycocoevalcap'):\n"
        "            raise ImportError('absent: ' + name)\n"
        'sys.meta_path.insert(0, Absent())\n'
        'import mta_training.training.world_training, mta_training.commands.training\n'
    )
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_drawing_processes_do_not_load_torch():
    code = 'import sys, mta_training.synth.dataset.drawn_drive; assert "torch" not in sys.modules'
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_street_starts_from_photographs_and_leaves_them_alone():
    recipe = Recipe.load('street')
    assert recipe.model.sees_photographs and recipe.schedule.backbone_rate == 0
    with pytest.raises(ValueError, match='expected at least 1 s'):
        replace(recipe.world, seconds=0.2)


@pytest.mark.parametrize(
    'caption, colour',
    [
        ('red car about 9 meters away in the front of the ego car', 'red'),
        ('pedestrian in Grey about 9 meters away in the back', 'gray'),
        ('traffic cone about 3 meters away behind a red truck', None),
        ('', None),
    ],
)
def test_the_colour_is_the_objects_own(caption, colour):
    from mta_training.captions.grammar import COLOURS

    assert colour_of(caption) == (UNKNOWN if colour is None else COLOURS.index(colour))

"""From a played bag and a recording of it to numbers and pictures, no processes needed: the ground
truth, recorded as if a node had said it, must be counted and drawn onto the objects."""

import cv2
import numpy as np
import pytest
from recorded_truth import hit, record_ground_truth
from rosbags.rosbag2 import StoragePlugin, Writer

from mta_perception.bags.recording import read_recording
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.bags.typestore import typestore
from mta_perception.commands.summary import summarise
from mta_perception.drawing.film import GroundTruth, check_video, film
from mta_perception.geometry import transform


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """A bag of the hand-made drive in mta_training/test."""
    from tiny_dataset import write_dataset

    from mta_training.conversion.convert import convert

    root = write_dataset(tmp_path_factory.mktemp('dataset'), scenes=1)
    return convert(root, tmp_path_factory.mktemp('bags'), workers=1, progress=False)[0]


def test_a_silent_node_has_no_numbers(bag, tmp_path):
    scene = SceneBag(bag)
    recording = read_recording(record_ground_truth(scene, tmp_path / 'recorded'))
    with pytest.raises(ValueError, match='diagnostics'):
        summarise(scene, recording._replace(diagnostics=[]))


def test_summary_counts_what_was_recorded(bag, tmp_path):
    scene = SceneBag(bag)
    recording = read_recording(record_ground_truth(scene, tmp_path / 'recorded'))
    summary = summarise(scene, recording)
    assert (summary['frames_in'], summary['frames_processed']) == (9, 4)
    assert summary['dropped'] == {'overtaken by a newer frame': 5} and summary['unexplained'] == 0
    assert summary['detections'] == sum(hit(sample).sum() for sample in scene.samples)
    assert summary['captions'] == sum(
        bool(text) for sample in scene.samples for text in sample.captions
    )
    for camera in scene.cameras:
        assert summary['images'][camera]['played'] == len(scene.image_stamps(camera))


def test_ground_truth_meets_the_key_frames_and_moves_between_them(bag):
    scene = SceneBag(bag)
    truth = GroundTruth(scene)
    first, second = scene.samples[:2]
    for sample in (first, second):
        drawn = np.stack([item.box for item in truth.at(sample.stamp_ns)])
        # A box has a yaw alone: moving it through a pitched world costs some 1e-4.
        np.testing.assert_allclose(drawn, sample.boxes, atol=2e-3, equal_nan=True)
    middle = (first.stamp_ns + second.stamp_ns) // 2
    at_middle = np.stack([item.box for item in truth.at(middle)])
    world = transform(truth.world_from_ego_at(middle), at_middle[:, :3])
    ends = [
        dict(zip(sample.instances, transform(sample.world_from_ego, sample.boxes[:, :3])))
        for sample in (first, second)
    ]
    for token, place in zip(first.instances, world):
        if token in ends[1]:
            np.testing.assert_allclose(place, (ends[0][token] + ends[1][token]) / 2, atol=0.02)


def test_film_of_a_recording_plays_and_shows_boxes_where_the_objects_are(bag, tmp_path):
    scene = SceneBag(bag)
    recorded = record_ground_truth(scene, tmp_path / 'recorded')
    steps = []
    written = film(
        bag,
        tmp_path / 'out',
        recorded=recorded,
        fps=2.0,
        width=960,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    check_video(written.video, written.frames)
    assert steps[-1] == (written.frames, written.frames) == (len(steps), len(steps))
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(
        ['demo.mp4', *(path.name for path in written.stills)]
    )
    still = cv2.imread(str(written.stills[0]))
    plain = cv2.imread(str(film(bag, tmp_path / 'plain', fps=2.0, width=960).stills[0]))
    assert still.shape == plain.shape and still.shape[1] == 960
    # Ground truth alone, and under equal predictions: the boxes are at the same places.
    cameras = slice(30, 30 + 2 * 180)
    differ = np.abs(still[cameras].astype(int) - plain[cameras]).max(axis=2) > 60
    assert differ.mean() < 0.03


def test_video_that_is_cut_off_is_noticed(bag, tmp_path):
    written = film(bag, tmp_path / 'out', fps=4.0, width=480)
    with pytest.raises(ValueError, match='read|pictures'):
        check_video(written.video, written.frames + 1)


def test_nothing_to_draw_is_said_and_leaves_nothing(bag, tmp_path):
    with Writer(tmp_path / 'empty', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection(
            '/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', typestore=typestore()
        )
    with pytest.raises(ValueError, match='no detections'):
        film(bag, tmp_path / 'out', recorded=tmp_path / 'empty')
    assert not (tmp_path / 'out').exists()

"""`mta-train eval --recorded`: ground truth, recorded as if a node had said it, is judged as
perfect, and worse where it is worse."""

import json
from pathlib import Path
import shutil
import subprocess
import sys

import numpy as np
import pytest
from recorded_truth import record_ground_truth
from rosbags.rosbag2 import StoragePlugin, Writer

from mta_perception.bags.recording import RecordedDetections, read_recording
from mta_perception.bags.scene_bag import SceneBag
from mta_perception.bags.typestore import typestore
from mta_training.evaluation import recorded
from mta_training.evaluation.nuscenes_metrics import EvaluationError, evaluate_detections
from mta_training.evaluation.recorded import nearest_detections, recorded_frames
from mta_training.evaluation.report import judge
from mta_training.synth.version import source_version

SECOND = 1_000_000_000
ALL = sys.maxsize


def detection_metrics(judged):
    return evaluate_detections(
        [frame.sample for frame in judged.frames],
        {frame.sample.token: frame.predictions for frame in judged.frames},
    )


@pytest.mark.parametrize('shift_ns', [0, 90_000_000, -90_000_000])
def test_recorded_ground_truth_is_judged_as_perfect(bags, tmp_path, shift_ns):
    scene = SceneBag(bags[0])
    record_ground_truth(scene, tmp_path / 'recorded', shift_ns)
    judged = recorded_frames(tmp_path / 'recorded', bags[:1], ALL)
    assert judged.with_detections == len(judged.frames) == len(scene.samples)
    metrics = detection_metrics(judged)
    # Velocities are not in the messages: a fast car's first box may come out half a metre beside.
    assert metrics['mAP_present'] > (0.98 if shift_ns else 0.999)
    assert metrics['mATE'] < 0.2 and metrics['mASE'] < 1e-3 and metrics['mAOE'] < 1e-3


def test_boxes_of_another_moment_are_not_judged_as_perfect(bags, tmp_path, monkeypatch):
    """The test above can fail: the same boxes without the motion in between score worse."""
    record_ground_truth(SceneBag(bags[0]), tmp_path / 'recorded')
    good = detection_metrics(recorded_frames(tmp_path / 'recorded', bags[:1], ALL))

    def late(path):
        recording = read_recording(path)
        return recording._replace(
            detections=[
                one._replace(stamp_ns=one.stamp_ns + SECOND // 5) for one in recording.detections
            ]
        )

    monkeypatch.setattr(recorded, 'read_recording', late)
    bad = detection_metrics(recorded_frames(tmp_path / 'recorded', bags[:1], ALL))
    assert bad['mATE'] > good['mATE'] + 0.3


def test_recorded_captions_are_judged_where_objects_have_one(bags, tmp_path):
    pytest.importorskip('pycocoevalcap')
    scene = SceneBag(bags[0])
    record_ground_truth(scene, tmp_path / 'recorded')
    result = judge(recorded_frames(tmp_path / 'recorded', bags[:1], ALL).frames, ('strict',))
    assert result['captions']['strict']['centre_2m']['CIDEr'] == pytest.approx(10.0, abs=1e-6)
    for frame in recorded_frames(tmp_path / 'recorded', bags[:1], 1).frames:
        assert all(frame.described.captions)
        assert sorted(frame.described.captions) == sorted(
            text
            for text, points in zip(frame.sample.captions, frame.sample.num_lidar_pts)
            if text and points
        )


def test_a_silent_node_finds_nothing(bags, tmp_path):
    with Writer(tmp_path / 'silent', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection(
            '/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', typestore=typestore()
        )
    judged = recorded_frames(tmp_path / 'silent', bags[:1], ALL)
    assert judged.with_detections == 0 and detection_metrics(judged)['mAP'] == 0.0
    assert judged.frames[0].described is None


def test_a_recording_of_another_bag_is_refused(bags, tmp_path):
    record_ground_truth(SceneBag(bags[0]), tmp_path / 'recorded')
    with pytest.raises(EvaluationError, match=f'none of them from the time of .*{bags[1].name}'):
        recorded_frames(tmp_path / 'recorded', bags, ALL)


def test_nearest_message_only_within_its_quarter_second():
    messages = [RecordedDetections(at, 0, np.zeros((0, 10)), [], [], []) for at in (0, SECOND)]
    assert nearest_detections(messages, int(0.2 * SECOND)).stamp_ns == 0
    assert nearest_detections(messages, int(0.8 * SECOND)).stamp_ns == SECOND
    assert nearest_detections(messages, int(0.5 * SECOND)) is None
    assert nearest_detections([], 0) is None


def test_the_command_takes_the_parent_of_a_bag_and_needs_no_torch(bags, tmp_path):
    recording = record_ground_truth(SceneBag(bags[0]), tmp_path / 'recorded')
    place = tmp_path / 'bags'
    shutil.copytree(bags[0], place / bags[0].name)
    code = (
        'import sys\n'
        'class Blocker:\n'
        '    def find_spec(name, path=None, target=None):\n'
        '        if name.split(".")[0] in ("torch", "rclpy", "pycocoevalcap"):\n'
        '            raise ModuleNotFoundError(name, name=name)\n'
        'sys.meta_path.insert(0, Blocker)\n'
        'from mta_training.commands.cli import main\n'
        'main()'
    )
    words = ['eval', '--recorded', recording, '--bags', place, '--out', tmp_path / 'report']
    ended = subprocess.run(
        [sys.executable, '-c', code, *map(str, words)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert 'keyframes have a message' in ended.stdout
    metrics = json.loads((tmp_path / 'report' / 'metrics.json').read_text())
    assert metrics['frames_with_detections'] == metrics['frames'] == len(SceneBag(bags[0]).samples)
    assert metrics['detection']['mAP_present'] > 0.999
    assert metrics['captions'] is None and 'pycocoevalcap' in metrics['captions_absent']


def test_the_version_of_drives_follows_the_renderer_and_not_the_trainer(tmp_path):
    package = Path(recorded.__file__).parents[1]
    copy = shutil.copytree(package, tmp_path / 'mta_training')
    assert source_version(copy) == source_version(package)
    with open(copy / 'training' / 'train.py', 'a') as file:
        file.write('# a change\n')
    assert source_version(copy) == source_version(package)
    with open(copy / 'synth' / 'render' / 'backdrop.py', 'a') as file:
        file.write('# a change\n')
    assert source_version(copy) != source_version(package)


def test_the_command_prints_the_version_of_drives():
    printed = subprocess.check_output(
        [sys.executable, '-m', 'mta_training.commands.cli', 'synth', '--print-version'], text=True
    )
    assert printed.strip() == source_version()

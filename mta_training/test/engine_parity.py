"""How far two engines are from each other on the frames of a scene."""

import numpy as np

from mta_perception.detections import decode
from mta_perception.runtime.engines import EngineSettings
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_training.data.scene_cache import read_scene
from mta_training.data.scene_drive import drive_scene


def check_engines_agree(model, bag, frames):
    """openvino against onnxruntime on a drive, each with a history of its own: the BEV, and that
    what one is sure of the other one finds, but for one box in five."""
    manifest = Manifest.load(model)
    scene = read_scene(bag, manifest.image)
    drives = [
        list(drive_scene(OnnxDetector(manifest, 1, EngineSettings(engine)), scene, frames))
        for engine in ('onnxruntime', 'openvino')
    ]
    sure = there = 0
    for one, other in zip(*drives):
        want, got = one.outputs.bev, other.outputs.bev
        apart = np.sqrt(np.square(got - want).mean() / np.square(want).mean())
        print('root mean square of the difference over that of the BEV:', apart)
        assert apart < 0.07
        found = [
            decode(driven.outputs, 0.3, manifest.max_detections, manifest.calibration)
            for driven in (one, other)
        ]
        for of, by in (found, found[::-1]):
            for box, label in zip(of.boxes[of.scores > 0.5], of.labels[of.scores > 0.5]):
                same = by.boxes[by.labels == label]
                sure += 1
                there += bool((np.linalg.norm(same[:, :2] - box[:2], axis=1) < 0.5).any())
    print(f'{there} of {sure} sure boxes are there in the other engine')
    assert sure > 10 and there >= 0.8 * sure

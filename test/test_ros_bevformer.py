"""BEVFormer on the vehicle: exported, run by the real node, equal to the pipeline without ROS."""

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')
pytest.importorskip('torch')
pytest.importorskip('onnxscript')

from ros_car import Car, start_node
from small_bevformer import small_config, small_model
from test_published_checkpoint import of_size
import yaml

from mta_perception.commands.processes import free_domain
from mta_perception.model.bevformer.detector import BevFormerDetector
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_training.export import graphs, model_directory


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model directory of a small BEVFormer that detects and says nothing."""
    folder = tmp_path_factory.mktemp('bevformer')
    network = small_config()
    detector = BevFormerDetector.around(small_model(network)).eval()
    config = of_size(network)
    graphs.export_detector(config, detector, folder)
    exported = model_directory.Exported(config, detector)
    values = model_directory.manifest(exported, folder, {}, {})
    (folder / 'manifest.yaml').write_text(yaml.safe_dump(values))
    return folder


def test_the_node_detects_with_a_bevformer_and_says_that_it_has_no_sentences(model, tmp_path):
    domain = free_domain()
    with start_node(tmp_path, domain, {'model': model, 'dead_after_s': 2.0}) as node:
        car = Car(domain)
        try:
            car.listen_to_node()
            car.wait_for_node()
            for _ in range(4):
                message = car.step()
            assert len(message.detections) > 0
            # One camera less: fewer pairs, the same graph.
            assert car.step(without=['cam_back']).detections
            assert car.history[-1].length >= 3
            level, words, _ = car.statuses()['captions']
            assert level == 0 and 'no sentences' in words
            assert not car.captions and 'Traceback' not in node.output()
        finally:
            car.close()


def test_pairs_are_made_anew_only_when_a_projection_changes(model):
    detector = OnnxDetector(Manifest.load(model), 1)
    pairs = detector._pairs
    image_from_ego = graphs.surround_view(Manifest.load(model).image)
    mask = np.ones(6, np.float32)
    first = pairs.tables(image_from_ego, mask)
    assert pairs.tables(image_from_ego.copy(), mask.copy()) is first
    mask[2] = 0.0
    fewer = pairs.tables(image_from_ego, mask)
    assert len(fewer['pair_cell']) < len(first['pair_cell']) and 2 not in fewer['pair_camera']
    nothing = pairs.tables(image_from_ego, np.zeros(6, np.float32))
    assert len(nothing['pair_cell']) == 2 and not nothing['pair_share'].any()

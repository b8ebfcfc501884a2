"""Whichever detector it is: its losses, and which of its queries found which object."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from toy_scenes import toy_scene

from mta_perception.model.config import MtaConfig
from mta_perception.model.mta_model import build_detector
from mta_training.data.batches import Place, make_batch
from mta_training.losses.detection import detection_criterion
from mta_training.process_group import ProcessGroup
from mta_training.runs.settings import Weights

CONFIGS = {'nano': MtaConfig.toy(), 'bevformer': MtaConfig.bevformer('nano')}


def judged(kind):
    """(criterion, DetectorResult, Batch with one object outside the BEV) of one frame."""
    config = CONFIGS[kind]
    scene = toy_scene(config, frames=1, objects=6, seed=1)
    boxes = scene.boxes[0].copy()
    boxes[2, 0] = 60.0  # metres ahead
    batch = make_batch([scene._replace(boxes=[boxes])], [Place(0, 0, False)])
    torch.manual_seed(0)
    detector = build_detector(config).eval()
    criterion = detection_criterion(detector, Weights())
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        result = detector(
            *batch[:3],
            torch.zeros(1, *detector.memory_shape),
            batch.history_valid,
            batch.ego_prev_from_ego_now,
        )
    return criterion, result, batch


@pytest.mark.parametrize('kind', CONFIGS)
def test_every_detector_has_losses_and_matches(kind):
    criterion, result, batch = judged(kind)
    loss = criterion(result, batch, ProcessGroup.alone())
    assert set(loss.terms) <= set(loss.log) and float(loss.terms['detection']) > 0
    assert ('perspective' in loss.terms) == (criterion.heads is not None)
    for queries, objects in (loss.matches[0], criterion.match(result.sample(0), batch.targets[0])):
        assert len(set(queries)) == len(queries) == len(objects) == len(set(objects)) >= 5


def test_captions_are_learned_by_the_queries_that_the_losses_chose():
    """BEVFormer's own matching, in its own range; nano's would describe what it never learns."""
    criterion, result, batch = judged('bevformer')
    chosen = criterion(result, batch, ProcessGroup.alone()).matches[0]
    found = criterion.match(result.sample(0), batch.targets[0])
    assert 2 not in found[1]
    for one, other in zip(chosen, found):
        np.testing.assert_array_equal(one, other)

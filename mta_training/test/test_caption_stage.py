"""The last stage changes captions and nothing else."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from toy_scenes import toy_scene  # noqa: E402

from mta_perception.model.config import MtaConfig  # noqa: E402
from mta_training import train  # noqa: E402
from mta_training.caption_stage import finish_captions, look  # noqa: E402
from mta_training.samples import Place, make_batch  # noqa: E402

CONFIG = MtaConfig.toy()
torch.set_num_threads(1)


def silent(line):
    """For log lines nobody reads."""


@pytest.fixture(scope='module')
def scenes():
    return [toy_scene(CONFIG, frames=4, objects=8, seed=seed) for seed in range(3)]


@pytest.fixture(scope='module')
def finished(scenes, tmp_path_factory):
    """A run of four steps, and the same with captions finished."""
    runs = []
    for minutes in (0.0, 0.05):
        runs.append(tmp_path_factory.mktemp('run'))
        settings = train.TrainConfig(steps=4, batch=2, language_steps=10, evaluate_minutes=0,
                                     caption_start=0.0, caption_minutes=minutes)
        train.run(scenes, [], runs[-1], settings, CONFIG, log_line=silent)
    return [train.load_model(run) for run in runs]


def test_the_detector_stays_and_the_captioner_learns(finished):
    before, after = (model.state_dict() for model, _, _ in finished)
    for name, value in before.items():
        same = torch.equal(value, after[name])
        assert same or not name.startswith('detector.'), name
    assert not torch.equal(before['qformer.prefix.weight'], after['qformer.prefix.weight'])


def test_the_loss_goes_down(finished, scenes):
    model, tokenizer, _ = finished[0]
    losses = []
    for minutes in (1e-3, 0.1):
        losses.append(finish_captions(model, tokenizer, scenes, minutes, frames=12, batch=16,
                                      learning_rate=2e-3, log_line=silent))
    assert losses[1] < 0.7 * losses[0]


def test_views_are_what_the_detector_sees(finished, scenes):
    model, tokenizer, _ = finished[1]
    views = look(model, tokenizer, scenes[:1], 1, np.random.default_rng(0))
    counts = {len(frame) for frame in scenes[0].captions}
    assert len(views.true) == len(views.token_ids) and len(views.true) in counts
    frames = [index for index, boxes in enumerate(scenes[0].boxes)
              if torch.isin(views.true[:, 0], torch.from_numpy(boxes[:, 0])).all()]
    batch = make_batch(scenes[:1], [Place(0, frames[0], False)])
    bev = CONFIG.bev
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        result = model.detector(
            batch.images, batch.image_from_ego, batch.camera_mask,
            torch.zeros(1, bev.channels, bev.cells, bev.cells), batch.history_valid,
            batch.ego_prev_from_ego_now)
    seen = model.qformer.look_around(views.true, result.bev[0].float())
    torch.testing.assert_close(views.surroundings.float(), seen, atol=2e-2, rtol=1e-2)

"""BEVFormer as MTA's detector: frames, memory, motion, and a training with both alignments."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from toy_scenes import toy_scene
from training_cases import silent, small_recipe

from mta_perception.geometry import invert_rigid, quaternion_from_rigid, rigid_from_yaw
from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer import history
from mta_perception.model.bevformer.detector import (
    BevFormerDetector,
    can_bus_of,
    ego_boxes,
    ego_grid,
    image_from_lidar,
    lidar_tokens,
    our_order,
)
from mta_perception.model.bevformer.official import official_name
from mta_perception.model.config import MtaConfig
from mta_training.bevformer.checkpoint import import_checkpoint
from mta_training.data.batches import Place, make_batch
from mta_training.evaluation.torch_frames import predict_scene
from mta_training.losses import bevformer_codes as numpy_codes
from mta_training.runs import run_directory
from mta_training.runs.recipe import Recipe
from mta_training.training import loop


def config():
    """BEVFormer nano with a small captioner."""
    base = MtaConfig.bevformer('nano')
    return replace(
        base,
        qformer=replace(base.qformer, width=64, heads=4, layers=2, prefix_tokens=6),
        language=MtaConfig.toy().language,
    )


@pytest.fixture(scope='module')
def scene():
    return toy_scene(config(), frames=3, objects=6, seed=1)


def test_codes_there_and_back():
    rng = np.random.default_rng(0)
    boxes = rng.normal(0, 10, (40, 10))
    boxes[:, 3:6] = rng.uniform(0.3, 12, (40, 3))
    yaw = rng.uniform(-3, 3, 40)
    boxes[:, 6], boxes[:, 7] = np.sin(yaw), np.cos(yaw)
    said = numpy_codes.lidar_codes(boxes)
    got = ego_boxes(torch.from_numpy(said)).numpy()
    np.testing.assert_allclose(got, boxes, atol=2e-5)
    ordered = our_order(torch.from_numpy(said)).numpy()
    np.testing.assert_allclose(np.exp(ordered[:, 3:6]), boxes[:, 3:6], rtol=1e-5)


def test_pixels_are_the_same_through_either_frame(scene):
    matrices = torch.from_numpy(scene.image_from_ego[:1]).double()
    point = np.array([12.0, -3.0, 0.7, 1.0])
    through_ego = matrices[0] @ torch.from_numpy(point)
    through_lidar = image_from_lidar(matrices)[0] @ torch.from_numpy(
        numpy_codes.LIDAR_FROM_EGO @ point
    )
    torch.testing.assert_close(through_lidar[:, :3], through_ego)


def test_grid_and_tokens():
    grid = torch.randn(2, 3, 6, 6)
    assert torch.equal(ego_grid(lidar_tokens(grid)), grid)
    tokens = torch.zeros(1, 36, 1)
    tokens[0, 5 * 6 + 5] = 1.0  # farthest ahead, farthest right
    assert ego_grid(tokens)[0, 0, 0, 5] == 1.0  # iy grows to the left, ix forward


def absolute_can_bus(world_from_ego):
    """(18,) float64, as the published code has it: place, quaternion w x y z, nine numbers of the
    CAN bus, yaw [rad], yaw [degrees]."""
    x, y, z, w = quaternion_from_rigid(world_from_ego)
    yaw = float(np.arctan2(world_from_ego[1, 0], world_from_ego[0, 0]) % (2.0 * np.pi))
    place = world_from_ego[:3, 3]
    return torch.tensor([*place, w, x, y, z, *np.zeros(9), yaw, np.degrees(yaw)]).double()


def test_motion_is_what_the_published_vector_says():
    before = rigid_from_yaw(0.7, (20.0, -5.0, 0.0))
    now = before @ rigid_from_yaw(0.1, (3.0, 0.4, 0.0))
    moved = torch.from_numpy(invert_rigid(before) @ now)[None]
    ours = can_bus_of(moved, torch.ones(1, dtype=torch.float64))
    theirs = history.relative_can_bus(absolute_can_bus(now), absolute_can_bus(before))[None]
    torch.testing.assert_close(history.displacement(ours), history.displacement(theirs))
    torch.testing.assert_close(ours[:, 17], theirs[:, 17])
    nothing = can_bus_of(moved, torch.zeros(1, dtype=torch.float64))
    assert nothing[0, :3].abs().max() == 0.0 == nothing[0, 17]


def test_memory_and_dead_cameras_matter_only_where_they_are(scene):
    torch.manual_seed(0)
    detector = BevFormerDetector(config()).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = make_batch([scene], [Place(0, 1, True)])
    memory = torch.randn(1, 128, 50, 50)

    def bev(mask=None, valid=1.0, memory=memory, images=batch.images):
        with torch.no_grad():
            return detector(
                images,
                batch.image_from_ego,
                batch.camera_mask if mask is None else mask,
                memory,
                torch.tensor([valid]),
                batch.ego_prev_from_ego_now,
            ).bev

    assert not torch.allclose(bev(), bev(valid=0.0), atol=1e-3)
    assert torch.equal(bev(valid=0.0), bev(valid=0.0, memory=0 * memory))
    dead = batch.camera_mask.clone()
    dead[:, 2] = 0.0
    black = batch.images.clone()
    black[:, 2] = 77
    assert torch.equal(bev(dead), bev(dead, images=black))
    assert not torch.equal(bev(dead), bev())


def test_mta_trains_on_bevformer_as_the_paper_does(scene, tmp_path):
    """Queues, augmentation, groups and rates of `paper`; nano's size has no stages to freeze."""
    paper = Recipe.load('paper').to_dict()
    recipe = small_recipe(
        model=config().to_dict(),
        augmentation=paper['augmentation'],
        schedule={
            **paper['schedule'],
            'epochs': 0.0,
            'steps': 2,
            'batch': 1,
            'frozen_stages': -1,
        },
        alignment={'bla': 'mse', 'dca': 'clip'},
        gradient_norms_every=1,
    )
    loop.run([scene], [], tmp_path / 'run', recipe, threads=1, say=silent)
    log = (tmp_path / 'run' / 'log.csv').read_text().splitlines()
    row = dict(zip(log[0].split(','), log[-1].split(',')))
    for name in ('detection', 'language', 'bla', 'dca', 'gradient_detection', 'gradient_dca'):
        assert float(row[name]) > 0, name
    loaded = run_directory.load_run(tmp_path / 'run')
    outputs = list(predict_scene(loaded.model, scene, 2))
    assert outputs[1].boxes.shape == (300, 10) and np.isfinite(outputs[1].boxes).all()
    assert outputs[1].bev.shape == (128, 50, 50)


def test_an_imported_checkpoint_fits_its_own_size_only(tmp_path):
    published = BEVFormer(BEVFormerConfig.tiny(official=True))
    torch.save(
        {
            'state_dict': {
                official_name(name): value for name, value in published.state_dict().items()
            }
        },
        tmp_path / 'tiny.pth',
    )
    import_checkpoint(tmp_path / 'tiny.pth', tmp_path / 'tiny')

    class Started:  # what load_detector needs of a Learner
        model = None
        heads = None

    Started.model = torch.nn.Module()
    Started.model.detector = BevFormerDetector(Recipe.load('paper').model)
    run_directory.load_detector(tmp_path / 'tiny', Started)
    own = Started.model.detector.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in published.state_dict().items())
    Started.model.detector = BevFormerDetector(config())
    with pytest.raises(run_directory.RunError, match='the recipe wants bevformer_nano'):
        run_directory.load_detector(tmp_path / 'tiny', Started)

"""What training, evaluation, export and captioner rely on, of every detector."""

from dataclasses import replace
import hashlib

import pytest

torch = pytest.importorskip('torch')

from test_model_geometry import rig

from mta_perception.config import MemoryConfig
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.geometry import invert_rigid, rigid_from_yaw
from mta_perception.model.config import MtaConfig
from mta_perception.model.mta_model import MtaModel, build_detector
from mta_perception.pipeline.bev_memory import BevMemory
from mta_perception.pipeline.drive import DetectorFrame, drive
from mta_perception.runtime.torch_detector import TorchDetector

CONFIGS = {'nano': MtaConfig.toy(), 'bevformer': MtaConfig.bevformer('nano')}


@pytest.fixture(scope='module', params=CONFIGS)
def detector(request):
    torch.manual_seed(0)
    detector = build_detector(CONFIGS[request.param]).eval()
    with torch.no_grad():  # zero-initialised layers would hide mistakes
        for parameter in detector.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return detector


def inputs(detector, batch=2, seed=0):
    image = detector.config.image
    generator = torch.Generator().manual_seed(seed)
    ego = torch.tensor(rigid_from_yaw(0.1, (3.0, 0.2, 0.0))).float()
    size = (batch, 6, image.height, image.width, 3)
    matrices = torch.tensor(rig(), dtype=torch.float32)
    matrices[:, :2] *= image.scale / CONFIGS['nano'].image.scale
    return (
        torch.randint(0, 256, size, generator=generator, dtype=torch.uint8),
        matrices[None].repeat(batch, 1, 1, 1),
        torch.ones(batch, 6),
        torch.randn(batch, *detector.memory_shape, generator=generator),
        torch.ones(batch),
        ego[None].repeat(batch, 1, 1),
    )


def test_results_have_the_shapes_that_the_detector_declares(detector):
    with torch.no_grad():
        result = detector(*inputs(detector))
    queries = result.boxes.shape[1]
    assert result.class_logits.shape == (2, queries, len(CLASSES))
    assert result.boxes.shape == result.codes.shape == (2, queries, BoxCode.WIDTH)
    assert result.object_features.shape == (2, queries, detector.object_feature_width)
    assert result.bev.shape == (2, *detector.memory_shape)
    assert detector.memory_shape == detector.config.bev.shape  # what the Q-Former reads


def test_codes_are_the_boxes_with_logarithms_of_sizes(detector):
    with torch.no_grad():
        result = detector(*inputs(detector))
    sizes = result.codes[..., BoxCode.SIZE].clamp(-4.0, 4.0).exp()
    torch.testing.assert_close(sizes, result.boxes[..., BoxCode.SIZE])


def test_the_backbone_is_the_part_that_a_recipe_may_freeze(detector):
    own = {id(parameter) for parameter in detector.backbone.parameters()}
    named = {id(p) for name, p in detector.named_parameters() if 'backbone.' in name}
    assert own == named and 0 < len(own) < len(list(detector.parameters()))


def test_a_drive_in_torch_is_the_network_fed_with_its_own_bev(detector):
    """Bit for bit what a loop over keyframes half a second apart gives, moved by the poses."""
    poses = [rigid_from_yaw(0.1 * i, (4.0 * i, 0.3 * i, 0.0)) for i in range(2)]
    frames = [
        DetectorFrame(
            1_000_000_000 + 500_000_000 * i,
            pose,
            *(part[0].numpy() for part in inputs(detector, 1, seed=i)[:3]),
        )
        for i, pose in enumerate(poses)
    ]
    driven = list(drive(TorchDetector(detector), frames, BevMemory(MemoryConfig())))
    memory, before = torch.zeros(1, *detector.memory_shape), None
    for i, (frame, one) in enumerate(zip(frames, driven)):
        moved = torch.eye(4) if before is None else torch.tensor(invert_rigid(before) @ poses[i])
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            result = detector(
                *(torch.from_numpy(part)[None] for part in frame[2:]),
                memory,
                torch.tensor([float(i > 0)]),
                moved[None].float(),
            )
        memory, before = result.bev, poses[i]
        assert one.history.valid == (i > 0)
        for name in one.outputs._fields:
            expected = getattr(result, name)[0].float()
            assert torch.equal(torch.from_numpy(getattr(one.outputs, name)), expected), name


@pytest.mark.parametrize(
    'config, count, digest',
    [
        (MtaConfig.toy(), 255, '08f95e63f29d0c63'),
        (MtaConfig.nano(), 365, '73dccf0a883c89b3'),
        (MtaConfig.bevformer('nano'), 481, '674cb8b761778868'),
        (MtaConfig.bevformer('tiny_official'), 817, 'ad0224fc1c75abd1'),
    ],
    ids=lambda value: getattr(value, 'name', None),
)
def test_saved_runs_find_their_tensors(config, count, digest):
    """Names and shapes as the first checkpoints have them, but for those that reading renames
    (mta_training.runs.run_directory.read_checkpoint_file); who changes one reads the old ones."""
    tensors = MtaModel(config).state_dict()
    lines = [
        f'{name.replace(".pyramid.lateral.", ".backbone.lateral.")} {tuple(value.shape)}'
        for name, value in tensors.items()
    ]
    found = hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:16]
    assert (len(lines), found) == (count, digest)


def test_saved_configurations_are_read():
    """As recipe.yaml and checkpoints hold them, with lists where YAML has no tuples."""
    saved = {
        'name': 'toy',
        'detector': 'nano',
        'image': {'width': 224, 'height': 128, 'scale': 0.14},
        'backbone': {'width': 8, 'blocks': [1, 1, 1, 1], 'stride': 8},
        'bev': {
            'half_extent_m': 51.2,
            'cells': 20,
            'channels': 32,
            'heads': 4,
            'feedforward': 64,
            'layers': 1,
            'pillar_heights_m': [0.0, 0.7, 1.5, 3.0],
            'temporal_points': 4,
            'cameras_per_cell': 2,
            'neck_blocks': 1,
        },
        'decoder': {'queries': 40, 'layers': 2, 'heads': 4, 'feedforward': 64, 'points': 4},
    }
    toy = MtaConfig.toy()
    assert MtaConfig.from_dict(saved) == replace(
        toy, qformer=MtaConfig().qformer, language=MtaConfig().language
    )
    for part in ('image', 'backbone', 'bev', 'decoder'):
        assert set(saved[part]) <= set(toy.to_dict()[part])

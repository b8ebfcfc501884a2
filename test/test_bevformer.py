"""BEVFormer: one sample equals a batch, fast attention equals slow, wrong input is named."""

from dataclasses import replace

import numpy as np
import pytest
import rigs

torch = pytest.importorskip('torch')

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer import Ego, History
from mta_perception.model.bevformer.attention import (
    Levels,
    Pairs,
    bagged,
    deformable,
    one_map_each,
)
from mta_perception.model.bevformer.config import BackboneConfig, PaddedImageConfig
from mta_perception.model.bevformer.history import align, relative_can_bus
from mta_perception.model.bevformer.reference import sample_maps, slow_copy
from mta_perception.model.bevformer.resnet import DeformableConv
from mta_perception.model.bevformer.visibility import find_visibility


def small_config(**changes):
    """Sizes that run in milliseconds; two levels, so that their order matters."""
    backbone = BackboneConfig(
        (1, 1, 1, 1), 8, False, out_stages=(2, 3), levels=2, frozen_norm=False
    )
    config = BEVFormerConfig(
        'test',
        PaddedImageConfig(96, 64, 0.06, 54),
        backbone,
        channels=32,
        heads=4,
        feedforward=64,
        bev_cells=12,
        encoder_layers=2,
        queries=20,
        decoder_layers=2,
        max_detections=30,
    )
    return replace(config, **changes)


def cameras(count, config, seed=0):
    """(count, 6, 4, 4): a car with six cameras, every sample another calibration."""
    rng = np.random.default_rng(seed)
    width, height = config.image.width, config.image.content_height
    intrinsics = rigs.pinhole(0.8 * width, width, height)
    matrices = np.tile(np.eye(4), (count, 6, 1, 1))
    for sample in range(count):
        for camera, degrees in enumerate(rigs.AZIMUTH_DEG.values()):
            # From the axes of a nuScenes lidar: x right, y forward.
            azimuth = 90 + degrees + rng.uniform(-8, 8)
            yaw = np.radians(azimuth)
            place = 1.2 * np.cos(yaw), 1.2 * np.sin(yaw), rng.uniform(-0.4, 0.2)
            matrices[sample, camera, :3] = rigs.image_from_ego(intrinsics, azimuth, place)
    return torch.from_numpy(matrices)


def can_bus(count, seed=0):
    """(count, 18): driving and turning, as the head sees it."""
    rng = np.random.default_rng(seed)
    vector = rng.normal(0, 0.3, (count, 18))
    vector[:, 0], vector[:, 1] = rng.uniform(1, 6, count), rng.uniform(-2, 2, count)
    vector[:, 16], vector[:, 17] = rng.uniform(0, 6.2, count), rng.uniform(-9, 9, count)
    return torch.from_numpy(vector)


def inputs(config, count, seed=0):
    """Everything a forward pass takes, for `count` samples with histories."""
    generator = torch.Generator().manual_seed(seed)
    image = config.image
    images = torch.randn(count, 6, 3, image.height, image.width, generator=generator)
    bev = torch.randn(count, config.bev_cells**2, config.channels, generator=generator)
    return (
        images,
        cameras(count, config, seed),
        Ego(can_bus(count, seed)),
        History(bev, torch.ones(count, dtype=torch.bool)),
    )


def some_model(config, seed=0):
    """Weights at random, also where the start is zero: nothing is symmetric by accident."""
    torch.manual_seed(seed)
    model = BEVFormer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def sample_of(given, index):
    images, matrices, ego, history = given
    one = slice(index, index + 1)
    mask = None if ego.camera_mask is None else ego.camera_mask[one]
    return (
        images[one],
        matrices[one],
        Ego(ego.can_bus[one], mask),
        History(history.bev[one], history.valid[one]),
    )


def assert_same(output, other, tolerance=2e-5):
    for ours, theirs in zip(output, other):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize('official', [False, True])
@torch.no_grad()
def test_a_batch_of_two_is_two_batches_of_one(official):
    config = small_config()
    if official:
        config = replace(config, quirks=BEVFormerConfig.tiny(official=True).quirks)
    model, given = some_model(config), inputs(config, 2)
    given = (*given[:3], History(given[3].bev, torch.tensor([True, False])))
    both = model(*given)
    for index in range(2):
        alone = model(*sample_of(given, index))
        assert_same([both.bev[index : index + 1]], [alone.bev])
        assert_same([part[:, index : index + 1] for part in both[1:]], alone[1:])


@torch.no_grad()
def test_a_history_that_is_not_valid_is_none():
    config = small_config()
    model, given = some_model(config), inputs(config, 2)
    ignored = History(given[3].bev, torch.zeros(2, dtype=torch.bool))
    assert_same(model(*given[:3], ignored), model(*given[:3]))
    assert (model(*given).bev - model(*given[:3]).bev).abs().max() > 1e-3


@pytest.mark.parametrize('form', ['published', 'dense'])
@torch.no_grad()
def test_fast_attention_equals_the_slow_forms(form):
    config = small_config(pillar_points=2)
    model, given = some_model(config), inputs(config, 2, seed=3)
    assert_same(model(*given), slow_copy(model, form)(*given), 1e-4)


@torch.no_grad()
def test_a_masked_camera_changes_nothing_by_its_image():
    config = small_config()
    model, (images, matrices, ego, history) = some_model(config), inputs(config, 1)
    mask = torch.ones(1, 6)
    mask[0, 2] = 0
    one = model(images, matrices, Ego(ego.can_bus, mask), history)
    changed, broken = images.clone(), matrices.clone()
    changed[0, 2], broken[0, 2] = 7.0, float('nan')
    other = model(changed, broken, Ego(ego.can_bus, mask), history)
    assert_same(one, other)
    assert (model(images, matrices, ego, history).bev - one.bev).abs().max() > 1e-3


@torch.no_grad()
def test_any_number_of_cameras():
    config = small_config(cameras=3)
    images, matrices, ego, history = inputs(config, 1)
    output = some_model(config)(images[:, :3], matrices[:, :3], ego, history)
    assert torch.isfinite(output.box_codes).all()


@pytest.mark.parametrize('form', [deformable, bagged])
def test_samples_equal_grid_sample_in_value_and_gradient(form):
    levels = Levels(((4, 5), (2, 3)))
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape, low=0.0, high=1.0):
        values = torch.rand(shape, generator=generator, dtype=torch.float64)
        return (low + (high - low) * values).requires_grad_()

    value, xy = leaf(2, levels.tokens, 2, 3), leaf(5, 2, 2, 4, 2, low=-1.7, high=5.7)
    weights, cells = leaf(5, 2, 2, 4), leaf(6, 2, 2, 2, low=-1.0, high=1.0)
    maps, queries = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([0, 1, 1, 2, 2, 4])
    shares = torch.rand(6, generator=generator, dtype=torch.float64)

    def ours(value, cells, xy, weights):
        return form(
            value.split(levels.lengths, 1),
            Pairs(maps, queries, shares, cells),
            *xy.unbind(-1),
            weights,
            levels,
        )

    def slow(value, cells, xy, weights):
        total = [torch.zeros(6, dtype=torch.float64) for _ in range(5)]
        for pair, (image, query) in enumerate(zip(maps.tolist(), queries.tolist())):
            places = xy[query] + cells[pair].repeat(1, 2, 1)
            total[query] = (
                total[query]
                + shares[pair]
                * sample_maps(
                    value[image : image + 1],
                    places[None, None],
                    weights[None, None, query],
                    levels,
                )[0, 0]
            )
        return torch.stack(total)

    given = value, cells, xy, weights
    torch.testing.assert_close(ours(*given), slow(*given), atol=1e-12, rtol=0)
    pull = torch.rand(5, 6, generator=generator, dtype=torch.float64)
    for fast_one, slow_one in zip(
        torch.autograd.grad((ours(*given) * pull).sum(), given),
        torch.autograd.grad((slow(*given) * pull).sum(), given),
    ):
        torch.testing.assert_close(fast_one, slow_one, atol=1e-10, rtol=0)
    assert torch.autograd.gradcheck(ours, given, fast_mode=True)


def test_places_far_out_or_not_finite_harm_nobody():
    levels = Levels(((4, 5),))
    value = torch.rand(1, 20, 2, 3)
    x = torch.tensor([[1e30, 2.5], [-1e30, 2.5], [2.0, float('inf')], [2.5, 1.5]]).view(4, 2, 1, 1)
    y, weights = torch.full_like(x, 1.5), torch.full_like(x, 0.5)
    pairs = one_map_each(torch.zeros(1, 4, 1, 1, 2))
    mixed = deformable([value], pairs, x, y, weights, levels).view(4, 2, 3)
    assert mixed[:2, 0].abs().max() == 0
    torch.testing.assert_close(mixed[0, 1], mixed[1, 1])
    assert torch.isfinite(mixed[3]).all() and mixed[3].abs().min() > 0


@torch.no_grad()
def test_positions_stay_float32_under_autocast():
    config = small_config()
    model, given = some_model(config), inputs(config, 1)
    exact = model(*given)
    with torch.autocast('cpu', torch.bfloat16):
        rough = model(*given)
        seen = find_visibility(config, given[1])
    assert_same(seen, find_visibility(config, given[1]))
    assert rough.box_codes.dtype == rough.references.dtype == torch.float32
    assert (rough.bev.float() - exact.bev).abs().max() < 0.25
    assert (rough.box_codes[..., :2] - exact.box_codes[..., :2]).abs().max() < 2.0


def test_checkpointing_changes_no_gradient():
    config = small_config(dropout=0.0)
    given = inputs(config, 1)
    gradients = []
    for checkpointing in (False, True):
        model = some_model(replace(config, checkpointing=checkpointing)).train()
        model(*given).box_codes.square().mean().backward()
        gradients.append(
            {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_the_encoder_compiles_as_one_graph():
    config = small_config()
    model, (images, matrices, ego, history) = some_model(config), inputs(config, 1)
    features = model.features(images)
    visibility = find_visibility(config, matrices)
    compiled = torch.compile(model.encoder, fullgraph=True, backend='eager')
    assert_same(
        [compiled(features, visibility, ego.can_bus, history)],
        [model.encoder(features, visibility, ego.can_bus, history)],
    )


def test_exact_alignment_puts_a_standing_thing_where_it_is_now():
    config = BEVFormerConfig.nano()
    cells, yaw_before, degrees = config.bev_cells, 1.1, 20.0
    yaw = yaw_before + np.radians(degrees)
    move = np.array([5.0, 2.0])  # global
    vector = torch.zeros(1, 18, dtype=torch.float64)
    vector[0, :2], vector[0, 16], vector[0, 17] = torch.from_numpy(move), yaw, degrees

    def lidar(point, origin, heading):
        forward = np.array([np.cos(heading), np.sin(heading)])
        right = np.array([np.sin(heading), -np.cos(heading)])
        return np.array([(point - origin) @ right, (point - origin) @ forward])

    thing = np.array([9.0, 14.0])
    line = (torch.arange(cells) + 0.5) * config.cell_m + config.range_m[0]
    y, x = torch.meshgrid(line, line, indexing='ij')
    was = lidar(thing, np.zeros(2), yaw_before)
    blob = torch.exp(-((x - was[0]) ** 2 + (y - was[1]) ** 2) / 18.0).reshape(1, -1, 1)
    moved, shift = align(History(blob, torch.ones(1, dtype=torch.bool)), vector, config)
    weight = moved[0, :, 0] / moved.sum()
    found = np.array([float((weight * axis.flatten()).sum()) for axis in (x, y)])
    assert np.abs(found - lidar(thing, move, yaw)).max() < 0.1
    assert shift.abs().max() == 0


def test_the_published_turn_about_a_far_pivot_loses_the_map():
    config = BEVFormerConfig.tiny(official=True)
    bev = torch.ones(1, config.bev_cells**2, 1)
    vector = torch.zeros(1, 18, dtype=torch.float64)
    vector[0, 17] = 10.0
    history = History(bev, torch.ones(1, dtype=torch.bool))
    lost, _ = align(history, vector, config)
    kept, _ = align(history, vector, config.with_quirks(rotate_about_pixel_100=False))
    assert lost.mean() < 0.7 < 0.9 < kept.mean()


def test_degrees_wrap_unless_published():
    before, now = torch.zeros(18), torch.zeros(18)
    before[17], now[17] = 359.0, 2.0
    now[0] = 3.0
    assert relative_can_bus(now, before)[17] == 3.0
    assert relative_can_bus(now, before, raw_degrees=True)[17] == -357.0
    assert relative_can_bus(now, None)[[0, 17]].tolist() == [0.0, 0.0]


def test_deformable_convolution_with_still_taps_is_a_convolution():
    torch.manual_seed(0)
    layer, x = DeformableConv(5, 7), torch.randn(2, 5, 6, 8)
    plain = torch.nn.functional.conv2d(x, layer.weight, padding=1)
    torch.testing.assert_close(layer(x), 0.5 * plain, atol=1e-5, rtol=0)
    with torch.no_grad():  # all taps one cell right
        layer.conv_offset.bias[1:18:2] = 1.0
    torch.testing.assert_close(layer(x)[..., 1:-2], 0.5 * plain[..., 2:-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', ['tiny', 'small', 'base', 'nano'])
def test_published_sizes(name):
    config = getattr(BEVFormerConfig, name)(official=True)
    with torch.device('meta'):
        model = BEVFormer(config)
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    assert (
        count
        == {'tiny': 33_574_330, 'small': 59_569_067, 'base': 69_140_395, 'nano': 4_478_221}[name]
    )


def test_wrong_names_and_shapes_are_all_named():
    config = small_config()
    model = BEVFormer(config)
    from mta_perception.model.bevformer.official import official_name

    state = {official_name(name): tensor for name, tensor in model.state_dict().items()}
    loaded = BEVFormer.from_official(state, config)
    assert all(
        torch.equal(loaded.state_dict()[name], tensor)
        for name, tensor in model.state_dict().items()
    )
    del state['img_backbone.conv1.weight']
    state['pts_bbox_head.extra'] = torch.zeros(1)
    state['pts_bbox_head.query_embedding.weight'] = torch.zeros(3, 64)
    with pytest.raises(
        ValueError,
        match=r'missing: img_backbone\.conv1\.weight; '
        r'unexpected: pts_bbox_head\.extra; wrong shape: '
        r'pts_bbox_head\.query_embedding\.weight \(3, 64\), expected \(20, 64\)',
    ):
        BEVFormer.from_official(state, config)


def _spoil(given, config, what):
    images, matrices, ego, history = given
    if what == 'cameras':
        images = images[:, :5]
    elif what == 'size':
        images = images[..., :-32]
    elif what == 'nan':
        matrices[0, 1, 0, 0] = float('nan')
    elif what == 'singular':
        matrices[0, 3] = 0.0
    elif what == 'grid':
        history = History(history.bev[:, :-1], history.valid)
    elif what == 'can_bus':
        ego = Ego(ego.can_bus[:, :17])
    return images, matrices, ego, history


@pytest.mark.parametrize(
    'what, words',
    [
        ('cameras', r'images has shape \(1, 5, 3, 64, 96\); expected \(1, 6, 3, 64, 96\)'),
        ('size', r'images has shape .*64, 64\); expected .*64, 96\)'),
        ('nan', r'image_from_lidar\[0, 1\] \(4, 4\) has values that are not finite'),
        ('singular', r'image_from_lidar\[0, 3\] \(4, 4\) is singular'),
        ('grid', r'history.bev has shape \(1, 143, 32\); expected \(1, 144, 32\)'),
        ('can_bus', r'ego.can_bus has shape \(1, 17\); expected \(1, 18\)'),
    ],
)
def test_wrong_input_is_named(what, words):
    config = small_config()
    given = _spoil(inputs(config, 1), config, what)
    with pytest.raises(ValueError, match=words):
        BEVFormer(config)(*given)


@torch.no_grad()
def test_bytes_are_normalised_and_padding_is_zero():
    config = BEVFormerConfig.small()
    model = BEVFormer(
        small_config(image=replace(config.image, width=96, height=64, content_height=54))
    )
    pixels = torch.randint(0, 256, (1, 6, 64, 96, 3), dtype=torch.uint8)
    normal = model.normalise(pixels)
    assert normal[:, :, :, 54:].abs().max() == 0
    blue = pixels[0, 0, 3, 5, 2].float() - config.image.mean[0]
    torch.testing.assert_close(normal[0, 0, 0, 3, 5], blue)


@torch.no_grad()
def test_decoding_takes_the_best_pairs_and_the_bottom():
    config = small_config()
    model, given = some_model(config), inputs(config, 1)
    output = model(*given)
    found = model.decode(output)[0]
    scores = output.class_logits[-1, 0].sigmoid().flatten().sort(descending=True).values
    assert len(found.scores) == 30
    torch.testing.assert_close(found.scores, scores[:30])
    code = output.box_codes[-1, 0, found.index[0] // 10]
    assert found.labels[0] == found.index[0] % 10
    torch.testing.assert_close(found.boxes[0, 2], code[4] - code[5].exp() / 2)
    torch.testing.assert_close(found.boxes[0, 3:6], code[[2, 3, 5]].exp())

"""The detector as a whole: masking, memory, batches; captioner and language model."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from test_model_geometry import rig

from mta_perception.contract import CLASSES
from mta_perception.model.config import ImageConfig, LanguageConfig, MtaConfig
from mta_perception.model.language import LanguageModel
from mta_perception.model.mta_model import MtaModel
from mta_perception.model.nano.detection_decoder import boxes_from_codes, codes_from_boxes


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    model = MtaModel(MtaConfig.toy()).eval()
    with torch.no_grad():  # zero-initialised layers would hide mistakes
        for name, parameter in model.named_parameters():
            if not parameter.abs().sum() or '.heat.' in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def inputs(batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ego = torch.eye(4)
    ego[:2, :2] = torch.tensor([[0.99, -0.141], [0.141, 0.99]])
    ego[0, 3] = 3.0
    return {
        'images': torch.randint(
            0, 256, (batch, 6, 128, 224, 3), generator=generator, dtype=torch.uint8
        ),
        'image_from_ego': torch.tensor(rig())[None].repeat(batch, 1, 1, 1),
        'camera_mask': torch.ones(batch, 6),
        'history_bev': torch.randn(batch, 32, 20, 20, generator=generator),
        'history_valid': torch.ones(batch),
        'ego_prev_from_ego_now': ego[None].repeat(batch, 1, 1),
    }


def run(model, values):
    with torch.no_grad():
        return model.detector(*values.values())


def difference(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(a[:4], b[:4]))


def test_shapes_and_box_code(model):
    result = run(model, inputs(2))
    assert result.class_logits.shape == (2, 40, len(CLASSES))
    assert result.boxes.shape == (2, 40, 10)
    assert result.object_features.shape == (2, 40, model.detector.object_feature_width)
    assert result.bev.shape == (2, 32, 20, 20)
    heading = result.boxes[..., 6:8].norm(dim=-1)
    assert torch.allclose(heading, torch.ones_like(heading), atol=1e-2)
    assert (result.boxes[..., 3:6] > 0).all()


@pytest.mark.parametrize('camera', range(6))
def test_masked_camera_has_no_influence(model, camera):
    values = inputs()
    values['camera_mask'][0, camera] = 0
    first = run(model, values)
    values['images'][0, camera] = 255 - values['images'][0, camera]
    values['image_from_ego'][0, camera] = 7.0
    assert difference(run(model, values), first) == 0.0
    values['camera_mask'][0, camera] = 1
    assert difference(run(model, values), first) > 1e-3


def test_history_counts_only_when_valid(model):
    values = inputs()
    with_history = run(model, values)
    values['history_valid'][:] = 0
    without = run(model, values)
    assert difference(with_history, without) > 1e-3
    values['history_bev'] = torch.full_like(values['history_bev'], float('nan'))
    assert difference(run(model, values), without) == 0.0


def test_ego_motion_moves_the_history(model):
    values = inputs()
    first = run(model, values)
    values['ego_prev_from_ego_now'][0, 0, 3] += 5.0
    assert float((run(model, values).bev - first.bev).abs().max()) > 1e-3


def test_batch_of_two_equals_two_batches_of_one(model):
    both = inputs(2, seed=3)
    both['camera_mask'][1, 0] = 0
    both['history_valid'][0] = 0
    both['image_from_ego'][1, :, 0] *= 1.1
    together = run(model, both)
    for index in range(2):
        alone = run(model, {key: value[index : index + 1] for key, value in both.items()})
        for a, b in zip(together[:4], alone[:4]):
            assert torch.allclose(a[index], b[0], atol=2e-4), float((a[index] - b[0]).abs().max())


@given(
    st.tuples(*[st.floats(-60, 60)] * 3),
    st.tuples(*[st.floats(0.02, 50)] * 3),
    st.floats(-np.pi, np.pi),
    st.tuples(*[st.floats(-40, 40)] * 2),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_box_codes_there_and_back(centre, size, yaw, velocity):
    box = torch.tensor([*centre, *size, np.sin(yaw), np.cos(yaw), *velocity])
    torch.testing.assert_close(boxes_from_codes(codes_from_boxes(box)), box, atol=1e-4, rtol=1e-4)


def test_one_peak_for_a_car_two_for_neighbouring_cones(model):
    heat = torch.full((1, 10, 20, 20), -9.0)
    for label in (CLASSES.index('car'), CLASSES.index('traffic_cone')):
        heat[0, label, 5, 5], heat[0, label, 5, 6] = 2.0, 1.0
    cells, labels, logits = model.detector.decoder.select(heat)
    best = set(zip(labels[0, :3].tolist(), cells[0, :3].tolist()))
    cone, car = CLASSES.index('traffic_cone'), CLASSES.index('car')
    assert best == {(car, 105), (cone, 105), (cone, 106)}
    assert torch.allclose(logits[0, :3], torch.tensor([2.0, 2.0, -0.5]))


def test_objects_are_captioned_independently(model):
    generator = torch.Generator().manual_seed(5)
    features, boxes, logits = (
        torch.randn(5, width, generator=generator) for width in (64, 10, 10)
    )
    bev = torch.randn(32, 20, 20, generator=generator)
    with torch.no_grad():
        together = model.qformer(features, boxes * 10, logits, bev)
        alone = model.qformer(features[3:4], boxes[3:4] * 10, logits[3:4], bev)
    assert together.shape == (5, 6, 64)
    assert torch.allclose(together[3:4], alone, atol=1e-5)


def test_language_cache_equals_whole_sequence():
    torch.manual_seed(1)
    model = LanguageModel(
        LanguageConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    ).eval()
    prefix, token_ids = torch.randn(3, 4, 32), torch.randint(0, 50, (3, 6))
    with torch.no_grad():
        whole = model(prefix, token_ids).logits
        step = model(prefix, token_ids[:, :1])
        pieces = [step.logits]
        for place in range(1, 6):
            step = model(prefix[:, :0], token_ids[:, place : place + 1], step.keys, step.values)
            pieces.append(step.logits)
    assert float((torch.cat(pieces, 1) - whole).abs().max()) < 1e-5


def test_language_equals_transformers_llama():
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(2)
    config = LanguageConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2
    )
    model = LanguageModel(config).eval()
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
        )
    ).eval()
    theirs.load_state_dict(model.state_dict(), strict=True)
    token_ids = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        largest = float(
            (model(torch.zeros(2, 0, 32), token_ids).logits - theirs(token_ids).logits).abs().max()
        )
    print(f'largest difference {largest:.2e}')
    assert largest < 1e-4


def test_config_round_trip_and_refusals():
    config = replace(MtaConfig.nano(), image=ImageConfig(320, 192, 0.2))
    assert MtaConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match='image.height=250'):
        ImageConfig(448, 250, 0.28)
    with pytest.raises(ValueError, match='heads'):
        LanguageConfig(hidden_size=250)


def test_nano_is_the_size_the_documents_name():
    parameters = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in MtaModel(MtaConfig.nano()).named_children()
    }
    assert 3e6 < parameters['detector'] < 6e6
    language = LanguageModel(MtaConfig.nano().language)
    assert 2e6 < sum(p.numel() for p in language.parameters()) < 4e6
    assert np.isclose(MtaConfig.nano().bev.cell_m, 2.048)

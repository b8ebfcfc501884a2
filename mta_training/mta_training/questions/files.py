"""Questions in a file: one JSON object a line (JSON Lines), named as the fields of Question."""

from dataclasses import asdict, fields
import json
from pathlib import Path

from mta_perception.atomic_files import write_atomically
from mta_perception.foreign_text import shown
from mta_training.questions.question import Question
from mta_training.questions.wordings import split_of

MOST_CHARACTERS = 2000  # of a text or an answer
MOST_FRAMES = 100_000  # of a scene
MOST_LINE = 1_000_000  # characters
_TEXTS = ('scene', 'text', 'answer', 'kind', 'family', 'wording', 'here')
_NUMBERS = ('first', 'now', 'right')
_WORDS = ('instances', 'options')
_NEEDED = ('scene', 'first', 'now', 'text', 'answer', 'kind', 'family', 'wording')
_KNOWN = tuple(field.name for field in fields(Question))


class QuestionFileError(ValueError):
    """A file of questions cannot be read; the message names file, line and field."""


def write_questions(path, questions):
    """Write a list of Questions; fields that are as by default are left out."""
    plain = {field.name: field.default for field in fields(Question)}
    lines = []
    for question in questions:
        row = {name: value for name, value in asdict(question).items() if value != plain[name]}
        lines.append(json.dumps(row, allow_nan=False))
    write_atomically(Path(path), ''.join(f'{line}\n' for line in lines).encode())


def read_questions(path):
    """List of Questions of a file; QuestionFileError for the first line that is not one."""
    path, found = Path(path), []
    try:
        with open(path, encoding='utf-8') as lines:
            number = 0
            while line := lines.readline(MOST_LINE):
                number += 1
                if len(line) >= MOST_LINE:
                    raise _wrong(path, number, f'longer than {MOST_LINE} characters')
                if line.strip():
                    found.append(_question(path, number, line))
    except UnicodeDecodeError as error:
        raise QuestionFileError(
            f'{path}: no UTF-8 text ({error.reason}); expected a file of `mta-train questions`.'
        ) from None
    return found


def _wrong(path, number, what):
    return QuestionFileError(
        f'{path}, line {number}: {what}. Expected a line of `mta-train questions`.'
    )


def _question(path, number, line):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise _wrong(path, number, 'no JSON') from None
    if not isinstance(row, dict):
        raise _wrong(path, number, f'{shown(row)} is no JSON object')
    unknown = [name for name in row if name not in _KNOWN]
    missing = [name for name in _NEEDED if name not in row]
    if unknown or missing:
        raise _wrong(
            path,
            number,
            f'field {shown(unknown[0])} is unknown' if unknown else f'no field {missing[0]!r}',
        )
    for name, value in row.items():
        expected = _expected(name, value)
        if expected:
            raise _wrong(path, number, f'{name}={shown(value)}; expected {expected}')
    question = _built(path, number, row)
    _agree(path, number, question)
    return question


def _expected(name, value):
    """What a field should have been, '' where it is that."""
    if name in _TEXTS:
        return '' if _is_text(value) else f'a text of at most {MOST_CHARACTERS} characters'
    if name in _NUMBERS:
        low = -1 if name == 'right' else 0
        good = type(value) is int and low <= value <= MOST_FRAMES
        return '' if good else f'a whole number, {low} to {MOST_FRAMES}'
    if name in _WORDS:
        good = isinstance(value, list) and all(map(_is_text, value))
        return '' if good else 'a list of texts'
    if name == 'spans':
        good = isinstance(value, list) and all(map(_is_span, value))
        return '' if good else 'a list of [first, last] frames, first <= last'
    if name == 'saliency':
        good = isinstance(value, list) and all(map(_is_share, value))
        return '' if good else 'a list of numbers from 0 to 1'
    return '' if isinstance(value, bool) else 'true or false'


def _is_text(value):
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS and value.isprintable()


def _is_span(value):
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(one) is int for one in value)
        and value[0] <= value[1]
    )


def _is_share(value):
    return type(value) in (int, float) and 0.0 <= value <= 1.0


def _built(path, number, row):
    row = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    if 'spans' in row:
        row['spans'] = tuple(map(tuple, row['spans']))
    try:
        question = Question(**row)
        split_of(question)
    except ValueError as error:
        raise _wrong(path, number, str(error).rstrip('.')) from None
    return question


def _agree(path, number, question):
    """Fields against each other: what a model or a metric would stumble over."""
    first, now = question.first, question.now
    if any(not first <= a <= b <= now for a, b in question.spans):
        raise _wrong(
            path, number, f'spans={shown(question.spans)}; expected frames {first} to {now}'
        )
    if question.saliency and len(question.saliency) != now - first + 1:
        raise _wrong(
            path,
            number,
            f'saliency has {len(question.saliency)} numbers; expected {now - first + 1}, one for '
            f'each frame {first} to {now}',
        )
    if question.kind == 'time' and not question.saliency:
        raise _wrong(path, number, 'a question of kind time without saliency')
    is_choice = question.kind == 'choice'
    if is_choice and not 0 <= question.right < len(question.options):
        raise _wrong(
            path,
            number,
            f'right={question.right} of {len(question.options)} options; expected one of them',
        )

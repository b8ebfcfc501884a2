"""Texts and values that come from elsewhere, for messages of ours: cut, harmless to a terminal."""

import reprlib

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 80
_shown.maxlevel, _shown.maxdict, _shown.maxlist = 2, 4, 6


def shown(value: object) -> str:
    """A foreign value for a message: its repr, on one line, cut where it is long."""
    return _shown.repr(value)


def printable(text: str, most: int = 600) -> str:
    """Foreign text for a terminal, a log or a message: on one line, without what moves a cursor or
    turns the direction of writing, cut where it is long."""
    text = text if len(text) <= most else f'{text[: most - 1]}…'
    if text.isprintable():
        return text
    return ''.join(map(_printable, text))


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error of a library says, on one line, cut; its type where it says nothing."""
    words = ' '.join(str(error).split()) or type(error).__name__
    return printable(words, most).rstrip('.')


def _printable(one: str) -> str:
    if one.isprintable():
        return one
    return ' ' if one in '\n\t' else '\ufffd'

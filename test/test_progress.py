"""Long steps show what they do: lines in a pipe, at once and in time; a bar on a terminal."""

import io
import os
import select
import time

import pytest

from mta_perception.progress import EVERY_S, Progress, duration


def test_a_pipe_gets_lines_also_while_nothing_is_finished():
    out = io.StringIO()
    with Progress('training', 4, out, every_s=0.01) as progress:
        progress.update(1, 'loss 2.5')
        deadline = time.monotonic() + 10.0
        while out.getvalue().count('\n') < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        progress.update(4)
    lines = out.getvalue().splitlines()
    assert lines[1].startswith('training: 25 %, 1 of 4, loss 2.5, ') and 'left' in lines[1]
    assert lines[-1] == 'training: 100 %, 4 of 4, loss 2.5'
    assert EVERY_S == 10.0


def test_an_error_has_the_last_word():
    out = io.StringIO()
    with pytest.raises(ValueError):
        with Progress('training', 4, out):
            raise ValueError
    assert out.getvalue() == ''


def test_a_mute_one_says_nothing_and_counts_all_the_same():
    out = io.StringIO()
    with Progress('training', 4, out, every_s=0.001, show=False) as progress:
        progress.reached(2, 5)
        time.sleep(0.01)
    assert out.getvalue() == '' and progress.text().startswith('40 %, 2 of 5')


def test_things_are_counted_as_they_are_done():
    out = io.StringIO()
    progress = Progress('bags', 3, out)
    assert [(item, progress.done) for item in progress.over('abc')] == [
        ('a', 0.0),
        ('b', 1.0),
        ('c', 2.0),
    ]
    assert out.getvalue() == 'bags: 100 %, 3 of 3\n'


def test_words_may_be_asked_for_when_they_are_shown():
    progress = Progress('runs', 2, io.StringIO())
    progress.words = iter(['first', 'second']).__next__
    assert progress.text() == '0 %, 0 of 2, first'
    assert progress.text() == '0 %, 0 of 2, second'


@pytest.mark.skipif(not hasattr(os, 'openpty'), reason='needs a pseudo-terminal')
def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    reader, writer = os.openpty()
    with os.fdopen(writer, 'w') as terminal:
        with Progress('training', 2, terminal) as progress:
            progress.update(1, 'loss 2.5')
        shown = b''
        while select.select([reader], [], [], 1.0)[0]:  # it comes in pieces
            shown += os.read(reader, 4096)
    os.close(reader)
    shown = shown.decode()
    assert '━' in shown and 'loss 2.5' in shown and 'training' in shown


@pytest.mark.parametrize('seconds, words', [(4.2, '4 s'), (600.0, '10 min'), (10_000.0, '2.8 h')])
def test_durations_as_a_person_says_them(seconds, words):
    assert duration(seconds) == words

"""What the tests of `mta-train` share: the command line in this process, and what an error is."""

import sys

import pytest

from mta_training.commands import cli


def runner(monkeypatch, capsys):
    """A function (*arguments) -> (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setenv('COLUMNS', '160')
        monkeypatch.setattr(sys, 'argv', ['mta-train', *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


def one_line(error, *words):
    """Assert that an expected failure was said in one line that has all `words`."""
    lines = error.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('mta-train: '), error
    for word in words:
        assert str(word) in lines[0]

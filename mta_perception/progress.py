"""What a long step shows: a bar on a terminal, elsewhere a line every ten seconds.

Lines are written at once: a pipe or a file keeps what is written to it for minutes otherwise, and
whoever waits learns nothing.  They go to stderr, as the bar does, and come from a thread of their
own, so that a step that takes a minute is no silence.  Where processes are forked, fork them
first.
"""

from collections.abc import Callable, Iterable, Iterator
import sys
import threading
import time
from types import TracebackType
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

EVERY_S = 10.0

Item = TypeVar('Item')
Words = str | Callable[[], str]  # beside the share: a text, or a function that gives it


class Progress:
    """How far something is: `with Progress('decoding', 12) as progress: progress.advance()`."""

    def __init__(
        self,
        what: str,
        total: float = 1.0,
        file: TextIO | None = None,
        every_s: float = EVERY_S,
        show: bool = True,
    ) -> None:
        self.what, self.total, self.done = what, total, 0.0
        self.words: Words = ''
        self.left_s: float | None = None  # seconds until the end, where the caller knows better
        self._file, self._every_s = file or sys.stderr, every_s
        self._show = show  # False: nothing is said
        self._start, self._over = time.monotonic(), threading.Event()
        self._console = Console(file=self._file)
        self._bar: Bar | None = None
        self._thread: threading.Thread | None = None

    def update(self, done: float, words: Words | None = None, left_s: float | None = None) -> None:
        """`done` of the total is done; `words` say more."""
        self.done, self.left_s = done, left_s
        if words is not None:
            self.words = words
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def reached(self, done: float, total: float) -> None:
        """`done` of a total that is known only now is done."""
        self.total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)
        self.update(done)

    def advance(self, count: float = 1) -> None:
        """So many more are done."""
        self.update(self.done + count)

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Each of some things in turn, shown as done when the next is asked for."""
        with self:
            for item in items:
                yield item
                self.advance()

    def text(self) -> str:
        """All of it in one line, without the name."""
        share = self.done / self.total if self.total else 1.0
        parts = [f'{100.0 * share:.0f} %']
        if self.total > 1:
            parts.append(f'{self.done:g} of {self.total:g}')
        words = self.words() if callable(self.words) else self.words
        left = self._left() if self.left_s is None else self.left_s
        parts += [words] if words else []
        parts += [f'{duration(left)} left'] if left and share < 1.0 else []
        return ', '.join(parts)

    def _left(self) -> float | None:
        if not self.done:
            return None
        return (time.monotonic() - self._start) * (self.total - self.done) / self.done

    def __enter__(self) -> 'Progress':
        if not self._show:
            return self
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn(self.what),
                BarColumn(),
                _Words(self),
                console=self._console,
                redirect_stdout=sys.stdout.isatty(),  # a file keeps what is printed into it
            )
            self._task = self._bar.add_task('', total=self.total)
            self._bar.update(self._task, completed=self.done)
            self._bar.start()
        else:
            self._thread = threading.Thread(target=self._speak, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        error: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.stop()
        elif self._thread is not None:
            self._thread.join()
            if error is None:  # else the error has the word
                self._say()

    def _speak(self) -> None:
        while not self._over.wait(self._every_s):
            self._say()

    def _say(self) -> None:
        print(f'{self.what}: {self.text()}', file=self._file, flush=True)


class _Words(ProgressColumn):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Text:
        """What the line says where there is no terminal."""
        return Text(self._progress.text())


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def duration(seconds: float) -> str:
    """Seconds in the unit a person would choose."""
    if seconds < 90.0:
        return f'{seconds:.0f} s'
    if seconds < 5400.0:
        return f'{seconds / 60.0:.0f} min'
    return f'{seconds / 3600.0:.1f} h'

"""Signs of life: a line every ten seconds while a long step runs, also where no terminal is."""

from contextlib import contextmanager
import signal
import threading
import time

INTERVAL = 10.0  # s


@contextmanager
def signs_of_life(say, doing):
    """While the block runs, say every INTERVAL how long it has run and what `doing()` returns."""
    start = time.monotonic()
    over = threading.Event()

    def speak():
        while not over.wait(INTERVAL):
            say(f'  {time.monotonic() - start:.0f} s: {doing()}')

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ending(returncode):
    """How a child ended, for a message: its exit code, or the signal that killed it."""
    if returncode >= 0:
        return f'exit code {returncode}'
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f'signal {-returncode}'
    hint = ' (often: not enough memory)' if -returncode == signal.SIGKILL else ''
    return f'{name}{hint}'

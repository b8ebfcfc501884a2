"""Child processes of demo and benchmarks: their own DDS domain, logs in files, clean ends."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
import ctypes
import os
from pathlib import Path
import random
import signal
import socket
import subprocess
import time

# Participant 0's discovery port in domain d is 7410 + 250 d; ids above 101 would reach into the
# ephemeral ports of Linux.
DOMAINS = range(20, 102)
SIGNAL_HINTS = {
    'SIGBUS': 'most likely /dev/shm is full; `mta doctor` says how much it has',
    'SIGKILL': 'somebody killed it, or the machine had no memory left',
    'SIGSEGV': 'a crash in a library',
    'SIGILL': 'this CPU lacks an instruction that a library uses',
}
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def free_domain() -> int:
    """A ROS_DOMAIN_ID in which nobody on this machine has opened a participant yet."""
    candidates = list(DOMAINS)
    random.shuffle(candidates)
    for domain in candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7410 + 250 * domain))
            except OSError:
                continue
        return domain
    raise RuntimeError(
        f'every ROS_DOMAIN_ID from {DOMAINS[0]} to {DOMAINS[-1]} is in use on this '
        'machine; end some ROS processes first.'
    )


def ros_environment(domain: int) -> dict[str, str]:
    """Environment of a child that talks to this machine's processes in `domain` alone."""
    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        # What Humble reads instead; newer ones would warn of it.
        **({'ROS_LOCALHOST_ONLY': '1'} if os.environ.get('ROS_DISTRO') == 'humble' else {}),
        'PYTHONUNBUFFERED': '1',
    }


def ended_words(code: int) -> str:
    """How a process ended, for people: 'ended with exit code 1', 'was ended by SIGBUS …'."""
    if code >= 0:
        return f'ended with exit code {code}'
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f'signal {-code}'
    hint = SIGNAL_HINTS.get(name)
    return f'was ended by {name}' + (f' ({hint})' if hint else '')


def _follow_parent() -> None:
    """In the child, before it becomes its program: SIGINT comes when the parent dies.

    It must not be ignored then, as it is for all that a script starts in the background.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def die_with_parent() -> None:
    """The same for what may be killed at any time, and then is at once."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """One process whose output goes to a file; use it as a context manager.

    It is in a session of its own, so that Ctrl-C reaches it through `stop` alone, and it ends with
    the thread that made it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: str | Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = Path(log)
        with self.log.open('wb') as sink:
            self._process = subprocess.Popen(
                command,
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.PIPE,
                env=environment,
                start_new_session=True,
                preexec_fn=_follow_parent,
            )
        self.pid = self._process.pid

    def __enter__(self) -> 'Child':
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def enter(self) -> None:
        """Press Enter, for a child that waits for that."""
        stdin = self._process.stdin
        assert stdin is not None, 'a pipe was asked for'
        with suppress(BrokenPipeError):  # it has ended; `check` says how
            stdin.write(b'\n')
            stdin.flush()

    def running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors='replace')

    def check(self) -> None:
        """Raise RuntimeError with the end of its output where it has ended with an error."""
        code = self._process.poll()
        if code not in (None, 0):
            tail = '\n  '.join(self.output().strip().splitlines()[-6:])
            raise RuntimeError(
                f'the {self.name} process {ended_words(code)}; '
                f'its whole output is in {self.log}. It ends with:\n  {tail}'
            )

    def wait_for(self, text: str, timeout_s: float) -> None:
        """Wait until it has printed `text`; raise where it ends or the time is up before."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output():
            self.check()
            if not self.running() or time.monotonic() > deadline:
                raise RuntimeError(
                    f'the {self.name} process did not print "{text}" within '
                    f'{timeout_s:.0f} s; see {self.log}.'
                )
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self, grace_s: float = 15.0) -> int | None:
        """SIGINT, then SIGTERM, then SIGKILL, to this process alone; returns the exit code."""
        for number, patience_s in (
            (signal.SIGINT, grace_s),
            (signal.SIGTERM, 5.0),
            (signal.SIGKILL, 5.0),
        ):
            if not self.running():
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        return self._process.poll()

"""Threads that always work on the newest: one slot, and what is overtaken in it is counted."""

from collections.abc import Callable
from contextlib import suppress
import os
import threading
import time
from typing import Generic, TypeVar

Item = TypeVar('Item')


class NewestWorker(Generic[Item]):
    """Calls `work(item)` in a thread of its own, for the newest item offered, never for a queue.

    max_rate_hz: work begins at most that often; None: as often as it can.  nice: how much the
    thread stands back where others want its core, 0 to 19.  `work` must not raise (see
    tally.Guard).
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Item], object],
        max_rate_hz: float | None = None,
        nice: int = 0,
    ) -> None:
        self.name, self._nice = name, nice
        self.overtaken = 0  # items that a newer one replaced before their turn
        self._work = work
        self._period_s = 1.0 / max_rate_hz if max_rate_hz else 0.0
        self._changed = threading.Condition()
        self._slot: Item | None = None
        self._stopping = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Put an item in; True where it replaced one that had not had its turn."""
        with self._changed:
            replaced = self._slot is not None
            self._slot = item
            self.overtaken += replaced
            self._changed.notify_all()
        return replaced

    def backlog(self) -> tuple[int, float]:
        """(items waiting: 0 or 1, seconds the present one has been worked on: 0.0 when idle)."""
        with self._changed:
            since = self._busy_since
            return int(self._slot is not None), time.monotonic() - since if since else 0.0

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread after its present item; False where it is still at it after timeout_s."""
        with self._changed:
            self._stopping, self._slot = True, None
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._nice:
            # Of this thread alone, as Linux has it; elsewhere it is no thread's to ask for.
            with suppress(OSError):
                thread = threading.get_native_id()
                now = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, min(19, now + self._nice))
        next_start = 0.0
        while True:
            item = self._take(next_start)
            if item is None:
                return
            next_start = time.monotonic() + self._period_s
            self._work(item)
            with self._changed:
                self._busy_since = None

    def _take(self, not_before: float) -> Item | None:
        """The newest item, once there is one and its time has come; None to end."""
        with self._changed:
            while not self._stopping:
                wait_s = not_before - time.monotonic()
                if self._slot is not None and wait_s <= 0:
                    item, self._slot = self._slot, None
                    self._busy_since = time.monotonic()
                    return item
                self._changed.wait(wait_s if self._slot is not None else None)
            return None

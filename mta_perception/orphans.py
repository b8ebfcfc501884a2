"""Worker processes end with the one that started them, however that ended.

Python's pools leave theirs waiting for ever when the parent is killed, and writing until then.
"""

from contextlib import suppress
from multiprocessing import connection, parent_process
import os
import threading


def end_with_parent() -> None:
    """In a worker: end as soon as the process that started this one is gone."""
    parent = parent_process()
    watched: int
    if parent is not None:  # made by multiprocessing, which has a handle of it
        watched = parent.sentinel
    else:
        try:
            watched = os.pidfd_open(os.getppid())
        except (OSError, AttributeError):  # a kernel before 5.3
            return
    threading.Thread(target=_watch, args=(watched,), daemon=True).start()


def _watch(watched: int) -> None:
    with suppress(OSError):
        connection.wait([watched])
        os._exit(1)

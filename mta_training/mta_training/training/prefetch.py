"""Batches made ahead by threads, so that an accelerator does not wait for the CPU."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor


class Prefetch:
    """Calls a stream's `step` and makes what it says, `ahead` steps before it is asked for.

    stream  with step(), state() and restore(state)
    make    function (number of the step, what step() gave) -> anything
    """

    def __init__(self, stream, make, ahead):
        self.stream, self.make, self.ahead = stream, make, ahead
        self.pool = ThreadPoolExecutor(max(1, ahead)) if ahead else None
        self.queue, self.number = deque(), 0
        self.taken = stream.state()

    def next(self):
        """What `make` made of the next step."""
        if not self.pool:
            places = self.stream.step()
            self.taken = self.stream.state()
            self.number += 1
            return self.make(self.number - 1, places)
        while len(self.queue) <= self.ahead:
            places = self.stream.step()
            future = self.pool.submit(self.make, self.number, places)
            self.queue.append((future, self.stream.state()))
            self.number += 1
        future, self.taken = self.queue.popleft()
        return future.result()

    def state(self):
        """The stream's state after what was taken, whatever was made ahead."""
        return self.taken

    def restore(self, state, number):
        """Go on where `state` was taken, after so many steps."""
        self.stream.restore(state)
        self.queue.clear()
        self.taken, self.number = state, number

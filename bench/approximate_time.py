"""Plain re-statement of the ApproximateTime policy of ROS 2's message_filters (its C++ one).

One queue a camera.  The set wanted is the one whose stamps lie closest together and that holds the
pivot: the newest of the oldest messages, when every camera has one.  Oldest messages are given up
until no set can be tighter.  Left out: the lower bounds between messages, which let the original
decide before the next message comes; so this waits a round, and costs the least the policy can.
"""

from collections import deque

DEPTH = 10
AGE_PENALTY = 0.1  # as the original's


class ApproximateTime:
    """Of `count` cameras; `add` returns the sets that are decided now."""

    def __init__(self, count, longest_ns):
        self._queues = [deque() for _ in range(count)]  # of stamps [ns]
        self._past = [[] for _ in range(count)]  # given up, while a better set is looked for
        self._longest_ns = longest_ns
        self._best, self._pivot, self._pivot_ns = None, None, 0

    def add(self, camera, stamp_ns):
        """[tuple of stamps, one a camera]"""
        queue = self._queues[camera]
        queue.append(stamp_ns)
        if len(queue) + len(self._past[camera]) > DEPTH:
            self._restore()
            queue.popleft()
            self._best = self._pivot = None
        return self._decided()

    def _decided(self):
        found = []
        while all(self._queues):
            heads = [queue[0] for queue in self._queues]
            first, last = min(heads), max(heads)
            oldest = heads.index(first)
            if self._pivot is None:
                if last - first > self._longest_ns:
                    self._queues[oldest].popleft()
                    continue
                self._best, self._pivot, self._pivot_ns = heads, heads.index(last), last
                for past in self._past:
                    past.clear()
            elif (last - max(self._best)) * (1 + AGE_PENALTY) < first - min(self._best):
                self._best = heads  # tighter: what was given up before it is lost
                for past in self._past:
                    past.clear()
            grown_ns = (last - max(self._best)) * (1 + AGE_PENALTY)
            if oldest == self._pivot or grown_ns >= self._pivot_ns - min(self._best):
                found.append(tuple(self._best))
                self._restore()
                for queue, stamp_ns in zip(self._queues, found[-1]):
                    while queue and queue[0] <= stamp_ns:
                        queue.popleft()
                self._best = self._pivot = None
                continue
            self._past[oldest].append(self._queues[oldest].popleft())
        return found

    def _restore(self):
        for queue, past in zip(self._queues, self._past):
            queue.extendleft(reversed(past))
            past.clear()

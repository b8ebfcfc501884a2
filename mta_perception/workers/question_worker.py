"""Questions answered one at a time in a thread of their own, each within its deadline.

Whoever asks gets a Pending and looks at it; the thread that waits for it is never blocked.  A
question that comes while another one is answered is refused, not queued: an answer is about now.
"""

from collections.abc import Callable
import threading
import time
import traceback

from mta_perception.answers import Answer, refusal
from mta_perception.reasons import Code, Reason
from mta_perception.workers.newest_worker import NewestWorker
from mta_perception.workers.tally import Durations, Tally

AnswerText = Callable[[str, Callable[[], bool]], Answer]  # (text, go_on)
NICE = 5  # detections come first


class Pending:
    """A question on its way."""

    def __init__(self, text: str, deadline_s: float) -> None:
        self.text, self.deadline_s = text, deadline_s
        self._answer: Answer | None = None
        self._lock = threading.Lock()

    def settle(self, answer: Answer) -> bool:
        """Give it its answer; False where it has one already."""
        with self._lock:
            if self._answer is not None:
                return False
            self._answer = answer
            return True

    def answer(self) -> Answer | None:
        """Its answer, None while there is none; that its deadline has passed is one."""
        if self._answer is None and time.monotonic() > self.deadline_s:
            self.settle(refusal(Reason(Code.DEADLINE_PASSED, 'the machine is busy')))
        return self._answer


class QuestionWorker:
    """`ask` from any thread; `settled` is called in the worker's as an answer is there."""

    def __init__(
        self,
        answer: AnswerText,
        timeout_s: float,
        say: Callable[[str], object],
        settled: Callable[[], object],
    ) -> None:
        """answer: see pipeline.answering.  say: writes a warning to the log."""
        self._answer, self._timeout_s, self._say = answer, timeout_s, say
        self._settled = settled
        self._current: Pending | None = None
        self._lock, self._closing = threading.Lock(), False
        self.asked = self.answered = 0
        self.refused = Tally(say)  # by Code
        self.durations = Durations()  # of an answer, ms
        self._worker: NewestWorker[Pending] = NewestWorker('questions', self._work, nice=NICE)
        self._worker.start()

    def ask(self, text: str) -> Pending:
        """Begin to answer a text, or refuse it at once."""
        pending = Pending(text, time.monotonic() + self._timeout_s)
        with self._lock:
            self.asked += 1
            free = self._current is None and not self._closing
            if free:
                self._current = pending
        if free:
            self._worker.offer(pending)
        else:
            self._refuse(pending)
        return pending

    def note(self, answer: Answer) -> None:
        """Count what was answered to whoever asked."""
        if answer.why_not is None:
            self.answered += 1
        else:
            # What people type is no fault of the node's.
            self.refused.count_reason(answer.why_not, quiet=True)

    def busy_s(self) -> float:
        """How long the present question has been worked on; 0 where there is none."""
        return self._worker.backlog()[1]

    def close(self) -> None:
        """End the thread; who still waits is told that the node does not run any more."""
        self._closing = True
        current = self._current
        if current is not None:
            current.settle(refusal(Reason(Code.NOT_RUNNING, 'it was put to sleep meanwhile')))
        self._worker.stop()

    def _refuse(self, pending: Pending) -> None:
        if self._closing:
            pending.settle(refusal(Reason(Code.NOT_RUNNING)))
        else:
            pending.settle(refusal(Reason(Code.ASKED_MEANWHILE, 'ask again when it is answered')))

    def _work(self, pending: Pending) -> None:
        began = time.monotonic()
        try:
            found = self._answer(
                pending.text, lambda: not self._closing and time.monotonic() < pending.deadline_s
            )
        except Exception as error:  # of one question; the next one is answered again
            self._say(f'a question could not be answered:\n{traceback.format_exc()}')
            found = refusal(Reason(Code.ASKING_FAILED, f'{type(error).__name__}: {error}'))
        self.durations.add({'answer': (time.monotonic() - began) * 1e3})
        with self._lock:
            self._current = None
        pending.settle(found)
        self._settled()

"""`~/ask`: a question in words, answered from the live memory of the last 20 s.

The service's callback is a coroutine: it looks whether its answer is there whenever the executor
wakes, so that nothing else waits for it.  A guard condition wakes the executor as it is.
"""

import time

from mta_msgs.srv import Ask
from rclpy.callback_groups import ReentrantCallbackGroup

from mta_perception.answers import CANNOT_TELL, MOST_ASKED, refusal
from mta_perception.foreign_text import printable
from mta_perception.pipeline.answering import answer
from mta_perception.reasons import Code, Reason
from mta_perception.ros.conversions import fill_answer
from mta_perception.workers.question_worker import QuestionWorker

LOOK_S = 0.002  # some executors ask a waiting coroutine without pause


class _Wait:
    """Awaitable: until a Pending has its answer."""

    def __init__(self, pending):
        self._pending = pending

    def __await__(self):
        while (found := self._pending.answer()) is None:
            yield
            time.sleep(LOOK_S)
        return found


class Questions:
    """The service, for the life of the node; it answers while there are workers."""

    def __init__(self, node, outputs):
        self._node, self._outputs = node, outputs
        self._worker = self._settings = self._model = self._perception = None
        self._wake = node.create_guard_condition(lambda: None)
        # A group of its own: a coroutine that waits holds its group.
        node.create_service(Ask, '~/ask', self._on_ask, callback_group=ReentrantCallbackGroup())

    def start(self, model, settings, perception):
        """Answer from the memory of PerceptionWorkers; model: node.LoadedModel."""
        self._model, self._settings, self._perception = model, settings, perception
        if model.asker is not None:
            self._worker = QuestionWorker(
                self._answer,
                settings.ask_timeout_s,
                self._node.get_logger().warning,
                self._wake.trigger,
            )

    def stop(self):
        """Answer nothing any more."""
        if self._worker is not None:
            self._worker.close()
        self._worker = self._settings = self._model = self._perception = None

    @property
    def worker(self):
        """QuestionWorker, None where nothing is answered."""
        return self._worker

    def _answer(self, text, go_on):
        """In the worker."""
        age_s, most_s = self._perception.processed.age_s(), self._settings.history_max_gap_s
        fault = self._model.asker.fault(text)
        if fault is None and age_s is not None and age_s > most_s:
            fault = Reason(Code.NO_FRESH_FRAME, f'the newest one is {age_s:.1f} s old')
        if fault is not None:
            return refusal(fault)
        return answer(self._model.asker, self._perception.scene, text, go_on)

    async def _on_ask(self, request, response):
        worker, model, settings = self._worker, self._model, self._settings
        if model is None:
            reason = Reason(Code.NOT_RUNNING, 'configure and activate it first')
            return _refused(response, str(reason))
        if worker is None:
            return _refused(response, _no_heads(model.manifest.name, request.instruction))
        found = await _Wait(worker.ask(request.instruction))
        worker.note(found)
        half_extent_m = model.manifest.bev.half_extent_m
        fill_answer(response, found, settings.base_frame, half_extent_m)
        response.message = printable(response.message, MOST_ASKED)
        if found.success:
            self._outputs.publish_answer(found, settings.base_frame, half_extent_m)
        return response


def _refused(response, message):
    response.success, response.text, response.message = False, CANNOT_TELL, message
    return response


def _no_heads(name, instruction):
    length = len(instruction)
    cut = f' (the first {MOST_ASKED} of {length} characters)' if length > MOST_ASKED else ''
    detail = (
        f'{printable(name, 80)} finds objects and describes them (~/detections, ~/captions), it '
        f'cannot answer "{printable(instruction, MOST_ASKED)}"{cut}'
    )
    return str(Reason(Code.NO_TASK_HEADS, detail))

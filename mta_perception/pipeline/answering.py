"""From a question in words to an Answer: memory, graphs, and what they say in the car's frame.

Without ROS: the node's worker and `mta ask --bag` call the same.  What cannot be answered is an
Answer with its Reason, never a box.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mta_perception.answers import (
    NEVER,
    NONE,
    Answer,
    AnsweredBox,
    Raw,
    RememberedFrame,
    SceneInputs,
    SceneView,
    refusal,
)
from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import Floats
from mta_perception.geometry import Array, invert_rigid, transform, transform_boxes
from mta_perception.pipeline.scene_memory import SceneMemory
from mta_perception.reasons import Code, Reason
from mta_perception.runtime.captioner import StoppedError, to_the_end
from mta_perception.runtime.task_spec import TasksSpec


class Asker(Protocol):
    """What answers: runtime.asking.OnnxAsker."""

    spec: TasksSpec

    def fault(self, text: str) -> Reason | None:
        """Why a text is no question."""

    def __call__(self, text: str, scene: SceneInputs, go_on: Callable[[], bool]) -> Raw:
        """The Raw answer; StoppedError where go_on says no."""


def answer(
    asker: Asker,
    memory: SceneMemory,
    text: str,
    go_on: Callable[[], bool] = to_the_end,
) -> Answer:
    """The Answer to a text, by what is remembered now.

    go_on: False once nobody waits any more; the answer is then that its deadline has passed.
    """
    fault = asker.fault(text)
    if fault is not None:
        return refusal(fault)
    view = memory.view()
    if view is None:
        return refusal(Reason(Code.NOTHING_REMEMBERED, _why_empty(memory)))
    try:
        raw = asker(text, view.inputs, go_on)
    except StoppedError:
        return refusal(Reason(Code.DEADLINE_PASSED, 'the machine is busy, or the question long'))
    return answer_of(raw, view, asker.spec)


def _why_empty(memory: SceneMemory) -> str:
    if memory.last_reset is None:
        return 'no frame has been processed yet'
    return f'the memory began anew ({memory.last_reset})'


def answer_of(raw: Raw, view: SceneView, spec: TasksSpec) -> Answer:
    """What the graphs said about a SceneView, in stamps and in base_link."""
    now = view.frames[-1]
    if raw.word_score < spec.least_word:
        likely = f'{raw.word_score:.0%} likely a word'
        return refusal(Reason(Code.UNSURE, f'{likely}; ask in the words of docs/ask.md'))
    boxes: tuple[AnsweredBox, ...] = ()
    if raw.box is not None:
        boxes = (_answered(now, now, raw.box, raw.pointed, raw.box_score),)
    return Answer(
        _text(raw),
        None,
        now.stamp_ns,
        boxes,
        _track(raw, view.frames),
        None if raw.span is None else span_ns([f.stamp_ns for f in view.frames], raw.span),
        raw.span_score,
        tuple(frame.stamp_ns for frame in view.frames),
        raw.saliency,
        raw.mask,
        raw.mask_score,
        raw.word_score,
        _path(raw, view.frames),
        invert_rigid(now.world_from_ego) @ now.world_from_level,
    )


def _text(raw: Raw) -> str:
    """What is said; where a head was asked and finds nothing, that, not "it is here"."""
    found = {
        'region': raw.box is not None,
        'temporal': raw.span is not None,
        'mask': raw.mask is not None,
        'track': raw.track is not None,
    }
    if raw.heads and not any(found[head] for head in raw.heads):
        return NEVER if raw.heads == ('temporal',) else NONE
    return raw.text


def _track(raw: Raw, frames: Sequence[RememberedFrame]) -> tuple[AnsweredBox, ...]:
    if raw.track is None or raw.track_rows is None:
        return ()
    now = frames[-1]
    return tuple(
        _answered(frame, now, box, int(row), 1.0)
        for frame, box, row in zip(frames, raw.track, raw.track_rows)
        if row >= 0 and np.isfinite(box).all()
    )


def _path(raw: Raw, frames: Sequence[RememberedFrame]) -> Floats | None:
    """(n, 3) centres of the boxes of `_track`, in base_link of now."""
    if raw.track is None or raw.track_rows is None:
        return None
    kept = raw.track[(raw.track_rows >= 0) & np.isfinite(raw.track).all(axis=1)]
    now = frames[-1]
    ego_from_level: Array = invert_rigid(now.world_from_ego) @ now.world_from_level
    return transform(ego_from_level, kept[:, BoxCode.CENTER]).astype(np.float32)


def _answered(
    frame: RememberedFrame, now: RememberedFrame, box: Floats, row: int, score: float
) -> AnsweredBox:
    """An AnsweredBox of a box in the level frame of now, seen at `frame` as its object `row`."""
    ego_from_level: Array = invert_rigid(frame.world_from_ego) @ now.world_from_level
    moved = transform_boxes(ego_from_level, box[None])[0].astype(np.float32)
    label = CLASSES[int(frame.class_logits[row].argmax())]
    return AnsweredBox(moved, label, score, frame.track_ids[row], frame.stamp_ns)


def span_ns(stamps_ns: Sequence[int], span: tuple[float, float]) -> tuple[int, int]:
    """Begin and end [ns] of a span in frames, where frame i lasts from i to i + 1.

    A frame stands for the time halfway to its neighbours; nothing is said of what lies before the
    first or after the last.
    """
    stamps = np.asarray(stamps_ns, dtype=np.int64) - stamps_ns[0]
    edges = np.concatenate([stamps[:1], (stamps[1:] + stamps[:-1]) / 2, stamps[-1:]])
    begin, end = np.interp(span, np.arange(len(edges)), edges)
    return stamps_ns[0] + round(begin), stamps_ns[0] + round(end)

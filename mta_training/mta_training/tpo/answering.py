"""Greedy answers of an Asker: words, and what each head shows where its task token is said.

The language model is asked as in training: rows padded behind, the slots of a task follow its
token, one next word for all rows a step.  The prefix of a frame is read once.
"""

from typing import NamedTuple, Optional

import numpy as np
import torch

from mta_training.tpo.batches import AskBatch, Slots, place_here
from mta_training.tpo.frames import scene_tensors

MOST_SAID = 48  # words of an answer
AT_ONCE = 32  # questions


class Shown(NamedTuple):
    """One answer.  What no head was asked for, or what it says is not there, is None."""

    said: str  # with its task tokens
    heads: tuple  # names of the heads whose token was said, in order
    window: tuple  # (first, now): frames of the scene that were looked at
    pointed: int = -1  # row of the frame's objects
    box: Optional[np.ndarray] = None  # (10,) BoxCode, ego frame of now
    spans: Optional[np.ndarray] = None  # (R, 2) [begin, end) in frames of the window, best first
    scores: Optional[np.ndarray] = None  # (R,) of the spans
    saliency: Optional[np.ndarray] = None  # (L,) of the window's frames
    mask: Optional[np.ndarray] = None  # (Y, X) bool
    track: Optional[np.ndarray] = None  # (L, 10), ego frame of now
    seen: Optional[np.ndarray] = None  # (L,) bool: where the track has a box


def answer_all(asker, questions, scenes, log_progress=None):
    """[Shown] of Questions, in their order; scenes: {name: batches.Asked}."""
    order = sorted(range(len(questions)), key=lambda i: (questions[i].scene, questions[i].now))
    found = [None] * len(questions)
    training = asker.training
    asker.eval()
    for start in range(0, len(order), AT_ONCE):
        chosen = order[start : start + AT_ONCE]
        for index, shown in zip(chosen, answer(asker, [questions[i] for i in chosen], scenes)):
            found[index] = shown
        if log_progress is not None:
            log_progress(len(chosen))
    asker.train(training)
    return found


@torch.no_grad()
def answer(asker, questions, scenes):
    """[Shown] of a few Questions, all at once."""
    windows = list(dict.fromkeys((q.scene, q.first, q.now) for q in questions))
    memory = asker.tasks.config.memory
    scene = scene_tensors([(scenes[name].frames, a, b) for name, a, b in windows], memory)
    rows = torch.tensor([windows.index((q.scene, q.first, q.now)) for q in questions])
    vocabulary = asker.host.vocabulary
    speech = _Speech(vocabulary, asker.tasks.config.heads, questions, scene.frame_mask.shape[1])
    read = asker.read(scene)
    active = list(range(len(questions)))
    for _ in range(MOST_SAID):
        here = place_here([questions[i] for i in active], [speech.here[i] for i in active], scenes)
        told = asker.tell(speech.batch(active, scene, rows[active], here), read)
        active = [row for row, end in zip(active, speech.say(active, told.logits)) if not end]
        if not active:
            break
    here = place_here(questions, speech.here, scenes)
    batch = speech.batch(range(len(questions)), scene, rows, here)
    told = asker.tell(batch, read)
    parts = [{} for _ in questions]
    lengths = scene.frame_mask.sum(1)[rows].tolist()
    for head, slots in batch.slots.items():
        outputs = asker.answer(told, batch, head)
        for index, row in enumerate(slots.rows.tolist()):
            parts[row] |= _SHOW[head](outputs, index, lengths[row])
    return [
        Shown(
            vocabulary.decode(speech.ids[row][speech.starts[row] :]),
            tuple(speech.heads_of(row)),
            (question.now + 1 - lengths[row], question.now),
            **parts[row],
        )
        for row, question in enumerate(questions)
    ]


class _Speech:
    """The rows of some questions while their answers grow."""

    def __init__(self, vocabulary, heads, questions, frames):
        self.vocabulary, self.frames = vocabulary, frames
        self.ids = [vocabulary.instruction(question.text) for question in questions]
        self.starts = [len(ids) for ids in self.ids]
        self.here = [
            ids.index(vocabulary.here) if question.here and vocabulary.here in ids else -1
            for ids, question in zip(self.ids, questions)
        ]
        self.places = {head: {} for head in heads}  # head -> row -> places of its slots
        self.never = [vocabulary.pad, vocabulary.bos, vocabulary.answer, vocabulary.slot]
        self.never = [token for token in (*self.never, vocabulary.here) if token != vocabulary.eos]

    def batch(self, active, scene, rows, here):
        """AskBatch of what the rows `active` have so far."""
        longest = max(len(self.ids[row]) for row in active)
        ids = np.full((len(active), longest), self.vocabulary.pad)
        words = np.zeros(ids.shape, bool)
        for index, row in enumerate(active):
            ids[index, : len(self.ids[row])] = self.ids[row]
            words[index, 1 : self.starts[row] - 1] = True
        slots = {}
        for head, found in self.places.items():
            open_ = [(index, found[row]) for index, row in enumerate(active) if row in found]
            if open_:
                places = torch.tensor([places for _, places in open_])
                places = places if head == 'track' else places[:, 0]
                slots[head] = Slots(torch.tensor([index for index, _ in open_]), places, None)
        none = torch.zeros(ids.shape, dtype=torch.bool)
        ids, words = torch.from_numpy(ids), torch.from_numpy(words)
        lengths = torch.tensor([len(self.ids[row]) for row in active])
        return AskBatch(scene, rows, ids, none, none, words, lengths, here, slots)

    def say(self, active, logits):
        """Add the likeliest next word of each active row; [bool]: that was its last."""
        ends = []
        for index, row in enumerate(active):
            ids = self.ids[row]
            scores = logits[index, len(ids) - 1].clone()
            scores[self.never] = -torch.inf
            ids.append(int(scores.argmax()))
            ends.append(ids[-1] == self.vocabulary.eos)
            self._open_slots(row, ids[-1])
        return ends

    def _open_slots(self, row, token):
        for head, found in self.places.items():
            # A token that is said again is a word: each head answers once.
            if token == self.vocabulary.tasks[head] and row not in found:
                count = self.frames if head == 'track' else 1
                ids = self.ids[row]
                found[row] = list(range(len(ids), len(ids) + count))
                ids += [self.vocabulary.slot] * count

    def heads_of(self, row):
        """Names of the heads whose token a row has said, in order."""
        asked = [(found[row][0], head) for head, found in self.places.items() if row in found]
        return [head for _, head in sorted(asked)]


def _show_region(outputs, index, _):
    pointed = int(outputs.pointer[index].argmax())
    if pointed == outputs.pointer.shape[1] - 1:
        return {}
    return {'pointed': pointed, 'box': outputs.code[index].numpy()}


def _show_temporal(states, index, length):
    outputs = states.outputs
    scores = outputs.logits[index].softmax(-1)[:, 0]
    order = scores.argsort(descending=True)
    centre, width = outputs.spans[index][order].unbind(-1)
    spans = torch.stack([centre - width / 2.0, centre + width / 2.0], dim=-1).clamp(0.0, 1.0)
    return {
        'spans': (length * spans).numpy(),
        'scores': scores[order].numpy(),
        'saliency': outputs.saliency[index][-length:].numpy(),
    }


def _show_mask(outputs, index, _):
    if outputs.present[index] < 0:
        return {}
    return {'mask': (outputs.best()[index] > 0).numpy()}


def _show_track(outputs, index, length):
    pointer = outputs.pointer[index][-length:].argmax(-1)
    seen = (pointer < outputs.pointer.shape[-1] - 1).numpy()
    return {'track': outputs.code[index][-length:].numpy(), 'seen': seen}


_SHOW = {
    'region': _show_region,
    'temporal': _show_temporal,
    'mask': _show_mask,
    'track': _show_track,
}

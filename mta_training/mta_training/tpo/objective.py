"""L = L_mllm + L_assign + sum_i w_i L_task(A_i, H_i(G(v_i)))      (TPO, arXiv 2412.19326, eq. 1)

L_mllm is the cross-entropy of the answers' words, L_assign that of the task tokens among them: to
say `<box>` is to assign the question to that head.  G is the language model (with its LoRA), v_i a
learned vector in the slot behind the token, H_i the head.  With `detach` no gradient of a head
reaches the language model: what the paper says is lost then is a row of its ablation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mta_perception.checks import require
from mta_training.losses.tasks.mask import mask_loss
from mta_training.losses.tasks.region import RegionWeights, region_loss
from mta_training.losses.tasks.temporal import TemporalLoss
from mta_training.losses.tasks.track import track_loss
from mta_training.tpo.host import Seen

# At DETR's 5 and 1 a box costs 30 where a pointer costs 1, and only boxes would be learned.
BOX_WEIGHTS = RegionWeights(box=0.5, giou=0.2, direct=0.2)


@dataclass(frozen=True)
class TaskWeights:
    """What the terms weigh.  TPO's release has 0.05 for CG-DETR's losses; others are 1."""

    words: float = 1.0
    assign: float = 1.0
    region: float = 1.0
    temporal: float = 0.05
    mask: float = 1.0
    track: float = 1.0

    def __post_init__(self):
        values = vars(self)
        require(min(values.values()) >= 0.0, f'{self}: a weight is below 0.')


class AskLoss(NamedTuple):
    """What a batch of questions costs."""

    total: torch.Tensor
    terms: dict  # name -> weighted tensor: words, assign, region, temporal, mask, track
    log: dict  # name -> float


class Told(NamedTuple):
    """What the language model makes of a batch."""

    logits: torch.Tensor  # (N, S, V) of the word after each place
    hidden: torch.Tensor  # (N, S, D)
    frames: torch.Tensor  # (B, T, W)


class SceneRead(NamedTuple):
    """B frames as connector and language model have read them."""

    seen: Seen
    frames: torch.Tensor  # (B, T, W)


class Asker(nn.Module):
    """Task model, host and the losses' own parameters as one module."""

    def __init__(self, tasks, host, weights=None, detach=False):
        """tasks: a TaskModel; host: SmallHost or ForeignHost."""
        super().__init__()
        self.tasks, self.host = tasks, host
        self.weights, self.detach = weights or TaskWeights(), detach
        config = tasks.config.tasks
        self.moments = TemporalLoss(config.temporal) if config.temporal is not None else None
        self.eyes = None  # live.LiveEyes while the detector learns, too

    def read(self, scene):
        """Scene -> SceneRead: what all questions about its frames share."""
        read = self.tasks.connector(scene)
        return SceneRead(self.host.read(read.prefix, read.present), read.frames)

    def tell(self, batch, read=None):
        """AskBatch -> Told; read: what was read of its scene, None = not yet."""
        read = self.read(batch.scene) if read is None else read
        words = self.host.embed(batch.ids)
        words = self._fill_slots(words, batch)
        logits, hidden = self._hear(read.seen, batch, words)
        return Told(logits, hidden, read.frames)

    def _hear(self, seen, batch, words):
        """Logits (N, S, V) and hidden states (N, S, D) of words (N, S, D).

        A question of a track has a slot for each frame and is three times as long as others: the
        short ones are read apart, since padding costs as much as words.  Behind a row's end is
        nothing that anyone reads.
        """
        logits = hidden = None
        for rows in parts_by_length(batch.lengths.tolist()):
            longest = int(batch.lengths[rows].max())
            said = self.host(seen, batch.rows[rows], words[rows, :longest])
            if logits is None:
                shape = words.shape[:2]
                logits = said.logits.new_zeros(*shape, said.logits.shape[-1])
                hidden = said.hidden.new_zeros(*shape, said.hidden.shape[-1])
            place = rows[:, None], torch.arange(longest)
            logits = logits.index_put(place, said.logits)
            hidden = hidden.index_put(place, said.hidden)
        return logits, hidden

    def _fill_slots(self, words, batch):
        """Put learned vectors and encoded boxes where the slots are: (N, S, D)."""
        fills = []
        if batch.here is not None:
            rows, places, boxes = batch.here
            fills.append((rows, places, self.tasks.here(boxes)))
        for head, slots in batch.slots.items():
            frames = batch.scene.frame_mask.shape[1]
            tokens = self.tasks.slots(head, frames)  # (1 or T, D)
            places = slots.places.reshape(len(slots.rows), -1)  # (n, 1 or T)
            rows = slots.rows[:, None].expand_as(places)
            fills.append((rows, places, tokens.expand(len(rows), -1, -1)))
        for rows, places, vectors in fills:
            words = words.index_put(
                (rows.reshape(-1), places.reshape(-1)),
                vectors.reshape(-1, words.shape[-1]).to(words.dtype),
            )
        return words

    def task_states(self, told, batch, head):
        """e of a head: (n, D), of a track (n, T, D)."""
        slots = batch.slots[head]
        rows = slots.rows if slots.places.ndim == 1 else slots.rows[:, None]
        e = told.hidden[rows, slots.places].float()
        return e.detach() if self.detach else e

    def answer(self, told, batch, head):
        """Outputs of a head for its questions; of `temporal` its TemporalStates."""
        e, rows = self.task_states(told, batch, head), batch.slots[head].rows
        scene = batch.scene.take(batch.rows[rows])
        if head == 'region':
            return self.tasks.answer_region(e, scene)
        if head == 'mask':
            targets = batch.slots[head].targets  # None: nobody knows what is right
            meant = None if targets is None else targets.pointed[:, :-1]
            return self.tasks.answer_mask(e, scene, meant)
        if head == 'track':
            return self.tasks.answer_track(e, scene)
        words = told.hidden[rows].float()
        frames = told.frames[batch.rows[rows]]
        if self.detach:
            words = words.detach()
        return self.tasks.heads['temporal'].states(
            e, words, batch.words[rows], frames, scene.frame_mask
        )

    def forward(self, batch, with_heads=True):
        """AskBatch -> AskLoss; without heads, of the words alone: heads that have learned nothing
        have nothing to teach."""
        told = self.tell(batch)
        terms, log = self._words(told, batch)
        for head in batch.slots if with_heads else ():
            loss = self._task(head, self.answer(told, batch, head), batch)
            terms[head] = getattr(self.weights, head) * loss.total
            log |= {f'{head}_{name}': value for name, value in loss.parts.items()}
        log |= {name: float(value.detach()) for name, value in terms.items()}
        return AskLoss(sum(terms.values()), terms, log)

    def _words(self, told, batch):
        logits, wanted = told.logits[:, :-1], batch.ids[:, 1:]
        said, tasks = batch.said[:, 1:], batch.tasks[:, 1:]
        surprise = functional.cross_entropy(logits[said].float(), wanted[said], reduction='none')
        assigns = tasks[said]
        terms = {
            'words': self.weights.words * _mean(surprise, ~assigns),
            'assign': self.weights.assign * _mean(surprise, assigns),
        }
        with torch.no_grad():
            right = logits[said].argmax(-1) == wanted[said]
        log = {'words_right': float(_mean(right.float(), ~assigns))}
        if assigns.any():
            log['assign_right'] = float(_mean(right.float(), assigns))
        return terms, log

    def _task(self, head, outputs, batch):
        targets, config = batch.slots[head].targets, self.tasks.config.tasks
        if head == 'region':
            return region_loss(outputs, targets, config.region, BOX_WEIGHTS)
        if head == 'mask':
            return mask_loss(outputs, targets)
        if head == 'track':
            return track_loss(outputs, targets, config.track, BOX_WEIGHTS)
        return self.moments(self.tasks.heads['temporal'], outputs, targets)


def parts_by_length(lengths):
    """[rows]: all rows, or the short and the long ones where that leaves out a quarter of the
    places."""
    order = np.argsort(lengths, kind='stable')
    lengths = np.asarray(lengths)[order]
    count = np.arange(1, len(order))  # so many short ones
    places = count * lengths[:-1] + (len(order) - count) * lengths[-1]
    if not len(count) or places.min() > 0.75 * len(order) * lengths[-1]:
        return [torch.from_numpy(np.sort(order))]
    split = int(count[places.argmin()])
    return [torch.from_numpy(np.sort(part)) for part in (order[:split], order[split:])]


def _mean(values, rows):
    return torch.where(rows, values, 0.0).sum() / rows.sum().clamp(min=1)

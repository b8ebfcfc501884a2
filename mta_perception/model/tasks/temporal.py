"""Temporal head: when it was, in the frames of the memory.

in   e           (N, D)        hidden state of the language model at the task token <time>
     words       (N, S, Dw)    the instruction, one row a token
     word_mask   (N, S)        bool, True = there is such a word
     frames      (N, T, Dv)    one row for each frame of the memory, oldest first
     frame_mask  (N, T)        bool, True = there is such a frame
out  spans       (N, R, 2)     centre and width, 0..1 of the valid frames (0: where the first one
                               begins, 1: where the last one ends)
     logits      (N, R, 2)     moment, nothing
     saliency    (N, T)        how much each frame is meant; 0 where there is none

TPO (arXiv 2412.19326) drives CG-DETR with the task token as one more word; `mlp` is the ablation
in its place: spans from the task token alone.  What acts in training alone (moment and sentence
tokens) is in mta_training/losses/tasks/temporal.py and not in a graph.
"""

from typing import NamedTuple, Optional

import torch
from torch import nn

from mta_perception.model.tasks.layers import mlp, sine
from mta_perception.model.tasks.moments import CgDetr, TextStates, VideoStates


class TemporalOutputs(NamedTuple):
    """What the temporal head says."""

    spans: torch.Tensor  # (N, R, 2) centre, width
    logits: torch.Tensor  # (N, R, 2) moment, nothing
    saliency: torch.Tensor  # (N, T)


class TemporalStates(NamedTuple):
    """What its losses read besides."""

    outputs: TemporalOutputs
    layer_spans: torch.Tensor  # (L, N, R, 2), the last one is outputs.spans
    layer_logits: torch.Tensor  # (L, N, R, 2)
    frame_mask: torch.Tensor  # (N, T)
    frames: Optional[torch.Tensor] = None  # (N, T, W) projected; None of an MLP, as all below
    position: Optional[torch.Tensor] = None  # (N, T, W)
    text: Optional[TextStates] = None
    video: Optional[VideoStates] = None


def frame_times(frame_mask):
    """Begin and end (N, T, 2) of each valid frame, as parts of all of them."""
    end = frame_mask.cumsum(1).float()
    count = frame_mask.sum(1, keepdim=True).clamp(min=1).float()
    return torch.stack([(end - 1.0).clamp(min=0.0), end], dim=-1) / count.unsqueeze(-1)


def projection(inside, width, dropout):
    """Twice norm, dropout and a linear layer, ReLU after the first."""
    return nn.Sequential(
        nn.LayerNorm(inside),
        nn.Dropout(dropout),
        nn.Linear(inside, width),
        nn.ReLU(),
        nn.LayerNorm(width),
        nn.Dropout(dropout),
        nn.Linear(width, width),
    )


class TemporalHead(nn.Module):
    """CG-DETR or an MLP behind the same call."""

    def __init__(self, width, frame_width, word_width, config):
        super().__init__()
        self.config, size = config, config.width
        self.frames = projection(frame_width + 2, size, config.input_dropout)
        if config.kind == 'mlp':
            self.spans = mlp(width, size, 4 * config.queries)
            self.salient = nn.Linear(width, size)
            return
        # The language model's width need not be that of the words: a projection of its own.
        self.task = projection(width, size, config.input_dropout)
        self.words = projection(word_width, size, config.input_dropout)
        self.types = nn.Parameter(0.02 * torch.randn(2, size))  # of words, of frames
        self.network = CgDetr(config)

    def forward(self, e, words, word_mask, frames, frame_mask):
        """See the head of this file -> TemporalOutputs."""
        return self.states(e, words, word_mask, frames, frame_mask).outputs

    def states(self, e, words, word_mask, frames, frame_mask):
        """As `forward` -> TemporalStates, for the losses."""
        times = frame_times(frame_mask)  # (N, T, 2)
        frames = self.frames(torch.cat([frames, times.to(frames.dtype)], dim=-1))  # (N, T, W)
        if self.config.kind == 'mlp':
            return self._from_token(e, frames, frame_mask)
        frames = frames + self.types[1]
        position = sine(times[..., 1], self.config.width).to(frames.dtype)
        text = self.read_text(e, words, word_mask)
        video = self.network.read(frames, position, frame_mask, text)
        spans, logits = self.network.decoder(video.local, position, frame_mask)
        saliency = self.network.saliency(video) * frame_mask
        outputs = TemporalOutputs(spans[-1], logits[-1], saliency)
        return TemporalStates(outputs, spans, logits, frame_mask, frames, position, text, video)

    def read_text(self, e, words, word_mask):
        """The task token and the words -> TextStates; places of words do not matter."""
        joined = torch.cat([self.task(e).unsqueeze(1), self.words(words)], dim=1) + self.types[0]
        mask = torch.cat([torch.ones_like(e[:, :1], dtype=torch.bool), word_mask], dim=1)
        return self.network.text(joined, mask)

    def saliency_of(self, states, text, rows):
        """What frames say to other sentences: scores and attention (n, T) to the words.

        text   TextStates of n sentences
        rows   (n,) int64: whose frames each of them is held against
        """
        frames, position, mask = (
            x[rows] for x in (states.frames, states.position, states.frame_mask)
        )
        video = self.network.read(frames, position, mask, text)
        return self.network.saliency(video) * mask, self.attention_to_words(video.attention)

    def attention_to_words(self, attention):
        """How much each frame reads of the words (N, T): what dummies did not take."""
        return attention[..., self.config.dummies :].sum(-1)

    def _from_token(self, e, frames, frame_mask):
        numbers = self.spans(e).unflatten(-1, (self.config.queries, 4))  # (N, R, 4)
        spans, logits = numbers[..., :2].sigmoid(), numbers[..., 2:]
        saliency = (frames @ self.salient(e).unsqueeze(-1)).squeeze(-1)
        saliency = saliency * self.config.width**-0.5 * frame_mask
        outputs = TemporalOutputs(spans, logits, saliency)
        return TemporalStates(outputs, spans[None], logits[None], frame_mask)

"""CG-DETR (arXiv 2311.08835): when does what a sentence says happen in a row of frames?

The layers and the network; temporal.py has the head that a language model's task token drives.
Words that no frame is about would draw attention all the same, since a softmax has to go
somewhere.  So dummy tokens join the softmax of frames over words, and give no value: what they
take is missing from a row, and the rest is how much a frame has to do with the sentence.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mta_perception.model.tasks.layers import (
    EncoderLayer,
    Feedforward,
    attention_weights,
    inverse_sigmoid,
    join_heads,
    mlp,
    sine,
    split_heads,
)

_LEAST_WIDTH = 0.02  # of a reference, where attention is scaled by one over it


class TextStates(NamedTuple):
    """The words with the task token, and the dummies that they made."""

    words: torch.Tensor  # (N, S, W)
    mask: torch.Tensor  # (N, S) bool
    dummies: torch.Tensor  # (N, M, W)


class VideoStates(NamedTuple):
    """The frames when they have read the words."""

    local: torch.Tensor  # (N, T, W)
    overall: torch.Tensor  # (N, W) the saliency token
    attention: torch.Tensor  # (N, T, M + S) mean over layers and heads; rows sum to one


class AdaptiveCrossAttention(nn.Module):
    """Frames read words; dummies share the softmax and give no values. Then feed-forward."""

    def __init__(self, width, heads, feedforward, dropout):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feedforward = Feedforward(width, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames, position, text, dummies=None):
        """frames, position (N, T, W), text TextStates, dummies (N, M, W) with their positions.

        Returns frames (N, T, W) and weights (N, T, M + S); M is 0 without dummies.
        """
        keys, mask = text.words, text.mask
        if dummies is not None:
            keys = torch.cat([dummies, keys], dim=1)
            mask = torch.cat([torch.ones_like(dummies[..., 0], dtype=torch.bool), mask], dim=1)
        absorbed = keys.shape[1] - text.words.shape[1]  # M
        q, k, v = (
            split_heads(project(x), self.heads)
            for project, x in (
                (self.q, frames + position),
                (self.k, keys),
                (self.v, text.words),
            )
        )
        weights = attention_weights(q, k, mask)  # (N, heads, T, M + S)
        read = join_heads(self.dropout(weights[..., absorbed:]) @ v)
        frames = frames + self.dropout(self.out(read))
        frames = self.norms[1](frames + self.dropout(self.feedforward(self.norms[0](frames))))
        return frames, weights.mean(1)


class MomentDecoderLayer(nn.Module):
    """DAB-DETR's layer in one dimension (arXiv 2201.12329)."""

    def __init__(self, width, heads, feedforward, dropout, first):
        super().__init__()
        self.heads, self.first = heads, first
        self.own_q, self.own_k, self.own_v, self.own_out = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.own_place = nn.Linear(width, 2 * width)  # of the query and of the key
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.q_sine, self.k_place = nn.Linear(width, width), nn.Linear(width, width)
        if first:
            self.q_place = nn.Linear(width, width)
        self.feedforward = Feedforward(width, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, query, place, place_sine, memory, position, mask):
        """query, place, place_sine (N, R, W), memory, position (N, T, W), mask (N, T)."""
        query = self.norms[0](query + self.dropout(self._own(query, place)))
        query = self.norms[1](
            query + self.dropout(self._read(query, place, place_sine, memory, position, mask))
        )
        return self.norms[2](query + self.dropout(self.feedforward(query)))

    def _own(self, query, place):
        q_place, k_place = self.own_place(place).chunk(2, dim=-1)
        q, k, v = (
            split_heads(x, self.heads)
            for x in (
                self.own_q(query) + q_place,
                self.own_k(query) + k_place,
                self.own_v(query),
            )
        )
        return self.own_out(join_heads(attention_weights(q, k) @ v))

    def _read(self, query, place, place_sine, memory, position, mask):
        """Content and place side by side in each head, so that both count alike."""
        q, k, k_place = self.q(query), self.k(memory), self.k_place(position)
        if self.first:
            q, k = q + self.q_place(place), k + k_place
        q, q_sine, k, k_place, v = (
            split_heads(x, self.heads)
            for x in (q, self.q_sine(place_sine), k, k_place, self.v(memory))
        )
        weights = attention_weights(
            torch.cat([q, q_sine], dim=-1), torch.cat([k, k_place], dim=-1), mask
        )
        return self.out(join_heads(weights @ v))


class MomentDecoder(nn.Module):
    """Spans from learned references (centre, width), refined layer by layer."""

    def __init__(self, config):
        super().__init__()
        width, self.width = config.width, config.width
        self.references = nn.Parameter(torch.randn(config.queries, 2))
        self.layers = nn.ModuleList(
            MomentDecoderLayer(
                width, config.heads, config.feedforward, config.dropout, first=index == 0
            )
            for index in range(config.decoder_layers)
        )
        self.place = mlp(width, width, width)
        self.scale = mlp(width, width, width)
        self.spread = mlp(width, width, 1)
        self.norm = nn.LayerNorm(width)
        self.spans = mlp(width, width, width, 2)
        self.classes = nn.Linear(width, 2)
        for parameter in self.spans[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, memory, position, mask):
        """(N, T, W) twice, mask (N, T) -> spans, logits (L, N, R, 2) of each layer."""
        reference = self.references.sigmoid().expand(memory.shape[0], -1, -1)  # (N, R, 2)
        query = torch.zeros_like(reference[..., :1]).expand(-1, -1, self.width)
        spans, logits = [], []
        for layer in self.layers:
            place_sine = sine(reference, self.width // 2).flatten(-2)  # (N, R, W)
            place = self.place(place_sine)
            if not layer.first:
                place_sine = place_sine * self.scale(query)
            spread = self.spread(query).sigmoid() / reference[..., 1:].clamp(min=_LEAST_WIDTH)
            query = layer(query, place, place_sine * spread, memory, position, mask)
            said = self.norm(query)
            span = (self.spans(said) + inverse_sigmoid(reference)).sigmoid()
            spans.append(span)
            logits.append(self.classes(said))
            reference = span.detach()
        return torch.stack(spans), torch.stack(logits)


class CgDetr(nn.Module):
    """The network behind its input projections: what needs no labels."""

    def __init__(self, config):
        super().__init__()
        width, self.config = config.width, config
        sizes = (width, config.heads, config.feedforward, config.dropout)
        self.dummies = nn.Parameter(torch.randn(config.dummies, width))
        self.dummy_positions = nn.Parameter(torch.randn(config.dummies, width))
        self.dummy_encoder = nn.ModuleList(
            EncoderLayer(*sizes) for _ in range(config.dummy_layers)
        )
        self.cross = nn.ModuleList(
            AdaptiveCrossAttention(*sizes) for _ in range(config.cross_layers)
        )
        self.prompts = nn.Parameter(torch.randn(config.prompts, width))
        self.overall_position = nn.Parameter(torch.randn(width))
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.encoder_layers))
        self.decoder = MomentDecoder(config)
        self.salient, self.salient_overall = nn.Linear(width, width), nn.Linear(width, width)

    def text(self, words, mask):
        """Words (N, S, W), mask (N, S) -> TextStates with dummies of this sentence."""
        dummies = self.dummies.expand(words.shape[0], -1, -1)
        x = torch.cat([dummies, words], dim=1)
        position = functional.pad(self.dummy_positions, (0, 0, 0, words.shape[1]))  # words: none
        valid = torch.cat([torch.ones_like(dummies[..., 0], dtype=torch.bool), mask], dim=1)
        for layer in self.dummy_encoder:
            x = layer(x, position, valid)
        return TextStates(words, mask, x[:, : self.config.dummies])

    def read(self, frames, position, frame_mask, text):
        """Frames (N, T, W) read the text -> VideoStates."""
        dummies = text.dummies + self.dummy_positions
        x, weights = frames, []
        for layer in self.cross:
            x, weight = layer(x, position, text, dummies)
            weights.append(weight)
        attention = torch.stack(weights).mean(0)  # (N, T, M + S)
        overall = self._saliency_token(frames, frame_mask, text, attention)  # (N, 1, W)
        x = torch.cat([overall, x], dim=1)
        own = self.overall_position.expand(x.shape[0], 1, -1)
        position = torch.cat([own, position], dim=1)
        mask = torch.cat([torch.ones_like(frame_mask[:, :1]), frame_mask], dim=1)
        for layer in self.encoder:
            x = layer(x, position, mask)
        return VideoStates(x[:, 1:] + x[:, :1], x[:, 0], attention)

    def _saliency_token(self, frames, frame_mask, text, attention):
        """The mean frame and the prompts that the relevant frames are like, told of the words."""
        there = frame_mask.unsqueeze(-1).to(frames.dtype)
        mean = ((frames * there).sum(1) / there.sum(1).clamp(min=1.0)).detach()  # (N, W)
        unlike = functional.normalize(frames - mean.unsqueeze(1), dim=-1)
        alike = (unlike @ functional.normalize(self.prompts, dim=-1).t()).softmax(-1)  # (N, T, P)
        relevance = attention[..., self.config.dummies :].sum(-1, keepdim=True).detach() * there
        relevance = relevance / relevance.sum(1, keepdim=True).clamp(min=1e-6)
        likely, index = (alike * relevance).sum(1).topk(self.config.selected_prompts, dim=-1)
        prompt = (likely.unsqueeze(-1) * self.prompts[index]).sum(1)  # (N, W)
        token = (prompt + mean).unsqueeze(1)
        for layer in self.cross:
            token, _ = layer(token, self.overall_position, text)
        return token

    def saliency(self, video):
        """<W1 frame, W2 saliency token> / sqrt(W) (N, T)."""
        frames, overall = self.salient(video.local), self.salient_overall(video.overall)
        return (frames @ overall.unsqueeze(-1)).squeeze(-1) * self.config.width**-0.5

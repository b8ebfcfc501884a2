"""Loss of the temporal head: CG-DETR's (arXiv 2311.08835), with what acts in training alone.

    L = 10 L1 + 1 (1 - gIoU) + 4 CE                 of matched spans, at each decoder layer
      + 4 saliency                                  (saliency.py)
      + 1 ms_align + 1 distill + 1 orthogonal_dummy

ms_align  a moment token that reads the meant frames finds its sentence's token among those of the
          batch, better than a token of the other frames does; and not the token of the dummies
distill   how frames share their attention between words and dummies follows how like they are,
          frame by word, in the moment's and the sentence's encoders
orthogonal_dummy  dummies differ from each other, and so do the prompts of the saliency token

TPO multiplies the sum by 0.05; whoever adds up the tasks sets that.  Of the MLP in CG-DETR's place
only spans and saliency scores count.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mta_perception.checks import require
from mta_perception.model.tasks.layers import MASKED, EncoderLayer
from mta_perception.model.tasks.temporal import frame_times
from mta_training.losses.tasks.saliency import attention_loss, other_rows, score_loss
from mta_training.losses.tasks.spans import match_spans, span_giou
from mta_training.losses.tasks.task_loss import add_up, mean_of


class TemporalTargets(NamedTuple):
    """When it was."""

    spans: torch.Tensor  # (N, G, 2) centre and width, 0..1 of the valid frames; padded behind
    counts: torch.Tensor  # (N,) int64 how many of the G; 0: never
    saliency: torch.Tensor  # (N, T) 0..1
    scenes: torch.Tensor  # (N,) int64; rows of other scenes are negatives of each other


@dataclass(frozen=True)
class TemporalWeights:
    """What the terms weigh, and what a query without a span counts."""

    span: float = 10.0
    giou: float = 1.0
    label: float = 4.0
    saliency: float = 4.0
    align: float = 1.0
    distill: float = 1.0
    orthogonal: float = 1.0
    nothing: float = 0.1  # eos coefficient

    def __post_init__(self):
        require(min(vars(self).values()) >= 0, f'{self}: a weight is below 0.')


class TemporalLoss(nn.Module):
    """CG-DETR's criterion; its parameters are trained with the head's and stay behind."""

    def __init__(self, config, weights=None):
        super().__init__()
        self.config, self.weights = config, weights or TemporalWeights()
        if config.kind == 'cg_detr':
            self.alignment = MomentAlignment(config)

    def forward(self, head, states, targets):
        """TemporalHead, its TemporalStates, TemporalTargets -> TaskLoss."""
        weights = self.weights
        span, giou, label = self._span_terms(states, targets)
        terms = {
            'span': weights.span * span,
            'giou': weights.giou * giou,
            'label': weights.label * label,
        }
        meant = meant_frames(targets, states.frame_mask)
        if self.config.kind == 'mlp':
            saliency = score_loss(states.outputs.saliency, targets.saliency, states.frame_mask)
            return add_up({**terms, 'saliency': weights.saliency * saliency})
        align, distill = self.alignment(head, states, meant)
        return add_up(
            {
                **terms,
                'saliency': weights.saliency * _saliency(head, states, targets),
                'ms_align': weights.align * align,
                'distill': weights.distill * distill,
                'orthogonal_dummy': weights.orthogonal * _likeness(head, states),
            }
        )

    def _span_terms(self, states, targets):
        """Mean L1, 1 - gIoU and cross-entropy, each summed over the decoder's layers."""
        weights, totals = self.weights, []
        cost = (weights.span, weights.giou, weights.label)
        importance = states.layer_logits.new_tensor([1.0, weights.nothing])
        for spans, logits in zip(states.layer_spans, states.layer_logits):
            rows, predicted, true = match_spans(spans, logits, targets.spans, targets.counts, cost)
            said, goals = spans[rows, predicted], targets.spans[rows, true]
            count = max(len(rows), 1)
            classes = torch.ones(logits.shape[:2], dtype=torch.int64, device=logits.device)
            classes[rows, predicted] = 0
            surprise = functional.cross_entropy(
                logits.flatten(0, 1), classes.flatten(), importance, reduction='none'
            )
            totals.append(
                torch.stack(
                    [
                        (said - goals).abs().sum() / (2 * count),
                        (1.0 - span_giou(said, goals)).sum() / count,
                        surprise.mean(),
                    ]
                )
            )
        return torch.stack(totals).sum(0).unbind()


def meant_frames(targets, frame_mask):
    """Which frames (N, T) have their middle within a true span."""
    middle = frame_times(frame_mask).mean(-1).unsqueeze(-1)  # (N, T, 1)
    centre, width = targets.spans.unsqueeze(1).unbind(-1)  # (N, 1, G)
    real = torch.arange(targets.spans.shape[1], device=middle.device) < targets.counts[:, None]
    within = (middle - centre).abs() <= width / 2.0
    return (within & real.unsqueeze(1)).any(-1) & frame_mask


def _saliency(head, states, targets):
    """Losses of scores and of the attention to words, with another scene's sentence each."""
    there, other = other_rows(targets.scenes)
    text = type(states.text)(*(x[other] for x in states.text))
    wrong, wrong_attention = head.saliency_of(states, text, there)
    attention = head.attention_to_words(states.video.attention)
    labels, mask = targets.saliency, states.frame_mask
    scores = score_loss(states.outputs.saliency, labels, mask, wrong, there)
    return scores + attention_loss(attention, labels, mask, wrong_attention, there)


def _likeness(head, states):
    """Mean |cosine| between different dummies, and between different prompts."""
    return _mean_cosine(states.text.dummies) + _mean_cosine(head.network.prompts[None])


def _mean_cosine(tokens):
    """(N, M, W) -> scalar; one of the two has no gradient, as in the release."""
    unit = functional.normalize(tokens, dim=-1)
    count = unit.shape[1]
    cosine = (unit @ unit.detach().transpose(1, 2)).abs()
    own = torch.eye(count, dtype=torch.bool, device=tokens.device)
    return cosine.masked_fill(own, 0.0).sum() / (len(tokens) * max(count * (count - 1), 1))


class MomentAlignment(nn.Module):
    """Tokens of the moment, of the other frames, of the sentence and of the dummies."""

    def __init__(self, config):
        super().__init__()
        width = config.width
        sizes = (width, config.heads, config.feedforward, config.dropout)
        self.moment, self.moment_position = (nn.Parameter(torch.randn(width)) for _ in range(2))
        self.sentence, self.sentence_position = (
            nn.Parameter(torch.randn(width)) for _ in range(2)
        )
        self.frame_encoder, self.word_encoder = EncoderLayer(*sizes), EncoderLayer(*sizes)

    def forward(self, head, states, meant):
        """TemporalStates, meant frames (N, T) -> ms_align, distill (scalars)."""
        text, valid = states.text, states.frame_mask
        moment, inside = self._read(self.frame_encoder, states.frames, states.position, meant)
        rest, outside = self._read(
            self.frame_encoder, states.frames, states.position, valid & ~meant
        )
        frames = torch.where(meant.unsqueeze(-1), inside, outside)  # (N, T, W)
        sentence, words = self._read(
            self.word_encoder, text.words, torch.zeros_like(text.words), text.mask
        )
        places = head.network.dummy_positions.expand_as(text.dummies)
        everything = torch.ones_like(text.dummies[..., 0], dtype=torch.bool)
        empty, dummies = self._read(self.word_encoder, text.dummies, places, everything)

        rows = meant.any(1)
        align = self._tell_apart(moment, rest, sentence, empty, rows)
        # Scaled, unlike the release's: of width 256 a plain product saturates the sigmoid.
        scale = moment.shape[-1] ** -0.5
        of_moment = (frames @ moment.unsqueeze(-1)).squeeze(-1) * scale  # (N, T)
        chosen = functional.binary_cross_entropy_with_logits(
            of_moment, meant.to(of_moment.dtype), reduction='none'
        )
        align = align + mean_of(chosen, valid & rows.unsqueeze(1))
        keys = torch.cat([dummies, words], dim=1)  # (N, M + S, W)
        mask = torch.cat([everything, text.mask], dim=1).unsqueeze(1)  # (N, 1, M + S)
        likeness = (frames @ keys.transpose(1, 2) * scale).masked_fill(~mask, MASKED)
        return align, _distill(states.video.attention, likeness.detach(), mask, meant)

    def _read(self, encoder, tokens, positions, mask):
        """Tokens (N, S, W) with one of ours before them -> its state (N, W), theirs (N, S, W)."""
        if encoder is self.frame_encoder:
            own, place = self.moment, self.moment_position
        else:
            own, place = self.sentence, self.sentence_position
        own, place = (x.expand(len(tokens), 1, -1) for x in (own, place))
        x = encoder(
            torch.cat([own, tokens], dim=1),
            torch.cat([place, positions], dim=1),
            torch.cat([torch.ones_like(own[..., 0], dtype=torch.bool), mask], dim=1),
        )
        return x[:, 0], x[:, 1:]

    def _tell_apart(self, moment, rest, sentence, empty, rows):
        """Cross-entropies of the moments that there are (rows): the own sentence, and not the own
        dummies.

        The release's labels of the second name the first wrong pair alone, which is what `max`
        makes of several ones; here every pair but the own is right.
        """
        moment, rest, sentence, empty = (
            functional.normalize(x[rows], dim=-1) for x in (moment, rest, sentence, empty)
        )
        if not len(moment):
            return 0.0 * sentence.sum()
        right = torch.arange(len(moment), device=moment.device)
        likeness = torch.cat([moment @ sentence.t(), rest @ sentence.t()], dim=1)
        found = functional.cross_entropy(likeness, right)
        likeness = torch.cat([moment @ empty.t(), rest @ empty.t()], dim=1)
        share = likeness.log_softmax(-1)
        own = functional.one_hot(right, share.shape[1]).bool()
        return found - share.masked_fill(own, float('-inf')).logsumexp(-1).mean()


def _distill(attention, likeness, mask, meant):
    """Mean over meant frames and keys of the KL divergence of attention (N, T, M + S) from the
    softmax of likeness."""
    goal = likeness.softmax(-1)
    apart = functional.kl_div((attention + 1e-6).log(), goal, reduction='none')
    return mean_of((apart * mask).sum(-1) / mask.sum(-1), meant)

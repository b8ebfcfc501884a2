"""The two alignments of MTA (arXiv 2411.10639): they act in training and leave nothing in a graph.

BLA  the object's feature inside the Q-Former is pulled to a frozen text encoder's embedding of
     the object's true caption
DCA  detections and caption logits are pooled onto the same learnable prompts and pulled together

Rows are described objects: R of them, of all frames of a batch (and, for contrastive objectives,
of all processes).  What the paper leaves open is a switch in recipe.py with the reason beside it.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.model.qformer import CODE_SCALE, LOGIT_CENTRE, LOGIT_SPREAD
from mta_training.process_group import ProcessGroup, gather_rows

_ALONE = ProcessGroup.alone()
_LOGIT_SCALE, _LARGEST_SCALE = 2.6593, 4.6052  # ln(1 / 0.07) and ln(100), as CLIP


class Aligned(NamedTuple):
    """One alignment's loss and what the log shows of it."""

    loss: torch.Tensor  # scalar, mean over the rows of all processes
    log: dict  # name -> float


def contrastive_loss(one, other, groups, scale, processes=_ALONE):
    """Symmetric InfoNCE of rows (R, D) and (R, D) that belong together, over all processes.

    groups  (R,) int64; rows of equal group say the same and are no negatives of each other
    scale   factor of the cosine, already an exponential
    """
    one, other = functional.normalize(one, dim=-1), functional.normalize(other, dim=-1)
    one, other = gather_rows(one, processes), gather_rows(other, processes)
    groups = gather_rows(groups, processes)
    if not len(groups):
        return 0.0 * (one.sum() + other.sum())
    logits = scale * one @ other.t()  # (R, R)
    same = groups[:, None] == groups[None]
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, float('-inf'))
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.t(), target)
    )


def row_loss(objective, one, other, processes=_ALONE, summed=False):
    """Mean over rows of 'mse' or 'cosine' (1 - cosine): (R, D) twice.

    summed  mse is the squared norm of a row, not its mean over the width
    """
    if objective == 'mse':
        rows = (one - other).square()
        rows = rows.sum(-1) if summed else rows.mean(-1)
    elif objective == 'cosine':
        rows = 1.0 - functional.cosine_similarity(one, other, dim=-1)
    else:
        raise ValueError(f'objective {objective!r}; expected mse, cosine or clip.')
    return rows.sum() / processes.divisors([len(rows)])[0]


class BevLanguageAlignment(nn.Module):
    """BLA, paper Eq. 3: || Phi_BLA(q_l) - T(o) ||^2 with an MLP Phi_BLA and a frozen T.

    Text embeddings are taken as the encoder gives them.  `summed` is the paper's squared norm, of
    order one for unit vectors (MiniLM's); CLIP's raw embeddings are ten times as long, and there
    the mean over the width balances a weight of 1 against the language loss.

    With `of` (N, text_width), the embeddings of all training captions, texts are first centred
    and scaled to a variance of one (all of the width together: directions stay as they are).  Then
    the squared norm is one for who says the same of every object, and 1 - cosine as well, whatever
    the encoder; `summed` says nothing any more.
    """

    def __init__(self, width, text_width, objective, summed=True, of=None):
        super().__init__()
        self.objective, self.summed = objective, summed
        self.standard = of is not None
        if self.standard:
            centre, spread = standard_of(of)
            self.register_buffer('centre', centre)
            self.register_buffer('spread', spread)
        self.project = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, text_width)
        )
        self.logit_scale = nn.Parameter(torch.tensor(_LOGIT_SCALE))
        self.logit_scale.requires_grad_(objective == 'clip')

    def forward(self, features, texts, groups, processes=_ALONE):
        """features (R, width) of the object tokens, texts (R, text_width), groups (R,)."""
        said = self.project(features.float())
        if self.standard:
            # Of variance one in each of the width; row_loss takes the mean over it.
            texts = (texts - self.centre) / self.spread * texts.shape[-1] ** 0.5
        cosine = functional.cosine_similarity(said.detach(), texts, dim=-1)
        if self.objective == 'clip':
            scale = self.logit_scale.clamp(max=_LARGEST_SCALE).exp()
            loss = contrastive_loss(said, texts, groups, scale, processes)
        else:
            summed = self.summed and not self.standard
            loss = row_loss(self.objective, said, texts, processes, summed)
        return Aligned(loss, {'bla_cosine': float(cosine.mean()) if len(cosine) else 0.0})


def standard_of(rows):
    """Mean (D,) and spread () of embeddings (N, D): the root of the variance of all D together."""
    rows = rows.double()
    centre = rows.mean(0)
    spread = (rows - centre).square().sum(1).mean().sqrt()
    # Captions that are all the same have none.
    return centre.float(), spread.clamp(min=1e-6).float()


class DetectionCaptionAlignment(nn.Module):
    """DCA, paper Eq. 4 to 7: detections and captions attend to the same prompts.

    prompts      N x D learnable rows; softmax over the N, no scale unless `scaled`
    detections   [Phi_cls(class logits), Phi_box(box)], each an MLP to D / 2
    captions     each answer token's logits become the expected embedding softmax(o) E and pass an
                 MLP to D (equal to one on the logits up to a factorisation, and 30 times smaller
                 with Llama's vocabulary); each token is pooled, then the mean over the tokens
    """

    def __init__(
        self,
        embedding_width,
        objective,
        prompts=16,
        width=256,
        scaled=False,
        prompt_std=1.0,
        standard=False,
    ):
        """standard: mse is measured by the variance of the prompts, not by the width."""
        super().__init__()
        self.objective, self.scaled, self.standard = objective, scaled, standard
        self.prompts = nn.Parameter(prompt_std * torch.randn(prompts, width))
        self.classes = _mlp(len(CLASSES), 128, width // 2)
        self.boxes = _mlp(BoxCode.WIDTH, 128, width - width // 2)
        self.captions = _mlp(embedding_width, 256, width)
        self.register_buffer('box_scale', torch.tensor(CODE_SCALE), persistent=False)
        self.logit_scale = nn.Parameter(torch.tensor(_LOGIT_SCALE))
        self.logit_scale.requires_grad_(objective == 'clip')

    def pool(self, x):
        """Rows (..., D) -> what they read from the prompts (..., D), and the weights (..., N)."""
        scores = x @ self.prompts.t()
        if self.scaled:
            scores = scores / x.shape[-1] ** 0.5
        weights = scores.softmax(-1)
        return weights @ self.prompts, weights

    def detections(self, class_logits, codes):
        """(R, K) logits and (R, 10) codes (metres, log sizes) -> pooled (R, D), weights (R, N)."""
        scores = (class_logits.float() - LOGIT_CENTRE) / LOGIT_SPREAD
        return self.pool(
            torch.cat([self.classes(scores), self.boxes(codes.float() / self.box_scale)], -1)
        )

    def sentences(self, logits, answer, embedding):
        """Logits (R, S, V) at the answer tokens (R, S) -> pooled (R, D), weights (R, N)."""
        expected = logits.float().softmax(-1) @ embedding.float()  # (R, S, E)
        pooled, weights = self.pool(self.captions(expected))
        answer = answer.unsqueeze(-1)
        count = answer.sum(1).clamp(min=1)
        return (pooled * answer).sum(1) / count, (weights * answer).sum(1) / count

    def forward(self, class_logits, codes, logits, answer, embedding, groups, processes=_ALONE):
        """Aligned loss of R rows; see `detections` and `sentences` for the shapes."""
        seen, seen_weights = self.detections(class_logits, codes)
        said, said_weights = self.sentences(logits, answer, embedding)
        if self.objective == 'clip':
            scale = self.logit_scale.clamp(max=_LARGEST_SCALE).exp()
            loss = contrastive_loss(seen, said, groups, scale, processes)
        else:
            loss = row_loss(self.objective, seen, said, processes)
            if self.standard and self.objective == 'mse':
                centred = self.prompts.detach() - self.prompts.detach().mean(0)
                loss = loss / centred.square().mean().clamp(min=1e-6)
        return Aligned(
            loss,
            {
                'dca_entropy_boxes': usage_entropy(seen_weights),
                'dca_entropy_captions': usage_entropy(said_weights),
                'dca_cosine_boxes': mean_cosine(seen),
                'dca_cosine_captions': mean_cosine(said),
                'dca_cosine_prompts': mean_cosine(self.prompts),
            },
        )


def _mlp(inside, hidden, outside):
    return nn.Sequential(nn.Linear(inside, hidden), nn.GELU(), nn.Linear(hidden, outside))


@torch.no_grad()
def usage_entropy(weights):
    """How evenly the rows (R, N) use the prompts: 1 = all alike, 0 = one alone (collapsed).

    It is 1 as well where each row reads all prompts alike; see mean_cosine.
    """
    if weights.shape[-1] < 2 or not len(weights):
        return 0.0
    mean = weights.detach().float().mean(0)
    entropy = -(mean * mean.clamp(min=1e-12).log()).sum()
    return float(entropy / torch.tensor(float(len(mean))).log())


@torch.no_grad()
def mean_cosine(rows):
    """Mean cosine between different rows (R, D): 1 = all point the same way.

    Rows that read all prompts alike use them evenly, too: usage_entropy does not tell that.
    """
    if len(rows) < 2:
        return 0.0
    unit = functional.normalize(rows.detach().float(), dim=-1)
    count = len(unit)
    return float((unit.sum(0).square().sum() - count) / (count * (count - 1)))

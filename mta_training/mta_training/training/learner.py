"""All losses of a batch as one module, so that every kind of parallel training can wrap it.

    L = 10 L_det + 1 L_lm + 1 L_bla + 0.01 L_dca        (MTA, arXiv 2411.10639, section 4.1)

docs/mta.md goes through the equations, and through what they leave open.

What is only needed while training lives here and in losses/: the detector's criterion with its
further heads, Phi_BLA, the prompts of DCA, the oracle.  `model` and `language` are all an export
sees.
"""

from typing import NamedTuple

import torch
from torch import nn

from mta_training.losses.alignment import BevLanguageAlignment, DetectionCaptionAlignment
from mta_training.losses.described_objects import described_rows, text_groups
from mta_training.losses.detection import detection_criterion
from mta_training.losses.oracle import OracleHead


class BatchLoss(NamedTuple):
    """What a batch costs."""

    total: torch.Tensor  # weighted sum
    terms: dict  # name -> weighted tensor: detection, perspective, ..., language, bla, ...
    log: dict  # name -> unweighted float
    bev: torch.Tensor  # (B, C, Y, X), detached: the memory of the next batch


class CaptionLoss(NamedTuple):
    """What the captions of some objects cost, alignments among it."""

    terms: dict  # name -> weighted tensor: language, bla, dca, oracle
    log: dict  # name -> unweighted float


class Learner(nn.Module):
    """Detector, captioner, frozen language model and what they are trained with."""

    def __init__(self, model, language, recipe, embeddings=None):
        """embeddings: CaptionEmbeddings of all training captions, needed with BLA."""
        super().__init__()
        self.model, self.language, self.recipe = model, language, recipe
        alignment, width = recipe.alignment, model.config.qformer.width
        if alignment.shuffled and embeddings is not None:
            embeddings = embeddings.shuffled(recipe.seed)
        self.embeddings = embeddings
        self.criterion = detection_criterion(model.detector, recipe.weights, recipe.schedule.bf16)
        self.heads = self.criterion.heads  # checkpoints know them by this name
        self.bla = self.dca = self.oracle = None
        if alignment.bla != 'off':
            if embeddings is None:
                raise ValueError('BLA needs embeddings of the captions; give CaptionEmbeddings.')
            self.bla = BevLanguageAlignment(
                width,
                embeddings.width,
                alignment.bla,
                alignment.bla_summed,
                embeddings.rows if alignment.standard else None,
            )
        if alignment.dca != 'off':
            self.dca = DetectionCaptionAlignment(
                language.embedding.shape[1],
                alignment.dca,
                alignment.prompts,
                alignment.prompt_width,
                alignment.scaled,
                alignment.prompt_std,
                alignment.standard,
            )
        if alignment.oracle:
            self.oracle = OracleHead(width)

    def train(self, mode=True):
        """As nn.Module's; norms stay in evaluation mode where the recipe says so, and all of a
        frozen backbone."""
        super().train(mode)
        if self.recipe.schedule.backbone_rate == 0:
            self.model.detector.backbone.eval()
        if self.recipe.schedule.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    @torch.no_grad()
    def remember(self, batches, memory):
        """Memory (B, C, Y, X) after Batches, oldest first, as the network at work has it."""
        if not batches:
            return memory
        training = self.training
        self.eval()
        for batch in batches:
            memory = self._detect(batch, memory).bev
        self.train(training)
        return memory

    def _detect(self, batch, memory):
        with torch.autocast(memory.device.type, torch.bfloat16, enabled=self.recipe.schedule.bf16):
            return self.model.detector(
                batch.images,
                batch.image_from_ego,
                batch.camera_mask,
                memory,
                batch.history_valid,
                batch.ego_prev_from_ego_now,
            )

    def forward(self, batch, memory, generators, processes, with_captions=True, past=()):
        """batch a data.batches.Batch, memory (B, C, Y, X), a generator a frame -> BatchLoss.

        past: Batches of the frames before, oldest first, where the memory is not that of the last.
        """
        result = self._detect(batch, self.remember(past, memory))
        detection = self.criterion(result, batch, processes)
        weight = self.recipe.weights.detection
        terms = {name: weight * term for name, term in detection.terms.items()}
        log = detection.log
        if with_captions:
            rows = described_rows(
                self.model.qformer,
                result,
                batch,
                detection.matches,
                self.recipe.captions,
                generators,
            )
            captions = self.caption_loss(rows, processes)
            terms, log = {**terms, **captions.terms}, {**log, **captions.log}
        return BatchLoss(sum(terms.values()), terms, log, result.bev.detach())

    def caption_loss(self, rows, processes):
        """CaptionLoss of described Rows."""
        weights, language, qformer = self.recipe.weights, self.language, self.model.qformer
        device = rows.boxes.device
        log = {'captions': float(len(rows.texts))}
        if not rows.texts:
            return CaptionLoss(self._alignment_of_others(rows, processes), log)
        token_ids = language.encode(rows.texts).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.schedule.bf16):
            states = qformer.states_from(
                rows.object_features.float(),
                rows.boxes,
                rows.class_logits
                if self.recipe.captions.class_gradient
                else rows.class_logits.detach(),
                rows.read.float(),
            )
            prefix = qformer.prefix_of(states)
            logits = language(prefix, token_ids)
        spent, tokens = language.loss(logits, token_ids)
        loss = spent / processes.divisors([tokens])[0]
        losses, groups = {'language': loss}, text_groups(rows.texts).to(device)
        feature = states[self.recipe.bla_layer][:, 0]  # the object's token
        if self.bla is not None:
            texts = self.embeddings.lookup(rows.texts).to(device)
            losses['bla'], more = self.bla(feature, texts, groups, processes)
            log.update(more)
        if self.dca is not None:
            answer = language.answer_mask(token_ids)
            losses['dca'], more = self.dca(
                rows.class_logits,
                rows.codes,
                next_tokens(logits, answer),
                answer,
                language.embedding,
                groups,
                processes,
            )
            log.update(more)
        if self.oracle is not None:
            losses['oracle'], more = self.oracle(feature, rows.texts, processes)
            log.update(more)
        log.update({name: float(value.detach()) for name, value in losses.items()})
        terms = {name: getattr(weights, name) * value for name, value in losses.items()}
        return CaptionLoss(terms, log)

    def _alignment_of_others(self, rows, processes):
        """Terms of a process that has no captions in a batch while others may have some.

        It takes part in every exchange, and a contrastive loss over the rows of the others is as
        much its own as theirs.
        """
        processes.divisors([0])  # tokens
        terms, weights = {}, self.recipe.weights
        device, width = rows.boxes.device, self.model.config.qformer.width
        groups = torch.zeros(0, dtype=torch.int64, device=device)
        if self.bla is not None:
            terms['bla'] = (
                weights.bla
                * self.bla(
                    torch.zeros(0, width, device=device),
                    torch.zeros(0, self.embeddings.width, device=device),
                    groups,
                    processes,
                ).loss
            )
        if self.dca is not None:
            embedding = self.language.embedding
            terms['dca'] = (
                weights.dca
                * self.dca(
                    rows.class_logits,
                    rows.codes,
                    torch.zeros(0, 1, len(embedding), device=device),
                    torch.zeros(0, 1, dtype=torch.bool, device=device),
                    embedding,
                    groups,
                    processes,
                ).loss
            )
        if self.oracle is not None:
            nothing = torch.zeros(0, width, device=device)
            terms['oracle'] = weights.oracle * self.oracle(nothing, [], processes).loss
        return terms


def next_tokens(logits, answer):
    """Logits (R, S, V) of the tokens S of an answer, from those (R, P + S, V) after a prefix.

    The place before a token speaks for it.
    """
    tokens = answer.shape[1]
    return logits[:, -tokens - 1 : -1]

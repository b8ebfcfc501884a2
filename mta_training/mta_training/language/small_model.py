"""Tokeniser and language model, trained on caption text alone.

The model learns sentences that follow *keywords*: a training row is up to P words drawn from the
caption (rare ones first, in their order), whose embeddings stand where the captioner's soft prefix
will stand, then `<s>` caption `</s>`.  Frozen afterwards, it turns "red car 12 front left moving"
into a sentence, and the captioner only has to produce such words, softly.
"""

from collections import Counter
from math import cos, log, pi

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
import torch
from torch.nn import functional

from mta_perception.model.language import LanguageModel
from mta_perception.progress import Progress

SPECIAL = ('<pad>', '<s>', '</s>', '<unk>')
PAD, BOS, EOS, UNKNOWN = range(4)
_LARGEST_NUMBER = 100  # distances are written as whole metres


def train_tokenizer(captions):
    """Word-level tokeniser of the captions' words and the numbers 0 to 100; lower-cases."""
    captions = list(captions)
    if not captions:
        raise ValueError(
            'no captions to learn a vocabulary from; convert a dataset that has them.'
        )
    tokenizer = Tokenizer(models.WordLevel(unk_token='<unk>'))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r'[.,;:!?]'), 'isolated')]
    )
    # Joins words with spaces and takes the one before a full stop or comma away again.
    tokenizer.decoder = decoders.WordPiece(prefix='##', cleanup=True)
    trainer = trainers.WordLevelTrainer(
        special_tokens=list(SPECIAL), vocab_size=4000, show_progress=False
    )
    numbers = [str(number) for number in range(_LARGEST_NUMBER + 1)]
    tokenizer.train_from_iterator(captions + numbers, trainer)
    return tokenizer


def encode_captions(tokenizer, captions, max_tokens):
    """Captions -> int64 (N, S): <s> words </s>, padded with <pad>; longer ones are cut."""
    encoded = [tokenizer.encode(caption, add_special_tokens=False).ids for caption in captions]
    rows = [[BOS] + ids[: max_tokens - 2] + [EOS] for ids in encoded]
    length = max(len(row) for row in rows)
    return np.array([row + [PAD] * (length - len(row)) for row in rows], dtype=np.int64)


def caption_loss(logits, token_ids, prefix_tokens):
    """Mean cross-entropy of the next token after a prefix; <pad> does not count.

    logits (N, P + S, V) for the rows prefix + token_ids (N, S).
    """
    predicted = logits[:, prefix_tokens:-1].flatten(0, 1)
    return functional.cross_entropy(
        predicted.float(), token_ids[:, 1:].flatten(), ignore_index=PAD
    )


class KeywordSampler:
    """Draws up to P words of a caption, the rarer the likelier, and keeps their order."""

    def __init__(self, rows, prefix_tokens, seed=0):
        counts = Counter(token for row in rows for token in set(row.tolist()))
        self.prefix_tokens = prefix_tokens
        self.rng = np.random.default_rng(seed)
        self.weight = np.full(int(max(counts)) + 1, 0.05)
        for token, count in counts.items():
            self.weight[token] = 0.05 + log(len(rows) / count)
        self.weight[: UNKNOWN + 1] = 0.0

    def __call__(self, rows):
        """rows (N, S) -> keyword ids (N, P), unused places <pad>."""
        keywords = np.full((len(rows), self.prefix_tokens), PAD, dtype=np.int64)
        for index, row in enumerate(rows):
            weight = self.weight[row]
            places = np.flatnonzero(weight)
            if self.rng.random() < 0.1 or not len(places):
                continue  # some sentences come with no keyword at all
            # Gumbel top-k: a draw without replacement in proportion to the weights.
            score = np.log(weight[places]) + self.rng.gumbel(size=len(places))
            chosen = np.sort(places[np.argsort(-score)[: self.prefix_tokens]])
            keywords[index, : len(chosen)] = row[chosen]
        return keywords


def pretrain(captions, tokenizer, config, prefix_tokens, steps=600, batch=48, seed=0):
    """Train a LanguageModel of `config` on captions; returns (model in eval mode, last loss)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    rows = encode_captions(tokenizer, captions, config.max_tokens)
    sampler = KeywordSampler(rows, prefix_tokens, seed)
    model = LanguageModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + cos(pi * step / steps))
    )
    smooth = None
    progress = Progress('language model', steps)
    for _ in progress.over(range(steps)):
        loss = _loss(model, rows[rng.integers(0, len(rows), batch)], sampler)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        progress.words = f'loss {smooth:.3f}'
    return model.eval(), smooth


def _loss(model, rows, sampler):
    """Of rows (N, S) of captions behind keywords drawn from them."""
    token_ids = torch.from_numpy(rows[:, : (rows != PAD).sum(1).max()].copy())
    prefix = model.model.embed_tokens(torch.from_numpy(sampler(rows)))
    # Soft words are never exactly an embedding: noise keeps the model from being brittle.
    prefix = prefix + 0.1 * prefix.detach().std() * torch.randn_like(prefix)
    with torch.autocast('cpu', torch.bfloat16):
        logits = model(prefix, token_ids).logits
    return caption_loss(logits, token_ids, sampler.prefix_tokens)

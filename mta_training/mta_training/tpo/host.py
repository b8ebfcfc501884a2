"""The language model that is asked: our own small one, or a Llama or InternLM2; and its LoRA.

A host embeds ids, and reads soft words and words into logits and hidden states (those after the
last norm: what a task head reads).  LoRA (Hu et al. 2021) as TPO: rank 16, alpha 32, dropout 0.1,
on all projections and the output layer.
"""

from typing import NamedTuple, Optional

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
import torch
from torch import nn
from torch.nn import functional

from mta_perception.model.language import LanguageModel
from mta_training.language import small_model
from mta_training.tpo.words import EXTRA, Vocabulary

LORA_ON = (
    *('q_proj', 'k_proj', 'v_proj', 'o_proj'),
    *('gate_proj', 'up_proj', 'down_proj', 'lm_head'),
)


class Said(NamedTuple):
    """What a host makes of N rows of S words behind a prefix."""

    logits: torch.Tensor  # (N, S, V) of the word after each place
    hidden: torch.Tensor  # (N, S, D)


class Seen(NamedTuple):
    """A prefix of B frames as a host has read it."""

    present: torch.Tensor  # (B, P) bool
    keys: torch.Tensor  # of our own model; of a foreign one the prefix itself (B, P, D)
    values: Optional[torch.Tensor]


class SmallHost(nn.Module):
    """model.language.LanguageModel: the prefix of a frame is read once for all its questions."""

    def __init__(self, language, vocabulary):
        super().__init__()
        self.language, self.vocabulary = language, vocabulary
        self.width = language.config.hidden_size

    def embed(self, ids):
        """ids (N, S) -> (N, S, D)."""
        return self.language.model.embed_tokens(ids)

    def read(self, prefix, present):
        """prefix (B, P, D), present (B, P) -> Seen: the prefix of a frame is read once."""
        none = torch.zeros(len(prefix), 0, dtype=torch.long, device=prefix.device)
        seen = self.language(prefix, none, present=present)
        return Seen(present, seen.keys, seen.values)

    def forward(self, seen, rows, words):
        """Seen of B frames, rows (N,) which of them, words (N, S, D) -> Said."""
        there = torch.ones_like(words[..., 0], dtype=torch.bool)
        none = torch.zeros(len(words), 0, dtype=torch.long, device=words.device)
        told = self.language(
            words,
            none,
            seen.keys[:, rows],
            seen.values[:, rows],
            torch.cat([seen.present[rows], there], dim=1),
        )
        return Said(told.logits, told.hidden)


class ForeignHost(nn.Module):
    """A transformers model with a Llama-like interface (Llama, InternLM2 as Llama)."""

    def __init__(self, llama, vocabulary):
        super().__init__()
        self.language, self.vocabulary = llama, vocabulary
        self.width = llama.config.hidden_size

    @classmethod
    def of(cls, llama, tokenizer):
        """With the tokens of TPO added: their rows start at the mean of all others."""
        config = llama.config
        ends = config.eos_token_id
        eos = ends[0] if isinstance(ends, (list, tuple)) else ends
        pad = eos if config.pad_token_id is None else config.pad_token_id
        before = llama.get_input_embeddings().weight.shape[0]
        vocabulary = Vocabulary.extended(tokenizer, bos=config.bos_token_id, eos=eos, pad=pad)
        size = max(before, tokenizer.get_vocab_size(with_added_tokens=True))
        llama.resize_token_embeddings(size, mean_resizing=False)
        new = [tokenizer.token_to_id(word) for word in EXTRA]
        with torch.no_grad():
            for layer in (llama.get_input_embeddings(), llama.get_output_embeddings()):
                layer.weight[new] = layer.weight[:before].mean(0)
        return cls(llama, vocabulary)

    def embed(self, ids):
        """ids (N, S) -> (N, S, D)."""
        return self.language.get_input_embeddings()(ids)

    def read(self, prefix, present):
        """As SmallHost, but that it is read with every question."""
        return Seen(present, prefix, None)

    def forward(self, seen, rows, words):
        """As SmallHost."""
        inputs = torch.cat([seen.keys[rows].to(words.dtype), words], dim=1)
        there = torch.ones_like(words[..., 0], dtype=torch.bool)
        result = self.language(
            inputs_embeds=inputs,
            attention_mask=torch.cat([seen.present[rows], there], dim=1).long(),
            output_hidden_states=True,
            use_cache=False,
        )
        count = words.shape[1]
        return Said(
            result.logits[:, -count:].float(), result.hidden_states[-1][:, -count:].float()
        )


def add_lora(host, rank=16, alpha=32, dropout=0.1):
    """Put LoRA into a host, in place; its weights start without effect."""
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(LORA_ON)
    )
    inject_adapter_in_model(config, host.language)
    return host


def is_lora(name):
    """Whether a parameter's name is one of LoRA's."""
    return 'lora_' in name


def merged_language(host):
    """A LanguageModel with the LoRA of a SmallHost in its weights, for export."""
    config = host.language.config
    plain, state = LanguageModel(config).eval(), {}
    for name, module in host.language.named_modules():
        if isinstance(module, LoraLayer):
            weight = module.base_layer.weight.detach()
            for adapter in module.lora_A:
                weight = weight + module.get_delta_weight(adapter).detach()
            state[f'{name}.weight'] = weight
    for name, value in host.language.state_dict().items():
        if not is_lora(name) and '.base_layer.' not in name:
            state[name] = value
    plain.load_state_dict(state)
    return plain


def word_tokenizer(texts):
    """Word-level tokenizer of questions, answers and captions, with the tokens of TPO."""
    return small_model.train_tokenizer([*texts, ' '.join(EXTRA)])


def pretrain_words(vocabulary, config, pairs, steps, seed=0, batch=64, log_line=print):
    """A LanguageModel that has read (instruction, answer) pairs without any picture: what stands
    here for a language model that knows the language already.  Returns it and its last loss."""
    torch.manual_seed(seed)
    language = LanguageModel(config)
    rows = [
        [*vocabulary.instruction(text), *vocabulary.encode(answer), vocabulary.eos]
        for text, answer in pairs
    ]
    optimizer = torch.optim.AdamW(language.parameters(), lr=2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    smooth = None
    for step in range(steps):
        for group in optimizer.param_groups:
            group['lr'] = 2e-3 * min(1.0, (step + 1) / 50) * (1.0 - step / steps)
        chosen = [rows[i] for i in torch.randint(len(rows), (batch,), generator=generator)]
        longest = max(map(len, chosen))
        ids = torch.tensor([row + [vocabulary.pad] * (longest - len(row)) for row in chosen])
        prefix = torch.zeros(len(ids), 0, config.hidden_size)
        logits = language(prefix, ids).logits
        loss = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), ignore_index=vocabulary.pad
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(language.parameters(), 1.0)
        optimizer.step()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
    log_line(f'language: {steps} steps on {len(rows)} texts, loss {smooth:.3f}')
    return language, smooth

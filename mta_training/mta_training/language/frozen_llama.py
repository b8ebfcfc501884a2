"""Frozen Llama-architecture language model with a trained LLaMA-Adapter, for the trainer.

A row is prefix (P soft tokens of one object), BOS, prompt, caption, EOS, padding.  All weights are
frozen but the adapter's: MTA keeps its Llama frozen (arXiv 2411.10639, section 4) and inherits
TOD3Cap's adapter, in all layers but the first (model_facts 2.1).  The adapter is peft's
AdaptionPrompt: a gate that starts at zero, one number a layer.  The prompt is TOD3Cap's
instruction without the Alpaca preamble around it.
"""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from peft import AdaptionPromptConfig, get_peft_model
import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from mta_perception.model.language import LanguageModel
from mta_perception.runtime.torch_llama import load_llama, load_tokenizer
from mta_perception.runtime.torch_weights import quiet
from mta_training.language.small_model import BOS, EOS, PAD
from mta_training.tensor_files import fill

PROMPT = 'Describe the object in detail.'
_DTYPES = {'bfloat16': torch.bfloat16, 'float32': torch.float32}


class CaptionLanguage(nn.Module):
    """Logits, loss and captions after a soft prefix; build it with `small` or `from_directory`.

    llama is a LlamaForCausalLM whose config names bos, eos and pad.  max_tokens counts BOS,
    caption and EOS, not the prompt; longer captions are cut.
    """

    def __init__(
        self,
        llama,
        tokenizer,
        *,
        adapter_len=10,
        prompt='',
        max_tokens=64,
        gradient_checkpointing=False,
        runtime_config=None,
    ):
        super().__init__()
        config = llama.config
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.gradient_checkpointing, self.runtime_config = gradient_checkpointing, runtime_config
        self.hidden_size, self.vocab_size = config.hidden_size, config.vocab_size
        self.bos_id, self.eos_id = config.bos_token_id, config.eos_token_id
        self.pad_id = config.pad_token_id
        _check_sizes(config, tokenizer, adapter_len)
        self.adapter_len = adapter_len
        self.prompt_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        with quiet():
            get_peft_model(
                llama,
                AdaptionPromptConfig(
                    adapter_len=adapter_len,
                    adapter_layers=config.num_hidden_layers - 1,
                    task_type='CAUSAL_LM',
                ),
            )
            if gradient_checkpointing:
                llama.activation_checkpointing_enable({'use_reentrant': False})
        for name, parameter in llama.named_parameters():
            parameter.requires_grad_('adaption_' in name)
            if parameter.requires_grad:
                # AdamW's steps are too small for bfloat16; `_autocast` brings the types together.
                parameter.data = parameter.data.float()
        # Otherwise a sampling temperature that came with the weights would be merged into ours.
        llama.generation_config = GenerationConfig()
        self.llama = llama.eval()  # get_peft_model has put the adapter into it, in place

    @classmethod
    def small(cls, tokenizer, config, state_dict, adapter_len=10, whose='the language model'):
        """Our own language model: tokenizers.Tokenizer, LanguageConfig, LanguageModel weights.

        Where the weights already hold an adapter, that one is kept, and its length.  Raises
        TensorFileError with the words `whose` where they are of another size.
        """
        size = LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            rms_norm_eps=config.rms_norm_eps,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            rope_parameters={'rope_type': 'default', 'rope_theta': config.rope_theta},
            tie_word_embeddings=False,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
        adapter = {name: value for name, value in state_dict.items() if '.adapter_' in name}
        with quiet():
            llama = LlamaForCausalLM(size)
        frozen = {name: value for name, value in state_dict.items() if name not in adapter}
        fill(llama, frozen, whose)
        language = cls(
            llama,
            tokenizer,
            adapter_len=config.adapter_tokens or adapter_len,
            max_tokens=config.max_tokens,
            runtime_config=config,
        )
        if adapter:
            language.load_trained_state(adapter)
        return language

    @classmethod
    def from_directory(
        cls,
        path,
        adapter_len=10,
        dtype='bfloat16',
        prompt=PROMPT,
        gradient_checkpointing=False,
        max_tokens=64,
    ):
        """A model in transformers' format: llama (Llama-3.2-1B) or internlm2 (InternLM2-1.8B).

        Local files only, no remote code, safetensors only; FileNotFoundError or ValueError says
        what is wrong with the directory.
        """
        if dtype not in _DTYPES:
            raise ValueError(f'dtype is {dtype!r}; expected {" or ".join(_DTYPES)}.')
        path = Path(path)
        llama = load_llama(path, _DTYPES[dtype])
        return cls(
            llama,
            load_tokenizer(path),
            adapter_len=adapter_len,
            prompt=prompt,
            max_tokens=max_tokens,
            gradient_checkpointing=gradient_checkpointing,
        )

    @property
    def embedding(self):
        """Input embedding weight (V, D), frozen."""
        return self.llama.get_input_embeddings().weight

    def train(self, mode=True):
        """As nn.Module's; the language model stays in eval mode, so it has no dropout."""
        super().train(mode)
        self.llama.eval()
        return self

    def encode(self, captions):
        """N captions -> int64 (N, S): BOS, prompt, caption, EOS, padding; on the CPU."""
        # A caption that spells a special token must not end its own row.
        special = {self.bos_id, self.eos_id, self.pad_id}
        head = [self.bos_id, *self.prompt_ids]
        rows = []
        for encoded in self.tokenizer.encode_batch(list(captions), add_special_tokens=False):
            ids = [token for token in encoded.ids if token not in special]
            rows.append(head + ids[: self.max_tokens - 2] + [self.eos_id])
        length = max((len(row) for row in rows), default=len(head))
        return torch.tensor(
            [row + [self.pad_id] * (length - len(row)) for row in rows], dtype=torch.long
        ).reshape(len(rows), length)

    def answer_mask(self, token_ids):
        """token_ids (N, S) -> bool (N, S): caption and EOS, not BOS, prompt or padding."""
        mask = self._present(token_ids)
        mask[:, : 1 + len(self.prompt_ids)] = False
        return mask

    def _present(self, token_ids):
        """bool (N, S): not padding.  Padding may be EOS again: what follows the first one."""
        ends = token_ids == self.eos_id
        ends[:, : 1 + len(self.prompt_ids)] = False
        present = ends.long().cumsum(1) - ends.long() == 0
        return present if self.pad_id == self.eos_id else present & (token_ids != self.pad_id)

    def forward(self, prefix, token_ids):
        """prefix (N, P, D), token_ids (N, S) -> float32 logits (N, P + S, V)."""
        token_ids = token_ids.to(prefix.device)
        inputs = self._embed(prefix, token_ids)  # (N, P + S, D)
        mask = functional.pad(self._present(token_ids), (prefix.shape[1], 0), value=True)
        # A layer is recomputed in the backward pass only if it is itself in training mode; its
        # parts stay in eval mode, and generation, which needs the cache, finds it in eval mode.
        layers = self.llama.model.layers
        for layer in layers:
            layer.training = self.training and self.gradient_checkpointing
        try:
            with self._autocast(prefix.device):
                logits = self.llama(
                    inputs_embeds=inputs, attention_mask=mask.long(), use_cache=False
                ).logits
        finally:
            for layer in layers:
                layer.training = False
        return logits.float()

    def loss(self, logits, token_ids):
        """logits (N, P + S, V), token_ids (N, S) -> (sum of cross-entropy, answer tokens), 0-d.

        In nat; a place's logits are those of the token after it.  Divide by the count of all
        processes, or rows on one would weigh more than rows on another.
        """
        token_ids = token_ids.to(logits.device)
        wanted = self.answer_mask(token_ids)[:, 1:]  # (N, S - 1)
        predicted = logits[:, logits.shape[1] - token_ids.shape[1] : -1]  # (N, S - 1, V)
        total = functional.cross_entropy(
            predicted[wanted].float(), token_ids[:, 1:][wanted], reduction='sum'
        )
        return total, wanted.sum()

    def generate(self, prefix, beams=1, max_tokens=None):
        """Captions of prefixes (N, P, D): N strings; see `generate_ids`."""
        return [
            self.tokenizer.decode(row).strip()
            for row in self.generate_ids(prefix, beams, max_tokens)
        ]

    @torch.no_grad()
    def generate_ids(self, prefix, beams=1, max_tokens=None):
        """Token ids of N captions, lists without EOS; always the same for the same prefix.

        beams=1 is greedy.  More keep the sentence whose mean log-probability per token is highest.
        A row of max_tokens ids has not come to its end.
        """
        if not len(prefix):
            return []
        head = torch.tensor([[self.bos_id, *self.prompt_ids]], device=prefix.device)
        inputs = self._embed(prefix, head.expand(len(prefix), -1))
        config = GenerationConfig(
            max_new_tokens=self.max_tokens if max_tokens is None else max_tokens,
            num_beams=beams,
            do_sample=False,
            use_cache=True,
            bos_token_id=self.bos_id,
            eos_token_id=self.eos_id,
            pad_token_id=self.pad_id,
        )
        with quiet(), self._autocast(prefix.device):
            rows = self.llama.generate(
                inputs_embeds=inputs,
                generation_config=config,
                attention_mask=torch.ones(
                    inputs.shape[:2], dtype=torch.long, device=prefix.device
                ),
            ).tolist()
        return [row[: row.index(self.eos_id)] if self.eos_id in row else row for row in rows]

    def trained_state(self):
        """The adapter: per layer adapter_prompt (T_a, D), adapter_gate (1,), float32, on the CPU.

        Names are those of LanguageModel.
        """
        return {
            name: value.detach().cpu().clone()
            for name, value in self._runtime_state().items()
            if '.adapter_' in name
        }

    def load_trained_state(self, state):
        """The inverse of `trained_state`; ValueError where it is that of another adapter."""
        own = {name: value for name, value in self._runtime_state().items() if '.adapter_' in name}
        got, wanted = (
            {name: tuple(value.shape) for name, value in part.items()} for part in (state, own)
        )
        if got != wanted:
            name = sorted(
                name for name in got.keys() | wanted.keys() if got.get(name) != wanted.get(name)
            )[0]
            raise ValueError(
                f'adapter weights do not fit: {name} is {got.get(name)}, this '
                f'language model needs {wanted.get(name)}. Use the language model '
                'and the adapter_len the adapter was trained with.'
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def runtime_model(self):
        """A LanguageModel with the same weights and the adapter, for export; of `small` only."""
        if self.runtime_config is None:
            raise ValueError(
                'a language model from a directory becomes no graph; expected one of '
                'CaptionLanguage.small. Its adapter is exported (export/foreign_language.py).'
            )
        model = LanguageModel(replace(self.runtime_config, adapter_tokens=self.adapter_len))
        model.load_state_dict(self._runtime_state())
        return model.eval()

    def _runtime_state(self):
        """state_dict by LanguageModel's names; the tensors share their memory."""
        return {
            name.replace('self_attn.model.', 'self_attn.').replace(
                'adaption_', 'adapter_'
            ): value.squeeze(0) if name.endswith('adaption_prompt') else value
            for name, value in self.llama.state_dict().items()
        }

    def _embed(self, prefix, token_ids):
        words = functional.embedding(token_ids, self.embedding)
        return torch.cat([prefix.to(words.dtype), words], dim=1)

    def _autocast(self, device):
        """A bfloat16 model needs the float32 adapter cast where it meets the weights; a float32
        model is left to what the caller has set."""
        if self.embedding.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)


def _check_sizes(config, tokenizer, adapter_len):
    """Raise ValueError where tokenizer, adapter or special tokens do not fit the model."""
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= config.vocab_size:
        raise ValueError(
            f'wrong vocabulary: the tokenizer has ids up to {largest}, the language '
            f'model {config.vocab_size} embeddings. Use the tokenizer of that model.'
        )
    for name in ('bos_token_id', 'eos_token_id', 'pad_token_id'):
        value = getattr(config, name)
        if not isinstance(value, int) or not 0 <= value < config.vocab_size:
            raise ValueError(
                f'{name} is {value}; expected an id below {config.vocab_size}. '
                'Name it in config.json of the language model.'
            )
    if config.num_hidden_layers < 2 or adapter_len < 1:
        raise ValueError(
            f'adapter_len={adapter_len} with {config.num_hidden_layers} layers; '
            'expected at least 1 and 2: the first layer has no adapter.'
        )
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        # peft infers the number of key heads from the widths, which then goes wrong.
        raise ValueError(
            f'head_dim={config.head_dim} times {config.num_attention_heads} heads is '
            f'not hidden_size={config.hidden_size}; the adapter needs that. Choose '
            'another model.'
        )

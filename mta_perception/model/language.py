"""Language model: plain Llama architecture with an explicit key/value cache.

Parameter names equal those of transformers' LlamaForCausalLM, so that weights move both ways.  A
soft prefix (N, P, D) stands where the embeddings of the first P tokens would.  With
`LanguageConfig.adapter_tokens` all layers but the first carry a LLaMA-Adapter (Zhang et al. 2023,
arXiv 2303.16199): prompts that every query attends to, behind a gate that starts at zero.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class LanguageOutputs(NamedTuple):
    """One call of the model."""

    logits: torch.Tensor  # (N, P + S, V)
    keys: torch.Tensor  # (L, N, heads, T + P + S, Dh)
    values: torch.Tensor  # the same
    hidden: torch.Tensor  # (N, P + S, D), after the last norm: what a task head reads


class RmsNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019)."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        """(..., D) -> (..., D)."""
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def rotate(x, cos, sin):
    """Rotary position embedding of x (N, heads, S, Dh); cos, sin (S, Dh)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention that continues after a cache, and the layer's adapter if it has one.

    adapter_prompt (T_a, D) goes through the layer's own key and value projections.
    adapter_gate (1,) is a plain factor, not its tanh, as in peft's AdaptedAttention.
    """

    def __init__(self, config, adapter_tokens):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.adapter_tokens = adapter_tokens
        if adapter_tokens:
            self.adapter_prompt = nn.Parameter(torch.empty(adapter_tokens, width))
            self.adapter_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x, past_key, past_value, cos, sin, mask):
        """x (N, S, D), past (N, heads, T, Dh) -> (N, S, D), keys, values (N, heads, T + S, Dh)."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = torch.cat([past_key, k], dim=2), torch.cat([past_value, v], dim=2)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        if self.adapter_tokens:
            mixed = mixed + self.adapter_gate * self._from_adapter(q)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), k, v

    def _from_adapter(self, q):
        """What rotated queries (N, heads, S, Dh) read from the adapter, which has no position.

        A softmax of its own: the causal attention is what it was without an adapter.
        """
        k, v = (
            project(self.adapter_prompt).unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for project in (self.k_proj, self.v_proj)
        )  # (heads, T_a, Dh)
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5  # (N, heads, S, T_a)
        return scores.softmax(-1) @ v


class Mlp(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, config):
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        """(..., D) -> (..., D)."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config, adapter_tokens):
        super().__init__()
        self.self_attn = Attention(config, adapter_tokens)
        self.mlp = Mlp(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, past_key, past_value, cos, sin, mask):
        """As Attention.forward."""
        mixed, key, value = self.self_attn(
            self.input_layernorm(x), past_key, past_value, cos, sin, mask
        )
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), key, value


class LlamaModel(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LlamaLayer(config, config.adapter_tokens if index else 0)
            for index in range(config.num_hidden_layers)
        )
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """Next-token logits after a soft prefix, a cache and token ids."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:  # prompts start as in peft, unlike weights
                nn.init.normal_(parameter, std=1.0 if name.endswith('adapter_prompt') else 0.02)

    def empty_cache(self, count):
        """Keys (or values) of no past: (L, N, heads, 0, Dh)."""
        config = self.config
        return self.lm_head.weight.new_zeros(
            config.num_hidden_layers, count, config.num_attention_heads, 0, config.head_dim
        )

    def forward(self, prefix, token_ids, past_keys=None, past_values=None, present=None):
        """prefix (N, P, D), P may be 0; token_ids (N, S) -> LanguageOutputs of all places.

        present (N, T + P + S) bool: places that are read; None: all of them.
        """
        if past_keys is None:
            past_keys = past_values = self.empty_cache(token_ids.shape[0])
        x = torch.cat([prefix, self.model.embed_tokens(token_ids)], dim=1)
        past, new = past_keys.shape[3], x.shape[1]
        position = torch.arange(past + new, device=x.device)
        cos, sin = self._rotary(position[past:].to(x.dtype))
        mask = position[None, :] <= position[past:, None]  # (P + S, T + P + S)
        if present is not None:
            # What is padded reads itself, so that no row of the softmax is empty.
            own = position[None, :] == position[past:, None]
            mask = ((mask & present[:, None]) | own)[:, None]  # (N, 1, P + S, T + P + S)
        keys, values = [], []
        for index, layer in enumerate(self.model.layers):
            x, key, value = layer(x, past_keys[index], past_values[index], cos, sin, mask)
            keys.append(key)
            values.append(value)
        hidden = self.model.norm(x)
        logits = self.lm_head(hidden)
        return LanguageOutputs(logits, torch.stack(keys), torch.stack(values), hidden)

    def _rotary(self, position):
        half = self.config.head_dim // 2
        powers = torch.arange(half, device=position.device, dtype=position.dtype) / half
        angle = position[:, None] * self.config.rope_theta**-powers
        return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()

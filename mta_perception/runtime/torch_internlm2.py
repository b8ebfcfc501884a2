"""InternLM2's configuration and weights by Llama's names: the same architecture otherwise."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
import torch
from transformers import LlamaConfig


def llama_config(directory: str | Path, config: Mapping[str, Any]) -> LlamaConfig:
    """LlamaConfig of InternLM2's config.json: the same architecture but for names."""
    names = (
        'vocab_size',
        'hidden_size',
        'intermediate_size',
        'num_hidden_layers',
        'num_attention_heads',
        'num_key_value_heads',
        'rms_norm_eps',
        'rope_theta',
        'max_position_embeddings',
        'bos_token_id',
        'eos_token_id',
    )
    missing = [name for name in names if name not in config]
    if missing or config.get('bias'):
        raise ValueError(
            f'{directory}/config.json: '
            + (f'lacks {", ".join(missing)}' if missing else 'bias is true, expected false')
            + '; expected the configuration of an InternLM2 base or chat model.'
        )
    optional = ('rope_scaling', 'hidden_act', 'tie_word_embeddings', 'pad_token_id')
    return LlamaConfig(
        **{name: config[name] for name in (*names, *optional) if config.get(name) is not None}
    )


_LLAMA_FROM_INTERNLM2 = {
    'tok_embeddings': 'embed_tokens',
    'attention.wo': 'self_attn.o_proj',
    'feed_forward.w1': 'mlp.gate_proj',
    'feed_forward.w3': 'mlp.up_proj',
    'feed_forward.w2': 'mlp.down_proj',
    'attention_norm': 'input_layernorm',
    'ffn_norm': 'post_attention_layernorm',
}


def llama_weights(
    directory: str | Path, files: Iterable[Path], size: LlamaConfig
) -> dict[str, torch.Tensor]:
    """State dict by Llama's names.

    `attention.wqkv` holds one group a key head: its queries, its key, its value, each Dh rows.
    """
    state = {}
    heads = size.num_key_value_heads
    rows = (size.num_attention_heads + 2 * heads) * size.head_dim
    for name, value in (item for path in files for item in load_file(path).items()):
        for old, new in _LLAMA_FROM_INTERNLM2.items():
            name = name.replace(f'.{old}.', f'.{new}.')
        if not name.endswith('attention.wqkv.weight'):
            state['lm_head.weight' if name == 'output.weight' else name] = value
            continue
        if value.shape != (rows, size.hidden_size):
            raise ValueError(
                f'{directory}: {name} is {tuple(value.shape)}, config.json asks for '
                f'{(rows, size.hidden_size)}; copy both of one and the same model.'
            )
        groups = value.reshape(heads, -1, size.head_dim, size.hidden_size)  # (heads, q + 2, Dh, D)
        layer = name.removesuffix('attention.wqkv.weight') + 'self_attn.'
        for key, part in (('q', groups[:, :-2]), ('k', groups[:, -2]), ('v', groups[:, -1])):
            state[f'{layer}{key}_proj.weight'] = part.reshape(-1, size.hidden_size).contiguous()
    return state

"""Tiny foreign language models with random weights, as directories: Llama and InternLM2."""

import json

from safetensors.torch import save_file
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mta_perception.runtime.torch_weights import quiet


def write_llama(directory, tokenizer, **options):
    """As Llama-3.2 comes: grouped keys, tied embedding, no padding token; sampling asked for.

    options: of save_pretrained
    """
    torch.manual_seed(3)
    size = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=131072,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=[2, 3],
        rope_parameters={
            'rope_type': 'llama3',
            'rope_theta': 500000.0,
            'factor': 32.0,
            'low_freq_factor': 1.0,
            'high_freq_factor': 4.0,
            'original_max_position_embeddings': 8192,
        },
    )
    with quiet():
        model = LlamaForCausalLM(size)
        model.generation_config.temperature, model.generation_config.do_sample = 0.6, True
        model.save_pretrained(directory, **options)
    tokenizer.save(str(directory / 'tokenizer.json'))
    return directory


def small_llama(tokenizer, hidden_size=48, heads=6):
    """The LlamaForCausalLM that `write_internlm2` writes in the tests."""
    torch.manual_seed(4)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=hidden_size,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=2,
            initializer_range=0.2,
            rope_parameters={'rope_type': 'default', 'rope_theta': 1e6},
        )
    ).eval()


def write_internlm2(llama, tokenizer, directory):
    """The tiny Llama in InternLM2's layout, fused and renamed by a loop over heads."""
    size = llama.config
    names = {
        'self_attn.o_proj': 'attention.wo',
        'mlp.gate_proj': 'feed_forward.w1',
        'mlp.up_proj': 'feed_forward.w3',
        'mlp.down_proj': 'feed_forward.w2',
        'post_attention_layernorm': 'ffn_norm',
        'input_layernorm': 'attention_norm',
        'model.embed_tokens': 'model.tok_embeddings',
        'lm_head': 'output',
    }
    state, source = {}, llama.state_dict()
    for name, value in source.items():
        if any(part in name for part in ('q_proj', 'k_proj', 'v_proj')):
            continue
        for new, old in names.items():
            name = name.replace(new, old)
        state[name] = value.clone()
    width, groups = size.head_dim, size.num_attention_heads // size.num_key_value_heads
    for layer in range(size.num_hidden_layers):
        q, k, v = (source[f'model.layers.{layer}.self_attn.{part}_proj.weight'] for part in 'qkv')
        rows = []
        for head in range(size.num_key_value_heads):
            first = head * groups
            rows += [q[i * width : (i + 1) * width] for i in range(first, first + groups)]
            rows += [part[head * width : (head + 1) * width] for part in (k, v)]
        state[f'model.layers.{layer}.attention.wqkv.weight'] = torch.cat(rows)
    directory.mkdir()
    save_file(state, directory / 'model.safetensors')
    (directory / 'config.json').write_text(
        json.dumps(
            {
                'model_type': 'internlm2',
                'architectures': ['InternLM2ForCausalLM'],
                'bias': False,
                'auto_map': {'AutoModelForCausalLM': 'modeling_internlm2.InternLM2ForCausalLM'},
                'vocab_size': size.vocab_size,
                'hidden_size': size.hidden_size,
                'hidden_act': 'silu',
                'intermediate_size': size.intermediate_size,
                'rms_norm_eps': size.rms_norm_eps,
                'num_hidden_layers': size.num_hidden_layers,
                'tie_word_embeddings': False,
                'num_attention_heads': size.num_attention_heads,
                'max_position_embeddings': 256,
                'num_key_value_heads': size.num_key_value_heads,
                'rope_theta': 1000000,
                'rope_scaling': {'type': 'dynamic', 'factor': 2.0},
                'bos_token_id': 1,
                'eos_token_id': 2,
                'pad_token_id': 2,
            }
        )
    )
    (directory / 'modeling_internlm2.py').write_text('raise SystemExit("executed")')
    tokenizer.save(str(directory / 'tokenizer.json'))
    return directory

"""Sizes of language models that are measured with random weights."""

SHAPES = {  # as transformers' LlamaConfig has them
    'SmolLM2-135M': {
        'vocab_size': 49152,
        'hidden_size': 576,
        'intermediate_size': 1536,
        'num_hidden_layers': 30,
        'num_attention_heads': 9,
        'num_key_value_heads': 3,
    },
    'llama-160m': {
        'vocab_size': 32000,
        'hidden_size': 768,
        'intermediate_size': 3072,
        'num_hidden_layers': 12,
        'num_attention_heads': 12,
        'num_key_value_heads': 12,
    },
    'Llama-3.2-1B': {
        'vocab_size': 128256,
        'hidden_size': 2048,
        'intermediate_size': 8192,
        'num_hidden_layers': 16,
        'num_attention_heads': 32,
        'num_key_value_heads': 8,
        'head_dim': 64,
        'tie_word_embeddings': True,
    },
}

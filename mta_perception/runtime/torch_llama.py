"""A directory in transformers' format as a LlamaForCausalLM and a tokeniser: Llama, or InternLM2
by Llama's names.

Read are config.json, the tensors of safetensors files and the tokeniser.  Of config.json only what
names sizes counts: nothing in it or beside it is executed, nothing is downloaded.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tokenizers import Tokenizer
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from mta_perception.runtime import torch_internlm2
from mta_perception.runtime.torch_weights import quiet, read_config, refuse_misfits, weight_files

MODEL_TYPES = ('llama', 'internlm2')
TOKENIZER = 'tokenizer.json'
_SIZES = (
    'attention_bias',
    'bos_token_id',
    'eos_token_id',
    'head_dim',
    'hidden_act',
    'hidden_size',
    'intermediate_size',
    'max_position_embeddings',
    'mlp_bias',
    'num_attention_heads',
    'num_hidden_layers',
    'num_key_value_heads',
    'pad_token_id',
    'rms_norm_eps',
    'rope_parameters',
    'rope_scaling',
    'rope_theta',
    'tie_word_embeddings',
    'vocab_size',
)


def load_llama(
    directory: str | Path, dtype: torch.dtype, files: Iterable[str] | None = None
) -> LlamaForCausalLM:
    """LlamaForCausalLM of a directory whose config.json says llama or internlm2, on the CPU.

    files: names of the safetensors files; None: those that lie there.
    FileNotFoundError or ValueError says what is wrong with the directory.
    """
    directory = Path(directory)
    config = read_config(directory, MODEL_TYPES, 'a caption language model')
    paths = weight_files(directory, files)
    with quiet():
        if config['model_type'] == 'llama':
            size = LlamaConfig(**{name: config[name] for name in _SIZES if name in config})
            state = {name: value for path in paths for name, value in load_file(path).items()}
        else:
            size = torch_internlm2.llama_config(directory, config)
            state = torch_internlm2.llama_weights(directory, paths, size)
        size.eos_token_id = _first(size.eos_token_id)
        if size.pad_token_id is None or size.pad_token_id < 0:
            size.pad_token_id = size.eos_token_id  # Llama has none; padding is masked anyway
        # Misfits must come back as info, not as an error that names none of them.
        model, info = LlamaForCausalLM.from_pretrained(
            None,
            config=size,
            state_dict=state,
            dtype=dtype,
            # Not left to config.json: a name there may be that of code on a hub.
            attn_implementation='sdpa',
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    refuse_misfits(directory, info)
    return model


def _first(ids: Any) -> Any:
    return ids[0] if isinstance(ids, (list, tuple)) and ids else ids


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """tokenizers.Tokenizer of tokenizer.json, or of tokenizer.model by way of sentencepiece."""
    path = Path(directory) / TOKENIZER
    if path.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f'{path} is not a tokenizer ({error}); copy it again.') from error
    elif not (path.parent / 'tokenizer.model').is_file():
        raise FileNotFoundError(
            f'{path.parent} has neither tokenizer.json nor tokenizer.model; '
            'copy the tokenizer of the model there.'
        )
    elif find_spec('sentencepiece') is None:
        raise ValueError(
            f'{path.parent} has only tokenizer.model, which needs the package '
            'sentencepiece, and that is not installed. Install it, or put '
            'tokenizer.json there (save_pretrained of the fast tokenizer).'
        )
    else:
        with quiet():
            tokenizer = LlamaTokenizer.from_pretrained(
                path.parent, local_files_only=True
            ).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer

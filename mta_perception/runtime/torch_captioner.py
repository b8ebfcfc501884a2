"""A foreign language model in torch behind the call of `runtime.captioner.OnnxCaptioner`.

The weights are those of a directory whose files `runtime.speech` has held against their hashes;
the adapter (adapter.safetensors) and the Q-Former come from the export.  A row is prefix
(P soft tokens of an object), BOS, prompt; the words after it are greedy, from a KV cache.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
import torch
from torch import nn

from mta_perception.detections import CaptionInputs, Floats
from mta_perception.foreign_text import first_line
from mta_perception.runtime.captioner import (
    Caption,
    QFormerGraph,
    StoppedError,
    captioner_spec,
    captions_of,
    to_the_end,
)
from mta_perception.runtime.manifest import (
    EXPORT_AGAIN,
    FILE_NAME,
    TOKENIZER,
    CaptionerSpec,
    Manifest,
    ManifestError,
)
from mta_perception.runtime.torch_llama import load_llama, load_tokenizer

ADAPTER = 'adapter.safetensors'
_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
_WARM_UP = 2  # words at the start, which find out whether all of it runs here


class AdaptedAttention(nn.Module):
    """A layer's attention and what its adapter adds: LLaMA-Adapter as peft's AdaptionPrompt.

    The adapter has no position and a softmax of its own, so that its keys and values are made
    once.
    """

    def __init__(self, attention: Any, prompt: torch.Tensor, gate: torch.Tensor) -> None:
        """attention: transformers' LlamaAttention; prompt (T_a, D), gate (1,) float32."""
        super().__init__()
        self.attention, self._width = attention, attention.head_dim
        groups = attention.num_key_value_groups
        weight = attention.k_proj.weight
        with torch.no_grad():
            key, value = (
                project(prompt.to(weight.device, weight.dtype))
                .reshape(len(prompt), -1, self._width)
                .transpose(0, 1)
                .repeat_interleave(groups, 0)
                for project in (attention.k_proj, attention.v_proj)
            )  # (heads, T_a, Dh)
        self._key, self._value = key.transpose(1, 2).contiguous(), value.contiguous()
        self._gate = gate.to(weight.device, weight.dtype)

    def forward(
        self, hidden_states: torch.Tensor, position_embeddings: Any, **rest: Any
    ) -> tuple[Any, ...]:
        """As LlamaAttention's, which transformers calls by names."""
        mixed, *others = self.attention(
            hidden_states=hidden_states, position_embeddings=position_embeddings, **rest
        )
        cos, sin = (part.unsqueeze(1) for part in position_embeddings)
        count, places, _ = hidden_states.shape
        query = self.attention.q_proj(hidden_states)
        query = query.reshape(count, places, -1, self._width).transpose(1, 2)
        first, second = query.chunk(2, dim=-1)
        query = query * cos + torch.cat([-second, first], dim=-1) * sin
        scores = query @ self._key / self._width**0.5  # (N, heads, S, T_a)
        shares = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        read = (self._gate * shares) @ self._value
        read = read.transpose(1, 2).reshape(count, places, -1)
        return mixed + self.attention.o_proj(read), *others


class TorchCaptioner:
    """All objects of a frame as one batch, on a device of its own."""

    def __init__(
        self,
        manifest: Manifest,
        directory: Path,
        threads: int = 1,
        device: str = 'cpu',
        precision: str = 'auto',
    ) -> None:
        """directory: that of the language model, with the files of the manifest.

        device, precision: see speech.LanguageSettings.  Raises ManifestError.
        """
        self._spec, self._threads = captioner_spec(manifest), threads
        self._device = _device(device)
        if precision == 'auto':
            precision = 'float32' if self._device.type == 'cpu' else 'bfloat16'
        self._qformer = QFormerGraph(manifest, self._spec, threads)
        self._llama = _load(manifest, self._spec, directory, _DTYPES[precision], self._device)
        foreign = self._spec.foreign
        assert foreign is not None
        own = TOKENIZER in foreign.files
        try:
            self._tokenizer = load_tokenizer(directory if own else manifest.directory)
        except ValueError as error:
            raise ManifestError(str(error)) from error
        _check_vocabulary(manifest, self._spec, self._tokenizer)
        prompt = self._tokenizer.encode(foreign.prompt, add_special_tokens=False).ids
        self._head = torch.tensor([[self._spec.bos, *prompt]], device=self._device)
        nothing = np.zeros((1, self._spec.prefix_tokens, self._spec.width), np.float32)
        try:
            self.words(nothing, _WARM_UP)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ManifestError(
                f'{directory} cannot be run on {device} in {precision}: {first_line(error)}. '
                'Choose another language_device or language_precision, or free its memory.'
            ) from error

    def caption(
        self, inputs: CaptionInputs, go_on: Callable[[], bool] = to_the_end
    ) -> list[Caption]:
        """As runtime.captioner.Captioner's."""
        if not len(inputs.boxes):
            return []
        return captions_of(self._tokenizer, *self.words(self._qformer(inputs), go_on=go_on))

    def words(
        self, prefix: Floats, most: int | None = None, go_on: Callable[[], bool] = to_the_end
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Greedy token ids (end token left out) and log probabilities (with it) of prefix (N, P,
        D)."""
        most = self._spec.max_tokens if most is None else most
        with _threads(self._threads), torch.inference_mode():
            return self._generate(torch.from_numpy(prefix), most, go_on)

    def _generate(
        self, prefix: torch.Tensor, most: int, go_on: Callable[[], bool]
    ) -> tuple[list[list[int]], list[list[float]]]:
        return greedy_words(self._llama, self._head, self._spec.eos, prefix, most, go_on)


def greedy_words(
    llama: Any,
    head: torch.Tensor,
    eos: int,
    prefix: torch.Tensor,
    most: int,
    go_on: Callable[[], bool] = to_the_end,
) -> tuple[list[list[int]], list[list[float]]]:
    """What a LlamaForCausalLM says behind prefix (N, P, D) and head (1, S) token ids, at most
    `most` words each: as TorchCaptioner.words."""
    count = len(prefix)
    tokens: list[list[int]] = [[] for _ in range(count)]
    log_probabilities: list[list[float]] = [[] for _ in range(count)]
    active = list(range(count))
    embed = llama.get_input_embeddings()
    words = embed(head.expand(count, -1))
    step = torch.cat([prefix.to(words.device, words.dtype), words], dim=1)  # prefill
    cache = None
    for _ in range(most):
        if not go_on():
            raise StoppedError
        out = llama(inputs_embeds=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1].float()
        chosen = logits.argmax(-1)
        of_chosen = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        going = []
        for place, (word, value) in enumerate(zip(chosen.tolist(), of_chosen.tolist())):
            log_probabilities[active[place]].append(value)
            if word != eos:
                tokens[active[place]].append(word)
                going.append(place)
        if not going:
            break
        if len(going) < len(active):  # finished sentences leave the batch
            kept = torch.tensor(going, device=head.device)
            cache.batch_select_indices(kept)
            active, chosen = [active[place] for place in going], chosen[kept]
        step = embed(chosen[:, None])
    return tokens, log_probabilities


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ManifestError(
            f'language_device is {name}, and torch {torch.__version__} finds no GPU here. Set it '
            'to cpu, or install the driver and a torch for CUDA.'
        )
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ManifestError(
            f'language_device is {name}, and there are {torch.cuda.device_count()} GPUs here, '
            'counted from cuda:0. Set it to one of them.'
        )
    return device


def _load(
    manifest: Manifest,
    spec: CaptionerSpec,
    directory: Path,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """The LlamaForCausalLM on its device, the adapter in it."""
    assert spec.foreign is not None
    weights = [name for name in spec.foreign.files if name.endswith('.safetensors')]
    try:
        llama = load_llama(directory, dtype, weights).eval()
        _check_sizes(manifest, spec, directory, llama.config)
        llama.to(device)
    except ManifestError:
        raise
    except (ValueError, OSError) as error:
        raise ManifestError(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        raise ManifestError(
            f'{directory} cannot be loaded on {device}: {first_line(error)}. Choose another '
            'language_device or language_precision, or free its memory.'
        ) from error
    _put_adapter(llama, manifest.path(ADAPTER), spec)
    for parameter in llama.parameters():
        parameter.requires_grad_(False)
    return llama


def _check_sizes(manifest: Manifest, spec: CaptionerSpec, directory: Path, config: Any) -> None:
    for name, came, wanted in (
        ('width', config.hidden_size, spec.width),
        ('layers', config.num_hidden_layers, spec.layers),
        ('heads', config.num_key_value_heads, spec.heads),
        ('head_dim', config.head_dim, spec.head_dim),
        ('vocabulary', config.vocab_size, spec.vocabulary),
    ):
        if came != wanted:
            raise ManifestError(
                f'{manifest.directory / FILE_NAME}: captioner.{name} is {wanted}, the language '
                f'model in {directory} has {came}. {EXPORT_AGAIN}'
            )


def _check_vocabulary(manifest: Manifest, spec: CaptionerSpec, tokenizer: Any) -> None:
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= spec.vocabulary:
        raise ManifestError(
            f'{manifest.directory / FILE_NAME}: captioner.vocabulary is {spec.vocabulary}, the '
            f'tokenizer has ids up to {largest}. {EXPORT_AGAIN}'
        )


def _put_adapter(llama: Any, path: Path, spec: CaptionerSpec) -> None:
    """Wrap the attention of every layer but the first."""
    assert spec.foreign is not None
    try:
        adapter = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ManifestError(
            f'{path} is no adapter: {first_line(error)}. {EXPORT_AGAIN}'
        ) from error
    came = {name: tuple(value.shape) for name, value in adapter.items()}
    wanted: dict[str, tuple[int, ...]] = {}
    for layer in range(1, spec.layers):
        wanted[f'{_part(layer)}adapter_prompt'] = spec.foreign.adapter_tokens, spec.width
        wanted[f'{_part(layer)}adapter_gate'] = (1,)
    for name in sorted(came.keys() | wanted.keys()):
        if came.get(name) != wanted.get(name):
            raise ManifestError(
                f'{path}: {first_line(ValueError(name))} is {came.get(name, "missing")}, expected '
                f'{wanted.get(name, "nothing of this name")}. {EXPORT_AGAIN}'
            )
    for layer in range(1, spec.layers):
        part = llama.model.layers[layer]
        part.self_attn = AdaptedAttention(
            part.self_attn,
            adapter[f'{_part(layer)}adapter_prompt'],
            adapter[f'{_part(layer)}adapter_gate'],
        )


def _part(layer: int) -> str:
    return f'model.layers.{layer}.self_attn.'


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many for torch in this thread of the program."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""A foreign language model in a model directory: its adapter and what it is known by again.

The weights stay where they are.  The manifest has the hash of each file that the runtime reads, so
that the node speaks with the weights of the training or not at all.
"""

from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
import torch

from mta_perception.atomic_files import sha256, whole
from mta_perception.runtime.manifest import TOKENIZER, Manifest
from mta_perception.runtime.torch_captioner import ADAPTER, TorchCaptioner
from mta_perception.runtime.torch_weights import weight_files
from mta_training.language.frozen_llama import CaptionLanguage

_OBJECTS = 4  # whose words the check compares


class ForeignLanguage(NamedTuple):
    """What a run captions with."""

    language: CaptionLanguage
    directory: Path  # of its weights
    prompt: str

    @property
    def name(self):
        """For people."""
        return self.directory.resolve().name

    @property
    def files(self):
        """Names of the files that the export has of it."""
        return ADAPTER, *(() if self._has_tokenizer else (TOKENIZER,))

    @property
    def _has_tokenizer(self):
        return (self.directory / TOKENIZER).is_file()

    def write(self, out):
        """Adapter, and the tokeniser where the directory has it in another form."""
        with whole(Path(out) / ADAPTER) as partial:
            state = self.language.trained_state()
            save_file({name: value.contiguous() for name, value in state.items()}, partial)
        if not self._has_tokenizer:
            self.language.tokenizer.save(str(Path(out) / TOKENIZER))

    def captioner(self, prefix_tokens):
        """`captioner` of the manifest; reads all weights for their hashes."""
        language, size = self.language, self.language.llama.config
        names = ['config.json', *(path.name for path in weight_files(self.directory))]
        names += [TOKENIZER] if self._has_tokenizer else []
        return {
            'prefix_tokens': prefix_tokens,
            'width': size.hidden_size,
            'layers': size.num_hidden_layers,
            'heads': size.num_key_value_heads,
            'head_dim': size.head_dim,
            'vocabulary': size.vocab_size,
            'bos': language.bos_id,
            'eos': language.eos_id,
            'max_tokens': language.max_tokens,
            'language': {
                'kind': 'transformers',
                'name': self.name,
                'prompt': self.prompt,
                'adapter_tokens': language.adapter_len,
                'files': {name: sha256(self.directory / name) for name in names},
            },
        }

    @torch.no_grad()
    def parity(self, out, seed=9):
        """Largest difference between the log probabilities of the runtime's words and the same in
        training's model.  Raises ValueError where the words differ.

        Both in float32; a second copy of the weights is in memory meanwhile.
        """
        language, manifest = self.language, Manifest.load(out)
        width = language.hidden_size
        places = manifest.captioner.prefix_tokens
        spread = language.embedding.float().std()
        generator = torch.Generator().manual_seed(seed)
        prefix = spread * torch.randn(_OBJECTS, places, width, generator=generator)
        runtime = TorchCaptioner(manifest, self.directory, torch.get_num_threads())
        rows, spoken = runtime.words(prefix.numpy())
        wanted = language.generate_ids(prefix)
        if rows != wanted:
            raise ValueError(
                f'{out}: the words of training and runtime differ, the first {rows} and {wanted}. '
                'The exported adapter is not the trained one, or the weights in '
                f'{self.directory} changed since the export began.'
            )
        head = [language.bos_id, *language.prompt_ids]
        most = 0.0
        for one, row, values in zip(prefix, rows, spoken):
            said = [*row, language.eos_id][: len(values)]
            logits = language(one[None], torch.tensor([[*head, *said]]))[0]
            chosen = logits[places + len(head) - 1 : -1].log_softmax(-1)
            exact = chosen.gather(1, torch.tensor(said)[:, None])[:, 0]
            most = max(most, float((exact - torch.tensor(values)).abs().max()))
        return most

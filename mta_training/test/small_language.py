"""What the tests of the caption language model share."""

import torch

CAPTIONS = [
    'a red car about 12 meters away in the front left of the ego car.',
    'a person is walking slowly.',
    'a bus',
    'traffic cone about 7 meters away, parked.',
]
PREFIX = 4


def open_gates(language, seed=1):
    """Random gates and prompts: a freshly made adapter says nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in language.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return language


def prefixes(count=4, width=32, seed=2):
    return torch.randn(count, PREFIX, width, generator=torch.Generator().manual_seed(seed))


def greedy(language, prefix):
    """Slow greedy decoding of one prefix (1, P, D) without a cache -> token ids."""
    head = [language.bos_id, *language.prompt_ids]
    row = list(head)
    for _ in range(language.max_tokens):
        row.append(int(language(prefix, torch.tensor([row]))[0, -1].argmax()))
        if row[-1] == language.eos_id:
            break
    return row

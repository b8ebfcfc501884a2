"""Training-only supervision of an object's look: its colour, as its true caption names it.

A backbone loses colour between stride 4 and 16, and the captioner alone asks for it too softly:
told directly, `appearance` keeps it.  Nothing of this is exported.
"""

from functools import lru_cache
import re

import torch
from torch import nn
from torch.nn import functional

from mta_training.captions.grammar import COLOURS

_WORD = re.compile(r'[a-z]+')
UNKNOWN = -1


class ColourHead(nn.Linear):
    """Logits of the captions' colours from an object's `appearance` (..., C)."""

    def __init__(self, channels):
        super().__init__(channels, len(COLOURS))


@lru_cache(maxsize=65536)
def colour_of(caption):
    """Index of the first colour that a caption names before its object's distance, or UNKNOWN.

    In our grammar and in TOD3Cap's sentences an object's own colour comes first; what follows
    its distance is about its neighbours.
    """
    for word in _WORD.findall(caption.lower().split(' about ')[0]):
        word = 'gray' if word == 'grey' else word
        if word in COLOURS:
            return COLOURS.index(word)
    return UNKNOWN


def colour_loss(head, appearance, matches, captions, processes):
    """Cross entropy of the matched queries' colours.

    appearance (B, Q, C); per frame `matches` (queries, objects) and `captions` (n strings)
    """
    rows, goals = [], []
    for seen, (queries, objects), texts in zip(appearance, matches, captions):
        colours = [colour_of(texts[chosen]) for chosen in objects]
        named = [i for i, colour in enumerate(colours) if colour != UNKNOWN]
        rows.append(seen[[int(queries[i]) for i in named]])
        goals += [colours[i] for i in named]
    rows = torch.cat(rows).float()
    (count,) = processes.divisors([len(goals)])
    goals = torch.tensor(goals, dtype=torch.int64, device=rows.device)
    return functional.cross_entropy(head(rows), goals, reduction='sum') / count

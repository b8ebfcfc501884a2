"""The oracle auxiliary: an object's aligned token tells noun, distance and motion outright.

What BLA asks of the token by way of an embedding of the caption is asked here without the detour:
the three facts of a caption that a detector can profit from, as classes and a number.  So this
bounds what text could teach a detector through that token (`mta-train ablate --table oracle`).
Only captions are read, no box: it knows what BLA knows.  Nothing of it is exported.
"""

from functools import lru_cache
import math

import torch
from torch import nn
from torch.nn import functional

from mta_training.captions.grammar import MOTIONS, NOUNS, parse
from mta_training.losses.alignment import Aligned
from mta_training.process_group import ProcessGroup

_ALONE = ProcessGroup.alone()
_NOUNS = tuple(NOUNS)
# Of distances from 2 to 50 m, so that who knows nothing errs by about one, as in the classes.
_LOG_CENTRE, _LOG_SPREAD = math.log(15.0), 0.7


@lru_cache(maxsize=65536)
def facts_of(caption):
    """(noun, log of the distance [m], motion) of a caption; None if it is not of the grammar."""
    try:
        facts = parse(caption)
    except ValueError:
        return None
    distance = math.log(max(1, facts.distance))
    return _NOUNS.index(facts.thing.noun), distance, MOTIONS.index(facts.motion)


class OracleHead(nn.Module):
    """An MLP as BLA's, to the logits of noun and motion and to the log of the distance."""

    def __init__(self, width):
        super().__init__()
        self.read = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, len(_NOUNS) + 1 + len(MOTIONS)),
        )

    def forward(self, features, texts, processes=_ALONE):
        """features (R, width) of the object tokens, R texts -> Aligned; a mean over the rows that
        have facts, of all processes."""
        facts = [facts_of(text) for text in texts]
        known = [row for row, fact in enumerate(facts) if fact is not None]
        told = self.read(features.float())[known]
        (count,) = processes.divisors([len(known)])
        columns = zip(*(facts[row] for row in known)) if known else ([], [], [])
        noun, distance, motion = (
            torch.tensor(column, dtype=kind, device=told.device)
            for column, kind in zip(columns, (torch.int64, torch.float32, torch.int64))
        )
        nouns, far, motions = told.split([len(_NOUNS), 1, len(MOTIONS)], -1)
        error = (far[:, 0] - (distance - _LOG_CENTRE) / _LOG_SPREAD).abs()
        loss = (
            functional.cross_entropy(nouns, noun, reduction='sum')
            + error.sum()
            + functional.cross_entropy(motions, motion, reduction='sum')
        ) / count
        return Aligned(
            loss,
            {
                'oracle_noun': _mean(nouns.argmax(-1) == noun),
                'oracle_log_m': _mean(_LOG_SPREAD * error),
                'oracle_motion': _mean(motions.argmax(-1) == motion),
            },
        )


def _mean(values):
    return float(values.detach().float().mean()) if len(values) else 0.0

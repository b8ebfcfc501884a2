"""Instructions and answers as tokens, for our own small language model and for others.

    <s> instruction <answer> words [task token] [slots] words </s>

A slot is a place whose input is no word: of a task (one, or of a track one for each frame of the
memory), or of a location (`<here>` of the instruction).  What is learned to be said is everything
after `<answer>` but the slots.
"""

from typing import NamedTuple

import numpy as np

from mta_perception.model.asking import TASK_WORDS
from mta_training.language.small_model import BOS, EOS, PAD
from mta_training.questions.question import HERE

ANSWER, SLOT = '<answer>', '<slot>'
EXTRA = (ANSWER, SLOT, HERE, *TASK_WORDS.values())
HEAD_OF = {word: head for head, word in TASK_WORDS.items()}
KIND_OF_HEAD = {'region': 'box', 'temporal': 'time', 'mask': 'mask', 'track': 'track'}
MOST_WORDS = 96  # of an instruction and its answer


class Row(NamedTuple):
    """One question as tokens; S places."""

    ids: np.ndarray  # (S,) int64
    slots: dict  # head -> places (n,) of its slots
    here: int  # place of <here>, -1 for none
    said: np.ndarray  # (S,) bool: has to be said
    tasks: np.ndarray  # (S,) bool: of these, the task tokens
    words: tuple  # first and one after the last place of the instruction's words


class Vocabulary:
    """Words and ids of one tokenizer, with the tokens that TPO adds."""

    def __init__(self, tokenizer, bos=BOS, eos=EOS, pad=PAD):
        self.tokenizer, self.bos, self.eos, self.pad = tokenizer, bos, eos, pad
        ids = {word: tokenizer.token_to_id(word) for word in EXTRA}
        missing = sorted(word for word, token in ids.items() if token is None)
        if missing:
            raise ValueError(
                f'the tokenizer has no {", ".join(missing)}; add them (Vocabulary.extended).'
            )
        self.answer, self.slot, self.here = ids[ANSWER], ids[SLOT], ids[HERE]
        self.tasks = {head: ids[word] for head, word in TASK_WORDS.items()}

    @classmethod
    def extended(cls, tokenizer, **special):
        """Of a tokenizer to which the tokens are added, behind its own."""
        tokenizer.add_special_tokens(list(EXTRA))
        return cls(tokenizer, **special)

    def encode(self, text):
        """Ids of some words; none is added."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def instruction(self, text):
        """Ids of `<s> instruction <answer>`: what an answer begins from."""
        return [self.bos, *self.encode(text)[:MOST_WORDS], self.answer]

    def row(self, question, frames, heads):
        """Row of a Question whose memory has `frames` frames; heads: names of those there are."""
        ids = self.instruction(question.text)
        here = ids.index(self.here) if question.here and self.here in ids else -1
        start, slots, tasks = len(ids), {}, []
        for token in [*self.encode(question.answer), self.eos]:
            head = next((name for name in heads if self.tasks[name] == token), None)
            tasks.append(len(ids)) if head else None
            ids.append(token)
            if head:
                count = frames if head == 'track' else 1
                slots[head] = np.arange(len(ids), len(ids) + count)
                ids += [self.slot] * count
        said = np.arange(len(ids)) >= start
        for places in slots.values():
            said[places] = False
        marks = np.zeros(len(ids), bool)
        marks[tasks] = True
        return Row(np.array(ids), slots, here, said, marks, (1, start - 1))

    def decode(self, ids):
        """Words of ids without what is no word."""
        hidden = {self.bos, self.eos, self.pad, self.slot, self.answer}
        return self.tokenizer.decode(
            [token for token in ids if token not in hidden], skip_special_tokens=False
        ).strip()

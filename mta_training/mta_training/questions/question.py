"""What is asked of a scene, and what the right answer is: words, boxes, spans, masks, tracks.

A scene is its key frames (2 Hz).  A question is asked at frame `now` and is about the memory
`first` to `now`, both inclusive; all frame numbers are the scene's.
"""

from dataclasses import dataclass

from mta_perception.checks import require

# The token with which a model says which task an answer needs, by what is asked (TPO,
# arXiv 2412.19326, section 3); `choice` and `talk` are answered in words alone.
TASK_TOKENS = {'box': '<box>', 'time': '<time>', 'mask': '<mask>', 'track': '<track>'}
KINDS = (*TASK_TOKENS, 'choice', 'talk')
HERE = '<here>'  # in a text: the place of a location prompt


@dataclass(frozen=True)
class Question:
    """One instruction about a scene and its answer."""

    scene: str
    first: int
    now: int
    text: str  # the instruction: lower case, no final stop
    answer: str  # words; where a head answers, its task token stands in them, once
    kind: str  # one of KINDS
    family: str  # template family 'group/name': what is asked, whatever the wording
    wording: str  # the template itself; wordings of a family are split into seen and unseen ones
    instances: tuple[str, ...] = ()  # instance tokens of the objects that are meant; () = none
    spans: tuple[tuple[int, int], ...] = ()  # of `time`: runs of frames, inclusive; () = never
    saliency: tuple[float, ...] = ()  # of `time`: 0 to 1 for each frame first..now
    options: tuple[str, ...] = ()  # of `choice`
    right: int = -1  # of `choice`: which option
    here: str = ''  # instance whose box at `now` is given where the text says <here>
    reasoning: bool = False  # needs an order of events, or more than one frame

    def __post_init__(self):
        require(
            self.kind in KINDS, f'question.kind={self.kind!r}; choose one of {", ".join(KINDS)}.'
        )
        require(
            0 <= self.first <= self.now,
            f'question of {self.scene}: frames {self.first} to {self.now}; expected 0 <= first '
            '<= now.',
        )
        require(
            self.text.split().count(HERE) == bool(self.here),
            f'question {self.text!r} with here={self.here!r}: {HERE} stands in the text '
            'once where an object is pointed at, and never without.',
        )
        tokens = [name for name in self.answer.split() if name in TASK_TOKENS.values()]
        wanted = [TASK_TOKENS[self.kind]] if self.kind in TASK_TOKENS and self.answered else []
        require(
            tokens == wanted,
            f'answer {self.answer!r} of a question of kind {self.kind}: task tokens {tokens}; '
            f'expected {wanted}.',
        )

    @property
    def answered(self):
        """Whether there is something that a head can show."""
        if self.kind == 'time':
            return bool(self.spans)
        return self.kind in TASK_TOKENS and bool(self.instances)

    @property
    def group(self):
        """What the family belongs to, e.g. 'moment' of 'moment/near'."""
        return self.family.split('/')[0]

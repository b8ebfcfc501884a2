"""The rows and columns of `tpo-table`: what each row changes in a TpoRecipe.

The rows are those of the paper's ablations (arXiv 2412.19326) on our tasks, and some of our own;
its numbers are of other tasks and are not repeated here.  A row asks what it has as often as the
full method does: stages without some of the data are shorter by their share, as data are added in
the paper.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from mta_perception.model.tasks.config import TemporalConfig
from mta_training.ablation.rows import Row, Table

FULL = 'all + conversation'
GROUP_OF = {'region': 'grounding', 'temporal': 'moment', 'mask': 'mask', 'track': 'track'}
TALK = ('conversation', 'choice')
TASKS = (*GROUP_OF.values(), 'qa', 'reasoning')
# These groups need both of two heads.
_NEEDS = {'qa': ('region', 'temporal'), 'reasoning': ('region', 'temporal')}


class TpoRow(NamedTuple):
    """One line: TpoRecipe -> TpoRecipe, and the last stage that is run."""

    name: str
    change: Callable
    stage: int = 3


def scaled(recipe, factors):
    """Each stage after the conversation's with a group asked so many times as often."""
    return replace(
        recipe,
        stages=(recipe.stages[0], *(_scaled(stage, factors) for stage in recipe.stages[1:])),
    )


def _scaled(stage, factors):
    mixture = {group: share * factors.get(group, 1.0) for group, share in stage.mixture.items()}
    share = sum(mixture.values()) / sum(stage.mixture.values())
    if not share:
        return replace(stage, steps=0)
    kept = {group: value for group, value in mixture.items() if value}
    return replace(stage, mixture=kept, steps=max(1, round(share * stage.steps)))


def with_heads(recipe, heads, talk=False):
    """Only some heads, and what is asked of them."""
    tasks = recipe.asking.tasks
    missing = {name: None for name in GROUP_OF if name not in heads}
    dropped = {GROUP_OF[name]: 0.0 for name in missing}
    dropped |= {group: 0.0 for group, needed in _NEEDS.items() if set(needed) - set(heads)}
    dropped |= {} if talk else dict.fromkeys(TALK, 0.0)
    asking = replace(recipe.asking, tasks=replace(tasks, **missing))
    return scaled(replace(recipe, asking=asking), dropped)


def _textual(recipe):
    """No heads: what they would show is said, but for masks and tracks."""
    tasks = replace(recipe.asking.tasks, **dict.fromkeys(GROUP_OF))
    asking = replace(recipe.asking, tasks=tasks)
    return scaled(replace(recipe, asking=asking, textual=True), {'mask': 0.0, 'track': 0.0})


def _mlp(recipe):
    tasks = replace(recipe.asking.tasks, temporal=TemporalConfig(kind='mlp'))
    return replace(recipe, asking=replace(recipe.asking, tasks=tasks))


def _alone(recipe):
    """Masks and tracks as the paper has them: from the task token, without the detector's
    objects and without the other frames."""
    tasks = recipe.asking.tasks
    mask, track = replace(tasks.mask, objects=False), replace(tasks.track, associate=False)
    tasks = replace(tasks, mask=mask, track=track)
    return replace(recipe, asking=replace(recipe.asking, tasks=tasks))


def _other_host(recipe):
    host = 'mta' if recipe.asking.host == 'plain' else 'plain'
    return replace(recipe, asking=replace(recipe.asking, host=host))


def _share(groups, share):
    return lambda recipe: scaled(recipe, dict.fromkeys(groups, share))


def _heads(*heads):
    return lambda recipe: with_heads(recipe, heads)


ROWS = (
    TpoRow('before (conversation alone)', lambda recipe: recipe, 0),
    *(TpoRow(f'{name} alone', _heads(name)) for name in GROUP_OF),
    TpoRow('region + mask', _heads('region', 'mask')),
    TpoRow('region + temporal', _heads('region', 'temporal')),
    TpoRow('temporal + mask', _heads('temporal', 'mask')),
    TpoRow('all four', _heads(*GROUP_OF)),
    TpoRow(FULL, lambda recipe: recipe),
    TpoRow('coordinates as text', _textual),
    TpoRow('heads teach only themselves', lambda recipe: replace(recipe, detach=True)),
    TpoRow('MLP instead of CG-DETR', _mlp),
    TpoRow('masks and tracks from the token alone', _alone),
    TpoRow('no reasoning', _share(('reasoning',), 0.0)),
    TpoRow('conversation 25 %', _share(TALK, 0.25)),
    TpoRow('conversation 50 %', _share(TALK, 0.5)),
    TpoRow('tasks 25 %', _share(TASKS, 0.25)),
    TpoRow('tasks 50 %', _share(TASKS, 0.5)),
    TpoRow('the other host', _other_host),
)
TABLE = Table(
    'Task heads of TPO, alone and together',
    {
        'assigned %': ('assignment/all', 100),
        'within 2 m %': ('region/acc_2m', 100),
        'of the found': ('region/acc_2m_found', 100),
        'pointer %': ('region/pointer', 100),
        'R1@0.5': ('temporal/R1@0.5', 100),
        'mIoU': ('temporal/mIoU', 100),
        'mask IoU': ('mask/iou', 100),
        'track success': ('track/success', 100),
        'Acc@GQA': ('timed/Acc@GQA', 100),
        'choice %': ('choice/accuracy', 100),
        'CIDEr': ('talk/CIDEr', 100),
        '2 m, unseen wording': ('unseen/region/acc_2m', 100),
        'min of training': ('cost/train_minutes', 1),
    },
    tuple(Row(row.name, {}, against=FULL) for row in ROWS),
    'Half of the questions are in wordings that no training question has. '
    '"The other host": mta for plain, or plain for mta.',
)

"""`mta-train questions`: what is asked of the scenes in bags, and the right answers, as a file."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from mta_training.commands.paths import check_paths


def questions_command(
    bags: Annotated[
        Path, typer.Option(file_okay=True, help='Directory of bags of `convert`; or one of them.')
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, help='File of questions, JSON Lines.')],
    seed: Annotated[int, typer.Option(min=0, help='The same seed asks the same.')] = 0,
    per_frame: Annotated[
        float, typer.Option(min=0.01, max=1000.0, help='Questions for each frame, on average.')
    ] = 4.0,
    wordings: Annotated[
        Literal['seen', 'unseen', 'both'],
        typer.Option(help='seen: those to train with; unseen: those held out; both.'),
    ] = 'seen',
    only: Annotated[
        Optional[list[str]],
        typer.Option(help='Only this group, e.g. moment; give it repeatedly.'),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help='Print so many of them with answers.')] = 0,
):
    """Ask the scenes of bags: where, when, which area, follow it, what, how many, what then.

    Prints how many of each family there are; docs/ask.md says what the families are.
    """
    check_paths(bags=(bags,))
    from rich.console import Console

    from mta_perception.bags.scene_bag import SceneBag, find_bags
    from mta_perception.progress import Progress
    from mta_training.questions.files import write_questions
    from mta_training.questions.mixture import MIXTURE, questions_of_scene
    from mta_training.questions.scene_facts import scene_facts

    mixture = None if not only else {name: MIXTURE.get(name, 1.0) for name in only}
    paths, questions = find_bags(bags), []
    progress = Progress('asking, scenes', len(paths))
    for path in progress.over(paths):
        facts = scene_facts(SceneBag(path))
        questions += questions_of_scene(
            facts, seed, per_frame=per_frame, mixture=mixture, wordings=wordings
        )
    write_questions(out, questions)
    console = Console()
    console.print(_table(questions, len(paths)))
    for question in _some(questions, show, seed):
        console.print(_told(question), markup=False, highlight=False, soft_wrap=True)
    print(f'{len(questions)} questions in {out}')


def _table(questions, scenes):
    """Families, how many questions of each, how many have something to show, held-out wordings."""
    from rich.table import Table

    from mta_training.questions.wordings import split_of

    table = Table(
        'family', 'kind', 'questions', 'shown', 'unseen', title=f'{scenes} scenes, by family'
    )
    for family, kind in sorted({(one.family, one.kind) for one in questions}):
        own = [one for one in questions if (one.family, one.kind) == (family, kind)]
        shown = sum(one.answered for one in own)
        unseen = sum(split_of(one) == 'unseen' for one in own)
        table.add_row(family, kind, str(len(own)), str(shown), str(unseen))
    return table


def _some(questions, count, seed):
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(questions))[:count]
    return [questions[k] for k in order]


def _told(question):
    """One question as lines to read."""
    lines = [
        f'{question.scene} frames {question.first} to {question.now}  [{question.family}]',
        f'  {question.text}',
        f'  -> {question.answer}',
    ]
    if question.spans:
        spans = ', '.join(f'{a} to {b}' for a, b in question.spans)
        lines.append(f'     frames {spans}')
    if question.instances:
        lines.append(f'     objects {", ".join(one[:8] for one in question.instances)}')
    return '\n'.join(lines)


def register(app):
    """Add the command to the `mta-train` application."""
    app.command('questions')(questions_command)

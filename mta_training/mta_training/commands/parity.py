"""`mta-train ros-parity`: what the node says of a bag against the pipeline without ROS."""

from pathlib import Path
from typing import Annotated

import typer

from mta_perception.commands.cli import LanguageDirectory
from mta_perception.directory_lock import sole_writer
from mta_training.commands.paths import check_paths

TOLERANCE = 1e-3  # of every metric
BOX_TOLERANCE = 1e-3  # m


def ros_parity(
    bag: Annotated[Path, typer.Option(help='Bag made by `convert` or `import-pandaset`.')],
    out: Annotated[
        Path, typer.Option(file_okay=False, help='Folder for recording and logs; new or empty.')
    ],
    model: Annotated[
        str, typer.Option(help='Model directory, or name of a shipped one.')
    ] = 'nano',
    frames: Annotated[int, typer.Option(min=2, help='Only the first keyframes of the bag.')] = 20,
    rate: Annotated[
        float,
        typer.Option(min=0.01, max=10.0, help='Speed; slow enough that the node keeps up.'),
    ] = 0.5,
    language_directory: LanguageDirectory = None,
):
    """Play a bag's keyframes through the real node and compare with the pipeline without ROS.

    Boxes, scores, sentences and metrics must be the same within 1e-3; else it ends with code 1.
    """
    from rich.console import Console
    from rich.table import Table

    from mta_perception.runtime.speech import LanguageSettings
    from mta_perception.share import model_directory
    from mta_training.evaluation.ros_parity import ros_parity as compare

    check_paths(bags=(bag,))
    with sole_writer(out):
        if out.exists() and any(out.iterdir()):
            raise typer.BadParameter(f'--out {out} is not empty; name a new folder.')
        out.mkdir(parents=True, exist_ok=True)
        language = LanguageSettings(str(language_directory or ''))
        found = compare(bag, model_directory(model), out, frames, rate, language)
    table = Table('', 'node', 'without ROS', title=f'{found.compared} of {found.frames} keyframes')
    for name, (node, alone) in found.metrics.items():
        table.add_row(name, f'{node:.4f}', f'{alone:.4f}')
    console = Console()
    console.print(table)
    console.print(
        f'{found.boxes} boxes differ by at most {found.box_difference:.1e}, scores by '
        f'{found.score_difference:.1e}; {found.sentences_equal} of {found.sentences} sentences '
        'are the same'
    )
    complaint = differs(found)
    if complaint:
        raise ValueError(f'node and pipeline differ: {complaint}')


def differs(found):
    """What differs by more than the tolerances, '' where nothing does."""
    complaints = [
        f'{name} is {node:.4f} and {alone:.4f}'
        for name, (node, alone) in found.metrics.items()
        if not abs(node - alone) <= TOLERANCE
    ]
    if not max(found.box_difference, found.score_difference) <= BOX_TOLERANCE:
        complaints.append(f'boxes by {found.box_difference:.1e}')
    if found.sentences_equal < found.sentences:
        complaints.append(f'{found.sentences - found.sentences_equal} sentences')
    return ', '.join(complaints)


def register(app):
    """Add the command to the `mta-train` application."""
    app.command('ros-parity')(ros_parity)

"""`mta-train`: what one does offline.  Exit codes: 0 done, 1 failed, 2 wrong usage.

Each command imports what it needs when it runs: all but `train` and `export` work without torch.
"""

from importlib import metadata
import math
import os
from pathlib import Path
import sys
from typing import Annotated, Literal, Optional

import typer

from mta_perception.foreign_text import printable
from mta_training.commands import evaluation, parity, questions, tpo, training

MOST_SAID = 4000  # characters of an error
_INTERRUPTED = 130  # what typer makes of Ctrl-C
SCENE_S = 20.0  # length of a synthetic scene, that of nuScenes'
# What only `make train-env` installs.
_TRAINING_PACKAGES = (
    'torch',
    'torchvision',
    'transformers',
    'onnx',
    'onnxscript',
    'pycocoevalcap',
)

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

Workers = Annotated[
    Optional[int], typer.Option(min=1, help='Processes; one per core unless given.')
]
Version = Annotated[
    Optional[str],
    typer.Option(help='Folder with the tables, e.g. v1.0-mini; the only one there unless given.'),
]


def _print_version(asked: bool):
    if asked:
        print(f'mta-train {metadata.version("mta_training")}')
        raise typer.Exit


def _print_source_version(asked: bool):
    if asked:
        from mta_training.synth.version import source_version

        print(source_version())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            '--version', callback=_print_version, is_eager=True, help='Print the version and end.'
        ),
    ] = False,
):
    """Synthetic world, bags, training, evaluation and export."""


@app.command()
def synth(
    out: Annotated[Path, typer.Option(file_okay=False, help='Folder of the dataset.')],
    scenes: Annotated[Optional[int], typer.Option(min=1, help='Number of drives of 20 s.')] = None,
    minutes: Annotated[
        Optional[float], typer.Option(min=0.01, help='Minutes of driving, instead of --scenes.')
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help='The same seed gives the same bytes.')] = 0,
    seconds: Annotated[
        float, typer.Option(min=1.0, max=SCENE_S, help='Length of a drive in seconds.')
    ] = SCENE_S,
    width: Annotated[
        int,
        typer.Option(min=64, max=1600, help='Width of the images in pixels, a multiple of 16.'),
    ] = 1600,
    sweeps: Annotated[
        bool, typer.Option(help='Images at 12 Hz; without, keyframes (2 Hz) only.')
    ] = True,
    lidar: Annotated[bool, typer.Option(help='Write the points of the keyframes.')] = True,
    world: Annotated[
        Literal['level', 'street'],
        typer.Option(
            help='street: the body leans, rigs, walls, light and cameras differ, clutter stands '
            'about; level: none of it.'
        ),
    ] = 'level',
    version: Annotated[
        str, typer.Option(help='Name of the folder with the tables.')
    ] = 'v1.0-mini',
    workers: Workers = None,
    print_version: Annotated[
        bool,
        typer.Option(
            '--print-version',
            callback=_print_source_version,
            is_eager=True,
            help='Print what drives and their bags depend on beside these options, and end.',
        ),
    ] = False,
):
    """Draw drives through a synthetic town as a nuScenes v1.0 dataset; run again, it goes on."""
    if (scenes is None) == (minutes is None):
        raise typer.BadParameter('give one of --scenes and --minutes')
    if width % 16:
        raise typer.BadParameter(f'--width {width} is no multiple of 16; try {width // 16 * 16}')
    from mta_training.synth.dataset.generate import synthesise

    count = scenes or math.ceil(minutes * 60.0 / seconds)
    synthesise(
        out,
        count,
        seed,
        workers=workers,
        image_size=(width, width * 9 // 16),
        sweeps=sweeps,
        seconds=seconds,
        lidar=lidar,
        world=world,
        version=version,
    )
    print(f'{count} scenes in {out}')


@app.command()
def convert(
    dataset: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help='Root folder of a dataset in the nuScenes format.'
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help='Folder for the bags, one a scene.')],
    version: Version = None,
    scene: Annotated[
        Optional[list[str]], typer.Option(help='Only the scene of this name; give it repeatedly.')
    ] = None,
    workers: Workers = None,
    strict: Annotated[
        bool, typer.Option('--strict', help='End at the first image that is lost or damaged.')
    ] = False,
    follow_links: Annotated[
        bool,
        typer.Option(
            '--follow-links', help='Links may lead out of the dataset: you made them yourself.'
        ),
    ] = False,
):
    """Turn a nuScenes-format dataset into bags; run again, it goes on where it stopped.

    Images that are not on the disk are left out and counted, unless --strict.
    """
    from mta_training.conversion.convert import convert as convert_dataset

    bags = convert_dataset(
        dataset,
        out,
        version=version,
        scenes=scene,
        workers=workers,
        strict=strict,
        follow_links=follow_links,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(f'{len(bags)} bags in {out}')


@app.command('import-pandaset')
def import_pandaset_command(
    directory: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help='A PandaSet sequence, or many.'),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help='Root folder of the dataset made.')],
):
    """Turn PandaSet sequences into a dataset in the nuScenes format, captions included."""
    from mta_training.conversion.pandaset import import_pandaset

    names = import_pandaset(directory, out)
    print(f'{len(names)} scenes in {out}')


@app.command()
def inspect(
    bag: Annotated[
        Path,
        typer.Argument(exists=True, help='Bag of one scene: rosbag2 directory, or one .mcap.'),
    ],
):
    """Print what is inside a bag: topics, rates, QoS, scene, objects, a caption."""
    from mta_training.conversion.bag_tables import inspect_bag

    inspect_bag(bag)


evaluation.register(app)
parity.register(app)
questions.register(app)
training.register(app)
tpo.register(app)


def main():
    """Entry point: expected failures become one line; MTA_DEBUG=1 shows where they came from."""
    try:
        app()
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            print('mta-train: interrupted', file=sys.stderr)
        raise
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if os.environ.get('MTA_DEBUG'):
            raise
        if isinstance(error, ImportError) and error.name in _TRAINING_PACKAGES:
            print(
                f'mta-train: this command needs {error.name}, which is not installed; run '
                '`make train-env`',
                file=sys.stderr,
            )
            sys.exit(2)
        print(printable(f'mta-train: {error}', MOST_SAID), file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    main()

"""`mta`: what one does with the vehicle side.  Exit codes: 0 done, 1 failed, 2 wrong usage.

Each command imports what it needs when it runs, so that `mta --help` is quick and `mta doctor`
works on a broken installation.
"""

from importlib import metadata
import os
from pathlib import Path
import sys
from typing import Annotated, Optional

import typer

from mta_perception.foreign_text import printable

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

MOST_SAID = 4000  # characters of an error
_INTERRUPTED = 130  # what typer makes of Ctrl-C

Bag = Annotated[
    Path, typer.Argument(exists=True, help='Bag of one scene: rosbag2 directory, or one .mcap.')
]
Model = Annotated[str, typer.Option(help='Name of a model under models/, or a path to one.')]
LanguageDirectory = Annotated[
    Optional[Path],
    typer.Option(
        file_okay=False,
        help='Weights of the language model, where the model speaks with a foreign one.',
    ),
]
Rate = Annotated[float, typer.Option(min=0.05, max=10.0, help='Replay speed; 1 = real time.')]


def _print_version(asked: bool) -> None:
    if asked:
        print(f'mta {metadata.version("mta_perception")}')
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            '--version', callback=_print_version, is_eager=True, help='Print the version and end.'
        ),
    ] = False,
) -> None:
    """Six cameras in, 3D boxes and sentences out."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help='Directory for summary.json, demo.mp4 and the rest.')],
    scene: Annotated[
        Optional[Path],
        typer.Option(exists=True, help='A bag to play instead of a synthetic drive.'),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help='Seed of the synthetic drive.')] = 7,
    seconds: Annotated[
        float, typer.Option(min=2.0, max=20.0, help='Length of the synthetic drive in seconds.')
    ] = 20.0,
    model: Model = 'nano',
    rate: Rate = 1.0,
    language_directory: LanguageDirectory = None,
    captions: Annotated[
        bool, typer.Option('--captions/--no-captions', help='Whether it says sentences.')
    ] = True,
) -> None:
    """A synthetic drive through player, node and recorder over DDS, measured and filmed."""
    from mta_perception.commands.demo import run_demo
    from mta_perception.runtime.speech import LanguageSettings

    run_demo(
        out,
        scene=scene,
        seed=seed,
        seconds=seconds,
        model=model,
        rate=rate,
        captions=captions,
        language=LanguageSettings(str(language_directory or '')),
    )


@app.command()
def play(
    bag: Bag,
    rate: Rate = 1.0,
    loop: Annotated[bool, typer.Option('--loop', help='Begin again at the end.')] = False,
    start: Annotated[float, typer.Option(min=0.0, help='Seconds of the bag to skip.')] = 0.0,
    topics: Annotated[
        Optional[list[str]], typer.Option(help='Only these topics; give it repeatedly.')
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0.0, help='Seconds to wait for subscribers; 0 = do not.')
    ] = 30.0,
    on_enter: Annotated[
        bool, typer.Option('--on-enter', help='Begin when Enter is pressed: all may get ready.')
    ] = False,
    delay: Annotated[
        float, typer.Option(min=0.0, help='Seconds to wait before the first message.')
    ] = 0.0,
    faults: Annotated[
        Optional[str],
        typer.Option(
            help='Faults to put into the messages: a YAML file, or the name of a shipped one '
            '(docs/safety.md).',
        ),
    ] = None,
    wait_for: Annotated[
        Optional[list[str]],
        typer.Option(
            help='Node that must have subscribed before it begins, within --wait; a recorder, say '
            '(rosbag2_recorder). May be repeated.'
        ),
    ] = None,
) -> None:
    """Replay a bag in real time: latched topics first, then all others and /clock."""
    from mta_perception.ros.player import play_bag

    play_bag(
        bag,
        rate=rate,
        loop=loop,
        start_s=start,
        topics=topics,
        wait_s=wait,
        on_enter=on_enter,
        delay_s=delay,
        wait_for=wait_for or (),
        faults=faults,
    )


@app.command()
def rescue(
    bag: Annotated[
        Path, typer.Argument(exists=True, help='Damaged bag: its directory, a .mcap or a .db3.')
    ],
    out: Annotated[Path, typer.Option(help='Directory of the new bag; must not exist.')],
) -> None:
    """Write what is whole of a damaged bag, or of one without metadata.yaml, as a new one."""
    from mta_perception.bags.rescue import rescue as rescue_bag

    found = rescue_bag(bag, out)
    for note in found.notes:
        print(note)
    print(f'{found.messages} messages of {found.topics} topics in {out}')


@app.command()
def render(
    bag: Bag,
    out: Annotated[Path, typer.Option(help='Directory for frame_*.png and demo.mp4.')],
    recorded: Annotated[
        Optional[Path],
        typer.Option(
            exists=True, file_okay=False, help='Bag with recorded detections and captions.'
        ),
    ] = None,
    fps: Annotated[float, typer.Option(min=0.5, max=60.0, help='Pictures a second.')] = 10.0,
    width: Annotated[
        int, typer.Option(min=480, max=3840, help='Width of a picture in pixels.')
    ] = 1600,
) -> None:
    """Draw a bag's ground truth, and what a node said about it, without ROS."""
    from mta_perception.drawing.film import film
    from mta_perception.progress import Progress

    with Progress('drawing, pictures') as progress:
        written = film(
            bag, out, recorded=recorded, fps=fps, width=width, on_progress=progress.reached
        )
    print(f'{written.frames} pictures -> {written.video}, {len(written.stills)} stills in {out}')


@app.command()
def ask(
    text: Annotated[str, typer.Argument(help='The question.')],
    node: Annotated[str, typer.Option(help='Full name of the node.')] = '/mta_perception',
    timeout: Annotated[float, typer.Option(min=0.1, help='Seconds to wait for the node.')] = 10.0,
    bag: Annotated[
        Optional[Path],
        typer.Option(exists=True, help='Ask about this bag instead, without a node.'),
    ] = None,
    model: Model = 'nano',
    at: Annotated[
        Optional[float],
        typer.Option(min=0.0, help='Moment of the bag in seconds; its end unless given.'),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(dir_okay=False, help='Picture of the answer, with --bag.')
    ] = None,
) -> None:
    """Ask the running node (service ~/ask), or a bag, in words: docs/ask.md."""
    from mta_perception.commands.ask_bag import answer_lines, ask_bag, write_picture

    if bag is None and (out is not None or at is not None):
        raise typer.BadParameter('--out and --at are for --bag')
    if bag is not None:
        asked = ask_bag(bag, model, text, at)
        found, half_extent_m = asked.answer, asked.manifest.bev.half_extent_m
        if out is not None:
            write_picture(text, asked, out)
        lines = answer_lines(found, half_extent_m)
        success = found.success
    else:
        from mta_perception.ros.ask import answer_of, ask_node

        response = ask_node(text, node, timeout)
        success = bool(response.success)
        lines = answer_lines(*answer_of(response)) if success else [response.message]
    print('\n'.join(lines))
    if not success:
        raise typer.Exit(1)


@app.command()
def bench(
    model: Model = 'nano',
    only: Annotated[
        Optional[list[str]], typer.Option(help='Only this benchmark; give it repeatedly.')
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help='Write the numbers there, too (JSON).')
    ] = None,
    quick: Annotated[
        bool, typer.Option('--quick', help='Few repeats, 20 s of driving, no slow ones.')
    ] = False,
    minutes: Annotated[
        Optional[float],
        typer.Option(help='Of driving with each kind of image, instead of 10.', min=0.1),
    ] = None,
    large: Annotated[
        bool, typer.Option('--large', help='A language model of 1B, too: 8 GB of memory.')
    ] = False,
) -> None:
    """Measure this machine: images, synchroniser, networks, captions, node at 12 Hz, memory."""
    from mta_perception.commands.benchmarks import run_benchmarks

    run_benchmarks(model, only, out, quick, minutes, large)


@app.command()
def doctor(
    model: Model = 'nano',
    bag: Annotated[
        Optional[Path],
        typer.Option(exists=True, help='A bag that is to be played, too.'),
    ] = None,
) -> None:
    """Check this installation and say what to do about what is wrong."""
    from mta_perception.commands.doctor import examine

    all_well = True
    for finding in examine(model, bag):  # printed as they come: a later check may take long
        print(f'{"ok  " if finding.ok else "BAD "} {finding.name}: {finding.found}', flush=True)
        if not finding.ok:
            print(f'      -> {finding.remedy}', flush=True)
        all_well = all_well and finding.ok
    if not all_well:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: expected failures become one line; MTA_DEBUG=1 shows where they came from."""
    try:
        app()
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            print('mta: interrupted', file=sys.stderr)
        raise
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if os.environ.get('MTA_DEBUG'):
            raise
        print(printable(f'mta: {error}', MOST_SAID), file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    main()

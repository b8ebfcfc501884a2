"""`mta-train train`, `ablate`, `export`, `import-bevformer`: the commands that need torch, which
loads only when they run."""

from pathlib import Path
import shutil
from typing import Annotated, Optional

import typer

from mta_perception.directory_lock import sole_writer
from mta_training.commands.paths import check_paths


def train_command(
    bags: Annotated[
        Optional[Path], typer.Option('--bags', help='Directory of bags made by `convert`.')
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option('--out', help='Run directory: checkpoints, log, curves, pictures.'),
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            '--config', help='nano, nano_joint, paper, or a YAML file (docs/training.md).'
        ),
    ] = 'nano',
    minutes: Annotated[
        Optional[float],
        typer.Option(help="Length by the clock, instead of the config's.", min=0.01),
    ] = None,
    steps: Annotated[
        Optional[int],
        typer.Option(help="Length in optimiser steps, instead of the config's.", min=1),
    ] = None,
    start: Annotated[
        Optional[Path], typer.Option(help='Run directory whose detector this one starts from.')
    ] = None,
    world: Annotated[
        Optional[int],
        typer.Option(
            '--world',
            help='Instead of --bags: draw scenes of the world with this seed while training.',
            min=0,
        ),
    ] = None,
    draw_workers: Annotated[
        int,
        typer.Option(help='Processes that draw; 0 = one less than there are cores.', min=0),
    ] = 0,
    val_bags: Annotated[
        Optional[Path],
        typer.Option(help='Directory of bags to judge on, instead of some of --bags.'),
    ] = None,
    val_scenes: Annotated[
        Optional[list[str]],
        typer.Option(
            help='Bag to judge on, never trained on; may be repeated. Default: the bags whose '
            'split is val.'
        ),
    ] = None,
    cache: Annotated[
        Optional[Path],
        typer.Option(help='Where decoded images are kept, 2 MB a frame. Default: <out>/cache.'),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            help='Data-parallel processes on this machine; for several machines use '
            '`accelerate launch`.',
            min=1,
        ),
    ] = 1,
    threads: Annotated[
        int, typer.Option(help='Threads of each process; 0 = share the cores.', min=0)
    ] = 0,
    seed: Annotated[Optional[int], typer.Option(help='Random seed.')] = None,
    resume: Annotated[
        bool, typer.Option('--resume', help='Go on from the last checkpoint.')
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            '--smoke',
            help='Everything once, with a toy network on its own few bags, in '
            'runs/smoke: does it run here?',
        ),
    ] = False,
):
    """Train detector and captioner on bags; Ctrl-C loses at most the time since a checkpoint."""
    check_paths(bags=(bags, val_bags), starts=(start,), config=config)
    if smoke:
        from mta_training.commands.smoke import FOLDER, smoke_bags

        config, bags = 'smoke', bags or smoke_bags()
        if out is None:
            out = FOLDER / 'run'
            if not resume:
                with sole_writer(out):
                    shutil.rmtree(out, ignore_errors=True)
    if world is not None and (bags or processes > 1):
        raise typer.BadParameter('--world draws its own scenes, in one process; leave --bags out')
    if (bags is None and world is None) or out is None:
        raise typer.BadParameter('--bags (or --world) and --out are needed (or --smoke)')
    if minutes is not None and steps is not None:
        raise typer.BadParameter('give one of --minutes and --steps')
    from mta_training.runs.recipe import Recipe
    from mta_training.runs.run_directory import fitted

    changes = {} if world is None else {'world': {'seed': world}}
    if minutes is not None or steps is not None:
        changes['schedule'] = {'minutes': minutes} if steps is None else {'steps': steps}
    if start is not None:
        changes['start'] = str(start)
    if seed is not None:
        changes['seed'] = seed
    recipe = fitted(Recipe.load(config).changed(changes))
    if world is not None:
        from mta_training.training.world_training import train_on_world

        train_on_world(val_bags, out, recipe, resume=resume, threads=threads, workers=draw_workers)
        return
    from mta_training.training import bag_training

    training, held_out = bag_training.split_bags(bags, val_scenes, val_bags)
    bag_training.train_on_bags(
        training,
        held_out,
        out,
        recipe,
        cache=cache or out / 'cache',
        resume=resume,
        processes=processes,
        threads=threads,
        text_cache=cache or out / 'cache',
    )


def ablate_command(
    table: Annotated[
        list[str],
        typer.Option(
            '--table',
            help='1 to 7 (of the paper), balance, noise, backbone, oracle, alignment, cost, '
            'domain, or all; may be repeated.',
        ),
    ],
    bags: Annotated[
        Optional[Path], typer.Option('--bags', help='Directory of bags made by `convert`.')
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option('--out', help='Tables, and all runs below it; the same again goes on.'),
    ] = None,
    config: Annotated[
        str, typer.Option('--config', help='Recipe of the full method; rows change it.')
    ] = 'nano_joint',
    start: Annotated[
        Optional[Path], typer.Option(help='Run directory whose detector all runs start from.')
    ] = None,
    steps: Annotated[
        Optional[int],
        typer.Option(help="Optimiser steps of a run, instead of the config's.", min=1),
    ] = None,
    seeds: Annotated[
        Optional[int], typer.Option(help='Runs of each row. Default: 3.', min=1)
    ] = None,
    frames: Annotated[
        Optional[int],
        typer.Option(help='Keyframes of each held-out bag that are judged. Default: 20.', min=1),
    ] = None,
    val_bags: Annotated[
        Optional[Path],
        typer.Option(help='Directory of bags to judge on, instead of some of --bags.'),
    ] = None,
    val_scenes: Annotated[
        Optional[list[str]],
        typer.Option(help='Bag to judge on; may be repeated. Default: those whose split is val.'),
    ] = None,
    cache: Annotated[
        Optional[Path], typer.Option(help='Where decoded images are kept. Default: <out>/cache.')
    ] = None,
    workers: Annotated[
        int,
        typer.Option(help='Runs at a time on a machine without GPUs; with GPUs one each.', min=1),
    ] = 2,
    smoke: Annotated[
        bool,
        typer.Option('--smoke', help='A toy network, a few steps, in runs/smoke: does it run?'),
    ] = False,
):
    """Train and judge every row of a table with several seeds; write it as Markdown and JSON."""
    from mta_training.ablation.rows import TABLES

    check_paths(bags=(bags, val_bags), starts=(start,), config=config)
    unknown = sorted(set(table) - {*TABLES, 'all'})
    if unknown:
        raise typer.BadParameter(f'--table {unknown[0]}: choose one of {", ".join(TABLES)}, all')
    if smoke:
        from mta_training.commands.smoke import FOLDER, smoke_bags

        config, bags, out = 'smoke', bags or smoke_bags(), out or FOLDER / 'ablate'
        steps, seeds, frames = steps or 20, seeds or 2, frames or 3
        if start is None and (FOLDER / 'run' / 'last.pt').is_file():
            start = FOLDER / 'run'  # what `train --smoke` made
    if bags is None or out is None:
        raise typer.BadParameter('--bags and --out are needed (or --smoke)')
    from mta_training.ablation import tables
    from mta_training.runs.recipe import Recipe
    from mta_training.runs.run_directory import fitted
    from mta_training.training.bag_training import split_bags

    changes = {'schedule': {'steps': steps}} if steps else {}
    if start is not None:
        changes['start'] = str(start.resolve())
    training, held_out = split_bags(bags, val_scenes, val_bags)
    names = list(TABLES) if 'all' in table else list(dict.fromkeys(table))
    for path in tables.run_tables(
        names,
        fitted(Recipe.load(config).changed(changes)),
        training,
        held_out,
        out,
        seeds=seeds or 3,
        frames=frames or 20,
        cache=cache,
        workers=workers,
    ):
        typer.echo(path.read_text(encoding='utf-8'))
        typer.echo(f'written: {path}')


def export_command(
    run: Annotated[
        Path,
        typer.Option('--run', help='Run directory of `train`, or one of `import-bevformer`.'),
    ],
    out: Annotated[Path, typer.Option('--out', help='Model directory, e.g. models/nano.')],
    checkpoint: Annotated[str, typer.Option(help='last or best.')] = 'last',
    eval_bags: Annotated[
        Optional[Path],
        typer.Option(help='Bags nobody trained on: measures the exported files on them.'),
    ] = None,
    eval_frames: Annotated[int, typer.Option(help='Frames of each of them.', min=1)] = 20,
    int8: Annotated[
        bool, typer.Option('--int8', help='Detector in 8 bits: half the CPU time.')
    ] = False,
    keep_fp32: Annotated[
        bool,
        typer.Option('--keep-fp32', help='With --int8: detector_fp32.onnx beside it, for GPUs.'),
    ] = False,
    float_layers: Annotated[
        Optional[str],
        typer.Option(
            help='With --int8: expression for the layers that stay float32; `int8-layers` says '
            'what each of them costs.'
        ),
    ] = None,
    calibration_bags: Annotated[
        Optional[Path],
        typer.Option(
            help='Training bags on which --int8 measures the ranges of activations; a run of '
            '`train --world` has its own world for that.'
        ),
    ] = None,
):
    """Write ONNX graphs, tokeniser, manifest and model card."""
    if calibration_bags is not None and not int8:
        raise typer.BadParameter('--calibration-bags is for --int8')
    if keep_fp32 and not int8:
        raise typer.BadParameter('--keep-fp32 is for --int8: without it detector.onnx is fp32')
    if float_layers is not None and not int8:
        raise typer.BadParameter('--float-layers is for --int8')
    published = (run / 'card.yaml').is_file()  # of `import-bevformer`
    check_paths(bags=(eval_bags, calibration_bags), runs=[] if published else [(run, checkpoint)])
    from mta_training.export import model_directory

    measured = model_directory.export(
        run,
        out,
        checkpoint=checkpoint,
        eval_bags=eval_bags,
        eval_frames=eval_frames,
        int8=int8,
        calibration_bags=calibration_bags,
        keep_fp32=keep_fp32,
        float_layers=float_layers,
    )
    for name, value in measured.items():
        typer.echo(f'{name}: {value}')


def int8_layers_command(
    model: Annotated[Path, typer.Option('--model', help='Model directory with an int8 detector.')],
    bags: Annotated[Path, typer.Option('--bags', help='Bags whose frames are computed.')],
    frames: Annotated[int, typer.Option(help='How many of them, in all.', min=1)] = 3,
):
    """Say what rounding its activations costs in each layer of an int8 detector, the worst first:
    the part of the BEV by which it differs where this layer alone is int8."""
    check_paths(bags=(bags,))
    from mta_perception.runtime.manifest import Manifest
    from mta_training.export.quantise import calibration_frames, scenes_of_bags
    from mta_training.export.sensitivity import layer_costs

    manifest = Manifest.load(model)
    if manifest.precision != 'int8':
        raise ValueError(f'{model}: its detector is {manifest.precision}, expected an int8 one.')
    scenes = scenes_of_bags(bags, manifest.image, frames)
    inputs = calibration_frames(manifest, scenes, frames)
    costs = layer_costs(manifest.path('detector.onnx'), inputs)
    typer.echo(f'{costs.whole:.4f} all layers together')
    for layer in costs.layers:
        typer.echo(f'{layer.error:.4f} {layer.name} {layer.weight}')


def import_bevformer_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help='Published .pth: tiny, small or base.'),
    ],
    out: Annotated[
        Path,
        typer.Option('--out', file_okay=False, help='Directory for bevformer.pt and card.yaml.'),
    ],
    before_july_2023: Annotated[
        bool,
        typer.Option(
            '--before-july-2023',
            help='Weights older than upstream commit 2f37d0d: both '
            'references of temporal attention shift.',
        ),
    ] = False,
):
    """Turn a published BEVFormer checkpoint into our format; it is read as data, never run."""
    from mta_training.bevformer import checkpoint as published

    card = published.import_checkpoint(checkpoint, out, shift_both_references=before_july_2023)
    for line in published.summary(card):
        typer.echo(line)
    typer.echo(f'written: {out / published.WEIGHTS}, {out / published.CARD}')
    typer.echo(f'a model for the node: mta-train export --run {out} --out models/{out.name}')


def rebuild_command(
    model: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help='Model directory, e.g. models/nano.'),
    ],
    out: Annotated[Path, typer.Option('--out', help='Run directory that is made.')],
    config: Annotated[
        str, typer.Option('--config', help='Recipe that the model was trained with.')
    ] = 'street',
):
    """Make a run directory out of a model, to train on from it (`train --start`)."""
    check_paths(config=config)
    from mta_training.export.rebuilt import rebuild
    from mta_training.runs.recipe import Recipe

    found = rebuild(model, Recipe.load(config), out)
    typer.echo(
        f'written: {out}. Its BEV differs from the graph by {found.bev:.3f} of its spread '
        f'({found.frames} frames).'
    )


def register(app):
    """Add the commands to the `mta-train` application."""
    app.command('train')(train_command)
    app.command('ablate')(ablate_command)
    app.command('export')(export_command)
    app.command('rebuild')(rebuild_command)
    app.command('int8-layers')(int8_layers_command)
    app.command('import-bevformer')(import_bevformer_command)

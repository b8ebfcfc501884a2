"""`mta-train tpo`, `tpo-eval`, `tpo-table`: teach a model to be asked (docs/tpo.md)."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from mta_training.commands.paths import check_paths


def tpo_command(
    stage: Annotated[
        int,
        typer.Option(
            '--stage',
            help='1 assignment, 2 heads, 3 everything together; those before it are run first '
            'where they are missing. 0: the conversation that TPO starts from.',
            min=0,
            max=3,
        ),
    ],
    bags: Annotated[Path, typer.Option('--bags', help='Directory of bags made by `convert`.')],
    out: Annotated[Path, typer.Option('--out', help='Run directory.')],
    config: Annotated[
        str, typer.Option('--config', help='tpo_nano, tpo_paper, tpo_smoke, or a YAML file.')
    ] = 'tpo_nano',
    model: Annotated[
        Optional[Path],
        typer.Option('--model', help='Model directory or run whose detector sees the scenes.'),
    ] = None,
    val_bags: Annotated[
        Optional[Path],
        typer.Option(help='Directory of bags, never trained on, that judge each stage.'),
    ] = None,
    cache: Annotated[
        Optional[Path], typer.Option(help='Where what was seen is kept. Default: <out>/cache.')
    ] = None,
    steps: Annotated[
        Optional[int], typer.Option(help="Length of this stage, instead of the config's.", min=1)
    ] = None,
    minutes: Annotated[
        Optional[float], typer.Option(help='Length of this stage by the clock.', min=0.01)
    ] = None,
    threads: Annotated[int, typer.Option(help='Threads; 0 = as torch likes.', min=0)] = 0,
    seed: Annotated[Optional[int], typer.Option(help='Random seed.')] = None,
    resume: Annotated[
        bool, typer.Option('--resume', help='Go on from the last checkpoint of this stage.')
    ] = False,
):
    """Train one stage of Task Preference Optimization on what a detector sees of bags."""
    check_paths(bags=(bags, val_bags))
    from mta_perception.share import model_directory
    from mta_training.tpo.recipe import TpoRecipe
    from mta_training.tpo.run import train

    recipe = TpoRecipe.load(config)
    if seed is not None:
        recipe = TpoRecipe.from_dict({**recipe.to_dict(), 'seed': seed})
    train(
        bags,
        out,
        recipe,
        stage,
        model or model_directory('nano'),
        val_bags=val_bags,
        cache=cache,
        resume=resume,
        steps=steps,
        minutes=minutes,
        threads=threads,
        log_line=typer.echo,
    )


def tpo_eval_command(
    run: Annotated[Path, typer.Option('--run', help='Run directory of `tpo`.')],
    bags: Annotated[Path, typer.Option('--bags', help='Directory of bags that judge.')],
    out: Annotated[
        Optional[Path], typer.Option('--out', help='Default: the folder of the stage.')
    ] = None,
    stage: Annotated[
        Optional[int], typer.Option(help='Judged stage. Default: the last one.', min=0, max=3)
    ] = None,
    model: Annotated[
        Optional[Path], typer.Option('--model', help="Detector. Default: the run's.")
    ] = None,
    per_frame: Annotated[
        float, typer.Option(help='Questions for each frame, on average.', min=0.01, max=100.0)
    ] = 1.0,
    cache: Annotated[
        Optional[Path], typer.Option(help='Where what was seen is kept. Default: <run>/cache.')
    ] = None,
    threads: Annotated[int, typer.Option(help='Threads; 0 = as torch likes.', min=0)] = 0,
):
    """Ask a trained model about other bags: metrics.json, answers.jsonl, answers.png."""
    check_paths(bags=(bags,))
    import torch

    from mta_training.tpo.run import judge_run

    if threads:
        torch.set_num_threads(threads)
    for line in judge_run(run, bags, out, stage, model, per_frame, cache):
        typer.echo(line)


def tpo_table_command(
    bags: Annotated[Path, typer.Option('--bags', help='Directory of bags that train.')],
    val_bags: Annotated[Path, typer.Option(help='Directory of other bags, that judge.')],
    out: Annotated[
        Path, typer.Option('--out', help='The table, and all runs below it; again it goes on.')
    ],
    config: Annotated[
        str, typer.Option('--config', help='Recipe of the full method; rows change it.')
    ] = 'tpo_nano',
    model: Annotated[
        Optional[Path],
        typer.Option('--model', help='Model directory or run whose detector sees the scenes.'),
    ] = None,
    row: Annotated[
        Optional[list[str]], typer.Option(help='Only this row, by its name; may be repeated.')
    ] = None,
    seeds: Annotated[int, typer.Option(help='Runs of each row.', min=1)] = 2,
    cache: Annotated[
        Optional[Path], typer.Option(help='Where what was seen is kept. Default: <out>/cache.')
    ] = None,
    threads: Annotated[int, typer.Option(help='Threads; 0 = as torch likes.', min=0)] = 0,
):
    """Each head alone, pairs, all, without and with conversation, and what else TPO asks."""
    check_paths(bags=(bags, val_bags))
    import torch

    from mta_perception.share import model_directory
    from mta_training.ablation.tpo_table import run_tpo_table
    from mta_training.tpo.recipe import TpoRecipe

    if threads:
        torch.set_num_threads(threads)
    path = run_tpo_table(
        bags,
        val_bags,
        out,
        TpoRecipe.load(config),
        model or model_directory('nano'),
        seeds=seeds,
        cache=cache,
        rows=row,
        log_line=typer.echo,
    )
    typer.echo(path.read_text(encoding='utf-8'))
    typer.echo(f'written: {path}')


def tpo_export_command(
    run: Annotated[Path, typer.Option('--run', help='Run directory of `tpo`.')],
    out: Annotated[Path, typer.Option('--out', help='Model directory that is made.')],
    model: Annotated[
        Optional[Path],
        typer.Option('--model', help='Model directory with the detector. Default: models/nano.'),
    ] = None,
    stage: Annotated[
        Optional[int], typer.Option(help='Weights after this stage; the last one.', min=0, max=3)
    ] = None,
    float32: Annotated[
        bool, typer.Option('--float32', help='Weights as they are, not in 16 bits: twice as big.')
    ] = False,
):
    """Write a model directory that answers questions: that of --model, and the graphs of a run."""
    from mta_perception.share import model_directory
    from mta_training.export.task_graphs import export_run

    apart, megabytes = export_run(
        run, model or model_directory('nano'), out, stage=stage, half=not float32
    )
    for name, value in apart.items():
        typer.echo(f'{name}: torch and graph differ by {value:.1e}')
    typer.echo(f'{out}: {megabytes:.1f} MB for questions')


def register(app):
    """Add the commands to the `mta-train` application."""
    app.command('tpo')(tpo_command)
    app.command('tpo-eval')(tpo_eval_command)
    app.command('tpo-table')(tpo_table_command)
    app.command('tpo-export')(tpo_export_command)

"""`mta-train eval`: a result file, a model, a training run or what a node said, judged on bags;
or a result file on a nuScenes-format dataset by the devkit itself."""

from contextlib import nullcontext
import json
from pathlib import Path
import sys
from typing import Annotated, Literal, Optional

import typer

from mta_perception.commands.cli import LanguageDirectory
from mta_perception.directory_lock import sole_writer
from mta_training.commands.paths import check_paths


def eval_command(
    official: Annotated[
        Optional[Path],
        typer.Argument(
            metavar='[RESULTS]',
            exists=True,
            dir_okay=False,
            help='Result file for the official evaluation; needs --dataset and --split.',
        ),
    ] = None,
    results: Annotated[
        Optional[Path],
        typer.Option(dir_okay=False, help='nuScenes result file; a box may have a "caption".'),
    ] = None,
    model: Annotated[
        Optional[Path], typer.Option(file_okay=False, help='Model directory of `export`.')
    ] = None,
    run: Annotated[
        Optional[Path], typer.Option(file_okay=False, help='Run directory of `train`.')
    ] = None,
    recorded: Annotated[
        Optional[Path],
        typer.Option(file_okay=False, help='Bag in which a node was recorded (output_bag).'),
    ] = None,
    bags: Annotated[
        Optional[Path],
        typer.Option(
            file_okay=False, help='Directory of bags made by `convert`; or one of the bags.'
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            file_okay=False,
            help="Folder of the report (with --dataset: of the devkit's metrics_summary.json).",
        ),
    ] = None,
    frames: Annotated[
        Optional[int], typer.Option(min=1, help='Only the first keyframes of each bag.')
    ] = None,
    checkpoint: Annotated[
        Optional[Literal['best', 'last']],
        typer.Option(help='Which one of --run. Default: best, where there is one.'),
    ] = None,
    dataset: Annotated[
        Optional[Path],
        typer.Option(exists=True, file_okay=False, help='Root of the dataset RESULTS is about.'),
    ] = None,
    split: Annotated[
        Optional[str], typer.Option(help='Its split to judge on, e.g. mini_val or synth_val.')
    ] = None,
    version: Annotated[
        Optional[str],
        typer.Option(help='Folder with the tables, e.g. v1.0-mini; the only one unless given.'),
    ] = None,
    beams: Annotated[
        int, typer.Option(min=1, help='Beams of --run when it writes captions; 1 = greedy.')
    ] = 1,
    language_directory: LanguageDirectory = None,
    smoke: Annotated[
        bool, typer.Option('--smoke', help='Judge the run that `train --smoke` made.')
    ] = False,
):
    """Judge boxes and captions: metrics.json, report.md, results.json and plots in --out.

    One of --model, --run, --results and --recorded goes with --bags and --out.  --recorded is
    judged on the bags that were played meanwhile.  RESULTS --dataset --split is the official
    nuScenes detection evaluation alone, printed as JSON.
    """
    if smoke:
        run, bags, out, frames, checkpoint = _smoke(run, bags, out, frames)
    sources = [one for one in (official, results, model, run, recorded) if one is not None]
    if len(sources) != 1:
        raise typer.BadParameter('give one of --model, --run, --results, --recorded and RESULTS')
    if official is not None:
        if dataset is None or split is None:
            raise typer.BadParameter(
                'RESULTS needs --dataset and --split; to judge on bags, give it as --results'
            )
        with sole_writer(out) if out is not None else nullcontext():
            _official(official, dataset, version, split, out)
        return
    if bags is None or out is None or dataset is not None:
        raise typer.BadParameter(
            '--model, --run, --results and --recorded need --bags and --out, and no --dataset'
        )
    if language_directory is not None and model is None:
        raise typer.BadParameter('--language-directory is for --model; a run names its own')
    check_paths(bags=(bags,), runs=[(run, checkpoint)], models=(model,))
    with sole_writer(out):
        _on_bags(
            results,
            model,
            run,
            recorded,
            bags,
            out,
            frames,
            checkpoint,
            beams,
            str(language_directory or ''),
        )


def _smoke(run, bags, out, frames):
    from mta_training.commands.smoke import FOLDER

    run, bags = run or FOLDER / 'run', bags or FOLDER / 'bags'
    if not (run / 'last.pt').is_file():
        raise FileNotFoundError(
            f'{run} holds no run yet; make one with `mta-train train --smoke`.'
        )
    return run, bags, out or FOLDER / 'eval', frames or 3, 'last'


def _official(results, dataset, version, split, out):
    from mta_training.conversion.table_index import check_tables, find_version
    from mta_training.evaluation.nuscenes_metrics import evaluate_dataset

    version = version or find_version(dataset)
    check_tables(dataset, version)
    result = evaluate_dataset(dataset, version, results, split, out)
    print(json.dumps(result, indent=2))
    if 'samples' in result:  # on stderr, so that what is printed stays JSON
        samples = result['samples']
        for line in _uncommon(samples['missing'], samples['foreign'], f'split {split}'):
            print(line, file=sys.stderr)


def _uncommon(missing, foreign, whole):
    """Sentences about samples that are not in both a result file and `whole`."""

    def named(tokens):
        return ', '.join(tokens[:3]) + (' ...' if len(tokens) > 3 else '')

    if missing:
        yield (
            f'not judged: {len(missing)} samples of {whole} that the result file does not have '
            f'({named(missing)}); its numbers are of the others'
        )
    if foreign:
        yield (
            f'not judged: {len(foreign)} samples of the result file that are not in {whole} '
            f'({named(foreign)})'
        )


def _on_bags(
    results, model, run, recorded, bags, out, frames, checkpoint, beams, language_directory
):
    from rich.console import Console

    from mta_perception.bags.scene_bag import SceneBag, find_bags
    from mta_perception.progress import Progress
    from mta_training.evaluation.report import judge, write_report
    from mta_training.evaluation.report_text import terminal_tables

    paths, most = find_bags(bags), frames or sys.maxsize
    more, count = {}, sum(min(most, len(SceneBag(path).samples)) for path in paths)
    if results is not None:
        from mta_training.evaluation.result_files import read_results

        judged, missing, foreign = read_results(results, paths, most)
        more = {'samples_missing': missing, 'samples_foreign': foreign}
    elif model is not None:
        from mta_perception.runtime.speech import LanguageSettings
        from mta_training.evaluation.onnx_frames import judged_frames

        language = LanguageSettings(language_directory)
        progress = Progress('detecting and describing, frames', count)
        judged = list(progress.over(judged_frames(model, paths, most, language=language)))
    elif recorded is not None:
        from mta_training.evaluation.recorded import recorded_frames

        judged, heard = recorded_frames(recorded, paths, most)
        more = {'frames_with_detections': heard}
    else:
        from mta_training.evaluation.torch_frames import predict_run

        progress = Progress('detecting and describing, frames', count)
        judged = list(progress.over(predict_run(run, paths, most, checkpoint, beams=beams)))
    with Progress(f'scoring {len(judged)} frames') as progress:
        result = {**judge(judged), **more}
        written = write_report(result, judged, out)
        progress.update(1.0)
    console = Console()
    for table in terminal_tables(result):
        console.print(table)
    if result['captions'] is None:
        console.print(f'caption metrics: absent, {result["captions_absent"]}')
    if results is not None:
        for line in _uncommon(missing, foreign, 'the bags'):
            print(line)
    if recorded is not None:
        console.print(f'{heard} of {len(judged)} keyframes have a message near them')
    print(f'written: {written[-1]}')


def register(app):
    """Add the command to the `mta-train` application."""
    app.command('eval')(eval_command)

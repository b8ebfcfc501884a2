"""`mta-train tpo-table`: every row through the stages with several seeds, judged, averaged.

Runs lie in `<out>/runs/`, named by what makes them different.  Rows that read the scene alike
begin from one and the same stage 0, so that they differ in what TPO does alone.  One process, one
run after another: what was seen of the scenes is loaded once.  Stopped, it goes on.
"""

import hashlib
import json
from pathlib import Path
import statistics
from typing import NamedTuple

import torch

from mta_perception.atomic_files import write_atomically
from mta_perception.directory_lock import sole_writer
from mta_perception.progress import Progress
from mta_perception.runtime.torch_llama import load_tokenizer
from mta_training.ablation.paired import differences, paired_words, value_at
from mta_training.ablation.tables import markdown, summary
from mta_training.ablation.tpo_rows import ROWS, TABLE
from mta_training.tpo.judged import judge_asker, told
from mta_training.tpo.recipe import TpoRecipe
from mta_training.tpo.run import Eyes, scenes_of, train_stages
from mta_training.tpo.run_files import (
    build_asker,
    is_whole,
    load_asker,
    read_recipe,
    read_stage,
    save_stage,
    stage_folder,
    write_run,
)
from mta_training.tpo.stages import group_of

_SECONDS = 'seconds.json'  # of a run: what its stages took


class _Known(NamedTuple):
    """What all runs share."""

    eyes: Eyes
    scenes: dict  # {name: Asked} that train
    judges: dict  # ... that judge
    bags: list  # where both are


def run_tpo_table(
    bags, held_out, out, recipe, detector, *, seeds=2, cache=None, rows=None, log_line=print
):
    """Make the table; returns its Markdown file.

    bags, held_out  directories of bags that train and that judge
    rows            names of some rows, None = all of them
    """
    out = Path(out)
    chosen = [row for row in ROWS if rows is None or row.name in rows]
    unknown = sorted(set(rows or ()) - {row.name for row in ROWS})
    if unknown:
        names = ', '.join(row.name for row in ROWS)
        raise ValueError(f'row {unknown[0]!r} is not in the table; choose among {names}.')
    if Path(bags).resolve() == Path(held_out).resolve():
        raise ValueError(f'{bags} would train and judge; hold other bags out (--val-bags).')
    with sole_writer(out):
        eyes = Eyes(detector)
        cache, objects = cache or out / 'cache', recipe.asking.objects
        seen = [scenes_of(part, eyes, cache, objects) for part in (bags, held_out)]
        known = _Known(eyes, *seen, [str(Path(part).resolve()) for part in (bags, held_out)])
        metrics = {row.name: [] for row in chosen}
        progress = Progress('runs', seeds * len(chosen))
        # A seed of all rows first: half of the time gives a whole table.
        for seed in range(seeds):
            for row in chosen:
                changed = row.change(_seeded(recipe, recipe.seed + seed))
                metrics[row.name].append(
                    _perform(out / 'runs', changed, row.stage, known, log_line)
                )
                progress.advance()
        return _write(metrics, recipe, out, [len(part) for part in seen])


def _seeded(recipe, seed):
    return TpoRecipe.from_dict({**recipe.to_dict(), 'seed': seed})


def _perform(runs, recipe, stage, known, log_line):
    """Metrics of a row with one seed, with `cost`; trains what is not there yet."""
    base = runs / f'base-{_key(_base_of(recipe).to_dict(), known)}'
    _trained(base, _base_of(recipe), 0, known, log_line)
    if stage == 0:
        return _metrics(base, 0)
    run = runs / _key([recipe.to_dict(), stage], known)
    if not is_whole(read_stage(run, 0)):
        _begin_from(base, run, recipe)
    _trained(run, recipe, stage, known, log_line)
    return _metrics(run, stage)


def _trained(run, recipe, stage, known, log_line):
    """Train and judge a run, unless it is done."""
    if (run / _SECONDS).is_file():
        return
    done = train_stages(
        run, recipe, stage, known.eyes, known.scenes, {}, resume=True, log_line=log_line
    )
    asker, _, _ = load_asker(run, stage)
    folder = stage_folder(run, stage)
    how = {'textual': recipe.textual, 'trained': stage >= 2}
    log_line(told(judge_asker(asker, known.judges, folder, **how)))
    # What an earlier call took for stages it ended is in their logs alone: this is of this call.
    seconds = sum(trained.seconds for trained in done.values())
    write_atomically(run / _SECONDS, json.dumps({'seconds': seconds, 'stages': sorted(done)}))


def _metrics(run, stage):
    metrics = json.loads((stage_folder(run, stage) / 'metrics.json').read_text())
    seconds = json.loads((run / _SECONDS).read_text())['seconds']
    metrics['cost']['train_minutes'] = seconds / 60.0
    return metrics


def _base_of(recipe):
    """What stage 0 depends on: no heads, and none of the later stages' settings."""
    plain = TpoRecipe.tpo_nano()
    values = recipe.to_dict()
    asking = {**values['asking'], 'tasks': plain.to_dict()['asking']['tasks']}
    stages = [values['stages'][0], *plain.to_dict()['stages'][1:]]
    return TpoRecipe.from_dict(
        {**values, 'asking': asking, 'stages': stages, 'detach': False, 'textual': False}
    )


def _key(settings, known):
    """A name from everything that makes a run what it is."""
    names = sorted(known.scenes), sorted(known.judges)
    made_of = json.dumps([settings, known.eyes.identity, known.bags, *names], sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()[:12]


def _begin_from(base, run, recipe):
    """A run directory whose stage 0 is that of another, with heads of its own."""
    _, model, detector = read_recipe(base)
    own_words = not recipe.language_directory
    write_run(run, recipe, model, load_tokenizer(base) if own_words else None, detector)
    torch.manual_seed(recipe.seed)
    asker = build_asker(run, recipe, model)
    before = read_stage(base, 0)
    state = asker.state_dict()
    for name, value in before['asker'].items():
        if group_of(name) in ('connector', 'language', 'lora'):
            state[name] = value
    asker.load_state_dict(state)
    optimizer = torch.optim.AdamW(asker.parameters())
    save_stage(run, 0, asker, optimizer, before['step'], before['seen'], ended=True)


def _write(metrics, recipe, out, scenes):
    rows = TABLE._replace(rows=tuple(row for row in TABLE.rows if row.name in metrics))
    seeds = len(next(iter(metrics.values())))
    asked = statistics.mean(run['questions'] for runs in metrics.values() for run in runs)
    steps = ', '.join(str(stage.steps) for stage in recipe.stages)
    words = [
        f'# {TABLE.title}',
        '',
        f'Recipe {recipe.name}: stages 0 to 3 of {steps} steps on {scenes[0]} scenes. Judged by '
        f'{asked:.0f} questions about {scenes[1]} other scenes. Mean ± standard deviation over '
        f'seeds ({seeds}).',
        TABLE.note,
        '',
        markdown(rows, summary(metrics, TABLE.columns)),
        *paired_words(rows, metrics),
    ]
    path = out / 'table-tpo.md'
    write_atomically(path, '\n'.join(words) + '\n')
    values = {
        row: {
            column: [value_at(run, where) for run in runs]
            for column, (where, _) in TABLE.columns.items()
        }
        for row, runs in metrics.items()
    }
    content = {
        'table': 'tpo',
        'recipe': recipe.to_dict(),
        'seeds': seeds,
        'differences': differences(rows, metrics),
        'rows': values,
    }
    write_atomically(path.with_suffix('.json'), json.dumps(content, indent=1))
    return path

"""Ablations: rows and seeds run in processes, share runs, go on, and are averaged rightly."""

import json
from pathlib import Path
import statistics
import subprocess
import sys

import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from mta_training.ablation import paired, tables
from mta_training.ablation.rows import TABLES, Row, Table
from mta_training.runs.recipe import Recipe

BASES = ('nano_joint', 'mta', 'smoke', 'paper')


@pytest.mark.parametrize('name', TABLES)
def test_every_row_is_a_recipe(name):
    table = TABLES[name]
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names)
    # `balance` asks what nano_joint's own choices do.
    for base in ('nano_joint', 'smoke') if name == 'balance' else BASES:
        recipes = [
            (Recipe.load(base).changed(row.changes), row.only)
            for row in table.rows
            if row.changes is not None
        ]
        # Rows that are one and the same run would compare nothing.
        assert len({(str(recipe), only) for recipe, only in recipes}) == len(recipes)
    for row in table.rows:
        assert len(row.paper) <= len(table.columns)


def test_the_papers_tables_have_its_numbers():
    """Table 4 and the gains that the paper's text names: +4.9 % mAP, +9.2 % CIDEr at 0.5."""
    first, *_, last = TABLES['4'].rows
    columns = list(TABLES['4'].columns)[:4]
    assert columns == ['C@.5', 'B4@.5', 'NDS', 'mAP']
    assert last.paper[3] / first.paper[3] == pytest.approx(1.049, abs=5e-4)
    assert last.paper[0] / first.paper[0] == pytest.approx(1.092, abs=5e-4)
    rare = {row.name: row.paper[1] for row in TABLES['3'].rows}
    assert rare['MTA'] / rare['TOD3Cap-style baseline'] == pytest.approx(1.105, abs=5e-4)


def test_numbers_are_found_by_path():
    metrics = {'captions': {'tod3cap': {'0.5': {'CIDEr': 1.2}}}, 'groups': None}
    assert tables.value_at(metrics, 'captions/tod3cap/0.5/CIDEr') == 1.2
    assert tables.value_at(metrics, 'captions/strict/iou_0.5/CIDEr') is None
    assert tables.value_at(metrics, 'groups/rare') is None


def test_means_and_deviations():
    runs = {'one': [{'a': value} for value in (0.1, 0.2, 0.6)], 'two': [{'a': 0.5}, {'a': None}]}
    result = tables.summary(runs, {'A': ('a', 100)})
    assert result['one']['A'] == pytest.approx((30.0, statistics.stdev([10, 20, 60])))
    assert result['two']['A'] is None
    table = Table('t', {'A': ('a', 100)}, (Row('one', {}, (28.0,)), Row('other', None, (1.5,))))
    text = tables.markdown(table, result)
    assert '| one | 30.0 ± 26.5 [28] |' in text and '| other | - [1.5] |' in text


def test_differences_are_paired_by_seed():
    """Seeds differ by far more than the rows do, and the difference is known all the same."""
    table = Table('t', {'A': ('a', 100)}, (Row('one', {}), Row('paper', None), Row('two', {})))
    base, gain = (0.1, 0.5, 0.9), (0.01, 0.02, 0.03)
    rows = {
        'one': [{'a': value} for value in base],
        'two': [{'a': value + more} for value, more in zip(base, gain)],
    }
    mean, half = paired.differences(table, rows)['two']['A']
    # Student's t of two degrees of freedom, and a standard deviation of one.
    assert mean == pytest.approx(2.0) and half == pytest.approx(4.302653 / 3**0.5)
    assert '| two, less one | +2.0 ± 2.5 |' in paired.paired_words(table, rows)
    assert tables.summary(rows, table.columns)['two']['A'][1] > 30.0
    unknown = {**rows, 'two': [{'a': 0.1}, {'a': None}, {'a': 0.2}]}
    assert paired.differences(table, unknown)['two']['A'] is None
    single = {name: runs[:1] for name, runs in rows.items()}
    assert paired.differences(table, single) == {} and paired.paired_words(table, single) == []


@pytest.mark.parametrize('name', TABLES)
def test_rows_are_compared_with_rows_that_are_there(name):
    rows = {row.name: [{}, {}] for row in TABLES[name].rows if row.changes is not None}
    others = paired.opponents(TABLES[name], rows)
    assert len(others) == len(rows) - 1
    for one, other in others.items():
        if one.startswith('MTA, ') and name in ('noise', 'backbone'):
            assert one.removeprefix('MTA') == other.removeprefix('baseline')


@pytest.fixture(scope='module')
def small_table(bags, tmp_path_factory):
    """Table 1 of a toy on the hand-made bags, one seed: two runs."""
    out = tmp_path_factory.mktemp('ablation')
    recipe = Recipe.load('smoke').changed(
        {'schedule': {'steps': 2}, 'language': {'pretrain_steps': 5}, 'gradient_norms_every': 0}
    )
    arguments = {
        'recipe': recipe,
        'bags': [Path(bags[0])],
        'held_out': [Path(bags[-1])],
        'out': out,
        'seeds': 1,
        'frames': 1,
        'workers': 2,
    }
    return arguments, tables.run_tables(['1'], **arguments)[0]


def test_a_table_is_made_and_its_runs_are_shared(small_table):
    arguments, path = small_table
    text = path.read_text()
    for row in TABLES['1'].rows:
        assert f'| {row.name} |' in text
    values = json.loads(path.with_suffix('.json').read_text())
    trained = {row.name for row in TABLES['1'].rows if row.changes is not None}
    assert set(values['rows']) == trained and len(trained) == 2
    runs = set((arguments['out'] / 'runs').iterdir())
    assert len(runs) == 2
    stamps = {run: (run / 'metrics.json').stat().st_mtime_ns for run in runs}
    # Table 2 has these two rows and one more: that one is trained, nothing is trained again.
    two, _ = tables.run_tables(['2', '1'], **arguments)
    assert ' - |' not in ''.join(
        line for line in two.read_text().splitlines(True) if line.startswith('| MTA')
    )
    assert len(set((arguments['out'] / 'runs').iterdir()) - runs) == 1
    assert all((run / 'metrics.json').stat().st_mtime_ns == stamp for run, stamp in stamps.items())
    for run in runs:
        metrics = json.loads((run / 'metrics.json').read_text())
        for column, (where, _) in TABLES['cost'].columns.items():
            assert tables.value_at(metrics, where) is not None, column


def test_a_failed_run_is_named_and_the_others_are_kept(small_table):
    arguments, _ = small_table
    broken = Recipe.load('smoke').changed(
        {'schedule': {'steps': 2}, 'language': {'model': '/nowhere'}}
    )
    with pytest.raises(tables.AblationError, match=r'2 of 2 runs failed.*log.txt'):
        tables.run_tables(['1'], **{**arguments, 'recipe': broken})
    logs = [run / 'log.txt' for run in (arguments['out'] / 'runs').iterdir()]
    assert any('/nowhere' in log.read_text() for log in logs)


def test_scenes_are_chosen_by_their_description(bags):
    bags = [Path(bag) for bag in bags]  # drives by night, without rain
    assert tables.chosen_bags(bags, ()) == tables.chosen_bags(bags, ('sunny', 'night')) == bags
    with pytest.raises(ValueError, match='none of the 1 training bags is night and rainy'):
        tables.chosen_bags(bags[:1], ('night', 'rainy'))


def test_a_table_without_a_scene_to_train_on_starts_no_run(bags, tmp_path):
    with pytest.raises(ValueError, match='none of the 2 training bags is day and sunny'):
        tables.run_tables(['domain'], Recipe.load('smoke'), bags, bags, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'arguments, words',
    [(['--table', '8', '--smoke'], 'choose one of'), (['--table', '4'], '--bags and --out')],
)
def test_wrong_usage(arguments, words):
    done = subprocess.run(
        [sys.executable, '-m', 'mta_training.commands.cli', 'ablate', *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and words in done.stderr

"""Each benchmark makes its table: at sizes of milliseconds, and nothing here is timed."""

import json
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / 'bench'


@pytest.fixture(autouse=True)
def bench_is_importable(monkeypatch):
    if not (BENCH / 'report.py').is_file():
        pytest.skip('the benchmarks come with the repository')
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv('MTA_BENCH_QUICK', '1')


def test_rows_become_tables_in_their_place_of_a_document(tmp_path, monkeypatch, capsys):
    from report import Row, report, written_into

    monkeypatch.setenv('MTA_BENCH_JSON', str(tmp_path / 'numbers.jsonl'))
    report('Apples', [Row('old', [2.0, 4.0, 6.0], 1.5), Row('new', [1.0]), Row('none', [])])
    report('Pears', [Row('one', [3.0])], unit='kg', note='Peeled.')
    assert 'Apples' in capsys.readouterr().out
    lines = (tmp_path / 'numbers.jsonl').read_text().splitlines()
    content = {
        'machine': {'cpu': 'Abacus', 'cores': 2},
        'date': '2026-01-01',
        'load': [0.1, 1.9],
        'quick': False,
        'tables': [json.loads(line) for line in lines],
    }
    places = ['machine', 'Apples', 'others']
    text = 'Words.\n' + ''.join(f'<!-- table: {name} -->\nold\n<!-- end -->\n' for name in places)
    found = written_into(text, content)
    assert '| old | 3 | 4 | 2.4 to 5.6 | 1.00 | 1.5 |' in found
    assert '| new | 1 | 1 |  | 0.25 |  |' in found and '| none | 0 |  |  |  |  |' in found
    assert '**Pears**' in found and 'Peeled.' in found and 'Abacus, 2 cores' in found
    assert '\nold\n' not in found and found.startswith('Words.\n')
    assert written_into(found, content) == found
    with pytest.raises(ValueError, match='table: others'):
        written_into(text.replace('others', 'else'), content)


def test_every_table_of_the_document_is_one_that_a_script_makes():
    document = (BENCH.parent / 'docs' / 'performance.md').read_text()
    titles = [line[12:-4] for line in document.splitlines() if line.startswith('<!-- table: ')]
    scripts = ''.join(path.read_text() for path in BENCH.glob('*.py'))
    assert len(titles) > 10 and len(set(titles)) == len(titles)
    for title in titles:
        assert title in ('machine', 'others') or f"'{title}'" in scripts, title


def test_synchronisers_put_healthy_rounds_together_and_only_ours_those_without_a_camera():
    import synchroniser

    costs, sets = synchroniser.tables(rounds=40, repeats=1)
    found = {row.name: row.samples[0] for row in sets}
    assert found['healthy: restated ApproximateTime'] >= 39 / 40
    assert found['healthy: ours'] >= 39 / 40 and found['a camera dead: ours'] >= 0.9
    assert found['a camera dead: restated ApproximateTime'] == 0
    assert 0.5 < found['5 % lost: restated ApproximateTime'] < 0.95 <= found['5 % lost: ours']
    assert len(costs) == len(sets) and all(row.samples[0] > 0 for row in costs)


def test_the_restated_algorithm_takes_the_tightest_set():
    from approximate_time import ApproximateTime

    sync, found = ApproximateTime(2, 50), []
    # The second camera's 9 lies nearer to the first one's 10 than its 1 does.
    for camera, stamp_ns in ((1, 1), (0, 10), (1, 9), (0, 20), (1, 21), (0, 30), (1, 33)):
        found += sync.add(camera, stamp_ns)
    assert found[:2] == [(10, 9), (20, 21)]
    late = ApproximateTime(2, 5)
    assert [late.add(*one) for one in ((0, 0), (1, 10), (0, 11), (0, 20), (1, 21))][:3] == [
        [],
        [],
        [],
    ]


def test_cameras_and_objects_scale(monkeypatch):
    import scaling

    rows = scaling.sets_of_cameras(1, rounds=3) + scaling.boxes_of_objects(1, counts=(3, 5))
    assert [row.name for row in rows[-2:]] == [f'boxes to tracks: {n} objects' for n in (3, 5)]
    assert all(row.samples[0] > 0 for row in rows)


def test_networks_of_any_size_have_rows():
    pytest.importorskip('torch')
    pytest.importorskip('transformers')
    import captioner
    import scaling

    from mta_perception.model.config import MtaConfig

    rows = scaling.detectors_of_grids(1, (10,), MtaConfig.toy())
    assert all(row.samples[0] > 0 for row in rows) and '10 x 10' in rows[0].name
    tiny = {
        'vocab_size': 20,
        'hidden_size': 16,
        'intermediate_size': 16,
        'num_hidden_layers': 1,
        'num_attention_heads': 2,
        'num_key_value_heads': 1,
    }
    times, rates = captioner.rows_of('tiny', captioner.of_shape(tiny, (1, 2), 1, tokens=3))
    assert [row.name for row in times] == ['tiny: 1 object', 'tiny: 2 objects']
    assert all(0 < row.floor < row.samples[0] for row in times)
    assert rates[1].samples[0] == pytest.approx(2e3 / times[1].samples[0])


def test_operations_of_a_graph_are_those_of_its_products(tmp_path):
    onnx = pytest.importorskip('onnx')
    from floors import graph_flops

    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        'g (float[1,3,8,8] x) => (float[1,4,5] y) '
        '<float[4,3,3,3] w, float[36,5] m, int64[3] shape = {1, 4, 36}>'
        '{ c = Conv (x, w) r = Reshape (c, shape) y = MatMul (r, m) }'
    )
    weights = {'w': (4, 3, 3, 3), 'm': (36, 5)}
    kept = [one for one in graph.graph.initializer if one.name not in weights]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    graph.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.zeros(size, np.float32), name)
        for name, size in weights.items()
    )
    onnx.save(graph, tmp_path / 'g.onnx')
    assert graph_flops(tmp_path / 'g.onnx') == 2 * (4 * 6 * 6 * 27) + 2 * (4 * 36 * 5)


def test_what_a_driven_node_said_becomes_four_tables():
    from node_rate import tables

    spans = [{'decoded': 5.0, 'boxes': 60.0}, {'decoded': 7.0, 'boxes': 62.0}]
    heard = {'sent': 24, 'latencies_ms': [80.0, 90.0, 85.0], 'sentences': 6, 'spans': spans}
    found = tables({'raw': (heard, [300.0, 301.0, 302.0], 1.25)}, seconds=2.0)
    latency, rate, memory, busy = ({row.name: row.samples for row in one[1]} for one in found)
    assert latency['raw: boxes'] == [60.0, 62.0] and latency['raw: sentences'] == []
    assert (rate['raw: sets sent'], rate['raw: detections']) == ([12.0], [1.5])
    assert rate['raw: sentences'] == [3.0] and busy['raw'] == [1.25]
    assert memory['raw: last third'] == [302.0]

"""At run time alignment costs nothing: baseline and MTA export to the same graphs."""

import pytest

torch = pytest.importorskip('torch')
onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')

from torch.utils.flop_counter import FlopCounterMode
from training_cases import silent, small_recipe, toy_scenes

from mta_training.export import graphs, model_directory
from mta_training.runs import run_directory
from mta_training.training import loop

ARMS = {'baseline': {'bla': 'off', 'dca': 'off'}, 'mta': {'bla': 'mse', 'dca': 'clip'}}


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Run and model directory of both, trained for three steps on the same scenes."""
    folder = tmp_path_factory.mktemp('arms')
    for name, alignment in ARMS.items():
        recipe = small_recipe(schedule={'steps': 3}, alignment=alignment)
        loop.run(toy_scenes(), [], folder / f'run-{name}', recipe, threads=1, say=silent)
        model_directory.export(folder / f'run-{name}', folder / name)
    return folder


def shape_of_graph(path):
    """Operators with their inputs' and outputs' names, and the shapes of all weights."""
    graph = onnx.load(path).graph
    return (
        [(node.op_type, list(node.input), list(node.output)) for node in graph.node],
        {entry.name: (entry.data_type, list(entry.dims)) for entry in graph.initializer},
    )


@pytest.mark.parametrize('name', ['detector.onnx', 'qformer.onnx', 'language.onnx'])
def test_graphs_are_the_same_but_for_the_numbers_in_them(exported, name):
    one, two = (shape_of_graph(exported / arm / name) for arm in ARMS)
    assert one[0] and one == two
    assert (exported / 'baseline' / name).read_bytes() != (exported / 'mta' / name).read_bytes()


def test_parameters_and_flops_are_the_same(exported):
    counts, flops = [], []
    for arm in ARMS:
        loaded = run_directory.load_run(exported / f'run-{arm}')
        language = loaded.language.runtime_model()
        parts = (loaded.model.requires_grad_(False), language.requires_grad_(False))
        counts.append([sum(p.numel() for p in part.parameters()) for part in parts])
        inputs = graphs.example_inputs(loaded.model.config)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            result = graphs.DetectorGraph(loaded.model.detector)(
                *(torch.from_numpy(value) for value in inputs.values())
            )
            prefix = loaded.model.qformer(result[2][0], result[1][0], result[0][0], result[3][0])
            language(prefix, torch.ones(len(prefix), 1, dtype=torch.long))
        flops.append(counter.get_total_flops())
    print(f'parameters {counts}, FLOPs {flops}')
    assert counts[0] == counts[1] and flops[0] == flops[1] > 1e6


def test_nothing_of_the_alignments_is_exported(exported):
    state = run_directory.read_checkpoint(exported / 'run-mta')
    extra = {name.split('.')[0] for name in state['learner']} - {'model', 'language'}
    assert extra == {'heads', 'bla', 'dca'}
    words = (exported / 'mta' / 'language.onnx').read_bytes() + (
        exported / 'mta' / 'qformer.onnx'
    ).read_bytes()
    assert b'dca' not in words and b'bla' not in words


def test_int8_of_a_run_on_bags_asks_for_bags(exported, tmp_path):
    """Only a run of `train --world` has a world to measure on."""
    with pytest.raises(ValueError, match='--calibration-bags'):
        model_directory.export(exported / 'run-mta', tmp_path / 'out', int8=True)
    assert not (tmp_path / 'out').exists()

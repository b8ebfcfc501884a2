"""A model directory back into a run: the same network, and one that can be trained on."""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

from mta_perception.model.language import LanguageModel
from mta_perception.model.mta_model import MtaModel
from mta_perception.runtime.torch_llama import load_tokenizer
from mta_training.export import rebuilt
from mta_training.export.graphs import example_inputs
from mta_training.export.model_directory import write_model
from mta_training.runs.recipe import Recipe

pytestmark = pytest.mark.slow  # each exports a network


@pytest.fixture(scope='module')
def trained(exported, tmp_path_factory):
    """(model, language model, recipe, directory): all weights different, as training leaves them.

    Of what is the same (norms that are all ones) an exporter keeps one.
    """
    torch.manual_seed(7)
    # As wide as that: of smaller ones the exporter folds prompt and projection into one.
    config = exported[0].config
    config = replace(config, language=replace(config.language, hidden_size=128))
    model, speaker = MtaModel(config).eval(), LanguageModel(config.language).eval()
    with torch.no_grad():
        for tensor in (*model.state_dict().values(), *speaker.state_dict().values()):
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape))
    directory = tmp_path_factory.mktemp('trained') / 'toy'
    tokenizer = load_tokenizer(exported[2])
    write_model(model, speaker, tokenizer, directory, {}, {})
    smoke = Recipe.smoke()
    recipe = replace(smoke, model=model.config, language=replace(smoke.language, adapter_tokens=4))
    return model, speaker, recipe, directory


@pytest.fixture(scope='module')
def run(trained, tmp_path_factory):
    *_, recipe, directory = trained
    out = tmp_path_factory.mktemp('rebuilt') / 'run'
    return out, rebuilt.rebuild(directory, recipe, out, drives=1)


def test_the_network_is_the_same(trained, run):
    model, speaker, *_ = trained
    state = torch.load(run[0] / 'last.pt', weights_only=True)
    print('difference of the BEV:', run[1].bev)
    assert run[1].bev < 1e-4
    norms = tuple(f'{name}.' for name in rebuilt.of_norms(model))
    own = {**model.state_dict(), **speaker.state_dict()}
    came = {**state['model'], **state['adapter'], **torch.load(run[0] / 'language.pt')}
    assert own.keys() == came.keys()
    compared = 0
    for name, value in came.items():
        if name.startswith(norms) or value.ndim == 4 or not value.is_floating_point():
            continue  # a folded norm scales its convolution
        torch.testing.assert_close(value, own[name], atol=1e-6, rtol=1e-5, msg=name)
        compared += 1
    assert compared > 150


def test_norms_put_back_have_the_statistics_of_what_passes(trained, run):
    model, _, recipe, _ = trained
    detector = copy.deepcopy(model.detector)
    detector.load_state_dict(
        {
            name.removeprefix('detector.'): value
            for name, value in torch.load(run[0] / 'last.pt', weights_only=True)['model'].items()
            if name.startswith('detector.')
        }
    )
    inputs = [torch.from_numpy(value) for value in example_inputs(recipe.model).values()]
    with torch.no_grad():
        theirs, mine = detector.eval()(*inputs), model.detector.eval()(*inputs)
    assert (theirs.bev - mine.bev).abs().max() < 1e-3
    for name, norm in rebuilt.of_norms(detector).items():
        assert not (norm.weight == 1.0).all(), name


def test_a_model_of_other_sizes_is_refused(trained, tmp_path):
    *_, recipe, directory = trained
    wider = replace(recipe.model, qformer=replace(recipe.model.qformer, layers=3))
    with pytest.raises(ValueError, match='recipe smoke'):
        rebuilt.rebuild(directory, replace(recipe, model=wider), tmp_path / 'run', drives=1)
    assert not (tmp_path / 'run').exists()


def test_an_adapter_of_another_length_is_refused(trained, tmp_path):
    *_, recipe, directory = trained
    language = replace(recipe.language, adapter_tokens=5)
    with pytest.raises(ValueError, match='adapter_prompt'):
        rebuilt.rebuild(directory, replace(recipe, language=language), tmp_path / 'r', drives=1)

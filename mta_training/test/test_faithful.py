"""The recipe `mta`: what its captioner is told, what its prefix holds, where gradients arrive."""

import copy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from training_cases import silent, small_recipe, toy_scenes

from mta_perception.model.config import MtaConfig
from mta_perception.model.mta_model import MtaModel
from mta_perception.model.qformer import QFormer
from mta_training.data.batches import Place, make_batch, slot_generators
from mta_training.export import graphs
from mta_training.process_group import ProcessGroup
from mta_training.runs.recipe import Recipe
from mta_training.runs.run_directory import RunError, fitted
from mta_training.training import loop
from mta_training.training.caption_stage import finish_captions

# The toy network, its captioner as the recipe's.
FAITHFUL = {
    'model': {'qformer': {'bev': 'shared', 'told': 'detection', 'prefix_object': True}},
    'captions': {'box': 'predicted', 'class_gradient': True},
    'alignment': {'standard': True, 'bla': 'mse', 'dca': 'clip', 'oracle': True},
    'schedule': {'bf16': False},
}


def qformer(**changes):
    """QFormer at toy size, seeded."""
    toy = MtaConfig.toy()
    config = replace(toy, qformer=replace(toy.qformer, **changes))
    torch.manual_seed(0)
    return QFormer(config, 8).eval(), config


def objects(config, count=3, seed=1):
    """(object_features, boxes, class_logits, bev) that ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, 8), (count, 10), (count, 10), config.bev.shape)
    rows = [torch.randn(shape, generator=generator) for shape in shapes]
    rows[1][:, 3:6] = rows[1][:, 3:6].abs() + 0.5
    return [row.requires_grad_() for row in rows]


def learner_of(folder, scenes, **changes):
    """A Learner at toy size with random weights, and one batch of the scenes."""
    recipe = small_recipe(**FAITHFUL).changed(changes)
    learner, recipe = loop.build_learner(folder, scenes, recipe, ProcessGroup())
    torch.manual_seed(1)
    with torch.no_grad():  # last layers of scores and boxes start at zero: nothing passes them
        for parameter in learner.model.detector.decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batch = make_batch(scenes, [Place(0, 1, False), Place(1, 1, False)])
    return learner.train(), batch


def terms_of(learner, batch):
    memory = torch.zeros(2, *learner.model.detector.memory_shape)
    return learner(batch, memory, slot_generators(0, 0, [0, 1]), ProcessGroup.alone()).terms


@pytest.fixture(scope='module')
def scenes():
    return toy_scenes(count=2, frames=2)


@pytest.fixture(scope='module')
def faithful(scenes, tmp_path_factory):
    """(Learner, Batch, terms) of the faithful captioner."""
    learner, batch = learner_of(tmp_path_factory.mktemp('run'), scenes)
    return learner, batch, terms_of(learner, batch)


def norm(term, module):
    """Of a term's gradient in a module; 0 where it does not arrive."""
    gradients = torch.autograd.grad(
        term, list(module.parameters()), retain_graph=True, allow_unused=True
    )
    return sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5


def test_swapping_the_object_token_changes_the_prefix_only_where_the_prefix_has_it():
    """Audit, point 1: the aligned token itself must reach the language model."""
    moved = {}
    for own in (False, True):
        network, config = qformer(bev='shared', prefix_object=own)
        states = network.states(*objects(config))
        before = network.prefix_of(states)
        swapped = [state.clone() for state in states]
        swapped[-1][:, 0] = swapped[-1][[1, 2, 0], 0]
        moved[own] = (network.prefix_of(swapped) - before).abs().amax((0, 2))
        assert before.shape[1] == config.qformer.prefix_tokens
    assert moved[False].max() == 0.0
    assert moved[True][0] > 0.1 and moved[True][1:].max() == 0.0


@pytest.mark.parametrize(
    ('told', 'arrives'), [('query', ''), ('detection', 'box class'), ('all', 'box class')]
)
def test_the_object_token_is_made_of_what_it_is_told(told, arrives):
    network, config = qformer(bev='shared', told=told)
    rows = objects(config)
    network(*rows).square().sum().backward()
    for name, row in zip(('query', 'box', 'class', 'bev'), rows):
        reached = row.grad is not None and float(row.grad.abs().max()) > 0.0
        assert reached == (name in ('query', 'bev') or name in arrives), name


def test_every_cell_of_the_bev_is_read_in_every_block():
    """d_i = Q_i([d_{i-1}, F_BEV]): TOD3Cap's convolution skips 24 cells of 25."""
    recipe = Recipe.load('paper')
    assert recipe.model.qformer.layers == 8 and recipe.model.qformer.bev == 'shared'
    network, config = qformer(bev='shared', layers=3)
    for block in range(3):
        rows = objects(config)
        states = network.states(*rows)
        first = states[block] - (states[block - 1] if block else 0.0)
        (gradient,) = torch.autograd.grad(first.square().sum(), rows[3])
        assert (gradient.abs().amax(0) > 0.0).all()


@pytest.mark.parametrize('term', ['language', 'bla', 'oracle', 'dca'])
def test_captions_teach_class_and_box_heads(faithful, term):
    """Audit, point 2."""
    learner, _, terms = faithful
    layer = learner.model.detector.decoder.layers[-1]
    for part in (layer.score, layer.box, learner.model.detector.backbone):
        assert norm(terms[term], part) > 0.0
    # The aligned token is in the middle: what comes after it is the language loss's business.
    late = learner.model.qformer.blocks[-1]
    assert (norm(terms[term], late) > 0.0) == (term in ('language', 'dca'))


@pytest.mark.parametrize('term', ['language', 'bla'])
def test_with_nanos_captions_they_do_not(scenes, tmp_path, term):
    """As shipped: true boxes, class scores without gradient."""
    learner, batch = learner_of(
        tmp_path,
        scenes,
        captions={'box': 'true', 'class_gradient': False},
        alignment={'dca': 'off', 'oracle': False},
    )
    loss, layer = terms_of(learner, batch)[term], learner.model.detector.decoder.layers[-1]
    assert norm(loss, layer.score) == norm(loss, layer.box) == 0.0
    assert norm(loss, learner.model.detector.backbone) > 0.0


def test_captioners_of_before_have_the_same_weights_and_words():
    """Defaults are nano's: names, shapes and numbers of an older checkpoint."""
    network, config = qformer()
    assert config.qformer.told == 'all' and not config.qformer.prefix_object
    assert network.object[0].in_features == 8 + 10 + 59
    assert network.tokens.shape[0] == config.qformer.prefix_tokens
    for name in ('nano', 'street', 'nano_joint', 'smoke'):
        recipe = Recipe.load(name)
        old = recipe.to_dict()
        del old['model']['qformer']['told'], old['model']['qformer']['prefix_object']
        for part, new in (
            ('alignment', ('standard', 'shuffled', 'oracle')),
            ('captions', ('class_gradient',)),
            ('weights', ('oracle', 'shares')),
        ):
            for entry in new:
                del old[part][entry]
        del old['start_sizes']
        assert Recipe.from_dict(old) == recipe
        assert not recipe.alignment.standard and not recipe.captions.class_gradient


def test_the_last_stage_tells_predicted_boxes_too(faithful, scenes):
    """Captions alone go on with what they were told before: no true box."""
    learner, _, _ = faithful
    torn = [
        scene._replace(boxes=[boxes + np.float32(1e-3) for boxes in scene.boxes])
        for scene in scenes
    ]
    losses = [
        finish_captions(copy.deepcopy(learner), part, 2, frames=2, log_line=silent)
        for part in (scenes, torn)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_detector_has_the_sizes_of_its_start(scenes, tmp_path):
    recipe = small_recipe(schedule={'steps': 1}, model={'bev': {'layers': 2}})
    loop.run(scenes, [], tmp_path / 'start', recipe, threads=1, say=silent)
    mta = Recipe.load('mta').changed({'start': str(tmp_path / 'start')})
    model = fitted(mta).model
    assert model.bev == recipe.model.bev and model.backbone == recipe.model.backbone
    assert model.qformer == mta.model.qformer and model.language == mta.model.language
    MtaModel(model).detector.load_state_dict(MtaModel(recipe.model).detector.state_dict())
    assert fitted(Recipe.load('mta')) == Recipe.load('mta')  # no start, nothing to fit
    with pytest.raises(RunError, match='does not exist'):
        fitted(mta.changed({'start': str(tmp_path / 'nowhere')}))


@pytest.mark.parametrize('told', ['query', 'detection'])
def test_it_is_exported_with_the_inputs_of_every_captioner(told, tmp_path):
    """The node hands over boxes and scores, whether this captioner is told of them or not."""
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    toy = MtaConfig.toy()
    sizes = replace(toy.qformer, bev='shared', told=told, prefix_object=True)
    model = MtaModel(replace(toy, qformer=sizes)).eval()
    inputs, count = graphs.object_inputs(model, 3), torch.export.Dim('count', min=1, max=512)
    graphs.save_graph(
        model.qformer,
        tuple(inputs.values()),
        tmp_path / 'qformer.onnx',
        list(inputs),
        ['prefix'],
        ({0: count}, {0: count}, {0: count}, None),
    )
    session = onnxruntime.InferenceSession(tmp_path / 'qformer.onnx')
    (prefix,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = model.qformer(*inputs.values())
    np.testing.assert_allclose(prefix, expected, atol=1e-4)

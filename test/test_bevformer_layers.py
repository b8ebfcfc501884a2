"""Layers that are faster than the library's give the library's numbers, and notice new weights."""

import copy
import pickle

import pytest

torch = pytest.importorskip('torch')

from torch.nn import functional

from mta_perception.model.bevformer.layers import Dropout, Linear


def library(layer, x):
    """What the library makes of the layer's weights."""
    out = functional.linear(x, layer.weight, layer.bias)
    return out.relu() if layer.relu else out


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_products_are_the_librarys(mode, relu):
    """Whatever the number of rows; the weights are put in order for the first one."""
    torch.manual_seed(0)
    layer = Linear(32, 48, relu).eval()
    with mode():
        for shape in ((700, 32), (1, 5, 32), (2, 3, 900, 32), (0, 32)):
            x = torch.randn(shape)
            torch.testing.assert_close(layer(x), library(layer, x), rtol=1e-5, atol=1e-5)


def step_of_an_optimiser(layer):
    """Every weight moves."""
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    with torch.enable_grad():
        layer(torch.randn(4, 16)).square().sum().backward()
    optimiser.step()


def step_of_a_fused_optimiser(layer):
    """Which torch does not count as a change."""
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1.0, fused=True)
    with torch.enable_grad():
        layer(torch.randn(4, 16)).square().sum().backward()
    optimiser.step()


def other_tensors(layer):
    """Assigned, not copied."""
    layer.load_state_dict(
        {name: torch.randn_like(tensor) for name, tensor in layer.state_dict().items()},
        assign=True,
    )


def change_behind_torchs_back(layer):
    """Through .data, while training."""
    layer.train()
    layer.weight.data.mul_(-2.0)
    layer.eval()


CHANGES = {
    'optimiser': step_of_an_optimiser,
    'fused': step_of_a_fused_optimiser,
    'assigned': other_tensors,
    'loaded': lambda layer: layer.load_state_dict(Linear(16, 16).state_dict()),
    'data': change_behind_torchs_back,
    'replaced': lambda layer: setattr(layer, 'weight', torch.nn.Parameter(torch.randn(16, 16))),
    'bias': lambda layer: layer.bias.detach().fill_(3.0),
}


@torch.no_grad()
@pytest.mark.parametrize('change', CHANGES)
def test_new_weights_are_noticed(change):
    """What is kept of the old ones is not used again."""
    torch.manual_seed(0)
    layer, x = Linear(16, 16).eval(), torch.randn(50, 16)
    before = layer(x)
    CHANGES[change](layer)
    torch.testing.assert_close(layer(x), library(layer, x), rtol=1e-5, atol=1e-5)
    assert (layer(x) - before).abs().max() > 0.1


def test_a_wrong_width_is_named():
    """As the library does."""
    layer = Linear(16, 16).eval()
    with torch.no_grad(), pytest.raises(RuntimeError, match='cannot be multiplied'):
        layer(torch.randn(3, 8))


@torch.no_grad()
@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_its_own_weights(duplicate):
    """And the first keeps what it has."""
    torch.manual_seed(0)
    layer, x = Linear(16, 16).eval(), torch.randn(50, 16)
    before = layer(x)
    other = duplicate(layer)
    other.weight.zero_()
    torch.testing.assert_close(other(x), other.bias.expand(50, -1))
    torch.testing.assert_close(layer(x), before)


def test_dropout_keeps_the_mean_and_its_mask():
    """The share that is asked for falls, the rest is scaled; the gradient has the same mask."""
    torch.manual_seed(0)
    layer = Dropout(0.3)
    x = torch.ones(1, 500, 400, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    kept = out.detach() > 0
    torch.testing.assert_close(out.detach(), kept / 0.7)
    torch.testing.assert_close(x.grad, kept / 0.7)
    # Five standard deviations of that many independent draws.
    assert abs(float(kept.float().mean()) - 0.7) < 5 * (0.21 / kept.numel()) ** 0.5


def test_dropout_has_no_pattern():
    """No row, column, neighbour or second call knows what another does."""
    torch.manual_seed(0)
    layer, x = Dropout(0.5), torch.ones(512, 512)
    first, second = ((layer(x) > 0).float() - 0.5 for _ in range(2))
    limit = 5 * 0.25 / x.numel() ** 0.5
    for other in (second, first.roll(1, 0), first.roll(1, 1), first.roll(16, 1), first.T):
        unequal = ~torch.eye(512, dtype=torch.bool)
        assert abs(float((first * other)[unequal].mean())) < limit
    for axis in (0, 1):
        assert first.mean(axis).abs().max() < 5 * 0.5 / 512**0.5


def test_dropout_repeats_with_the_seed_and_ends_with_training():
    """Same seed, same mask: what checkpointing relies on.  NaN stays one."""
    layer, x = Dropout(0.5), torch.randn(64, 64)
    x[0, 0] = torch.nan
    outs = []
    for _ in range(2):
        torch.manual_seed(3)
        outs.append(layer(x))
    torch.testing.assert_close(*outs, equal_nan=True)
    assert outs[0][0, 0].isnan()
    assert Dropout(1.0)(torch.ones(5)).abs().sum() == 0
    assert layer.eval()(x) is x

"""How heavy each term is in the detector: measured, warned of, set by share, kept over a kill."""

import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from torch import nn
from training_cases import silent, small_recipe, toy_scenes

from mta_training.process_group import ProcessGroup
from mta_training.runs import run_directory
from mta_training.runs.recipe import Recipe
from mta_training.training import loop
from mta_training.training.learner import BatchLoss
from mta_training.training.term_gradients import TermGradients


class Small(nn.Module):
    """Detector, captioner and an alignment's head, a number each."""

    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict(
            {'detector': nn.Linear(1, 1, bias=False), 'qformer': nn.Linear(1, 1, bias=False)}
        )
        self.bla = nn.Linear(1, 1, bias=False)

    def terms(self, bla=1.0):
        detector, qformer, head = (p.sum() for p in self.parameters())
        other = 0.01 * detector + 3.0 * qformer + 9.0 * head
        return {'detection': 2.0 * detector, 'bla': bla * other}


def gradients(shares=None):
    learner = Small()
    return learner, TermGradients(learner, shares or {}, ProcessGroup.alone())


def test_an_alignments_own_head_does_not_make_it_look_heavy():
    learner, measured = gradients()
    log = measured.measure(learner.terms())
    assert log['gradient_detection'] == pytest.approx(2.0)
    assert log['gradient_bla'] == pytest.approx((9.0 + 1e-4) ** 0.5)  # not 9.5
    assert log['share_bla'] == pytest.approx(0.005)
    assert 'share_detection' not in log and measured.factors == {}


def test_a_share_is_kept_whatever_the_term_weighs():
    learner, measured = gradients({'bla': 0.25})
    assert measured.measure(learner.terms())['share_bla'] == pytest.approx(0.25)
    assert measured.factors['bla'] == pytest.approx(50.0)
    terms = learner.terms()
    total = measured.total(BatchLoss(sum(terms.values()), terms, {}, None))
    (moved,) = torch.autograd.grad(total, learner.model['detector'].weight)
    assert float(moved) == pytest.approx(2.0 * 1.25)
    # A batch that is other than the ones before moves it half of the way.
    assert measured.measure(learner.terms(bla=4.0))['share_bla'] == pytest.approx(0.5)
    for _ in range(12):
        log = measured.measure(learner.terms(bla=4.0))
    assert log['share_bla'] == pytest.approx(0.25, rel=1e-3)


def test_a_batch_without_captions_leaves_the_weights():
    learner, measured = gradients({'bla': 0.25})
    measured.measure(learner.terms())
    log = measured.measure({'detection': learner.terms()['detection']})
    assert measured.factors['bla'] == pytest.approx(50.0) == log['factor_bla']
    nothing = measured.measure(learner.terms(bla=0.0), described=False)
    assert 'share_bla' not in nothing  # no reason to warn
    assert measured.factors['bla'] == pytest.approx(50.0)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'weights': {'shares': {'box': 0.1}}}, 'choose from language, bla, dca, oracle'),
        ({'weights': {'shares': {'bla': 0.0}}}, 'expected shares above 0'),
        ({'weights': {'shares': {'bla': 0.1}}, 'gradient_norms_every': 0}, 'measure gradients'),
    ],
)
def test_shares_that_mean_nothing_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Recipe.load('smoke').changed(changes)


def test_a_term_that_is_too_light_is_said_once_and_shares_outlive_a_run(tmp_path):
    said, scenes = [], toy_scenes(count=2, frames=2)
    recipe = small_recipe(
        schedule={'steps': 3, 'batch': 1},
        alignment={'bla': 'mse', 'oracle': True},
        weights={'bla': 1e-6, 'shares': {'oracle': 0.5}},
        gradient_norms_every=1,
    )
    loop.run(scenes, [], tmp_path / 'run', recipe, threads=1, say=said.append)
    warnings = [line for line in said if line.startswith('warning')]
    assert sum('of bla in the detector' in line for line in warnings) == 1
    assert not any('oracle' in line for line in warnings)
    rows = (tmp_path / 'run' / 'log.csv').read_text().splitlines()
    values = dict(zip(rows[0].split(','), rows[-1].split(',')))
    assert float(values['share_bla']) < 0.01 and 0.1 < float(values['share_oracle']) < 2.0
    state = run_directory.read_checkpoint(tmp_path / 'run')
    assert set(state['factors']) == {'oracle'} and 'oracle.read.0.weight' in state['learner']
    loop.run(scenes, [], tmp_path / 'run', recipe, resume=True, threads=1, say=silent)
    again = run_directory.read_checkpoint(tmp_path / 'run')
    assert again['factors'] == state['factors']

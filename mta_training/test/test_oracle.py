"""The oracle auxiliary: what it reads from captions, what it costs, and that it learns."""

import math

import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from mta_training.captions.grammar import MOTIONS, NOUNS
from mta_training.losses.oracle import OracleHead, facts_of

TEXTS = [
    'red car about 20 meters away in the front of the ego car is moving at the roadside',
    'child in blue about 7 meters away in the left of the ego car is not moving',
    'traffic cone about 45 meters away in the back of the ego car is not moving behind a red car',
]


def test_facts_are_those_of_the_sentence():
    noun, distance, motion = facts_of(TEXTS[1])
    assert list(NOUNS)[noun] == 'child' and MOTIONS[motion] == 'not moving'
    assert distance == pytest.approx(math.log(7.0))
    assert facts_of('A car drives ahead of us.') is None


def test_it_learns_to_tell_them():
    torch.manual_seed(0)
    head, features = OracleHead(16), torch.randn(3, 16)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    first = head(features, TEXTS)
    for _ in range(100):
        optimizer.zero_grad()
        head(features, TEXTS).loss.backward()
        optimizer.step()
    last = head(features, TEXTS)
    assert float(first.loss.detach()) > 3.0 and float(last.loss.detach()) < 0.3
    assert last.log['oracle_noun'] == last.log['oracle_motion'] == 1.0
    assert last.log['oracle_log_m'] < 0.1 < first.log['oracle_log_m']


def test_a_sentence_in_other_words_counts_nothing():
    torch.manual_seed(0)
    head, features = OracleHead(16), torch.randn(3, 16, requires_grad=True)
    alone = head(features[:1], TEXTS[:1]).loss
    beside = head(features, [TEXTS[0], 'somebody', '']).loss
    assert float(beside.detach()) == pytest.approx(float(alone.detach()), rel=1e-6)
    beside.backward()
    assert features.grad[0].abs().max() > 0.0 == features.grad[1:].abs().max()


@pytest.mark.parametrize('texts', [[], ['somebody']])
def test_no_facts_cost_nothing(texts):
    told = OracleHead(16)(torch.randn(len(texts), 16), texts)
    told.loss.backward()
    assert float(told.loss.detach()) == 0.0 and set(told.log.values()) == {0.0}

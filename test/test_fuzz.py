"""A short part of `make fuzz`: a mutated input is read, or refused by the reader's own error."""

import random

import pytest
import run as fuzz
from targets import all_targets

INPUTS = 600
SEED = 77  # of `make fuzz` it is 0


@pytest.fixture(scope='module')
def targets(tmp_path_factory):
    folder = tmp_path_factory.mktemp('seeds')
    fuzz.prepare()
    return all_targets(folder)


def test_mutated_inputs_are_refused_by_name_or_read(targets, tmp_path):
    whole = sum(target.weight for target in targets)
    found = {}
    for target in targets:
        count = max(3, round(INPUTS * target.weight / whole))
        tried = fuzz.try_target(target, count, SEED, tmp_path.resolve())
        found |= {f'{target.name} {one.number}': one.words for one in tried.findings}
    assert not found


def test_good_inputs_are_read(targets, tmp_path):
    """Else everything would be refused for another reason than the mutation."""
    for target in targets:
        good = target._replace(mutate=lambda data, rng: data)
        tried = fuzz.try_target(good, len(target.seeds), 0, tmp_path.resolve())
        assert not tried.findings and not tried.refused, target.name


def test_a_finding_is_found(tmp_path):
    """Errors of other types, long texts, code that runs, files elsewhere, inputs that hang."""
    elsewhere = tmp_path / 'elsewhere'
    scratch = (tmp_path / 'scratch').resolve()
    scratch.mkdir()

    def feed(data, folder):
        kind = data[0] % 5
        if kind == 0:
            raise KeyError('x')
        if kind == 1:
            raise ValueError('two\nlines')
        if kind == 2:
            elsewhere.write_bytes(data)
        if kind == 3:
            import os

            os.system('true')
        while kind == 4 and random.random() >= 0:
            pass

    fuzz.prepare()
    seeds = [bytes([kind]) for kind in range(5)]
    target = fuzz.Target('x', (ValueError,), seeds, lambda data, rng: data, feed)
    tried = fuzz.try_target(target, 5, 0, scratch)
    words = [finding.words for finding in tried.findings]
    assert len(words) == 5 and tried.refused == 1
    assert 'KeyError' in words[0] and '2 lines' in words[1] and 'elsewhere' in words[2]
    assert 'os.system' in words[3] and 'longer than' in words[4]

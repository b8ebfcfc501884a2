"""Twelve questions about a synthetic drive through the real service, held against the truth.

The model is that of MTA_ASK_MODEL, else models/nano; skips where it has no task heads.
"""

import os
from pathlib import Path
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_training.questions.mixture', reason='the questions are of mta_training')

from mta_msgs.srv import Ask
from ros_car import REPOSITORY, Car, start_node, wait_until

from mta_perception.bags.scene_bag import SceneBag
from mta_perception.commands.demo import synthetic_bag
from mta_perception.commands.processes import Child, free_domain, ros_environment
from mta_perception.ros.ask import answer_of
from mta_perception.runtime.manifest import Manifest
from mta_training.questions.mixture import questions_of_scene
from mta_training.questions.scene_facts import scene_facts

SEED, RATE = 7, 0.5
EACH = {'box': 5, 'time': 4, 'mask': 3}
NEAR_M, OVERLAP = 2.0, 0.3
LEAST_RIGHT = 4  # of twelve; a model that says anything anywhere gets none or one


def asked_model():
    path = Path(os.environ.get('MTA_ASK_MODEL', REPOSITORY / 'models' / 'nano'))
    if not (path / 'manifest.yaml').is_file():
        pytest.skip(f'no model in {path}; name one in MTA_ASK_MODEL')
    if Manifest.load(path).tasks is None:
        pytest.skip(f'{path} has no task heads; name a model that has them in MTA_ASK_MODEL')
    return path


def twelve(facts):
    """Questions about the last key frame that have an answer."""
    now = len(facts.stamps_ns) - 1
    chosen = {kind: [] for kind in EACH}
    for seed in range(40):
        for question in questions_of_scene(facts, seed, per_frame=20.0, kinds=tuple(EACH)):
            of_kind = chosen[question.kind]
            new = question.text not in [one.text for one in of_kind]
            if question.now == now and question.answered and not question.here and new:
                of_kind.append(question)
    short = [kind for kind, count in EACH.items() if len(chosen[kind]) < count]
    assert not short, f'too few questions of {short}'
    return [one for kind, count in EACH.items() for one in chosen[kind][:count]]


def is_right(question, response, facts):
    """Whether what is shown is what was meant."""
    found, half_extent_m = answer_of(response)
    if question.kind == 'box':
        true = [facts.track(one).boxes[question.now][:2] for one in question.instances]
        return any(
            np.hypot(*(one.box[:2] - centre)) < NEAR_M for one in found.boxes for centre in true
        )
    if question.kind == 'time':
        return found.span_ns is not None and any(
            overlap(found.span_ns, facts.stamps_ns[[a, b]]) > OVERLAP for a, b in question.spans
        )
    if found.mask is None:
        return False
    side = 2.0 * half_extent_m / len(found.mask)
    cells = (np.arange(len(found.mask)) + 0.5) * side - half_extent_m
    boxes = [facts.track(one).boxes[question.now] for one in question.instances]
    wanted = np.any([footprint(box, cells) for box in boxes], axis=0)
    both, either = (wanted & found.mask).sum(), (wanted | found.mask).sum()
    return both / either > OVERLAP


def footprint(box, cells):
    """(n, n) bool [iy, ix] of the cells whose centres lie in a box."""
    x, y = cells[None, :] - box[0], cells[:, None] - box[1]
    along, across = x * box[7] + y * box[6], y * box[7] - x * box[6]
    return (np.abs(along) <= box[3] / 2) & (np.abs(across) <= box[4] / 2)


def overlap(one, other):
    """IoU of two spans."""
    both = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, both / (max(one[1], other[1]) - min(one[0], other[0])))


@pytest.mark.slow
def test_twelve_questions_about_a_drive(tmp_path):
    model = asked_model()
    bag = Path(os.environ['MTA_ASK_BAG']) if 'MTA_ASK_BAG' in os.environ else None
    bag = bag or synthetic_bag(SEED, 20.0)
    facts = scene_facts(SceneBag(bag))
    questions, domain = twelve(facts), free_domain()
    parameters = {
        'model': model,
        'use_sim_time': True,
        'history_max_gap_s': 10.0,  # all twelve are asked after the last image
        'ask_timeout_s': 20.0,
        'max_captions': 0,
    }
    play = [sys.executable, '-m', 'mta_perception.commands.cli', 'play', str(bag)]
    play += ['--rate', str(RATE), '--wait-for', 'mta_perception']
    with start_node(tmp_path, domain, parameters):
        car = Car(domain)
        try:
            car.listen_to_node()
            with Child('player', play, tmp_path / 'player.log', ros_environment(domain)) as player:
                wait_until(lambda: not player.running(), 240.0, 'the player did not end')
                player.check()
            answers = [
                car.call(Ask, 'mta_perception/ask', Ask.Request(instruction=one.text), 25.0)
                for one in questions
            ]
        finally:
            car.close()
    right = []
    for question, response in zip(questions, answers):
        assert response.success, f'{question.text}: {response.message}'
        right.append(is_right(question, response, facts))
        print(f'{"right" if right[-1] else "wrong"}: {question.text} -> {response.text}')
    assert sum(right) >= LEAST_RIGHT

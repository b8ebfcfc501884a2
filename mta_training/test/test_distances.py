"""Near and far by hand: recall goes by the true object's ring, precision by the box's."""

import numpy as np

from mta_training.evaluation.caption_matching import DescribedObjects
from mta_training.evaluation.distances import RINGS_M, by_distance

SENTENCE = 'a red car, {} metres away, to the front of the car, parked'


def described(*places, scores=None):
    boxes = np.zeros((len(places), 10))
    boxes[:, 0], boxes[:, 3:6], boxes[:, 7] = places, (4.0, 2.0, 1.5), 1.0
    scores = np.ones(len(places)) if scores is None else np.array(scores)
    texts = [SENTENCE.format(round(place)) for place in places]
    return DescribedObjects(boxes, np.zeros(len(places), int), scores, texts)


def test_each_ring_has_its_own():
    truth = [described(5.0, 9.5, 25.0), described(15.0)]
    # Found: 5 m, 9.5 m by a box beyond the border, 25 m; 15 m is missed and 35 m is nothing.
    said = [described(5.5, 10.5, 25.0, 35.0), described()]
    rings = by_distance(truth, said)
    assert [(ring['from_m'], ring['to_m']) for ring in rings] == [*RINGS_M, (0.0, 50.0)]
    assert [ring['objects'] for ring in rings] == [2, 1, 1, 0, 4]
    assert [ring['recall'] for ring in rings] == [1.0, 0.0, 1.0, None, 0.75]
    assert [ring['boxes'] for ring in rings] == [1, 1, 1, 1, 4]
    assert [ring['precision'] for ring in rings] == [1.0, 1.0, 1.0, 0.0, 0.75]

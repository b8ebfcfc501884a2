"""A small scene that can be asked about, made by hand: three objects over nine frames, each found
by the row of its own number; no bag, no detector."""

import numpy as np

from mta_perception.contract import CLASSES
from mta_training.questions.question import Question
from mta_training.questions.scene_facts import ObjectTrack, SceneFacts
from mta_training.tpo.batches import asked
from mta_training.tpo.frames import SceneFrames

FRAMES, ROWS, SCENE = 9, 6, 'toy'
OBJECTS = {'car': ((-20.0, 6.0), 3.0), 'pedestrian': ((8.0, -4.0), 0.0), 'bus': ((30.0, 2.0), 0.0)}
SIZES = {'car': (4.6, 1.9, 1.6), 'pedestrian': (0.7, 0.7, 1.75), 'bus': (11.0, 2.9, 3.4)}


def toy_asked(object_width=64, channels=32, cells=20, seed=0):
    """batches.Asked of the scene; the ego stands, the car drives along x."""
    rng = np.random.default_rng(seed)
    stamps = np.arange(FRAMES, dtype=np.int64) * 500_000_000
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    tracks = [_track(name, *motion) for name, motion in OBJECTS.items()]
    facts = SceneFacts(SCENE, stamps, poses, np.zeros(FRAMES), np.zeros(FRAMES), tuple(tracks))
    boxes = np.zeros((FRAMES, ROWS, 10), np.float32)
    boxes[..., :2] = rng.uniform(-45.0, -35.0, (FRAMES, ROWS, 2))
    boxes[..., 3:6], boxes[..., 7] = 1.0, 1.0
    logits = np.full((FRAMES, ROWS, len(CLASSES)), -6.0, np.float16)
    for row, track in enumerate(tracks):
        boxes[:, row] = track.boxes
        boxes[:, row, 0] += 0.4
        logits[:, row, track.label] = 3.0
    bev = rng.normal(size=(FRAMES, channels, cells, cells)).astype(np.float16)
    frames = SceneFrames(
        SCENE,
        stamps,
        poses,
        rng.normal(size=(FRAMES, ROWS, object_width)).astype(np.float16),
        boxes,
        logits,
        bev,
        bev.mean((2, 3), dtype=np.float32),
    )
    return asked(frames, facts)


def _track(name, start, speed):
    boxes = np.zeros((FRAMES, 10))
    boxes[:, 0] = start[0] + 0.5 * speed * np.arange(FRAMES)
    boxes[:, 1], boxes[:, 3:6], boxes[:, 7], boxes[:, 8] = start[1], SIZES[name], 1.0, speed
    none = ('',) * FRAMES
    return ObjectTrack(
        name,
        CLASSES.index(name),
        '',
        None,
        boxes,
        np.full(FRAMES, speed),
        np.ones(FRAMES, bool),
        none,
        (None,) * FRAMES,
        none,
    )


def toy_questions(now=FRAMES - 1):
    """One of each kind, and one about what is not there; all of the whole memory."""

    def ask(text, answer, kind, family, wording, **others):
        return Question(SCENE, 0, now, text, answer, kind, family, wording, **others)

    where, mark, follow = 'where is {object}', 'segment {object}', 'follow {object}'
    plain, one = ' | the {thing}', 'grounding/one'
    return [
        ask('where is the car', '<box>', 'box', one, where + plain, instances=('car',)),
        ask('where is the bus', '<box>', 'box', one, where + plain, instances=('bus',)),
        ask(
            'where is the trailer',
            'there is no such object',
            'box',
            one,
            where + plain,
        ),
        ask('segment the bus', '<mask>', 'mask', 'mask/one', mark + plain, instances=('bus',)),
        ask('follow the car', '<track>', 'track', 'track/one', follow + plain, instances=('car',)),
        ask(
            'when is the car moving',
            '<time>',
            'time',
            'moment/object_moving',
            'when is {object} moving' + plain,
            instances=('car',),
            spans=((2, 5),),
            saliency=(0.0, 0.25, 0.75, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0),
        ),
        ask(
            'how many trucks are there',
            'there are none',
            'talk',
            'conversation/count',
            'how many {things} are there',
        ),
    ]

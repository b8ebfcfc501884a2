"""Questions about some frames as one batch of tensors, with what every head has to answer."""

from typing import NamedTuple, Optional

import numpy as np
import torch

from mta_perception.answers import MASK_SCALE
from mta_perception.contract import BoxCode
from mta_perception.geometry import invert_rigid, transform_boxes
from mta_perception.model.asking import Scene
from mta_training.losses.tasks.footprints import footprint_masks
from mta_training.losses.tasks.mask import MaskTargets
from mta_training.losses.tasks.region import RegionTargets
from mta_training.losses.tasks.temporal import TemporalTargets
from mta_training.losses.tasks.track import TrackTargets
from mta_training.questions.scene_facts import SceneFacts
from mta_training.tpo.frames import SceneFrames, matches, scene_tensors


class Asked(NamedTuple):
    """A scene that can be asked about: what is seen, what is true, who was found by what."""

    frames: SceneFrames
    facts: SceneFacts
    found: dict  # instance -> for each frame the rows of SceneFrames.objects that found it


class Slots(NamedTuple):
    """Where the answers of one head stand in a batch, and what is right."""

    rows: torch.Tensor  # (n,) of the batch's N questions
    places: torch.Tensor  # (n,), of a track (n, T): places of its slots in the row
    targets: object  # Targets of the head


class AskBatch(NamedTuple):
    """N questions about B frames; S places, padded behind."""

    scene: Scene
    rows: torch.Tensor  # (N,) int64: which of the B frames
    ids: torch.Tensor  # (N, S) int64
    said: torch.Tensor  # (N, S) bool: has to be said
    tasks: torch.Tensor  # (N, S) bool: of these, task tokens
    words: torch.Tensor  # (N, S) bool: words of the instruction
    lengths: torch.Tensor  # (N,) int64: places of each row that are no padding
    here: Optional[tuple]  # (rows (m,), places (m,), boxes (m, 10)) of location prompts
    slots: dict  # head -> Slots


def asked(frames, facts):
    """Asked of a scene; raises ValueError where frames and facts are of different key frames."""
    if not np.array_equal(frames.stamps_ns, facts.stamps_ns):
        raise ValueError(
            f'{facts.name}: {len(frames.stamps_ns)} frames were seen, the bag has '
            f'{len(facts.stamps_ns)}; remove the cache and see it again.'
        )
    found = {track.instance: [()] * facts.frames for track in facts.objects}
    known = Asked(frames, facts, found)
    for frame in range(facts.frames):
        find_at(known, frame)
    return known


def find_at(known, frame):
    """Fill in who was found by what in one frame of an Asked."""
    tracks = known.facts.seen_at(frame)
    if not tracks:
        return
    boxes = np.stack([track.boxes[frame] for track in tracks])
    labels = np.array([track.label for track in tracks])
    for track, rows in zip(tracks, matches(known.frames, frame, boxes, labels)):
        known.found[track.instance][frame] = tuple(rows)


def windows_of(questions):
    """The windows (scene, first, now) of Questions, each once, and whose (N,) is which."""
    windows = list(dict.fromkeys((q.scene, q.first, q.now) for q in questions))
    return windows, [windows.index((q.scene, q.first, q.now)) for q in questions]


def make_batch(vocabulary, heads, questions, scenes, memory):
    """AskBatch of questions; scenes: {name: Asked}.  heads: names of the heads there are."""
    windows, rows = windows_of(questions)
    scene = scene_tensors([(scenes[name].frames, a, b) for name, a, b in windows], memory)
    frames = scene.frame_mask.shape[1]
    tokens = [vocabulary.row(question, frames, heads) for question in questions]
    longest = max(len(row.ids) for row in tokens)
    ids = np.full((len(tokens), longest), vocabulary.pad)
    said, tasks, words = (np.zeros((len(tokens), longest), bool) for _ in range(3))
    for index, row in enumerate(tokens):
        ids[index, : len(row.ids)] = row.ids
        said[index, : len(row.ids)] = row.said
        tasks[index, : len(row.ids)] = row.tasks
        words[index, row.words[0] : row.words[1]] = True
    rows = torch.tensor(rows)
    slots = {}
    for head in heads:
        chosen = [index for index, row in enumerate(tokens) if head in row.slots]
        if chosen:
            places = np.stack([tokens[index].slots[head] for index in chosen])
            asks = [questions[index] for index in chosen]
            known = [scenes[question.scene] for question in asks]
            targets = _TARGETS[head](asks, known, scene.take(rows[chosen]), rows[chosen])
            places = places if head == 'track' else places[:, 0]
            slots[head] = Slots(torch.tensor(chosen), torch.from_numpy(places), targets)
    return AskBatch(
        scene,
        rows,
        *(torch.from_numpy(part) for part in (ids, said, tasks, words)),
        torch.tensor([len(row.ids) for row in tokens]),
        place_here(questions, [row.here for row in tokens], scenes),
        slots,
    )


def place_here(questions, places, scenes):
    """(rows (m,), places (m,), boxes (m, 10)) of location prompts, None for none of them.

    places: of <here> in each question's row, -1 where there is none
    """
    chosen = [row for row, place in enumerate(places) if place >= 0]
    if not chosen:
        return None
    boxes = [
        _box(scenes[questions[row].scene].facts.track(questions[row].here), questions[row].now)
        for row in chosen
    ]
    places = [places[row] for row in chosen]
    return torch.tensor(chosen), torch.tensor(places), torch.from_numpy(np.stack(boxes))


def _box(track, frame):
    """(10,) float32 with an unknown velocity as none."""
    box = track.boxes[frame].astype(np.float32)
    return np.where(np.isfinite(box), box, np.float32(0.0))


def _region(questions, scenes, scene, _):
    count = scene.objects.shape[2]
    pointed = pointed_now(questions, scenes, count)
    boxes = np.zeros((len(questions), BoxCode.WIDTH), np.float32)
    goals = np.zeros((len(questions), count, BoxCode.WIDTH), np.float32)
    for row, (question, known) in enumerate(zip(questions, scenes)):
        for instance in question.instances:
            track = known.facts.track(instance)
            boxes[row] = track.boxes[question.now]
            for query in known.found[instance][question.now]:
                goals[row, query] = track.boxes[question.now]
    known = torch.ones(len(questions), dtype=torch.bool)
    return RegionTargets(*map(torch.from_numpy, (pointed, boxes)), known, torch.from_numpy(goals))


def pointed_now(questions, scenes, count):
    """(n, count + 1) bool: the objects of now that found a meant one; the last, none of them, is
    never right here."""
    pointed = np.zeros((len(questions), count + 1), bool)
    for row, (question, known) in enumerate(zip(questions, scenes)):
        for instance in question.instances:
            pointed[row, list(known.found[instance][question.now])] = True
    return pointed


def _temporal(questions, scenes, scene, rows):
    del scenes
    frames = scene.frame_mask.shape[1]
    most = max(len(question.spans) for question in questions)
    spans = np.zeros((len(questions), most, 2), np.float32)
    saliency = np.zeros((len(questions), frames), np.float32)
    for row, question in enumerate(questions):
        length = question.now - question.first + 1
        for index, (a, b) in enumerate(question.spans):
            begin, end = (a - question.first) / length, (b + 1 - question.first) / length
            spans[row, index] = (begin + end) / 2.0, end - begin
        saliency[row, frames - length :] = question.saliency
    counts = torch.tensor([len(question.spans) for question in questions])
    # Questions about the same frame see the same frames: no negatives for each other.
    return TemporalTargets(torch.from_numpy(spans), counts, torch.from_numpy(saliency), rows)


def _mask(questions, scenes, scene, _):
    cells = MASK_SCALE * scene.bev.shape[-1]
    masks = [true_mask(known.facts, question, cells) for question, known in zip(questions, scenes)]
    pointed = torch.from_numpy(pointed_now(questions, scenes, scene.objects.shape[2]))
    return MaskTargets(torch.stack(masks), torch.ones(len(questions), dtype=torch.bool), pointed)


def true_mask(facts, question, cells):
    """(cells, cells) bool: footprints of the objects that are meant, at `now`."""
    boxes = np.stack([_box(facts.track(one), question.now) for one in question.instances])
    return footprint_masks(torch.from_numpy(boxes), cells).any(0)


def _track(questions, scenes, scene, _):
    _, frames, count, _ = scene.objects.shape
    shape = len(questions), frames
    pointed = np.zeros((*shape, count + 1), bool)
    boxes = np.zeros((*shape, BoxCode.WIDTH), np.float32)
    visible = np.zeros(shape, bool)
    for row, (question, known) in enumerate(zip(questions, scenes)):
        instance = question.instances[0]
        for frame in range(question.first, question.now + 1):
            place = frames - 1 - (question.now - frame)
            for query in known.found[instance][frame]:
                pointed[row, place, query] = True
        rows = slice(frames - 1 - (question.now - question.first), frames)
        boxes[row, rows], visible[row, rows] = true_track(known.facts, question)
    return TrackTargets(*map(torch.from_numpy, (pointed, boxes, visible)), scene.frame_mask)


def true_track(facts, question):
    """Boxes (n, 10) of the followed object in the ego frame of now, and whether it is seen (n,),
    at the frames first..now."""
    track = facts.track(question.instances[0])
    now_from_world = invert_rigid(facts.world_from_ego[question.now])
    frames = range(question.first, question.now + 1)
    boxes = np.zeros((len(frames), BoxCode.WIDTH), np.float32)
    visible = track.seen[question.first : question.now + 1].copy()
    for index, frame in enumerate(frames):
        if visible[index]:
            now_from_then = now_from_world @ facts.world_from_ego[frame]
            boxes[index] = transform_boxes(now_from_then, _box(track, frame)[None])[0]
    return boxes, visible


_TARGETS = {'region': _region, 'temporal': _temporal, 'mask': _mask, 'track': _track}

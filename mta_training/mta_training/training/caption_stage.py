"""Last stage of a run: captioner and adapter alone, on what the finished detector sees.

A caption costs a hundredth of what the frame costs that it belongs to.  With the detector frozen,
its view of each object is computed once, and the captioner learns from all of them many times:
distances and colours, which take it longest, then come out right.  The alignments go on as before.
"""

import math

import numpy as np
import torch

from mta_perception.model.nano.detection_decoder import codes_from_boxes
from mta_perception.progress import Progress
from mta_training.data.batches import Place, make_batch
from mta_training.losses.described_objects import Rows, described_boxes
from mta_training.losses.nano import match
from mta_training.process_group import Team


@torch.no_grad()
def look(model, scenes, frames, rng):
    """(Rows with float16 features, true boxes (R, 10)) of the objects in about `frames` frames,
    spread over the scenes.

    Each scene is walked in its order, so that the memory is what it is on the road.
    """
    model.eval()
    length = max(1, math.ceil(frames / len(scenes)))
    parts, texts = [], []
    chosen_scenes = rng.permutation(len(scenes)).tolist()[:frames]
    for scene in Progress('scenes seen for captions', len(chosen_scenes)).over(chosen_scenes):
        count = len(scenes[scene].boxes)
        first = int(rng.integers(0, max(1, count - length + 1)))
        for result, batch in _walk(model, scenes[scene], first, min(count, first + length)):
            queries, objects = match(
                result.class_logits[0], codes_from_boxes(result.boxes[0]), batch.targets[0]
            )
            keep = [i for i, chosen in enumerate(objects) if batch.captions[0][chosen]]
            if not keep:
                continue
            queries, objects = queries[keep], objects[keep]
            true = batch.targets[0].boxes[objects]
            read = model.qformer.look(true, result.bev[0].float())
            parts.append(
                (
                    result.object_features[0, queries].half(),
                    result.boxes[0, queries],
                    result.class_logits[0, queries].float(),
                    result.codes[0, queries].float(),
                    read.expand(len(queries), -1, -1).half(),
                    true,
                )
            )
            texts += [batch.captions[0][chosen] for chosen in objects]
    if not parts:
        raise ValueError('no object of the training scenes has a caption')
    *columns, true = (torch.cat(part) for part in zip(*parts))
    return Rows(*columns, texts), true


def _walk(model, scene, first, end):
    bev = model.config.bev
    memory = torch.zeros(1, bev.channels, bev.cells, bev.cells)
    for frame in range(first, end):
        batch = make_batch([scene], [Place(0, frame, frame > first)])
        with torch.autocast('cpu', torch.bfloat16):
            result = model.detector(
                batch.images,
                batch.image_from_ego,
                batch.camera_mask,
                memory,
                batch.history_valid,
                batch.ego_prev_from_ego_now,
            )
        memory = result.bev
        yield result, batch


def finish_captions(
    learner, scenes, steps, *, frames=1500, batch=64, learning_rate=6e-4, seed=0, log_line=print
):
    """Train Q-Former, adapter and alignments for `steps` after looking; returns the loss.

    The detector is not changed.
    """
    rng = np.random.default_rng(seed)
    learner.cpu()
    views, true = look(learner.model, scenes, frames, rng)
    log_line(f'captions: {len(true)} objects seen')
    learner.train()
    trained = [
        parameter
        for name, parameter in learner.named_parameters()
        if parameter.requires_grad and not name.startswith(('model.detector.', 'perspective.'))
    ]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    team, smooth = Team(), None
    # Alone, whatever other processes there are: they wait.
    team.rank, team.size = 0, 1
    progress = Progress('captions', steps)
    for step in progress.over(range(steps)):
        share = step / steps
        for group in optimizer.param_groups:
            group['lr'] = (
                learning_rate
                * min(1.0, share / 0.05 + 0.02)
                * 0.5
                * (1.02 + math.cos(math.pi * share))
            )
        rows = _rows(views, true, rng.integers(0, len(true), batch), rng)
        log = {}
        loss = sum(learner.caption_terms(rows, log, team).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        smooth = log['language'] if smooth is None else 0.98 * smooth + 0.02 * log['language']
        progress.words = f'loss {smooth:.3f}'
    learner.eval()
    return smooth


def _rows(views, true, chosen, rng):
    """Rows of a batch of views, with boxes shaken anew."""
    chosen = torch.from_numpy(chosen)
    boxes = described_boxes(views.boxes[chosen], true[chosen], rng)
    return Rows(
        views.object_features[chosen].float(),
        boxes,
        views.class_logits[chosen],
        views.codes[chosen],
        views.read[chosen].float(),
        [views.texts[i] for i in chosen.tolist()],
    )

"""Last stage of a run: captioner and adapter alone, on what the finished detector sees.

A caption costs a hundredth of what the frame costs that it belongs to.  With the detector frozen,
its view of each object is computed once, and the captioner learns from all of them many times:
distances and colours, which take it longest, then come out right.  The alignments go on as before,
and so does what the captioner is told: true boxes shaken anew, or the predicted ones.
"""

import math

import numpy as np
import torch

from mta_perception.progress import Progress
from mta_perception.runtime.torch_detector import TorchDetector
from mta_training.data.scene_drive import drive_scene
from mta_training.data.targets import Targets
from mta_training.losses.described_objects import Rows, described_boxes
from mta_training.process_group import ProcessGroup


@torch.no_grad()
def seen_objects(learner, scenes, frames, rng):
    """(Rows with float16 features, true boxes (R, 10)) of the objects in about `frames` frames,
    spread over the scenes; on the CPU.

    Each scene is driven in its order, so that the memory is what it is on the road.
    """
    model = learner.model.eval()
    detector = TorchDetector(model.detector)
    length = max(1, math.ceil(frames / len(scenes)))
    parts, texts = [], []
    chosen = rng.permutation(len(scenes)).tolist()[:frames]
    for number in Progress('scenes seen for captions', len(chosen)).over(chosen):
        scene = scenes[number]
        count = len(scene.boxes)
        first = int(rng.integers(0, max(1, count - length + 1)))
        shown = range(first, min(count, first + length))
        for index, driven in zip(shown, drive_scene(detector.detect, scene, shown)):
            described = _described(learner, driven.outputs, scene, index)
            if described is not None:
                parts.append(described[0])
                texts += described[1]
    if not parts:
        raise ValueError('no object of the training scenes has a caption')
    *columns, true = (torch.cat(part) for part in zip(*parts))
    return Rows(*columns, texts), true


def _described(learner, found, scene, index):
    """(Columns of Rows and true boxes, texts) of what was found in one keyframe, or None."""
    targets = Targets(torch.from_numpy(scene.boxes[index]), torch.from_numpy(scene.labels[index]))
    queries, objects = learner.criterion.match(found, targets)
    captions = scene.captions[index]
    keep = [i for i, chosen in enumerate(objects) if captions[chosen]]
    if not keep:
        return None
    queries, objects = queries[keep], objects[keep]
    true = targets.boxes[objects]
    told = true if learner.recipe.captions.box == 'true' else found.boxes[queries]
    read = learner.model.qformer.read_bev(told.to(found.bev.device), found.bev)
    columns = (
        found.object_features[queries].half(),
        found.boxes[queries],
        found.class_logits[queries],
        found.codes[queries],
        read.expand(len(queries), -1, -1).half(),
        true,
    )
    return [column.cpu() for column in columns], [captions[chosen] for chosen in objects]


def finish_captions(
    learner, scenes, steps, *, frames=1500, batch=64, learning_rate=6e-4, seed=0, log_line=print
):
    """Train Q-Former, adapter and alignments for `steps`, on what the detector sees of scenes.

    Returns the loss.  The detector is not changed.
    """
    rng = np.random.default_rng(seed)
    seen, true = seen_objects(learner, scenes, frames, rng)
    log_line(f'captions: {len(true)} objects seen')
    learner.train()
    trained = [
        parameter
        for name, parameter in learner.named_parameters()
        if parameter.requires_grad and not name.startswith(('model.detector.', 'heads.'))
    ]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    device = trained[0].device
    processes, smooth = ProcessGroup.alone(), None  # the other processes wait
    shaken = true if learner.recipe.captions.box == 'true' else None
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
        rows = _rows(seen, shaken, rng.integers(0, len(true), batch), rng, device)
        loss = learner.caption_loss(rows, processes)
        optimizer.zero_grad(set_to_none=True)
        sum(loss.terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        now = loss.log['language']
        smooth = now if smooth is None else 0.98 * smooth + 0.02 * now
        progress.words = f'loss {smooth:.3f}'
    learner.eval()
    return smooth


def _rows(seen, true, chosen, rng, device):
    """Rows of a batch of what was seen, with true boxes shaken anew; None = the predicted ones."""
    chosen = torch.from_numpy(chosen)
    boxes = seen.boxes[chosen]
    columns = (
        seen.object_features[chosen].float(),
        boxes if true is None else described_boxes(boxes, true[chosen], rng),
        seen.class_logits[chosen],
        seen.codes[chosen],
        seen.read[chosen].float(),
    )
    texts = [seen.texts[i] for i in chosen.tolist()]
    return Rows(*(column.to(device) for column in columns), texts)

"""Caption side of training: which objects are described, and with what geometry."""

import hashlib
from typing import NamedTuple

import numpy as np
import torch


class Rows(NamedTuple):
    """R described objects of a batch, as the detector sees them, with their true captions."""

    object_features: torch.Tensor  # (R, F)
    boxes: torch.Tensor  # (R, 10) contract.BoxCode, what the captioner is told
    class_logits: torch.Tensor  # (R, K) of the matched query, with its gradient
    codes: torch.Tensor  # (R, 10) its box as the network says it, with its gradient
    read: torch.Tensor  # (R, S, C) what QFormer.read_bev saw of the BEV
    texts: list  # R strings


def pick_objects(matches, captions, most, generators):
    """Per frame up to `most` matched pairs with a caption: (queries (m,), objects (m,)) arrays."""
    picked = []
    for (queries, objects), texts, rng in zip(matches, captions, generators):
        described = [i for i, chosen in enumerate(objects) if texts[chosen]]
        rng.shuffle(described)
        described = np.array(described[:most], dtype=np.int64)
        picked.append((np.asarray(queries)[described], np.asarray(objects)[described]))
    return picked


def described_boxes(predicted, true, rng):
    """Boxes (m, 10) the captioner is told about while it learns.

    A caption must fit the box it comes with, so place and size are the true ones with a little
    noise. The velocity is the true one or, half the time, what the detector believes.
    """
    boxes = true.clone()
    boxes[:, :3] += torch.from_numpy(rng.normal(0.0, 0.2, (len(true), 3))).float()
    boxes[:, 3:6] *= torch.from_numpy(np.exp(rng.normal(0.0, 0.05, (len(true), 3)))).float()
    believe = torch.from_numpy(rng.random((len(true), 1)) < 0.5) | ~torch.isfinite(true[:, 8:10])
    believed = predicted[:, 8:10].detach().to(true.device)
    boxes[:, 8:10] = torch.where(believe, believed, true[:, 8:10])
    return boxes


def described_rows(qformer, result, batch, matches, captions, generators):
    """Rows of a batch; `captions` are settings.Captions.  May be empty (R = 0)."""
    parts, texts = [], []
    picked = pick_objects(matches, batch.captions, captions.objects, generators)
    for index, (queries, objects) in enumerate(picked):
        boxes = result.boxes[index, queries]
        if captions.box == 'true':
            true = batch.targets[index].boxes[objects]
            boxes = described_boxes(boxes, true, generators[index]).to(boxes.device)
        read = qformer.read_bev(boxes, result.bev[index].float())
        parts.append(
            (
                result.object_features[index, queries],
                boxes,
                result.class_logits[index, queries],
                result.codes[index, queries],
                read.expand(len(queries), -1, -1),
            )
        )
        texts += [batch.captions[index][chosen] for chosen in objects]
    return Rows(*(torch.cat(part) for part in zip(*parts)), texts)


def corrupted(captions, missing, wrong, seed):
    """Captions (a list of lists a scene: frames of objects) with some gone and some swapped.

    What befalls a caption depends on the seed, its scene, frame and place alone.
    """
    if not missing and not wrong:
        return captions
    said = [text for scene in captions for frame in scene for text in frame if text]
    result = []
    for number, scene in enumerate(captions):
        frames = []
        for index, frame in enumerate(scene):
            rng = np.random.default_rng([seed, number, index])
            fate, other = rng.random(len(frame)), rng.integers(0, max(1, len(said)), len(frame))
            frames.append(
                [
                    ''
                    if luck < missing or not text
                    else said[pick]
                    if luck < missing + wrong
                    else text
                    for text, luck, pick in zip(frame, fate, other)
                ]
            )
        result.append(frames)
    return result


def text_groups(texts):
    """Equal texts get equal numbers, in every process: (R,) int64 of a stable hash."""
    return torch.tensor(
        [
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), 'big')
            for text in texts
        ],
        dtype=torch.int64,
    )

"""Last stage of a run: captioner and language model alone, on what the finished detector sees.

A caption costs a hundredth of what the frame costs that it belongs to.  With the detector frozen,
its view of each object is computed once, and the captioner learns from all of them many times:
distances and colours, which take it longest, then come out right.
"""

import math
import time
from typing import NamedTuple

import numpy as np
import torch

from mta_training.captioning import described_boxes
from mta_training.language_training import PAD, caption_loss, encode_captions
from mta_training.losses import match
from mta_training.samples import Place, make_batch


class Views(NamedTuple):
    """M described objects as the detector sees them, with their true boxes and captions."""

    object_features: torch.Tensor   # (M, F) float16
    class_logits: torch.Tensor      # (M, K)
    predicted: torch.Tensor         # (M, 10) contract.BoxCode
    true: torch.Tensor              # (M, 10)
    surroundings: torch.Tensor      # (M, S, C) float16, the BEV around the object
    token_ids: torch.Tensor         # (M, T) int64, padded


@torch.no_grad()
def look(model, tokenizer, scenes, frames, rng):
    """Views of the objects in about `frames` frames of SceneArrays, spread over the scenes.

    Each scene is walked in its order, so that the memory is what it is on the road.
    """
    model.eval()
    length = max(1, math.ceil(frames / len(scenes)))
    parts, texts = [], []
    for scene in rng.permutation(len(scenes)).tolist()[:frames]:
        count = len(scenes[scene].boxes)
        first = int(rng.integers(0, max(1, count - length + 1)))
        for result, batch in _walk(model, scenes[scene], first, min(count, first + length)):
            queries, objects = match(result.class_logits[0], result.stages.layer_codes[-1, 0],
                                     batch.targets[0])
            keep = [i for i, chosen in enumerate(objects) if batch.captions[0][chosen]]
            if not keep:
                continue
            queries, objects = queries[keep], objects[keep]
            true = batch.targets[0].boxes[objects]
            parts.append((result.object_features[0, queries].half(),
                          result.class_logits[0, queries].float(),
                          result.boxes[0, queries].float(), true,
                          model.qformer.look_around(true, result.bev[0].float()).half()))
            texts += [batch.captions[0][chosen] for chosen in objects]
    if not parts:
        raise ValueError('no object of the training scenes has a caption')
    rows = encode_captions(tokenizer, texts, model.config.language.max_tokens)
    return Views(*(torch.cat(part) for part in zip(*parts)), torch.from_numpy(rows))


def _walk(model, scene, first, end):
    bev = model.config.bev
    memory = torch.zeros(1, bev.channels, bev.cells, bev.cells)
    for frame in range(first, end):
        batch = make_batch([scene], [Place(0, frame, frame > first)])
        with torch.autocast('cpu', torch.bfloat16):
            result = model.detector(batch.images, batch.image_from_ego, batch.camera_mask, memory,
                                    batch.history_valid, batch.ego_prev_from_ego_now)
        memory = result.bev
        yield result, batch


def finish_captions(model, tokenizer, scenes, minutes, *, frames=1500, batch=64,
                    learning_rate=6e-4, seed=0, log_line=print):
    """Train the captioner and the language model for `minutes` after looking; returns the loss.

    The detector is not changed.
    """
    rng = np.random.default_rng(seed)
    views = look(model, tokenizer, scenes, frames, rng)
    log_line(f'captions: {len(views.true)} objects seen')
    trained = torch.nn.ModuleList([model.qformer, model.language]).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=learning_rate, weight_decay=0.01)
    began, step, smooth = time.monotonic(), 0, None
    while (share := (time.monotonic() - began) / (60.0 * minutes)) < 1.0:
        for group in optimizer.param_groups:
            group['lr'] = learning_rate * min(1.0, share / 0.05 + 0.02) * 0.5 * (
                1.02 + math.cos(math.pi * share))
        loss = _loss(model, views, torch.from_numpy(rng.integers(0, len(views.true), batch)), rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        step += 1
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 100 == 0:
            log_line(f'captions {100 * share:5.1f} %  step {step}  loss {smooth:.3f}')
    model.eval()
    return smooth


def _loss(model, views, rows, rng):
    token_ids = views.token_ids[rows]
    token_ids = token_ids[:, :int((token_ids != PAD).sum(1).max())]
    boxes = described_boxes(views.predicted[rows], views.true[rows], rng)
    with torch.autocast('cpu', torch.bfloat16):
        states = model.qformer.states_from(
            views.object_features[rows].float(), boxes, views.class_logits[rows],
            views.surroundings[rows].float())
        prefix = model.qformer.prefix_of(states)
        logits = model.language(prefix, token_ids).logits
    return caption_loss(logits, token_ids, prefix.shape[1])

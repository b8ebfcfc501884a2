"""Caption side of training: which objects are described, and with what geometry."""

import numpy as np
import torch

from mta_training.language_training import caption_loss, encode_captions


def pick_objects(matches, captions, most, rng):
    """Per frame up to `most` matched pairs with a caption: (queries (m,), objects (m,)) arrays."""
    picked = []
    for (queries, objects), texts in zip(matches, captions):
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
    boxes[:, 8:10] = torch.where(believe, predicted[:, 8:10].detach(), true[:, 8:10])
    return boxes


def language_loss(model, tokenizer, result, batch, matches, most, rng):
    """Mean caption cross-entropy over `most` objects a frame; None where none has a caption."""
    prefixes, texts = [], []
    for index, (queries, objects) in enumerate(pick_objects(matches, batch.captions, most, rng)):
        if not len(queries):
            continue
        boxes = described_boxes(result.boxes[index, queries], batch.targets[index].boxes[objects],
                                rng)
        prefixes.append(model.qformer(
            result.object_features[index, queries], boxes,
            result.class_logits[index, queries].detach(), result.bev[index]))
        texts += [batch.captions[index][chosen] for chosen in objects]
    if not texts:
        return None
    rows = encode_captions(tokenizer, texts, model.config.language.max_tokens)
    prefix, token_ids = torch.cat(prefixes), torch.from_numpy(rows)
    logits = model.language(prefix, token_ids).logits
    return caption_loss(logits, token_ids, prefix.shape[1])


@torch.no_grad()
def generate(model, tokenizer, prefix):
    """Greedy captions of prefixes (N, P, D): N strings."""
    config = model.config.language
    bos, eos = tokenizer.token_to_id('<s>'), tokenizer.token_to_id('</s>')
    token_ids = torch.full((len(prefix), 1), bos)
    outputs = model.language(prefix, token_ids)
    rows = [[] for _ in range(len(prefix))]
    open_rows = torch.ones(len(prefix), dtype=torch.bool)
    for _ in range(config.max_tokens):
        token_ids = outputs.logits[:, -1].argmax(-1, keepdim=True)
        open_rows &= token_ids[:, 0] != eos
        if not open_rows.any():
            break
        for row in torch.nonzero(open_rows).flatten().tolist():
            rows[row].append(int(token_ids[row, 0]))
        outputs = model.language(prefix[:, :0], token_ids, outputs.keys, outputs.values)
    return [tokenizer.decode(row) for row in rows]

"""Captions a second, over how many objects are told at once and how large the language model is.

Ours is the shipped one, in onnxruntime, its sentences as long as they are.  The others have random
weights of real shapes, in torch, float32, and say TOKENS words whatever they mean.  `--large` (or
MTA_BENCH_LARGE) adds Llama-3.2-1B's shape, for machines with 8 GB.  A floor is that of the
language model: its weights read once a word, or its products.
"""

import argparse
import os
import statistics

from drive import model
from floors import floor_ms
from language_shapes import SHAPES
import numpy as np
from report import Row, quick, report, timed

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import CaptionInputs
from mta_perception.runtime.session import open_session
from mta_perception.runtime.speech import open_captioner

PREFIX, PROMPT, TOKENS = 10, 7, 24
OBJECTS = (1, 8, 24)


def feature_width(manifest):
    """F of `object_features`, which only the graph knows."""
    inputs = open_session(manifest.path('qformer.onnx'), 1).get_inputs()
    return next(entry.shape[1] for entry in inputs if entry.name == 'object_features')


def ours(objects, repeats):
    """[(objects, milliseconds, None)] of the shipped captioner, Q-Former included."""
    manifest, rng = model(), np.random.default_rng(0)
    width = feature_width(manifest)
    bev = rng.normal(0, 1, (manifest.bev.channels, manifest.bev.cells, manifest.bev.cells))
    captioner = open_captioner(manifest, 1)
    found = []
    for count in objects:
        inputs = CaptionInputs(
            rng.normal(0, 1, (count, width)).astype(np.float32),
            rng.normal(0, 10, (count, BoxCode.WIDTH)).astype(np.float32),
            rng.normal(0, 1, (count, len(CLASSES))).astype(np.float32),
            bev.astype(np.float32),
        )
        samples = timed(lambda told=inputs: captioner.caption(told), repeats)
        found.append((count, samples, None))
    return found


def of_shape(shape, objects, repeats, tokens=TOKENS):
    """[(objects, milliseconds, floor in ms)] of a Llama with random weights, one thread."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from mta_perception.runtime.torch_captioner import greedy_words

    torch.manual_seed(0)
    torch.set_num_threads(1)
    llama = LlamaForCausalLM(LlamaConfig(**shape)).eval().requires_grad_(False)
    # The embedding is looked up, not multiplied; the last product is made for the newest place.
    layers = sum(one.numel() for one in llama.model.layers.parameters())
    last = llama.lm_head.weight.numel()
    cores = len(os.sched_getaffinity(0))
    head = torch.ones(1, PROMPT, dtype=torch.int64)
    found = []
    for count in objects:
        prefix = torch.randn(count, PREFIX, llama.config.hidden_size)

        def say(prefix=prefix):
            with torch.inference_mode():
                greedy_words(llama, head, -1, prefix, tokens)

        flops = 2 * count * (layers * (PREFIX + PROMPT + tokens - 1) + last * tokens)
        least = floor_ms(flops, 4 * (layers + last) * tokens, cores=1 / cores)
        found.append((count, timed(say, repeats, warm_up=1), least))
    return found


def rows_of(name, found):
    """(rows of milliseconds, rows of captions a second)."""
    times, rates = [], []
    for count, samples, least in found:
        label = f'{name}: {count} object{"s" if count > 1 else ""}'
        times.append(Row(label, samples, least))
        best = None if least is None else 1e3 * count / least
        rates.append(Row(label, [1e3 * count / statistics.median(samples)], best))
    return times, rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--large', action='store_true', help='Llama-3.2-1B too: 5 GB')
    large = parser.parse_args().large or bool(os.environ.get('MTA_BENCH_LARGE'))
    shapes = dict(SHAPES)
    if not large:
        shapes.pop('Llama-3.2-1B')
    if quick(True, False):
        shapes.pop('SmolLM2-135M')
    objects = quick(OBJECTS[:2], OBJECTS)
    times, rates = rows_of('ours', ours(OBJECTS, quick(5, 20)))
    for name, shape in shapes.items():
        more_times, more_rates = rows_of(name, of_shape(shape, objects, quick(2, 5)))
        times, rates = times + more_times, rates + more_rates
    note = f'One thread. Shapes with random weights in float32: {TOKENS} words each.'
    report('Captions: a batch', times, note=note)
    report('Captions: a second', rates, unit='a second', note='Floor: the most.')


if __name__ == '__main__':
    main()

"""How long an answer takes, by what is asked; what questions cost detections while nobody asks.

The model of MTA_BENCH_MODEL must have task heads (docs/ask.md).
"""

from dataclasses import replace
import time

from drive import drive, frame_sets, model
from report import Row, report

from mta_perception.pipeline.answering import answer
from mta_perception.pipeline.step import DroppedFrame, PerceptionPipeline
from mta_perception.runtime.asking import OnnxAsker
from mta_perception.runtime.onnx import OnnxDetector

ASKED = {
    'region': 'where is the closest car',
    'temporal': 'when is the closest car moving',
    'mask': 'segment the closest car',
    'track': 'follow the closest car',
    'words': 'how many cars are there',
}
REPEATS = 10


def main():
    manifest, scene = model(), drive()
    if manifest.tasks is None:
        print(f'{manifest.name} has no task heads: nothing to measure')
        return
    pipeline = PerceptionPipeline(manifest, OnnxDetector(manifest, 2))
    plain = PerceptionPipeline(replace(manifest, tasks=None), OnnxDetector(manifest, 2))
    steps = {'a step, no questions': (plain, []), 'a step that remembers': (pipeline, [])}
    for frames, ego_motion in frame_sets(scene):
        for used, samples in steps.values():  # in turn: both see the same machine
            began = time.perf_counter()
            try:
                used.step(frames, scene.calibrations, ego_motion)
            except DroppedFrame:
                continue
            samples.append((time.perf_counter() - began) * 1e3)
    report(
        f'Questions of {manifest.name} while nobody asks',
        [Row(name, samples[3:]) for name, (_, samples) in steps.items()],
    )
    _ask(manifest, pipeline.scene)
    for used, _ in steps.values():
        used.close()


def _ask(manifest, memory):
    for threads in (1, 2):
        asker, rows = OnnxAsker(manifest, threads), []
        for name, text in ASKED.items():
            samples = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                answer(asker, memory, text)
                samples.append((time.perf_counter() - began) * 1e3)
            rows.append(Row(f'{name}: {text}', samples[1:]))
        frames, _ = memory.state()
        report(f'An answer, {frames} frames remembered, threads {threads}', rows)


if __name__ == '__main__':
    main()

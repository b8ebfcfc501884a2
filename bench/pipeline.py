"""Stages of a step over a drive, without ROS; baseline is the detector."""

from collections import defaultdict

from drive import drive, frame_sets, model
from report import Row, report

from mta_perception.pipeline.step import DroppedFrame, PerceptionPipeline
from mta_perception.runtime.onnx import OnnxDetector

WARM_UP = 3


def main():
    manifest, scene = model(), drive()
    pipeline = PerceptionPipeline(manifest, OnnxDetector(manifest, 2))
    stages, dropped = defaultdict(list), 0
    for index, (frames, ego_motion) in enumerate(frame_sets(scene)):
        try:
            result = pipeline.step(frames, scene.calibrations, ego_motion)
        except DroppedFrame as drop:
            print(f'dropped: {drop}')
            dropped += 1
            continue
        if index >= WARM_UP:
            for stage, value in result.timings_ms.items():
                stages[stage].append(value)
            stages['all'].append(sum(result.timings_ms.values()))
    pipeline.close()
    rows = [
        Row('detector', stages.pop('detector')),
        *(Row(stage, samples) for stage, samples in stages.items()),
    ]
    report(f'Pipeline with {manifest.name}, 2 threads', rows)


if __name__ == '__main__':
    main()

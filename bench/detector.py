"""The detector graph alone; baseline is one thread."""

from drive import drive, frame_sets, model
import numpy as np
from report import Row, report, timed

from mta_perception.pipeline.bev_memory import History
from mta_perception.pipeline.step import PerceptionPipeline
from mta_perception.runtime.onnx import OnnxDetector

REPEATS = 15


def main():
    manifest, scene = model(), drive()
    pipeline = PerceptionPipeline(manifest, OnnxDetector(manifest, 2))
    frames, ego_motion = next(
        (frames, ego) for frames, ego in frame_sets(scene) if not frames.missing
    )
    step = pipeline.step(frames, scene.calibrations, ego_motion)
    pipeline.close()
    present = np.ones(len(step.images), np.float32)
    history = History(step.caption_inputs.bev, True, np.eye(4), manifest.history_step_s)
    rows = []
    for threads in (1, 2):
        detector = OnnxDetector(manifest, threads)
        rows.append(
            Row(
                f'{threads} threads',
                timed(
                    lambda run=detector: run(step.images, step.image_from_ego, present, history),
                    REPEATS,
                ),
            )
        )
    report(f'Detector {manifest.name}', rows)


if __name__ == '__main__':
    main()

"""The detector graph alone, by engine, precision and threads, all in turn; baseline is onnxruntime
with one thread on detector.onnx."""

from drive import drive, frame_sets, model
import numpy as np
from report import Row, report, timed_in_turn

from mta_perception.pipeline.bev_memory import History
from mta_perception.pipeline.step import PerceptionPipeline
from mta_perception.runtime import openvino_graph
from mta_perception.runtime.engines import FLOAT_FILE, EngineSettings
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
    both = FLOAT_FILE in manifest.files
    detectors = {
        f'{engine}, {precision}, {threads} threads': OnnxDetector(
            manifest, threads, EngineSettings(engine, precision=precision)
        )
        for precision in (manifest.precision, *(['fp32'] if both else []))
        for engine in ('onnxruntime', *(['openvino'] if openvino_graph.installed() else []))
        for threads in (1, 2)
    }
    given = step.images, step.image_from_ego, present, history
    calls = [lambda run=detector: run(*given) for detector in detectors.values()]
    report(f'Detector {manifest.name}', list(map(Row, detectors, timed_in_turn(calls, REPEATS))))


if __name__ == '__main__':
    main()

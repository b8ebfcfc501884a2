"""Stages of a step over a drive, without ROS; baseline is the detector.

And from the last image to boxes in real time: images decoded as they come, against all of a set in
its step.  Eight sets one way and eight the other, in turn, so that both see the same machine.
"""

from collections import defaultdict
import time

from drive import drive, frame_sets, model
from report import Row, quick, report

from mta_perception.config import SyncConfig
from mta_perception.contract import CAMERAS
from mta_perception.pipeline.camera_sync import CameraSync
from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.pipeline.step import DroppedFrame, PerceptionPipeline
from mta_perception.reasons import Code, Reason
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.workers.newest_worker import NewestWorker

WARM_UP = 3
IN_TURN = 8  # sets
ROUNDS = quick(1, 4)  # of the drive
WAYS = 'decoded in the step', 'decoded on arrival'


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
    report(f'Pipeline with {manifest.name}, 2 threads', rows, note='Baseline: the detector.')
    for rate in quick((1.0,), (0.4, 1.0)):
        in_real_time(manifest, scene, rate)


def in_real_time(manifest, scene, rate):
    pipeline = PerceptionPipeline(manifest, OnnxDetector(manifest, 2))
    boxes, decode = ({way: [] for way in WAYS} for _ in range(2))
    for _ in range(ROUNDS):
        for way, boxes_ms, decode_ms in play(pipeline, scene, rate):
            boxes[way].append(boxes_ms)
            decode[way].append(decode_ms)
        pipeline.memory.reset(Reason(Code.RESET_REQUESTED))
    pipeline.close()
    report(
        f'Played at {rate:g}: from the last image to boxes',
        [Row(way, samples) for way, samples in boxes.items()],
    )
    report(
        f'Played at {rate:g}: of that, waiting for images',
        [Row(way, samples) for way, samples in decode.items()],
    )


def play(pipeline, scene, rate):
    """[(way, ms from the last image to boxes, ms of it waiting for images)] of a drive in real
    time, as the node has it: one thread takes images, another one steps with the newest set."""
    images = list(scene.images())
    sync, ego_motion, taken = CameraSync(CAMERAS, SyncConfig()), EgoMotion(), []
    for pose in zip(*scene.ego_poses):
        ego_motion.add(*pose)

    def step(job):
        frames, way, complete = job
        try:
            result = pipeline.step(frames, scene.calibrations, ego_motion)
        except DroppedFrame as drop:
            print(f'dropped: {drop}')
            return
        taken.append((way, (time.perf_counter() - complete) * 1e3, result.timings_ms['decode']))
        if not worker.backlog()[0]:
            pipeline.rest()

    worker, began = NewestWorker('steps', step), time.perf_counter()
    worker.start()
    for image in images:
        due = began + (image.stamp_ns - images[0].stamp_ns) / 1e9 / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        received = time.perf_counter()
        image = image._replace(received_ns=time.monotonic_ns())
        way = WAYS[sync.sets // IN_TURN % 2]
        if way == WAYS[1]:
            pipeline.begin(image)
        for frames in sync.add(image, time.monotonic_ns()):
            worker.offer((frames, way, received))
    worker.stop()
    return taken[WARM_UP:]


if __name__ == '__main__':
    main()

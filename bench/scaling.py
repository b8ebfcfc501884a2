"""How the cost grows: with cameras (images, synchroniser), cells of the BEV (detector, eager
torch, random weights), objects (boxes to messages; sentences are in captioner.py).  Each stage
alone."""

from dataclasses import replace
import math

from drive import drive, frame_sets, model
from floors import graph_flops
import numpy as np
from report import Row, quick, report, timed

from mta_perception.config import SyncConfig, TrackingConfig
from mta_perception.contract import CAMERAS, CLASSES, BoxCode
from mta_perception.detections import Detections
from mta_perception.frames import CameraImage
from mta_perception.pipeline.camera_sync import CameraSync
from mta_perception.pipeline.duplicates import distinct
from mta_perception.pipeline.images import ModelImageReader, plan_for
from mta_perception.pipeline.tracking import Tracker
from mta_perception.workers.caption_book import CaptionBook, rows_to_caption

START_NS, ROUND_NS = 1_600_000_000 * 10**9, 83_333_333
FRAMES = 30  # of the tracker, in a sample
GRIDS = (20, 50, 100)  # cells a side


def images_of_cameras(scene, repeats):
    """1 to 6 JPEGs of 1600x900 to the model's size, one thread."""
    spec = model().image
    frames = next(frames for frames, _ in frame_sets(scene) if not frames.missing)
    images = list(frames.images.values())
    reader = ModelImageReader(plan_for(spec, 1600, 900))
    out = np.zeros((spec.height, spec.width, 3), np.uint8)

    def read(count):
        for image in images[:count]:
            reader.read(image, out)

    counts = (1, 2, 4, 6)
    return [
        Row(f'images: {count}', timed(lambda count=count: read(count), repeats))
        for count in counts
    ]


def sets_of_cameras(repeats, rounds=100):
    """Milliseconds of a set, of the synchroniser."""
    rows = []
    for count in (1, 2, 4, 6):
        cameras = CAMERAS[:count]

        def put_together(cameras=cameras):
            sync = CameraSync(cameras, SyncConfig())
            for number in range(rounds):
                for place, camera in enumerate(cameras):
                    stamp_ns = START_NS + number * ROUND_NS + place * 7_000_000
                    sync.add(CameraImage(camera, stamp_ns, b'', 'jpeg'), stamp_ns)

        samples = [one / rounds for one in timed(put_together, repeats, warm_up=1)]
        rows.append(Row(f'synchroniser, a set: {count}', samples))
    return rows


def detectors_of_grids(repeats, grids=GRIDS, config=None):
    """Nano with random weights and as many queries, in eager torch of one thread."""
    import torch

    from mta_perception.model.config import MtaConfig
    from mta_perception.model.mta_model import build_detector
    from mta_perception.pipeline.bev_memory import History
    from mta_perception.runtime.torch_detector import TorchDetector

    torch.set_num_threads(1)
    config, rows = config or MtaConfig.nano(), []
    image = config.image
    images = np.zeros((len(CAMERAS), image.height, image.width, 3), np.uint8)
    present = np.ones(len(CAMERAS), np.float32)
    for cells in grids:
        torch.manual_seed(0)
        bev = replace(config.bev, cells=cells)
        decoder = replace(config.decoder, queries=min(config.decoder.queries, cells**2))
        network = build_detector(replace(config, bev=bev, decoder=decoder))
        detector = TorchDetector(network, bf16=False)
        history = History(np.zeros(network.memory_shape, np.float32), True, np.eye(4), 0.5)
        samples = timed(
            lambda run=detector, past=history: run(images, _views(image), present, past),
            repeats,
            warm_up=1,
        )
        rows.append(Row(f'detector, {cells} x {cells} cells', samples))
    return rows


def _views(image):
    """(6, 3, 4) pixels from the ego frame of six cameras all around."""
    focal, views = 0.8 * image.width, []
    for place in range(len(CAMERAS)):
        yaw = 2 * math.pi * place / len(CAMERAS)
        forward = np.array([math.cos(yaw), math.sin(yaw), 0.0])
        right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        axes = np.stack([right, (0.0, 0.0, -1.0), forward])
        intrinsics = np.array(
            [[focal, 0, image.width / 2], [0, focal, image.height / 2], [0, 0, 1]]
        )
        views.append(intrinsics @ np.c_[axes, axes @ (0.0, 0.0, -1.5)])
    return np.array(views, np.float32)


def boxes_of_objects(repeats, counts=(10, 30, 100)):
    """Duplicates, tracks and the choice of who is told, of one frame."""
    rows = []
    for count in counts:
        frames = [moved(count, 0.08 * number) for number in range(FRAMES)]

        def follow(frames=frames):
            tracker, book = Tracker(TrackingConfig()), CaptionBook()
            for number, detections in enumerate(frames):
                stamp_ns = START_NS + number * ROUND_NS
                found = distinct(detections)
                track_ids = tracker.update(stamp_ns, np.eye(4), found)
                found = tracker.settled(np.eye(4), found)
                rows_to_caption(found, track_ids, book, stamp_ns, 24)

        samples = [one / FRAMES for one in timed(follow, repeats, warm_up=1)]
        rows.append(Row(f'boxes to tracks: {count} objects', samples))
    return rows


def moved(count, seconds):
    """Cars on a grid of 8 m, all at 3 m/s forward."""
    side = math.ceil(math.sqrt(count))
    boxes = np.zeros((count, BoxCode.WIDTH), np.float32)
    boxes[:, 0] = 8.0 * (np.arange(count) % side - side / 2) + 3.0 * seconds
    boxes[:, 1] = 8.0 * (np.arange(count) // side - side / 2)
    boxes[:, BoxCode.SIZE] = 4.2, 1.9, 1.6
    boxes[:, 7], boxes[:, 8] = 1.0, 3.0
    labels = np.full(count, CLASSES.index('car'), np.int64)
    scores = np.linspace(0.9, 0.4, count, dtype=np.float32)
    return Detections(boxes, labels, scores, np.arange(count))


def main():
    repeats = quick(5, 20)
    report('Scaling: cameras', images_of_cameras(drive(), repeats))
    report('Scaling: cameras of the synchroniser', sets_of_cameras(repeats))
    report(
        'Scaling: cells of the BEV',
        detectors_of_grids(quick(2, 7)),
        note='Nano, random weights, eager torch, one thread. '
        f'Its graph has {graph_flops(model().path("detector.onnx")) / 1e9:.1f} GFLOP.',
    )
    report('Scaling: objects', boxes_of_objects(repeats))


if __name__ == '__main__':
    main()

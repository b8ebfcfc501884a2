"""Captions of one frame's objects; baseline is one object, one thread."""

from drive import model
import numpy as np
from report import Row, report, timed

from mta_perception.contract import CLASSES, BoxCode
from mta_perception.detections import CaptionInputs
from mta_perception.runtime.session import open_session
from mta_perception.runtime.speech import open_captioner

REPEATS = 10


def feature_width(manifest):
    """F of `object_features`, which only the graph knows."""
    inputs = open_session(manifest.path('qformer.onnx'), 1).get_inputs()
    return next(entry.shape[1] for entry in inputs if entry.name == 'object_features')


def main():
    manifest, rng = model(), np.random.default_rng(0)
    width = feature_width(manifest)
    bev = rng.normal(0, 1, (manifest.bev.channels, manifest.bev.cells, manifest.bev.cells))
    rows = []
    for threads in (1, 2):
        captioner = open_captioner(manifest, threads)
        for count in (1, 8):
            boxes = rng.normal(0, 10, (count, BoxCode.WIDTH)).astype(np.float32)
            inputs = CaptionInputs(
                rng.normal(0, 1, (count, width)).astype(np.float32),
                boxes,
                rng.normal(0, 1, (count, len(CLASSES))).astype(np.float32),
                bev.astype(np.float32),
            )
            rows.append(
                Row(
                    f'{count} objects, {threads} threads',
                    timed(lambda run=captioner.caption, objects=inputs: run(objects), REPEATS),
                )
            )
    report(f'Captions of {manifest.name}', rows)


if __name__ == '__main__':
    main()

"""Renderer and converter on one core; the converter's baseline is a plain copy of the dataset.

The renderer draws a short drive at full resolution.  The converter gets a scene as long as
nuScenes' are, drawn with all cores first.
"""

from functools import partial
from pathlib import Path
import shutil
import tempfile
import time

from report import Row, report

from mta_training.conversion.convert import convert
from mta_training.synth.dataset.generate import synthesise

DRAWN_S, SCENE_S = 8.0, 20.0
REPEATS = 5


def seconds_for(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    with tempfile.TemporaryDirectory() as scratch:
        drawn, dataset, bags = (Path(scratch) / name for name in ('drawn', 'dataset', 'bags'))
        rendering = seconds_for(
            lambda: synthesise(drawn, 1, 0, workers=1, seconds=DRAWN_S, progress=False)
        )
        frames = len(list(drawn.glob('s*s/CAM_FRONT/*.jpg')))
        report(
            'Synthetic world, one core',
            [Row('six-camera frames of 1600x900', [frames / rendering])],
            unit='a second',
        )
        synthesise(dataset, 1, 0, seconds=SCENE_S, progress=False)
        copying = [
            seconds_for(partial(shutil.copytree, dataset, f'{scratch}/copy{k}'))
            for k in range(REPEATS)
        ]
        converting = []
        for _ in range(REPEATS):
            shutil.rmtree(bags, ignore_errors=True)
            converting.append(
                seconds_for(lambda: convert(dataset, bags, workers=1, progress=False))
            )
    report(
        'Converter, one core: drive seconds a second',
        [
            Row('copying the files', [SCENE_S / value for value in copying]),
            Row('converting to a bag', [SCENE_S / value for value in converting]),
        ],
        unit='x',
    )


if __name__ == '__main__':
    main()

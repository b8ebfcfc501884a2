"""Converter: seconds of drive per second of one core; baseline is a plain copy of the images.

A short synthetic drive at full resolution is rendered first (not measured here but reported, since
its speed has a target of its own: six-camera frames a second).
"""

from functools import partial
from pathlib import Path
import shutil
import tempfile
import time

from report import Row, report

from mta_training.bags import convert
from mta_training.synth.generate import synthesise

SECONDS = 4.0
SWEEP_HZ = 12.0


def seconds_for(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    with tempfile.TemporaryDirectory() as scratch:
        dataset, bags = Path(scratch) / 'dataset', Path(scratch) / 'bags'
        rendering = seconds_for(lambda: synthesise(dataset, 1, 0, workers=1, seconds=SECONDS,
                                                   progress=False))
        copying = [seconds_for(partial(shutil.copytree, dataset, f'{scratch}/copy{k}'))
                   for k in range(3)]
        converting = []
        for _ in range(3):
            shutil.rmtree(bags, ignore_errors=True)
            converting.append(seconds_for(lambda: convert(dataset, bags, workers=1,
                                                          progress=False)))
    report('Converter, one core: drive seconds a second', [
        Row('copying the files', [SECONDS / value for value in copying]),
        Row('converting to a bag', [SECONDS / value for value in converting]),
    ], unit='x')
    report('Synthetic world, one core', [
        Row('six-camera frames of 1600x900', [SECONDS * SWEEP_HZ / rendering])], unit='a second')


if __name__ == '__main__':
    main()

"""From six JPEGs to the model's images: against a full decode resized by area, begun as they come
against all at once, and with distorted lenses against none."""

from concurrent.futures import ThreadPoolExecutor
import time

import cv2
from drive import drive, frame_sets, model
import numpy as np
from report import Row, quick, report, timed, timed_in_turn

from mta_perception.frames import Distortion
from mta_perception.pipeline.decoding import Decoding
from mta_perception.pipeline.images import ModelImageReader, model_image, plan_for

REPEATS = quick(5, 20)
SPREAD_S = 0.043  # from the first camera of nuScenes' rig to the last
LENSES = {
    'no distortion': None,
    'plumb_bob': Distortion('plumb_bob', (-0.32, 0.12, 0.001, -0.0008, -0.02)),
    'rational_polynomial': Distortion(
        'rational_polynomial', (0.4, -0.1, 0.0004, 0.0002, 0.01, 0.75, 0.02, 0.005)
    ),
    'equidistant': Distortion('equidistant', (0.02, -0.008, 0.003, -0.001)),
}
INTRINSICS = np.array([[1260.0, 0.0, 800.0], [0.0, 1260.0, 450.0], [0.0, 0.0, 1.0]])


def main():
    spec, scene = model().image, drive()
    frames = next(frames for frames, _ in frame_sets(scene) if not frames.missing)
    images = list(frames.images.values())
    plan = plan_for(spec, 1600, 900)
    against_plain_decoding(images, spec, plan)
    against_decoding_together(images, spec, plan)
    against_no_distortion(images, spec, plan)


def against_plain_decoding(images, spec, plan):
    out = np.zeros((len(images), spec.height, spec.width, 3), np.uint8)

    def plain(index):
        full = cv2.imdecode(np.frombuffer(images[index].data, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(full, plan.scaled, interpolation=cv2.INTER_AREA)
        out[index, : plan.scaled[1], : plan.scaled[0]] = small[..., ::-1]

    def decoded(index):
        cv2.imdecode(np.frombuffer(images[index].data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)

    def ours(index):
        model_image(images[index], plan, out[index])

    rows = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            times = timed_in_turn(
                [
                    lambda run=pool.map, work=work: list(run(work, range(len(images))))
                    for work in (plain, ours, decoded)
                ],
                REPEATS,
            )
        # Less than libjpeg's own decode at half the size nobody needs who uses it.
        least = min(times[2])
        rows.append(Row(f'full decode, area resize, {threads} threads', times[0], least))
        rows.append(Row(f'ours, {threads} threads', times[1], least))
    report(
        f'Six 1600x900 JPEGs to {spec.width}x{spec.height}',
        rows,
        note="Floor: libjpeg's decode at half the size alone, the best of the same run.",
    )


def against_decoding_together(images, spec, plan):
    """From the last image of a set to all six in model size."""
    readers = {image.camera: ModelImageReader(plan) for image in images}
    decoding = Decoding(spec, 2)

    def milliseconds(begins):
        came = []
        for image in images:
            came.append(image._replace(received_ns=time.monotonic_ns()))
            if begins:
                decoding.begin(came[-1], readers[image.camera])
            if image is not images[-1]:
                time.sleep(SPREAD_S / (len(images) - 1))
        last = time.perf_counter()
        for pixels in [decoding.take(image, readers[image.camera]) for image in came]:
            pixels.result()
        return (time.perf_counter() - last) * 1e3

    in_turn = [[milliseconds(begins) for begins in (False, True)] for _ in range(2 * REPEATS)]
    together, on_arrival = zip(*in_turn[2:])
    decoding.close()
    report(
        'From the last of six JPEGs that come within 43 ms, 2 threads',
        [Row('decoded together', list(together)), Row('decoded on arrival', list(on_arrival))],
    )


def against_no_distortion(images, spec, plan):
    """Decoded JPEGs and raw images: of these, nothing hides the cost."""
    out = np.zeros((spec.height, spec.width, 3), np.uint8)
    raw = [
        image._replace(
            data=cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR),
            encoding='bgr8',
        )
        for image in images
    ]
    cv2.setNumThreads(1)
    for name, pictures in (('JPEGs', images), ('bgr8 images', raw)):
        readers = [ModelImageReader(plan, INTRINSICS, lens) for lens in LENSES.values()]

        def read_all(reader, pictures=pictures):
            for picture in pictures:
                reader.read(picture, out)

        samples = timed_in_turn(
            [lambda reader=reader: read_all(reader) for reader in readers], REPEATS
        )
        report(
            f'Six 1600x900 {name}, undistorted to {spec.width}x{spec.height}, 1 thread',
            [Row(lens, times) for lens, times in zip(LENSES, samples)],
        )
    first = [
        timed(
            lambda lens=lens: ModelImageReader(plan, INTRINSICS, lens).read(raw[0], out), REPEATS
        )
        for lens in LENSES.values()
    ]
    report(
        'The first bgr8 image of a camera, maps included',
        [Row(lens, times) for lens, times in zip(LENSES, first)],
    )


if __name__ == '__main__':
    main()

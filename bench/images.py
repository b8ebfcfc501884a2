"""From six JPEGs to the model's images; baseline decodes in full and resizes by area."""

from concurrent.futures import ThreadPoolExecutor

import cv2
from drive import drive, frame_sets, model
import numpy as np
from report import Row, report, timed

from mta_perception.pipeline.images import model_image, plan_for

REPEATS = 20


def main():
    spec, scene = model().image, drive()
    frames = next(frames for frames, _ in frame_sets(scene) if not frames.missing)
    images = list(frames.images.values())
    plan = plan_for(spec, 1600, 900)
    out = np.zeros((len(images), spec.height, spec.width, 3), np.uint8)

    def plain(index):
        full = cv2.imdecode(np.frombuffer(images[index].data, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(full, plan.scaled, interpolation=cv2.INTER_AREA)
        out[index, : plan.scaled[1], : plan.scaled[0]] = small[..., ::-1]

    def ours(index):
        model_image(images[index], plan, out[index])

    rows = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            for name, function in (('full decode, area resize', plain), ('ours', ours)):
                rows.append(
                    Row(
                        f'{name}, {threads} threads',
                        timed(
                            lambda run=pool.map, work=function: list(
                                run(work, range(len(images)))
                            ),
                            REPEATS,
                        ),
                    )
                )
    report(f'Six 1600x900 JPEGs to {spec.width}x{spec.height}', rows)


if __name__ == '__main__':
    main()

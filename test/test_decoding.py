"""Images decoded ahead of their step: what is decoded when, and that it is the same."""

from concurrent.futures import wait
import threading

import cv2
import numpy as np
import pytest

from mta_perception.frames import CameraImage, ImageError
from mta_perception.pipeline.decoding import Decoding
from mta_perception.pipeline.images import ModelImageReader, model_image, plan_for
from mta_perception.reasons import Code
from mta_perception.runtime.manifest import ImageSpec

SPEC = ImageSpec(64, 40, 0.2)
PLAN = plan_for(SPEC, 320, 180)


class Counted(ModelImageReader):
    """A reader that knows which images it read, and may be held up."""

    def __init__(self):
        super().__init__(PLAN)
        self.read_ns, self.may_read = [], threading.Event()
        self.may_read.set()

    def read(self, image, out):
        self.may_read.wait(5.0)
        super().read(image, out)
        self.read_ns.append(image.received_ns)


@pytest.fixture
def decoding():
    made = Decoding(SPEC, 2)
    yield made
    made.close()


def image(received_ns, camera='cam_front', data=None):
    if data is None:
        pixels = np.random.default_rng(received_ns).integers(0, 255, (9, 16, 3), dtype=np.uint8)
        data = cv2.imencode('.jpg', cv2.resize(pixels, (320, 180)))[1].tobytes()
    return CameraImage(camera, received_ns, data, 'jpeg', received_ns=received_ns)


def same(pixels, source):
    expected = np.zeros((SPEC.height, SPEC.width, 3), np.uint8)
    model_image(source, PLAN, expected)
    return np.array_equal(pixels, expected)


def settle(decoding):
    """Until the threads have nothing to do."""
    wait([ahead.pixels for ahead in decoding._ahead.values() if ahead.pixels is not None], 5.0)


@pytest.mark.parametrize('begun', [True, False])
def test_an_image_is_decoded_once_and_the_same_whether_it_was_begun_or_not(decoding, begun):
    reader, source = Counted(), image(1)
    if begun:
        decoding.begin(source, reader)
    assert same(decoding.take(source, reader).result(5.0), source)
    assert reader.read_ns == [1]


def test_a_flood_of_images_is_decoded_once_a_step(decoding):
    reader, flood = Counted(), [image(number) for number in range(1, 50)]
    for source in flood:
        decoding.begin(source, reader)
    settle(decoding)
    assert reader.read_ns == [1]
    assert same(decoding.take(flood[-1], reader).result(5.0), flood[-1])
    assert reader.read_ns == [1, 49]


def test_an_image_that_came_after_the_one_that_a_step_takes_stays_ahead(decoding):
    reader, first, second = Counted(), image(1), image(2)
    decoding.begin(second, reader)
    assert same(decoding.take(first, reader).result(5.0), first)
    assert same(decoding.take(second, reader).result(5.0), second)
    assert sorted(reader.read_ns) == [1, 2]


def test_images_that_come_during_a_step_wait_until_it_is_done_and_the_newest_is_decoded(decoding):
    reader = Counted()
    decoding.pause()
    for number in (1, 2, 3):
        decoding.begin(image(number), reader)
    assert reader.read_ns == []
    decoding.go_on()
    settle(decoding)
    assert reader.read_ns == [3]


def test_with_cores_to_spare_images_are_decoded_during_a_step():
    decoding, reader, source = Decoding(SPEC, 2, has_spare_cores=True), Counted(), image(1)
    decoding.pause()
    decoding.begin(source, reader)
    settle(decoding)
    assert reader.read_ns == [1]
    decoding.close()


def test_a_set_that_comes_to_a_step_at_once_takes_what_waits(decoding):
    reader, source = Counted(), image(1)
    decoding.pause()
    decoding.begin(source, reader)  # during the step before
    decoding.pause()  # its own
    assert same(decoding.take(source, reader).result(5.0), source)
    decoding.go_on()
    assert reader.read_ns == [1]


def test_what_was_read_for_another_calibration_is_read_anew(decoding):
    old, new, source = Counted(), Counted(), image(1)
    decoding.begin(source, old)
    decoding.take(source, new).result(5.0)
    assert new.read_ns == [1]


def test_a_damaged_image_is_refused_where_it_is_taken(decoding):
    reader = Counted()
    source = image(1, data=image(1).data[:-200])
    decoding.begin(source, reader)
    with pytest.raises(ImageError) as refused:
        decoding.take(source, reader).result(5.0)
    assert refused.value.reason.code is Code.TRUNCATED_IMAGE
    after = image(2)
    decoding.begin(after, reader)  # it stands in no other's way
    assert same(decoding.take(after, reader).result(5.0), after)


def test_cameras_do_not_stand_in_each_others_way(decoding):
    readers = {camera: Counted() for camera in ('left', 'right')}
    readers['left'].may_read.clear()
    sources = {camera: image(number, camera) for number, camera in enumerate(readers, 1)}
    for camera, source in sources.items():
        decoding.begin(source, readers[camera])
    right = decoding.take(sources['right'], readers['right']).result(5.0)
    assert same(right, sources['right']) and readers['left'].read_ns == []
    readers['left'].may_read.set()
    left = decoding.take(sources['left'], readers['left']).result(5.0)
    assert same(left, sources['left'])

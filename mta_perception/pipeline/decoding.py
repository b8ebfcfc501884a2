"""Camera images into model images on threads, begun as an image comes or when a step asks for it.

Cameras fire one after the other: with five images decoded before the sixth is there, a step waits
for one image instead of six.  Which images a step will see is not known as they come.  So one
image of a camera at most is decoded ahead, and the next once a step has taken that one or a newer
one; and where a step has use for all cores, images that come meanwhile wait until it is done.  A
machine that does not keep up decodes what its steps see and no more.
"""

from concurrent.futures import Future, ThreadPoolExecutor
import threading
from typing import NamedTuple

import numpy as np

from mta_perception.frames import CameraImage, Pixels
from mta_perception.pipeline.images import ImageSize, ModelImageReader


class _Ahead(NamedTuple):
    image: CameraImage
    reader: ModelImageReader
    pixels: Future[Pixels] | None  # None: it came during a step and waits


class Decoding:
    """Decodes images of all cameras.  `begin` in any thread, all else in that of the steps."""

    def __init__(self, size: ImageSize, threads: int, has_spare_cores: bool = False) -> None:
        """has_spare_cores: images are decoded during a step, too."""
        self.found = 0  # images that were begun before a step took them
        self._shape = size.height, size.width, 3
        self._has_spare_cores, self._is_paused = has_spare_cores, False
        self._pool = ThreadPoolExecutor(threads, 'decode')
        self._lock = threading.Lock()
        self._ahead: dict[str, _Ahead] = {}  # by camera

    def begin(self, image: CameraImage, reader: ModelImageReader) -> None:
        """Decode an image that a step may ask for, unless one of its camera waits for that."""
        with self._lock:
            known = self._ahead.get(image.camera)
            if known is None or known.pixels is None:
                pixels = None if self._is_paused else self._submit(image, reader)
                self._ahead[image.camera] = _Ahead(image, reader, pixels)

    def take(self, image: CameraImage, reader: ModelImageReader) -> Future[Pixels]:
        """(H, W, 3) RGB in model size, or the ImageError, as soon as it is there."""
        with self._lock:
            ahead = self._ahead.get(image.camera)
            if ahead is not None and ahead.image.received_ns <= image.received_ns:
                del self._ahead[image.camera]
                if ahead.pixels is not None:
                    if ahead.image is image and ahead.reader is reader:
                        self.found += 1
                        return ahead.pixels
                    ahead.pixels.cancel()  # of a set that never came to a step
            return self._submit(image, reader)

    def pause(self) -> None:
        """A step begins."""
        with self._lock:
            self._is_paused = not self._has_spare_cores

    def go_on(self) -> None:
        """A step is done and none waits: what came meanwhile has its turn."""
        with self._lock:
            self._is_paused = False
            for camera, (image, reader, pixels) in self._ahead.items():
                if pixels is None:
                    self._ahead[camera] = _Ahead(image, reader, self._submit(image, reader))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _submit(self, image: CameraImage, reader: ModelImageReader) -> Future[Pixels]:
        return self._pool.submit(self._decoded, image, reader)

    def _decoded(self, image: CameraImage, reader: ModelImageReader) -> Pixels:
        pixels = np.empty(self._shape, np.uint8)
        reader.read(image, pixels)
        return pixels

"""Camera images as they come (JPEG, PNG, raw) into RGB, and into the model's image.

Pixels: (H, W, 3) uint8, the centre of pixel i at i (OpenCV).  A resize by s maps x to (x + 0.5) s
- 0.5.  Node and offline reading both go through ModelImageReader.
"""

import threading
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mta_perception.coded_images import CODED, WholeFile, whole_file
from mta_perception.frames import CameraImage, Distortion, ImageError, Pixels, Size
from mta_perception.geometry import Array
from mta_perception.pipeline.raw_images import (
    BAYER,
    MOST_PIXELS,
    BitWidth,
    check_bayer_size,
    raw_size,
    raw_to_bgr,
)
from mta_perception.pipeline.rectification import RectificationMaps, rectification_maps
from mta_perception.reasons import Code

_SAME_ASPECT = 0.02  # of width by height, and at most a pixel
_GREY_WITHIN = 3  # of 255: a mosaic that was compressed as if it had colours


class ImageSize(Protocol):
    """A manifest's ImageSpec, or whatever else says how large the model's image is [px]."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...


class ModelImagePlan(NamedTuple):
    """How a camera's full-size image becomes the model's: resized, then padded bottom/right with
    zeros."""

    source: Size  # what the camera delivers
    scaled: Size  # after the resize
    size: Size  # of the model's image
    model_from_image: Array  # (3, 3) model pixels from camera pixels


def plan_for(spec: ImageSize, width: int, height: int) -> ModelImagePlan:
    """How the images of a width x height camera become the model's.

    The image is scaled as large as fits; cameras of the training resolution get exactly the scale
    of the training.
    """
    scale = min(spec.width / width, spec.height / height)
    scaled = (
        min(spec.width, max(1, round(width * scale))),
        min(spec.height, max(1, round(height * scale))),
    )
    sx, sy = scaled[0] / width, scaled[1] / height
    model_from_image = np.array(
        [[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5], [0.0, 0.0, 1.0]]
    )
    return ModelImagePlan((width, height), scaled, (spec.width, spec.height), model_from_image)


class ModelImageReader:
    """One camera's images into the model's, as its calibration says; remembers what it found out.

    Images of one camera are read one after the other, whichever threads ask.
    """

    def __init__(
        self,
        plan: ModelImagePlan,
        intrinsics: Array | None = None,
        distortion: Distortion | None = None,
        sensor: Size | None = None,
    ) -> None:
        """intrinsics: (3, 3) of images of plan.source, needed where there is a distortion;
        sensor: see CameraCalibration."""
        self.plan, self.distortion = plan, distortion
        self._intrinsics, self._sensor = intrinsics, sensor
        self._width = BitWidth()
        self._maps: dict[Size, RectificationMaps] = {}  # by size of the reduced image
        self._came: Size | None = None
        self._reading = threading.Lock()
        self._mosaic = ''  # format of a mosaic that lost its colours to JPEG

    def read(self, image: CameraImage, out: Pixels) -> None:
        """Decode, rectify, resize and pad an image into `out` (H, W, 3) RGB.

        Raises ImageError; `out` may then hold anything.
        """
        with self._reading:
            self._read(image, out)

    def _read(self, image: CameraImage, out: Pixels) -> None:
        scaled = self.plan.scaled
        source = _source(image)
        self._check_size(source.size)
        bgr = _to_bgr(image, source, self._width, scaled)
        small = self._fit(bgr)
        out[scaled[1] :] = 0
        out[:, scaled[0] :] = 0
        cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=out[: scaled[1], : scaled[0]])
        self._came = source.size
        self._mosaic = f'bayer_{image.mosaic}8 in {image.encoding}' if image.mosaic else ''

    def facts(self) -> dict[str, str]:
        """What was done to the newest image, for people: {what: how}."""
        facts = {}
        if self._width.bits:
            facts['bits'] = f'{self._width.bits} of 16'
        if self.distortion is not None:
            facts['rectified'] = self.distortion.model
        if self._came is not None and self._came != self.plan.source:
            facts['scaled'] = _of(self._came)
        if self._mosaic:
            facts['demosaiced'] = self._mosaic
        return facts

    def warnings(self) -> list[str]:
        """What is used and yet should be mended, in sentences."""
        found = []
        if self._came is not None and self._came != self.plan.source:
            found.append(
                f'images are {_of(self._came)}, camera_info is of {_of(self.plan.source)}: its '
                'intrinsics are scaled; publish the camera_info of these images, and crop none'
            )
        if self._mosaic.endswith('jpeg'):
            found.append(
                f'a Bayer mosaic ({self._mosaic}) is demosaiced after JPEG compression, which '
                'blurs its colours; publish colour JPEGs, or the mosaic raw or as PNG'
            )
        return found

    def _check_size(self, size: Size) -> None:
        expected = self.plan.source
        if size == self._sensor:
            raise ImageError(
                Code.WRONG_IMAGE_SIZE,
                f'{_of(size)}, the whole sensor, where the roi of its CameraInfo says '
                f'{_of(expected)}; publish a CameraInfo without roi, or the region only',
            )
        if not _same_aspect(size, expected):
            raise ImageError(
                Code.WRONG_IMAGE_SIZE,
                f'{_of(size)}, expected {_of(expected)} as in its CameraInfo, or the same aspect; '
                'publish the CameraInfo of these images',
            )

    def _fit(self, bgr: Pixels) -> Pixels:
        scaled = self.plan.scaled
        if self.distortion is None:
            return _resize(bgr, scaled)
        bgr = _reduce(bgr, scaled)
        size = bgr.shape[1], bgr.shape[0]
        if size not in self._maps:
            assert self._intrinsics is not None, 'a distortion comes with its intrinsics'
            plan = self.plan
            self._maps[size] = rectification_maps(
                self._intrinsics,
                self.distortion,
                plan.source,
                plan.model_from_image,
                scaled,
                size,
            )
        return self._maps[size].rectify(bgr)


def model_image(image: CameraImage, plan: ModelImagePlan, out: Pixels) -> None:
    """One image of a pinhole camera into `out`; see ModelImageReader.read."""
    ModelImageReader(plan).read(image, out)


def decode(image: CameraImage) -> Pixels:
    """(H, W, 3) RGB.  Raises ImageError."""
    bgr = _to_bgr(image, _source(image), BitWidth(), None)
    return _uint8(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


class _Source(NamedTuple):
    size: Size
    file: WholeFile | None  # None for raw pixels


def _source(image: CameraImage) -> _Source:
    """Raises ImageError where the image is damaged or cannot be one."""
    if image.encoding not in CODED:
        return _Source(raw_size(image), None)
    file = whole_file(image.data, image.encoding)
    if not 0 < file.size[0] * file.size[1] <= MOST_PIXELS:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'{image.encoding} header says {_of(file.size)}, which is no image',
        )
    return _Source(file.size, file)


def _to_bgr(image: CameraImage, source: _Source, width: BitWidth, scaled: Size | None) -> Pixels:
    """(H, W, 3) BGR; of a JPEG half of it in each direction, where `scaled` is that small."""
    if source.file is None:
        return raw_to_bgr(image, width)
    if image.mosaic:
        return _mosaic_to_bgr(image, source.file, width)
    if source.file.bits == 16:
        return _colours(width.narrowed(_decoded(image, source.file, cv2.IMREAD_UNCHANGED)))
    halved = image.encoding == 'jpeg' and scaled is not None and _can_halve(source.size, scaled)
    flags = cv2.IMREAD_REDUCED_COLOR_2 if halved else cv2.IMREAD_COLOR
    # The orientation tag would turn the image and leave the calibration as it is.
    return _uint8(_decoded(image, source.file, flags | cv2.IMREAD_IGNORE_ORIENTATION))


def _mosaic_to_bgr(image: CameraImage, file: WholeFile, width: BitWidth) -> Pixels:
    """A Bayer mosaic that was compressed; a picture with colours is none, whatever its format
    says."""
    check_bayer_size(file.size, f'bayer_{image.mosaic}')
    pixels = width.narrowed(_decoded(image, file, cv2.IMREAD_UNCHANGED))
    if pixels.ndim == 3:
        colours = pixels[..., :3]
        if np.ptp(colours, axis=-1).max() > _GREY_WITHIN:
            return _colours(pixels)
        pixels = np.ascontiguousarray(colours[..., 1])
    return _uint8(cv2.cvtColor(pixels, BAYER[image.mosaic]))


def _decoded(image: CameraImage, file: WholeFile, flags: int) -> NDArray[Any]:
    try:
        decoded = cv2.imdecode(file.bytes_, flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise ImageError(Code.CORRUPT_IMAGE, f'{image.encoding} cannot be decoded')
    return decoded


def _colours(pixels: Pixels) -> Pixels:
    """(H, W, 3) of grey, BGR or BGRA pixels."""
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        grey = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 0])
        return _uint8(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    return np.ascontiguousarray(pixels[..., :3])


def _same_aspect(size: Size, expected: Size) -> bool:
    """Whether one is the other scaled, but for the rounding to whole pixels."""
    (width, height), (full_width, full_height) = size, expected
    if size == expected:
        return True
    ratio = width * full_height / (height * full_width)
    off = min(
        abs(width - full_width * height / full_height),
        abs(height - full_height * width / full_width),
    )
    return abs(ratio - 1) <= _SAME_ASPECT and off <= 1


def _can_halve(size: Size, wanted: Size) -> bool:
    return all(have % 2 == 0 and 2 * want <= have for have, want in zip(size, wanted))


def _halved(bgr: Pixels, size: Size) -> Pixels:
    """As often as that goes above (width, height).

    Halving is what a JPEG decoder does for nothing, and what is left is little enough for plain
    interpolation (together a fifth of the time of INTER_AREA, as close to it as INTER_AREA on the
    halved image).
    """
    while _can_halve((bgr.shape[1], bgr.shape[0]), size):
        half = bgr.shape[1] // 2, bgr.shape[0] // 2
        bgr = _uint8(cv2.resize(bgr, half, interpolation=cv2.INTER_AREA))
    return bgr


def _resize(bgr: Pixels, size: Size) -> Pixels:
    """bgr resized to (width, height)."""
    bgr = _halved(bgr, size)
    if (bgr.shape[1], bgr.shape[0]) == tuple(size):
        return bgr
    how = cv2.INTER_AREA if _is_far(bgr, size) else cv2.INTER_LINEAR
    return _uint8(cv2.resize(bgr, size, interpolation=how))


def _reduce(bgr: Pixels, size: Size) -> Pixels:
    """bgr made small enough that plain interpolation reaches (width, height) without aliasing."""
    bgr = _halved(bgr, size)
    return (
        _uint8(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)) if _is_far(bgr, size) else bgr
    )


def _is_far(bgr: Pixels, size: Size) -> bool:
    return bool(2 * size[0] < bgr.shape[1] or 2 * size[1] < bgr.shape[0])


def _uint8(image: NDArray[Any]) -> Pixels:
    """The same array: OpenCV's own types leave open what is in it."""
    return np.asarray(image, np.uint8)


def _of(size: Size) -> str:
    return f'{size[0]}x{size[1]}'

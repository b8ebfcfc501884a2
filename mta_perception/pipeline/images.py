"""Camera images as they come (JPEG, PNG, raw) into RGB, and into the model's image size.

Pixels: (H, W, 3) uint8, the centre of pixel i at i (OpenCV).  A resize by s maps x to (x + 0.5) s
- 0.5.
"""

from array import array
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mta_perception.frames import CameraImage, Pixels
from mta_perception.geometry import Array
from mta_perception.reasons import Code, Refused

# Encoding -> channels of a raw image, and OpenCV's conversion to BGR.  OpenCV names a Bayer
# pattern by its second row and column, ROS by its first: bayer_rggb8 is BayerBG.
_RAW: dict[str, tuple[int, int | None]] = {
    'bgr8': (3, None),
    'rgb8': (3, cv2.COLOR_RGB2BGR),
    'bgra8': (4, cv2.COLOR_BGRA2BGR),
    'rgba8': (4, cv2.COLOR_RGBA2BGR),
    'mono8': (1, cv2.COLOR_GRAY2BGR),
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2BGR),
    'bayer_bggr8': (1, cv2.COLOR_BayerRG2BGR),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2BGR),
    'bayer_grbg8': (1, cv2.COLOR_BayerGB2BGR),
    'yuv422': (2, cv2.COLOR_YUV2BGR_UYVY),
    'uyvy': (2, cv2.COLOR_YUV2BGR_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2BGR_YUY2),
    'yuyv': (2, cv2.COLOR_YUV2BGR_YUY2),
    'nv12': (1, cv2.COLOR_YUV2BGR_NV12),
}
ENCODINGS = ('jpeg', 'png', *_RAW)
_NEEDS_EVEN = {
    'yuv422': (2, 1),
    'uyvy': (2, 1),
    'yuv422_yuy2': (2, 1),
    'yuyv': (2, 1),
    'nv12': (2, 2),
}

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
_MOST_TRAILING_BYTES = 4096  # some cameras pad their JPEGs
_MOST_PIXELS = 100_000_000  # a damaged header must not make us ask for gigabytes

Size = tuple[int, int]  # width, height [px]


class ImageError(Refused):
    """An image cannot be used; `reason` says why."""


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


def model_image(image: CameraImage, plan: ModelImagePlan, out: Pixels) -> None:
    """Decode, resize and pad an image into `out` (H, W, 3) RGB.

    Raises ImageError; `out` may then hold anything.
    """
    width, height = plan.source
    halved = (
        image.encoding == 'jpeg'
        and width % 2 == 0
        and height % 2 == 0
        and 2 * plan.scaled[0] <= width
        and 2 * plan.scaled[1] <= height
    )
    small = _resize(_decode_bgr(image, expected=plan.source, halved=halved), plan.scaled)
    out[plan.scaled[1] :] = 0
    out[:, plan.scaled[0] :] = 0
    cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=out[: plan.scaled[1], : plan.scaled[0]])


def decode(image: CameraImage) -> Pixels:
    """(H, W, 3) RGB.  Raises ImageError."""
    return _uint8(cv2.cvtColor(_decode_bgr(image), cv2.COLOR_BGR2RGB))


def compressed_encoding(data: bytes | memoryview | Pixels, declared: str = '') -> str:
    """'jpeg' or 'png', by the first bytes of a CompressedImage.

    declared is the message's format string, for the error text alone: drivers write all sorts of
    things there.
    """
    # typeshed knows the buffer of an array from Python 3.12 on.
    start = bytes(memoryview(data)[:8])  # type: ignore[arg-type]
    if start.startswith(_JPEG_START):
        return 'jpeg'
    if start == _PNG_START:
        return 'png'
    came = start.hex() or 'nothing'
    raise ImageError(
        Code.UNKNOWN_ENCODING,
        f'compressed image of format {declared!r} starts with {came}, expected JPEG or PNG',
    )


def raw_pixels(
    data: 'bytes | array[int] | Pixels', width: int, height: int, step: int, encoding: str
) -> Pixels:
    """Fields of a sensor_msgs/Image -> view (H, W), (H, W, C) or, for nv12, (H * 3 / 2, W).

    step is the length of a row in bytes, padding included.  Raises ImageError.
    """
    channels = _raw_format(encoding)[0]
    if width < 1 or height < 1 or width * height > _MOST_PIXELS:
        raise ImageError(Code.IMPOSSIBLE_IMAGE, f'{width}x{height} is no image size')
    rows = _rows(encoding, width, height)
    buffer = np.frombuffer(data, np.uint8)
    step = step or width * channels
    if step < width * channels:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'step is {step} bytes, expected at least {width * channels} for '
            f'{width} pixels of {encoding}',
        )
    # Some drivers leave out the padding of the last row.
    needed = step * (rows - 1) + width * channels
    if len(buffer) < needed:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'{len(buffer)} bytes, expected {needed} for {width}x{height} {encoding}',
        )
    shape: tuple[int, ...] = (rows, width, channels)
    strides: tuple[int, ...] = (step, channels, 1)
    if channels == 1:
        shape, strides = (rows, width), (step, 1)
    return np.lib.stride_tricks.as_strided(buffer, shape, strides, writeable=False)


def _resize(bgr: Pixels, size: Size) -> Pixels:
    """bgr resized to (width, height).

    Halved first, as often as that goes: halving is what a JPEG decoder does for nothing, and what
    is left is little enough for plain interpolation (together a fifth of the time of INTER_AREA,
    as close to it as INTER_AREA on the halved image).
    """
    height, width = bgr.shape[:2]
    while width % 2 == 0 and height % 2 == 0 and 2 * size[0] <= width and 2 * size[1] <= height:
        width, height = width // 2, height // 2
        bgr = _uint8(cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA))
    if (width, height) == tuple(size):
        return bgr
    far = 2 * size[0] < width or 2 * size[1] < height
    how = cv2.INTER_AREA if far else cv2.INTER_LINEAR
    return _uint8(cv2.resize(bgr, size, interpolation=how))


def _raw_format(encoding: str) -> tuple[int, int | None]:
    if encoding not in _RAW:
        raise ImageError(
            Code.UNKNOWN_ENCODING, f'{encoding!r}, expected one of {", ".join(ENCODINGS)}'
        )
    return _RAW[encoding]


def _rows(encoding: str, width: int, height: int) -> int:
    """Rows of bytes of a raw image; sizes the format cannot have are refused."""
    by_x, by_y = _NEEDS_EVEN.get(encoding, (1, 1))
    if width % by_x or height % by_y:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE, f'{width}x{height} is no size of {encoding}, expected even ones'
        )
    return height * 3 // 2 if encoding == 'nv12' else height


def _decode_bgr(image: CameraImage, expected: Size | None = None, halved: bool = False) -> Pixels:
    """(H, W, 3) BGR; `expected` is checked, `halved` only for JPEG."""
    if image.encoding in ('jpeg', 'png'):
        return _decode_compressed(image, expected, halved)
    return _decode_raw(image, expected)


def _decode_raw(image: CameraImage, expected: Size | None) -> Pixels:
    channels, conversion = _raw_format(image.encoding)
    pixels = np.asarray(image.data)
    came_channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if (
        pixels.dtype != np.uint8
        or pixels.ndim not in (2, 3)
        or came_channels != channels
        or pixels.size == 0
    ):
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'{image.encoding} pixels are {pixels.dtype}{list(pixels.shape)}, '
            f'expected uint8 with {channels} channels',
        )
    height, width = pixels.shape[:2]
    if image.encoding == 'nv12':
        if height % 3:
            raise ImageError(
                Code.IMPOSSIBLE_IMAGE, f'nv12 image has {height} rows, expected a multiple of 3'
            )
        height = height * 2 // 3
    _rows(image.encoding, width, height)
    _check_size((width, height), expected)
    if image.encoding.startswith('bayer') and min(width, height) < 4:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE, f'{width}x{height} is too small for {image.encoding}'
        )
    pixels = np.ascontiguousarray(pixels)
    return pixels if conversion is None else _uint8(cv2.cvtColor(pixels, conversion))


def _decode_compressed(image: CameraImage, expected: Size | None, halved: bool) -> Pixels:
    data = np.frombuffer(image.data, np.uint8)
    size = _jpeg_size(data) if image.encoding == 'jpeg' else _png_size(data)
    if size[0] * size[1] > _MOST_PIXELS:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'{image.encoding} header says {size[0]}x{size[1]}, which is no image',
        )
    _check_size(size, expected)
    # The orientation tag would turn the image and leave the calibration as it is.
    flags = cv2.IMREAD_REDUCED_COLOR_2 if halved else cv2.IMREAD_COLOR
    try:
        bgr = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise ImageError(Code.CORRUPT_IMAGE, f'{image.encoding} cannot be decoded')
    return _uint8(bgr)


def _uint8(image: NDArray[Any]) -> Pixels:
    """The same array: OpenCV's own types leave open what is in it."""
    return np.asarray(image, np.uint8)


def _check_size(size: Size, expected: Size | None) -> None:
    if expected is not None and tuple(size) != tuple(expected):
        raise ImageError(
            Code.WRONG_IMAGE_SIZE,
            f'{size[0]}x{size[1]}, expected {expected[0]}x{expected[1]} as in its CameraInfo',
        )


def _png_size(data: Pixels) -> Size:
    """Raises ImageError where the file is not whole."""
    if bytes(data[:8]) != _PNG_START or len(data) < 33:
        raise ImageError(Code.CORRUPT_IMAGE, 'png without a header')
    if _PNG_END not in bytes(data[-_MOST_TRAILING_BYTES:]):
        raise ImageError(Code.TRUNCATED_IMAGE, 'png has no end')
    return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')


def _jpeg_size(data: Pixels) -> Size:
    """Raises ImageError where the file is not whole.

    libjpeg paints what is missing grey and reports nothing that OpenCV would pass on, so the
    structure is checked here: header, marker codes within the pixel data, end.
    """
    if bytes(data[:2]) != _JPEG_START:
        raise ImageError(Code.CORRUPT_IMAGE, 'jpeg without a header')
    size: Size | None = None
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ImageError(Code.CORRUPT_IMAGE, f'jpeg without a marker at byte {place}')
        marker = int(data[place + 1])
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        length = int(data[place + 2]) << 8 | int(data[place + 3])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            header = bytes(data[place + 5 : place + 9])
            size = int.from_bytes(header[2:4], 'big'), int.from_bytes(header[:2], 'big')
        place += 2 + max(length, 2)
        if marker == 0xDA:  # pixel data begins
            _check_jpeg_scan(data, place)
            if size is None or 0 in size:
                raise ImageError(
                    Code.CORRUPT_IMAGE, 'jpeg without an image size before its pixels'
                )
            return size
    raise ImageError(Code.TRUNCATED_IMAGE, 'jpeg ends within the header')


def _check_jpeg_scan(data: Pixels, start: int) -> None:
    """Only known markers from `start` on, and the end marker at the end."""
    if _JPEG_END not in bytes(data[max(start, len(data) - _MOST_TRAILING_BYTES) :]):
        raise ImageError(Code.TRUNCATED_IMAGE, 'jpeg has no end')
    places = np.flatnonzero(data[start:-1] == 0xFF) + start
    codes = data[places + 1]
    ends = places[codes == 0xD9]
    codes = codes[places < ends[-1]]
    # 00 stuffed byte, D0-D7 restart, FF fill; C4, DA to DE, E0-EF, FE between the scans of a
    # progressive file.
    known = (codes == 0) | ((codes >= 0xD0) & (codes <= 0xD7)) | (codes >= 0xDA) | (codes == 0xC4)
    if not known.all():
        raise ImageError(Code.CORRUPT_IMAGE, 'jpeg with damaged pixel data')

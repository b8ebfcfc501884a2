"""Raw images of sensor_msgs/Image: every encoding that cameras send, into (H, W, 3) BGR.

Channels of 16 bits come with 8 to 16 bits in use; BitWidth finds out how many.  Planar formats
(nv12, i420, ...) are one array of rows as wide as the image: brightness first, colour after.
"""

from array import array
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from mta_perception.foreign_text import shown
from mta_perception.frames import CameraImage, ImageError, Pixels, RawPixels, Size
from mta_perception.reasons import Code

MOST_PIXELS = 100_000_000  # a damaged header must not make us ask for gigabytes


class _Format(NamedTuple):
    channels: int
    to_bgr: int | None = None  # OpenCV's conversion
    bytes_: int = 1  # of a channel
    even: Size = (1, 1)  # what width and height are multiples of
    # Of a planar format: (rows, bytes of a row) of each plane, in halves of the image's.
    planes: tuple[tuple[int, int], ...] = ()


# OpenCV names a Bayer pattern by its second row and column, ROS by its first: rggb is BayerBG.
BAYER = {
    'rggb': cv2.COLOR_BayerBG2BGR,
    'bggr': cv2.COLOR_BayerRG2BGR,
    'gbrg': cv2.COLOR_BayerGR2BGR,
    'grbg': cv2.COLOR_BayerGB2BGR,
}
_CHANNELS = {
    'bgr': (3, None),
    'rgb': (3, cv2.COLOR_RGB2BGR),
    'bgra': (4, cv2.COLOR_BGRA2BGR),
    'rgba': (4, cv2.COLOR_RGBA2BGR),
    'mono': (1, cv2.COLOR_GRAY2BGR),
}
# What cv_bridge takes OpenCV's own type names for.
_OPENCV_NAMES = {'c1': 'mono', 'c3': 'bgr', 'c4': 'bgra'}
_SEMIPLANAR, _PLANAR = ((2, 2), (1, 2)), ((2, 2), (1, 1), (1, 1))
_RAW: dict[str, _Format] = {
    **{
        f'{name}{8 * size}': _Format(channels, conversion, size)
        for size in (1, 2)
        for name, (channels, conversion) in _CHANNELS.items()
    },
    **{
        f'{8 * size}u{ending}': _Format(*_CHANNELS[name], size)
        for size in (1, 2)
        for ending, name in _OPENCV_NAMES.items()
    },
    **{
        f'bayer_{pattern}{8 * size}': _Format(1, conversion, size)
        for size in (1, 2)
        for pattern, conversion in BAYER.items()
    },
    **dict.fromkeys(('yuv422', 'uyvy'), _Format(2, cv2.COLOR_YUV2BGR_UYVY, even=(2, 1))),
    **dict.fromkeys(
        ('yuv422_yuy2', 'yuyv', 'yuy2'), _Format(2, cv2.COLOR_YUV2BGR_YUY2, even=(2, 1))
    ),
    'yvyu': _Format(2, cv2.COLOR_YUV2BGR_YVYU, even=(2, 1)),
    'nv12': _Format(1, cv2.COLOR_YUV2BGR_NV12, even=(2, 2), planes=_SEMIPLANAR),
    'nv21': _Format(1, cv2.COLOR_YUV2BGR_NV21, even=(2, 2), planes=_SEMIPLANAR),
    'nv24': _Format(1, planes=((2, 2), (2, 4))),
    'i420': _Format(1, cv2.COLOR_YUV2BGR_I420, even=(2, 2), planes=_PLANAR),
    'yv12': _Format(1, cv2.COLOR_YUV2BGR_YV12, even=(2, 2), planes=_PLANAR),
}
RAW_ENCODINGS = tuple(name.replace('uc', 'UC') for name in _RAW)

# BT.601, limited range, as OpenCV's other conversions: BGR from (Y, U, V, 1).
_BGR_FROM_YUV = np.array(
    [
        [1.164, 2.018, 0.0, -16 * 1.164 - 128 * 2.018],
        [1.164, -0.391, -0.813, -16 * 1.164 + 128 * (0.391 + 0.813)],
        [1.164, 0.0, 1.596, -16 * 1.164 - 128 * 1.596],
    ]
)
_WIDTHS = (8, 10, 12, 14, 16)
_OUTLIERS = 0.005  # hot pixels, lamps, rows with embedded data: may be above the width


class BitWidth:
    """How many bits of its 16 a camera uses, by what it has sent.

    Cameras of 10, 12 and 14 bits send 16, and no message says so.  The width grows as soon as more
    than a few pixels need it, and never shrinks: night is not another camera.
    """

    def __init__(self) -> None:
        self.bits = 0  # 0 until an image of 16 bits has come

    def narrowed(self, pixels: NDArray[Any]) -> Pixels:
        """8 bits a channel; what is above the width becomes white."""
        if pixels.dtype.itemsize == 1:
            return np.asarray(pixels, np.uint8)
        few = _OUTLIERS * pixels.size
        needed = next(
            (bits for bits in _WIDTHS[:-1] if np.count_nonzero(pixels >= 1 << bits) <= few), 16
        )
        self.bits = max(self.bits, needed)
        return np.asarray(np.minimum(pixels >> (self.bits - 8), 255), np.uint8)


def raw_pixels(
    data: 'bytes | array[int] | Pixels',
    width: int,
    height: int,
    step: int,
    encoding: str,
    is_bigendian: bool = False,
) -> RawPixels:
    """Fields of a sensor_msgs/Image -> (H, W), (H, W, C) or, for planar formats, (rows, W).

    A view where the rows of a planar format are not padded, uint8 or uint16 of either byte order.
    step is the length of a row in bytes, padding included.  Raises ImageError.
    """
    form = _format(encoding)
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise ImageError(Code.IMPOSSIBLE_IMAGE, f'{width}x{height} is no image size')
    _check_even(encoding, form, width, height)
    buffer = np.frombuffer(data, np.uint8)
    row = width * form.channels * form.bytes_
    step = step or row
    if step < row:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'step is {step} bytes, expected at least {row} for {width} pixels of {encoding}',
        )
    if form.planes:
        return _planes(buffer, form, width, height, step, encoding)
    # Some drivers leave out the padding of the last row.
    _check_length(buffer, step * (height - 1) + row, width, height, encoding)
    kind = np.dtype(f'{">" if is_bigendian else "<"}u{form.bytes_}')
    shape: tuple[int, ...] = (height, width, form.channels)
    strides: tuple[int, ...] = (step, form.channels * form.bytes_, form.bytes_)
    if form.channels == 1:
        shape, strides = shape[:2], strides[:2]
    pixels: NDArray[Any] = np.ndarray(shape, kind, buffer, strides=strides)
    pixels.flags.writeable = False
    return pixels


def _planes(
    buffer: Pixels, form: _Format, width: int, height: int, step: int, encoding: str
) -> Pixels:
    """(rows, width), all planes one below the other."""
    sizes = [
        (height * rows // 2, width * part // 2, step * part // 2) for rows, part in form.planes
    ]
    total = sum(rows * row for rows, row, _ in sizes)
    # Drivers disagree on the step of planar formats: exactly the bytes of the picture have none.
    if step == width or len(buffer) == total:
        _check_length(buffer, total, width, height, encoding)
        return buffer[:total].reshape(-1, width)
    parts, start = [], 0
    for rows, row, stride in sizes:
        _check_length(buffer, start + stride * (rows - 1) + row, width, height, encoding)
        plane: Pixels = np.ndarray((rows, row), np.uint8, buffer, start, (stride, 1))
        parts.append(plane.ravel())
        start += stride * rows
    rows_of_planes: Pixels = np.concatenate(parts).reshape(-1, width)
    return rows_of_planes


def raw_size(image: CameraImage) -> Size:
    """(width, height) of raw pixels, checked against their encoding.  Raises ImageError."""
    form = _format(image.encoding)
    pixels = np.asarray(image.data)
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if (
        pixels.dtype.kind != 'u'
        or pixels.dtype.itemsize != form.bytes_
        or pixels.ndim not in (2, 3)
        or channels != form.channels
        or pixels.size == 0
    ):
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'{image.encoding} pixels are {pixels.dtype}{list(pixels.shape)}, '
            f'expected uint{8 * form.bytes_} with {form.channels} channels',
        )
    height, width = pixels.shape[:2]
    if form.planes:
        quarters = sum(rows * part for rows, part in form.planes)  # of the image's rows
        if height * 4 % quarters:
            raise ImageError(
                Code.IMPOSSIBLE_IMAGE,
                f'{image.encoding} image has {height} rows, expected a multiple of 3',
            )
        height = height * 4 // quarters
    _check_even(image.encoding, form, width, height)
    if 'bayer' in image.encoding.lower():
        check_bayer_size((width, height), image.encoding)
    return width, height


def check_bayer_size(size: Size, encoding: str) -> None:
    """OpenCV takes no mosaic smaller than 4x4."""
    if min(size) < 4:
        raise ImageError(Code.IMPOSSIBLE_IMAGE, f'{size[0]}x{size[1]} is too small for {encoding}')


def raw_to_bgr(image: CameraImage, width: BitWidth) -> Pixels:
    """(H, W, 3) BGR of an image whose `raw_size` was taken."""
    form = _format(image.encoding)
    pixels = width.narrowed(np.ascontiguousarray(cast(RawPixels, image.data)))
    if form.planes and form.to_bgr is None:
        return _nv24_to_bgr(pixels)
    bgr = pixels if form.to_bgr is None else cv2.cvtColor(pixels, form.to_bgr)
    return np.asarray(bgr, np.uint8)


def _nv24_to_bgr(rows: Pixels) -> Pixels:
    """OpenCV has no conversion for colour that is not subsampled."""
    height, width = len(rows) // 3, rows.shape[1]
    colour = rows[height:].reshape(height, width, 2)
    yuv = np.dstack([rows[:height], colour])
    return np.asarray(cv2.transform(yuv, _BGR_FROM_YUV), np.uint8)


def _format(encoding: str) -> _Format:
    form = _RAW.get(encoding.strip().lower())
    if form is None:
        raise ImageError(
            Code.UNKNOWN_ENCODING,
            f'{shown(encoding)}, expected jpeg, png or one of {", ".join(RAW_ENCODINGS)}',
        )
    return form


def _check_even(encoding: str, form: _Format, width: int, height: int) -> None:
    if width % form.even[0] or height % form.even[1]:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE, f'{width}x{height} is no size of {encoding}, expected even ones'
        )


def _check_length(buffer: Pixels, needed: int, width: int, height: int, encoding: str) -> None:
    if len(buffer) < needed:
        raise ImageError(
            Code.IMPOSSIBLE_IMAGE,
            f'{len(buffer)} bytes, expected {needed} for {width}x{height} {encoding}',
        )

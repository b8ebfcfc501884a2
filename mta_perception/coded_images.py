"""JPEG and PNG files as cameras send them: which of the two, whole or cut, how large.

Nothing is decoded here.  libjpeg paints what is missing grey and reports nothing that OpenCV would
pass on, so that the structure is walked from marker to marker: whatever comes after the end of the
picture (zeros, the rest of the driver's buffer, an older picture) is left away; a picture without
its end is refused.
"""

import re
from typing import NamedTuple

import numpy as np

from mta_perception.foreign_text import shown
from mta_perception.frames import ImageError, Pixels, RawPixels, Size
from mta_perception.reasons import Code

CODED = ('jpeg', 'png')
MOSAICS = ('rggb', 'bggr', 'gbrg', 'grbg')

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_PNG_START = b'\x89PNG\r\n\x1a\n'
_TIFF_STARTS = (b'II*\0', b'MM\0*')
_START_OF_SCAN, _FILL = 0xDA, 0xFF
_PIECE = 1 << 16  # bytes searched at once
# Between the scans of a progressive file: tables, line counts, application data, comments.
_BETWEEN_SCANS = {0xC4, 0xCC, *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE}


class WholeFile(NamedTuple):
    """A JPEG or PNG that has its end."""

    size: Size
    bytes_: Pixels  # (n,) without what came after the picture
    bits: int  # of a channel


def compressed_encoding(data: bytes | memoryview | Pixels, declared: str = '') -> str:
    """'jpeg' or 'png', by the first bytes of a CompressedImage.

    declared is the message's format string: drivers write all sorts of things there, and the bytes
    decide.  Only a depth image is known by it alone.
    """
    if 'compresseddepth' in declared.lower():
        raise ImageError(
            Code.UNKNOWN_ENCODING,
            f'format {shown(declared)} is a depth image, expected a colour camera; remap the '
            'topic to the image_raw/compressed of one',
        )
    # typeshed knows the buffer of an array from Python 3.12 on.
    start = bytes(memoryview(data)[:8])  # type: ignore[arg-type]
    if start.startswith(_JPEG_START):
        return 'jpeg'
    if start == _PNG_START:
        return 'png'
    came = 'TIFF' if start[:4] in _TIFF_STARTS else start.hex() or 'nothing'
    raise ImageError(
        Code.UNKNOWN_ENCODING,
        f'compressed image of format {shown(declared)} starts with {came}, expected JPEG or PNG',
    )


def declared_mosaic(declared: str) -> str:
    """The Bayer pattern that a CompressedImage's format names ('rggb'), or ''.

    The publisher of image_transport compresses a mosaic as if it were a grey picture; only the
    format tells.
    """
    words = declared.lower()
    if 'bayer' not in words:
        return ''
    found = re.search(r'bayer_([a-z]{4})', words)
    if found is None or found[1] not in MOSAICS:
        raise ImageError(
            Code.UNKNOWN_ENCODING,
            f'format {shown(declared)} is a Bayer mosaic, expected its pattern as one of '
            f'{", ".join(f"bayer_{pattern}8" for pattern in MOSAICS)}',
        )
    return found[1]


def whole_file(data: bytes | memoryview | RawPixels, encoding: str) -> WholeFile:
    """A 'jpeg' or 'png' with its size.  Raises ImageError where it is damaged or cut."""
    buffer = np.frombuffer(data, np.uint8)
    return _whole_jpeg(buffer) if encoding == 'jpeg' else _whole_png(buffer)


def _whole_png(data: Pixels) -> WholeFile:
    if bytes(data[:8]) != _PNG_START or len(data) < 33:
        raise ImageError(Code.CORRUPT_IMAGE, 'png without a header')
    place = len(_PNG_START)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4].tobytes(), 'big')
        name = data[place + 4 : place + 8].tobytes()
        place += 12 + length
        if name == b'IEND' and place <= len(data):
            size = int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
            return WholeFile(size, data[:place], int(data[24]))
    raise ImageError(Code.TRUNCATED_IMAGE, 'png has no end')


def _whole_jpeg(data: Pixels) -> WholeFile:
    if bytes(data[:2]) != _JPEG_START:
        raise ImageError(Code.CORRUPT_IMAGE, 'jpeg without a header')
    size: Size | None = None
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ImageError(Code.CORRUPT_IMAGE, f'jpeg without a marker at byte {place}')
        marker = int(data[place + 1])
        if marker == _FILL:
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            header = bytes(data[place + 5 : place + 9])
            size = int.from_bytes(header[2:4], 'big'), int.from_bytes(header[:2], 'big')
        place = _after_segment(data, place)
        if marker == _START_OF_SCAN:
            end = _end_of_scans(data, place)
            if size is None or 0 in size:
                raise ImageError(
                    Code.CORRUPT_IMAGE, 'jpeg without an image size before its pixels'
                )
            return WholeFile(size, data[:end], 8)
    raise ImageError(Code.TRUNCATED_IMAGE, 'jpeg ends within the header')


def _after_segment(data: Pixels, place: int) -> int:
    """Where the segment whose marker is at `place` ends."""
    length = int(data[place + 2]) << 8 | int(data[place + 3])
    return place + 2 + max(length, 2)


def _end_of_scans(data: Pixels, place: int) -> int:
    """Where the picture ends whose first scan's pixel data begins at `place`.

    Within pixel data FF is followed by 00 (stuffed), D0 to D7 (restart) or FF (fill).
    """
    while True:
        end = _find_end(data, place)
        if end < 0:
            raise ImageError(Code.TRUNCATED_IMAGE, 'jpeg has no end')
        marks = np.flatnonzero(data[place:end] == 0xFF) + place
        codes = data[marks + 1]
        within = (codes == 0) | ((codes >= 0xD0) & (codes <= 0xD7)) | (codes == _FILL)
        # A fill byte just before the end is followed by the end's own FF.
        others = marks[~within]
        if not len(others):
            return end + len(_JPEG_END)
        place = _next_scan(data, int(others[0]))


def _find_end(data: Pixels, place: int) -> int:
    """The first end marker from `place` on, or -1; padding behind it is not read."""
    for start in range(place, len(data), _PIECE):
        found = data[start : start + _PIECE + 1].tobytes().find(_JPEG_END)
        if found >= 0:
            return start + found
    return -1


def _next_scan(data: Pixels, place: int) -> int:
    """From a marker after pixel data to the pixel data of the next scan, or to the end marker."""
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            break
        marker = int(data[place + 1])
        if marker == _FILL:
            place += 1
            continue
        if marker == 0xD9:
            return place
        if marker not in _BETWEEN_SCANS:
            break
        place = _after_segment(data, place)
        if marker == _START_OF_SCAN:
            return place
    if bytes(data[place : place + 2]) == _JPEG_END:
        return place
    if place >= len(data):
        raise ImageError(Code.TRUNCATED_IMAGE, 'jpeg has no end')
    raise ImageError(Code.CORRUPT_IMAGE, 'jpeg with damaged pixel data')

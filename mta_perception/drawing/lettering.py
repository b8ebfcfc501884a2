"""Text on pictures: anti-aliased DejaVu Sans, each string rasterised once, then only blended."""

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mta_perception.frames import Pixels

Colour = tuple[int, int, int]  # RGB, 0..255
Font = ImageFont.FreeTypeFont


@cache
def _font(size: int, bold: bool) -> Font:
    """DejaVu Sans where matplotlib brought it (it is not imported), else Pillow's own typeface."""
    spec = find_spec('matplotlib')
    if spec is not None and spec.origin is not None:
        name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
        path = Path(spec.origin).parent / 'mpl-data' / 'fonts' / 'ttf' / name
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    own = ImageFont.load_default(size=size)
    assert isinstance(own, Font)  # with a size it is
    return own


@lru_cache(maxsize=4096)
def text_width(text: str, size: int, bold: bool = False) -> int:
    """Width in pixels that `draw_text` takes for this string."""
    return int(np.ceil(_font(size, bold).getlength(text)))


def line_height(size: int) -> int:
    """Distance in pixels between two lines of text."""
    return int(round(1.3 * size))


@lru_cache(maxsize=4096)
def _mask(text: str, size: int, bold: bool) -> Pixels:
    """(h, w) uint8 coverage of one line; the top row is the ascent of the font."""
    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    canvas = Image.new('L', (max(1, text_width(text, size, bold)), ascent + descent))
    ImageDraw.Draw(canvas).text((0, ascent), text, fill=255, font=font, anchor='ls')
    return np.asarray(canvas)


def draw_text(
    image: Pixels,
    text: str,
    xy: tuple[float, float],
    size: int,
    colour: Colour,
    bold: bool = False,
) -> None:
    """Write one line into `image` (H, W, 3) uint8, in place; `xy` is its top left corner [px].

    What lies outside the image is cut off.
    """
    mask = _mask(text, size, bold)
    x, y = int(xy[0]), int(xy[1])
    left, top = max(0, -x), max(0, -y)
    right = min(mask.shape[1], image.shape[1] - x)
    bottom = min(mask.shape[0], image.shape[0] - y)
    if left >= right or top >= bottom:
        return
    part = image[y + top : y + bottom, x + left : x + right]
    alpha = mask[top:bottom, left:right, None].astype(np.uint16)
    blended = part * (255 - alpha) + np.asarray(colour, dtype=np.uint16) * alpha
    part[:] = (blended + 127) // 255


def wrap(text: str, size: int, width: int, max_lines: int) -> list[str]:
    """Lines no wider than `width` pixels; the last ends in an ellipsis where text is left over."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < max_lines:
        line = words.pop(0)
        while words and text_width(f'{line} {words[0]}', size) <= width:
            line = f'{line} {words.pop(0)}'
        lines.append(line)
    if words:
        last = lines[-1]
        while last and text_width(last + '…', size) > width:
            last = last[:-1]
        lines[-1] = last.rstrip(' ,.') + '…'
    return lines

"""Decoding of every encoding, refusal of damaged images, and where pixels land in the model's
image."""

from collections import Counter

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.frames import CameraImage
from mta_perception.pipeline.images import (
    ImageError,
    compressed_encoding,
    decode,
    model_image,
    plan_for,
    raw_pixels,
)
from mta_perception.reasons import Code
from mta_perception.runtime.manifest import ImageSpec

SPEC = ImageSpec(448, 256, 0.28)
DAMAGES = (Code.CORRUPT_IMAGE, Code.TRUNCATED_IMAGE, Code.IMPOSSIBLE_IMAGE)


def _scene(width=64, height=48):
    """A smooth colourful RGB image: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([40 + 180 * x, 40 + 180 * y, 200 - 120 * x], axis=-1).astype(np.uint8)


def _jpeg(rgb, *options):
    return cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[
        1
    ].tobytes()


def _png(rgb):
    return cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()


def _image(data, encoding):
    return CameraImage('cam_front', 0, data, encoding)


def _raw(rgb, encoding):
    """What a camera of that encoding would send, by definition of the encoding, not by OpenCV."""
    if encoding in ('rgb8', 'bgr8'):
        return rgb if encoding == 'rgb8' else rgb[..., ::-1]
    if encoding in ('rgba8', 'bgra8'):
        alpha = np.full(rgb.shape[:2] + (1,), 255, np.uint8)
        return np.concatenate([rgb if encoding == 'rgba8' else rgb[..., ::-1], alpha], axis=-1)
    if encoding.startswith('bayer'):
        mosaic = np.zeros(rgb.shape[:2], np.uint8)
        for place, colour in enumerate(encoding[len('bayer_') : -1]):
            rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
            mosaic[rows, columns] = rgb[rows, columns, 'rgb'.index(colour)]
        return mosaic
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)  # ITU-R BT.601, limited range
    luma = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u, v = 128 - 0.148 * r - 0.291 * g + 0.439 * b, 128 + 0.439 * r - 0.368 * g - 0.071 * b
    if encoding == 'nv12':
        chroma = np.stack([u[::2, ::2], v[::2, ::2]], axis=-1).reshape(len(rgb) // 2, -1)
        return np.concatenate([luma, chroma]).round().astype(np.uint8)
    chroma = np.empty_like(luma)
    chroma[:, ::2], chroma[:, 1::2] = u[:, ::2], v[:, ::2]
    pair = (chroma, luma) if encoding in ('yuv422', 'uyvy') else (luma, chroma)
    return np.stack(pair, axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize(
    'encoding',
    [
        'rgb8',
        'bgr8',
        'rgba8',
        'bgra8',
        'bayer_rggb8',
        'bayer_bggr8',
        'bayer_gbrg8',
        'bayer_grbg8',
        'yuv422',
        'uyvy',
        'yuv422_yuy2',
        'yuyv',
        'nv12',
    ],
)
def test_raw_encodings_show_the_same_scene(encoding):
    scene = _scene()
    seen = decode(_image(_raw(scene, encoding), encoding))
    assert seen.shape == scene.shape and seen.dtype == np.uint8
    inner = (slice(2, -2), slice(2, -2))  # demosaicing guesses at the rim
    difference = np.abs(seen[inner].astype(int) - scene[inner])
    assert difference.max() <= 8, f'{encoding}: differs by {difference.max()}'


@pytest.mark.parametrize('encoding, data', [('jpeg', _jpeg(_scene())), ('png', _png(_scene()))])
def test_compressed_encodings_show_the_same_scene(encoding, data):
    assert compressed_encoding(data) == encoding
    assert np.abs(decode(_image(data, encoding)).astype(int) - _scene()).max() <= 8
    assert np.array_equal(
        decode(_image(memoryview(data), encoding)), decode(_image(data, encoding))
    )


def test_grey_images_become_rgb():
    grey = _scene()[..., 0]
    assert np.array_equal(decode(_image(grey, 'mono8')), np.repeat(grey[..., None], 3, -1))
    encoded = cv2.imencode('.jpg', grey)[1].tobytes()
    assert decode(_image(encoded, 'jpeg')).shape == (48, 64, 3)


def test_progressive_and_restart_jpegs_are_whole():
    for option in ([cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]):
        data = _jpeg(_scene(), *option)
        assert np.abs(decode(_image(data, 'jpeg')).astype(int) - _scene()).max() <= 8


def test_padding_after_a_jpeg_is_allowed():
    assert decode(_image(_jpeg(_scene()) + bytes(500), 'jpeg')).shape == (48, 64, 3)


def test_the_orientation_tag_is_not_obeyed():
    data = _jpeg(_scene())
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    tagged = data[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + data[2:]
    assert decode(_image(tagged, 'jpeg')).shape == (48, 64, 3)


@pytest.mark.parametrize('part', [0.0, 0.001, 0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize('encoding', ['jpeg', 'png'])
def test_truncated_images_are_refused(encoding, part):
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    data = _jpeg(scene) if encoding == 'jpeg' else _png(scene)
    with pytest.raises(ImageError, match='truncated|corrupt'):
        decode(_image(data[: int(len(data) * part)], encoding))


def test_overwritten_images_are_refused():
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    for data, encoding in ((_jpeg(scene), 'jpeg'), (_png(scene), 'png')):
        damaged = bytearray(data)
        damaged[len(data) // 2 : len(data) // 2 + 4000] = rng.bytes(4000)
        with pytest.raises(ImageError, match='corrupt'):
            decode(_image(bytes(damaged), encoding))


@pytest.mark.parametrize('encoding, write', [('jpeg', _jpeg), ('png', _png)])
def test_damaged_bytes_give_an_image_of_the_size_in_the_header_or_are_named(encoding, write):
    scene = _scene()
    whole = write(scene)
    rng = np.random.default_rng(1)
    came = Counter()
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        seen = None
        try:
            seen = decode(_image(bytes(damaged), encoding))
        except ImageError as error:
            assert error.reason.code in DAMAGES, error
            assert encoding in error.reason.detail
            came[error.reason.code] += 1
        else:
            assert seen.dtype == np.uint8 and seen.ndim == 3 and seen.shape[2] == 3
            came['image'] += 1
        # What has another size than the calibration never becomes the model's image.
        out = np.full((256, 448, 3), 99, np.uint8)
        try:
            model_image(_image(bytes(damaged), encoding), plan_for(SPEC, 64, 48), out)
        except ImageError as error:
            assert error.reason.code in (*DAMAGES, Code.WRONG_IMAGE_SIZE), error
        else:
            assert seen is not None and seen.shape == scene.shape
    assert came[Code.CORRUPT_IMAGE] > 20 and sum(came.values()) == 300, came


@pytest.mark.parametrize(
    'pixels, encoding, message',
    [
        (np.zeros((48, 64, 3), np.uint8), 'rgb16', 'unknown encoding'),
        (np.zeros((48, 64, 4), np.uint8), 'rgb8', 'expected uint8 with 3 channels'),
        (np.zeros((48, 64, 3), np.float32), 'rgb8', 'float32'),
        (np.zeros((0, 64, 3), np.uint8), 'rgb8', 'expected uint8'),
        (np.zeros((47, 64), np.uint8), 'nv12', 'multiple of 3'),
        (np.zeros((48, 63, 2), np.uint8), 'yuv422', 'no size of yuv422'),
        (b'', 'jpeg', 'without a header'),
        (b'\xff\xd8', 'jpeg', 'truncated'),
        (b'GIF89a', 'png', 'without a header'),
    ],
)
def test_impossible_images_are_refused(pixels, encoding, message):
    with pytest.raises(ImageError, match=message):
        decode(_image(pixels, encoding))


def test_compressed_data_of_another_kind_is_refused():
    for data in (b'GIF89a....', b''):
        with pytest.raises(ImageError, match='expected JPEG or PNG'):
            compressed_encoding(data, 'gif')


def test_rows_with_padding():
    rows = np.arange(48 * 200, dtype=np.uint8).reshape(48, 200)
    pixels = raw_pixels(rows.tobytes(), 64, 48, 200, 'rgb8')
    assert np.array_equal(pixels, rows[:, :192].reshape(48, 64, 3))
    without_last_padding = rows.tobytes()[:-8]
    assert np.array_equal(raw_pixels(without_last_padding, 64, 48, 200, 'rgb8'), pixels)
    assert raw_pixels(bytes(64 * 72), 64, 48, 64, 'nv12').shape == (72, 64)
    with pytest.raises(ImageError, match='bytes, expected'):
        raw_pixels(rows.tobytes()[:-9], 64, 48, 200, 'rgb8')
    with pytest.raises(ImageError, match='step is 100'):
        raw_pixels(rows.tobytes(), 64, 48, 100, 'rgb8')
    with pytest.raises(ImageError, match='no image size'):
        raw_pixels(rows.tobytes(), 0, 48, 0, 'rgb8')


def test_plan_of_the_training_cameras_has_the_training_scale():
    plan = plan_for(SPEC, 1600, 900)
    assert (plan.scaled, plan.size) == ((448, 252), (448, 256))
    np.testing.assert_allclose(
        plan.model_from_image, [[0.28, 0, -0.36], [0, 0.28, -0.36], [0, 0, 1]], atol=1e-12
    )


@pytest.mark.parametrize(
    'size',
    [
        (1600, 900),
        (1920, 1080),
        (1280, 960),
        (640, 480),
        (400, 224),
        (1601, 901),
        (320, 1000),
        (1920, 400),
    ],
)
def test_pixels_land_where_the_plan_says(size):
    width, height = size
    plan = plan_for(SPEC, width, height)
    assert plan.scaled[0] <= 448 and plan.scaled[1] <= 256
    assert plan.scaled[0] == 448 or plan.scaled[1] == 256
    radius = 0.06 * min(size)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    for at in ((0.3 * width, 0.4 * height), (0.8 * width, 0.75 * height)):
        blob = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / radius**2)
        rgb = np.repeat((250 * blob)[..., None], 3, -1).astype(np.uint8)
        expected = (plan.model_from_image @ [*at, 1.0])[:2]
        for image in (_image(rgb, 'rgb8'), _image(_jpeg(rgb), 'jpeg')):
            out = np.full((256, 448, 3), 99, np.uint8)
            model_image(image, plan, out)
            weights = out[..., 0].astype(float) ** 2
            model_x, model_y = np.meshgrid(np.arange(448), np.arange(256))
            centre = [(weights * model_x).sum(), (weights * model_y).sum()] / weights.sum()
            np.testing.assert_allclose(centre, expected, atol=0.06)
            assert not out[plan.scaled[1] :].any() and not out[:, plan.scaled[0] :].any()


@given(st.integers(1, 700), st.integers(1, 700))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_an_image_of_any_size_fills_its_part_and_nothing_else(width, height):
    plan = plan_for(SPEC, width, height)
    out = np.full((SPEC.height, SPEC.width, 3), 99, np.uint8)
    white = np.full((height, width, 3), 255, np.uint8)
    model_image(_image(white, 'rgb8'), plan, out)
    columns, rows = plan.scaled
    assert 1 <= columns <= SPEC.width and 1 <= rows <= SPEC.height
    assert (out[:rows, :columns] == 255).all()
    assert not out[rows:].any() and not out[:, columns:].any()
    # Its outer edges, half a pixel from the centres of the outermost ones, stay its outer edges.
    edges = np.array([[-0.5, -0.5, 1.0], [width - 0.5, height - 0.5, 1.0]])
    np.testing.assert_allclose(
        edges @ plan.model_from_image[:2].T,
        [[-0.5, -0.5], [columns - 0.5, rows - 0.5]],
        atol=1e-9,
    )


def test_fast_decoding_looks_like_the_slow_one():
    scene = np.random.default_rng(0).integers(0, 255, (57, 100, 3), dtype=np.uint8)
    scene = cv2.resize(scene, (1600, 900), interpolation=cv2.INTER_CUBIC)
    out = np.empty((256, 448, 3), np.uint8)
    model_image(_image(_jpeg(scene), 'jpeg'), plan_for(SPEC, 1600, 900), out)
    slow = cv2.resize(scene, (448, 252), interpolation=cv2.INTER_AREA)
    difference = np.abs(out[:252].astype(int) - slow)
    assert difference.mean() < 1.5, f'mean difference {difference.mean():.2f}'


@pytest.mark.parametrize('encoding', ['jpeg', 'png', 'rgb8'])
def test_another_size_than_the_calibration_is_refused(encoding):
    scene = _scene(640, 480)
    data = {'jpeg': _jpeg(scene), 'png': _png(scene), 'rgb8': scene}[encoding]
    with pytest.raises(ImageError, match='640x480, expected 1600x900'):
        model_image(
            _image(data, encoding), plan_for(SPEC, 1600, 900), np.empty((256, 448, 3), np.uint8)
        )

"""Decoding of every encoding, refusal of damaged images, and where pixels land in the model's
image."""

from collections import Counter

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from mta_perception.coded_images import MOSAICS, compressed_encoding, declared_mosaic
from mta_perception.frames import CameraImage, ImageError
from mta_perception.pipeline.images import ModelImageReader, decode, model_image, plan_for
from mta_perception.pipeline.raw_images import raw_pixels
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
    if encoding in ('nv12', 'nv21', 'nv24', 'i420', 'yv12'):
        if encoding in ('nv21', 'yv12'):
            u, v = v, u
        if encoding != 'nv24':
            u, v = u[::2, ::2], v[::2, ::2]
        if encoding in ('i420', 'yv12'):
            chroma = np.concatenate([u.ravel(), v.ravel()])
        else:
            chroma = np.stack([u, v], axis=-1).ravel()
        planes = np.concatenate([luma.ravel(), chroma]).reshape(-1, rgb.shape[1])
        return planes.round().astype(np.uint8)
    chroma = np.empty_like(luma)
    first, second = (v, u) if encoding == 'yvyu' else (u, v)
    chroma[:, ::2], chroma[:, 1::2] = first[:, ::2], second[:, ::2]
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
        'yuy2',
        'yvyu',
        'nv12',
        'nv21',
        'nv24',
        'i420',
        'yv12',
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


FILE_KINDS = {
    'jpeg': ('jpeg', _jpeg(_scene())),
    'progressive': ('jpeg', _jpeg(_scene(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    'restarts': ('jpeg', _jpeg(_scene(), cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    'png': ('png', _png(_scene())),
}
PADDINGS = {
    'zeros': bytes(64 * 48 * 3),
    'ones': b'\xff' * 5000,
    'an older picture': _jpeg(255 - _scene()) + bytes(100),
    'the end of an older picture': _jpeg(255 - _scene())[-700:],
}


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('kind', FILE_KINDS)
def test_the_rest_of_the_buffer_behind_a_picture_changes_nothing(kind, padding):
    encoding, data = FILE_KINDS[kind]
    padded = decode(_image(data + PADDINGS[padding], encoding))
    np.testing.assert_array_equal(padded, decode(_image(data, encoding)))


@given(st.binary(max_size=200_000), st.sampled_from(sorted(FILE_KINDS)))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_bytes_behind_a_picture_change_nothing(rest, kind):
    encoding, data = FILE_KINDS[kind]
    np.testing.assert_array_equal(
        decode(_image(data + rest, encoding)), decode(_image(data, encoding))
    )


@given(st.data(), st.sampled_from(sorted(FILE_KINDS)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_picture_that_is_cut_is_refused_whatever_its_buffer_is_filled_with(data, kind):
    encoding, whole = FILE_KINDS[kind]
    kept = data.draw(st.integers(2, len(whole) - 2))
    filled = whole[:kept] + bytes(data.draw(st.sampled_from([0, 1, 100_000])))
    with pytest.raises(ImageError) as caught:
        decode(_image(filled, encoding))
    assert caught.value.reason.code in DAMAGES


@pytest.mark.parametrize(
    'declared',
    [
        '',
        'jpeg',
        'jpg',
        'JPEG',
        'png',
        'bgr8',
        'rgb8; jpeg compressed bgr8',
        'bgr8; jpeg compressed bgr8',
        'mono8; jpeg compressed ',
        'rgb8; png compressed rgb8',
        'yuv422_yuy2; jpeg compressed bgr8',
        'rgba8;png compressed bgra8',
        'something of a driver',
    ],
)
@pytest.mark.parametrize('encoding', ['jpeg', 'png'])
def test_the_bytes_decide_whatever_the_format_says(declared, encoding):
    data = FILE_KINDS[encoding][1]
    assert compressed_encoding(data, declared) == encoding
    assert declared_mosaic(declared) == ''


@pytest.mark.parametrize(
    'declared, data, words',
    [
        ('16UC1; compressedDepth png', bytes(12) + _png(_scene()), 'depth image'),
        ('16UC1; compressedDepth', _png(_scene()), 'depth image'),
        ('rgb8; tiff compressed', cv2.imencode('.tiff', _scene())[1].tobytes(), 'TIFF'),
        ('h264', b'\0\0\0\x01g', 'expected JPEG or PNG'),
        ('x' * 5000, b'\0\0\0\x01g', 'expected JPEG or PNG'),
    ],
)
def test_compressed_pictures_of_other_kinds_are_named(declared, data, words):
    with pytest.raises(ImageError, match=words) as caught:
        compressed_encoding(data, declared)
    assert caught.value.reason.code is Code.UNKNOWN_ENCODING
    assert len(caught.value.reason.detail) < 300


@pytest.mark.parametrize('pattern', MOSAICS)
@pytest.mark.parametrize('form', ['jpeg', 'png', 'png of 16 bits', 'jpeg of three channels'])
def test_a_compressed_mosaic_becomes_a_picture_with_colours(pattern, form):
    encoding = form[:4].strip()
    scene = _scene(320, 240)
    mosaic = _raw(scene, f'bayer_{pattern}8')
    if form == 'png of 16 bits':
        mosaic = mosaic.astype(np.uint16) << 8
    if form == 'jpeg of three channels':
        mosaic = np.repeat(mosaic[..., None], 3, -1)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if encoding == 'jpeg' else []
    data = cv2.imencode(f'.{encoding}', mosaic, options)[1].tobytes()
    declared = f'bayer_{pattern}8; {encoding} compressed '
    image = CameraImage('cam_front', 0, data, encoding, declared_mosaic(declared))
    inner = (slice(2, -2), slice(2, -2))
    difference = np.abs(decode(image).astype(int) - scene)[inner]
    assert difference.mean() < (5 if encoding == 'jpeg' else 2), difference.mean()
    # For the model it is decoded whole: halves of a mosaic mix its colours.
    reader = ModelImageReader(plan_for(ImageSpec(100, 75, 0.3), 320, 240))
    out = np.empty((75, 100, 3), np.uint8)
    reader.read(image, out)
    wanted = cv2.resize(scene, (100, 75), interpolation=cv2.INTER_AREA)
    assert np.abs(out.astype(int) - wanted)[2:-2, 2:-2].mean() < 5
    assert ('blurs its colours' in ' '.join(reader.warnings())) == (encoding == 'jpeg')


def test_a_picture_with_colours_is_no_mosaic_whatever_its_format_says():
    image = CameraImage('cam_front', 0, _jpeg(_scene()), 'jpeg', 'rggb')
    np.testing.assert_array_equal(decode(image), decode(_image(_jpeg(_scene()), 'jpeg')))


@pytest.mark.parametrize('declared', ['bayer; jpeg compressed', 'bayer_gggg8; jpeg compressed'])
def test_a_mosaic_of_an_unknown_pattern_is_refused(declared):
    with pytest.raises(ImageError, match='bayer_rggb8') as caught:
        declared_mosaic(declared)
    assert caught.value.reason.code is Code.UNKNOWN_ENCODING


def _of_16_bits(rgb, encoding, bits):
    """(H, W[, C]) uint16 that use `bits` of them."""
    eight = encoding.replace('16', '8')
    eight = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8'}.get(eight, eight)
    raw = rgb[..., 0] if eight == 'mono8' else _raw(rgb, eight)
    return (raw.astype(np.uint16) << 8) >> (16 - bits)


ENCODINGS_16 = ['mono16', '16UC1', 'rgb16', 'bgr16', 'rgba16', 'bgra16', '16UC3', '16UC4']
ENCODINGS_16 += [f'bayer_{pattern}16' for pattern in MOSAICS]


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize('encoding', ENCODINGS_16)
def test_16_bits_show_the_scene_however_many_are_used(encoding, bigendian, bits):
    scene = _scene()
    pixels = _of_16_bits(scene, encoding, bits)
    step = pixels[0].nbytes + 6
    rows = np.zeros((len(pixels), step), np.uint8)
    order = '>u2' if bigendian else '<u2'
    rows[:, :-6] = pixels.astype(order).reshape(len(pixels), -1).view(np.uint8)
    came = raw_pixels(rows.tobytes(), 64, 48, step, encoding, bigendian)
    seen = decode(_image(came, encoding))
    expected = scene[..., :1] if encoding in ('mono16', '16UC1') else scene
    difference = np.abs(seen.astype(int) - expected)[2:-2, 2:-2]
    assert difference.max() <= 8, f'{encoding} of {bits} bits: off by {difference.max()}'


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
@pytest.mark.parametrize('colours', ['grey', 'bgr', 'bgra'])
def test_a_png_of_16_bits_shows_the_scene_however_many_are_used(colours, bits):
    encoding = {'grey': 'mono16', 'bgr': 'bgr16', 'bgra': 'bgra16'}[colours]
    data = cv2.imencode('.png', _of_16_bits(_scene(), encoding, bits))[1].tobytes()
    seen = decode(_image(data, 'png')).astype(int)
    expected = _scene()[..., :1] if colours == 'grey' else _scene()
    assert np.abs(seen - expected).max() <= 1


def test_the_bits_in_use_grow_with_what_comes_and_never_shrink():
    reader = ModelImageReader(plan_for(ImageSpec(64, 48, 1.0), 64, 48))
    out = np.empty((48, 64, 3), np.uint8)

    def bits_after(highest, outliers=0):
        pixels = np.full((48, 64), highest, np.uint16)
        pixels.ravel()[:outliers] = 65535
        reader.read(_image(pixels, 'mono16'), out)
        return reader.facts()['bits']

    assert bits_after(900, outliers=10) == '10 of 16'  # hot pixels
    assert out.max() == 255 and np.median(out) == 900 >> 2
    assert bits_after(3000) == '12 of 16'
    assert bits_after(0) == '12 of 16'
    assert bits_after(900) == '12 of 16' and out.max() == 900 >> 4
    assert bits_after(60000) == '16 of 16'
    assert reader.warnings() == []


@pytest.mark.parametrize(
    'encoding, like', [('8UC1', 'mono8'), ('8UC3', 'bgr8'), ('8UC4', 'bgra8')]
)
def test_types_of_opencv_are_read_as_cv_bridge_does(encoding, like):
    pixels = _scene()[..., 0] if like == 'mono8' else _raw(_scene(), like)
    np.testing.assert_array_equal(decode(_image(pixels, encoding)), decode(_image(pixels, like)))


PLANES = {  # (rows, bytes a row) as parts of height and width
    'nv12': [(1, 1), (0.5, 1)],
    'nv21': [(1, 1), (0.5, 1)],
    'nv24': [(1, 1), (1, 2)],
    'i420': [(1, 1), (0.5, 0.5), (0.5, 0.5)],
    'yv12': [(1, 1), (0.5, 0.5), (0.5, 0.5)],
}


@pytest.mark.parametrize('encoding', PLANES)
def test_planar_images_with_padded_rows_or_an_odd_step(encoding):
    tight = _raw(_scene(), encoding)
    parts, start, flat = [], 0, tight.ravel()
    for rows, row in PLANES[encoding]:
        rows, row = int(48 * rows), int(64 * row)
        plane = np.full((rows, row * 80 // 64), 77, np.uint8)
        plane[:, :row] = flat[start : start + rows * row].reshape(rows, row)
        parts.append(plane.ravel())
        start += rows * row
    padded = np.concatenate(parts).tobytes()
    np.testing.assert_array_equal(raw_pixels(padded, 64, 48, 80, encoding), tight)
    for step in (0, 64, 96, 128):  # drivers disagree on it
        np.testing.assert_array_equal(raw_pixels(tight.tobytes(), 64, 48, step, encoding), tight)
    with pytest.raises(ImageError, match='bytes, expected'):
        raw_pixels(tight.tobytes()[:-1], 64, 48, 64, encoding)


@given(
    st.sampled_from(['mono8', 'rgb8', 'mono16', 'bgr16', 'bayer_grbg16', 'nv24', '8UC3']),
    st.integers(4, 40),
    st.integers(4, 40),
    st.integers(0, 9),
    st.booleans(),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_size_padding_and_byte_order(encoding, width, height, padding, bigendian):
    rng = np.random.default_rng(width * 1000 + height)
    channels = 3 if encoding in ('rgb8', 'bgr16', '8UC3') else 1
    kind = np.dtype(('>' if bigendian else '<') + ('u2' if '16' in encoding else 'u1'))
    rows = 3 * height if encoding == 'nv24' else height
    pixels = rng.integers(0, 256, (rows, width * channels)).astype(kind)
    if encoding == 'nv24':
        padding = 0
    padded = np.zeros((rows, pixels[0].nbytes + padding), np.uint8)
    padded[:, : pixels[0].nbytes] = pixels.view(np.uint8).reshape(rows, -1)
    came = raw_pixels(padded.tobytes(), width, height, padded.shape[1], encoding, bigendian)
    np.testing.assert_array_equal(came.reshape(rows, -1), pixels)
    assert decode(_image(came, encoding)).shape == (height, width, 3)


@pytest.mark.parametrize('size', [(0, 48), (64, 0), (0, 0), (2**31 - 1, 2**31 - 1)])
def test_sizes_in_a_header_that_no_image_has(size):
    data = bytearray(_png(_scene()))
    data[16:24] = b''.join(part.to_bytes(4, 'big') for part in size)
    out = np.empty((256, 448, 3), np.uint8)
    with pytest.raises(ImageError) as caught:
        model_image(_image(bytes(data), 'png'), plan_for(SPEC, 64, 48), out)
    assert caught.value.reason.code is Code.IMPOSSIBLE_IMAGE


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
        (np.zeros((48, 64, 3), np.float32), '32FC3', 'unknown encoding'),
        (np.zeros((48, 64, 3), np.uint8), 'rgb16', 'expected uint16 with 3 channels'),
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
    with pytest.raises(ImageError, match='640x480, expected 1600x900') as caught:
        model_image(
            _image(data, encoding), plan_for(SPEC, 1600, 900), np.empty((256, 448, 3), np.uint8)
        )
    assert caught.value.reason.code is Code.WRONG_IMAGE_SIZE


@pytest.mark.parametrize('size', [(800, 450), (533, 300), (1920, 1080), (480, 270)])
@pytest.mark.parametrize('encoding', ['jpeg', 'rgb8'])
def test_another_size_of_the_same_aspect_is_scaled_and_said(size, encoding):
    scene = _scene(1600, 900)
    cv2.rectangle(scene, (700, 400), (1000, 600), (255, 255, 255), -1)
    plan = plan_for(SPEC, 1600, 900)
    expected, out = np.empty((2, 256, 448, 3), np.uint8)
    model_image(_image(scene, 'rgb8'), plan, expected)
    scaled = cv2.resize(scene, size, interpolation=cv2.INTER_AREA)
    reader = ModelImageReader(plan)
    reader.read(_image(_jpeg(scaled) if encoding == 'jpeg' else scaled, encoding), out)
    assert np.abs(out.astype(int) - expected).mean() < 1.0
    assert f'{size[0]}x{size[1]}' in reader.warnings()[0] and '1600x900' in reader.warnings()[0]


@pytest.mark.parametrize('size', [(1600, 1200), (1600, 910), (900, 1600), (640, 480), (3, 2)])
def test_another_aspect_is_refused(size):
    out = np.empty((256, 448, 3), np.uint8)
    with pytest.raises(ImageError, match='or the same aspect') as caught:
        model_image(_image(_scene(*size), 'rgb8'), plan_for(SPEC, 1600, 900), out)
    assert caught.value.reason.code is Code.WRONG_IMAGE_SIZE


def test_the_whole_sensor_is_refused_where_a_region_was_promised():
    """Of the same aspect, it would pass for the region scaled."""
    reader = ModelImageReader(plan_for(SPEC, 800, 450), sensor=(1600, 900))
    out = np.empty((256, 448, 3), np.uint8)
    with pytest.raises(ImageError, match='whole sensor') as caught:
        reader.read(_image(_scene(1600, 900), 'rgb8'), out)
    assert caught.value.reason.code is Code.WRONG_IMAGE_SIZE
    reader.read(_image(_scene(800, 450), 'rgb8'), out)
    assert reader.warnings() == []

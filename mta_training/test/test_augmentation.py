"""Light, dead cameras, squares and colours of training images, against loops and in batches."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

import cv2
from small_bevformer import small_config
from toy_scenes import toy_scene
from training_cases import small_recipe

from mta_perception.model.bevformer.network import BEVFormer
from mta_training.data.augmentation import (
    Augmentation,
    augment,
    distort,
    distort_cameras,
    grid_mask,
)
from mta_training.data.batches import Place, make_batch, slot_generators

OFF = Augmentation(relight=False, dead_cameras=0.0)
PUBLISHED = Augmentation(relight=False, dead_cameras=0.0, photometric=True, grid_mask=0.7)


@pytest.fixture(scope='module')
def scene():
    return toy_scene(small_recipe().model, frames=2, objects=6)


def slow_mask(height, width, spacing, stripe, row, column):
    """As published: zeros drawn into 1.5 x the image, its middle cut out, turned over."""
    tall, wide = int(1.5 * height), int(1.5 * width)
    canvas = np.ones((tall, wide))
    for i in range(tall // spacing):
        for y in range(spacing * i + row, min(spacing * i + row + stripe, tall)):
            canvas[y] = 0
    for i in range(wide // spacing):
        for x in range(spacing * i + column, min(spacing * i + column + stripe, wide)):
            canvas[:, x] = 0
    top, left = (tall - height) // 2, (wide - width) // 2
    return 1 - canvas[top : top + height, left : left + width]


class Dice:
    """A generator that keeps what it gave."""

    def __init__(self, seed):
        self.rng, self.given = np.random.default_rng(seed), []

    def integers(self, *limits):
        self.given.append(int(self.rng.integers(*limits)))
        return self.given[-1]


@pytest.mark.parametrize('seed', range(20))
def test_grid_mask_equals_drawing(seed):
    dice = Dice(seed)
    mask = grid_mask(48, 81, dice)
    spacing, row, column = dice.given
    stripe = min(max(int(spacing * 0.5 + 0.5), 1), spacing - 1)
    np.testing.assert_array_equal(mask, slow_mask(48, 81, spacing, stripe, row, column))


def test_grid_mask_keeps_three_quarters():
    rng = np.random.default_rng(0)
    kept = [grid_mask(96, 160, rng).mean() for _ in range(1000)]
    assert np.mean(kept) == pytest.approx(0.75, abs=0.05)


def slow_distort(image, dice):
    """One pixel at a time, with the numbers in the order `distort` draws them."""
    height, width, _ = image.shape
    image = image.astype(np.float64)
    if dice.random() < 0.5:
        image = image + dice.uniform(-32.0, 32.0)
    first = dice.random() < 0.5
    if first and dice.random() < 0.5:
        image = image * dice.uniform(0.5, 1.5)
    saturation = dice.uniform(0.5, 1.5) if dice.random() < 0.5 else 1.0
    hue = dice.uniform(-18.0, 18.0) if dice.random() < 0.5 else 0.0
    for v in range(height):
        for u in range(width):
            image[v, u] = _shift_colour(*image[v, u], saturation, hue)
    if not first and dice.random() < 0.5:
        image = image * dice.uniform(0.5, 1.5)
    if dice.random() < 0.5:
        image = image[..., dice.permutation(3)]
    return image


def _shift_colour(blue, green, red, saturation, turn):
    value, low = max(blue, green, red), min(blue, green, red)
    span = value - low
    if span == 0:
        hue = 0.0
    elif value == red:
        hue = 60.0 * (green - blue) / span
    elif value == green:
        hue = 120.0 + 60.0 * (blue - red) / span
    else:
        hue = 240.0 + 60.0 * (red - green) / span
    share = span / abs(value) * saturation if value else 0.0
    sector = ((hue + turn) % 360.0) / 60.0
    whole, part = int(sector), sector - int(sector)
    p, q, t = (value * (1 - share * x) for x in (1.0, part, 1.0 - part))
    red, green, blue = [
        (value, t, p),
        (q, value, p),
        (p, value, t),
        (p, q, value),
        (t, p, value),
        (value, p, q),
    ][whole % 6]
    return blue, green, red


@pytest.mark.parametrize('seed', range(16))
def test_distortion_equals_pixel_by_pixel(seed):
    image = np.random.default_rng(100 + seed).uniform(40, 250, (5, 6, 3)).astype(np.float32)
    before = image.copy()
    got = distort(image, np.random.default_rng(seed))
    np.testing.assert_allclose(got, slow_distort(image, np.random.default_rng(seed)), atol=0.05)
    np.testing.assert_array_equal(image, before)


def test_each_distortion_comes_half_of_the_time():
    grey = np.full((2, 2, 3), 100.0, np.float32)
    rng = np.random.default_rng(0)
    results = [distort(grey, rng)[0, 0, 0] for _ in range(1200)]
    untouched = np.mean(np.abs(np.array(results) - 100.0) < 1e-3)
    assert untouched == pytest.approx(0.25, abs=0.04)  # neither brightness nor contrast
    assert 34.0 <= min(results) < 46.0 and 180.0 < max(results) <= 198.0


def test_cameras_differ_and_colours_keep_their_place():
    rng = np.random.default_rng(5)
    images = np.tile(np.array([200, 90, 30], np.uint8), (6, 4, 4, 1))
    lit = distort_cameras(images, rng)
    assert lit.dtype == np.float32 and lit.shape == images.shape
    assert len({round(float(camera[0, 0, 1]), 3) for camera in lit}) > 3

    class Never:
        def random(self):
            return 1.0

    np.testing.assert_allclose(distort_cameras(images, Never()), images, atol=1e-3)
    assert cv2.cvtColor(images[0], cv2.COLOR_RGB2BGR)[0, 0, 0] == 30


def test_nothing_is_changed_where_all_is_off(scene):
    stored = scene.images[0]
    images, mask = augment(stored, np.ones(6, np.float32), np.random.default_rng(0), OFF)
    assert images is stored and mask.all()


def test_squares_are_zero_for_the_network_and_the_same_in_all_cameras():
    config = small_config()
    images = np.random.default_rng(0).integers(0, 255, (6, 64, 96, 3), np.uint8)
    settings = Augmentation(relight=False, dead_cameras=0.0, grid_mask=1.0)
    cut, _ = augment(images, np.ones(6, np.float32), np.random.default_rng(3), settings)
    model = torch.nn.Module()
    model.config = config
    whole, seen = (
        BEVFormer.normalise(model, torch.from_numpy(part)[None])[0, :, :, :54]
        for part in (images, cut)
    )
    gone = (seen == 0).all(1)  # (6, 54, 96)
    assert torch.equal(gone, gone[:1].expand_as(gone)) and 0.05 < gone.float().mean() < 0.6
    kept = ~gone[:, None].expand_as(seen)
    assert torch.equal(seen[kept], whole[kept])


def test_squares_come_seven_times_in_ten_and_never_in_the_history():
    images, mask = np.zeros((1, 48, 80, 3), np.uint8), np.ones(1, np.float32)
    settings = Augmentation(relight=False, dead_cameras=0.0, grid_mask=0.7)
    rng = np.random.default_rng(0)
    cut = [augment(images, mask, rng, settings)[0].any() for _ in range(1000)]
    assert np.mean(cut) == pytest.approx(0.7, abs=0.04)
    assert not any(augment(images, mask, rng, settings.of_history)[0].any() for _ in range(50))


def test_published_images_of_a_batch_are_float_and_stored_ones_stay(scene):
    stored = scene.images.copy()
    places = [Place(0, 0, False), Place(0, 1, True)]
    batch, again = (
        make_batch([scene], places, slot_generators(0, 5, [0, 1]), PUBLISHED) for _ in range(2)
    )
    assert batch.images.dtype == torch.float32 and torch.equal(batch.images, again.images)
    assert batch.camera_mask.all()
    assert (batch.images - torch.from_numpy(stored).float()).abs().mean() > 1.0
    np.testing.assert_array_equal(scene.images, stored)


@pytest.mark.parametrize('values', [{'grid_mask': 1.2}, {'dead_cameras': -0.1}])
def test_shares_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Augmentation(**values)

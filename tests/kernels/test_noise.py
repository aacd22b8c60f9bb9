"""The noise is what it is said to be: normal, of the deviation asked for, and each pixel's own.

Seeds are fixed, so nothing here can fail by bad luck; bounds are five standard deviations of the statistic.
"""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from khmer_ocr_kernels.degrade import degrade
from khmer_ocr_kernels.degrade_numba import _DRAWS, _draw
from khmer_ocr_kernels.degrade_reference import NOISE_SALT
from khmer_ocr_kernels.lookup_tables import NORMAL_BITS, gaussian_taps, normal_quantiles
from khmer_ocr_kernels.philox import philox4x32
from khmer_ocr_kernels.ragged import RaggedLines

SIDE = 512
GREY = 128


def noise(keys, noise16, height=SIDE, width=SIDE, grey=GREY):
    """Noise of one image a key, as integers (B, height, width)."""
    keys = np.array(keys, np.uint32)
    lines = len(keys)
    widths, nothing = np.full(lines, width, np.int32), np.zeros(lines, np.int32)
    pixels = np.full(lines * height * width, grey, np.uint8)
    deviation = np.broadcast_to(np.array(noise16, np.int32), lines).copy()
    augmented = degrade(RaggedLines(pixels, widths, height), nothing, nothing, deviation, keys)
    return augmented.pixels_N.reshape(lines, height, width).astype(np.int64) - grey


def correlation(a, b):
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def assert_unrelated(a, b):
    assert abs(correlation(a, b)) < 5 / np.sqrt(a.size)
    # Nor may one be small where the other is small.
    assert abs(correlation(np.abs(a), np.abs(b))) < 5 / np.sqrt(a.size)


@given(st.integers(0, 2**28), st.integers(1, _DRAWS), st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
def test_draws_of_the_kernel_are_philox(first, count, key):
    words = np.zeros(4 * _DRAWS, np.uint32)
    key = np.array(key, np.uint32)
    _draw(first, count, *key, words)
    counters = np.zeros((count, 4), np.uint32)
    counters[:, 0], counters[:, 1] = np.arange(first, first + count), NOISE_SALT
    assert np.array_equal(words[: 4 * count].reshape(-1, 4), philox4x32(counters, key))


def test_the_table_is_a_normal_law():
    z = normal_quantiles()
    unit = 1 << NORMAL_BITS
    assert z.shape == (256,) and (np.diff(z) > 0).all()
    assert np.array_equal(z, -z[::-1]) and (z % 2 == 1).all()
    assert abs((z.astype(float) ** 2).mean() / unit**2 - 1) < 2e-5
    # Moments that a law cut off at 2.9 deviations can have.
    assert (z.astype(float) ** 4).mean() / unit**4 == pytest.approx(3, abs=0.15)
    assert z.max() / unit == pytest.approx(2.89, abs=0.01)


def test_tables_are_the_same_on_every_machine():
    tables = gaussian_taps().astype("<i4").tobytes() + normal_quantiles().astype("<i4").tobytes()
    assert hashlib.sha256(tables).hexdigest()[:16] == "7ed11706c0afe631"


def test_rounding_leaves_the_mean_at_zero_at_every_deviation():
    deviation = np.arange(1025)[:, None]
    greys = (normal_quantiles().astype(np.int64) * deviation + (1 << 16)) >> 17
    assert (greys.sum(1) == 0).all()


def test_mean_and_deviation_at_every_level():
    level = np.arange(1025)
    side = 96
    seen = noise(np.stack([level, level * 7], axis=1), level, side, side).reshape(1025, -1)
    possible = np.clip(np.rint(normal_quantiles() / 2**NORMAL_BITS * level[:, None] / 16), -GREY, 255 - GREY)
    mean, deviation = possible.mean(1), possible.std(1)
    count = side * side
    silent = deviation == 0
    assert (seen[silent] == 0).all() and silent.sum() == 3  # a third of a grey level at most
    loud = ~silent
    assert (np.abs(seen.mean(1) - mean)[loud] < 5 * deviation[loud] / np.sqrt(count)).all()
    fourth = ((possible - mean[:, None]) ** 4).mean(1)
    error_of_variance = np.sqrt((fourth - deviation**4) / count)
    assert (np.abs(seen.var(1) - deviation**2) <= 5 * error_of_variance + 1e-9)[loud].all()
    # Rounding to whole levels adds 1/12, more or less while they are few; above 40 levels greys are clamped.
    ratio = possible.std(1) / np.sqrt((level / 16) ** 2 + 1 / 12, where=loud, out=np.ones(1025))
    assert np.abs(ratio - 1)[16:641].max() < 0.015 and np.abs(ratio - 1)[64:641].max() < 0.0075


def test_every_byte_is_equally_likely():
    words = np.empty((400, 4 * _DRAWS), np.uint32)
    for number, row in enumerate(words):
        _draw(number * _DRAWS, _DRAWS, np.uint32(5), np.uint32(6), row)
    counts = np.bincount(words.view(np.uint8).ravel(), minlength=256)
    expected = words.nbytes / 256
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - 255) < 5 * np.sqrt(2 * 255)


# 1 the next pixel, 4 the next word, 16 the next draw, 1,024 the next run of draws in the compiled kernel.
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 12, 15, 16, 17, 64, 1024])
def test_pixels_of_a_row_are_unrelated(distance):
    flat = noise([[11, 12]], 160).ravel()
    assert_unrelated(flat[:-distance], flat[distance:])


@pytest.mark.parametrize("width", [1, 31, 300, SIDE])
def test_pixels_above_each_other_are_unrelated(width):
    image = noise([[13, 14]], 160, height=SIDE * SIDE // width, width=width)[0]
    assert_unrelated(image[:-1], image[1:])
    assert_unrelated(image[:-1, :-1], image[1:, 1:]) if width > 1 else None


def test_neighbouring_keys_are_unrelated():
    keys = [[0, 0], [1, 0], [2, 0], [3, 0], [0, 1], [0, 2], [0, 0x80000000], [0x80000000, 0]]
    images = noise(keys, 160, height=256)
    for a, b in pairwise(images):
        assert_unrelated(a, b)
    for b in images[1:]:
        assert_unrelated(images[0], b)


def test_noise_does_not_depend_on_what_it_falls_on():
    light, dark = noise([[21, 22]], 160, grey=180), noise([[21, 22]], 160, grey=70)
    assert np.array_equal(light, dark)


@pytest.mark.parametrize("grey", [0, 3, 128, 252, 255])
def test_greys_are_clamped_not_wrapped(grey):
    augmented = noise([[31, 32]], 1024, grey=grey) + grey
    possible = np.clip(grey + np.rint(normal_quantiles() / 2**NORMAL_BITS * 64), 0, 255)
    assert set(np.unique(augmented)) == set(np.unique(possible))
    assert abs(augmented.mean() - possible.mean()) < 5 * possible.std() / SIDE

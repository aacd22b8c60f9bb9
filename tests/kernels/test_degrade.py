"""The compiled kernel against its reference, byte for byte, and both against what each step is meant to do."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from khmer_ocr_kernels import degrade_numba, degrade_reference
from khmer_ocr_kernels.degrade import degrade
from khmer_ocr_kernels.lookup_tables import gaussian_taps, radius_of
from khmer_ocr_kernels.ragged import RaggedLines, line_offsets


def batch(widths, height, morph=0, sigma32=0, noise16=0, seed=0, pixels=None):
    """Arguments of `degrade`: strokes of ink on lines of given widths; parameters are spread over the lines."""
    random = np.random.default_rng(seed)
    widths = np.array(widths, np.int32)
    offsets = line_offsets(widths, height)
    if pixels is None:
        greys = random.choice(np.array([0, 1, 90, 200, 254, 255, 255, 255], np.uint8), offsets[-1] // 3 + 1)
        pixels = np.repeat(greys, 3)[: offsets[-1]]
    parameters = (np.broadcast_to(np.array(value, np.int32), len(widths)).copy() for value in (morph, sigma32, noise16))
    keys = random.integers(0, 2**32, (len(widths), 2), np.uint32)
    return RaggedLines(np.array(pixels, np.uint8).ravel(), widths, height), *parameters, keys


def any_batch(seed, height, lines, widest=70):
    """Lines of 0 to `widest` px; each step is left out of a third of them."""
    random = np.random.default_rng(seed)
    amounts = [random.integers(low, high + 1, lines) for low, high in ((-256, 256), (0, 160), (0, 1024))]
    amounts = [values * (random.random(lines) < 0.67) for values in amounts]
    return batch(random.integers(0, widest + 1, lines), height, *amounts, seed=seed)


def line(arguments, number):
    """The batch of one of the lines."""
    lines, *amounts = arguments
    return RaggedLines.of_images([lines.image(number)]), *(values[number : number + 1] for values in amounts)


def assert_same(arguments):
    got, expected = degrade(*arguments), degrade_reference.degrade(*arguments)
    assert got.pixels_N.dtype == expected.pixels_N.dtype == np.uint8
    assert np.array_equal(got.pixels_N, expected.pixels_N)
    assert np.array_equal(got.width_B, arguments[0].width_B) and got.height_px == arguments[0].height_px


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3, 7, 24, 32, 33, 48, 96]), st.integers(0, 30))
def test_equals_the_reference(seed, height, lines):
    assert_same(any_batch(seed, height, lines))


@pytest.mark.parametrize("height", [5, 24])
def test_equals_the_reference_on_thousands_of_lines(height):
    assert_same(any_batch(height, height, 1200, widest=40))


@pytest.mark.parametrize(
    "amounts",
    [{"morph": np.arange(-256, 257)}, {"sigma32": np.arange(161)}, {"noise16": np.arange(1025)}],
    ids=lambda amounts: next(iter(amounts)),
)
def test_every_step_of_every_parameter(amounts):
    count = len(next(iter(amounts.values())))
    assert_same(batch(np.arange(count) % 23 + 1, 17, **amounts, seed=count))


def test_wide_lines_and_lines_of_nothing():
    assert_same(batch([2048, 1, 0, 300], 32, 77, [160, 160, 160, 48], 200))
    assert_same(batch([5000], 3, -256, 33, 1024))
    for nothing in ([], [0, 0]):
        assert degrade(*batch(nothing, 32, 256, 160, 1024)).pixels_N.shape == (0,)


@given(st.integers(0, 2**32))
def test_a_line_alone_is_the_line_in_a_batch(seed):
    arguments = any_batch(seed, 9, 6)
    together = degrade(*arguments)
    for number in range(6):
        alone = degrade(*line(arguments, number))
        assert np.array_equal(alone.image(0), together.image(number))


@pytest.mark.parametrize("poison", [0x00, 0xA5, 0xFF])
def test_nothing_is_read_before_it_is_written(monkeypatch, poison):
    # Output and scratch are taken unfilled: neither holes nor what lay there before must show.
    arguments = any_batch(3, 32, 40)
    expected = degrade_reference.degrade(*arguments).pixels_N

    def poisoned(shape, dtype):
        taken = np.zeros(shape, dtype)
        taken.view(np.uint8)[...] = poison
        return taken

    monkeypatch.setattr(degrade_numba.np, "empty", poisoned)
    assert np.array_equal(degrade(*arguments).pixels_N, expected)


def test_inputs_are_left_as_they_were():
    arguments = any_batch(4, 32, 10)
    lines, *parameters = arguments
    arrays = [lines.pixels_N, lines.width_B, *parameters]
    before = [np.copy(array) for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    augmented = degrade(*arguments)
    assert not np.shares_memory(augmented.pixels_N, lines.pixels_N)
    assert all(np.array_equal(now, then) for now, then in zip(arrays, before, strict=True))


def test_parameters_may_be_columns_of_a_table():
    *arrays, keys = any_batch(6, 32, 10)
    table = np.column_stack([keys, keys])
    assert np.array_equal(degrade(*arrays, table[:, :2]).pixels_N, degrade(*arrays, keys).pixels_N)


def test_nothing_asked_for_changes_nothing():
    arguments = batch([40, 7], 32)
    assert np.array_equal(degrade(*arguments).pixels_N, arguments[0].pixels_N)


def test_a_blank_line_stays_blank_but_for_noise():
    blank = np.full(60 * 32, 255, np.uint8)
    for morph, sigma32 in ((256, 160), (-256, 48), (0, 1)):
        assert (degrade(*batch([60], 32, morph, sigma32, pixels=blank)).pixels_N == 255).all()


def test_whole_morphology_is_that_of_opencv():
    cv2 = pytest.importorskip("cv2")
    pixels = batch([90], 32, seed=8)[0].image(0)
    square = np.ones((3, 3), np.uint8)
    for morph, theirs in ((256, cv2.erode), (-256, cv2.dilate)):
        mine = degrade(*batch([90], 32, morph, pixels=pixels)).image(0)
        assert np.array_equal(mine, theirs(pixels, square, borderType=cv2.BORDER_CONSTANT, borderValue=255))


def test_morphology_in_between_lies_in_between():
    pixels = batch([90], 32, seed=9)[0].pixels_N.astype(int)
    whole = degrade(*batch([90], 32, 256, pixels=pixels)).pixels_N.astype(int)
    for morph in (1, 64, 128, 200):
        mixed = degrade(*batch([90], 32, morph, pixels=pixels)).pixels_N
        assert np.abs(mixed - (pixels + (whole - pixels) * morph / 256)).max() <= 0.5


@pytest.mark.parametrize("sigma32", [1, 16, 32, 48, 77, 160])
def test_blur_is_a_gaussian_within_a_grey_level(sigma32):
    pixels = batch([120], 40, seed=sigma32)[0].image(0)
    radius = radius_of(sigma32)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma32 / 32)) ** 2)
    weights /= weights.sum()
    exact = 255.0 - pixels
    for axis in (0, 1):
        exact = np.apply_along_axis(lambda row: np.convolve(row, weights)[radius : radius + len(row)], axis, exact)
    mine = degrade(*batch([120], 40, sigma32=sigma32, pixels=pixels)).image(0)
    # Half a level of rounding, and of each tap less than 1 / 2**14.
    assert np.abs(mine - (255 - exact)).max() < 0.75


def test_taps_are_whole_gaussians():
    taps = gaussian_taps()
    assert taps.shape == (161, 17) and (taps[:, -1] == 0).all()
    assert (taps[:, 0] + 2 * taps[:, 1:].sum(1) == 1 << 14).all()
    assert (taps >= 0).all() and (np.diff(taps, axis=1) <= 0).all()
    for sigma32 in range(1, 161):
        radius = radius_of(sigma32)
        assert radius == int(np.ceil(3 * sigma32 / 32)) <= 15
        weights = np.exp(-0.5 * (np.arange(17) / (sigma32 / 32)) ** 2) * (np.arange(17) <= radius)
        exact = weights / (2 * weights.sum() - 1) * 2**14
        assert np.abs(taps[sigma32] - exact).max() < 1


def test_bytes_of_a_known_batch_stay():
    """Who changes what lines look like changes this hash knowingly: data sets of earlier versions can't be remade."""
    y, x = np.mgrid[0:32, 0:201]
    pixels = np.where((x // 3 + y // 5) % 7 < 2, (x * y) % 256, 255)
    keys = np.array([[1, 2], [3, 4], [5, 6], [0xFFFFFFFF, 0]], np.uint32)
    arguments = batch([201] * 4, 32, [100, -100, 0, 256], [48, 0, 160, 7], [160, 1024, 0, 33], pixels=[pixels] * 4)
    augmented = degrade(*arguments[:-1], keys)
    assert hashlib.sha256(augmented.pixels_N.tobytes()).hexdigest()[:16] == "44f48ed57ffcf243"


def changed(number, value):
    arguments = list(batch([40, 7], 32, 1, 1, 1))
    arguments[number] = value
    return arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(1, np.array([0, 257], np.int32)), r"morph_B holds 257, expected -256..256 \(in 1/256\)"),
        (changed(1, np.array([-257, 0], np.int32)), "morph_B holds -257"),
        (changed(2, np.array([161, 0], np.int32)), r"sigma32_B holds 161, expected 0..160 \(in 1/32 px\)"),
        (changed(2, np.array([-1, 0], np.int32)), "sigma32_B holds -1"),
        (changed(3, np.array([0, 1025], np.int32)), r"noise16_B holds 1025, expected 0..1024 \(in 1/16 grey level\)"),
        (changed(3, np.zeros((2, 1), np.int32)), r"noise16_B is int32\(2, 1\), expected int32\(2,\)"),
        (changed(4, np.zeros((2, 2), np.int64)), r"key_B2 is int64\(2, 2\), expected uint32\(2, 2\)"),
    ],
)
def test_what_it_cannot_do_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        degrade(*arguments)

"""The compiled compositor against its reference, byte for byte: no tolerance, for all arithmetic is of integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from khmer_ocr_kernels import compose as fast
from khmer_ocr_kernels import reference

HEIGHTS = (1, 24, 32, 48, 96)


def case(seed: int, height: int, lines: int, quads: int, reach: int):
    """A random batch: rasters of 0 to 12 px, lines of 0 to 60 px, pens up to `reach` px outside."""
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 13, (9, 2))
    sizes[0] = 0
    areas = sizes[:, 0] * sizes[:, 1]
    pixels = random.choice(np.array([0, 1, 128, 254, 255], np.uint8), int(areas.sum()) + 7)
    entries = np.empty((9, 5), np.int32)
    entries[:, 0] = np.cumsum(areas) - areas
    entries[:, 1:3] = sizes
    entries[:, 3:] = random.integers(-4, 9, (9, 2))
    widths = random.integers(0, 61, lines).astype(np.int32)
    if lines:
        widths[0] = 1
    counts = random.integers(0, quads + 1, lines)
    offsets = np.zeros(lines + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    total = int(offsets[-1])
    quads_Q3 = np.stack(
        [
            random.integers(0, 9, total),
            random.integers(-reach, 60 + reach, total),
            random.integers(-reach, reach + 1, total),
        ],
        axis=1,
    ).astype(np.int32)
    baselines = random.integers(0, height + 1, lines).astype(np.int32)
    return quads_Q3, offsets, baselines, widths, pixels, entries, height


def assert_same(arguments):
    (lines, clipped), (right, counts) = fast.compose(*arguments), reference.compose(*arguments)
    assert np.array_equal(lines.pixels_N, right.pixels_N) and np.array_equal(lines.width_B, right.width_B)
    assert clipped.dtype == counts.dtype and np.array_equal(clipped, counts)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**9), st.sampled_from(HEIGHTS), st.integers(0, 5), st.integers(0, 7), st.integers(0, 20))
def test_equals_the_reference(seed, height, lines, quads, reach):
    assert_same(case(seed, height, lines, quads, reach))


def test_no_lines_no_quads_empty_lines():
    arguments = list(case(0, 32, 3, 0, 0))
    arguments[3] = np.array([1, 0, 5], np.int32)
    lines, clipped = fast.compose(*arguments)
    assert lines.offsets_B1.tolist() == [0, 32, 32, 192] and clipped.tolist() == [0, 0, 0]
    assert (lines.pixels_N == reference.BACKGROUND).all()
    assert_same(case(0, 32, 0, 0, 0))


def test_every_byte_is_written(monkeypatch):
    # Output memory is taken unfilled: poison it, so that a hole would show.
    arguments = case(3, 32, 4, 5, 10)
    monkeypatch.setattr(fast.np, "empty", lambda shape, dtype: np.full(shape, 0xA5, dtype))
    assert_same(arguments)


def test_ink_outside_is_counted_and_nothing_else_is_touched():
    pixels = np.array([255, 0, 255, 255], np.uint8)
    entries = np.array([[0, 2, 2, 0, 0]], np.int32)

    def drawn(x: int, baseline: int):
        quads = np.array([[0, x, 0]], np.int32)
        arguments = (
            quads,
            np.array([0, 1]),
            np.array([baseline], np.int32),
            np.array([3], np.int32),
            pixels,
            entries,
            4,
        )
        assert_same(arguments)
        lines, clipped = fast.compose(*arguments)
        return lines.image(0), int(clipped[0])

    inside, clipped = drawn(1, 0)
    assert clipped == 0 and inside.tolist() == [[255, 0, 255], [255, 0, 0], [255] * 3, [255] * 3]
    assert drawn(2, 0)[1] == 1  # of the right column only the inked pixel counts
    assert drawn(-1, 0)[1] == 2
    assert drawn(0, 3)[1] == 2
    assert drawn(0, -2)[1] == 3
    assert (drawn(40, 0)[0] == 255).all()


def test_pixels_of_one_line_never_reach_the_next():
    height = 24
    arguments = case(11, height, 5, 7, 30)
    together, _ = fast.compose(*arguments)
    quads, quad_offsets, baselines, widths, pixels, entries, _ = arguments
    for line in range(5):
        mine = quads[quad_offsets[line] : quad_offsets[line + 1]]
        alone, _ = fast.compose(
            *(mine, np.array([0, len(mine)]), baselines[line : line + 1], widths[line : line + 1]),
            *(pixels, entries, height),
        )
        assert np.array_equal(alone.image(0), together.image(line))


@pytest.mark.parametrize("below", [0, 1, 77, 128, 254, 255])
def test_over_is_rounded_coverage(below):
    for above in range(256):
        exact = above + below * (255 - above) / 255
        assert reference.over(below, above) == int(exact + 0.5)
        assert reference.over(above, below) == reference.over(below, above)

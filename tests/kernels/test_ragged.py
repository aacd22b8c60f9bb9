"""Ragged lines: what goes in comes out, sizes are checked once, tensors behave as arrays do."""

import numpy as np
import pytest
from khmer_ocr_kernels.ragged import RaggedLines, line_offsets

WIDTHS = (3, 0, 7)


def images(height=5):
    random = np.random.default_rng(height)
    return [random.integers(0, 256, (height, width), np.uint8) for width in WIDTHS]


def padded(lines):
    batch = np.full((len(lines), lines.height_px, 9), 77, np.uint8)
    for row, line, width in zip(batch, range(len(lines)), lines.width_B, strict=True):
        row[:, :width] = lines.image(line)
    return batch


def test_images_come_out_as_they_went_in():
    lines = RaggedLines.of_images(images())
    assert len(lines) == 3 and lines.height_px == 5 and lines.width_B.tolist() == list(WIDTHS)
    assert lines.offsets_B1.tolist() == [0, 15, 15, 50] and lines.offsets_B1.dtype == np.int64
    assert all(np.array_equal(lines.image(n), image) for n, image in enumerate(images()))
    assert np.shares_memory(lines.image(2), lines.pixels_N)


def test_padding_is_taken_off():
    lines = RaggedLines.of_images(images())
    again = RaggedLines.of_padded(padded(lines), lines.width_B)
    assert np.array_equal(again.pixels_N, lines.pixels_N) and again.height_px == 5
    nothing = RaggedLines.of_padded(np.zeros((0, 5, 9), np.uint8), np.zeros(0, np.int32))
    assert len(nothing) == len(nothing.pixels_N) == 0 and nothing.offsets_B1.tolist() == [0]


def test_tensors_are_treated_as_arrays_are():
    torch = pytest.importorskip("torch")
    lines = RaggedLines.of_images(images())
    there = RaggedLines.of_images([torch.from_numpy(image) for image in images()])
    assert isinstance(there.pixels_N, torch.Tensor) and np.array_equal(there.pixels_N.numpy(), lines.pixels_N)
    assert isinstance(there.width_B, np.ndarray) and np.array_equal(there.image(2).numpy(), lines.image(2))
    again = RaggedLines.of_padded(torch.from_numpy(padded(lines)), lines.width_B)
    assert torch.equal(again.pixels_N, there.pixels_N)
    with pytest.raises(ValueError, match=r"pixels_N is int16\(50,\), expected uint8"):
        RaggedLines(there.pixels_N.to(torch.int16), there.width_B, 5)


@pytest.mark.gpu
def test_padding_is_taken_off_on_a_device():
    from tests.gpu import require_cuda

    require_cuda()
    import torch

    lines = RaggedLines.of_images(images())
    again = RaggedLines.of_padded(torch.from_numpy(padded(lines)).cuda(), lines.width_B)
    assert again.pixels_N.is_cuda and np.array_equal(again.pixels_N.cpu().numpy(), lines.pixels_N)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pixels, widths: (pixels.astype(np.int16), widths, 32), r"pixels_N is int16\(1504,\), expected uint8"),
        (lambda pixels, widths: (pixels.reshape(32, -1), widths, 32), r"pixels_N is uint8\(32, 47\), expected uint8"),
        (lambda pixels, widths: (np.repeat(pixels, 2)[::2], widths, 32), "with gaps, expected uint8 in one row"),
        (
            lambda pixels, widths: (pixels[:-1], widths, 32),
            "1503 pixels; 2 lines of these widths, 32 px high, have 1504",
        ),
        (lambda pixels, widths: (pixels, widths, 31), "1504 pixels; 2 lines of these widths, 31 px high, have 1457"),
        (lambda pixels, widths: (pixels, widths, 0), "height 0 px"),
        (lambda pixels, widths: (pixels, widths.astype(np.int64), 32), r"width_B is int64\(2,\), expected int32"),
        (lambda pixels, widths: (pixels, widths * -1, 32), "narrowest line -40 px"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RaggedLines(*change(np.zeros(1504, np.uint8), np.array([40, 7], np.int32)))


def test_millions_of_bytes_do_not_overflow_offsets():
    widths = np.full(3, 30_000, np.int32)
    assert line_offsets(widths, 96_000).tolist()[-1] == 3 * 30_000 * 96_000

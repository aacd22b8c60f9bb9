"""Drawn lines as PNG files, each by itself: a file's bytes depend on its pixels and on `ENCODING_VERSION` alone."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from khmer_ocr_kernels import png_encoder


def encode_lines(
    pixels_N: npt.NDArray[np.uint8], offsets_B1: npt.NDArray[np.int64], width_B: npt.NDArray[np.int32], height_px: int
) -> list[bytes]:
    """Encode ragged lines.

    Args:
        pixels_N: uint8 pixels of all lines.
        offsets_B1: int64 beginning of each line, and the end.
        width_B: int32 widths in px.
        height_px: height of every line.

    Returns:
        One PNG file each.
    """
    files, begins_B1 = png_encoder.encode(pixels_N, offsets_B1, width_B, height_px)
    together, places = memoryview(files.data), begins_B1.tolist()
    return [bytes(together[begin:end]) for begin, end in pairwise(places)]

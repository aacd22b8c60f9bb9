"""Drawn lines as PNG files, each by itself: a file's bytes depend on its pixels and on `ENCODING_VERSION` alone."""

from itertools import pairwise

from khmer_ocr_kernels import png_encoder
from khmer_ocr_kernels.ragged import RaggedLines


def encode_lines(lines: RaggedLines) -> list[bytes]:
    """One PNG file for each line; lines are at least 1 px wide."""
    files, begins_B1 = png_encoder.encode(lines)
    together, places = memoryview(files.data), begins_B1.tolist()
    return [bytes(together[begin:end]) for begin, end in pairwise(places)]

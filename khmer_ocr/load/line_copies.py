"""Lines out of one flat array of pixels into a padded batch, and the sums that guard them: compiled loops.

Letters: N bytes of pixels, K words of 8 bytes, L lines to gather, B lines of the batch, H rows, X columns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from khmer_ocr_kernels.jit import compiled

WORD_BYTES = 8
"""A line begins at a multiple of it, so that sums go word by word."""
_FNV_BASIS = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)


@compiled
def copy_lines(
    pixels_N: npt.NDArray[np.uint8],
    begin_L: npt.NDArray[np.int64],
    width_L: npt.NDArray[np.int64],
    row_L: npt.NDArray[np.int64],
    paper: int,
    out_BHX: npt.NDArray[np.uint8],
) -> None:
    """Copy line l, which begins at `pixels_N[begin_L[l]]`, to `out_BHX[row_L[l]]` and fill what is right of it."""
    height = out_BHX.shape[1]
    for line in range(len(row_L)):
        width, at = width_L[line], begin_L[line]
        page = out_BHX[row_L[line]]
        for y in range(height):
            page[y, :width] = pixels_N[at : at + width]
            page[y, width:] = paper
            at += width


@compiled
def look_up_lines(
    pixels_N: npt.NDArray[np.uint8],
    begin_L: npt.NDArray[np.int64],
    width_L: npt.NDArray[np.int64],
    row_L: npt.NDArray[np.int64],
    paper: int,
    bits_256: npt.NDArray[np.unsignedinteger[Any]],
    out_BHX: npt.NDArray[np.unsignedinteger[Any]],
) -> None:
    """Do what `copy_lines` does, with `bits_256[pixel]` in place of each pixel."""
    height = out_BHX.shape[1]
    for line in range(len(row_L)):
        width, at = width_L[line], begin_L[line]
        page = out_BHX[row_L[line]]
        for y in range(height):
            source = pixels_N[at : at + width]
            for x in range(width):
                page[y, x] = bits_256[source[x]]
            page[y, width:] = bits_256[paper]
            at += width


@compiled
def line_sums(
    word_K: npt.NDArray[np.uint64], begin_L: npt.NDArray[np.int64], bytes_L: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Sum each line: FNV-1a over words, of which no changed word goes unseen; the bytes of a last part word are zeros.

    Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm", RFC 9923, over words of 64 bits.
    """
    sums_L = np.empty(len(begin_L), np.uint64)
    for line in range(len(begin_L)):
        first = begin_L[line] // WORD_BYTES
        total = _FNV_BASIS
        for k in range(first, first + (bytes_L[line] + WORD_BYTES - 1) // WORD_BYTES):
            total = (total ^ word_K[k]) * _FNV_PRIME
        sums_L[line] = total
    return sums_L
